# SPDX-License-Identifier: Apache-2.0
"""posewire import: small networks made here become bundles that say the same; what is unclear or
wrong is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from posewire.bundle import check_onnx, verify_bundle
from posewire.errors import BundleError, ExitCode, PosewireError
from posewire.skeleton import Skeleton, load_skeleton

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

from posewire.trainer.errors import TrainError  # noqa: E402
from posewire.trainer.third_party import Plan, import_network  # noqa: E402
from posewire.trainer.third_party_outputs import Rule, guess, parse_rule  # noqa: E402

Array = NDArray[Any]
WIDTH, HEIGHT = 96, 64
SMALL = Skeleton("small", ("a", "b", "c"), ((0, 1), (1, 2)), (0, 1, 2), (0.1, 0.1, 0.1))
MEAN, STD = (120.0, 110.0, 100.0), (60.0, 50.0, 40.0)


def f(*shape: int) -> Array:
    return np.random.default_rng(5).normal(0, 0.3, shape).astype(np.float32)


def save(path: Path, nodes: list[Any], arrays: dict[str, Array], shape: Any, outputs: Any) -> Path:
    """An ONNX file from ``x`` to the named outputs, their shapes left out."""
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info(name, kind, None) for name in outputs],
        [onnx.numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    model = onnx.shape_inference.infer_shapes(model)
    path.write_bytes(model.SerializeToString())
    return path


def node(kind: str, inputs: list[str], output: str, **attributes: Any) -> Any:
    return onnx.helper.make_node(kind, inputs, [output], **attributes)


def paf_network(path: Path, layout: str = "NCHW", channels: int = 8) -> Path:
    """One tensor of 4 heatmaps and 4 fields at stride 8, as OpenPose's networks have it."""
    nodes = [node("Conv", ["p", "w"], "y", strides=[8, 8], pads=[0, 0, 0, 0])]
    shape: list[Any] = [1, 3, HEIGHT, WIDTH]
    if layout == "NHWC":
        shape = ["N", HEIGHT, WIDTH, 3]
        nodes = [
            node("Transpose", ["x"], "p", perm=[0, 3, 1, 2]),
            node("Conv", ["p", "w"], "q", strides=[8, 8]),
            node("Transpose", ["q"], "y", perm=[0, 2, 3, 1]),
        ]
    else:
        nodes[0].input[0] = "x"
    return save(path, nodes, {"w": f(channels, 3, 8, 8)}, shape, ["y"])


def run(path: Path, feed: Array) -> dict[str, Array]:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_outputs()]
    return dict(zip(names, session.run(names, {session.get_inputs()[0].name: feed}), strict=True))


def plan(**more: Any) -> Plan:
    settings = {"algorithm": "paf", "skeleton": SMALL, "name": "net", "selftest_count": 2}
    return Plan(**{**settings, "mean": MEAN, "std": STD, **more})


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_the_bundle_says_what_the_network_says(tmp_path: Path, layout: str) -> None:
    source = paf_network(tmp_path / "net.onnx", layout)
    said: list[str] = []
    manifest = import_network(source, tmp_path / "out", plan(channels="BGR"), say=said.append)
    check_onnx(verify_bundle(tmp_path / "out"), tmp_path / "out")
    assert "outputs: heatmaps=y[0:4], pafs=y[4:8]" in said
    assert (manifest.input.width, manifest.input.height) == (WIDTH, HEIGHT)
    assert manifest.input.channels == "BGR"
    assert [(o.name, o.channels, o.stride) for o in manifest.outputs] == [
        ("heatmaps", 4, 8),
        ("pafs", 4, 8),
    ]
    assert manifest.training["imported"]["file"] == "net.onnx"
    pictures = np.random.default_rng(1).integers(0, 256, (3, HEIGHT, WIDTH, 3), dtype=np.uint8)
    found = run(tmp_path / "out" / "model.onnx", pictures)  # three together: the batch is free
    for i, picture in enumerate(pictures):
        feed = ((picture - np.array(MEAN)) / np.array(STD)).astype(np.float32)[None]
        feed = feed.transpose(0, 3, 1, 2) if layout == "NCHW" else feed
        expected = run(source, feed)["y"]
        expected = expected.transpose(0, 3, 1, 2) if layout == "NHWC" else expected
        np.testing.assert_allclose(found["heatmaps"][i], expected[0, :4], atol=1e-4)
        np.testing.assert_allclose(found["pafs"][i], expected[0, 4:], atol=1e-4)


