# SPDX-License-Identifier: Apache-2.0
"""Weights of a quantised graph, rounded with a view to what the layers see.

Rounding each weight to the nearest step is not what changes a convolution's output least: its
inputs are correlated and have a mean. Two known remedies, one pass over calibration pictures:

    GPTQ (Frantar et al., ICLR 2023, arXiv 2210.17323, algorithm 1): weights are rounded one input
    after another; those not rounded yet make up for the error, by the inputs' second moments
    bias correction (Nagel et al., ICCV 2019, arXiv 1906.04721, section 4.2): what the error adds to
    the output on average is taken off the bias

Scales and activations stay as they are, so every runtime reads the graph as before.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from . import export_onnx
from .export_onnx import INPUT

_CELLS = 512  # of a picture that a layer's moments are taken from, drawn evenly
_MOST_INPUTS = 2304  # of one output, taps included: for more, only the bias is corrected
_DAMPING = 0.01  # of the mean second moment: cells that are always alike have a singular one

Doubles = NDArray[np.float64]


@dataclass
class Moments:
    """What one convolution sees in a window: first and second moments of its n = C / groups * taps
    inputs, [groups, n] and [groups, n, n] (None for too many inputs), means over cells."""

    mean: Doubles
    second: Doubles | None

    def add(self, more: Moments) -> None:
        """Adds another picture's."""
        self.mean = self.mean + more.mean
        if self.second is not None and more.second is not None:
            self.second = self.second + more.second


def convolution_moments(
    data: bytes, pictures: Iterable[NDArray[np.uint8]]
) -> Mapping[str, Moments]:
    """The moments of a float graph's convolutions over ``pictures`` (uint8 RGB [H, W, 3] of the
    network's size), by node name; those without a name of their own are left out."""
    model = onnx.load_model_from_string(data)
    weights = {one.name: numpy_helper.to_array(one) for one in model.graph.initializer}
    names = Counter(node.name for node in _convolutions(model))
    layers = [
        node
        for node in _convolutions(model)
        if node.input[1] in weights and node.name and names[node.name] == 1
    ]
    tensors = sorted({node.input[0] for node in layers})
    there = {output.name for output in model.graph.output}
    for tensor in tensors:
        if tensor not in there:
            model.graph.output.append(onnx.helper.make_empty_tensor_value_info(tensor))
    running = export_onnx.session(model.SerializeToString())
    rng = np.random.default_rng(0)
    found: dict[str, Moments] = {}
    count = 0
    for picture in pictures:
        count += 1
        seen = dict(zip(tensors, running.run(tensors, {INPUT: picture[None]}), strict=True))
        for node in layers:
            windows = _windows(seen[node.input[0]][0], node, weights[node.input[1]].shape, rng)
            if windows is None:
                continue
            here = _moments(windows)
            known = found.setdefault(node.name, here)
            if known is not here:
                known.add(here)
    for one in found.values():
        one.mean /= count
        if one.second is not None:
            one.second /= count
    return found


def _moments(windows: NDArray[np.float32]) -> Moments:
    mean = windows.mean(axis=2, dtype=np.float64)
    if windows.shape[1] > _MOST_INPUTS:
        return Moments(mean, None)
    product = np.matmul(windows, windows.transpose(0, 2, 1))
    return Moments(mean, product.astype(np.float64) / windows.shape[2])


def rounded(quantised: bytes, data: bytes, moments: Mapping[str, Moments]) -> bytes:
    """``quantised``, a Q/DQ graph of the float graph ``data``, with other weights and biases."""
    model, plain = (onnx.load_model_from_string(one) for one in (quantised, data))
    exact = {one.name: numpy_helper.to_array(one) for one in plain.graph.initializer}
    before = {node.name: node for node in _convolutions(plain)}
    for layer in _quantised_layers(model):
        seen = moments.get(layer.node.name)
        if seen is None:
            continue
        groups = len(seen.mean)
        steps, shape = numpy_helper.to_array(layer.weights), layer.weights.dims
        scale = np.broadcast_to(layer.scale, (shape[0],)).reshape(groups, -1)
        wanted = exact[before[layer.node.name].input[1]].astype(np.float64)
        wanted = wanted.reshape(groups, scale.shape[1], -1)
        chosen = steps.astype(np.float64).reshape(wanted.shape)
        if seen.second is not None:
            chosen = _round_by_moments(wanted, seen.second, scale)
            new = chosen.reshape(shape).astype(np.int8)
            layer.weights.CopyFrom(numpy_helper.from_array(new, layer.weights.name))
        lost = np.einsum("gon,gn->go", wanted - chosen * scale[..., None], seen.mean).ravel()
        _add_bias(model, layer.node, lost)
    onnx.checker.check_model(model)
    content: bytes = model.SerializeToString()
    return content


