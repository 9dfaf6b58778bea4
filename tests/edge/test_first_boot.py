# SPDX-License-Identifier: Apache-2.0
"""first-boot: a flashed device becomes a node, however often it is cut off."""

from __future__ import annotations

import json
import logging
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from posewire.edge import first_boot, prepare
from posewire.edge.config import load_config
from posewire.edge.errors import EdgeError

from posewire.bundle import read_manifest
from posewire.errors import ExitCode

CORPUS = Path(__file__).parent.parent / "golden" / "bundles"
TEMPLATE = """\
# for every device
node = "auto"

[bundle]
path = "portable"

[mqtt]
url = "{url}"

[cameras.door]
uri = "synthetic:?frames=20"
"""

# Says what a real child says, and waits for the test at the file "go".
FAKE_COMPILE = """\
#!/usr/bin/env python3
import json, os, sys, time
print("posewire: compile: fp32: building", file=sys.stderr, flush=True)
while not os.path.exists({go!r}):
    time.sleep(0.01)
if {error!r}:
    print("posewire: error: " + {error!r}, file=sys.stderr, flush=True)
    sys.exit(65)
print(json.dumps({{"bundle": {made!r}}}))
"""


@pytest.fixture
def device(tmp_path: Path) -> Path:
    """The root of a device with a serial number, and /etc/posewire with a template."""
    serial = tmp_path / "proc/device-tree/serial-number"
    serial.parent.mkdir(parents=True)
    serial.write_bytes(b"1423021054321\0")
    folder = tmp_path / "etc/posewire"
    folder.mkdir(parents=True)
    (folder / "first-boot.toml").write_text(TEMPLATE.format(url="mqtt://127.0.0.1:9"))
    manifest = json.loads((CORPUS / "good.json").read_text("utf-8"))["manifest"]
    (folder / "portable").mkdir()  # only the compiler would look at the network
    (folder / "portable/manifest.json").write_text(json.dumps(manifest))
    return tmp_path


def test_names_come_from_serial_or_machine_id(tmp_path: Path) -> None:
    with pytest.raises(EdgeError, match="no serial number") as refused:
        first_boot.node_name(tmp_path)
    assert refused.value.code == ExitCode.UNAVAILABLE
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/machine-id").write_text("uninitialized\n")
    with pytest.raises(EdgeError):
        first_boot.node_name(tmp_path)
    identity = "0123456789abcdef0123456789abcdef"
    (tmp_path / "etc/machine-id").write_text(identity + "\n")
    name = first_boot.node_name(tmp_path)
    assert name == first_boot.node_name(tmp_path)
    assert identity[:6] not in name  # confidential
    serial = tmp_path / "proc/device-tree/serial-number"
    serial.parent.mkdir(parents=True)
    serial.write_bytes(b"000000\0")  # a board that was never given one
    assert first_boot.node_name(tmp_path) == name
    serial.write_bytes(b"14230-ABC\0")
    assert first_boot.node_name(tmp_path) == "node-14230abc"


def test_identity_is_made_once(device: Path) -> None:
    folder = device / "etc/posewire"
    assert first_boot.make_identity(folder, device) == "node-423021054321"
    config = load_config(folder / "posewire.toml")
    assert config.node == "node-423021054321"
    assert config.bundle.path == folder / "portable"
    key_file, request_file = folder / "keys/node.key", folder / "keys/node.csr"
    assert stat.S_IMODE(key_file.stat().st_mode) == 0o600
    key = serialization.load_pem_private_key(key_file.read_bytes(), None)
    request = x509.load_pem_x509_csr(request_file.read_bytes())
    assert request.is_signature_valid
    assert request.public_key() == key.public_key()
    assert request.subject.rfc4514_string() == "CN=node-423021054321"
    before = _files(folder)
    (device / "proc/device-tree/serial-number").write_bytes(b"another\0")
    assert first_boot.make_identity(folder, device) == "node-423021054321"
    assert _files(folder) == before


def test_a_name_in_the_template_stays(device: Path) -> None:
    template = device / "etc/posewire/first-boot.toml"
    template.write_text(template.read_text().replace('"auto"', '"hall"'))
    assert first_boot.make_identity(template.parent, device) == "hall"


def test_a_template_with_a_flaw_leaves_nothing(device: Path) -> None:
    folder = device / "etc/posewire"
    template = folder / "first-boot.toml"
    template.write_text(template.read_text().replace("path =", "pfad ="))
    with pytest.raises(
        EdgeError, match=r"first-boot\.toml:5: bundle\.pfad: unknown key"
    ) as refused:
        first_boot.make_identity(folder, device)
    assert refused.value.code == ExitCode.CONFIG
    assert sorted(path.name for path in folder.iterdir()) == ["first-boot.toml", "portable"]
    template.unlink()
    with pytest.raises(EdgeError, match="cannot read it"):
        first_boot.make_identity(folder, device)


def test_a_damaged_key_is_not_replaced(device: Path) -> None:
    folder = device / "etc/posewire"
    (folder / "keys").mkdir()
    (folder / "keys/node.key").write_text("garbage")
    with pytest.raises(EdgeError, match=r"node\.key: is no private key"):
        first_boot.make_identity(folder, device)
    assert (folder / "keys/node.key").read_text() == "garbage"


