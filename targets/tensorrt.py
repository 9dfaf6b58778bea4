# SPDX-License-Identifier: Apache-2.0
"""Compiles for TensorRT 8.5 to 11 on the device itself: Jetsons, and PCs with an NVIDIA GPU.

An engine belongs to one TensorRT, driver and GPU, so it is built where it runs, from verified ONNX.
What the versions want differently:

            network            precision comes from
    8.5-9   explicit batch     the graph's types and Q/DQ, and the flags FP16 and INT8
    10      strongly typed     the graph alone; but for a DLA and for calibration, which want the
                               weakly typed network and the flags as before
    11      (always typed)     the graph alone; no flags, no calibrators

Options of a recipe ([target.options])::

    machines              the processors, as `uname -m` names them: ["aarch64"]; absent: any
    compute_capabilities  the GPUs it is for, as in sm_87: [87]; absent: any
    workspace_mb          scratch memory that the builder may use; absent: all there is
    dla_core              build for this DLA core, what it cannot run falls back to the GPU
    int8                  "qdq" (the default: the int8 artifact) or "calibrate": from the fp32 one,
                          with TensorRT's entropy calibrator over ``calibration`` (below 11 only)
    calibration           a folder of pictures, for "calibrate"
    refused               why no machine of this kind can be compiled for; nothing else is looked at

Timing caches live beside the compiled bundles, so that building again after a change is quicker.
Nothing here ever ran on a GPU: tests/targets/test_tensorrt.py drives it through the real bindings'
names and signatures of 8.6, 10 and 11.
"""

from __future__ import annotations

import hashlib
import re
from importlib import import_module
from pathlib import Path
from typing import Any

from posewire.engine_core import core as engine_core
from posewire.errors import ExitCode
from posewire.manifest import Artifact, Manifest

from . import cache, cuda, tensorrt_network
from .calibration import calibrator, digest_of, memory_missing, pictures_in
from .errors import TargetError
from .recipe import Recipe

ARTIFACTS = {"fp32": ("onnx", "fp32"), "fp16": ("onnx", "fp16"), "int8": ("onnx", "int8")}

OPTIONS: dict[str, type | tuple[type, ...]] = {
    "machines": list,
    "compute_capabilities": list,
    "workspace_mb": int,
    "dla_core": int,
    "int8": str,
    "calibration": str,
    "refused": str,
}

_RUNTIME = "tensorrt"
_OLDEST = (8, 5)
_REQUESTS = 3  # as in cpp/infer/tensorrt.cpp
_FLAGS = {"fp32": (), "fp16": ("FP16",), "int8": ("INT8",)}


def _bindings() -> Any:
    """The module ``tensorrt``. Raises TargetError saying what to install."""
    try:
        return import_module("tensorrt")
    except ImportError as error:
        raise TargetError(
            f"TensorRT's Python bindings cannot be loaded ({error}): on a Jetson they come with "
            "JetPack (python3-libnvinfer; make the virtual environment with "
            "--system-site-packages), on a PC from `pip install tensorrt`"
        ) from error


def three_numbers(version: str) -> str:
    """ "10.13.3.9" -> "10.13.3": what the library itself can say of its version."""
    return ".".join([*re.findall(r"\d+", version), "0", "0"][:3])


def _major(trt: Any) -> int:
    return int(trt.__version__.split(".")[0])


def version(recipe: Recipe) -> str:
    """TensorRT's major.minor.patch. Raises TargetError where this machine cannot build."""
    _ready(recipe)
    return three_numbers(_bindings().__version__)


def driver(recipe: Recipe) -> str:
    """The driver and the GPU's generation, and the pictures where it calibrates."""
    found = _ready(recipe)
    parts = [f"driver {found.driver or 'unknown'}", f"CUDA {found.cuda}"]
    parts.append(f"sm_{found.gpus[0].compute_capability}")
    if _calibrates(recipe):
        parts.append(f"pictures {digest_of(pictures_in(recipe))}")
    return ", ".join(parts)


def device(recipe: Recipe) -> str:
    """The first GPU's name, as CUDA and so the engine give it."""
    return _ready(recipe).gpus[0].name


def _ready(recipe: Recipe) -> cuda.Cuda:
    """What CUDA says. Raises TargetError where this machine cannot build at all."""
    why = missing("fp32", recipe)
    if why is not None:
        raise TargetError(why if why.startswith(recipe.name) else f"{recipe.name}: {why}")
    return cuda.look()


def missing(precision: str, recipe: Recipe) -> str | None:
    """Why this machine cannot build; None where it can. Loads TensorRT, builds nothing."""
    refused = recipe.options.get("refused")
    if refused:
        return str(refused)
    other = tensorrt_network.other_machine(recipe)
    if other is not None:
        return other
    found = cuda.look()  # first: without a driver TensorRT hands out objects that crash
    if not found.gpus:
        return found.why
    gpu, wanted = found.gpus[0], recipe.options.get("compute_capabilities")
    if isinstance(wanted, list) and gpu.compute_capability not in wanted:
        kinds = ", ".join(f"sm_{number}" for number in wanted)
        return f"{recipe.name} is for GPUs of {kinds}, this machine has {gpu}"
    try:
        trt = _bindings()
    except TargetError as error:
        return str(error)
    if tuple(map(int, trt.__version__.split(".")[:2])) < _OLDEST:
        return f"TensorRT {trt.__version__} is too old, 8.5 or later is needed"
    if precision == "int8" and _calibrates(recipe):
        if _major(trt) >= 11:
            return f"TensorRT {trt.__version__} has no calibrators; use int8 with Q/DQ"
        return memory_missing()
    return None


