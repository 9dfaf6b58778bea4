# SPDX-License-Identifier: Apache-2.0
"""overlay.sh: what would only fail on the device fails while the overlay is made."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from pathlib import Path

import pytest

from .conftest import ROOT

OVERLAY = ROOT / "targets" / "jetson" / "overlay.sh"
CONFIG = 'node = "auto"\n[bundle]\npath = "/usr/share/posewire/bundle"\n'

if not shutil.which("dpkg-deb"):
    pytest.skip("dpkg-deb is missing: overlays are made on Debian", allow_module_level=True)


class Parts:
    """Everything that an overlay is made of, in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.out = folder, folder / "overlay"
        self.deb = self.package("posewire", "arm64")
        self.bundle = folder / "bundle"
        self.bundle.mkdir()
        (self.bundle / "model.onnx").write_bytes(b"network")
        self.manifest(target=None)
        self.config = folder / "every.toml"
        self.config.write_text(CONFIG)

    def package(self, name: str, arch: str) -> Path:
        tree = self.folder / f"{name}-{arch}"
        (tree / "DEBIAN").mkdir(parents=True)
        (tree / "DEBIAN/control").write_text(
            f"Package: {name}\nVersion: 1\nArchitecture: {arch}\n"
            "Maintainer: a <a@example.invalid>\nDescription: none\n"
        )
        deb = self.folder / f"{name}_{arch}.deb"
        command = ["dpkg-deb", "-Znone", "--build", str(tree), str(deb)]
        subprocess.run(command, check=True, capture_output=True)
        return deb

    def manifest(self, **more: object) -> None:
        digest = hashlib.sha256(b"network").hexdigest()
        value = {"files": {"model.onnx": {"sha256": digest, "bytes": 7}}, **more}
        (self.bundle / "manifest.json").write_text(json.dumps(value))

    def make(self, *options: str) -> subprocess.CompletedProcess[str]:
        command = ["bash", str(OVERLAY), str(self.out), "--deb", str(self.deb)]
        command += ["--bundle", str(self.bundle), "--config", str(self.config), *options]
        return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture
def parts(tmp_path: Path) -> Parts:
    return Parts(tmp_path)


def test_the_tree(parts: Parts) -> None:
    secret = parts.folder / "secret"
    secret.write_text("word")
    secret.chmod(0o644)
    key = parts.folder / "key.pub"
    key.write_text("key")
    done = parts.make("--password", str(secret), "--public-key", str(key), "--power-mode", "MAXN")
    assert done.returncode == 0, done.stderr
    found = {
        str(path.relative_to(parts.out)): oct(path.stat().st_mode & 0o777)
        for path in sorted(parts.out.rglob("*"))
        if path.is_file() and not path.is_symlink()
    }
    assert found == {
        "etc/posewire/bundle.pub": "0o644",
        "etc/posewire/first-boot.toml": "0o640",
        "etc/posewire/mqtt.password": "0o600",
        "etc/systemd/system/posewire-install.service": "0o644",
        "opt/posewire/install.sh": "0o755",
        "opt/posewire/jetpack.toml": "0o644",
        "opt/posewire/posewire.deb": "0o644",
        "usr/share/posewire/bundle/manifest.json": "0o644",
        "usr/share/posewire/bundle/model.onnx": "0o644",
    }
    link = parts.out / "etc/systemd/system/multi-user.target.wants/posewire-install.service"
    assert link.resolve() == parts.out / "etc/systemd/system/posewire-install.service"
    call = "/opt/posewire/install.sh --deb /opt/posewire/posewire.deb --no-start --power-mode MAXN"
    assert f"ExecStart={call}\n" in link.read_text()
    assert parts.make().returncode == 73  # never over something that exists


def test_its_unit_is_one_that_systemd_takes(parts: Parts) -> None:
    if not shutil.which("systemd-analyze"):
        pytest.skip("systemd-analyze is missing")
    assert parts.make("--jetson-clocks").returncode == 0
    unit = parts.out / "etc/systemd/system/posewire-install.service"
    text = unit.read_text().replace("/opt/posewire/install.sh", "/bin/true")
    (parts.folder / unit.name).write_text(text)
    command = ["systemd-analyze", "verify", str(parts.folder / unit.name)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert [line for line in done.stderr.splitlines() if unit.name in line] == []


def test_what_would_fail_on_the_device_fails_here(parts: Parts) -> None:
    def refused(code: int, words: str) -> None:
        done = parts.make()
        assert (done.returncode, words in done.stderr) == (code, True), done.stderr
        assert not parts.out.exists()

    whole, parts.deb = parts.deb, parts.package("posewire", "amd64")
    refused(65, "is for amd64; a Jetson is arm64")
    parts.deb = parts.package("posewire-engine", "arm64")
    refused(65, "holds posewire-engine, not posewire")
    parts.deb = parts.config
    refused(65, "is no Debian package")
    parts.deb = parts.folder / "nowhere.deb"
    refused(66, "nowhere.deb: no such file")
    parts.deb = whole
    parts.manifest(target={"name": "x86-cpu"})
    refused(65, "is compiled")
    parts.manifest(target=None)
    (parts.bundle / "model.onnx").write_bytes(b"notwork")
    refused(65, "model.onnx: is not what the manifest says")
    (parts.bundle / "model.onnx").unlink()
    refused(65, "is no whole bundle")
    (parts.bundle / "model.onnx").write_bytes(b"network")
    parts.config.write_text(CONFIG.replace("/usr/share/posewire/bundle", "bundle"))
    refused(78, '[bundle] must say path = "/usr/share/posewire/bundle"')
    parts.config.write_text(CONFIG.replace("node", "# node"))
    refused(78, "no line 'node")
    parts.config.write_text(CONFIG)
    assert parts.make("--power-mode", "1; reboot").returncode == 64
    assert parts.make().returncode == 0
