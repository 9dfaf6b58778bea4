# SPDX-License-Identifier: Apache-2.0
"""What each ONNX operator becomes in UFF: one function a row, OPERATORS is the table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .format import Data
from .from_onnx import Graph, ints

SAME = "same"


def _word(value: str) -> Data:
    return Data("s", value)


# --- convolutions and pools -------------------------------------------------------------------


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """TensorFlow's "same": (before, after) of one axis; the odd one goes behind."""
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def _windows(graph: Graph, node: Any, kernel: Sequence[int]) -> tuple[list[int], list[int]]:
    """(strides, [top, left, bottom, right] of padding) of a convolution or pool."""
    values = graph.attributes(node)
    if len(kernel) != 2:
        graph.refuse(node, f"works in {len(kernel)} dimensions; 2 are written")
    strides = list(values.get("strides", [1, 1]))
    automatic = values.get("auto_pad", "NOTSET")
    if automatic == "NOTSET":
        pads = list(values.get("pads", [0, 0, 0, 0]))
    elif automatic == "VALID":
        pads = [0, 0, 0, 0]
    else:
        sides = graph.shape(node, node.input[0])[2:]
        pairs = [same_padding(*row) for row in zip(sides, kernel, strides, strict=True)]
        if automatic == "SAME_LOWER":
            pairs = [(after, before) for before, after in pairs]
        pads = [pairs[0][0], pairs[1][0], pairs[0][1], pairs[1][1]]
    if min(pads) < 0:
        graph.refuse(node, f"has a negative padding: {pads}")
    return strides, pads


def _padding(
    graph: Graph, node: Any, x: str, kernel: Sequence[int], *, may_pad: bool
) -> tuple[str, dict[str, Data]]:
    """The input, padded where no field can say it, and the fields of strides and padding."""
    strides, pads = _windows(graph, node, kernel)
    fields = {"strides": ints(strides)}
    if not any(pads):
        return x, fields
    if pads[:2] == pads[2:]:
        return x, {**fields, "padding": ints(pads[:2])}
    sides = graph.shape(node, node.input[0])[2:]
    same = [same_padding(*row) for row in zip(sides, kernel, strides, strict=True)]
    if pads == [same[0][0], same[1][0], same[0][1], same[1][1]]:
        return x, {**fields, "implicit_padding": _word(SAME)}
    if not may_pad:
        graph.refuse(node, f"padding {pads} is neither symmetric nor TensorFlow's 'same'")
    return _pad_node(graph, node.output[0], x, pads), fields


def _pad_node(graph: Graph, name: str, x: str, pads: Sequence[int]) -> str:
    table = np.array([[0, 0], [0, 0], [pads[0], pads[2]], [pads[1], pads[3]]], np.int32)
    return graph.node(f"{name}/pad", "Pad", (x, graph.constant(f"{name}/paddings", table)))


def _kernel(graph: Graph, node: Any, weights: NDArray[Any]) -> tuple[list[int], list[int]]:
    """(dilations, the kernel's extent)."""
    if weights.ndim != 4:
        graph.refuse(node, f"works in {weights.ndim - 2} dimensions; 2 are written")
    dilations = list(graph.attributes(node).get("dilations", [1, 1]))
    sides = zip(weights.shape[2:], dilations, strict=True)
    return dilations, [(side - 1) * dilation + 1 for side, dilation in sides]


def _conv(graph: Graph, node: Any) -> None:
    weights = graph.array(node, 1, "weights")
    dilations, extent = _kernel(graph, node, weights)
    x, fields = _padding(graph, node, graph.value(node.input[0], node), extent, may_pad=True)
    groups = int(graph.attributes(node).get("group", 1))
    if groups == 1 or weights.shape[1] != 1 or weights.shape[0] != groups:
        stored = weights.transpose(2, 3, 1, 0)
    else:
        stored = weights.transpose(2, 3, 0, 1)  # depthwise: [h, w, channels, 1]
    _with_bias(
        graph,
        node,
        "Conv",
        (x, graph.constant(f"{node.output[0]}/kernel", stored)),
        **fields,
        dilation=ints(dilations),
        number_groups=Data("i", groups),
        inputs_orders=graph.orders("NC+", "+CK"),
    )


