# SPDX-License-Identifier: Apache-2.0
"""`posewire update` against a running `posewire serve`: real compile children, a real broker, an
engine that crashes with the second update."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from posewire.cli import program

from posewire.bundle import write_bundle
from posewire.errors import ExitCode

INFO, DOOR = "posewire/n1/info", "posewire/n1/door/poses"
Make = Callable[..., Any]
Wait = Callable[..., None]


@pytest.fixture(scope="module")
def tiny() -> ModuleType:
    """tests/targets/conftest.py: a network that finds coloured dots."""
    pytest.importorskip("openvino")
    path = Path(__file__).parent.parent / "targets" / "conftest.py"
    spec = importlib.util.spec_from_file_location("tiny_network", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def portable(tiny: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """portable(version) -> a bundle's folder."""
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def make(version: str) -> Path:
        manifest = {**tiny.manifest(("fp32",)), "version": version}
        write_bundle(
            tmp_path / version, manifest, {"model.onnx": tiny.tiny_onnx().SerializeToString()}
        )
        return tmp_path / version

    return make


def test_a_good_update_stays_and_a_bad_one_is_taken_back(
    broker: Any,
    serve: Make,
    subscribe: Make,
    portable: Make,
    wait_for: Wait,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    heard = subscribe(broker)
    forever = {"frames": None}
    keys = f'state = "{tmp_path / "state"}"\ntrial_s = 1.0\nprecision = "fp32"'
    plans = (forever, forever, {"frames": 5, "then": "crash"}, forever)
    daemon = serve(broker, *plans, uri="synthetic:?people=1", keys=keys)
    wait_for(lambda: heard.count(DOOR) > 5, "poses")
    assert heard.last(INFO)["update"] is None
    before = heard.last(INFO)["bundle"]

    update = ["update", str(daemon.config)]
    assert program([*update, str(portable("1")), "--wait", "60"]) == ExitCode.OK
    assert "tiny@1: confirmed" in capsys.readouterr().out
    wait_for(lambda: heard.last(INFO)["update"]["state"] == "confirmed", "it is told")
    assert (heard.last(INFO)["bundle"]["name"], heard.last(INFO)["bundle"]["version"]) == (
        "tiny",
        "1",
    )

    assert program([*update, str(portable("2")), "--wait", "60"]) == ExitCode.NO
    assert "tiny@2: rolled_back: the engine ended with code 70" in capsys.readouterr().out
    wait_for(lambda: heard.last(INFO)["bundle"]["version"] == "1", "the old one runs")
    told = heard.last(INFO)["update"]
    assert (told["state"], told["name"]) == ("rolled_back", "tiny@2")
    states = [info["update"]["state"] for info in heard.payloads(INFO) if info["update"]]
    assert [state for i, state in enumerate(states) if states[i - 1 : i] != [state]] == [
        *("preparing", "trial", "confirmed"),
        *("preparing", "trial", "rolled_back"),
    ]
    wait_for(lambda: daemon.starts.stat().st_size == 4, "four engines")
    count = heard.count(DOOR)
    wait_for(lambda: heard.count(DOOR) > count + 5, "poses go on")
    assert "tiny@2: rolled_back" in daemon.said()
    assert heard.flaws == []

    daemon.process.kill()
    daemon.process.wait()
    again = serve(broker, forever, uri="synthetic:?people=1", keys=keys)
    seen = heard.count(INFO)
    wait_for(lambda: heard.count(INFO) > seen, "it has started again")
    assert heard.last(INFO)["bundle"]["version"] == "1"
    assert program([*update, "--show"]) == ExitCode.OK
    assert "current   tiny@1" in capsys.readouterr().out
    assert program([*update, "--config-bundle", "--wait", "60"]) == ExitCode.OK
    wait_for(lambda: heard.last(INFO)["bundle"] == before, "the config's bundle runs")
    again.stop()


def test_the_verb_without_a_daemon(
    portable: Make, serve: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "posewire.toml"
    config.write_text(
        f'node = "n1"\n[bundle]\npath = "b"\nstate = "{tmp_path / "state"}"\n'
        '[mqtt]\nurl = "mqtt://127.0.0.1"\n[cameras.door]\nuri = "synthetic:"\n'
    )
    bundle = str(portable("1"))
    assert program(["update", str(config), bundle]) == ExitCode.OK
    assert "takes it up" in capsys.readouterr().out
    assert program(["update", str(config), bundle, "--wait", "0.3"]) == ExitCode.UNAVAILABLE
    assert "does the daemon of this node run?" in capsys.readouterr().err
    assert program(["update", str(config)]) == ExitCode.USAGE
    assert program(["update", str(config), bundle, "--previous"]) == ExitCode.USAGE
    assert program(["update", str(config), str(tmp_path / "none")]) == ExitCode.BUNDLE
    assert program(["update", str(config), "--show"]) == ExitCode.OK
    said = capsys.readouterr().out
    assert "current   " in said
    assert "wanted    tiny@1" in said
