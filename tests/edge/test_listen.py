# SPDX-License-Identifier: Apache-2.0
"""`posewire listen` against a real Mosquitto: what it prints, checks, and ends with."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import paho.mqtt.client as paho
import pytest

Make = Callable[..., Any]
POSES = "posewire/n1/door/poses"


def pose(seq: int, **more: Any) -> bytes:
    value = {
        "schema": "posewire.poses/1",
        "node": "n1",
        "camera": "door",
        "seq": seq,
        "t_capture": "2026-01-02T03:04:05.123Z",
        "image": {"width": 1280, "height": 720},
        "skeleton": "coco17",
        "model": {"id": "x", "sha256": "ab12", "precision": "int8"},
        "lat_ms": {"infer": 7.1, "total": 31.0},
        "people": [],
        **more,
    }
    return json.dumps(value).encode()


class Listen:
    """The verb as a process; the constructor returns once it listens."""

    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "posewire.cli", "listen", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stderr
        self.first = self.process.stderr.readline()

    def ends(self) -> tuple[int, list[str], str]:
        out, said = self.process.communicate(timeout=60)
        return self.process.returncode, out.splitlines(), said


def publish(broker: Any, *messages: tuple[str, bytes]) -> None:
    client = paho.Client(paho.CallbackAPIVersion.VERSION2)
    client.connect("127.0.0.1", broker.port)
    client.loop_start()
    for topic, payload in messages:
        client.publish(topic, payload, qos=1).wait_for_publish(10)
    client.disconnect()
    client.loop_stop()


def test_a_line_per_frame(broker: Any) -> None:
    listen = Listen(broker.url, "--camera", "door", "--count", "3")
    other = ("posewire/n1/hall/poses", pose(0, camera="hall"))
    publish(broker, (POSES, pose(4)), other, (POSES, pose(5)), (POSES, pose(8)))
    code, lines, _ = listen.ends()
    assert code == 0
    assert [line.split()[:7] for line in lines] == [
        ["n1/door", "seq", seq, "people", "0", "latency", "31.0"] for seq in "458"
    ]
    assert "(2 dropped before)" in lines[2]


def test_json_is_the_message_as_received(broker: Any) -> None:
    listen = Listen(broker.url, "--json", "--count", "2")
    spread = json.dumps(json.loads(pose(1)), indent=2).encode()
    publish(broker, (POSES, pose(0)), (POSES, spread))
    code, lines, _ = listen.ends()
    assert code == 0
    assert lines[0].encode() == pose(0)
    assert json.loads(lines[1]) == json.loads(pose(1))


def test_a_payload_against_its_schema_is_told_and_is_1(broker: Any) -> None:
    listen = Listen(broker.url, "--count", "1")
    publish(broker, (POSES, pose(0, people=[{}])), (POSES, b"\xff"), (POSES, pose(1)))
    code, lines, said = listen.ends()
    assert code == 1
    assert len(lines) == 1
    assert f"{POSES}: against its schema: $.people[0]: 'score' is a required" in said
    assert f"{POSES}: against its schema: not JSON" in said


def test_states_are_told(broker: Any) -> None:
    listen = Listen(broker.url, "--count", "1")
    gone = b'{"state":"offline","why":"no such device"}'
    publish(broker, ("posewire/n1/door/status", gone), (POSES, pose(0)))
    assert "posewire: n1/door is offline: no such device" in listen.ends()[2]


def test_silence_is_69_when_a_limit_was_given(broker: Any) -> None:
    code, _, said = Listen(broker.url, "--timeout", "0.5").ends()
    assert code == 69
    assert said.endswith("posewire: error: no pose for 0.5 s\n")


def test_a_broker_that_goes_away_is_69(broker: Any) -> None:
    listen = Listen(broker.url)
    broker.stop()
    code, _, said = listen.ends()
    assert code == 69
    assert said == f"posewire: error: {broker.url}: connection lost\n"


def test_a_broker_that_refuses_is_69(make_broker: Make, tmp_path: Any) -> None:
    (tmp_path / "users").write_text("")
    broker = make_broker(f"password_file {tmp_path / 'users'}")
    broker.start()
    listen = Listen(broker.url)
    assert "refuses us: Not authorized" in listen.first
    assert listen.ends()[0] == 69


def test_ctrl_c_is_130(broker: Any) -> None:
    listen = Listen(broker.url)
    listen.process.send_signal(signal.SIGINT)
    assert listen.ends()[0] == 130


@pytest.mark.parametrize("answer", [b"\x20\x02\x00\x01", b""], ids=["says so", "closes"])
def test_a_broker_of_an_older_protocol(answer: bytes) -> None:
    """Refuses MQTT 5 as old brokers do: by a 3.1.1 CONNACK with code 1, or without a word."""
    versions = []

    def serve(listener: socket.socket) -> None:
        for _ in range(2):
            connection, _ = listener.accept()
            with connection:
                hello = connection.recv(4096)
                versions.append(hello[8])
                connection.sendall(b"\x20\x02\x00\x05" if hello[8] == 4 else answer)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        listen = Listen(f"mqtt://127.0.0.1:{listener.getsockname()[1]}")
        assert listen.ends()[0] == 69
        thread.join(10)
    assert versions == [5, 4]
    assert "refuses us: Not authorized" in listen.first
