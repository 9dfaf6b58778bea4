# SPDX-License-Identifier: Apache-2.0
"""A Jetson's files in a folder, and a dpkg that knows of the packages that a test names."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
INSTALL = ROOT / "targets" / "jetson" / "install.sh"

NVPMODEL = """\
< POWER_MODEL ID=0 NAME=MAXN >
CPU_ONLINE CORE_0 1
< POWER_MODEL ID=1 NAME=15W >
< PM_CONFIG DEFAULT=1 >
"""


class Jetson:
    """``root`` looks like a device; :meth:`install` runs install.sh against it."""

    def __init__(self, folder: Path, l4t: str | None) -> None:
        self.root = folder / "device"
        (self.root / "etc").mkdir(parents=True)
        (self.root / "dev").mkdir()
        if l4t is not None:
            major, revision = l4t.split(".", 1)
            self.write(
                "etc/nv_tegra_release",
                f"# R{major} (release), REVISION: {revision}, GCID: 1, BOARD: generic\n",
            )
        self.write("etc/nvpmodel.conf", NVPMODEL)
        self.deb = folder / "posewire_1_arm64.deb"
        self.deb.write_bytes(b"")
        self._programs = folder / "programs"
        self._programs.mkdir()
        self.has()

    def write(self, name: str, text: str, mode: int = 0o644) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(mode)
        return path

    def has(self, *packages: str) -> None:
        """Only these packages are installed."""
        query = self._programs / "dpkg-query"
        names = "|".join(packages) or "none"
        query.write_text(
            f'#!/bin/sh\ncase "$4" in {names}) printf installed ;; *) exit 1 ;; esac\n'
        )
        query.chmod(0o755)

    def install(self, *options: str, deb: bool = True) -> subprocess.CompletedProcess[str]:
        command = ["bash", str(INSTALL), "--root", str(self.root), *options]
        if deb:
            command += ["--deb", str(self.deb)]
        path = f"{self._programs}:{os.environ['PATH']}"
        return subprocess.run(
            command, capture_output=True, text=True, check=False, env={**os.environ, "PATH": path}
        )

    def files(self) -> dict[str, str]:
        """What stands below the root, but for the device's own files."""
        own = {"etc/nv_tegra_release", "etc/nvpmodel.conf"}
        found = {}
        for path in sorted(self.root.rglob("*")):
            name = str(path.relative_to(self.root))
            if path.is_file() and name not in own and not name.startswith("dev/"):
                found[name] = path.read_text()
        return found


@pytest.fixture
def jetson(tmp_path: Path) -> Callable[[str | None], Jetson]:
    return lambda l4t: Jetson(tmp_path, l4t)
