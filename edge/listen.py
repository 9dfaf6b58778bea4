# SPDX-License-Identifier: Apache-2.0
"""A subscriber: what `posewire listen` and the demo show of the poses that a broker carries."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from posewire.errors import ExitCode

from . import messages
from .config import split_broker
from .errors import EdgeError
from .link import Broker, Link, LinkError

FPS_OVER_S = 2.0


@dataclass(frozen=True)
class Pose:
    """One frame as it arrived. ``payload`` is the message, byte for byte."""

    node: str
    camera: str
    seq: int
    people: int
    latency_ms: float
    fps: float | None  # of this camera, over the last two seconds, by arrival
    gap: int  # frames missing between this one and the one before
    payload: bytes

    def line(self) -> str:
        """What a person reads."""
        fps = "  -  " if self.fps is None else f"{self.fps:5.1f}"
        gap = f"  ({self.gap} dropped before)" if self.gap else ""
        return (
            f"{self.node}/{self.camera}  seq {self.seq:6d}  people {self.people:2d}  "
            f"latency {self.latency_ms:6.1f} ms  fps {fps}{gap}"
        )


@dataclass
class _Camera:
    arrivals: deque[float] = field(default_factory=deque)
    seq: int | None = None

    def arrived(self, now: float, seq: int) -> tuple[float | None, int]:
        self.arrivals.append(now)
        while self.arrivals[0] < now - FPS_OVER_S:
            self.arrivals.popleft()
        last, self.seq = self.seq, seq
        span = now - self.arrivals[0]
        fps = (len(self.arrivals) - 1) / span if span > 0 else None
        return fps, max(0, seq - last - 1) if last is not None else 0


class Listener:
    """``on_pose`` and ``on_state(topic, state)`` are called from :meth:`run`'s thread.

    ``on_flaw(topic, what)`` hears of payloads that are against their schema; those go no further.
    """

    def __init__(
        self,
        broker: Broker,
        *,
        node: str | None = None,
        camera: str | None = None,
        on_pose: Callable[[Pose], None],
        on_state: Callable[[str, dict[str, Any]], None] = lambda topic, state: None,
        on_flaw: Callable[[str, str], None] = lambda topic, what: None,
    ) -> None:
        self._broker = broker
        self._topics = messages.Topics(node or "+")
        self._camera = camera or "+"
        self._on_pose, self._on_state, self._on_flaw = on_pose, on_state, on_flaw
        self._cameras: dict[tuple[str, str], _Camera] = {}

    def run(
        self, stopping: Callable[[], bool], on_ready: Callable[[], None] = lambda: None
    ) -> None:
        """Listens until ``stopping()``; ``on_ready`` is called once the broker has consented.

        Raises EdgeError (UNAVAILABLE): the broker is not there, refuses us, or went away.
        """
        link = self._open(stopping)
        try:
            topics = [
                self._topics.status,
                self._topics.camera_status(self._camera),
                self._topics.poses(self._camera),
            ]
            link.subscribe(topics, qos=1)
            on_ready()
            while not stopping():
                link.step(0.2)
        except LinkError:
            if not stopping():
                raise
        finally:
            link.close()
            link.drop()

    def _open(self, stopping: Callable[[], bool]) -> Link:
        """MQTT 5, or 3.1.1 for a broker that speaks only that."""
        for version in ("5", "3.1.1"):
            client_id = f"posewire-listen-{os.getpid()}-{time.monotonic_ns() % 10**6}"
            link = Link(self._broker, client_id, version, on_message=self._on_message)
            try:
                link.open(stopping)
                return link
            except LinkError as error:
                link.drop()
                if version == "3.1.1" or error.cause not in ("protocol", "closed"):
                    raise
        raise AssertionError("unreachable")

    def _on_message(self, topic: str, payload: bytes) -> None:
        schema = messages.schema_of(topic)
        if schema is None:
            return
        flaw = messages.flaw(schema, payload)
        if flaw:
            self._on_flaw(topic, flaw)
            return
        value = messages.loads(payload)
        if schema != "poses":
            self._on_state(topic, value)
            return
        key = value["node"], value["camera"]
        camera = self._cameras.setdefault(key, _Camera())
        fps, gap = camera.arrived(time.monotonic(), value["seq"])
        self._on_pose(
            Pose(
                node=value["node"],
                camera=value["camera"],
                seq=value["seq"],
                people=len(value["people"]),
                latency_ms=value["lat_ms"]["total"],
                fps=fps,
                gap=gap,
                payload=payload,
            )
        )


def broker_at(
    url: str,
    *,
    username: str | None = None,
    password_file: str | None = None,
    ca_file: str | None = None,
    insecure: bool = False,
) -> Broker:
    """From what stands on a command line. Raises EdgeError (USAGE, CONFIG)."""
    from .config import Mqtt

    try:
        host, port, tls = split_broker(url)
        keys = Mqtt.model_validate(
            {
                "url": url,
                "username": username,
                "password_file": password_file,
                "ca_file": ca_file,
                "insecure": insecure,
            }
        )
    except ValueError as error:
        raise EdgeError(_plain(error), ExitCode.USAGE) from None
    return Broker(
        host=host,
        port=port,
        tls=tls,
        insecure=insecure,
        ca_file=keys.ca_file,
        username=username,
        password=keys.password(),
    )


def _plain(error: ValueError) -> str:
    """A pydantic error's own words, or the error as it is."""
    problems = getattr(error, "errors", None)
    if problems is None:
        return str(error)
    first = problems()[0]
    return str(first.get("ctx", {}).get("error", first["msg"]))
