# SPDX-License-Identifier: Apache-2.0
"""Compiles for TensorRT-RTX, NVIDIA's pip package for the GPUs of PCs.

Engines are built ahead of time, on a machine without a GPU too: kernels are made when the engine is
first run on the GPU. Typing is always strong, so the precision is the ONNX file's own; there are no
precision flags, no calibrators and no timing caches. Where there is no such GPU the gate stays
``pending``.

Options of a recipe ([target.options])::

    machines              the processors, as `uname -m` names them; absent: any
    compute_capabilities  the GPUs to build for, as in sm_89: [89, 120]; absent: what the library
                          itself calls portable (sm_80, sm_86, sm_89, sm_120 and later)
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from posewire.engine_core import core as engine_core
from posewire.errors import ExitCode
from posewire.manifest import Artifact, Manifest

from . import cuda, tensorrt_network
from .errors import TargetError
from .recipe import Recipe
from .tensorrt import three_numbers

ARTIFACTS = {"fp32": ("onnx", "fp32"), "fp16": ("onnx", "fp16"), "int8": ("onnx", "int8")}

OPTIONS: dict[str, type | tuple[type, ...]] = {"machines": list, "compute_capabilities": list}

_RUNTIME = "tensorrt_rtx"
_PACKAGE = "tensorrt-rtx-cu13"


def _bindings() -> Any:
    try:
        return import_module("tensorrt_rtx")
    except ImportError as error:
        raise TargetError(
            f"TensorRT-RTX cannot be loaded ({error}): pip install {_PACKAGE}, or posewire[rtx]"
        ) from error


def version(recipe: Recipe) -> str:
    """TensorRT-RTX's version. Raises TargetError where it is missing."""
    return three_numbers(_bindings().__version__)


def driver(recipe: Recipe) -> str:
    """None has a part in an engine that is built ahead of time."""
    return ""


def device(recipe: Recipe) -> str:
    """Nothing: the library itself refuses a GPU that the engine was not built for."""
    return ""


def _capabilities(recipe: Recipe) -> list[int]:
    wanted = recipe.options.get("compute_capabilities", [])
    return [int(number) for number in wanted] if isinstance(wanted, list) else []


def missing(precision: str, recipe: Recipe) -> str | None:
    """Why this machine cannot build; None where it can."""
    other = tensorrt_network.other_machine(recipe)
    if other is not None:
        return other
    try:
        trt = _bindings()
    except TargetError as error:
        return str(error)
    known = trt.ComputeCapability.__members__
    for number in _capabilities(recipe):
        if f"SM{number}" not in known:
            kinds = ", ".join(name.lower().replace("sm", "sm_") for name in known if "SM" in name)
            return f"TensorRT-RTX {trt.__version__} builds for {kinds}, not for sm_{number}"
    return None


def runs_here(recipe: Recipe) -> str | None:
    """Why the engine cannot run it here; None where it can."""
    found = cuda.look()
    if not found.gpus:
        return found.why
    row = next((row for row in engine_core().runtimes() if row["name"] == _RUNTIME), None)
    if row is None:
        return "the engine was built without TensorRT-RTX"
    wanted = _capabilities(recipe)
    if wanted and found.gpus[0].compute_capability not in wanted:
        kinds = ", ".join(f"sm_{number}" for number in wanted)
        return f"it is built for {kinds}, this machine has {found.gpus[0]}"
    if not row["available"]:
        return str(row["why"])
    if three_numbers(row["version"]) != version(recipe):
        raise TargetError(
            f"Python's TensorRT-RTX is {version(recipe)}, the engine runs {row['version']}: an "
            "engine plan serves one version"
        )
    return None


def build(
    source: Path,
    manifest: Manifest,
    artifact: Artifact,
    precision: str,
    folder: Path,
    recipe: Recipe,
    max_batch: int,
) -> tuple[dict[str, Path], dict[str, Any]]:
    """Builds one engine. Returns (files of the new artifact, its manifest entry).

    Raises TargetError (BUNDLE) where TensorRT-RTX refuses the network.
    """
    trt = _bindings()
    log = tensorrt_network.logger(trt)
    builder = tensorrt_network.builder_of(trt, log)
    network = builder.create_network(0)
    parser = tensorrt_network.parse(trt, log, network, source, manifest, artifact)
    config = builder.create_builder_config()
    _set_capabilities(trt, config, recipe)
    sizes = tensorrt_network.batches(network, max_batch, source)
    tensorrt_network.add_profile(builder, config, network, sizes)
    if precision == "fp32":
        config.clear_flag(trt.BuilderFlag.TF32)  # it would round to ten bits and call that fp32
    plan = tensorrt_network.build_plan(builder, network, config, log, source)
    del parser  # it owns weights that the network refers to until here
    entry = tensorrt_network.entry(trt, _RUNTIME, network, source, manifest, artifact, precision)
    return tensorrt_network.write_plan(folder, plan), entry


def _set_capabilities(trt: Any, config: Any, recipe: Recipe) -> None:
    wanted = _capabilities(recipe)
    if not wanted:
        return
    config.num_compute_capabilities = len(wanted)
    for index, number in enumerate(wanted):
        kind = trt.ComputeCapability.__members__.get(f"SM{number}")
        if kind is None or not config.set_compute_capability(kind, index):
            raise TargetError(
                f"{recipe.name}.options.compute_capabilities: TensorRT-RTX {trt.__version__} does "
                f"not build for sm_{number}",
                ExitCode.CONFIG,
            )
