# SPDX-License-Identifier: Apache-2.0
"""Computes a UFF graph in NumPy: what the file says, without TensorRT.

It reads the file's own fields (orders, "same" padding, groups), knows nothing of the ONNX graph it
may come from, and so checks a conversion. Axes count the batch; float32 throughout. Plugins and
operations that it does not know are refused by name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import BundleError
from .format import INC, Node, Uff, constant, resolved

Array = NDArray[Any]
_MAX_VALUES = 1 << 28  # of one tensor: 1 GiB as float32


def evaluate(uff: Uff, inputs: Mapping[str, Array]) -> dict[str, NDArray[np.float32]]:
    """The outputs by node name for inputs by node name, with their batch axis: [N, C, H, W] or as
    the file's Input nodes say.

    Raises BundleError for a graph that is not understood or does not fit together.
    """
    run = _Run(uff, inputs)
    for node in uff.nodes:
        run.guarded(node)
    return {name: np.asarray(run.values[name], np.float32) for name in run.outputs}


def probe(
    uff: Uff, inputs: Mapping[str, Array]
) -> tuple[dict[str, tuple[int, ...]], dict[str, Array]]:
    """(the shape of every node's result, the values of those that no picture can change).

    The latter are Const nodes and what is computed of them and of shapes. Raises BundleError.
    """
    run = _Run(uff, inputs)
    shapes: dict[str, tuple[int, ...]] = {}
    fixed: dict[str, Array] = {}
    for node in uff.nodes:
        run.guarded(node)
        if node.operation == "MarkOutput":
            continue
        value = run.values[node.id]
        shapes[node.id] = value.shape
        still = node.operation == "Shape" or all(name in fixed for name in node.inputs)
        if still and node.operation != "Input":
            fixed[node.id] = value
    return shapes, fixed


def outputs_of(uff: Uff) -> tuple[str, ...]:
    """The names of the marked outputs, in order."""
    marked = [node for node in uff.nodes if node.operation == "MarkOutput"]
    marked.sort(key=lambda node: (len(node.id), node.id))  # MarkOutput_2 before MarkOutput_10
    return tuple(name for node in marked for name in node.inputs)


class _Run:
    def __init__(self, uff: Uff, inputs: Mapping[str, Array]) -> None:
        self.uff, self.inputs = uff, inputs
        self.values: dict[str, Array] = {}
        self.outputs = outputs_of(uff)
        self._left: dict[str, int] = {}  # readers that a value still waits for
        for node in uff.nodes:
            for name in node.inputs:
                self._left[name] = self._left.get(name, 0) + 1

    def guarded(self, node: Node) -> None:
        """compute(), with NumPy's words where the shapes of an untrusted file do not fit."""
        try:
            self.compute(node)
        except (ValueError, IndexError, TypeError, KeyError, OverflowError, MemoryError) as error:
            first = (str(error).splitlines() or [type(error).__name__])[0]
            raise BundleError(f"{node.id}: {node.operation}: {first}") from error

    def compute(self, node: Node) -> None:
        row = _OPERATIONS.get(node.operation)
        if row is None:
            what = "a plugin" if node.operation.startswith("_") else "not known"
            raise BundleError(f"{node.id}: operation {node.operation} is {what}")
        with np.errstate(all="ignore"):
            value = row(self, node, [self.values[name] for name in node.inputs])
        if value is not None:
            self.values[node.id] = value
        for name in node.inputs:
            self._left[name] -= 1
            if self._left[name] == 0 and name not in self.outputs:
                del self.values[name]

    def field(self, node: Node, key: str, default: Any = None) -> Any:
        value = resolved(self.uff, node, key)
        return default if value is None else value

    def pair(self, node: Node, key: str, default: int) -> tuple[int, int]:
        """Two numbers for height and width."""
        value = self.field(node, key, (default, default))
        if not isinstance(value, tuple) or len(value) != 2 or min(value) < 0 or max(value) > 65536:
            raise BundleError(f"{node.id}: {key} is {value}")
        return int(value[0]), int(value[1])

    def order(self, node: Node, index: int, rank: int, default: Sequence[int]) -> list[int]:
        """Which canonical dimension each of a tensor's is."""
        orders = self.field(node, "inputs_orders", ())
        order = orders[index] if index < len(orders) else tuple(default)
        return unfolded(order, rank, node.id)


def unfolded(order: Sequence[int], rank: int, where: str) -> list[int]:
    """An order of ``rank`` dimensions: what INC stands for written out. Raises BundleError."""
    result: list[int] = []
    for place, value in enumerate(order):
        if value != INC:
            result.append(value)
            continue
        rest = rank - (len(order) - 1)
        if place == 0 or rest < 0:
            raise BundleError(f"{where}: an order of {len(order)} for {rank} dimensions")
        result += range(result[-1] + 1, result[-1] + 1 + rest)
    if sorted(result) != list(range(rank)):
        raise BundleError(f"{where}: {result} is no order of {rank} dimensions")
    return result


def bounded(shape: Sequence[int]) -> tuple[int, ...]:
    """The shape of a result. Raises ValueError over 2^28 values, before any memory is asked for."""
    total = 1
    for side in shape:
        total *= int(side)
    if total > _MAX_VALUES or any(side < 0 for side in shape):
        raise ValueError(f"a result of shape {[int(side) for side in shape]}")
    return tuple(int(side) for side in shape)


def _canonical(run: _Run, node: Node, index: int, value: Array) -> Array:
    """A tensor with its dimensions in canonical order."""
    order = run.order(node, index, value.ndim, tuple(range(value.ndim)))
    return value.transpose(np.argsort(order))


def _stored(run: _Run, node: Node, value: Array) -> Array:
    """A canonical result, laid out as the node's first input is."""
    order = run.order(node, 0, value.ndim, tuple(range(value.ndim)))
    return value.transpose(order)


# --- convolutions -----------------------------------------------------------------------------


def _pads(
    run: _Run, node: Node, sides: Sequence[int], kernel: Sequence[int], strides: Sequence[int]
) -> list[tuple[int, int]]:
    if run.field(node, "implicit_padding", "") in ("same", "SAME"):
        totals = [
            max((-(-side // step) - 1) * step + size - side, 0)
            for side, size, step in zip(sides, kernel, strides, strict=True)
        ]
        return [(total // 2, total - total // 2) for total in totals]
    return [(side, side) for side in run.pair(node, "padding", 0)]


def _strides(run: _Run, node: Node) -> tuple[int, int]:
    strides = run.pair(node, "strides", 1)
    if min(strides) < 1:
        raise BundleError(f"{node.id}: strides is {strides}")
    return strides


def _windows(x: Array, kernel: Sequence[int], strides: Sequence[int], step: Sequence[int]) -> Array:
    """Views [N, C, out_h, out_w, kh, kw] of a padded map; ``step`` is the dilation."""
    extent = [(side - 1) * dilation + 1 for side, dilation in zip(kernel, step, strict=True)]
    views = np.lib.stride_tricks.sliding_window_view(x, extent, axis=(2, 3))
    return views[:, :, :: strides[0], :: strides[1], :: step[0], :: step[1]]


def _padded(x: Array, pads: Sequence[tuple[int, int]], value: float) -> Array:
    if not any(side for pair in pads for side in pair):
        return x
    bounded([*x.shape[:2], *(s + a + b for s, (a, b) in zip(x.shape[2:], pads, strict=True))])
    return np.pad(x, [(0, 0), (0, 0), *pads], constant_values=value)


def grouped_kernel(weights: Array, channels: int, groups: int, where: str) -> Array:
    """Canonical weights [K, C / groups, h, w] of stored ones, already in canonical order [K, C, …].

    TensorFlow's depthwise kernels, which UFF keeps, hold all C channels and the multiplier as K.
    """
    if weights.ndim != 4 or groups < 1 or channels % groups:
        raise BundleError(f"{where}: {groups} groups, {channels} channels, {weights.ndim} axes")
    if groups > 1 and groups == channels and weights.shape[1] == channels:
        multiplier = weights.shape[0]
        moved = weights.transpose(1, 0, 2, 3)  # [C, multiplier, h, w]
        return moved.reshape(channels * multiplier, 1, *weights.shape[2:])
    if weights.shape[1] * groups != channels or weights.shape[0] % groups:
        raise BundleError(f"{where}: weights {weights.shape} for {channels} channels")
    return weights


def _conv(run: _Run, node: Node, values: list[Array]) -> Array:
    x = _canonical(run, node, 0, values[0])
    groups = int(run.field(node, "number_groups", 1))
    weights = grouped_kernel(_canonical(run, node, 1, values[1]), x.shape[1], groups, node.id)
    strides, dilation = _strides(run, node), run.pair(node, "dilation", 1)
    kernel = weights.shape[2:]
    extent = [(side - 1) * step + 1 for side, step in zip(kernel, dilation, strict=True)]
    padded = _padded(x, _pads(run, node, x.shape[2:], extent, strides), 0.0)
    views = _windows(padded, kernel, strides, dilation)
    batch, _, high, wide = views.shape[:4]
    bounded([batch, weights.shape[0], high, wide])
    if weights.shape[1] == 1 and weights.shape[0] == groups:
        result = np.zeros((batch, groups, high, wide), np.float32)
        for row in range(kernel[0]):
            for column in range(kernel[1]):
                result += views[..., row, column] * weights[:, 0, row, column][:, None, None]
        return _stored(run, node, result)
    bounded([batch, high, wide, weights.shape[1], *kernel])
    results = []
    for group in range(groups):
        size, count = weights.shape[1], weights.shape[0] // groups
        columns = views[:, group * size : (group + 1) * size].transpose(0, 2, 3, 1, 4, 5)
        columns = columns.reshape(batch * high * wide, -1)
        product = columns @ weights[group * count : (group + 1) * count].reshape(count, -1).T
        results.append(product.reshape(batch, high, wide, count).transpose(0, 3, 1, 2))
    return _stored(run, node, np.concatenate(results, axis=1))


def transposed_pads(
    kernel: Sequence[int], strides: Sequence[int], same: bool, padding: Sequence[int]
) -> list[tuple[int, int]]:
    """What a transposed convolution's full result loses (before, after) per axis."""
    if not same:
        return [(side, side) for side in padding]
    totals = [max(size - step, 0) for size, step in zip(kernel, strides, strict=True)]
    return [(total // 2, total - total // 2) for total in totals]


def _conv_transpose(run: _Run, node: Node, values: list[Array]) -> Array:
    x = _canonical(run, node, 0, values[0])
    groups, channels = int(run.field(node, "number_groups", 1)), x.shape[1]
    stored = _canonical(run, node, 1, values[1])  # [K, C, h, w]
    if groups > 1 and groups == channels and stored.shape[:2] == (channels, 1):
        weights = stored  # TensorFlow's depthwise kernel: [h, w, channels, 1]
    elif groups == 1 and stored.shape[1] == channels:
        weights = stored
    else:
        raise BundleError(f"{node.id}: {groups} groups with weights {list(stored.shape)}")
    strides, kernel = _strides(run, node), weights.shape[2:]
    full = [(s - 1) * step + k for s, step, k in zip(x.shape[2:], strides, kernel, strict=True)]
    result = np.zeros(bounded([x.shape[0], weights.shape[0], *full]), np.float32)
    for row in range(kernel[0]):
        for column in range(kernel[1]):
            taps = weights[:, :, row, column]
            if groups > 1:
                part = x * taps[:, 0][:, None, None]
            else:
                part = np.einsum("nchw,kc->nkhw", x, taps, optimize=True)
            down = slice(row, row + (x.shape[2] - 1) * strides[0] + 1, strides[0])
            right = slice(column, column + (x.shape[3] - 1) * strides[1] + 1, strides[1])
            result[:, :, down, right] += part
    same = run.field(node, "implicit_padding", "") in ("same", "SAME")
    lost = transposed_pads(kernel, strides, same, run.pair(node, "padding", 0))
    cut = [slice(before, side - after) for (before, after), side in zip(lost, full, strict=True)]
    return _stored(run, node, result[:, :, cut[0], cut[1]])


def _pool(run: _Run, node: Node, values: list[Array]) -> Array:
    x = _canonical(run, node, 0, values[0])
    kernel, strides = run.pair(node, "kernel", 1), _strides(run, node)
    pads = _pads(run, node, x.shape[2:], kernel, strides)
    if run.field(node, "func") == "max":
        views = _windows(_padded(x, pads, -np.inf), kernel, strides, (1, 1))
        return _stored(run, node, views.max(axis=(4, 5)))
    total = _windows(_padded(x, pads, 0.0), kernel, strides, (1, 1)).sum(axis=(4, 5))
    ones = np.ones((1, 1, *x.shape[2:]), np.float32)
    count = _windows(_padded(ones, pads, 0.0), kernel, strides, (1, 1)).sum(axis=(4, 5))
    return _stored(run, node, (total / count).astype(np.float32))


def _batch_norm(run: _Run, node: Node, values: list[Array]) -> Array:
    x = _canonical(run, node, 0, values[0])
    gamma, beta, mean, variance = (v.reshape(-1, *(1,) * (x.ndim - 2)) for v in values[1:])
    scale = gamma / np.sqrt(variance + np.float32(run.field(node, "epsilon", 0.0)))
    return _stored(run, node, (x - mean) * scale + beta)


def _fully_connected(run: _Run, node: Node, values: list[Array]) -> Array:
    x, weights = (_canonical(run, node, i, value) for i, value in enumerate(values))
    return np.asarray(x @ weights.T)  # canonical weights are [K, C]


# --- element by element, and shapes -----------------------------------------------------------

_BINARY: Mapping[str, Callable[[Array, Array], Array]] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": np.divide,
    "min": np.minimum,
    "max": np.maximum,
    "pow": np.power,
}
_UNARY: Mapping[str, Callable[[Array], Array]] = {
    "neg": np.negative,
    "rsqrt": lambda x: 1 / np.sqrt(x),
    **{
        name: getattr(np, name)
        for name in (
            *("exp", "log", "abs", "sqrt", "square", "sin", "cos", "tan", "sinh", "cosh"),
            *("ceil", "floor"),
        )
    },
}
_ACTIVATIONS: Mapping[str, Callable[[Array], Array]] = {
    "relu": lambda x: np.maximum(x, 0),
    "relu6": lambda x: np.clip(x, 0, 6),
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "tanh": np.tanh,
    "elu": lambda x: np.where(x > 0, x, np.expm1(x)),
    "selu": lambda x: 1.0507009873554805 * np.where(x > 0, x, 1.6732632423543772 * np.expm1(x)),
    "softsign": lambda x: x / (1 + np.abs(x)),
    "softplus": lambda x: np.logaddexp(x, 0),
}
_REDUCTIONS: Mapping[str, Any] = {
    "sum": np.sum,
    "prod": np.prod,
    "max": np.max,
    "min": np.min,
    "mean": np.mean,
}


def _function(run: _Run, node: Node, table: Mapping[str, Any]) -> Any:
    name = run.field(node, "func", "")
    if name not in table:
        raise BundleError(f"{node.id}: {node.operation} of func {name!r} is not known")
    return table[name]


def _binary(run: _Run, node: Node, values: list[Array]) -> Array:
    bounded(np.broadcast_shapes(values[0].shape, values[1].shape))
    return np.asarray(_function(run, node, _BINARY)(*values))


def _reshape(run: _Run, node: Node, values: list[Array]) -> Array:
    shape = [int(side) for side in values[1].ravel()]
    return values[0].reshape([*shape])


def _strided_slice(run: _Run, node: Node, values: list[Array]) -> Array:
    begin, end, steps = (value.ravel().tolist() for value in values[1:])
    masks = [int(run.field(node, key, 0)) for key in ("begin_mask", "end_mask")]
    cuts = []
    for i, (first, last, step) in enumerate(zip(begin, end, steps, strict=True)):
        lower = None if masks[0] >> i & 1 else int(first)
        cuts.append(slice(lower, None if masks[1] >> i & 1 else int(last), int(step)))
    result = values[0][tuple(cuts)]
    shrunk = int(run.field(node, "shrink_axis_mask", 0))
    return result.squeeze(tuple(i for i in range(len(begin)) if shrunk >> i & 1))


def _pad(run: _Run, node: Node, values: list[Array]) -> Array:
    table = [(int(a), int(b)) for a, b in values[1]]
    bounded([s + a + b for s, (a, b) in zip(values[0].shape, table, strict=True)])
    return np.pad(values[0], table)


def _reduce(run: _Run, node: Node, values: list[Array]) -> Array:
    axes = tuple(int(axis) for axis in run.field(node, "axes", ()))
    # The parser keeps reduced axes whatever keepdims says.
    return np.asarray(_function(run, node, _REDUCTIONS)(values[0], axis=axes, keepdims=True))


def _softmax(run: _Run, node: Node, values: list[Array]) -> Array:
    """Axis 0, which NVIDIA's converter writes where TensorFlow names none, is the channels."""
    x, axis = values[0], int(run.field(node, "axis", 0))
    if axis == 0:
        axis = run.order(node, 0, x.ndim, range(x.ndim)).index(1) if x.ndim > 2 else x.ndim - 1
    shifted = np.exp(x - x.max(axis=axis, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=axis, keepdims=True))


def _input(run: _Run, node: Node, values: list[Array]) -> Array:
    if node.id not in run.inputs:
        raise BundleError(f"{node.id}: the graph's input is not given")
    value = np.asarray(run.inputs[node.id], np.float32)
    shape = run.field(node, "shape", ())
    fits = len(shape) == value.ndim and all(
        wanted in (-1, side) for wanted, side in zip(shape[1:], value.shape[1:], strict=True)
    )
    if not fits:
        raise BundleError(f"{node.id}: given is {list(value.shape)}, the file says {list(shape)}")
    return value


def _squeeze(run: _Run, node: Node, values: list[Array]) -> Array:
    return values[0].squeeze(tuple(run.field(node, "axes", ())) or None)


_OPERATIONS: Mapping[str, Callable[[_Run, Node, list[Array]], Array | None]] = {
    "Input": _input,
    "Const": lambda run, node, values: constant(run.uff, node),
    "Identity": lambda run, node, values: values[0],
    "MarkOutput": lambda run, node, values: None,
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Pool": _pool,
    "BatchNorm": _batch_norm,
    "FullyConnected": _fully_connected,
    "Binary": _binary,
    "Unary": lambda run, node, values: np.asarray(_function(run, node, _UNARY)(values[0])),
    "Activation": lambda run, node, values: np.asarray(
        _function(run, node, _ACTIVATIONS)(values[0])
    ),
    "Concat": lambda run, node, values: np.concatenate(values, int(run.field(node, "axis", 0))),
    "Stack": lambda run, node, values: np.stack(values, int(run.field(node, "axis", 0))),
    "Shape": lambda run, node, values: np.array(values[0].shape, np.int32),
    "ExpandDims": lambda run, node, values: np.expand_dims(
        values[0], int(run.field(node, "axis", 0))
    ),
    "Squeeze": _squeeze,
    "Transpose": lambda run, node, values: values[0].transpose(run.field(node, "permutation")),
    "Reshape": _reshape,
    "Flatten": lambda run, node, values: values[0].reshape(len(values[0]), -1),
    "StridedSlice": _strided_slice,
    "Pad": _pad,
    "Reduce": _reduce,
    "Softmax": _softmax,
}
