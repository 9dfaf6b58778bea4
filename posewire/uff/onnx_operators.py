# SPDX-License-Identifier: Apache-2.0
"""What each ONNX operator becomes in UFF: one function a row, OPERATORS is the table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .format import Data
from .from_onnx import Graph, ints
from .onnx_windows import batch_norm, conv, conv_transpose, pool, resize, with_bias, word


def _global_pool(graph: Graph, node: Any) -> None:
    function = {"GlobalAveragePool": "mean", "GlobalMaxPool": "max"}[node.op_type]
    axes = list(range(2, len(graph.shape(node, node.input[0]))))
    _write_reduce(graph, node, function, axes)


# --- element by element -----------------------------------------------------------------------


def _small(graph: Graph, node: Any, name: str, array: NDArray[Any], rank: int) -> str:
    """A constant operand of a tensor of that rank, without the batch axis."""
    shape = (1,) * (rank - array.ndim) + array.shape
    if array.ndim > rank or shape[0] != 1:
        graph.refuse(node, f"its constant has the shape {list(array.shape)}")
    return graph.constant(name, array.reshape(shape[1:]).astype(np.float32))


def _binary(graph: Graph, node: Any) -> None:
    function = {
        "Add": "add",
        "Sub": "sub",
        "Mul": "mul",
        "Div": "div",
        "Min": "min",
        "Max": "max",
        "Pow": "pow",
    }[node.op_type]
    if len(node.input) != 2:
        graph.refuse(node, f"of {len(node.input)} inputs; two are written")
    rank = len(graph.shape(node, node.output[0]))
    operands = []
    for i, name in enumerate(node.input):
        constant = graph.arrays.get(name)
        if constant is not None:
            operands.append(_small(graph, node, f"{node.output[0]}/{i}", constant, rank))
        elif len(graph.shape(node, name)) != rank:
            graph.refuse(node, "joins tensors of different rank")
        else:
            operands.append(graph.value(name, node))
    graph.result(node, "Binary", operands, func=word(function))


def _activation(graph: Graph, node: Any) -> None:
    if node.op_type == "Elu" and graph.attributes(node).get("alpha", 1.0) != 1.0:
        graph.refuse(node, "UFF's has an alpha of 1")
    x = graph.value(node.input[0], node)
    graph.result(node, "Activation", (x,), func=word(node.op_type.lower()))


def _unary(graph: Graph, node: Any) -> None:
    x = graph.value(node.input[0], node)
    graph.result(node, "Unary", (x,), func=word(node.op_type.lower()))


def _step(graph: Graph, node: Any, x: str, function: str, value: float, *, last: bool) -> str:
    """x (function) a number; the last of a chain gets the output's name."""
    rank = len(graph.shape(node, node.output[0]))
    name = f"{node.output[0]}/{function}"
    number = graph.constant(f"{name}_number", np.full((1,) * (rank - 1), value, np.float32))
    if last:
        return graph.result(node, "Binary", (x, number), func=word(function))
    return graph.node(name, "Binary", (x, number), func=word(function))


def _clip(graph: Graph, node: Any) -> None:
    values = graph.attributes(node)
    limits = []
    for i, key in enumerate(("min", "max")):
        given = values.get(key)
        if given is None and len(node.input) > i + 1 and node.input[i + 1]:
            given = float(graph.array(node, i + 1, key).reshape(()))
        limits.append(given)
    low, high = limits
    high = None if high is not None and high > 3e38 else high
    low = None if low is not None and low < -3e38 else low
    x = graph.value(node.input[0], node)
    if low == 0 and high in (None, 6):
        function = "relu" if high is None else "relu6"
        graph.result(node, "Activation", (x,), func=word(function))
        return
    if low is not None:
        x = _step(graph, node, x, "max", low, last=high is None)
    if high is not None:
        x = _step(graph, node, x, "min", high, last=True)
    graph.alias(node.output[0], x)


def _leaky(graph: Graph, node: Any) -> None:
    slope = np.asarray(graph.attributes(node).get("alpha", 0.01), np.float32)
    _two_slopes(graph, node, slope)


def _prelu(graph: Graph, node: Any) -> None:
    _two_slopes(graph, node, graph.array(node, 1, "slope"))


def _two_slopes(graph: Graph, node: Any, slope: NDArray[Any]) -> None:
    """max(x, 0) + slope min(x, 0), which is exact: one of the two is 0."""
    x, name = graph.value(node.input[0], node), node.output[0]
    rank = len(graph.shape(node, name))
    positive = graph.node(f"{name}/relu", "Activation", (x,), func=word("relu"))
    below = _step(graph, node, x, "min", 0.0, last=False)
    constant = _small(graph, node, f"{name}/slope", slope, rank)
    negative = graph.node(f"{name}/mul", "Binary", (below, constant), func=word("mul"))
    graph.result(node, "Binary", (positive, negative), func=word("add"))


