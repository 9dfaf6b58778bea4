# SPDX-License-Identifier: Apache-2.0
"""The real posewire-engine with its fake runtime: daemon, `run` and the demo, all the way."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from posewire.edge import messages
from posewire.edge.engine import engine_command

from posewire.bundle import write_bundle
from posewire.errors import PosewireError

ROOT = Path(__file__).parents[2]
CORPUS = ROOT / "tests" / "golden" / "bundles"
POSES, DOOR = "posewire/n1/door/poses", "posewire/n1/door/status"

Make = Callable[..., Any]
Wait = Callable[..., None]


@pytest.fixture(autouse=True)
def engine() -> str:
    try:
        return engine_command()[0]
    except PosewireError as error:
        pytest.skip(str(error))


@pytest.fixture
def make_bundle(tmp_path: Path) -> Callable[..., Path]:
    """A compiled bundle for the fake runtime; keys of its file as arguments."""

    def make(**keys: Any) -> Path:
        manifest = json.loads((CORPUS / "good_compiled.json").read_text("utf-8"))["manifest"]
        del manifest["files"]
        manifest["artifacts"][0].update(files=["fake.json"], format="fake", precision="fp32")
        manifest["target"].update(
            name="fake", runtime="fake", runtime_version="1", precision="fp32"
        )
        files = {"fake.json": json.dumps({"schema": 1, "amplitude": 0.101, **keys}).encode()}
        write_bundle(tmp_path / "fake", manifest, files, replace=True)
        return tmp_path / "fake"

    return make


class Program:
    """A program of ours as a process, its stderr in a file."""

    def __init__(self, folder: Path, *command: str) -> None:
        self.log = folder / "program.log"
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-P", *command], cwd=folder, stdout=subprocess.PIPE, stderr=log
            )

    def said(self) -> str:
        return self.log.read_text("utf-8", "replace")

    def ends(self, seconds: float = 90) -> int:
        try:
            return self.process.wait(seconds)
        finally:
            self.process.kill()


def serve(folder: Path, broker: Any, bundle: Path, cameras: dict[str, str]) -> Program:
    config = folder / "posewire.toml"
    sections = "".join(f'[cameras.{name}]\nuri = "{uri}"\n' for name, uri in cameras.items())
    config.write_text(
        f'node = "n1"\n[bundle]\npath = "{bundle}"\n[mqtt]\nurl = "{broker.url}"\n{sections}'
        "[engine]\nheartbeat_s = 2.0\n[health]\ninterval_s = 0.5\n"
    )
    return Program(folder, "-m", "posewire.cli", "serve", str(config))


def test_two_synthetic_cameras_end_to_end(
    broker: Any, subscribe: Make, make_bundle: Make, wait_for: Wait, tmp_path: Path
) -> None:
    heard = subscribe(broker)
    uris = {"door": "synthetic:?frames=60", "hall": "synthetic:?frames=30&width=320&height=240"}
    daemon = serve(tmp_path, broker, make_bundle(), uris)
    assert daemon.ends() == 0, daemon.said()
    wait_for(lambda: heard.last("posewire/n1/status") == {"state": "stopped"}, "stopped")
    assert heard.flaws == []
    assert [body["seq"] for body in heard.payloads(POSES)] == list(range(60))
    assert [body["seq"] for body in heard.payloads("posewire/n1/hall/poses")] == list(range(30))
    for _, payload, _, _ in heard.got:
        assert b"NaN" not in payload
    info = heard.last("posewire/n1/info")
    people = [person for body in heard.payloads(POSES) for person in body["people"]]
    assert people
    assert {len(person["kp"]) for person in people} == {3 * len(info["skeleton"]["keypoints"])}
    assert heard.last(DOOR)["state"] == "ended"


def test_tensors_of_nan_never_reach_the_wire(
    broker: Any, subscribe: Make, make_bundle: Make, wait_for: Wait, tmp_path: Path
) -> None:
    heard = subscribe(broker)
    daemon = serve(tmp_path, broker, make_bundle(nan_every=2), {"door": "synthetic:?frames=20"})
    assert daemon.ends() == 0, daemon.said()
    wait_for(lambda: heard.last("posewire/n1/status") == {"state": "stopped"}, "stopped")
    assert heard.flaws == []
    assert heard.count(POSES) == 20


def test_an_inference_that_hangs_is_killed_and_restarted(
    broker: Any, subscribe: Make, make_bundle: Make, wait_for: Wait, tmp_path: Path
) -> None:
    heard = subscribe(broker)
    daemon = serve(tmp_path, broker, make_bundle(hang_at=10), {"door": "synthetic:?fps=50"})
    wait_for(lambda: "the engine hung (" in daemon.said(), "the hang is seen", 30)
    wait_for(lambda: "online" in [s["state"] for s in heard.payloads(DOOR)[3:]], "a restart", 30)
    daemon.process.terminate()
    assert daemon.ends() == 0


def test_an_absent_camera_does_not_keep_the_other_from_working(
    broker: Any, subscribe: Make, make_bundle: Make, wait_for: Wait, tmp_path: Path
) -> None:
    heard = subscribe(broker)
    uris = {"door": "v4l2:/dev/video99", "hall": "synthetic:?fps=20"}
    daemon = serve(tmp_path, broker, make_bundle(), uris)
    wait_for(lambda: heard.count("posewire/n1/hall/poses") > 20, "the other camera's poses")
    state = heard.last(DOOR)
    assert state["state"] == "offline"
    assert "/dev/video99" in state["why"]
    daemon.process.terminate()
    assert daemon.ends() == 0


def test_a_damaged_bundle_is_65(broker: Any, make_bundle: Make, tmp_path: Path) -> None:
    bundle = make_bundle()
    (bundle / "fake.json").write_bytes(b"{}")
    daemon = serve(tmp_path, broker, bundle, {"door": "synthetic:?frames=5"})
    assert daemon.ends() == 65
    assert "fake.json: has 2 bytes, the manifest says" in daemon.said().splitlines()[-1]


def run(folder: Path, bundle: Path, *more: str) -> Program:
    return Program(folder, "-m", "posewire.cli", "run", "--model", str(bundle), *more)


def test_run_writes_what_it_was_asked_for(make_bundle: Make, tmp_path: Path) -> None:
    more = ("--source", "synthetic:?frames=25", "--save", "o.mp4", "--json", "o.jsonl")
    program = run(tmp_path, make_bundle(), *more)
    assert program.ends() == 0, program.said()
    lines = (tmp_path / "o.jsonl").read_bytes().splitlines()
    assert [messages.flaw("poses", line) for line in lines] == [None] * 25
    assert (tmp_path / "o.mp4").stat().st_size > 1000
    assert "25 frames" in program.said()


def test_ctrl_c_finishes_the_outputs(make_bundle: Make, wait_for: Wait, tmp_path: Path) -> None:
    more = ("--source", "synthetic:?fps=30", "--json", "o.jsonl")
    program = run(tmp_path, make_bundle(), *more)
    wait_for(lambda: any(_lines(part) > 10 for part in tmp_path.glob("*o.jsonl*")), "frames")
    program.process.send_signal(signal.SIGINT)
    assert program.ends() == 130
    lines = (tmp_path / "o.jsonl").read_bytes().splitlines()
    assert len(lines) > 10
    assert [messages.flaw("poses", line) for line in lines] == [None] * len(lines)


def _lines(path: Path) -> int:
    try:
        return path.read_bytes().count(b"\n")
    except OSError:
        return 0


@pytest.mark.parametrize(
    ("more", "code", "said"),
    [
        (("--source", "v4l2:/dev/video99"), 66, "/dev/video99"),
        (("--source", "carrier-pigeon:1"), 78, 'unknown source "carrier-pigeon:"'),
        (("--source", "synthetic:?frames=3", "--json", "/nowhere/o.jsonl"), 73, "/nowhere"),
    ],
)
def test_run_names_what_is_wrong(
    make_bundle: Make, tmp_path: Path, more: tuple[str, ...], code: int, said: str
) -> None:
    program = run(tmp_path, make_bundle(), *more)
    assert program.ends() == code
    assert said in program.said().splitlines()[-1]


def demo(folder: Path, bundle: Path, source: str) -> Program:
    script = str(ROOT / "scripts" / "demo.py")
    return Program(folder, script, source, "--bundle", str(bundle), "--out", str(folder / "out"))


def test_the_demo_leaves_its_three_files(make_bundle: Make, broker: Any, tmp_path: Path) -> None:
    program = demo(tmp_path, make_bundle(), "synthetic:?frames=40")
    assert program.ends() == 0, program.said()
    out = tmp_path / "out"
    lines = (out / "poses.jsonl").read_bytes().splitlines()
    assert [json.loads(line)["seq"] for line in lines] == list(range(40))
    assert (out / "frames.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(os.listdir(out)) == ["annotated.mp4", "frames.png", "poses.jsonl"]
    assert "40 messages" in program.said()


def test_the_demo_without_its_source_keeps_the_old_files(
    make_bundle: Make, broker: Any, tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "poses.jsonl").write_text("good")
    assert demo(tmp_path, make_bundle(), "absent.mp4").ends() == 66
    damaged = tmp_path / "damaged.mp4"
    damaged.write_bytes(b"not a video" * 100)
    assert demo(tmp_path, make_bundle(), str(damaged)).ends() == 66
    assert os.listdir(tmp_path / "out") == ["poses.jsonl"]
    assert (tmp_path / "out" / "poses.jsonl").read_text() == "good"


def test_ctrl_c_ends_the_demo_of_a_camera_with_its_files(
    make_bundle: Make, broker: Any, wait_for: Wait, tmp_path: Path
) -> None:
    program = demo(tmp_path, make_bundle(), "synthetic:?fps=30&width=160&height=120")
    wait_for(lambda: "seq     20" in program.said(), "frames", 60)
    program.process.send_signal(signal.SIGINT)
    assert program.ends() == 0, program.said()
    assert _lines(tmp_path / "out" / "poses.jsonl") > 20
    time.sleep(0.2)
    assert "mosquitto.conf" not in _commands(tmp_path)


def _commands(folder: Path) -> str:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            environment = (process / "environ").read_bytes()
            if f"PWD={folder}".encode() in environment:
                found.append((process / "cmdline").read_bytes().decode())
        except OSError:
            continue
    return "\n".join(found)