def runs_here(recipe: Recipe) -> str | None:
    """Why the engine cannot run it here; None where it can.

    Raises TargetError where the engine would run another TensorRT than the one that builds.
    """
    row = next((row for row in engine_core().runtimes() if row["name"] == _RUNTIME), None)
    if row is None:
        return "the engine was built without TensorRT"
    if not row["available"]:
        return str(row["why"])
    if three_numbers(row["version"]) != version(recipe):
        raise TargetError(
            f"Python's TensorRT is {version(recipe)}, the engine runs {row['version']}: an engine "
            "plan serves one version"
        )
    return None


def _calibrates(recipe: Recipe) -> bool:
    chosen = recipe.options.get("int8", "qdq")
    if chosen not in ("qdq", "calibrate"):
        raise TargetError(
            f"{recipe.name}.options.int8: is {chosen!r}, must be qdq or calibrate", ExitCode.CONFIG
        )
    return chosen == "calibrate"


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

    Raises TargetError: BUNDLE where TensorRT refuses the network, CONFIG for options that exclude
    each other, UNAVAILABLE for hardware that is not there.
    """
    trt = _bindings()
    log = tensorrt_network.logger(trt)
    builder = tensorrt_network.builder_of(trt, log)
    calibrates = precision == "int8" and _calibrates(recipe)
    core = _dla_core(trt, builder, precision, recipe, max_batch)
    weak = _major(trt) < 10 or (_major(trt) == 10 and (calibrates or core is not None))
    network = builder.create_network(_network_flags(trt, weak))
    parser = tensorrt_network.parse(trt, log, network, source, manifest, artifact)
    sizes = tensorrt_network.batches(network, max_batch, source)
    if core is not None:
        sizes = (max_batch,) * 3
    config = builder.create_builder_config()
    # Below 10 a profile serves one context: one for each request that the engine keeps in flight.
    for _ in range(_REQUESTS if _major(trt) < 10 else 1):
        profile = tensorrt_network.add_profile(builder, config, network, sizes)
    if precision == "fp32":
        config.clear_flag(trt.BuilderFlag.TF32)  # it would round to ten bits and call that fp32
    for flag in _FLAGS[precision] if weak else ():
        config.set_flag(getattr(trt.BuilderFlag, flag))
    workspace_mb = recipe.options.get("workspace_mb")
    if isinstance(workspace_mb, int):
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, workspace_mb << 20)
    if core is not None:
        config.default_device_type = trt.DeviceType.DLA
        config.DLA_core = core
        config.set_flag(trt.BuilderFlag.GPU_FALLBACK)
    if calibrates:
        config.int8_calibrator = calibrator(trt, source, manifest, recipe, sizes[1])
        config.set_calibration_profile(profile)
    timing = _timing_cache(recipe)
    _load_timing(config, timing)
    plan = tensorrt_network.build_plan(builder, network, config, log, source)
    _store_timing(config, timing)
    del parser  # it owns weights that the network refers to until here
    entry = tensorrt_network.entry(trt, _RUNTIME, network, source, manifest, artifact, precision)
    return tensorrt_network.write_plan(folder, plan), entry


def _network_flags(trt: Any, weak: bool) -> int:
    kinds = trt.NetworkDefinitionCreationFlag
    if _major(trt) < 10:
        return 1 << int(kinds.EXPLICIT_BATCH)
    if _major(trt) == 10 and not weak:
        return 1 << int(kinds.STRONGLY_TYPED)
    return 0


def _dla_core(trt: Any, builder: Any, precision: str, recipe: Recipe, max_batch: int) -> int | None:
    """The DLA core to build for; None for the GPU. Raises TargetError for what a DLA cannot do."""
    core = recipe.options.get("dla_core")
    if not isinstance(core, int):
        return None
    where = f"{recipe.name}.options.dla_core"
    if not 0 <= core < builder.num_DLA_cores:
        raise TargetError(f"{where}: is {core}, this machine has {builder.num_DLA_cores} DLA cores")
    if precision == "fp32":
        raise TargetError(f"{where}: a DLA computes in fp16 or int8, not fp32", ExitCode.CONFIG)
    if precision == "int8" and _major(trt) < 11 and not _calibrates(recipe):
        raise TargetError(
            f'{where}: a DLA takes no Q/DQ networks; set int8 = "calibrate"', ExitCode.CONFIG
        )
    if max_batch != 1:
        raise TargetError(
            f"{where}: a DLA engine has one fixed batch; set max_batch = 1", ExitCode.CONFIG
        )
    return core


def _timing_cache(recipe: Recipe) -> Path:
    """One file per TensorRT, driver and GPU; a cache of another machine is worthless."""
    where = f"{version(recipe)} {driver(recipe)} {device(recipe)}"
    name = hashlib.sha256(where.encode()).hexdigest()[:16]
    return cache.folder() / f"timing-{name}.cache"


def _load_timing(config: Any, path: Path) -> None:
    try:
        known = path.read_bytes()
    except OSError:
        known = b""
    timings = config.create_timing_cache(known)
    # False: a cache that TensorRT finds was made elsewhere is not taken, and building just takes
    # longer.
    if timings is None or not config.set_timing_cache(timings, False):
        config.set_timing_cache(config.create_timing_cache(b""), False)


def _store_timing(config: Any, path: Path) -> None:
    timings = config.get_timing_cache()
    if timings is None:
        return
    aside = path.with_name(f".{path.name}.partial")
    aside.write_bytes(bytes(timings.serialize()))
    aside.replace(path)
