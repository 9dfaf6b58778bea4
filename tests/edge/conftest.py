# SPDX-License-Identifier: Apache-2.0
"""A real Mosquitto, a real `posewire serve` process, an engine that fails on demand."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest
from posewire.edge import messages

from posewire.bundle import write_bundle

HERE = Path(__file__).parent
CORPUS = HERE.parent / "golden" / "bundles"


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A compiled bundle; only the fake engine would run it."""
    manifest = json.loads((CORPUS / "good_compiled.json").read_text("utf-8"))["manifest"]
    files = {name: name.encode() for name in manifest.pop("files")}
    write_bundle(tmp_path / "bundle", manifest, files)
    return tmp_path / "bundle"


def _mosquitto() -> str:
    found = shutil.which("mosquitto", path=os.environ.get("PATH", "") + ":/usr/sbin")
    if not found:
        pytest.skip("mosquitto is not installed (scripts/setup.sh installs it)")
    return found


class Broker:
    """A private Mosquitto on a free loopback port. ``lines``: more of its configuration."""

    def __init__(self, folder: Path, *lines: str) -> None:
        self.program = _mosquitto()
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.config = folder / "mosquitto.conf"
        root = ("user root",) if os.geteuid() == 0 else ()  # or it cannot read a test's folder
        access = () if any("password_file" in line for line in lines) else ("allow_anonymous true",)
        self.config.write_text(
            "\n".join((f"listener {self.port} 127.0.0.1", "max_queued_messages 100000",
                       "max_inflight_messages 1000", *access, *root, *lines)) + "\n"
        )  # fmt: skip
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"mqtt://127.0.0.1:{self.port}"

    def start(self) -> None:
        self.process = subprocess.Popen(
            [self.program, "-c", str(self.config)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wait_for(self._listens, "Mosquitto listens")

    def _listens(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
            return True
        return False

    def send(self, number: signal.Signals) -> None:
        assert self.process
        self.process.send_signal(number)

    def stop(self) -> None:
        if self.process and self.process.poll() is None:
            with contextlib.suppress(OSError):
                self.process.send_signal(signal.SIGCONT)
            self.process.kill()
            self.process.wait()


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    broker = Broker(tmp_path)
    broker.start()
    yield broker
    broker.stop()


@pytest.fixture
def make_broker(tmp_path: Path) -> Iterator[Callable[..., Broker]]:
    made: list[Broker] = []

    def make(*lines: str) -> Broker:
        made.append(Broker(tmp_path, *lines))
        return made[-1]

    yield make
    for broker in made:
        broker.stop()


class Subscriber:
    """Collects everything below posewire/ and checks payloads against their schemas on arrival."""

    def __init__(self, port: int) -> None:
        self.got: list[tuple[str, bytes, bool, Any]] = []
        self.flaws: list[str] = []
        self._subscribed = threading.Event()
        client = paho.Client(
            paho.CallbackAPIVersion.VERSION2, protocol=paho.MQTTProtocolVersion.MQTTv5
        )
        client.on_connect = lambda c, *_: c.subscribe("posewire/#", qos=1)
        client.on_subscribe = lambda *_: self._subscribed.set()
        client.on_message = self._on_message
        client.connect("127.0.0.1", port)
        client.loop_start()
        self.client = client
        assert self._subscribed.wait(10)

    def _on_message(self, _client: Any, _data: Any, got: Any) -> None:
        schema = messages.schema_of(got.topic)
        flaw = None if schema else "unknown topic"
        if schema and (schema != "poses" or len(self.got) < 60):  # validating takes its time
            flaw = messages.flaw(schema, got.payload)
        if flaw:
            self.flaws.append(f"{got.topic}: {flaw}")
        self.got.append((got.topic, got.payload, got.retain, got.properties))

    def payloads(self, topic: str) -> list[Any]:
        return [json.loads(body) for name, body, _, _ in list(self.got) if name == topic]

    def count(self, topic: str) -> int:
        return sum(got[0] == topic for got in list(self.got))

    def last(self, topic: str) -> Any:
        found = (got[1] for got in reversed(list(self.got)) if got[0] == topic)
        body = next(found, None)
        return body and json.loads(body)

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


@pytest.fixture
def subscribe() -> Iterator[Callable[[Broker], Subscriber]]:
    made: list[Subscriber] = []

    def make(broker: Broker) -> Subscriber:
        made.append(Subscriber(broker.port))
        return made[-1]

    yield make
    for subscriber in made:
        subscriber.close()


class Serve:
    """`posewire serve` as a process, with the fake engine."""

    def __init__(self, folder: Path, config: str, plans: list[dict[str, Any]]) -> None:
        self.config = folder / "posewire.toml"
        self.config.write_text(config)
        self.log = folder / "serve.log"
        self.starts = folder / "starts"
        self.starts.touch()
        environment = {
            **os.environ,
            "POSEWIRE_ENGINE": str(HERE / "fake_engine.py"),
            "FAKE_ENGINE": json.dumps(plans),
            "FAKE_ENGINE_STARTS": str(self.starts),
            "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}",
        }
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "posewire.cli", "serve", str(self.config)],
                env=environment,
                stderr=log,
                stdout=log,
            )

    def ends(self, seconds: float = 30) -> int:
        return self.process.wait(seconds)

    def said(self) -> str:
        return self.log.read_text("utf-8", "replace")

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(25)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


@pytest.fixture
def serve(
    tmp_path: Path, bundle: Path, request: pytest.FixtureRequest
) -> Iterator[Callable[..., Serve]]:
    """serve(broker, plans, uri=…, mqtt="more keys", keys="of the bundle", rest="more sections")."""
    made: list[Serve] = []

    def make(
        broker: Broker,
        *plans: dict[str, Any],
        uri: str = "synthetic:?frames=20",
        mqtt: str = "",
        keys: str = "",
        rest: str = "",
        folder: Path = tmp_path,
    ) -> Serve:
        config = f"""
            node = "n1"
            [bundle]
            path = "{bundle}"
            {keys}
            [mqtt]
            url = "{broker.url}"
            {mqtt}
            [cameras.door]
            uri = "{uri}"
            {rest}
        """
        made.append(Serve(folder, config, list(plans)))
        return made[-1]

    yield make
    for one in made:
        one.stop()
        with contextlib.suppress(OSError):
            print(one.said())  # pytest shows it when the test fails


def wait_for(condition: Callable[[], object], what: str, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.02)


@pytest.fixture(name="wait_for")
def _wait_for() -> Callable[..., None]:
    return wait_for
