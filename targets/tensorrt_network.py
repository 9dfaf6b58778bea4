# SPDX-License-Identifier: Apache-2.0
"""What the compilers of TensorRT and TensorRT-RTX share: an ONNX file becomes a network, checked
against the manifest, and the network's engine an artifact.

The module of bindings is handed in as ``trt``: the two products have the same names, each its own
versions of them (notes on what differs stand where it is used, in tensorrt.py).

A compiled artifact is one file, ``model.plan``; its input is uint8 NHWC in the manifest's channel
order with the normalisation inside, its outputs are float32 or float16 under the manifest's names.
"""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

from posewire.errors import ExitCode
from posewire.manifest import Artifact, Manifest

from .errors import TargetError
from .onnx_input import with_picture_input
from .recipe import Recipe

PLAN = "model.plan"
_LINES = 3  # of what TensorRT said, in an error
_PLAIN = ("ERROR", "INTERNAL_ERROR")


def logger(trt: Any) -> Any:
    """An ILogger that keeps what goes wrong in ``errors`` instead of printing it."""

    class Log(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, msg: str) -> None:
            if severity.name in _PLAIN:
                self.errors.append(" ".join(str(msg).split()))

    return Log()


def said(log: Any) -> str:
    """The first errors, on one line: the first is the cause, the rest follow from it."""
    return "; ".join(log.errors[:_LINES]) or "it does not say why"


def other_machine(recipe: Recipe) -> str | None:
    """Why this processor is not the target's; None where it is, or any will do."""
    machines, here = recipe.options.get("machines"), platform.machine()
    if not isinstance(machines, list) or here in machines:
        return None
    return f"{recipe.name} is for {', '.join(machines)}, this machine is {here}"


def builder_of(trt: Any, log: Any) -> Any:
    """A Builder. Raises TargetError where TensorRT gives none, as without a driver."""
    try:
        return trt.Builder(log)
    except TypeError as error:  # the bindings' way to say that the library returned nothing
        raise TargetError(f"TensorRT has no builder here: {said(log)}") from error


def parse(
    trt: Any, log: Any, network: Any, source: Path, manifest: Manifest, artifact: Artifact
) -> Any:
    """Reads the ONNX file into ``network``. Returns the parser, which must outlive the build.

    Raises TargetError (BUNDLE) naming the file and what the parser refuses in it.
    """
    parser = trt.OnnxParser(network, log)
    if not parser.parse(with_picture_input(source, manifest, artifact)):
        reasons = [
            " ".join(parser.get_error(index).desc().split()) for index in range(parser.num_errors)
        ]
        why = "; ".join(reasons[:_LINES]) or said(log)
        raise TargetError(f"{source}: TensorRT's parser refuses it: {why}", ExitCode.BUNDLE)
    _check_tensors(trt, network, source, manifest)
    return parser


def _check_tensors(trt: Any, network: Any, source: Path, manifest: Manifest) -> None:
    """The engine feeds and reads tensors by name: they must be there and of the right shape."""
    inputs = [network.get_input(i) for i in range(network.num_inputs)]
    size = (manifest.input.height, manifest.input.width, 3)
    if len(inputs) != 1 or inputs[0].name != manifest.input.name:
        names = ", ".join(tensor.name for tensor in inputs) or "none"
        raise TargetError(
            f"{source}: its inputs are {names}, the manifest says {manifest.input.name}",
            ExitCode.BUNDLE,
        )
    if tuple(inputs[0].shape)[1:] != size or inputs[0].dtype != trt.DataType.UINT8:
        raise TargetError(
            f"{source}: input {inputs[0].name} is {inputs[0].dtype} {tuple(inputs[0].shape)}, "
            f"not UINT8 (batch, {', '.join(map(str, size))})",
            ExitCode.BUNDLE,
        )
    found = {network.get_output(i).name for i in range(network.num_outputs)}
    wanted = {output.name for output in manifest.outputs}
    if found != wanted:
        raise TargetError(
            f"{source}: its outputs are {', '.join(sorted(found))}, the manifest says "
            f"{', '.join(sorted(wanted))}",
            ExitCode.BUNDLE,
        )


def batches(network: Any, max_batch: int, source: Path) -> tuple[int, int, int]:
    """The smallest, usual and largest batch of the profile; a fixed one where the network has it.

    Tuned for the largest: batches grow only when inference is the bottleneck, which is when speed
    matters. Raises TargetError (BUNDLE) where the network's own batch is another.
    """
    fixed, *_ = network.get_input(0).shape
    if fixed < 0:
        return 1, max_batch, max_batch
    if fixed != max_batch:
        raise TargetError(
            f"{source}: its batch is fixed at {fixed}, {max_batch} was asked for", ExitCode.BUNDLE
        )
    return fixed, fixed, fixed


def add_profile(builder: Any, config: Any, network: Any, sizes: tuple[int, int, int]) -> Any:
    """One optimisation profile over batches of smallest, usual and largest size."""
    image = network.get_input(0)
    profile = builder.create_optimization_profile()
    rest = tuple(image.shape)[1:]
    low, usual, high = ((size, *rest) for size in sizes)
    profile.set_shape(image.name, low, usual, high)
    config.add_optimization_profile(profile)
    return profile


def build_plan(builder: Any, network: Any, config: Any, log: Any, source: Path) -> bytes:
    """The serialised engine. Raises TargetError (BUNDLE) with what TensorRT said."""
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise TargetError(f"{source}: TensorRT cannot build it: {said(log)}", ExitCode.BUNDLE)
    return bytes(plan)


def entry(
    trt: Any,
    runtime: str,
    network: Any,
    source: Path,
    manifest: Manifest,
    artifact: Artifact,
    precision: str,
) -> dict[str, Any]:
    """The new artifact's manifest entry, from the built network's own tensors.

    Raises TargetError (BUNDLE) for an output that is no floating-point tensor.
    """
    types = {trt.DataType.FLOAT: "float32", trt.DataType.HALF: "float16"}
    layouts = {output.name: output.layout for output in artifact.outputs}
    dtypes = {}
    for index in range(network.num_outputs):
        tensor = network.get_output(index)
        if tensor.dtype not in types:
            raise TargetError(
                f"{source}: output {tensor.name} is {tensor.dtype}, not FLOAT or HALF",
                ExitCode.BUNDLE,
            )
        dtypes[tensor.name] = types[tensor.dtype]
    return {
        "files": [PLAN],
        "format": runtime,
        "precision": precision,
        "input": {"layout": "NHWC", "dtype": "uint8"},
        "outputs": [
            {"name": one.name, "layout": layouts[one.name], "dtype": dtypes[one.name]}
            for one in manifest.outputs
        ],
    }


def write_plan(folder: Path, plan: bytes) -> dict[str, Path]:
    """Writes ``model.plan``; returns the new artifact's files."""
    path = folder / PLAN
    path.write_bytes(plan)
    return {PLAN: path}
