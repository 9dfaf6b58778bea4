# SPDX-License-Identifier: Apache-2.0
"""Which layers of an explicit Q/DQ network are quantised, and how to keep some in floating point.

A layer is an operator that reads dequantised tensors; its name is the ONNX node's, or that of its
first output where the node has none. Keeping one takes its Q/DQ pairs away: it reads what was to be
quantised, and its own weights from the fp32 network, so that not even their rounding remains.
Quantisers leave out a Relu or Clip whose range the quantised type enforces anyway; where the pair
goes, such a node comes back from the fp32 network, or else a Clip of the pair's range. The edit is
made before any compiler sees the network: every runtime that takes Q/DQ networks shares it.
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
        there is rounding of the heatmaps themselves. A weighted one whose weights are floating
        point already, as export leaves them, is none."""
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
        return [
            name
            for name in self.layers()
            if name in found
            and (
                self.nodes[name].op_type not in WEIGHTED
                or any(self._stored(pair) for _, pair in self.dequantised(self.nodes[name]))
            )
        ]

    def _stored(self, dequantise: onnx.NodeProto) -> bool:
        maker = self.producers.get(dequantise.input[0])
        return maker is None or maker.op_type != "QuantizeLinear"


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
    edit = _Edit(network, plain)
    for name in names:
        node = network.nodes[name]
        for index, dequantise in list(network.dequantised(node)):
            maker = network.producers.get(dequantise.input[0])
            if maker is not None and maker.op_type == "QuantizeLinear":
                twin = plain.nodes.get(name)
                wanted = twin.input[index] if twin and index < len(twin.input) else ""
                node.input[index] = edit.unquantised(name, maker, wanted)
            else:
                weights = f"{name}.kept.{index}"
                edit.constants.append(
                    numpy_helper.from_array(
                        _weights(network, plain, name, index, dequantise), weights
                    )
                )
                node.input[index] = weights
        if node.op_type == "Conv" and name in plain.nodes:
            edit.restore_bias(node, plain.nodes[name])
    edit.open_outputs(set(names))
    edit.apply()
    return model


