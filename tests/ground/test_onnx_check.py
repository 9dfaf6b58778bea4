# SPDX-License-Identifier: Apache-2.0
"""A manifest that disagrees with its ONNX is refused, naming what disagrees."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from posewire.bundle import check_onnx, write_bundle
from posewire.errors import BundleError

onnx = pytest.importorskip("onnx")
CORPUS = Path(__file__).parents[1] / "golden" / "bundles"


def network(stride: int = 8, heatmaps: int = 19, half: bool = False) -> bytes:
    """uint8 NHWC [batch,64,96,3] -> float32 heatmaps and pafs, one convolution each."""
    helper, types = onnx.helper, onnx.TensorProto
    kind, dtype = (types.FLOAT16, np.float16) if half else (types.FLOAT, np.float32)
    image = helper.make_tensor_value_info("image", types.UINT8, ["batch", 64, 96, 3])
    nodes = [
        helper.make_node("Cast", ["image"], ["f"], to=kind),
        helper.make_node("Transpose", ["f"], ["chw"], perm=[0, 3, 1, 2]),
    ]
    outputs, weights = [], []
    for name, channels in (("heatmaps", heatmaps), ("pafs", 38)):
        weight = np.zeros((channels, 3, stride, stride), dtype)
        weights.append(onnx.numpy_helper.from_array(weight, name + "_w"))
        nodes.append(
            helper.make_node("Conv", ["chw", name + "_w"], [name + "_c"], strides=[stride, stride])
        )
        nodes.append(helper.make_node("Cast", [name + "_c"], [name], to=types.FLOAT))
        shape = ["batch", channels, 64 // stride, 96 // stride]
        outputs.append(helper.make_tensor_value_info(name, types.FLOAT, shape))
    graph = helper.make_graph(nodes, "g", [image], outputs, weights)
    opset = [helper.make_opsetid("", 18)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=9)
    content: bytes = model.SerializeToString()
    return content


def manifest() -> dict[str, Any]:
    data: dict[str, Any] = json.loads((CORPUS / "good.json").read_text(encoding="utf-8"))[
        "manifest"
    ]
    data["input"].update(width=96, height=64)
    data["artifacts"] = data["artifacts"][:1]
    del data["files"]
    return data


def check(tmp_path: Path, data: dict[str, Any], content: bytes) -> None:
    check_onnx(write_bundle(tmp_path / "b", data, {"model.onnx": content}), tmp_path / "b")


def test_agreement(tmp_path: Path) -> None:
    check(tmp_path, manifest(), network())


def test_agreement_of_half(tmp_path: Path) -> None:
    data = manifest()
    data["artifacts"][0]["precision"] = "fp16"
    check(tmp_path, data, network(half=True))


def renamed_input(data: dict[str, Any]) -> None:
    data["input"]["name"] = "picture"


def renamed_output(data: dict[str, Any]) -> None:
    data["outputs"][0]["name"] = data["artifacts"][0]["outputs"][0]["name"] = "maps"


def other_size(data: dict[str, Any]) -> None:
    data["input"]["width"] = 128


def other_stride(data: dict[str, Any]) -> None:
    data["outputs"][1]["stride"] = 4


def other_channels(data: dict[str, Any]) -> None:
    data["outputs"][0]["channels"] = 18


def other_layout(data: dict[str, Any]) -> None:
    data["artifacts"][0]["input"]["layout"] = "NCHW"


def other_dtype(data: dict[str, Any]) -> None:
    data["artifacts"][0]["input"]["dtype"] = "float32"


def other_output_layout(data: dict[str, Any]) -> None:
    data["artifacts"][0]["outputs"][1]["layout"] = "NHWC"


@pytest.mark.parametrize(
    ("edit", "named"),
    [
        (renamed_input, "inputs are image, the manifest says picture"),
        (renamed_output, "outputs are heatmaps, pafs, the manifest says maps, pafs"),
        (other_size, r"image is \[\?, 64, 96, 3\], the manifest says \[batch, 64, 128, 3\]"),
        (other_stride, "pafs is"),
        (other_channels, "heatmaps is"),
        (other_layout, "image is"),
        (other_dtype, "image is UINT8, the manifest says float32"),
        (other_output_layout, "pafs is"),
    ],
)
def test_disagreement(tmp_path: Path, edit: Any, named: str) -> None:
    data = manifest()
    edit(data)
    with pytest.raises(BundleError, match=r"model\.onnx: .*" + named):
        check(tmp_path, data, network())


@pytest.mark.parametrize("precision", ["fp16", "int8", "int8-u8", "bf16"])
def test_a_precision_that_is_not_in_the_graph(tmp_path: Path, precision: str) -> None:
    data = manifest()
    data["artifacts"][0]["precision"] = precision
    with pytest.raises(BundleError, match=f"the manifest says {precision}, the graph is fp32"):
        check(tmp_path, data, network())


def test_half_that_claims_to_be_float(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="the manifest says fp32, the graph is fp16"):
        check(tmp_path, manifest(), network(half=True))


def test_a_graph_that_the_checker_refuses(tmp_path: Path) -> None:
    model = onnx.load_model_from_string(network())
    model.graph.node[0].op_type = "NoSuchOperator"
    with pytest.raises(BundleError, match=r"model\.onnx: the ONNX checker refuses it"):
        check(tmp_path, manifest(), model.SerializeToString())
