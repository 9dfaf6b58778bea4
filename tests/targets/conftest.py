# SPDX-License-Identifier: Apache-2.0
"""A tiny network that really finds people: three coloured dots above one another.

It is written down, not trained: cell means of "red but not green or blue", and so on, are the
heatmaps, and the field points down everywhere. So pictures with known poses can be drawn, and the
whole way from bundle to AP has a right answer.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from posewire.bundle import write_bundle

WIDTH, HEIGHT, STRIDE = 128, 96, 8
SKELETON = {
    "name": "dots3",
    "keypoints": ["top", "middle", "bottom"],
    "limbs": [[0, 1], [1, 2]],
    "flips": [0, 1, 2],
    "sigmas": [0.1, 0.1, 0.1],
}
COLOURS = ((0, 0, 255), (0, 255, 0), (255, 0, 0))  # BGR of top, middle, bottom
Person = tuple[float, float, float]  # x, y of the top dot, distance of the dots, in frame pixels


def tiny_onnx(*, gain: float = 1.0) -> onnx.ModelProto:
    """uint8 NHWC in, heatmaps [N, 3, H/8, W/8] and pafs [N, 4, H/8, W/8] out."""
    weights = np.full((3, 3, STRIDE, STRIDE), -1.0, np.float32)
    for k in range(3):
        weights[k, k] = 1.0  # RGB: red is the top dot's
    weights *= gain / STRIDE**2
    field = np.zeros((4, 3, STRIDE, STRIDE), np.float32)
    down = np.array([0.0, 1.0, 0.0, 1.0], np.float32)
    constants = {
        "by255": np.float32(1.0 / 255.0),
        "weights": weights,
        "field": field,
        "down": down,
        "low": np.float32(0.0),
        "high": np.float32(1.0),
    }
    nodes = [
        helper.make_node("Cast", ["image"], ["real"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["real", "by255"], ["unit"]),
        helper.make_node("Transpose", ["unit"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["planes", "weights"], ["dots"], strides=[STRIDE, STRIDE]),
        helper.make_node("Clip", ["dots", "low", "high"], ["heatmaps"]),
        helper.make_node("Conv", ["planes", "field", "down"], ["pafs"], strides=[STRIDE, STRIDE]),
    ]
    cells = [HEIGHT // STRIDE, WIDTH // STRIDE]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["n", HEIGHT, WIDTH, 3])],
        [
            helper.make_tensor_value_info("heatmaps", TensorProto.FLOAT, ["n", 3, *cells]),
            helper.make_tensor_value_info("pafs", TensorProto.FLOAT, ["n", 4, *cells]),
        ],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    model.ir_version = 10
    onnx.checker.check_model(model)
    return model


def quantised(model: onnx.ModelProto, *, steps: float = 255.0) -> onnx.ModelProto:
    """The same with the dots' convolution between Q/DQ pairs, asymmetric u8 activations.

    Fewer ``steps`` are coarser; below 0.5 every activation becomes 0 and the network is blind.
    """
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    graph = changed.graph
    constants = {
        "a_scale": np.float32(1.0 / steps),
        "a_zero": np.uint8(0),
        "w_scale": np.float32(1.0 / STRIDE**2 / 127),
        "w_zero": np.int8(0),
    }
    weights = next(tensor for tensor in graph.initializer if tensor.name == "weights")
    whole = np.round(numpy_helper.to_array(weights) / constants["w_scale"]).astype(np.int8)
    constants["w_int8"] = whole
    graph.initializer.remove(weights)
    graph.initializer.extend(
        numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()
    )
    nodes = [
        helper.make_node("QuantizeLinear", ["planes", "a_scale", "a_zero"], ["a_int8"]),
        helper.make_node("DequantizeLinear", ["a_int8", "a_scale", "a_zero"], ["a_real"]),
        helper.make_node("DequantizeLinear", ["w_int8", "w_scale", "w_zero"], ["w_real"]),
    ]
    convolution = next(node for node in graph.node if "weights" in node.input)
    convolution.input[:] = ["a_real", "w_real"]
    at = list(graph.node).index(convolution)
    everything = [*graph.node[:at], *nodes, *graph.node[at:]]
    del graph.node[:]
    graph.node.extend(everything)
    onnx.checker.check_model(changed)
    return changed


MIXES = ("mix0", "mix1", "mix2", "mix3")


def chained() -> onnx.ModelProto:
    """tiny_onnx with four 1x1 convolutions that change nothing in front of the dots'."""
    model = tiny_onnx()
    nodes = list(model.graph.node)
    at = next(i for i, node in enumerate(nodes) if node.op_type == "Conv")
    tensor = "planes"
    chain = []
    for name in MIXES:
        weights = np.eye(3, dtype=np.float32).reshape(3, 3, 1, 1)
        model.graph.initializer.append(numpy_helper.from_array(weights, f"{name}_weights"))
        chain.append(
            helper.make_node("Conv", [tensor, f"{name}_weights"], [f"{name}_out"], name=name)
        )
        tensor = f"{name}_out"
    for node in nodes[at:]:
        if "planes" in node.input:
            node.input[0] = tensor
            node.name = node.output[0]
    del model.graph.node[:]
    model.graph.node.extend([*nodes[:at], *chain, *nodes[at:]])
    onnx.checker.check_model(model)
    return model