class _Cut(BaseException):
    """The power has gone."""


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
def test_cut_off_at_every_step(device: Path, before: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever was written under its own name is whole, and the next start goes on."""
    folder, rename = device / "etc/posewire", first_boot._rename
    kept: dict[str, bytes] = {}
    for cuts in range(10):
        calls = 0

        def cut(aside: Path, path: Path) -> None:
            nonlocal calls
            calls += 1
            if before:
                raise _Cut
            rename(aside, path)
            raise _Cut

        if cuts % 2 == 0:
            monkeypatch.setattr(first_boot, "_rename", cut)
        else:
            monkeypatch.setattr(first_boot, "_rename", rename if before else cut)
        try:
            first_boot.make_identity(folder, device)
        except _Cut:
            whole = {name: data for name, data in _files(folder).items() if ".partial" not in name}
            assert kept.items() <= whole.items()
            kept = whole
            continue
        assert not [name for name in _files(folder) if ".partial" in name]
        assert {"posewire.toml", "keys/node.key", "keys/node.csr"} <= set(_files(folder))
        return
    pytest.fail("never came to its end")


def test_progress_is_told_and_the_end_is_marked(
    device: Path,
    bundle: Path,
    broker: Any,
    subscribe: Callable[..., Any],
    wait_for: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    config, state = _prepared(device, broker.url, bundle, monkeypatch)
    node = config.node
    subscriber = subscribe(broker)

    def whys() -> list[str]:
        return [said["why"] for said in subscriber.payloads(f"posewire/{node}/door/status")]

    def go_on() -> None:
        wait_for(lambda: "first boot: compile: fp32: building" in whys(), "progress arrives")
        (device / "go").touch()

    watcher = threading.Thread(target=go_on)
    watcher.start()
    assert not first_boot.is_done(state)
    made = first_boot.compile_once(config, state)
    watcher.join()
    assert made == bundle
    wait_for(lambda: whys()[-1:] == ["first boot: done"], "the end is told")
    wait_for(
        lambda: subscriber.last(f"posewire/{node}/status") == {"state": "stopped"},
        "and the leaving",
    )
    engines = [said["engine"] for said in subscriber.payloads(f"posewire/{node}/health")]
    assert {"state": "starting", "starts": 0, "hangs": 0, "why": "first boot: done"} in engines
    assert subscriber.flaws == []
    assert "compile: fp32: building" in caplog.text  # the journal
    record = json.loads((state / "first-boot.done").read_text())
    assert record == {
        "node": node,
        "bundle": str(bundle),
        "manifest": read_manifest(bundle).sha256,
    }


def test_a_failed_compile_is_told_and_marks_nothing(
    device: Path,
    bundle: Path,
    broker: Any,
    subscribe: Callable[..., Any],
    wait_for: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config, state = _prepared(device, broker.url, bundle, monkeypatch, error="model.onnx: damaged")
    (device / "go").touch()
    subscriber = subscribe(broker)
    with pytest.raises(EdgeError, match=r"model\.onnx: damaged") as refused:
        first_boot.compile_once(config, state)
    assert refused.value.code == ExitCode.BUNDLE
    topic = f"posewire/{config.node}/door/status"
    wait_for(lambda: "damaged" in (subscriber.last(topic) or {}).get("why", ""), "why is told")
    assert list(state.iterdir()) == []


def test_the_verb_does_both_and_then_nothing(device: Path, bundle: Path) -> None:
    """A real process; the bundle is compiled already, and no broker is there."""
    folder, state = device / "etc/posewire", device / "state"
    state.mkdir()
    template = folder / "first-boot.toml"
    text = template.read_text().replace('"auto"', '"hall"')
    template.write_text(text.replace('"portable"', f'"{bundle}"'))
    command = [sys.executable, "-P", "-m", "posewire.cli", "first-boot"]
    command += ["--config-folder", str(folder), "--state-folder", str(state)]
    first = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert first.returncode == 0, first.stderr
    assert json.loads((state / "first-boot.done").read_text())["bundle"] == str(bundle)
    again = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert again.returncode == 0
    assert "nothing to do" in again.stderr


def _prepared(
    device: Path, url: str, bundle: Path, monkeypatch: pytest.MonkeyPatch, error: str = ""
) -> tuple[Any, Path]:
    """A device after the identity step whose compile child is FAKE_COMPILE."""
    folder, state = device / "etc/posewire", device / "state"
    state.mkdir()
    (folder / "first-boot.toml").write_text(TEMPLATE.format(url=url))
    first_boot.make_identity(folder, device)
    program = device / "compile"
    program.write_text(FAKE_COMPILE.format(go=str(device / "go"), error=error, made=str(bundle)))
    os.chmod(program, 0o755)
    monkeypatch.setattr(prepare.sys, "executable", str(program))
    monkeypatch.setattr(prepare, "default_target", lambda: "x86-cpu")
    return load_config(folder / "posewire.toml"), state


def _files(folder: Path) -> dict[str, bytes]:
    found = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}
