# SPDX-License-Identifier: Apache-2.0
"""A portable bundle per algorithm: a tiny untrained network with that algorithm's outputs.

What a compiler must take of any network of the family: uint8 NHWC pictures in with the
normalisation inside, convolutions (strided, depthwise, transposed), a residual sum, and the row's
own outputs, maps and sequences alike, made from ``posewire.encode``'s table. fp16 and int8 are what
the trainer makes of the float graph. Weights are random but fixed; nothing it says about a picture
means anything.

Tests reach it through the fixture ``contract_bundle`` of tests/conftest.py.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from posewire.bundle import write_bundle
from posewire.encode import partial_manifest
from posewire.skeleton import load_skeleton

WIDTH, HEIGHT = 96, 64
SKELETON = "coco17"
CHANNELS = 16  # of every stage
TRUNK_STRIDE = 8  # finer outputs come from a transposed convolution, coarser from further stages
SEQUENCE_FEATURES = 48
FILES = {"fp32": "model.onnx", "fp16": "model.fp16.onnx", "int8": "model.int8.onnx"}
FILES["int8-u8"] = "model.int8-u8.onnx"
PICTURES = 3


class _Graph:
    """Nodes and weights, written down one after another."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.tensors: dict[str, NDArray[Any]] = {}
        self.random = np.random.default_rng(17)

    def node(self, kind: str, inputs: list[str], output: str = "", **attributes: Any) -> str:
        output = output or f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [output], f"n_{output}", **attributes))
        return output

    def constant(self, name: str, value: Any) -> str:
        self.tensors[name] = np.asarray(value)
        return name

    def weights(self, *shape: int) -> str:
        """He's initialisation, so that values neither vanish nor grow on their way."""
        fan_in = int(np.prod(shape[1:]))
        values = self.random.normal(0, np.sqrt(2 / fan_in), shape).astype(np.float32)
        return self.constant(f"w{len(self.tensors)}", values)

    def convolution(
        self,
        source: str,
        channels: int,
        kernel: int,
        *,
        into: int,
        stride: int = 1,
        groups: int = 1,
    ) -> str:
        weights = self.weights(into, channels // groups, kernel, kernel)
        bias = self.constant(f"b{weights}", self.random.normal(0, 0.05, into).astype(np.float32))
        pad = kernel // 2
        return self.node(
            "Conv",
            [source, weights, bias],
            kernel_shape=[kernel, kernel],
            pads=[pad, pad, kernel - 1 - pad, kernel - 1 - pad],
            strides=[stride, stride],
            group=groups,
        )

    def clipped(self, source: str) -> str:
        """ReLU6."""
        low = self.constant("low", np.float32(0))
        high = self.constant("high", np.float32(6))
        return self.node("Clip", [source, low, high])


def _trunk(graph: _Graph) -> str:
    """The picture -> features at stride 8, [N, CHANNELS, H / 8, W / 8]."""
    scale = graph.constant("scale", np.full((1, 3, 1, 1), 1 / 127.5, np.float32))
    offset = graph.constant("offset", np.full((1, 3, 1, 1), -1, np.float32))
    real = graph.node("Cast", ["image"], to=TensorProto.FLOAT)
    planes = graph.node("Transpose", [real], perm=[0, 3, 1, 2])
    x = graph.node("Add", [graph.node("Mul", [planes, scale]), offset])
    x = graph.clipped(graph.convolution(x, 3, 3, into=CHANNELS, stride=2))
    x = graph.clipped(graph.convolution(x, CHANNELS, 3, into=CHANNELS, stride=2, groups=CHANNELS))
    x = graph.clipped(graph.convolution(x, CHANNELS, 3, into=CHANNELS, stride=2))
    inner = graph.clipped(graph.convolution(x, CHANNELS, 1, into=CHANNELS))
    return graph.node("Add", [x, graph.convolution(inner, CHANNELS, 3, into=CHANNELS)])


def _at_stride(graph: _Graph, known: dict[int, str], stride: int) -> str:
    """Features at a stride, made from the next one on the way to the trunk's."""
    if stride not in known:
        if stride > TRUNK_STRIDE:
            source = _at_stride(graph, known, stride // 2)
            x = graph.convolution(source, CHANNELS, 3, into=CHANNELS, stride=2)
        else:
            weights = graph.weights(CHANNELS, CHANNELS, 2, 2)
            source = _at_stride(graph, known, stride * 2)
            x = graph.node("ConvTranspose", [source, weights], kernel_shape=[2, 2], strides=[2, 2])
        known[stride] = graph.clipped(x)
    return known[stride]


def _sequence(graph: _Graph, features: str, name: str, channels: int, length: int) -> None:
    """[N, channels, length]: a map a channel, laid flat, through a matrix."""
    maps = graph.convolution(features, CHANNELS, 1, into=channels)
    cells = (HEIGHT // TRUNK_STRIDE) * (WIDTH // TRUNK_STRIDE)
    flat = graph.node("Reshape", [maps, graph.constant("flat", np.array([0, 0, cells], np.int64))])
    squeezed = graph.node("MatMul", [flat, graph.weights(cells, SEQUENCE_FEATURES)])
    graph.node("MatMul", [squeezed, graph.weights(SEQUENCE_FEATURES, length)], name)


def float_network(outputs: list[dict[str, Any]]) -> onnx.ModelProto:
    """``outputs`` as a manifest lists them; maps are NCHW, sequences NCW."""
    graph = _Graph()
    known = {TRUNK_STRIDE: _trunk(graph)}
    declared = []
    for spec in outputs:
        name, channels = spec["name"], spec["channels"]
        if "length" in spec:
            _sequence(graph, known[TRUNK_STRIDE], name, channels, spec["length"])
            shape = [channels, spec["length"]]
        else:
            features = _at_stride(graph, known, spec["stride"])
            graph.convolution(features, CHANNELS, 1, into=channels)
            graph.nodes[-1].output[0] = name
            shape = [channels, HEIGHT // spec["stride"], WIDTH // spec["stride"]]
        declared.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", *shape]))
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, ["batch", HEIGHT, WIDTH, 3])
    weights = [numpy_helper.from_array(value, name) for name, value in graph.tensors.items()]
    model = helper.make_model(
        helper.make_graph(graph.nodes, "contract", [image], declared, weights),
        opset_imports=[helper.make_opsetid("", 18)],
    )
    model.ir_version = 10
    onnx.checker.check_model(model, full_check=True)
    return model


def pictures(count: int = PICTURES) -> list[NDArray[np.uint8]]:
    """uint8 [H, W, 3]: coloured noise with edges, never plain."""
    random = np.random.default_rng(3)
    coarse = random.integers(0, 256, (count, HEIGHT // 8, WIDTH // 8, 3)).astype(np.uint8)
    return [
        cv2.resize(one, (WIDTH, HEIGHT), interpolation=cv2.INTER_NEAREST).astype(np.uint8)
        for one in coarse
    ]


def _graphs(model: onnx.ModelProto, precisions: tuple[str, ...]) -> dict[str, bytes]:
    """The float graph in each precision, by the trainer's own functions."""
    data = model.SerializeToString()
    made: dict[str, bytes] = {}
    for precision in precisions:
        if precision == "fp32":
            made[precision] = data
            continue
        from posewire.trainer.quantise import Quantiser, half

        made[precision] = (
            half(data)
            if precision == "fp16"
            else Quantiser(data, lambda: pictures(4)).graph(precision)
        )
    return made


def write_contract_bundle(
    folder: Path, algorithm: str, precisions: tuple[str, ...] = ("fp32", "fp16", "int8")
) -> Path:
    """Writes the bundle of one row of ENCODERS; ``folder`` must not exist. Returns it."""
    partial = partial_manifest(algorithm, load_skeleton(SKELETON), WIDTH, HEIGHT)
    layouts = {spec["name"]: spec.pop("layout") for spec in partial["outputs"]}
    graphs = _graphs(float_network(partial["outputs"]), precisions)
    files: dict[str, Path | bytes] = {FILES[p]: data for p, data in graphs.items()}
    for i, picture in enumerate(pictures()):
        files[f"selftest-{i:02d}.png"] = bytes(cv2.imencode(".png", picture)[1])
    artifacts = [
        {
            "files": [FILES[precision]],
            "format": "onnx",
            "precision": precision,
            "input": {"layout": "NHWC", "dtype": "uint8"},
            "outputs": [
                {"name": name, "layout": layout, "dtype": "float32"}
                for name, layout in layouts.items()
            ],
        }
        for precision in precisions
    ]
    manifest = {
        "schema": 1,
        "name": f"contract-{algorithm}",
        "version": "1",
        **partial,
        "artifacts": artifacts,
        "target": None,
        "gate": None,
        "accuracy": [],
        "training": {},
        "derived_from": None,
    }
    write_bundle(folder, manifest, files)
    return folder
