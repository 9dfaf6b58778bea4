# SPDX-License-Identifier: Apache-2.0
"""What each UFF operation becomes in ONNX: one function a row, OPERATIONS is the table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from .evaluate import grouped_kernel, transposed_pads
from .format import Node

if TYPE_CHECKING:
    from .to_onnx import Writer

TO_FRONT = [0, 3, 1, 2]  # NHWC -> NCHW


def _spatial(writer: Writer, node: Node) -> dict[str, Any]:
    """Attributes of strides and padding."""
    attributes: dict[str, Any] = {"strides": list(writer.field(node, "strides", (1, 1)))}
    if writer.field(node, "implicit_padding", "") in ("same", "SAME"):
        return {**attributes, "auto_pad": "SAME_UPPER"}
    pads = list(writer.field(node, "padding", (0, 0)))
    return {**attributes, "pads": [*pads, *pads]}


def _conv(writer: Writer, node: Node) -> None:
    x, moved = writer.maps(node)
    groups = int(writer.field(node, "number_groups", 1))
    channels = writer.channels(node.inputs[0], moved)
    weights = grouped_kernel(writer.weights(node, 1), channels, groups, node.id)
    name = writer.operator(
        "Conv",
        [x, writer.array(weights.astype(np.float32))],
        writer.own(node, moved=moved),
        dilations=list(writer.field(node, "dilation", (1, 1))),
        group=groups,
        kernel_shape=list(weights.shape[2:]),
        **_spatial(writer, node),
    )
    writer.result(node, name, moved=moved)


def _conv_transpose(writer: Writer, node: Node) -> None:
    x, moved = writer.maps(node)
    groups = int(writer.field(node, "number_groups", 1))
    weights = writer.weights(node, 1).astype(np.float32)  # [K, C, h, w]
    channels = writer.channels(node.inputs[0], moved)
    if groups == 1:
        weights = weights.transpose(1, 0, 2, 3)
    elif groups != channels or weights.shape[:2] != (channels, 1):
        writer.fail(node, f"{groups} groups with weights {list(weights.shape)}")
    attributes = _spatial(writer, node)
    same = attributes.pop("auto_pad", None) is not None
    padding = attributes.pop("pads", [0, 0])[:2]
    kernel, strides = weights.shape[2:], attributes["strides"]
    lost = transposed_pads(kernel, strides, same, padding)
    name = writer.operator(
        "ConvTranspose",
        [x, writer.array(weights)],
        writer.own(node, moved=moved),
        group=groups,
        kernel_shape=list(kernel),
        pads=[before for before, _ in lost] + [after for _, after in lost],
        **attributes,
    )
    writer.result(node, name, moved=moved)


def _pool(writer: Writer, node: Node) -> None:
    x, moved = writer.maps(node)
    kind = {"max": "MaxPool", "avg": "AveragePool"}[writer.field(node, "func", "")]
    name = writer.operator(
        kind,
        [x],
        writer.own(node, moved=moved),
        kernel_shape=list(writer.field(node, "kernel")),
        **_spatial(writer, node),
    )
    writer.result(node, name, moved=moved)


def _batch_norm(writer: Writer, node: Node) -> None:
    x, moved = writer.maps(node)
    constants = [
        writer.array(writer.constant(node, i).astype(np.float32).ravel()) for i in range(1, 5)
    ]
    name = writer.operator(
        "BatchNormalization",
        [x, *constants],
        writer.own(node, moved=moved),
        epsilon=float(writer.field(node, "epsilon", 0.0)),
    )
    writer.result(node, name, moved=moved)


def _fully_connected(writer: Writer, node: Node) -> None:
    weights = writer.weights(node, 1).astype(np.float32)  # [K, C]
    name = writer.operator(
        "MatMul", [writer.plain(node.inputs[0]), writer.array(weights.T)], node.id
    )
    writer.result(node, name, moved=False)


_BINARY = {
    "add": "Add",
    "sub": "Sub",
    "mul": "Mul",
    "div": "Div",
    "min": "Min",
    "max": "Max",
    "pow": "Pow",
}
_ACTIVATIONS = {
    name.lower(): name
    for name in ("Relu", "Sigmoid", "Tanh", "Elu", "Selu", "Softsign", "Softplus")
}
_UNARY = {
    name.lower(): name
    for name in (
        *("Neg", "Exp", "Log", "Abs", "Sqrt", "Sin", "Cos", "Tan", "Sinh", "Cosh"),
        *("Asin", "Acos", "Atan", "Asinh", "Acosh", "Atanh", "Ceil", "Floor"),
    )
}


def _binary(writer: Writer, node: Node) -> None:
    moved = any(writer.is_moved(name) for name in node.inputs)
    moved = moved and len(writer.shapes[node.id]) == 4
    operands = []
    for name in node.inputs:
        values = writer.fixed.get(name)
        if values is not None:
            values = np.asarray(values, np.float32)
            if moved and values.ndim:  # joins along the file's last axes: height, width, channels
                values = values.reshape((1,) * (4 - values.ndim) + values.shape)
                values = values.transpose(TO_FRONT)
            operands.append(writer.array(values))
        elif moved and len(writer.shapes[name]) == 4:
            operands.append(writer.front(name))
        elif moved and len(writer.shapes[name]) > 0:
            writer.fail(node, "joins maps with a tensor of lower rank")
        else:
            operands.append(writer.plain(name))
    kind = _BINARY[writer.field(node, "func", "")]
    writer.result(node, writer.operator(kind, operands, writer.own(node, moved=moved)), moved=moved)


def _element(writer: Writer, node: Node) -> None:
    """Unary and Activation: the order does not matter."""
    source = node.inputs[0]
    moved = writer.is_moved(source)
    x = writer.front(source) if moved else writer.plain(source)
    name, function = writer.own(node, moved=moved), writer.field(node, "func", "")
    if node.operation == "Activation" and function == "relu6":
        limits = [writer.array(np.array(value, np.float32)) for value in (0, 6)]
        writer.operator("Clip", [x, *limits], name)
    elif node.operation == "Unary" and function == "square":
        writer.operator("Mul", [x, x], name)
    elif node.operation == "Unary" and function == "rsqrt":
        writer.operator("Reciprocal", [writer.operator("Sqrt", [x], f"{name}/sqrt")], name)
    else:
        table = _ACTIVATIONS if node.operation == "Activation" else _UNARY
        writer.operator(table[function], [x], name)
    writer.result(node, name, moved=moved)


def _identity(writer: Writer, node: Node) -> None:
    source = node.inputs[0]
    moved = writer.is_moved(source)
    tensor = writer.front(source) if moved else writer.plain(source)
    writer.result(node, tensor, moved=moved)


_AXIS_TO_FRONT = (0, 2, 3, 1)  # where an axis of NHWC lies in NCHW


def _concat(writer: Writer, node: Node) -> None:
    rank = len(writer.shapes[node.id])
    axis = int(writer.field(node, "axis", 0)) % rank
    moved = any(writer.is_moved(name) for name in node.inputs)
    inputs = [writer.front(n) if moved else writer.plain(n) for n in node.inputs]
    axis = _AXIS_TO_FRONT[axis] if moved else axis
    name = writer.operator("Concat", inputs, writer.own(node, moved=moved), axis=axis)
    writer.result(node, name, moved=moved)


def _pad(writer: Writer, node: Node) -> None:
    moved = writer.is_moved(node.inputs[0])
    table = writer.constant(node, 1).astype(np.int64)
    if moved:
        table = table[TO_FRONT]
    x = writer.front(node.inputs[0]) if moved else writer.plain(node.inputs[0])
    pads = writer.array(table.T.ravel())
    name = writer.operator("Pad", [x, pads], writer.own(node, moved=moved))
    writer.result(node, name, moved=moved)


def _reduce(writer: Writer, node: Node) -> None:
    moved = writer.is_moved(node.inputs[0])
    rank = len(writer.shapes[node.inputs[0]])
    axes = [int(axis) % rank for axis in writer.field(node, "axes", ())]
    if moved:
        axes = [_AXIS_TO_FRONT[axis] for axis in axes]
    x = writer.front(node.inputs[0]) if moved else writer.plain(node.inputs[0])
    kind = "Reduce" + str(writer.field(node, "func", "")).capitalize()
    inputs = [x, writer.array(np.array(axes, np.int64))]
    name = writer.operator(kind, inputs, writer.own(node, moved=moved), keepdims=1)
    writer.result(node, name, moved=moved)


def _softmax(writer: Writer, node: Node) -> None:
    rank = len(writer.shapes[node.inputs[0]])
    axis = int(writer.field(node, "axis", 0))
    if axis == 0:  # see evaluate.py
        axis = writer.order(node, 0, rank).index(1) if rank > 2 else rank - 1
    name = writer.operator("Softmax", [writer.plain(node.inputs[0])], node.id, axis=axis)
    writer.result(node, name, moved=False)


def _shaped(writer: Writer, node: Node) -> None:
    """Reshape, Flatten, Squeeze, ExpandDims: to the probed shape, the batch free."""
    before, after = (writer.shapes[name] for name in (node.inputs[0], node.id))
    if np.prod(before[1:], dtype=np.int64) != np.prod(after[1:], dtype=np.int64) or not after:
        writer.fail(node, f"from {before} to {after} changes the batch")
    shape = writer.array(np.array([-1, *after[1:]], np.int64))
    name = writer.operator("Reshape", [writer.plain(node.inputs[0]), shape], node.id)
    writer.result(node, name, moved=False)


def _transpose(writer: Writer, node: Node) -> None:
    order = list(writer.field(node, "permutation", ()))
    source = node.inputs[0]
    if writer.is_moved(source) and order == TO_FRONT:
        writer.result(node, writer.front(source), moved=False)
        return
    name = writer.operator("Transpose", [writer.plain(source)], node.id, perm=order)
    writer.result(node, name, moved=False)


def _strided_slice(writer: Writer, node: Node) -> None:
    begin, end, steps = (writer.constant(node, i).ravel().tolist() for i in (1, 2, 3))
    masks = [int(writer.field(node, key, 0)) for key in ("begin_mask", "end_mask")]
    if writer.field(node, "shrink_axis_mask", 0) or min(steps) < 1:
        writer.fail(node, "dropping axes and running backwards are not converted")
    shape = writer.shapes[node.inputs[0]]
    rows = []
    for axis, (first, last, step) in enumerate(zip(begin, end, steps, strict=True)):
        lower = None if masks[0] >> axis & 1 else int(first)
        upper = None if masks[1] >> axis & 1 else int(last)
        start, stop, _ = slice(lower, upper).indices(shape[axis])
        whole = (start, stop, step) == (0, shape[axis], 1)
        if axis == 0 and not whole:
            writer.fail(node, "cuts the batch")
        if not whole:
            rows.append((start, stop, axis, step))
    columns = [writer.array(np.array(column, np.int64)) for column in zip(*rows, strict=True)]
    x = writer.plain(node.inputs[0])
    name = writer.operator("Slice", [x, *columns], node.id) if rows else x
    writer.result(node, name, moved=False)


OPERATIONS: Mapping[str, Callable[[Writer, Node], None]] = {
    "Identity": _identity,
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Pool": _pool,
    "BatchNorm": _batch_norm,
    "FullyConnected": _fully_connected,
    "Binary": _binary,
    "Unary": _element,
    "Activation": _element,
    "Concat": _concat,
    "Pad": _pad,
    "Reduce": _reduce,
    "Softmax": _softmax,
    "Reshape": _shaped,
    "Flatten": _shaped,
    "Squeeze": _shaped,
    "ExpandDims": _shaped,
    "Transpose": _transpose,
    "StridedSlice": _strided_slice,
}
