# SPDX-License-Identifier: Apache-2.0
"""Two checks of an ONNX file: that it is whole, and that it is what the manifest says.

``refuse_external_data`` walks the protobuf wire format itself, because a library that opens the
file might already follow the references. A message is a run of fields: a varint tag
(number << 3 | wire type), then a varint (type 0), 8 bytes (1), a varint length and as many bytes
(2), or 4 bytes (5). Only the messages on the way to a TensorProto are entered (onnx.proto):
there, external_data (13) must be absent and data_location (14) must be 0.

``check_onnx`` compares a bundle's ONNX files with its manifest; it needs the onnx package.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import BundleError, ExitCode, PosewireError

if TYPE_CHECKING:
    from .manifest import Artifact, Manifest

# message -> field number -> the message in that field.
_WAY: dict[str, dict[int, str]] = {
    "Model": {7: "Graph", 20: "Training", 25: "Function"},
    "Training": {1: "Graph", 2: "Graph"},
    "Function": {7: "Node", 11: "Attribute"},
    "Graph": {1: "Node", 5: "Tensor", 15: "Sparse"},
    "Node": {5: "Attribute"},
    "Attribute": {5: "Tensor", 6: "Graph", 10: "Tensor", 11: "Graph", 22: "Sparse", 23: "Sparse"},
    "Sparse": {1: "Tensor", 2: "Tensor"},
    "Tensor": {},
}
_EXTERNAL_DATA, _DATA_LOCATION = 13, 14
_MAX_DEPTH = 64
_MAX_FIELDS = 4_000_000


def _varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while at < end and shift < 70:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise ValueError("a number runs past its end")


def _fields(data: bytes, at: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """Yields (field number, wire type, varint value or start, end) of one message."""
    while at < end:
        tag, at = _varint(data, at, end)
        number, kind = tag >> 3, tag & 7
        if kind == 0:
            value, at = _varint(data, at, end)
            yield number, kind, value, at
            continue
        if kind == 2:
            size, at = _varint(data, at, end)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
        else:
            raise ValueError(f"wire type {kind}")
        if number == 0 or size > end - at:
            raise ValueError("a field runs past its message")
        yield number, kind, at, at + size
        at += size


def refuse_external_data(data: bytes, shown: str) -> None:
    """Raises BundleError where a tensor's values lie outside of the file, or it is no ONNX.

    Bounded: every byte is read at most once per nesting level, levels and fields are capped.
    """
    waiting = [("Model", 0, len(data), 0)]
    count, graphs = 0, 0
    try:
        while waiting:
            message, start, end, depth = waiting.pop()
            way = _WAY[message]
            for number, kind, value, stop in _fields(data, start, end):
                count += 1
                if count > _MAX_FIELDS or depth > _MAX_DEPTH:
                    raise ValueError("nested too deeply or too many fields")
                if message == "Tensor" and _is_external(number, kind, value):
                    raise BundleError(f"{shown}: holds ONNX external data, which is refused")
                if number in way and kind == 2:
                    waiting.append((way[number], value, stop, depth + 1))
                    graphs += depth == 0 and number == 7
    except ValueError as error:
        raise BundleError(f"{shown}: is not a whole ONNX file: {error}") from error
    if not graphs:
        raise BundleError(f"{shown}: is not an ONNX file: it holds no graph")


def _is_external(number: int, kind: int, value: int) -> bool:
    if number == _EXTERNAL_DATA:
        return True
    return number == _DATA_LOCATION and (kind != 0 or value != 0)


def check_onnx(manifest: Manifest, directory: str | os.PathLike[str]) -> None:
    """Checks that every ONNX artifact of a bundle is what its manifest says.

    Compared are the names, types, layouts, sizes and strides of inputs and outputs, and that the
    graph holds the precision it claims. Call it on a verified bundle.
    Raises BundleError naming file and tensor; PosewireError (UNAVAILABLE) without the onnx package.
    """
    try:
        import onnx
    except ImportError as error:
        message = "checking an ONNX file needs the onnx package (pip install posewire[export])"
        raise PosewireError(message, ExitCode.UNAVAILABLE) from error
    for artifact in manifest.artifacts:
        if artifact.format != "onnx":
            continue
        shown = str(Path(directory) / artifact.files[0])
        if len(artifact.files) != 1:
            raise BundleError(f"{shown}: an ONNX artifact is one file, not {len(artifact.files)}")
        data = Path(directory, artifact.files[0]).read_bytes()
        refuse_external_data(data, shown)
        try:
            model = onnx.load_model_from_string(data)
            onnx.checker.check_model(model)
        except Exception as error:  # the package raises several kinds, of its own and protobuf's
            first = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise BundleError(f"{shown}: the ONNX checker refuses it: {first}") from error
        _check_tensors(manifest, artifact, model, shown)
        _check_precision(artifact, model, shown)


def _check_tensors(manifest: Manifest, artifact: Artifact, model: Any, shown: str) -> None:
    inputs = {value.name: value for value in model.graph.input}
    outputs = {value.name: value for value in model.graph.output}
    for what, there, said in (
        ("inputs", inputs, [manifest.input.name]),
        ("outputs", outputs, [output.name for output in manifest.outputs]),
    ):
        if set(there) != set(said):
            raise BundleError(
                f"{shown}: its {what} are {_list(there)}, the manifest says {_list(said)}"
            )
    wanted = (3, manifest.input.height, manifest.input.width)
    _check_value(
        inputs[manifest.input.name], artifact.input.layout, artifact.input.dtype, wanted, shown
    )
    specs = {output.name: output for output in manifest.outputs}
    for tensor in artifact.outputs:
        frame = specs[tensor.name].shape(manifest.input.width, manifest.input.height)
        _check_value(outputs[tensor.name], tensor.layout, tensor.dtype, frame, shown)


def _list(names: Any) -> str:
    return ", ".join(sorted(names)) or "none"


def _check_value(value: Any, layout: str, dtype: str, wanted: tuple[int, ...], shown: str) -> None:
    """One tensor: its type, then batch and ``wanted`` (channels first) in the layout's order."""
    import onnx

    tensor = value.type.tensor_type
    found = onnx.TensorProto.DataType.Name(tensor.elem_type)
    names = {"uint8": "UINT8", "int8": "INT8", "float16": "FLOAT16", "float32": "FLOAT"}
    if found != names[dtype]:
        raise BundleError(f"{shown}: {value.name} is {found}, the manifest says {dtype}")
    order = wanted if layout[1] == "C" else (*wanted[1:], wanted[0])
    dims = [dim.dim_value if dim.HasField("dim_value") else "?" for dim in tensor.shape.dim]
    if len(dims) != 1 + len(order) or tuple(dims[1:]) != order:
        extent = "stride" if len(order) == 3 else "length"
        raise BundleError(
            f"{shown}: {value.name} is {_shape(dims)}, "
            f"the manifest says {_shape(['batch', *order])} ({layout}, channels and {extent})"
        )


