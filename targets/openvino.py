# SPDX-License-Identifier: Apache-2.0
"""Compiles for OpenVINO on CPUs: ONNX -> OpenVINO IR, which the engine loads and specialises.

The IR takes uint8 NHWC [batch, height, width, 3] in the manifest's channel order and gives float32
outputs under the manifest's names; whatever else an artifact wants (floating-point input, mean and
std, another layout) becomes part of the network here. fp32, fp16 and bf16 share the fp32 weights:
the engine asks for the precision when it compiles. int8 is the explicit Q/DQ network.
"""

from __future__ import annotations

import platform
from importlib import import_module
from pathlib import Path
from typing import Any

from posewire.engine_core import core as engine_core
from posewire.errors import ExitCode
from posewire.manifest import Artifact, Manifest

from .errors import TargetError
from .recipe import Recipe

ARTIFACTS = {
    "fp32": ("onnx", "fp32"),
    "fp16": ("onnx", "fp32"),
    "bf16": ("onnx", "fp32"),
    "int8": ("onnx", "int8-u8"),
}

# machines: the processors, as `uname -m` names them, that the target is for; default: any
OPTIONS = {"machines": list}

_CAPABILITIES = {"fp32": "FP32", "fp16": "FP16", "bf16": "BF16", "int8": "INT8"}


def _openvino() -> Any:
    try:
        return import_module("openvino")
    except ImportError as error:
        raise TargetError(f"openvino is not installed: {error}") from error


def version(recipe: Recipe) -> str:
    """The runtime's version. Raises TargetError where Python's and the engine's differ."""
    here = str(_openvino().__version__)
    rows = {row["name"]: row for row in engine_core().runtimes()}
    if not rows["openvino"]["available"]:
        raise TargetError(f"the engine cannot run OpenVINO: {rows['openvino']['why']}")
    if rows["openvino"]["version"] != here:
        raise TargetError(
            f"Python's openvino is {here}, the engine was built with "
            f"{rows['openvino']['version']}: install posewire again"
        )
    return here


def driver(recipe: Recipe) -> str:
    """A CPU has none."""
    return ""


def device(recipe: Recipe) -> str:
    """The CPU's model name."""
    return _cpu()


def _cpu() -> str:
    return str(_openvino().Core().get_property("CPU", "FULL_DEVICE_NAME"))


def missing(precision: str, recipe: Recipe) -> str | None:
    """The engine specialises the network for the CPU that it runs on, and the gate's verdict holds
    for that CPU: so it is compiled there and nowhere else."""
    machines = recipe.options.get("machines", [platform.machine()])
    assert isinstance(machines, list)
    if platform.machine() not in machines:
        return (
            f"this machine is {platform.machine()}, {recipe.name} is for "
            f"{', '.join(map(str, machines))}: compile there"
        )
    capability = _CAPABILITIES[precision]
    if capability in _openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        return None
    return f"this CPU ({_cpu()}) has no {capability} instructions that OpenVINO uses"


def runs_here(recipe: Recipe) -> str | None:
    """What could be built here runs here."""
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
    """Converts one ONNX file, whose batch stays open. Returns (files of the new artifact, its
    manifest entry).

    Raises TargetError (BUNDLE) where OpenVINO refuses the network.
    """
    ov = _openvino()
    try:
        model = ov.convert_model(source)
        _adapt(ov, model, manifest, artifact)
        path = folder / "model.xml"
        ov.save_model(model, path, compress_to_fp16=False)
    except RuntimeError as error:
        line = " ".join(str(error).split())
        raise TargetError(f"{source}: OpenVINO refuses it: {line}", ExitCode.BUNDLE) from error
    layouts = {output.name: output.layout for output in artifact.outputs}
    entry = {
        "files": ["model.xml", "model.bin"],
        "format": "openvino",
        "precision": precision,
        "input": {"layout": "NHWC", "dtype": "uint8"},
        "outputs": [
            {"name": output.name, "layout": layouts[output.name], "dtype": "float32"}
            for output in manifest.outputs
        ],
    }
    return {"model.xml": path, "model.bin": path.with_suffix(".bin")}, entry


def _adapt(ov: Any, model: Any, manifest: Manifest, artifact: Artifact) -> None:
    """Makes the network's tensors uint8 NHWC in and float32 out."""
    known = {name for port in model.outputs for name in port.names}
    for output in artifact.outputs:
        if output.name not in known:
            raise TargetError(
                f"outputs: the manifest names {output.name}, the network has "
                f"{', '.join(sorted(known))}",
                ExitCode.BUNDLE,
            )
        if output.dtype not in ("float32", "float16"):
            raise TargetError(
                f"outputs: {output.name} is {output.dtype}; OpenVINO takes floating-point outputs",
                ExitCode.BUNDLE,
            )
    steps = ov.preprocess.PrePostProcessor(model)
    tensor = steps.input()
    if artifact.input.dtype not in ("uint8", "float32"):
        raise TargetError(
            f"input: {artifact.input.dtype} is not one of uint8, float32", ExitCode.BUNDLE
        )
    tensor.tensor().set_element_type(ov.Type.u8).set_layout(ov.Layout("NHWC"))
    tensor.model().set_layout(ov.Layout(artifact.input.layout))
    if artifact.input.dtype == "float32":
        tensor.preprocess().convert_element_type(ov.Type.f32)
        if artifact.input.mean is not None and artifact.input.std is not None:
            tensor.preprocess().mean(list(artifact.input.mean)).scale(list(artifact.input.std))
    for i in range(len(model.outputs)):
        steps.output(i).tensor().set_element_type(ov.Type.f32)
    steps.build()
