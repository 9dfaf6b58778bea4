# SPDX-License-Identifier: Apache-2.0
"""INT8 by TensorRT's own entropy calibrator (8.5 to 10): pictures in, a range per tensor out.

The way for networks without Q/DQ. It runs on the device only, and its pictures must not be the
gate's. What it finds is kept beside the compiled bundles, under the digest of network, pictures and
TensorRT: a new driver builds the engine again without calibrating again.

Batches go to the GPU through cuda-python (either of its layouts) or pycuda, whichever is installed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from posewire.engine_core import core as engine_core
from posewire.errors import ExitCode
from posewire.manifest import Manifest
from posewire.preprocess import letterbox

from . import cache
from .errors import TargetError
from .recipe import Recipe

_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
LEAST_PICTURES = 32  # fewer give ranges that the next picture leaves


class Memory(Protocol):
    """One block of GPU memory."""

    address: int

    def fill(self, data: NDArray[Any]) -> None:
        """Copies an array of the block's size there."""


class _CudaPython:
    """Through cuda-python: every call returns (status, values...)."""

    def __init__(self, size: int) -> None:
        self._runtime = _first_module(_CUDA_PYTHON)
        self.address = int(self._checked("cudaMalloc", size))

    def _checked(self, name: str, *arguments: Any) -> Any:
        status, *values = getattr(self._runtime, name)(*arguments)
        if int(status) != 0:
            raise TargetError(f"calibration: {name} failed: {status}")
        return values[0] if values else None

    def fill(self, data: NDArray[Any]) -> None:
        kind = self._runtime.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._checked("cudaMemcpy", self.address, data.ctypes.data, data.nbytes, kind)


class _PyCuda:
    """Through pycuda, in the primary context, which is the one that TensorRT uses."""

    def __init__(self, size: int) -> None:
        self._driver = import_module("pycuda.driver")
        try:
            self._driver.init()
            self._driver.Device(0).retain_primary_context().push()
            self._block = self._driver.mem_alloc(size)
        except self._driver.Error as error:
            raise TargetError(f"calibration: pycuda: {error}") from error
        self.address = int(self._block)

    def fill(self, data: NDArray[Any]) -> None:
        self._driver.memcpy_htod(self._block, data)


_CUDA_PYTHON = ("cuda.bindings.runtime", "cuda.cudart")  # since 12.6, and before


def _first_module(names: tuple[str, ...]) -> Any:
    """The first module that can be imported, or None."""
    for name in names:
        try:
            return import_module(name)
        except ImportError:  # pycuda raises it too where the driver's library is missing
            continue
    return None


def memory_missing() -> str | None:
    """Why no batch can be brought to the GPU; None where one of the packages is there."""
    if _first_module((*_CUDA_PYTHON, "pycuda.driver")) is not None:
        return None
    return "calibrating needs cuda-python or pycuda (pip install cuda-python)"


def allocate(size: int) -> Memory:
    """GPU memory of ``size`` bytes. Raises TargetError."""
    why = memory_missing()
    if why is not None:
        raise TargetError(why)
    return _CudaPython(size) if _first_module(_CUDA_PYTHON) is not None else _PyCuda(size)


def pictures_in(recipe: Recipe) -> list[Path]:
    """The recipe's calibration pictures. Raises TargetError: SOURCE for a folder that holds too
    few, USAGE without a folder."""
    folder = recipe.options.get("calibration")
    if not folder:
        raise TargetError(
            "int8 by calibration needs a folder of pictures (--calibration DIR)", ExitCode.USAGE
        )
    path = Path(str(folder))
    if not path.is_dir():
        raise TargetError(f"{path}: is not a folder", ExitCode.SOURCE)
    found = sorted(p for p in path.iterdir() if p.suffix.lower() in _SUFFIXES and p.is_file())
    if len(found) < LEAST_PICTURES:
        raise TargetError(
            f"{path}: holds {len(found)} pictures, calibrating needs {LEAST_PICTURES}",
            ExitCode.SOURCE,
        )
    return found


def refuse_gate_pictures(pictures: list[Path], manifest: Manifest) -> None:
    """Raises TargetError (USAGE) where one of them is a picture of the bundle's gate."""
    gate = {manifest.files[name].sha256 for name in manifest.selftest}
    for one in pictures:
        if hashlib.sha256(one.read_bytes()).hexdigest() in gate:
            raise TargetError(
                f"{one}: is a picture of the bundle's gate; what calibrates must not judge",
                ExitCode.USAGE,
            )


def digest_of(pictures: list[Path]) -> str:
    """sha256 over the pictures' contents, in order."""
    digest = hashlib.sha256()
    for path in pictures:
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def fitted(pictures: list[Path], manifest: Manifest, size: int) -> Iterator[NDArray[np.uint8]]:
    """Batches of ``size`` letterboxed pictures, uint8 [size, H, W, 3] in the manifest's channel
    order; a rest that fills no batch is left out."""
    width, height = manifest.input.width, manifest.input.height
    for start in range(0, len(pictures) - size + 1, size):
        batch = [
            letterbox(engine_core().read_picture(str(path)), width, height)[0]
            for path in pictures[start : start + size]
        ]
        stacked = np.stack(batch)
        yield np.ascontiguousarray(stacked[..., ::-1] if _is_rgb(manifest) else stacked)


def _is_rgb(manifest: Manifest) -> bool:
    return manifest.input.channels == "RGB"


def calibrator(trt: Any, source: Path, manifest: Manifest, recipe: Recipe, size: int) -> Any:
    """An IInt8EntropyCalibrator2 that feeds the recipe's pictures, ``size`` at a time."""
    pictures = pictures_in(recipe)
    refuse_gate_pictures(pictures, manifest)
    size = min(size, len(pictures))
    table = _table(trt, source, pictures)

    class Entropy(trt.IInt8EntropyCalibrator2):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IInt8EntropyCalibrator2.__init__(self)
            self._batches = fitted(pictures, manifest, size)
            self._memory: Memory | None = None

        def get_batch_size(self) -> int:
            return size

        def get_batch(self, names: list[str]) -> list[int] | None:
            """An address per input, None when there are no more."""
            batch = next(self._batches, None)
            if batch is None:
                return None
            if self._memory is None:
                self._memory = allocate(batch.nbytes)
            self._memory.fill(batch)
            return [self._memory.address for _ in names]

        def read_calibration_cache(self) -> bytes | None:
            return table.read_bytes() if table.is_file() else None

        def write_calibration_cache(self, cache: Any) -> None:
            aside = table.with_name(f".{table.name}.partial")
            aside.write_bytes(bytes(cache))
            aside.replace(table)

    return Entropy()


def _table(trt: Any, source: Path, pictures: list[Path]) -> Path:
    """Where this calibration's result is kept."""
    parts = {
        "network": hashlib.sha256(source.read_bytes()).hexdigest(),
        "pictures": digest_of(pictures),
        "version": trt.__version__,
    }
    return cache.folder() / f"calibration-{cache.key(parts)[:32]}.table"