def test_every_precision_is_made(tmp_path: Path) -> None:
    nodes = [  # the first and the last convolution stay float
        node("Conv", ["x", "w"], "a", strides=[8, 8]),
        node("Clip", ["a", "low", "high"], "b"),
        node("Conv", ["b", "v"], "c"),
        node("Clip", ["c", "low", "high"], "d"),
        node("Conv", ["d", "v"], "y"),
    ]
    limits = {"low": np.array(0, np.float32), "high": np.array(6, np.float32)}
    arrays = {"w": f(8, 3, 8, 8), "v": f(8, 8, 1, 1), **limits}
    source = save(tmp_path / "net.onnx", nodes, arrays, [1, 3, HEIGHT, WIDTH], ["y"])
    wanted = ("fp32", "fp16", "int8", "int8-u8")
    made = plan(precisions=wanted, calibration_pictures=2)
    manifest = import_network(source, tmp_path / "out", made)
    assert tuple(artifact.precision for artifact in manifest.artifacts) == wanted
    check_onnx(manifest, tmp_path / "out")


def test_a_batch_that_matters_stays_one(tmp_path: Path) -> None:
    """Normalisation over the batch: two pictures together come out otherwise than alone."""
    nodes = [
        node("ReduceMean", ["x"], "m", axes=[0, 2, 3], keepdims=1),
        node("Sub", ["x", "m"], "c"),
        node("Conv", ["c", "w"], "y", strides=[8, 8]),
    ]
    source = save(tmp_path / "net.onnx", nodes, {"w": f(8, 3, 8, 8)}, [1, 3, HEIGHT, WIDTH], ["y"])
    said: list[str] = []
    import_network(source, tmp_path / "out", plan(), say=said.append)
    assert any(line.startswith("its batch stays 1") for line in said)
    model = onnx.load(tmp_path / "out" / "model.onnx")
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_value == 1