def _round_by_moments(weights: Doubles, second: Doubles, scale: Doubles) -> Doubles:
    """GPTQ: weights [groups, outputs, n], [groups, n, n], [groups, outputs] -> steps, up to 127."""
    count = weights.shape[2]
    diagonal = np.einsum("gnn->gn", second)
    order = np.argsort(-diagonal, axis=1, kind="stable")  # the loudest inputs first
    rest = np.take_along_axis(weights, order[:, None], axis=2)
    moments = np.take_along_axis(
        np.take_along_axis(second, order[:, :, None], axis=1), order[:, None], axis=2
    )
    # An input that is always 0 says nothing about its weight; any positive number will do.
    damping = _DAMPING * diagonal.mean(axis=1) + 1e-12
    moments = moments + np.eye(count) * damping[:, None, None]
    upper = np.linalg.cholesky(np.linalg.inv(moments)).transpose(0, 2, 1)
    steps = np.empty_like(rest)
    for i in range(count):
        steps[:, :, i] = np.clip(np.rint(rest[:, :, i] / scale), -127, 127)
        error = (rest[:, :, i] - steps[:, :, i] * scale) / upper[:, i, i, None]
        rest[:, :, i + 1 :] -= error[:, :, None] * upper[:, None, i, i + 1 :]
    chosen = np.empty_like(steps)
    np.put_along_axis(chosen, np.broadcast_to(order[:, None], steps.shape), steps, axis=2)
    return chosen


@dataclass(frozen=True)
class _Layer:
    node: onnx.NodeProto
    weights: onnx.TensorProto  # int8, symmetric
    scale: Doubles


def _convolutions(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    return (node for node in model.graph.node if node.op_type == "Conv")


def _quantised_layers(model: onnx.ModelProto) -> Iterator[_Layer]:
    stored = {one.name: one for one in model.graph.initializer}
    producers = {tensor: node for node in model.graph.node for tensor in node.output}
    for node in _convolutions(model):
        source = producers.get(node.input[1])
        if source is not None and source.op_type == "DequantizeLinear":
            scale = numpy_helper.to_array(stored[source.input[1]]).astype(np.float64)
            yield _Layer(node, stored[source.input[0]], scale)


def _add_bias(model: onnx.ModelProto, node: onnx.NodeProto, more: Doubles) -> None:
    stored = {one.name: one for one in model.graph.initializer}
    if len(node.input) > 2:
        bias = stored[node.input[2]]
        value = numpy_helper.to_array(bias) + more
        bias.CopyFrom(numpy_helper.from_array(value.astype(np.float32), bias.name))
    else:
        name = f"{node.output[0]}_bias"
        model.graph.initializer.append(numpy_helper.from_array(more.astype(np.float32), name))
        node.input.append(name)


def _windows(
    picture: NDArray[np.float32],
    node: onnx.NodeProto,
    shape: tuple[int, ...],
    rng: np.random.Generator,
) -> NDArray[np.float32] | None:
    """[C, H, W] -> what some of the output's cells see, [groups, C / groups * taps, cells]; None
    where the convolution has padding that is not written down."""
    attributes: dict[str, Any] = {
        a.name: onnx.helper.get_attribute_value(a) for a in node.attribute
    }
    if attributes.get("auto_pad", b"NOTSET") != b"NOTSET" or len(shape) != 4:
        return None
    top, left, bottom, right = attributes.get("pads", (0, 0, 0, 0))
    down, across = attributes.get("strides", (1, 1))
    apart_y, apart_x = attributes.get("dilations", (1, 1))
    groups = attributes.get("group", 1)
    padded = np.pad(picture, ((0, 0), (top, bottom), (left, right)))
    height = (padded.shape[1] - apart_y * (shape[2] - 1) - 1) // down + 1
    width = (padded.shape[2] - apart_x * (shape[3] - 1) - 1) // across + 1
    cells = rng.permutation(height * width)[:_CELLS]
    y, x = cells // width * down, cells % width * across
    taps = [
        padded[:, y + i * apart_y, x + j * apart_x]
        for i in range(shape[2])
        for j in range(shape[3])
    ]
    return np.stack(taps, axis=1).reshape(groups, -1, len(cells))