def chained_int8(*, ruined: dict[str, float], heads: bool = False) -> onnx.ModelProto:
    """chained() with Q/DQ pairs around every mix, and around the dots' convolution with ``heads``.

    ``ruined``: layer -> factor on its weights' scale, as a calibration that went wrong would have
    it; below 1/254 all its weights are 127 or -127 times nearly nothing: it is blind."""
    model = chained()
    graph = model.graph
    constants = {"a_scale": np.float32(1 / 255), "a_zero": np.uint8(0), "w_zero": np.int8(0)}
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        if node.op_type == "Conv" and (node.name in MIXES or (heads and "weights" in node.input)):
            name, source = node.name, node.input[0]
            stored = next(t for t in graph.initializer if t.name == node.input[1])
            weights = numpy_helper.to_array(stored)
            graph.initializer.remove(stored)
            scale = np.float32(np.abs(weights).max() / 127 * ruined.get(name, 1.0))
            constants[f"{name}_scale"] = scale
            constants[f"{name}_int8"] = np.clip(np.round(weights / scale), -127, 127).astype(
                np.int8
            )
            zero = ["w_zero"]
            nodes += [
                helper.make_node("QuantizeLinear", [source, "a_scale", "a_zero"], [f"{name}_q"]),
                helper.make_node("DequantizeLinear", [f"{name}_q", "a_scale", "a_zero"],
                                 [f"{name}_in"]),
                helper.make_node("DequantizeLinear", [f"{name}_int8", f"{name}_scale", *zero],
                                 [f"{name}_w"]),
            ]  # fmt: skip
            node.input[:] = [f"{name}_in", f"{name}_w"]
        nodes.append(node)
    kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(kept)
    graph.initializer.extend(
        numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()
    )
    onnx.checker.check_model(model)
    return model


def picture(people: list[Person], width: int = 256, height: int = 192) -> NDArray[np.uint8]:
    """BGR; people as dots of 9 pixels' radius on dark noise."""
    noise = np.random.default_rng(len(people)).integers(0, 12, (height, width, 3))
    image = noise.astype(np.uint8)
    for x, y, apart in people:
        for k, colour in enumerate(COLOURS):
            cv2.circle(image, (round(x), round(y + k * apart)), 9, colour, -1, cv2.LINE_AA)
    return image


