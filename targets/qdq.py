# SPDX-License-Identifier: Apache-2.0
"""Which layers of an explicit Q/DQ network are quantised, and how to keep some in floating point.

A layer is an operator that reads dequantised tensors; its name is the ONNX node's, or that of its
first output where the node has none. Keeping one takes its Q/DQ pairs away: it reads what was to be
quantised, and its own weights from the fp32 network, so that not even their rounding remains. The
edit is made before any compiler sees the network: every runtime that takes Q/DQ networks shares it.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from posewire.errors import ExitCode

from .errors import TargetError

WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")


class Network:
    """An ONNX network with its lookups: who makes a tensor, who is called what."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        self.nodes = {_name(node): node for node in model.graph.node}
        self.producers = {name: node for node in model.graph.node for name in node.output}
        self.constants = {tensor.name: tensor for tensor in model.graph.initializer}

    @classmethod
    def read(cls, path: Path) -> Network:
        """Raises TargetError (BUNDLE) for a file that is no ONNX network."""
        try:
            return cls(onnx.load(path))
        except Exception as error:  # protobuf's exceptions share no class
            raise TargetError(f"{path}: is no ONNX file: {error}", ExitCode.BUNDLE) from error

    def layers(self) -> list[str]:
        """The quantised layers, in the network's order."""
        return [
            name
            for name, node in self.nodes.items()
            if node.op_type not in ("QuantizeLinear", "DequantizeLinear", "Identity")
            and any(True for _ in self.dequantised(node))
        ]

    def dequantised(self, node: onnx.NodeProto) -> Iterator[tuple[int, onnx.NodeProto]]:
        """Which of a node's inputs come out of a DequantizeLinear, and that node."""
        for index, tensor in enumerate(node.input):
            maker = self.producers.get(tensor)
            if maker is not None and maker.op_type == "DequantizeLinear":
                yield index, maker

    def heads(self) -> list[str]:
        """The quantised layers from the last weighted operator before each output onwards: rounding
        there is rounding of the heatmaps themselves."""
        found: set[str] = set()
        waiting = [output.name for output in self.model.graph.output]
        seen: set[str] = set()
        while waiting:
            tensor = waiting.pop()
            node = self.producers.get(tensor)
            if node is None or tensor in seen:
                continue
            seen.add(tensor)
            found.add(_name(node))
            if node.op_type not in WEIGHTED:
                waiting += list(node.input)
        return [name for name in self.layers() if name in found]


def check_names(network: Network, names: Sequence[str], where: str) -> None:
    """Raises TargetError (USAGE) for a name that is no quantised layer, with the nearest one."""
    known = network.layers()
    for name in names:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]}?" if close else f"it has {len(known)}"
            raise TargetError(
                f"--keep-layers: {where} has no quantised layer {name!r} ({hint})", ExitCode.USAGE
            )


def keep(quantised: onnx.ModelProto, plain: Network, names: Sequence[str]) -> onnx.ModelProto:
    """A copy of ``quantised`` whose layers ``names`` are in floating point; ``plain`` is the fp32
    network that it was made from."""
    model = onnx.ModelProto()
    model.CopyFrom(quantised)
    network = Network(model)
    for name in names:
        node = network.nodes[name]
        for index, dequantise in list(network.dequantised(node)):
            source = dequantise.input[0]
            maker = network.producers.get(source)
            if maker is not None and maker.op_type == "QuantizeLinear":
                node.input[index] = maker.input[0]
            else:
                weights = f"{name}.kept.{index}"
                values = _weights(network, plain, name, index, dequantise)
                model.graph.initializer.append(numpy_helper.from_array(values, weights))
                node.input[index] = weights
    _open_outputs(network, set(names))
    _drop_unused(model)
    return model


def _weights(
    network: Network, plain: Network, name: str, index: int, dequantise: onnx.NodeProto
) -> NDArray[Any]:
    """The fp32 network's weights of the same layer; dequantised ones where it has none such."""
    stored = _constant(network, dequantise.input[0])
    twin = plain.nodes.get(name)
    if twin is not None and index < len(twin.input) and twin.input[index] in plain.constants:
        values = numpy_helper.to_array(plain.constants[twin.input[index]])
        if values.shape == stored.shape and values.dtype == np.float32:
            return values
    scale = _constant(network, dequantise.input[1])
    zero = _constant(network, dequantise.input[2]) if len(dequantise.input) > 2 else np.zeros(())
    axis = next((a.i for a in dequantise.attribute if a.name == "axis"), 1)
    shape = [1] * stored.ndim
    if scale.ndim == 1 and stored.ndim:
        shape[axis] = -1
    wide = stored.astype(np.float32) - zero.astype(np.float32).reshape(shape if zero.ndim else ())
    result: NDArray[Any] = wide * scale.reshape(shape if scale.ndim else ())
    return result.astype(np.float32)


def _constant(network: Network, tensor: str) -> NDArray[Any]:
    if tensor in network.constants:
        return numpy_helper.to_array(network.constants[tensor])
    node = network.producers.get(tensor)
    if node is not None and node.op_type == "Constant":
        return numpy_helper.to_array(node.attribute[0].t)
    raise TargetError(f"{tensor}: quantised by something that is no constant", ExitCode.BUNDLE)


def _open_outputs(network: Network, names: set[str]) -> None:
    """Where a kept layer's result is quantised right before an output, it no longer is."""
    for output in network.model.graph.output:
        last = network.producers.get(output.name)
        if last is None or last.op_type != "DequantizeLinear":
            continue
        quantise = network.producers.get(last.input[0])
        if quantise is None or quantise.op_type != "QuantizeLinear":
            continue
        maker = network.producers.get(quantise.input[0])
        if maker is not None and _name(maker) in names:
            plain = helper.make_node("Identity", [quantise.input[0]], [output.name], last.name)
            last.CopyFrom(plain)


def _drop_unused(model: onnx.ModelProto) -> None:
    """Nodes and constants that nothing reads any more."""
    outputs = {output.name for output in model.graph.output}
    while True:
        read = outputs | {name for node in model.graph.node for name in node.input}
        dead = [node for node in model.graph.node if not read.intersection(node.output)]
        if not dead:
            break
        for node in dead:
            model.graph.node.remove(node)
    for tensor in [t for t in model.graph.initializer if t.name not in read]:
        model.graph.initializer.remove(tensor)


def _name(node: onnx.NodeProto) -> str:
    return str(node.name or node.output[0])