def _hard_sigmoid(graph: Graph, node: Any) -> None:
    values = graph.attributes(node)
    x = graph.value(node.input[0], node)
    x = _step(graph, node, x, "mul", values.get("alpha", 0.2), last=False)
    x = _step(graph, node, x, "add", values.get("beta", 0.5), last=False)
    x = _step(graph, node, x, "max", 0.0, last=False)
    _step(graph, node, x, "min", 1.0, last=True)


def _hard_swish(graph: Graph, node: Any) -> None:
    x, name = graph.value(node.input[0], node), node.output[0]
    y = _step(graph, node, x, "add", 3.0, last=False)
    y = graph.node(f"{name}/relu6", "Activation", (y,), func=word("relu6"))
    y = graph.node(f"{name}/product", "Binary", (x, y), func=word("mul"))
    _step(graph, node, y, "mul", 1.0 / 6.0, last=True)


# --- shapes -----------------------------------------------------------------------------------


def _same(graph: Graph, node: Any) -> None:
    graph.alias(node.output[0], graph.value(node.input[0], node))


def _axis(graph: Graph, node: Any, axis: int, rank: int) -> int:
    axis = axis + rank if axis < 0 else axis
    if axis == 0:
        graph.refuse(node, "works along the batch")
    return axis


def _concat(graph: Graph, node: Any) -> None:
    rank = len(graph.shape(node, node.output[0]))
    axis = _axis(graph, node, int(graph.attributes(node)["axis"]), rank)
    graph.result(
        node, "Concat", [graph.value(name, node) for name in node.input], axis=Data("i", axis)
    )


def _transpose(graph: Graph, node: Any) -> None:
    rank = len(graph.shape(node, node.input[0]))
    order = list(graph.attributes(node).get("perm", range(rank - 1, -1, -1)))
    if order[0] != 0:
        graph.refuse(node, "moves the batch")
    graph.result(node, "Transpose", (graph.value(node.input[0], node),), permutation=ints(order))


def _reshape(graph: Graph, node: Any) -> None:
    before, after = (graph.shape(node, name) for name in (node.input[0], node.output[0]))
    if np.prod(before[1:], dtype=np.int64) != np.prod(after[1:], dtype=np.int64):
        graph.refuse(node, "changes the batch")
    shape = graph.constant(f"{node.output[0]}/shape", np.array([-1, *after[1:]], np.int32))
    graph.result(node, "Reshape", (graph.value(node.input[0], node), shape))


def _pad(graph: Graph, node: Any) -> None:
    values = graph.attributes(node)
    pads = values.get("pads")
    pads = graph.array(node, 1, "pads").tolist() if pads is None else list(pads)
    number = values.get("value", 0.0)
    if len(node.input) > 2 and node.input[2]:
        number = float(graph.array(node, 2, "value").reshape(()))
    if values.get("mode", "constant") != "constant" or number != 0 or len(node.input) > 3:
        graph.refuse(node, "only zeros are padded")
    if len(pads) != 8 or min(pads) < 0 or any(pads[i] for i in (0, 1, 4, 5)):
        graph.refuse(node, f"only height and width of maps grow, not by {pads}")
    table = np.array(pads, np.int32).reshape(2, 4).T
    paddings = graph.constant(f"{node.output[0]}/paddings", table)
    graph.result(node, "Pad", (graph.value(node.input[0], node), paddings))


def _cut(
    graph: Graph, node: Any, output: str, ranges: Mapping[int, tuple[int, int, int]], rank: int
) -> None:
    """A strided slice: axis -> (begin, end, step); whole axes are said by the masks."""
    begin, end, steps = ([0] * rank, [0] * rank, [1] * rank)
    mask = 0
    for axis in range(rank):
        if axis in ranges:
            begin[axis], end[axis], steps[axis] = ranges[axis]
        else:
            mask |= 1 << axis
    constants = [
        graph.constant(f"{output}/{name}", np.array(values, np.int32))
        for name, values in (("begin", begin), ("end", end), ("strides", steps))
    ]
    written = graph.node(
        output,
        "StridedSlice",
        (graph.value(node.input[0], node), *constants),
        begin_mask=Data("i", mask),
        end_mask=Data("i", mask),
        shrink_axis_mask=Data("i", 0),
    )
    graph.alias(output, written)


