# SPDX-License-Identifier: Apache-2.0
"""The NVIDIA GPUs of this machine, asked of the driver's own library (libcuda.so.1, CUDA driver
API). No package is needed, so that a machine without any can still say what it has.

TensorRT must not be touched before this has found a GPU: without a driver its runtime hands out
objects that crash when they are used.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_LIBRARY = "libcuda.so.1"
_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, _MINOR
_NO_DEVICE = 100  # CUDA_ERROR_NO_DEVICE


@dataclass(frozen=True)
class Gpu:
    """One GPU. ``compute_capability`` is major * 10 + minor, as in sm_87."""

    name: str
    compute_capability: int
    memory_mb: int

    def __str__(self) -> str:
        return f"{self.name} (sm_{self.compute_capability})"


@dataclass(frozen=True)
class Cuda:
    """What the driver says: its own version where it tells it, the CUDA version it speaks, and the
    GPUs in its order; or ``why`` there are none (one line)."""

    gpus: tuple[Gpu, ...] = ()
    cuda: str = ""
    driver: str = ""
    why: str = ""


def look(load: Callable[[str], Any] = ctypes.CDLL, root: Path = Path("/")) -> Cuda:
    """Asks the driver; never raises. ``load`` and ``root`` are for tests."""
    driver = driver_version(root)
    try:
        library = load(_LIBRARY)
    except OSError:
        return Cuda(driver=driver, why=f"no NVIDIA driver ({_LIBRARY})")
    status = library.cuInit(0)
    if status != 0:
        reason = (
            "it sees no GPU" if status == _NO_DEVICE else f"cuInit failed (CUDA error {status})"
        )
        return Cuda(driver=driver, why=f"the NVIDIA driver is installed, but {reason}")
    number = ctypes.c_int()
    library.cuDriverGetVersion(ctypes.byref(number))
    cuda = f"{number.value // 1000}.{number.value % 1000 // 10}"
    library.cuDeviceGetCount(ctypes.byref(number))
    gpus = tuple(_gpu(library, index) for index in range(number.value))
    return Cuda(gpus, cuda, driver, "" if gpus else "the NVIDIA driver sees no GPU")


def _gpu(library: Any, index: int) -> Gpu:
    device = ctypes.c_int()
    library.cuDeviceGet(ctypes.byref(device), index)
    name = ctypes.create_string_buffer(128)
    library.cuDeviceGetName(name, len(name), device)
    values = []
    for attribute in (_MAJOR, _MINOR):
        value = ctypes.c_int()
        library.cuDeviceGetAttribute(ctypes.byref(value), attribute, device)
        values.append(value.value)
    size = ctypes.c_size_t()
    library.cuDeviceTotalMem_v2(ctypes.byref(size), device)
    return Gpu(
        name.value.decode("utf-8", "replace"), values[0] * 10 + values[1], size.value // 1_000_000
    )


def driver_version(root: Path = Path("/")) -> str:
    """The kernel module's version, "" where it does not say (some Jetsons)."""
    for name in ("sys/module/nvidia/version", "proc/driver/nvidia/version"):
        try:
            text = (root / name).read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        found = re.search(r"\b(\d{3,}(?:\.\d+)+)\b", text)
        if found:
            return found.group(1)
    return ""