def _with_bias(
    graph: Graph, node: Any, operation: str, inputs: Sequence[str], **fields: Data
) -> None:
    bias = graph.optional(node, 2)
    if bias is None:
        if len(node.input) > 2 and node.input[2]:
            graph.refuse(node, "its bias must be constant")
        graph.result(node, operation, inputs, **fields)
        return
    name = node.output[0]
    product = graph.node(f"{name}/product", operation, inputs, **fields)
    shape = bias.shape if operation == "FullyConnected" else (-1, 1, 1)
    constant = graph.constant(f"{name}/bias", bias.reshape(shape))
    graph.result(node, "Binary", (product, constant), func=_word("add"))


def _conv_transpose(graph: Graph, node: Any) -> None:
    weights = graph.array(node, 1, "weights")  # [C, K / groups, h, w]
    dilations, _ = _kernel(graph, node, weights)
    values = graph.attributes(node)
    strides, pads = list(values.get("strides", [1, 1])), list(values.get("pads", [0, 0, 0, 0]))
    if values.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID") or "output_shape" in values:
        graph.refuse(node, "its padding must be written out")
    if any(values.get("output_padding", [])) or dilations != [1, 1] or pads[:2] != pads[2:]:
        graph.refuse(node, "must have no output padding and no dilation, and symmetric padding")
    groups = int(values.get("group", 1))
    if groups == 1:
        stored = weights.transpose(2, 3, 1, 0)
    elif weights.shape[0] == groups and weights.shape[1] == 1:
        stored = weights.transpose(2, 3, 0, 1)  # depthwise: [h, w, channels, 1]
    else:
        graph.refuse(node, f"{groups} groups of several channels each cannot be written")
    shape = [1, *graph.shape(node, node.output[0])[1:]]
    name = node.output[0]
    inputs = (
        graph.value(node.input[0], node),
        graph.constant(f"{name}/kernel", stored),
        graph.constant(f"{name}/shape", np.array(shape, np.int32)),
    )
    _with_bias(
        graph,
        node,
        "ConvTranspose",
        inputs,
        strides=ints(strides),
        **({"padding": ints(pads[:2])} if any(pads) else {}),
        number_groups=Data("i", groups),
        inputs_orders=graph.orders("NC+", "+KC"),
    )