def _slice(graph: Graph, node: Any) -> None:
    shape, values = graph.shape(node, node.input[0]), graph.attributes(node)
    if graph.opset < 10:
        starts, ends = list(values["starts"]), list(values["ends"])
        axes, steps = list(values.get("axes", range(len(starts)))), [1] * len(starts)
    else:
        starts, ends = (graph.array(node, i, w).tolist() for i, w in ((1, "starts"), (2, "ends")))
        given = [graph.array(node, i, "axes and steps") if len(node.input) > i and node.input[i]
                 else None for i in (3, 4)]  # fmt: skip
        axes = list(range(len(starts))) if given[0] is None else given[0].tolist()
        steps = [1] * len(starts) if given[1] is None else given[1].tolist()
    ranges = {}
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        axis = _axis(graph, node, axis, len(shape))
        if step < 1:
            graph.refuse(node, "runs backwards")
        begin, stop, _ = slice(start, end).indices(shape[axis])
        ranges[axis] = (begin, stop, step)
    _cut(graph, node, node.output[0], ranges, len(shape))


def _split(graph: Graph, node: Any) -> None:
    shape = graph.shape(node, node.input[0])
    axis = _axis(graph, node, int(graph.attributes(node).get("axis", 0)), len(shape))
    at = 0
    for output in node.output:
        size = graph.shape(node, output)[axis]
        _cut(graph, node, output, {axis: (at, at + size, 1)}, len(shape))
        at += size


def _write_reduce(graph: Graph, node: Any, function: str, axes: Sequence[int]) -> None:
    x = graph.value(node.input[0], node)
    graph.result(
        node, "Reduce", (x,), func=word(function), axes=ints(axes), keepdims=Data("b", True)
    )


def _reduce(graph: Graph, node: Any) -> None:
    values, rank = graph.attributes(node), len(graph.shape(node, node.input[0]))
    axes = values.get("axes")
    axes = graph.array(node, 1, "axes").tolist() if axes is None else list(axes)
    if not values.get("keepdims", 1):
        graph.refuse(node, "TensorRT's UFF parser keeps reduced axes always")
    function = node.op_type.removeprefix("Reduce").lower()
    _write_reduce(graph, node, function, [_axis(graph, node, axis, rank) for axis in axes])


def _gemm(graph: Graph, node: Any) -> None:
    values = graph.attributes(node)
    if values.get("alpha", 1.0) != 1.0 or values.get("beta", 1.0) != 1.0 or values.get("transA"):
        graph.refuse(node, "must be a plain product and sum")
    weights = graph.array(node, 1, "weights")
    if weights.ndim != 2 or len(graph.shape(node, node.input[0])) != 2:
        graph.refuse(node, "must multiply vectors by one matrix")
    stored = weights.T if values.get("transB") else weights
    kernel = graph.constant(f"{node.output[0]}/kernel", stored)
    inputs = (graph.value(node.input[0], node), kernel)
    with_bias(graph, node, "FullyConnected", inputs, inputs_orders=graph.orders("NC", "CK"))


def _softmax(graph: Graph, node: Any) -> None:
    rank = len(graph.shape(node, node.input[0]))
    axis = int(graph.attributes(node).get("axis", -1 if graph.opset >= 13 else 1))
    axis = _axis(graph, node, axis, rank)
    if graph.opset < 13 and axis != rank - 1:
        graph.refuse(node, "flattens its input (opset below 13)")
    orders = graph.orders("NC+" if rank > 2 else "NC")
    x = graph.value(node.input[0], node)
    graph.result(node, "Softmax", (x,), axis=Data("i", axis), inputs_orders=orders)


Row = Callable[[Graph, Any], None]
OPERATORS: Mapping[str, Row] = {
    "Conv": conv,
    "ConvTranspose": conv_transpose,
    "Resize": resize,
    "Upsample": resize,
    "MaxPool": pool,
    "AveragePool": pool,
    "GlobalAveragePool": _global_pool,
    "GlobalMaxPool": _global_pool,
    "BatchNormalization": batch_norm,
    **dict.fromkeys(("Add", "Sub", "Mul", "Div", "Min", "Max", "Pow"), _binary),
    **dict.fromkeys(
        ("Relu", "Sigmoid", "Tanh", "Elu", "Selu", "Softsign", "Softplus"), _activation
    ),
    **dict.fromkeys(("Neg", "Exp", "Log", "Abs", "Sqrt", "Ceil", "Floor"), _unary),
    "Clip": _clip,
    "LeakyRelu": _leaky,
    "PRelu": _prelu,
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _hard_swish,
    "Identity": _same,
    "Dropout": _same,
    "Concat": _concat,
    "Transpose": _transpose,
    "Reshape": _reshape,
    "Flatten": _reshape,
    "Squeeze": _reshape,
    "Unsqueeze": _reshape,
    "Pad": _pad,
    "Slice": _slice,
    "Split": _split,
    **dict.fromkeys(("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin"), _reduce),
    "Gemm": _gemm,
    "MatMul": _gemm,
    "Softmax": _softmax,
}
