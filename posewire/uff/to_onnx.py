# SPDX-License-Identifier: Apache-2.0
"""UFF -> ONNX, for those who come from old Jetsons and have lost the network that it was made of.

Feature maps of NHWC graphs (TensorFlow's) are kept NCHW between convolutions: a value remembers
that it is moved, and is moved back only where an operation needs the file's own order. Names of
inputs and outputs stay; the input keeps the file's layout, the batch becomes free. Plugins are
refused by name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from ..errors import BundleError, ExitCode, PosewireError
from .evaluate import grouped_kernel, outputs_of, probe, transposed_pads, unfolded
from .format import Node, Uff, read_uff, resolved

OPSET = 18
_IR_VERSION = 8
_TO_FRONT, _TO_BACK = [0, 3, 1, 2], [0, 2, 3, 1]  # NHWC -> NCHW and back


def uff_to_onnx(data: bytes, shown: str, shape: Sequence[int] | None = None) -> bytes:
    """An ONNX file's bytes for a UFF file's; ``shown`` names it in messages.

    ``shape`` is the input's without the batch, needed where the file leaves sides open. Raises
    BundleError naming node and operation, PosewireError (UNAVAILABLE) without the onnx package.
    """
    try:
        onnx: Any = import_module("onnx")
    except ImportError as error:
        raise PosewireError(f"converting UFF needs onnx: {error}", ExitCode.UNAVAILABLE) from error
    uff = read_uff(data, shown)
    try:
        writer = _Writer(onnx, uff, shape)
        for node in uff.nodes:
            writer.write(node)
        return writer.finish()
    except BundleError as error:
        raise BundleError(f"{shown}: {error}") from error


class _Writer:
    def __init__(self, onnx: Any, uff: Uff, shape: Sequence[int] | None) -> None:
        self._onnx, self.uff = onnx, uff
        self._inputs = [_sized(uff, n, shape) for n in uff.nodes if n.operation == "Input"]
        zeros = {name: np.zeros((1, *sides), np.float32) for name, sides in self._inputs}
        self.shapes, self.fixed = probe(uff, zeros)
        self._moved: set[str] = set()  # values whose tensor is NCHW though the file's is NHWC
        self._alias: dict[str, str] = {}
        self._done: dict[tuple[str, bool], str] = {}
        self._nodes: list[Any] = []
        self._arrays: list[Any] = []
        self._count = 0

    def write(self, node: Node) -> None:
        if node.operation in ("Const", "Input", "MarkOutput") or node.id in self.fixed:
            return
        row = _OPERATIONS.get(node.operation)
        if row is None:
            what = "a plugin" if node.operation.startswith("_") else "not known"
            raise BundleError(f"{node.id}: operation {node.operation} is {what}")
        try:
            row(self, node)
        except (ValueError, IndexError, TypeError, KeyError) as error:
            first = (str(error).splitlines() or [type(error).__name__])[0]
            raise BundleError(f"{node.id}: {node.operation}: {first}") from error

    def finish(self) -> bytes:
        helper, proto = self._onnx.helper, self._onnx.TensorProto
        inputs = [
            helper.make_tensor_value_info(name, proto.FLOAT, ["batch", *sides])
            for name, sides in self._inputs
        ]
        outputs = []
        for name in dict.fromkeys(outputs_of(self.uff)):
            tensor = self.plain(name)
            if tensor != name:
                self._nodes.append(helper.make_node("Identity", [tensor], [name], name=name))
            shape = ["batch", *self.shapes[name][1:]]
            outputs.append(helper.make_tensor_value_info(name, proto.FLOAT, shape))
        if not outputs or not inputs:
            raise BundleError("the graph has no input or marks no output")
        graph = helper.make_graph(self._nodes, "uff", inputs, outputs, self._arrays)
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", OPSET)],
            producer_name="posewire",
            ir_version=_IR_VERSION,
        )
        try:
            self._onnx.checker.check_model(model, full_check=True)
        except Exception as error:
            first = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise BundleError(f"what it says makes no ONNX graph: {first}") from error
        return bytes(model.SerializeToString())

    # --- what operations use

    def field(self, node: Node, key: str, default: Any = None) -> Any:
        value = resolved(self.uff, node, key)
        return default if value is None else value

    def fail(self, node: Node, why: str) -> NoReturn:
        raise BundleError(f"{node.id}: {node.operation}: {why}")

    def array(self, values: NDArray[Any]) -> str:
        name = f"array_{len(self._arrays)}"
        self._arrays.append(self._onnx.numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def operator(self, kind: str, inputs: Sequence[str], name: str, **attributes: Any) -> str:
        made = self._onnx.helper.make_node(kind, list(inputs), [name], name=name, **attributes)
        self._nodes.append(made)
        return name

    def result(self, node: Node, tensor: str, *, moved: bool) -> None:
        self._alias[node.id] = tensor
        if moved:
            self._moved.add(node.id)

    def own(self, node: Node, *, moved: bool) -> str:
        """The name of a node's result: its own, unless that is what will be moved back to it."""
        return f"{node.id}/nchw" if moved else node.id

    def is_moved(self, name: str) -> bool:
        return name in self._moved

    def plain(self, name: str) -> str:
        """The tensor in the file's own order."""
        return self._tensor(name, front=False)

    def front(self, name: str) -> str:
        """The tensor of a feature map that the file has as NHWC, as NCHW."""
        return self._tensor(name, front=True)

    def _tensor(self, name: str, *, front: bool) -> str:
        if name in self.fixed:
            values = self.fixed[name]
            kind = np.float32 if values.dtype.kind == "f" else np.int64
            return self.array((values.transpose(_TO_FRONT) if front else values).astype(kind))
        tensor = self._alias.get(name, name)
        if (name in self._moved) == front:
            return tensor
        key = (name, front)
        if key not in self._done:
            order = _TO_FRONT if front else _TO_BACK
            made = f"{name}/nchw" if front else (name if tensor != name else f"{name}/nhwc")
            self._done[key] = self.operator("Transpose", [tensor], made, perm=order)
        return self._done[key]

    def order(self, node: Node, index: int, rank: int) -> list[int]:
        orders = self.field(node, "inputs_orders", ())
        if index >= len(orders):
            return list(range(rank))
        return unfolded(orders[index], rank, node.id)

    def maps(self, node: Node) -> tuple[str, bool]:
        """(the first input as NCHW, whether the file has it as NHWC)."""
        name = node.inputs[0]
        rank = len(self.shapes[name])
        if rank != 4:
            self.fail(node, f"its input has {rank} dimensions, not 4")
        order = self.order(node, 0, 4)
        if order == [0, 1, 2, 3]:
            return self.plain(name), False
        if order == [0, 2, 3, 1]:
            return self.front(name), True
        self.fail(node, f"maps in the order {order}")

    def weights(self, node: Node, index: int) -> NDArray[Any]:
        """A constant input in canonical order."""
        values = self.constant(node, index)
        return values.transpose(np.argsort(self.order(node, index, values.ndim)))

    def constant(self, node: Node, index: int) -> NDArray[Any]:
        if node.inputs[index] not in self.fixed:
            self.fail(node, f"its input {index} must be constant")
        return self.fixed[node.inputs[index]]

    def channels(self, name: str, moved: bool) -> int:
        return self.shapes[name][3 if moved else 1]