def _shape(dims: list[Any]) -> str:
    return "[" + ", ".join(map(str, dims)) + "]"


def _check_precision(artifact: Artifact, model: Any, shown: str) -> None:
    """That the typed graph is of the precision the manifest gives it."""
    import onnx
    from onnx import numpy_helper

    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    quantisers = [node for node in model.graph.node if node.op_type == "QuantizeLinear"]
    half = any(tensor.data_type == onnx.TensorProto.FLOAT16 for tensor in weights.values())
    zeros = [weights.get(node.input[2]) for node in quantisers if len(node.input) > 2]
    kinds = {onnx.TensorProto.DataType.Name(zero.data_type) for zero in zeros if zero is not None}
    symmetric = all(zero is not None and not numpy_helper.to_array(zero).any() for zero in zeros)
    dequantises = any(node.op_type == "DequantizeLinear" for node in model.graph.node)
    held = {
        "fp32": not half and not dequantises,
        "fp16": half and not dequantises,
        "int8": bool(quantisers) and kinds == {"INT8"} and symmetric,
        "int8-u8": bool(quantisers) and "UINT8" in kinds,
    }
    if not held.get(artifact.precision, False):
        found = "quantised" if dequantises else "fp16" if half else "fp32"
        kind = f" with zero points of {_list(kinds)}" if kinds else ""
        raise BundleError(
            f"{shown}: the manifest says {artifact.precision}, the graph is {found}{kind}"
        )
