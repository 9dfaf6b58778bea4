# SPDX-License-Identifier: Apache-2.0
"""Every topic and payload of DESIGN 3.5 on one page; ``posewire/schemas/*.json`` say the same.

=========================  ===================  ======  =====================================
topic below posewire/<node>  schema               QoS     kind
=========================  ===================  ======  =====================================
status                     status.json          1       retained, last will
info                       info.json            1       retained
health                     health.json          0       every [health] interval_s
<camera>/status            camera_status.json   1       retained
<camera>/poses             poses.json           0 or 1  expires after 2 s; made by the engine
=========================  ===================  ======  =====================================
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import cache
from pathlib import Path
from typing import Any, Literal

import posewire

CONTENT_TYPE = "application/json"
EXPIRY_S = 2  # of poses: a late pose is worth nothing
SCHEMAS = ("status", "info", "health", "camera_status", "poses")

NodeState = Literal["online", "stopped", "offline"]
CameraState = Literal["online", "offline", "disabled", "ended"]


@dataclass(frozen=True)
class Topics:
    """The topics of one node; "+" as the node or camera gives subscription filters."""

    node: str

    @property
    def status(self) -> str:
        return f"posewire/{self.node}/status"

    @property
    def info(self) -> str:
        return f"posewire/{self.node}/info"

    @property
    def health(self) -> str:
        return f"posewire/{self.node}/health"

    def camera_status(self, camera: str) -> str:
        return f"posewire/{self.node}/{camera}/status"

    def poses(self, camera: str) -> str:
        return f"posewire/{self.node}/{camera}/poses"


def schema_of(topic: str) -> str | None:
    """Which of SCHEMAS a topic's payload follows; None for a topic that is not ours."""
    match topic.split("/"):
        case ["posewire", _, ("status" | "info" | "health") as name]:
            return name
        case ["posewire", _, _, "status"]:
            return "camera_status"
        case ["posewire", _, _, "poses"]:
            return "poses"
    return None


@cache
def validator(schema: str) -> Any:
    """A jsonschema validator for one of SCHEMAS; imported late: the daemon needs none."""
    from jsonschema import Draft202012Validator, validators  # type: ignore[import-untyped]

    one_by_one = Draft202012Validator.VALIDATORS["items"]

    def items(validator: Any, wanted: Any, instance: Any, schema: Any) -> Iterator[Any]:
        # A crowd has thousands of numbers; asking for each in turn costs ten times as much.
        numbers = wanted == {"type": "number"} and isinstance(instance, list)
        if not (numbers and all(type(value) in (int, float) for value in instance)):
            yield from one_by_one(validator, wanted, instance, schema)

    fast = validators.extend(Draft202012Validator, {"items": items})
    folder = Path(str(posewire.__file__)).parent / "schemas"
    text = (folder / f"{schema}.json").read_text("utf-8")
    return fast(json.loads(text))


def flaw(schema: str, payload: bytes) -> str | None:
    """What is wrong with a payload, in one line; None when it follows its schema."""
    try:
        value = loads(payload)
    except ValueError as error:
        return f"not JSON: {error}"
    problem = next(validator(schema).iter_errors(value), None)
    if problem is None:
        return None
    return f"{problem.json_path}: {problem.message[:200]}"


def loads(payload: bytes) -> Any:
    """JSON as the standard has it: NaN and Infinity, which Python's reader lets pass, are errors.

    Raises ValueError.
    """
    return json.loads(payload, parse_constant=_no_constant)


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def dumps(value: Any) -> bytes:
    """Compact UTF-8 JSON."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def status(state: NodeState) -> bytes:
    return dumps({"state": state})


def camera_status(
    state: CameraState, why: str | None = None, size: tuple[int, int] | None = None
) -> bytes:
    """``size`` is (width, height) of the source's pictures in pixels."""
    value: dict[str, Any] = {"state": state}
    if why:
        value["why"] = why
    if size:
        value["image"] = {"width": size[0], "height": size[1]}
    return dumps(value)


@dataclass(frozen=True)
class Model:
    """What ``info`` says about the bundle that runs; sha256 is that of its manifest."""

    name: str
    version: str
    sha256: str
    runtime: str
    runtime_version: str
    device: str
    precision: str
    skeleton: Mapping[str, Any] | None


@dataclass(frozen=True)
class Update:
    """What ``info`` says about the newest update; slots.py lists the states."""

    state: str
    name: str
    why: str | None


def info(
    node: str,
    version: str,
    model: Model,
    cameras: Sequence[str],
    tls: str,
    update: Update | None = None,
) -> bytes:
    """``tls`` is "verified", "insecure" or "off"; ``update`` None: there was none yet."""
    skeleton = model.skeleton and {
        key: model.skeleton[key] for key in ("name", "keypoints", "limbs")
    }
    return dumps(
        {
            "schema": "posewire.info/1",
            "node": node,
            "version": version,
            "bundle": {"name": model.name, "version": model.version, "sha256": model.sha256},
            "runtime": {
                "name": model.runtime,
                "version": model.runtime_version,
                "device": model.device,
                "precision": model.precision,
            },
            "skeleton": skeleton,
            "cameras": list(cameras),
            "tls": tls,
            "update": update and {"state": update.state, "name": update.name, "why": update.why},
        }
    )


@dataclass(frozen=True)
class Health:
    """The figures of one health message; ``stats`` is the engine's last ``stats`` event."""

    uptime_s: float
    state: str
    starts: int
    hangs: int
    why: str | None
    stats: Mapping[str, Any]
    published: int
    dropped: int
    queued_bytes: int
    connects: int
    rejected: int
    temperature_c: float | None
    daemon_mb: float | None
    engine_mb: float | None


def health(node: str, figures: Health) -> bytes:
    """Units as in the names; fps is the engine's, over its last statistics interval."""
    stats = figures.stats
    now = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
    latency = stats.get("latency_ms")
    return dumps(
        {
            "schema": "posewire.health/1",
            "node": node,
            "t": now.replace("+00:00", "Z"),
            "uptime_s": round(figures.uptime_s, 1),
            "engine": {
                "state": figures.state,
                "starts": figures.starts,
                "hangs": figures.hangs,
                "why": figures.why,
            },
            "fps": stats.get("fps"),
            "latency_ms": latency and _only(latency, "p50", "p99"),
            "operators": [
                _only(row, "name", "frames", "busy_ms", "depth", "dropped")
                for row in stats.get("operators", ())
            ],
            "cameras": [
                _only(row, "camera", "captured", "published", "dropped")
                for row in stats.get("cameras", ())
            ],
            "mqtt": {
                "published": figures.published,
                "dropped": figures.dropped,
                "queued_bytes": figures.queued_bytes,
                "connects": figures.connects,
            },
            "rejected": figures.rejected,
            "temperature_c": figures.temperature_c,
            "memory_mb": {"daemon": figures.daemon_mb, "engine": figures.engine_mb},
        }
    )


def _only(row: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    """The wire's keys of an engine's row, which may say more than this version publishes."""
    return {key: row[key] for key in keys}