def _sized(uff: Uff, node: Node, shape: Sequence[int] | None) -> tuple[str, list[int]]:
    sides = list(resolved(uff, node, "shape") or ())[1:]
    if shape is not None and len(shape) == len(sides):
        for i, (said, given) in enumerate(zip(sides, shape, strict=True)):
            if said not in (-1, given):
                raise BundleError(f"{node.id}: the file says {sides}, asked for is {list(shape)}")
            sides[i] = int(given)
    if not sides or any(not 1 <= side <= 65536 for side in sides):
        raise BundleError(f"{node.id}: the file leaves the input's size open: {sides}")
    return node.id, sides


# --- operations -------------------------------------------------------------------------------


def _spatial(writer: _Writer, node: Node) -> dict[str, Any]:
    """Attributes of strides and padding."""
    attributes: dict[str, Any] = {"strides": list(writer.field(node, "strides", (1, 1)))}
    if writer.field(node, "implicit_padding", "") in ("same", "SAME"):
        return {**attributes, "auto_pad": "SAME_UPPER"}
    pads = list(writer.field(node, "padding", (0, 0)))
    return {**attributes, "pads": [*pads, *pads]}


def _conv(writer: _Writer, node: Node) -> None:
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


def _conv_transpose(writer: _Writer, node: Node) -> None:
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