def test_a_batch_frozen_into_a_reshape_is_freed(tmp_path: Path) -> None:
    nodes = [
        node("Conv", ["x", "w"], "a", strides=[8, 8]),
        node("Reshape", ["a", "s"], "b"),
        node("Reshape", ["b", "t"], "y"),
    ]
    arrays = {
        "w": f(8, 3, 8, 8),
        "s": np.array([1, 8, 96]),
        "t": np.array([1, 8, HEIGHT // 8, WIDTH // 8]),
    }
    source = save(tmp_path / "net.onnx", nodes, arrays, [1, 3, HEIGHT, WIDTH], ["y"])
    import_network(source, tmp_path / "out", plan())
    pictures = np.zeros((4, HEIGHT, WIDTH, 3), np.uint8)
    assert run(tmp_path / "out" / "model.onnx", pictures)["pafs"].shape[0] == 4


def yolox_network(path: Path) -> Path:
    """Raw rows of YOLOX: one convolution per stride, [1, cells, 7]."""
    nodes, rows = [], []
    for stride in (8, 16, 32):
        weights = f"w{stride}"
        nodes += [
            node("Conv", ["x", weights], f"a{stride}", strides=[stride, stride]),
            node("Reshape", [f"a{stride}", "s"], f"b{stride}"),
        ]
        rows.append(f"b{stride}")
    nodes += [
        node("Concat", rows, "c", axis=2),
        node("Tanh", ["c"], "d"),
        node("Transpose", ["d"], "y", perm=[0, 2, 1]),
    ]
    arrays = {f"w{s}": f(7, 3, s, s) / (s * 400) for s in (8, 16, 32)}
    return save(path, nodes, {**arrays, "s": np.array([1, 7, -1])}, [1, 3, HEIGHT, WIDTH], ["y"])


def test_yolox_rows_become_boxes(tmp_path: Path) -> None:
    source = yolox_network(tmp_path / "net.onnx")
    made = Plan("yolox", None, "net", selftest_count=1)
    manifest = import_network(source, tmp_path / "out", made)
    assert (manifest.mode, manifest.skeleton) == ("detector", None)
    assert manifest.decode["algorithm"] == "center"
    picture = np.random.default_rng(1).integers(0, 256, (1, HEIGHT, WIDTH, 3), dtype=np.uint8)
    raw = run(source, picture.transpose(0, 3, 1, 2).astype(np.float32))["y"][0].astype(np.float64)
    boxes = run(tmp_path / "out" / "model.onnx", picture)["boxes"][0]
    at = 0
    for stride in (8, 16, 32):
        for row in range(HEIGHT // stride):
            for column in range(WIDTH // stride):
                x, y, w, h, thing, person = raw[at, :6]
                centre = np.array([(x + column) * stride, (y + row) * stride])
                half = np.exp([w, h]) * stride / 2
                expected = [*(centre - half), *(centre + half), thing * person]
                np.testing.assert_allclose(boxes[at], expected, rtol=1e-4, atol=1e-4)
                at += 1
    assert at == len(boxes)


def test_uff_is_read_too(tmp_path: Path) -> None:
    from posewire.uff.from_onnx import onnx_to_uff

    source = paf_network(tmp_path / "net.onnx")
    made = onnx_to_uff(source.read_bytes(), "net.onnx")
    (tmp_path / "net.uff").write_bytes(made.data)
    one = import_network(source, tmp_path / "one", plan())
    two = import_network(tmp_path / "net.uff", tmp_path / "two", plan())
    assert one.outputs == two.outputs
    picture = np.random.default_rng(1).integers(0, 256, (1, HEIGHT, WIDTH, 3), dtype=np.uint8)
    for name, value in run(tmp_path / "one" / "model.onnx", picture).items():
        other = run(tmp_path / "two" / "model.onnx", picture)[name]
        np.testing.assert_allclose(other, value, atol=1e-4)


def test_top_down_pictures_are_crops(tmp_path: Path) -> None:
    import cv2

    nodes = [node("Conv", ["x", "w"], "y", strides=[4, 4])]
    source = save(tmp_path / "net.onnx", nodes, {"w": f(17, 3, 4, 4)}, [1, 3, 64, 48], ["y"])
    made = plan(algorithm="heatmap", skeleton=load_skeleton("coco17"), padding=1.5)
    manifest = import_network(source, tmp_path / "out", made)
    assert manifest.mode == "top_down"
    assert manifest.crop is not None
    assert manifest.crop.padding == 1.5
    for name in manifest.selftest:
        height, width = cv2.imread(str(tmp_path / "out" / name)).shape[:2]
        assert width / height == pytest.approx(48 / 64, rel=0.05)


# --- what is unclear or wrong -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "channels", "match"),
    [
        ({"algorithm": "pafs"}, 8, "unknown algorithm 'pafs'; known are associative_embedding"),
        ({"skeleton": None}, 8, "paf needs a skeleton"),
        ({}, 9, r"outputs are y \[9, 8, 12\]; say which are heatmaps pafs"),
        ({"outputs": (Rule("heatmaps", "z"),)}, 8, "no such output; it has y"),
        ({"outputs": (Rule("heatmaps", "y", 0, 12),)}, 8, "has 8 channels, the rule asks for 12"),
        ({"outputs": (Rule("heatmaps", "y"), Rule("pafs", "y"))}, 8, "outputs.heatmaps"),
        ({"stride": 4}, 8, "no stride leads from 96x64 to it"),
        ({"size": (100, 64)}, 8, "input is 96x64, not 100x64"),
        ({"std": (1.0, 0.0, 1.0)}, 8, "std must be above 0"),
        ({"precisions": ("int4", "fp32")}, 8, "precisions are some of fp32"),
        ({"decode": {"peaks": 3}}, 8, "peaks"),
    ],
)
def test_refusals_name_what_is_wrong(
    tmp_path: Path, changes: dict[str, Any], channels: int, match: str
) -> None:
    source = paf_network(tmp_path / "net.onnx", channels=channels)
    with pytest.raises(PosewireError, match=match):
        import_network(source, tmp_path / "out", plan(**changes))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["net.onnx"]  # nothing half-written


def test_files_that_are_no_networks(tmp_path: Path) -> None:
    for name, match in (
        ("net.onnx", r"net\.onnx: is not"),
        ("net.uff", r"net\.uff: is no UFF file"),
        ("net.tflite", r"is none of \.onnx, \.uff, \.pb"),
    ):
        path = tmp_path / name
        path.write_bytes(b"\x00garbage")
        with pytest.raises(PosewireError, match=match):
            import_network(path, tmp_path / "out", plan())
    with pytest.raises(TrainError, match="No such file") as caught:
        import_network(tmp_path / "none.onnx", tmp_path / "out", plan())
    assert caught.value.code == ExitCode.SOURCE


def test_the_input_must_be_pictures(tmp_path: Path) -> None:
    nodes = [node("Relu", ["x"], "y")]
    source = save(tmp_path / "net.onnx", nodes, {}, [1, 4, 64, 96], ["y"])
    with pytest.raises(BundleError, match="where are the 3 channels"):
        import_network(source, tmp_path / "out", plan())


def test_rules_and_guesses() -> None:
    assert parse_rule("pafs=a/b:0[19:57]") == Rule("pafs", "a/b:0", 19, 57)
    assert parse_rule("rows=out") == Rule("rows", "out")
    for text in ("pafs", "pafs=a[3:3]", "=a", "pafs=a[1:]"):
        with pytest.raises(TrainError, match="--outputs"):
            parse_rule(text)
    assert guess("simcc", SMALL, {"simcc_y": (3, 8), "simcc_x": (3, 6)}) == (
        Rule("simcc_x", "simcc_x"),
        Rule("simcc_y", "simcc_y"),
    )
    with pytest.raises(TrainError, match="say which are rows or boxes keypoints"):
        guess("center", SMALL, {"a": (3, 8), "b": (3, 6)})
