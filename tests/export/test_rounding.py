# SPDX-License-Identifier: Apache-2.0
"""Weights of quantised graphs: what the layers see, and what rounding by it gains."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
pytest.importorskip("tf2onnx")
pytest.importorskip("onnxruntime")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402
from posewire.trainer import export_onnx, rounding  # noqa: E402
from posewire.trainer.export import render_many  # noqa: E402
from posewire.trainer.quantise import Quantiser, spread, to_nearest  # noqa: E402

WIDTH, HEIGHT = 128, 96
pytestmark = pytest.mark.timeout(900)  # TensorFlow on a busy machine


def convolution(weights: Any, **attributes: Any) -> bytes:
    """uint8 NHWC picture -> one convolution, as a serialised graph."""
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["float"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["planes", "w"], ["out"], name="conv", **attributes),
    ]
    graph = helper.make_graph(
        nodes,
        "one",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, [1, None, None, 3])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(weights, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    return bytes(model.SerializeToString())


@pytest.mark.parametrize(
    ("shape", "attributes"),
    [
        ((4, 3, 1, 1), {}),
        ((4, 3, 3, 3), {"pads": [1, 1, 1, 1]}),
        ((4, 3, 3, 5), {"pads": [0, 2, 1, 2], "strides": [2, 1]}),
        ((6, 1, 3, 3), {"pads": [2, 2, 2, 2], "group": 3, "dilations": [2, 2]}),
    ],
)
def test_means_are_those_of_the_convolution(shape: Any, attributes: Any) -> None:
    """The mean output is the weights times the mean window: every cell is looked at here."""
    rng = np.random.default_rng(4)
    weights = rng.normal(size=shape).astype(np.float32)
    data = convolution(weights, **attributes)
    pictures = rng.integers(0, 256, (2, 14, 18, 3)).astype(np.uint8)
    seen = rounding.convolution_moments(data, iter(pictures))["conv"]
    running = export_onnx.session(data)
    found = [running.run(["out"], {"image": one[None]})[0] for one in pictures]
    grouped = weights.reshape(len(seen.mean), -1, seen.mean.shape[1])
    told = np.einsum("gon,gn->go", grouped, seen.mean).ravel()
    np.testing.assert_allclose(told, np.mean(found, axis=(0, 1, 3, 4)), rtol=1e-4)
    assert seen.second is not None
    squares = np.einsum("gon,gnm,gom->go", grouped, seen.second, grouped).ravel()
    np.testing.assert_allclose(squares, np.square(found).mean(axis=(0, 1, 3, 4)), rtol=1e-4)


def test_unrelated_inputs_are_rounded_to_the_nearest_step() -> None:
    rng = np.random.default_rng(1)
    weights = rng.normal(size=(1, 5, 8))
    scale = np.abs(weights).max(axis=2) / 127
    steps = rounding._round_by_moments(weights, np.eye(8)[None], scale)
    np.testing.assert_array_equal(steps, np.rint(weights / scale[..., None]))


def test_related_inputs_lose_less() -> None:
    rng = np.random.default_rng(2)
    weights = rng.normal(size=(3, 6, 16))
    scale = np.abs(weights).max(axis=2) / 7  # coarse, so that rounding matters
    inputs = rng.normal(size=(3, 16, 400)) + 2 * rng.normal(size=(3, 1, 400))
    inputs[0, 5] = 0.0  # one that never says anything
    second = inputs @ inputs.transpose(0, 2, 1) / 400
    steps = rounding._round_by_moments(weights, second, scale)
    assert np.abs(steps).max() <= 127

    def lost(chosen: Any) -> float:
        error = weights - chosen * scale[..., None]
        return float(np.einsum("gon,gnm,gom->", error, second, error))

    assert lost(steps) < 0.5 * lost(np.rint(weights / scale[..., None]))


@pytest.mark.parametrize("precision", ["int8", "int8-u8"])
def test_a_network_loses_less_and_keeps_its_scales(exported: Any, precision: str) -> None:
    folder, _, _ = exported
    data = (folder / "model.onnx").read_bytes()
    seen = [image for image, _ in render_many(9, 11, WIDTH, HEIGHT)]
    nearest = to_nearest(data, seen, precision)
    better = Quantiser(data, lambda: seen).graph(precision)
    unseen = np.stack([image for image, _ in render_many(4, 12, WIDTH, HEIGHT)])
    wanted, *others = (
        export_onnx.run_onnx(export_onnx.session(one), unseen) for one in (data, nearest, better)
    )
    before, after = (
        np.mean([np.square(one[name] - wanted[name]).mean() for name in wanted]) for one in others
    )
    assert after < 0.9 * before
    was, now = (onnx.load_model_from_string(one) for one in (nearest, better))
    steps = {node.input[0] for node in was.graph.node if node.op_type == "DequantizeLinear"}
    biases = {name for node in now.graph.node if node.op_type == "Conv" for name in node.input[2:]}
    old, new = (
        {one.name: numpy_helper.to_array(one).tobytes() for one in model.graph.initializer}
        for model in (was, now)
    )
    assert set(old) <= set(new) <= set(old) | biases
    changed = {name for name in new if new[name] != old.get(name)}
    assert changed <= steps | biases
    assert len(changed & steps) > 20
    assert [node.op_type for node in was.graph.node] == [node.op_type for node in now.graph.node]


def test_calibration_pictures_are_spread() -> None:
    assert spread(list(range(10)), 4) == [0, 2, 5, 7]
    assert spread(list(range(3)), 8) == [0, 1, 2]