def _pool(writer: _Writer, node: Node) -> None:
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


def _batch_norm(writer: _Writer, node: Node) -> None:
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


def _fully_connected(writer: _Writer, node: Node) -> None:
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


def _binary(writer: _Writer, node: Node) -> None:
    moved = any(writer.is_moved(name) for name in node.inputs)
    moved = moved and len(writer.shapes[node.id]) == 4
    operands = []
    for name in node.inputs:
        values = writer.fixed.get(name)
        if values is not None:
            values = np.asarray(values, np.float32)
            if moved and values.ndim:  # joins along the file's last axes: height, width, channels
                values = values.reshape((1,) * (4 - values.ndim) + values.shape)
                values = values.transpose(_TO_FRONT)
            operands.append(writer.array(values))
        elif moved and len(writer.shapes[name]) == 4:
            operands.append(writer.front(name))
        elif moved and len(writer.shapes[name]) > 0:
            writer.fail(node, "joins maps with a tensor of lower rank")
        else:
            operands.append(writer.plain(name))
    kind = _BINARY[writer.field(node, "func", "")]
    writer.result(node, writer.operator(kind, operands, writer.own(node, moved=moved)), moved=moved)


def _element(writer: _Writer, node: Node) -> None:
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


def _identity(writer: _Writer, node: Node) -> None:
    source = node.inputs[0]
    moved = writer.is_moved(source)
    tensor = writer.front(source) if moved else writer.plain(source)
    writer.result(node, tensor, moved=moved)


_AXIS_TO_FRONT = (0, 2, 3, 1)  # where an axis of NHWC lies in NCHW


def _concat(writer: _Writer, node: Node) -> None:
    rank = len(writer.shapes[node.id])
    axis = int(writer.field(node, "axis", 0)) % rank
    moved = any(writer.is_moved(name) for name in node.inputs)
    inputs = [writer.front(n) if moved else writer.plain(n) for n in node.inputs]
    axis = _AXIS_TO_FRONT[axis] if moved else axis
    name = writer.operator("Concat", inputs, writer.own(node, moved=moved), axis=axis)
    writer.result(node, name, moved=moved)


def _pad(writer: _Writer, node: Node) -> None:
    moved = writer.is_moved(node.inputs[0])
    table = writer.constant(node, 1).astype(np.int64)
    if moved:
        table = table[_TO_FRONT]
    x = writer.front(node.inputs[0]) if moved else writer.plain(node.inputs[0])
    pads = writer.array(table.T.ravel())
    name = writer.operator("Pad", [x, pads], writer.own(node, moved=moved))
    writer.result(node, name, moved=moved)


def _reduce(writer: _Writer, node: Node) -> None:
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


def _softmax(writer: _Writer, node: Node) -> None:
    rank = len(writer.shapes[node.inputs[0]])
    axis = int(writer.field(node, "axis", 0))
    if axis == 0:  # see evaluate.py
        axis = writer.order(node, 0, rank).index(1) if rank > 2 else rank - 1
    name = writer.operator("Softmax", [writer.plain(node.inputs[0])], node.id, axis=axis)
    writer.result(node, name, moved=False)


def _shaped(writer: _Writer, node: Node) -> None:
    """Reshape, Flatten, Squeeze, ExpandDims: to the probed shape, the batch free."""
    before, after = (writer.shapes[name] for name in (node.inputs[0], node.id))
    if np.prod(before[1:], dtype=np.int64) != np.prod(after[1:], dtype=np.int64) or not after:
        writer.fail(node, f"from {before} to {after} changes the batch")
    shape = writer.array(np.array([-1, *after[1:]], np.int64))
    name = writer.operator("Reshape", [writer.plain(node.inputs[0]), shape], node.id)
    writer.result(node, name, moved=False)


def _transpose(writer: _Writer, node: Node) -> None:
    order = list(writer.field(node, "permutation", ()))
    source = node.inputs[0]
    if writer.is_moved(source) and order == _TO_FRONT:
        writer.result(node, writer.front(source), moved=False)
        return
    name = writer.operator("Transpose", [writer.plain(source)], node.id, perm=order)
    writer.result(node, name, moved=False)


def _strided_slice(writer: _Writer, node: Node) -> None:
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


_OPERATIONS: Mapping[str, Callable[[_Writer, Node], None]] = {
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
