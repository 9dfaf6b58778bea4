# SPDX-License-Identifier: Apache-2.0
"""Compiles for LiteRT: the portable .tflite file is what runs, so it is checked and copied.

The portable file takes uint8 NHWC [1, height, width, 3] and has one signature with the manifest's
tensor names (posewire/trainer/export_tflite.py makes it so). What is found in the file is compared
with the manifest here; LiteRT itself judges when the engine opens the result. The file is the same
for every processor, but the gate's verdict and auto's choice hold for one kind: target.device is
the machine as ``uname -m`` names it.
"""

from __future__ import annotations

import platform
import shutil
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from posewire.engine_core import core as engine_core
from posewire.errors import ExitCode
from posewire.manifest import Artifact, Manifest

from .errors import TargetError
from .recipe import Recipe

ARTIFACTS = {"fp32": ("tflite", "fp32"), "int8": ("tflite", "int8")}

# full_integer: int8 files with an operator on floating-point tensors are refused, and the operators
# listed: for accelerators that have integer arithmetic only (Edge TPU)
OPTIONS = {"full_integer": bool}

_LISTED = 8  # operators named in a message


def _row() -> dict[str, Any]:
    rows: dict[str, dict[str, Any]] = {row["name"]: row for row in engine_core().runtimes()}
    return rows["tflite"]


def version(recipe: Recipe) -> str:
    """LiteRT's version, of the library that the engine finds. Raises TargetError without one."""
    row = _row()
    if not row["available"]:
        raise TargetError(f"the engine cannot run TFLite: {row['why']}")
    return str(row["version"])


def driver(recipe: Recipe) -> str:
    """A CPU has none."""
    return ""


def device(recipe: Recipe) -> str:
    """The kind of processor."""
    return platform.machine()


def missing(precision: str, recipe: Recipe) -> str | None:
    """Without LiteRT nothing can be judged, and the engine's version would be unknown."""
    row = _row()
    return None if row["available"] else str(row["why"])


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
    """Checks one .tflite file and copies it. Returns (files of the new artifact, its manifest
    entry).

    Raises TargetError (BUNDLE) where it is damaged or disagrees with the manifest, and, if the
    recipe asks for full_integer, where an int8 file is not.
    """
    network = _read(source)
    _check_tensors(network, manifest, artifact, source)
    if recipe.options.get("full_integer", False) and precision == "int8":
        floating = list(floating_operators(source))
        if floating:
            shown = ", ".join(floating[:_LISTED]) + (", ..." if len(floating) > _LISTED else "")
            raise TargetError(
                f"{source}: {len(floating)} operators are not integer: {shown}", ExitCode.BUNDLE
            )
    path = folder / "model.tflite"
    shutil.copyfile(source, path)
    index = manifest.artifacts.index(artifact)
    entry = {
        **manifest.raw["artifacts"][index],
        "files": [path.name],
        "format": "tflite",
        "precision": precision,
    }
    return {path.name: path}, entry


def floating_operators(path: Path) -> Iterator[str]:
    """The operators of a .tflite file that read or write a floating-point tensor, in order, as
    "CONV_2D -> heatmaps". None: it is full integer.

    Raises TargetError (BUNDLE) for a damaged file, UNAVAILABLE without ai-edge-litert.
    """
    schema = _schema()
    floating = (schema.TensorType.FLOAT32, schema.TensorType.FLOAT16, schema.TensorType.FLOAT64)
    names = {code: name for name, code in vars(schema.BuiltinOperator).items() if name.isupper()}
    network = _read(path)
    for graph in network.subgraphs or []:
        for operator in graph.operators or []:
            tensors = [graph.tensors[i] for i in (*operator.inputs, *operator.outputs) if i >= 0]
            if any(tensor.type in floating for tensor in tensors):
                code = network.operatorCodes[operator.opcodeIndex]
                kind = names.get(max(code.builtinCode, code.deprecatedBuiltinCode), "CUSTOM")
                yield f"{kind} -> {graph.tensors[operator.outputs[0]].name.decode()}"


def _schema() -> Any:
    try:
        return import_module("ai_edge_litert.schema_py_generated")
    except ImportError as error:
        raise TargetError(f"ai-edge-litert is not installed: {error}") from error


def _read(path: Path) -> Any:
    """The file's tables as objects."""
    schema = _schema()
    data = path.read_bytes()
    if data[4:8] != b"TFL3":
        raise TargetError(f"{path}: is no TFLite file", ExitCode.BUNDLE)
    try:
        return schema.ModelT.InitFromPackedBuf(data)
    except Exception as error:  # whatever a wrong offset runs into
        what = f"{type(error).__name__}: {error}"
        raise TargetError(f"{path}: is damaged: {what}", ExitCode.BUNDLE) from error


def _check_tensors(network: Any, manifest: Manifest, artifact: Artifact, path: Path) -> None:
    """Names, types, shapes and quantisation of the signature's tensors against the manifest."""
    signatures = network.signatureDefs or []
    if len(signatures) != 1:
        raise TargetError(f"{path}: has {len(signatures)} signatures, not one", ExitCode.BUNDLE)
    graph = network.subgraphs[signatures[0].subgraphIndex]
    found: dict[str, Any] = {}
    for side in (signatures[0].inputs, signatures[0].outputs):
        found |= {entry.name.decode(): graph.tensors[entry.tensorIndex] for entry in side}
    size = (manifest.input.height, manifest.input.width)
    wanted: dict[str, tuple[str, tuple[int, ...]]] = {}
    wanted[manifest.input.name] = (artifact.input.dtype, (1, *size, 3))
    if artifact.input.dtype != "uint8" or artifact.input.layout != "NHWC":
        raise TargetError(f"{path}: the manifest's input must be uint8 NHWC", ExitCode.BUNDLE)
    for output in manifest.outputs:
        tensor = next(one for one in artifact.outputs if one.name == output.name)
        channels, *cells = output.shape(manifest.input.width, manifest.input.height)
        first = tensor.layout in ("NCHW", "NCW")
        shape = (1, channels, *cells) if first else (1, *cells, channels)
        wanted[output.name] = (tensor.dtype, shape)
    if set(found) != set(wanted):
        there, said = ", ".join(sorted(found)), ", ".join(sorted(wanted))
        raise TargetError(
            f"{path}: its tensors are {there}, the manifest says {said}", ExitCode.BUNDLE
        )
    for name, (dtype, shape) in wanted.items():
        kind = _kind(found[name])
        if (kind, tuple(found[name].shape)) != (dtype, shape):
            raise TargetError(
                f"{path}: {name} is {kind} {list(map(int, found[name].shape))}, the manifest says "
                f"{dtype} {list(shape)}",
                ExitCode.BUNDLE,
            )


def _kind(tensor: Any) -> str:
    types = vars(_schema().TensorType).items()
    return next((name.lower() for name, code in types if code == tensor.type), "unknown")
