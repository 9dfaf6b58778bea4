# SPDX-License-Identifier: Apache-2.0
"""The engine's protocol, read with suspicion; the schemas and topics of what goes on the wire."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from posewire.edge import messages
from posewire.edge.events import read_event

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text()
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
POSE = {
    "schema": "posewire.poses/1",
    "node": "n1",
    "camera": "door",
    "seq": 812,
    "t_capture": "2026-01-02T03:04:05.123Z",
    "image": {"width": 1280, "height": 720},
    "skeleton": "coco17",
    "model": {"id": "x", "sha256": "ab12", "precision": "int8"},
    "lat_ms": {"infer": 7.1, "total": 31.0},
    "people": [{"track": 7, "score": 0.91, "box": [0.1, 0.2, 0.3, 0.4], "kp": [0.5, 0.5, 1]}],
}


@given(JSON, st.integers(0, 3), st.booleans())
def test_a_payload_is_forwarded_byte_for_byte(extra: object, indent: int, first: bool) -> None:
    payload = json.dumps({"camera": "door", "seq": 1, "extra": extra}, ensure_ascii=False)
    padding = " " * indent
    event, body = f'"event":{padding}"frame"', f'"payload":{padding}{payload}'
    more = f'"more"{padding}:{json.dumps(extra)}'
    parts = [event, more, body] if first else [body, more, event]
    line = ("{" + f",{padding}".join(parts) + padding + "}\n").encode("utf-8", "surrogatepass")
    assert read_event(line).payload == payload.encode("utf-8", "surrogatepass")


def test_the_fast_form() -> None:
    payload = b'{"camera":"a","seq":1,"x":"}}","payload":{}}'
    assert read_event(b'{"event":"frame","payload":' + payload + b"}\n").payload == payload
    payload = b'{"camera":"a","seq":1,"x":[{}]}'
    line = b'{"event":"frame","payload":' + payload + b',"x":{"a":{}}}\n'
    assert read_event(line).payload == payload


@pytest.mark.parametrize("fps", ["1e999", "-1", "true", '"1"', "NaN"])
def test_statistics_that_are_no_numbers(fps: str) -> None:
    with pytest.raises(ValueError, match=r"fps|NaN"):
        read_event(f'{{"event":"stats","operators":[],"cameras":[],"fps":{fps}}}'.encode())


@given(st.binary(max_size=200))
def test_any_bytes_are_an_event_or_a_value_error(line: bytes) -> None:
    with pytest.raises(ValueError, match=r".*"):
        read_event(line)


@given(st.sampled_from(["ready", "frame", "source", "stats", "warning", "stopped"]), JSON, JSON)
def test_any_object_is_an_event_or_a_value_error(kind: str, one: object, two: object) -> None:
    keys = ("payload", "operators", "cameras", "latency_ms", "fps", "camera", "state", "code")
    value = {"event": kind, **{key: (one, two)[i % 2] for i, key in enumerate(keys)}}
    try:
        event = read_event(json.dumps(value).encode())
    except ValueError:
        return
    assert event.kind == kind


@pytest.mark.parametrize("schema", messages.SCHEMAS)
def test_each_schema_is_one_and_forbids_unknown_keys(schema: str) -> None:
    validator = messages.validator(schema)
    validator.check_schema(validator.schema)
    assert validator.schema["additionalProperties"] is False
    assert messages.flaw(schema, b"{}") is not None
    assert messages.flaw(schema, b"nonsense") is not None


def test_design_s_example_follows_the_schema() -> None:
    assert messages.flaw("poses", json.dumps(POSE).encode()) is None


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("schema", "posewire.poses/2", "$.schema: 'posewire.poses/1' was expected"),
        ("camera", "Door", "$.camera: 'Door' does not match"),
        ("seq", -1, "$.seq: -1 is less than the minimum of 0"),
        ("people", [{"score": 2, "box": [0, 0, 0, 0], "kp": [0, 0, 0]}], "$.people[0].score: 2 is"),
        (
            "people",
            [{"score": 1, "box": [0, 0, 0, 0], "kp": [0, True, 0]}],
            "$.people[0].kp[1]: True is not of type 'number'",
        ),
        ("people", None, "$.people: None is not of type 'array'"),
        ("more", 1, "$: Additional properties are not allowed"),
    ],
)
def test_flaws_are_named(key: str, value: object, said: str) -> None:
    flaw = messages.flaw("poses", json.dumps({**POSE, key: value}).encode())
    assert flaw is not None
    assert flaw.startswith(said)


def test_nan_is_no_json() -> None:
    assert messages.flaw("status", b'{"state":NaN}') == "not JSON: NaN is no JSON"


def test_payloads_follow_their_schemas() -> None:
    assert messages.flaw("status", messages.status("online")) is None
    full = messages.camera_status("online", "a reason", (640, 480))
    assert messages.flaw("camera_status", full) is None
    assert messages.flaw("camera_status", messages.camera_status("disabled")) is None
    model = messages.Model("m", "1", "0" * 64, "openvino", "2026.4", "CPU", "int8", None)
    assert messages.flaw("info", messages.info("n1", "1.0", model, ["door"], "off")) is None


@pytest.mark.parametrize(
    ("topic", "schema"),
    [
        ("posewire/n1/status", "status"),
        ("posewire/n1/info", "info"),
        ("posewire/n1/health", "health"),
        ("posewire/n1/door/status", "camera_status"),
        ("posewire/n1/door/poses", "poses"),
        ("posewire/n1/door", None),
        ("posewire/n1/door/poses/more", None),
        ("other/n1/door/poses", None),
    ],
)
def test_topics(topic: str, schema: str | None) -> None:
    assert messages.schema_of(topic) == schema
