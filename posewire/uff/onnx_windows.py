# SPDX-License-Identifier: Apache-2.0
"""ONNX operators that slide a window over feature maps, and what follows them, as UFF."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .format import Data
from .from_onnx import Graph, ints

SAME = "same"


def word(value: str) -> Data:
    """A field's text."""
    return Data("s", value)


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
        return x, {**fields, "implicit_padding": word(SAME)}
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


def conv(graph: Graph, node: Any) -> None:
    weights = graph.array(node, 1, "weights")
    dilations, extent = _kernel(graph, node, weights)
    x, fields = _padding(graph, node, graph.value(node.input[0], node), extent, may_pad=True)
    groups = int(graph.attributes(node).get("group", 1))
    if groups == 1 or weights.shape[1] != 1 or weights.shape[0] != groups:
        stored = weights.transpose(2, 3, 1, 0)
    else:
        stored = weights.transpose(2, 3, 0, 1)  # depthwise: [h, w, channels, 1]
    with_bias(
        graph,
        node,
        "Conv",
        (x, graph.constant(f"{node.output[0]}/kernel", stored)),
        **fields,
        dilation=ints(dilations),
        number_groups=Data("i", groups),
        inputs_orders=graph.orders("NC+", "+CK"),
    )


def with_bias(
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
    graph.result(node, "Binary", (product, constant), func=word("add"))


def conv_transpose(graph: Graph, node: Any) -> None:
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
    with_bias(
        graph,
        node,
        "ConvTranspose",
        inputs,
        strides=ints(strides),
        **({"padding": ints(pads[:2])} if any(pads) else {}),
        number_groups=Data("i", groups),
        inputs_orders=graph.orders("NC+", "+KC"),
    )


def resize(graph: Graph, node: Any) -> None:
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


def pool(graph: Graph, node: Any) -> None:
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
        func=word(function),
        kernel=ints(kernel),
        **fields,
        inputs_orders=graph.orders("NC+"),
    )


def batch_norm(graph: Graph, node: Any) -> None:
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