class _Edit:
    """What a network gets in place of Q/DQ pairs; apply() puts it in and clears away the rest."""

    def __init__(self, network: Network, plain: Network) -> None:
        self._network, self._plain = network, plain
        self._before: dict[str, list[onnx.NodeProto]] = {}  # node -> what is to stand before it
        self._made: dict[str, str] = {}  # tensor of a pair -> the one that replaces it
        self.constants: list[onnx.TensorProto] = []

    def unquantised(self, layer: str, quantise: onnx.NodeProto, wanted: str) -> str:
        """The tensor to read instead of a pair's; ``wanted`` is the fp32 network's there."""
        source = quantise.input[0]
        if quantise.output[0] in self._made:
            return self._made[quantise.output[0]]
        chain = self._left_out(source, wanted)
        if chain is None:
            tensor = self._clipped(layer, quantise)
        else:
            tensor = source
            for node in reversed(chain):
                tensor = self._copied(layer, quantise, node, tensor)
        self._made[quantise.output[0]] = tensor
        return tensor

    def _left_out(self, source: str, wanted: str) -> list[onnx.NodeProto] | None:
        """What the fp32 network has between the maker of ``source`` and ``wanted``, last first;
        None where the two do not meet. Makers are compared: who leaves a Clip out gives its
        tensor's name to the node before it."""
        maker = self._network.producers.get(source)
        chain: list[onnx.NodeProto] = []
        tensor = wanted
        while True:
            node = self._plain.producers.get(tensor)
            if node is None:
                return chain if maker is None and tensor == source else None
            if maker is not None and _name(node) == _name(maker):
                return chain
            if node.op_type not in ("Clip", "Relu"):
                return None
            chain.append(node)
            tensor = node.input[0]

    def _copied(
        self, layer: str, quantise: onnx.NodeProto, node: onnx.NodeProto, source: str
    ) -> str:
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        copy.name = f"{_name(node)}.kept"
        copy.input[0] = source
        for index, tensor in enumerate(copy.input):
            if index and tensor:
                values = _constant(self._plain, tensor)
                copy.input[index] = self._constant(f"{copy.name}.{index}.{layer}", values)
        copy.output[0] = f"{node.output[0]}.kept.{layer}"
        self._before.setdefault(_name(quantise), []).append(copy)
        return str(copy.output[0])

    def _clipped(self, layer: str, quantise: onnx.NodeProto) -> str:
        """Only what the pair's type and scale let through, without their rounding."""
        scale = _constant(self._network, quantise.input[1]).astype(np.float32)
        zero = (
            _constant(self._network, quantise.input[2])
            if len(quantise.input) > 2
            else np.zeros((), np.uint8)
        )
        if scale.size != 1 or not np.issubdtype(zero.dtype, np.integer):
            return str(quantise.input[0])  # per channel: weights; no activation is left out there
        limits = np.iinfo(zero.dtype)
        ends = [(end - int(zero.item())) * float(scale.item()) for end in (limits.min, limits.max)]
        result = f"{quantise.output[0]}.kept.{layer}"
        bounds = [
            self._constant(f"{result}.{i}", np.array(end, np.float32)) for i, end in enumerate(ends)
        ]
        self._before.setdefault(_name(quantise), []).append(
            helper.make_node("Clip", [quantise.input[0], *bounds], [result], result)
        )
        return result

    def _constant(self, name: str, values: NDArray[Any]) -> str:
        self.constants.append(numpy_helper.from_array(values, name))
        return name

    def restore_bias(self, node: onnx.NodeProto, twin: onnx.NodeProto) -> None:
        """The fp32 convolution's bias: a quantised one's also makes up for what rounding the
        weights adds on average."""
        if len(node.input) < 3 or node.input[2] not in self._network.constants:
            return
        values = numpy_helper.to_array(self._network.constants[node.input[2]])
        if len(twin.input) < 3:
            exact = np.zeros_like(values)
        elif twin.input[2] in self._plain.constants:
            exact = numpy_helper.to_array(self._plain.constants[twin.input[2]])
        else:
            return
        if exact.shape == values.shape:
            node.input[2] = self._constant(f"{_name(node)}.kept.2", exact)

    def open_outputs(self, names: set[str]) -> None:
        """Where a kept layer's result is quantised right before an output, it no longer is."""
        for output in self._network.model.graph.output:
            last = self._network.producers.get(output.name)
            if last is None or last.op_type != "DequantizeLinear":
                continue
            quantise = self._network.producers.get(last.input[0])
            if quantise is None or quantise.op_type != "QuantizeLinear":
                continue
            maker = self._network.producers.get(quantise.input[0])
            if maker is not None and _name(maker) in names:
                source = self.unquantised(_name(last), quantise, output.name)
                last.CopyFrom(helper.make_node("Identity", [source], [output.name], last.name))

    def apply(self) -> None:
        """The new nodes in their places; nodes and constants that nothing reads are dropped."""
        graph = self._network.model.graph
        nodes: list[onnx.NodeProto] = []
        for node in graph.node:
            nodes += [*self._before.get(_name(node), ()), node]
        outputs = {output.name for output in graph.output}
        while True:
            read = outputs | {name for node in nodes for name in node.input}
            left = [node for node in nodes if read.intersection(node.output)]
            if len(left) == len(nodes):
                break
            nodes = left
        kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
        del graph.node[:]
        graph.node.extend(kept)
        unused = [i for i, tensor in enumerate(graph.initializer) if tensor.name not in read]
        for index in reversed(unused):
            del graph.initializer[index]
        graph.initializer.extend(tensor for tensor in self.constants if tensor.name in read)


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


def _name(node: onnx.NodeProto) -> str:
    return str(node.name or node.output[0])