def _resize(graph: Graph, node: Any) -> None:
    """Nearest by whole factors: every cell repeated, exactly a transposed convolution of ones."""
    values = graph.attributes(node)
    before, after = (graph.shape(node, name) for name in (node.input[0], node.output[0]))
    if values.get("mode", "nearest") != "nearest":
        graph.refuse(node, f"UFF has no resizing; {values['mode']} cannot be written exactly")
    if (
        len(before) != 4
        or before[1] != after[1]
        or any(b % a for a, b in zip(before[2:], after[2:], strict=True))
    ):
        graph.refuse(node, f"from {before[1:]} to {after[1:]} is not by whole factors")
    where = values.get("coordinate_transformation_mode", "half_pixel")
    rounding = values.get("nearest_mode", "round_prefer_floor")
    repeats = [("asymmetric", "floor"), ("half_pixel", "round_prefer_floor")]
    if node.op_type == "Resize" and graph.opset > 10 and (where, rounding) not in repeats:
        graph.refuse(node, f"{where} with {rounding} does not repeat whole cells")
    channels, factors = before[1], [b // a for a, b in zip(before[2:], after[2:], strict=True)]
    name = node.output[0]
    ones = np.ones((*factors, channels, 1), np.float32)
    inputs = (
        graph.value(node.input[0], node),
        graph.constant(f"{name}/kernel", ones),
        graph.constant(f"{name}/shape", np.array([1, *after[1:]], np.int32)),
    )
    graph.result(
        node,
        "ConvTranspose",
        inputs,
        strides=ints(factors),
        number_groups=Data("i", channels),
        inputs_orders=graph.orders("NC+", "+KC"),
    )


def _pool(graph: Graph, node: Any) -> None:
    values = graph.attributes(node)
    kernel = list(values["kernel_shape"])
    if any(side != 1 for side in values.get("dilations", [1])) or len(node.output) > 1:
        graph.refuse(node, "must have no dilation and one output")
    x, fields = _padding(graph, node, graph.value(node.input[0], node), kernel, may_pad=False)
    function = {"MaxPool": "max", "AveragePool": "avg"}[node.op_type]
    if function == "avg" and len(fields) > 1:
        graph.refuse(node, "padding of an average is not written: runtimes divide differently")
    before, after = (graph.shape(node, name)[2:] for name in (node.input[0], node.output[0]))
    strides, pads = _windows(graph, node, kernel)
    for axis in range(2):
        room = before[axis] + pads[axis] + pads[axis + 2] - kernel[axis]
        if room // strides[axis] + 1 != after[axis]:
            graph.refuse(node, "rounds its size up (ceil_mode)")
    graph.result(
        node,
        "Pool",
        (x,),
        func=_word(function),
        kernel=ints(kernel),
        **fields,
        inputs_orders=graph.orders("NC+"),
    )


def _global_pool(graph: Graph, node: Any) -> None:
    function = {"GlobalAveragePool": "mean", "GlobalMaxPool": "max"}[node.op_type]
    axes = list(range(2, len(graph.shape(node, node.input[0]))))
    _write_reduce(graph, node, function, axes)


def _batch_norm(graph: Graph, node: Any) -> None:
    rows = ("gamma", "beta", "mean", "variance")
    constants = [
        graph.constant(f"{node.output[0]}/{row}", graph.array(node, i + 1, row))
        for i, row in enumerate(rows)
    ]
    epsilon = float(graph.attributes(node).get("epsilon", 1e-5))
    graph.result(
        node,
        "BatchNorm",
        (graph.value(node.input[0], node), *constants),
        epsilon=Data("d", epsilon),
        inputs_orders=graph.orders("NC+"),
    )


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
    graph.result(node, "Binary", operands, func=_word(function))


def _activation(graph: Graph, node: Any) -> None:
    if node.op_type == "Elu" and graph.attributes(node).get("alpha", 1.0) != 1.0:
        graph.refuse(node, "UFF's has an alpha of 1")
    x = graph.value(node.input[0], node)
    graph.result(node, "Activation", (x,), func=_word(node.op_type.lower()))


def _unary(graph: Graph, node: Any) -> None:
    x = graph.value(node.input[0], node)
    graph.result(node, "Unary", (x,), func=_word(node.op_type.lower()))


def _step(graph: Graph, node: Any, x: str, function: str, value: float, *, last: bool) -> str:
    """x (function) a number; the last of a chain gets the output's name."""
    rank = len(graph.shape(node, node.output[0]))
    name = f"{node.output[0]}/{function}"
    number = graph.constant(f"{name}_number", np.full((1,) * (rank - 1), value, np.float32))
    if last:
        return graph.result(node, "Binary", (x, number), func=_word(function))
    return graph.node(name, "Binary", (x, number), func=_word(function))


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
        graph.result(node, "Activation", (x,), func=_word(function))
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
    positive = graph.node(f"{name}/relu", "Activation", (x,), func=_word("relu"))
    below = _step(graph, node, x, "min", 0.0, last=False)
    constant = _small(graph, node, f"{name}/slope", slope, rank)
    negative = graph.node(f"{name}/mul", "Binary", (below, constant), func=_word("mul"))
    graph.result(node, "Binary", (positive, negative), func=_word("add"))


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
    y = graph.node(f"{name}/relu6", "Activation", (y,), func=_word("relu6"))
    y = graph.node(f"{name}/product", "Binary", (x, y), func=_word("mul"))
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
        node, "Reduce", (x,), func=_word(function), axes=ints(axes), keepdims=Data("b", True)
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
    _with_bias(graph, node, "FullyConnected", inputs, inputs_orders=graph.orders("NC", "CK"))


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
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Resize": _resize,
    "Upsample": _resize,
    "MaxPool": _pool,
    "AveragePool": _pool,
    "GlobalAveragePool": _global_pool,
    "GlobalMaxPool": _global_pool,
    "BatchNormalization": _batch_norm,
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
