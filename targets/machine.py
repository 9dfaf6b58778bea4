# SPDX-License-Identifier: Apache-2.0
"""What this machine is, from what the kernel and the distribution say. Never raises: what cannot be
read is "" or None. ``root`` is for tests and images: every path is looked up below it.
"""

from __future__ import annotations

import platform
import re
from dataclasses import dataclass
from pathlib import Path

from .cuda import Cuda, look
from .errors import TargetError
from .jetpack import l4t_release, this_jetpack

ROOT = Path("/")
_NVIDIA, _DISPLAY = "0x10de", "0x03"  # PCI vendor, and the class of display controllers


@dataclass(frozen=True)
class Jetson:
    """L4T's release, JetPack's name, and what posewire can do there (jetpack.toml): "whole",
    "engine" or "refused", with the reason; "unknown" for a release that the table lacks."""

    l4t: str
    jetpack: str
    verdict: str
    reason: str


@dataclass(frozen=True)
class Machine:
    """The facts. ``nvidia_without_driver``: a GPU sits in the machine that no driver serves."""

    model: str
    architecture: str
    processor: str
    cores: int
    memory_mb: int
    system: str
    kernel: str
    python: str
    jetson: Jetson | None
    cuda: Cuda
    nvidia_without_driver: bool


def this_machine(root: Path = ROOT) -> Machine:
    """Everything at once."""
    cuda = look(root=root)
    return Machine(
        model=_model(root),
        architecture=platform.machine(),
        processor=_processor(root),
        cores=len(re.findall(r"^processor\s*:", _text(root / "proc/cpuinfo"), re.M)),
        memory_mb=_memory_mb(root),
        system=_os_release(root),
        kernel=platform.release() if root == ROOT else "",
        python=platform.python_version(),
        jetson=_jetson(root),
        cuda=cuda,
        nvidia_without_driver=not cuda.gpus and _has_nvidia(root),
    )


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip().strip("\0")
    except OSError:
        return ""


def _model(root: Path) -> str:
    """Boards say it in their device tree, PCs in what the firmware tells (DMI)."""
    board = _text(root / "proc/device-tree/model")
    if board:
        return board
    dmi = root / "sys/class/dmi/id"
    words = [_text(dmi / name) for name in ("sys_vendor", "product_name")]
    return " ".join(word for word in words if word)


def _processor(root: Path) -> str:
    text = _text(root / "proc/cpuinfo")
    for key in ("model name", "Hardware"):  # ARM kernels have neither in their newer versions
        found = re.search(rf"^{key}\s*: (.+)$", text, re.M)
        if found:
            return found[1].strip()
    return platform.machine()


def _memory_mb(root: Path) -> int:
    found = re.search(r"^MemTotal:\s+(\d+) kB", _text(root / "proc/meminfo"), re.M)
    return int(found[1]) * 1024 // 1_000_000 if found else 0


def _os_release(root: Path) -> str:
    found = re.search(r'^PRETTY_NAME="?([^"\n]+)', _text(root / "etc/os-release"), re.M)
    return found[1] if found else ""


def _jetson(root: Path) -> Jetson | None:
    release = l4t_release(root)
    if release is None:
        return None
    try:
        row = this_jetpack(root)
    except TargetError as error:
        return Jetson(release, "", "unknown", str(error))
    if row is None:
        return None
    return Jetson(release, row.name.replace("jetpack-", "JetPack "), row.verdict, row.reason)


def _has_nvidia(root: Path) -> bool:
    for device in (root / "sys/bus/pci/devices").glob("*"):
        if _text(device / "vendor") == _NVIDIA and _text(device / "class").startswith(_DISPLAY):
            return True
    return False
