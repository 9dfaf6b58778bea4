# SPDX-License-Identifier: Apache-2.0
"""The engine's protocol: one JSON object a line on its stdout, read with suspicion.

=========  ======================================================================================
event      keys
=========  ======================================================================================
ready      bundle, runtime, requests, max_batch, skeleton, precision
frame      payload: the MQTT message of a frame; its bytes are forwarded as they stand
source     camera, state (online | offline | ended), width, height, why
stats      fps, latency_ms {p50, p99}, operators [{name, frames, busy_ms, depth, dropped}],
           cameras [{camera, captured, published, dropped}]
warning    where, what
stopped    code, frames, why
=========  ======================================================================================
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .messages import loads

MAX_LINE_BYTES = 4 * 1024 * 1024
_FRAME = b'{"event":"frame","payload":'
_decoder = json.JSONDecoder()

_KEYS: dict[str, tuple[tuple[str, type | tuple[type, ...]], ...]] = {
    "ready": (("bundle", str), ("runtime", str), ("precision", str)),
    "frame": (("payload", dict),),
    "source": (("camera", str), ("state", str)),
    "stats": (("operators", list), ("cameras", list)),
    "warning": (("where", str), ("what", str)),
    "stopped": (("code", int), ("frames", int)),
}
_ROWS: dict[str, tuple[str, ...]] = {
    "operators": ("frames", "busy_ms", "depth", "dropped"),
    "cameras": ("captured", "published", "dropped"),
}


@dataclass(frozen=True)
class Event:
    """One line. ``payload``: a frame's message, byte for byte; empty for other events."""

    kind: str
    values: Mapping[str, Any]
    payload: bytes = b""


def read_event(line: bytes) -> Event:
    """Raises ValueError saying what is wrong with the line."""
    value = loads(line)
    if not isinstance(value, dict):
        raise ValueError("is no object")
    kind = value.get("event")
    if not isinstance(kind, str) or kind not in _KEYS:
        raise ValueError(f"unknown event {kind!r}")
    for key, types in _KEYS[kind]:
        if not isinstance(value.get(key), types):
            raise ValueError(f"{kind}: {key} is missing or of the wrong type")
    if kind == "stats":
        _check_stats(value)
    if kind != "frame":
        return Event(kind, value)
    frame = value["payload"]
    if not isinstance(frame.get("camera"), str) or not isinstance(frame.get("seq"), int):
        raise ValueError("frame: its payload names no camera or no seq")
    return Event(kind, frame, _slice(line.strip(), len(value) == 2))


def _slice(line: bytes, bare: bool) -> bytes:
    """The bytes of the payload inside a frame's line, which is known to be good JSON.

    ``bare``: the line has no keys but event and payload, so the payload is what the two leave."""
    if bare and line.startswith(_FRAME) and line.count(b'"payload"') == 1:
        return line[len(_FRAME) : -1].strip()
    text = line.decode()
    position = 1
    while True:  # a top-level key at a time, since a string may hold anything
        position = _skip(text, position, " \t,")
        key, position = _decoder.raw_decode(text, position)
        start = _skip(text, position, " \t:")
        _, position = _decoder.raw_decode(text, start)
        if key == "payload":
            return text[start:position].encode()


def _skip(text: str, position: int, characters: str) -> int:
    while text[position] in characters:
        position += 1
    return position


def _check_stats(value: Mapping[str, Any]) -> None:
    for key, numbers in _ROWS.items():
        for row in value[key]:
            name = "name" if key == "operators" else "camera"
            if not isinstance(row, dict) or not isinstance(row.get(name), str):
                raise ValueError(f"stats: a row of {key} has no {name}")
            if not all(_is_number(row.get(number)) for number in numbers):
                raise ValueError(f"stats: {key} of {row[name]!r} lacks a number")
    latency = value.get("latency_ms")
    if latency is not None:
        if not isinstance(latency, dict):
            raise ValueError("stats: latency_ms is no object")
        for key in ("p50", "p99"):
            if key not in latency or not (latency[key] is None or _is_number(latency[key])):
                raise ValueError(f"stats: latency_ms.{key} is no number")
    if value.get("fps") is not None and not _is_number(value["fps"]):
        raise ValueError("stats: fps is no number")


def _is_number(value: object) -> bool:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return False
    return 0 <= value < math.inf  # "1e999" is JSON, too
