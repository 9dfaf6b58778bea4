# SPDX-License-Identifier: Apache-2.0
"""Portable bundle -> compile child -> OpenVINO -> engine -> MQTT, on pictures with a right answer.

The network is the written-down one of tests/targets: three coloured dots are a person.
"""

from __future__ import annotations

import importlib.util
import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from posewire.edge.engine import engine_command

from posewire.bundle import write_bundle
from posewire.errors import PosewireError

HERE = Path(__file__).parent
POSES = "posewire/n1/door/poses"
WIDTH, HEIGHT = 256, 192

Make = Callable[..., Any]
Wait = Callable[..., None]


@pytest.fixture(scope="module")
def tiny() -> ModuleType:
    """tests/targets/conftest.py: the network, its pictures, and who is where in them."""
    pytest.importorskip("openvino")
    try:
        engine_command()
    except PosewireError as error:
        pytest.skip(str(error))
    path = HERE.parent / "targets" / "conftest.py"
    spec = importlib.util.spec_from_file_location("tiny_network", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def files(tiny: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a portable bundle, pictures and a config without its broker."""
    import cv2

    monkeypatch.delenv("STATE_DIRECTORY", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    content = {"model.onnx": tiny.tiny_onnx().SerializeToString()}
    for i, people in enumerate(tiny.SCENES):
        cv2.imwrite(str(pictures / f"{i:03d}.png"), tiny.picture(people))
        content[f"selftest-{i:02d}.png"] = (pictures / f"{i:03d}.png").read_bytes()
    write_bundle(tmp_path / "portable", tiny.manifest(("fp32",)), content)
    return tmp_path


def serve(files: Path, broker: Any, source: str = "pictures") -> subprocess.Popen[bytes]:
    (files / "posewire.toml").write_text(
        f'node = "n1"\n[bundle]\npath = "portable"\nprecision = "fp32"\n'
        f'[mqtt]\nurl = "{broker.url}"\n[cameras.door]\nuri = "{source}"\n'
    )
    command = [sys.executable, "-P", "-m", "posewire.cli", "serve", "posewire.toml"]
    with open(files / "log", "wb") as log:
        return subprocess.Popen(command, cwd=files, stderr=log)


def test_the_right_people_arrive(
    files: Path, tiny: ModuleType, broker: Any, subscribe: Make, wait_for: Wait
) -> None:
    heard = subscribe(broker)
    for cached in (False, True):
        assert serve(files, broker).wait(120) == 0, (files / "log").read_text()
        wait_for(lambda: heard.last("posewire/n1/status") == {"state": "stopped"}, "stopped")
        assert ("compile fp32" in (files / "log").read_text()) != cached
    assert heard.flaws == []
    assert heard.last("posewire/n1/info")["runtime"]["name"] == "openvino"
    bodies = heard.payloads(POSES)
    assert [body["seq"] for body in bodies] == [0, 1, 2, 3] * 2
    for body, people in zip(bodies, tiny.SCENES * 2, strict=True):
        found = sorted(_dots(person["kp"]) for person in body["people"])
        drawn = sorted([(x, y + k * apart) for k in range(3)] for x, y, apart in people)
        assert len(found) == len(drawn)
        for one, other in zip(found, drawn, strict=True):
            for (x, y), (x_drawn, y_drawn) in zip(one, other, strict=True):
                assert abs(x - x_drawn) < 4
                assert abs(y - y_drawn) < 4


def _dots(kp: list[float]) -> list[tuple[float, float]]:
    """From the wire back to pixels of the frame."""
    return [(kp[i] * WIDTH - 0.5, kp[i + 1] * HEIGHT - 0.5) for i in range(0, len(kp), 3)]


def test_a_signal_while_it_compiles(files: Path, broker: Any, wait_for: Wait) -> None:
    daemon = serve(files, broker)
    wait_for(lambda: "preparing" in (files / "log").read_text(), "compilation")
    daemon.send_signal(signal.SIGTERM)
    assert daemon.wait(20) == 0
    wait_for(lambda: not _children(files), "no compiler is left", 5)


def _children(files: Path) -> list[str]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes()
        except OSError:
            continue
        if str(files / "portable").encode() in command:
            found.append(process.name)
    return found


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ("tampered", "model.onnx: its sha256 is not the manifest's"),
        ("truncated", "model.onnx: has 10 bytes, the manifest says"),
        ("future", "schema"),
        ("disagrees", "model.onnx"),
    ],
)
def test_a_bad_bundle_is_65_and_named(
    files: Path, tiny: ModuleType, broker: Any, damage: str, said: str
) -> None:
    model, manifest = files / "portable" / "model.onnx", files / "portable" / "manifest.json"
    if damage == "tampered":
        model.write_bytes(model.read_bytes()[:-1] + b"\xff")
    elif damage == "truncated":
        model.write_bytes(model.read_bytes()[:10])
    elif damage == "future":
        manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "schema": 99}))
    else:
        data = tiny.manifest(("fp32",))
        data["outputs"][0]["channels"] = 4
        data["skeleton"]["keypoints"].append("more")
        data["skeleton"].update(flips=[0, 1, 2, 3], sigmas=[0.1] * 4)
        write_bundle(files / "portable", data, {"model.onnx": model.read_bytes()}, replace=True)
    daemon = serve(files, broker)
    assert daemon.wait(60) == 65, (files / "log").read_text()
    last = (files / "log").read_text().splitlines()[-1]
    assert last.startswith("posewire: error: ")
    assert said in last