SCENES: list[list[Person]] = [
    [(60, 40, 48)],
    [(50, 30, 44), (140, 60, 48)],
    [(40, 50, 40), (120, 36, 48), (210, 44, 50)],
    [(200, 60, 46)],
]


def manifest(precisions: tuple[str, ...]) -> dict[str, Any]:
    files = {"fp32": "model.onnx", "int8-u8": "model.int8-u8.onnx"}
    return {
        "schema": 1,
        "name": "tiny",
        "version": "1",
        "mode": "bottom_up",
        "skeleton": SKELETON,
        "input": {
            "name": "image",
            "width": WIDTH,
            "height": HEIGHT,
            "channels": "RGB",
            "resize": "letterbox",
        },
        "outputs": [
            {"name": "heatmaps", "channels": 3, "stride": STRIDE},
            {"name": "pafs", "channels": 4, "stride": STRIDE},
        ],
        "decode": {"algorithm": "paf", "background": False},
        "artifacts": [
            {
                "files": [files[precision]],
                "format": "onnx",
                "precision": precision,
                "input": {"layout": "NHWC", "dtype": "uint8"},
                "outputs": [
                    {"name": name, "layout": "NCHW", "dtype": "float32"}
                    for name in ("heatmaps", "pafs")
                ],
            }
            for precision in precisions
        ],
        "target": None,
        "gate": None,
        "accuracy": [],
        "training": {},
        "derived_from": None,
    }


def _jpeg(image: NDArray[np.uint8]) -> bytes:
    done, data = cv2.imencode(".png", image)
    assert done
    return bytes(data)


MakeBundle = Callable[..., Path]


@pytest.fixture
def make_bundle(tmp_path: Path) -> MakeBundle:
    """make_bundle(name, precisions=, selftest=, int8_steps=) -> a portable bundle's folder;
    ``ruined`` (see chained_int8) makes it one of the longer network."""

    def make(
        name: str = "portable",
        *,
        precisions: tuple[str, ...] = ("fp32", "int8-u8"),
        selftest: bool = True,
        int8_steps: float = 255.0,
        ruined: dict[str, float] | None = None,
        heads: bool = False,
    ) -> Path:
        model = tiny_onnx() if ruined is None else chained()
        files: dict[str, Path | bytes] = {"model.onnx": model.SerializeToString()}
        if "int8-u8" in precisions:
            coarse = (
                quantised(model, steps=int8_steps)
                if ruined is None
                else chained_int8(ruined=ruined, heads=heads)
            )
            files["model.int8-u8.onnx"] = coarse.SerializeToString()
        if selftest:
            for i, people in enumerate(SCENES):
                files[f"selftest-{i:02d}.png"] = _jpeg(picture(people))
        write_bundle(tmp_path / name, manifest(precisions), files)
        return tmp_path / name

    return make


@pytest.fixture
def labelled(tmp_path: Path) -> tuple[Path, Path]:
    """(annotations.json, folder of pictures): SCENES, and one picture without people."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    images, annotations = [], []
    for i, people in enumerate([*SCENES, []]):
        images.append({"id": i + 1, "file_name": f"{i:03d}.png", "width": 256, "height": 192})
        (folder / f"{i:03d}.png").write_bytes(_jpeg(picture(people)))
        for x, y, apart in people:
            points = [value for k in range(3) for value in (x, y + k * apart, 2)]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": i + 1,
                    "category_id": 1,
                    "iscrowd": 0,
                    "keypoints": points,
                    "num_keypoints": 3,
                    "bbox": [x - 12, y - 12, 24, 2 * apart + 24],
                    "area": 24.0 * (2 * apart + 24),
                }
            )
    category = {"id": 1, "name": "person", "keypoints": SKELETON["keypoints"], "skeleton": []}
    data = {"images": images, "annotations": annotations, "categories": [category]}
    path = tmp_path / "labels.json"
    path.write_text(json.dumps(data))
    return path, folder


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Never the user's cache."""
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "posewire" / "compiled"
