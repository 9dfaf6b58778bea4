# SPDX-License-Identifier: Apache-2.0
"""An ONNX network with the input that the engine has: uint8 NHWC pictures, normalisation inside.

What the trainer exports has it already. A network from elsewhere that takes float pictures gets a
cast, a scale and offset, and where it is NCHW a transpose, in front.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from posewire.errors import ExitCode
from posewire.manifest import Artifact, Manifest

from .errors import TargetError


def with_picture_input(source: Path, manifest: Manifest, artifact: Artifact) -> bytes:
    """The serialised graph of ``source``; its input becomes uint8 [batch, H, W, 3].

    Raises TargetError (BUNDLE) for an input that is neither uint8 NHWC nor float32.
    """
    given = artifact.input
    if (given.dtype, given.layout) == ("uint8", "NHWC"):
        return source.read_bytes()
    if given.dtype not in ("uint8", "float32"):
        raise TargetError(
            f"{source}: input {manifest.input.name} is {given.dtype}; uint8 or float32 is needed",
            ExitCode.BUNDLE,
        )
    import numpy as np
    import onnx
    from onnx import helper, numpy_helper

    model = onnx.load_model(str(source), load_external_data=False)
    graph, name = model.graph, manifest.input.name
    image = next((value for value in graph.input if value.name == name), None)
    if image is None:
        raise TargetError(f"{source}: has no input {name}", ExitCode.BUNDLE)
    # Everything that read the input reads the last step's result instead.
    inner = _free_name(model, f"{name}_prepared")
    for node in graph.node:
        node.input[:] = [inner if tensor == name else tensor for tensor in node.input]
    steps, weights, at = [], [], name

    def step(kind: str, inputs: list[str], **attributes: Any) -> None:
        nonlocal at
        at = _free_name(model, f"{name}_{kind.lower()}")
        steps.append(helper.make_node(kind, inputs, [at], f"posewire_{kind.lower()}", **attributes))

    if given.dtype == "float32":
        step("Cast", [at], to=onnx.TensorProto.FLOAT)
        if given.mean is not None and given.std is not None:
            for kind, values in (("Sub", given.mean), ("Div", given.std)):
                constant = _free_name(model, f"{name}_{kind.lower()}_by")
                weights.append(numpy_helper.from_array(np.array(values, np.float32), constant))
                step(kind, [at, constant])
    if given.layout == "NCHW":
        step("Transpose", [at], perm=[0, 3, 1, 2])
    steps[-1].output[0] = inner
    nodes = [*steps, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    graph.initializer.extend(weights)
    batch = image.type.tensor_type.shape.dim[0]
    shape = [
        batch.dim_value if batch.HasField("dim_value") else (batch.dim_param or "batch"),
        manifest.input.height,
        manifest.input.width,
        3,
    ]
    image.CopyFrom(helper.make_tensor_value_info(name, onnx.TensorProto.UINT8, shape))
    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError as error:
        first = str(error).strip().splitlines()[0]
        raise TargetError(f"{source}: the ONNX checker refuses it: {first}") from error
    data: bytes = model.SerializeToString()
    return data


def _free_name(model: Any, wanted: str) -> str:
    """A tensor name that the graph does not use."""
    graph = model.graph
    taken = {name for node in graph.node for name in (*node.input, *node.output)}
    taken |= {tensor.name for tensor in graph.initializer}
    while wanted in taken:
        wanted += "_"
    return wanted
