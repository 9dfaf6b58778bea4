# SPDX-License-Identifier: Apache-2.0
"""Exporting: every artifact is what the manifest says and computes what Keras computes."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from posewire.bundle import check_onnx, verify_bundle
from posewire.errors import BundleError, ExitCode

onnx = pytest.importorskip("onnx")
pytest.importorskip("tf2onnx")
pytest.importorskip("onnxruntime")

from posewire.trainer import export, export_onnx  # noqa: E402
from posewire.trainer.errors import TrainError  # noqa: E402
from posewire.trainer.quantise import QUANTISED_OPERATORS, stays_float  # noqa: E402

WIDTH, HEIGHT = 128, 96
pytestmark = pytest.mark.timeout(900)  # TensorFlow on a busy machine


def graph(folder: Path, precision: str) -> Any:
    return onnx.load(folder / export.FILES[precision])


def pictures(count: int, seed: int = 1) -> Any:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, HEIGHT, WIDTH, 3)).astype(np.uint8)


def test_the_bundle_verifies_and_agrees_with_its_graphs(exported: Any) -> None:
    folder, network, said = exported
    manifest = verify_bundle(folder)
    check_onnx(manifest, folder)
    artifacts = [(artifact.format, artifact.precision) for artifact in manifest.artifacts]
    assert artifacts == [
        *(("onnx", precision) for precision in export.PRECISIONS),
        ("tflite", "fp32"),
        ("tflite", "int8"),
        ("uff", "fp32"),
    ]
    assert manifest.skeleton == network.skeleton
    assert manifest.selftest == ("selftest-00.jpg", "selftest-01.jpg")
    assert manifest.decode["algorithm"] == "paf"
    assert b"tiny 0.0.1" in (folder / "README.md").read_bytes()
    assert any("comparing" in line for line in said)
    assert [output.name for output in manifest.outputs] == ["heatmaps", "pafs"]


def test_keras_and_onnx_runtime_agree_for_any_batch(exported: Any) -> None:
    folder, network, _ = exported
    running = export_onnx.session((folder / "model.onnx").read_bytes())
    for count in (1, 3):
        images = pictures(count, count)
        expected = network.inference().predict_on_batch(images.astype(np.float32))
        found = export_onnx.run_onnx(running, images)
        for name, maps in expected.items():
            nchw = np.transpose(maps, (0, 3, 1, 2))
            assert found[name].shape == nchw.shape
            assert np.abs(nchw).max() > 0.05  # something to compare
            np.testing.assert_allclose(found[name], nchw, atol=export.PARITY_LIMIT)


def test_the_parity_figure_is_in_the_manifest(exported: Any) -> None:
    figures = {
        (figure.artifact, figure.metric): figure.value
        for figure in verify_bundle(exported[0]).accuracy
    }
    assert 0 <= figures["fp32", "max_abs_diff to Keras"] < export.PARITY_LIMIT
    for precision in ("fp16", "int8", "int8-u8"):
        assert 0 < figures[precision, "max_abs_diff to fp32"] < 1
        assert figures[precision, "mean_abs_diff to fp32"] < 0.1


def test_the_float_graph_has_one_transpose_and_no_scaffolding(exported: Any) -> None:
    counts = Counter(node.op_type for node in graph(exported[0], "fp32").graph.node)
    assert counts["Transpose"] == counts["Cast"] == 1
    assert counts["Resize"] == 2
    assert set(counts) <= {"Cast", "Transpose", "Mul", "Add", "Conv", "Clip", "Resize", "Concat"}


@pytest.mark.parametrize("precision", export.PRECISIONS)
def test_every_artifact_runs_and_is_near_fp32(exported: Any, precision: str) -> None:
    folder = exported[0]
    images = pictures(2)
    reference = export_onnx.run_onnx(
        export_onnx.session((folder / "model.onnx").read_bytes()), images
    )
    data = (folder / export.FILES[precision]).read_bytes()
    found = export_onnx.run_onnx(export_onnx.session(data), images)
    for name, maps in reference.items():
        assert found[name].dtype == np.float32
        spread = float(np.abs(maps - maps.mean()).mean())
        assert np.abs(found[name] - maps).mean() < 0.35 * spread


def test_half_is_half_inside(exported: Any) -> None:
    model = graph(exported[0], "fp16")
    types = onnx.TensorProto
    kinds = Counter(tensor.data_type for tensor in model.graph.initializer)
    assert kinds[types.FLOAT16] > 30
    left = [
        t.name for t in model.graph.initializer if t.data_type == types.FLOAT and len(t.dims) > 1
    ]
    assert not left
    assert (exported[0] / "model.fp16.onnx").stat().st_size < 0.6 * (
        exported[0] / "model.onnx"
    ).stat().st_size


@pytest.mark.parametrize("precision", ["int8", "int8-u8"])
def test_only_the_listed_operators_are_quantised(exported: Any, precision: str) -> None:
    """Each convolution's weights but the heads' are; nothing before the first convolution is."""
    model, float_model = graph(exported[0], precision), graph(exported[0], "fp32")
    keep = set(stays_float(float_model))
    producer = {tensor: node for node in model.graph.node for tensor in node.output}

    def dequantised(tensor: str) -> bool:
        return tensor in producer and producer[tensor].op_type == "DequantizeLinear"

    convolutions = {node.name for node in float_model.graph.node if node.op_type == "Conv"}
    quantised = {
        node.name
        for node in model.graph.node
        if node.op_type == "Conv" and dequantised(node.input[1])
    }
    assert quantised == convolutions - keep
    assert len(quantised) > 20
    for node in model.graph.node:
        if node.name in keep and node.op_type != "Conv":
            assert not any(dequantised(tensor) for tensor in node.input)


def test_the_listed_operators_are_the_designs() -> None:
    assert QUANTISED_OPERATORS == ("Conv", "Clip", "Add")


@pytest.mark.parametrize(("precision", "kind"), [("int8", "INT8"), ("int8-u8", "UINT8")])
def test_zero_points(exported: Any, precision: str, kind: str) -> None:
    model = graph(exported[0], precision)
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    zeros = [
        onnx.numpy_helper.to_array(tensors[node.input[2]])
        for node in model.graph.node
        if node.op_type == "QuantizeLinear"
    ]
    assert {str(zero.dtype).upper() for zero in zeros} == {kind}
    if precision == "int8":  # TensorRT refuses any other zero point
        assert not any(zero.any() for zero in zeros)
    biases = {
        onnx.TensorProto.DataType.Name(tensors[node.input[0]].data_type)
        for node in model.graph.node
        if node.op_type == "DequantizeLinear" and node.input[0] in tensors
    }
    assert biases == {"INT8"}  # weights only: no int32 biases


def test_the_input_stays_float_up_to_the_first_convolution(exported: Any) -> None:
    model = graph(exported[0], "fp32")
    names = {node.name: node.op_type for node in model.graph.node}
    kept = Counter(names[name] for name in stays_float(model))
    assert kept == {"Cast": 1, "Transpose": 1, "Mul": 1, "Add": 1, "Conv": 2}


def test_a_run_is_exported_with_its_provenance(
    run_folder: Path, tmp_path: Path, exported: Any
) -> None:
    """Through another process, as for a run that JAX trained; the graph is the same."""
    plan = export.Plan("tiny", "0.0.1", WIDTH, HEIGHT)
    converted = export._convert_elsewhere(run_folder, plan)
    images = pictures(1)
    one = export_onnx.run_onnx(export_onnx.session(converted.onnx), images)
    data = (exported[0] / "model.onnx").read_bytes()
    other = export_onnx.run_onnx(export_onnx.session(data), images)
    for name, maps in one.items():
        np.testing.assert_allclose(maps, other[name], atol=1e-5)
    from posewire.trainer.checkpoint import load_run

    facts = export._provenance(run_folder, load_run(run_folder)[0])
    assert facts["backbone"] == "mobilenetv1"
    assert facts["data"] == [{"name": "nothing", "weight": 1.0}]
    json.dumps(facts)


def test_a_network_that_changed_is_refused(exported: Any, tmp_path: Path) -> None:
    """The parity check is what notices; nothing is written."""
    folder, network, _ = exported
    layer = network.keras.get_layer("stage1_pafs")
    before = layer.get_weights()
    try:
        layer.set_weights([before[0] + 0.05, before[1]])
        plan = export.Plan("tiny", "0.0.1", WIDTH, HEIGHT, parity_pictures=1)
        with pytest.raises(TrainError, match="pafs differs from Keras") as caught:
            export.export_network(
                network,
                tmp_path / "out",
                plan,
                graphs=export.Graphs((folder / "model.onnx").read_bytes(), b""),
            )
        assert caught.value.code is ExitCode.BUG
    finally:
        layer.set_weights(before)
    assert not (tmp_path / "out").exists()


def test_a_manifest_that_disagrees_is_found(exported: Any) -> None:
    manifest = verify_bundle(exported[0])
    wrong = replace(manifest, input=replace(manifest.input, width=256))
    with pytest.raises(BundleError, match=r"model\.onnx: image is"):
        check_onnx(wrong, exported[0])


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"width": 100}, "width"),
        ({"height": 0}, "height"),
        ({"precisions": ("int8",)}, "fp32"),
        ({"precisions": ("fp32", "int4")}, "precisions"),
    ],
)
def test_a_bad_plan_is_refused(change: dict[str, Any], named: str) -> None:
    plan = replace(export.Plan("tiny", "1", WIDTH, HEIGHT), **change)
    with pytest.raises(TrainError, match=named):
        plan.check()


def test_calibration_pictures_that_are_not_there(tmp_path: Path) -> None:
    for folder in (tmp_path / "none", tmp_path):
        with pytest.raises(TrainError, match=str(folder)) as caught:
            export.calibration_files(folder)
        assert caught.value.code is ExitCode.SOURCE


def test_calibration_pictures_are_letterboxed(tmp_path: Path) -> None:
    cv2 = pytest.importorskip("cv2")
    pytest.importorskip("posewire._core", reason="the compiled module is not installed")
    picture = np.full((40, 30, 3), (10, 20, 200), np.uint8)  # BGR
    cv2.imwrite(str(tmp_path / "b.png"), picture)
    cv2.imwrite(str(tmp_path / "a.png"), picture // 2)
    (tmp_path / "notes.txt").write_text("not a picture", encoding="utf-8")
    plan = export.Plan("tiny", "1", WIDTH, HEIGHT, calibration=tmp_path)
    dark, bright = export._calibration(plan)
    assert dark.shape == bright.shape == (HEIGHT, WIDTH, 3)
    assert tuple(bright[HEIGHT // 2, WIDTH // 2]) == (200, 20, 10)  # RGB, as the network wants
    assert tuple(bright[0, 0]) == (114, 114, 114)
    (tmp_path / "c.png").write_bytes(b"not a picture")
    with pytest.raises(TrainError, match=r"c\.png: cannot be read") as caught:
        list(export._calibration(plan))
    assert caught.value.code is ExitCode.SOURCE


def test_calibration_is_never_the_gates_or_the_parity_checks() -> None:
    from posewire.trainer.data.synthetic import SELFTEST_SEED

    assert len({SELFTEST_SEED, export.CALIBRATION_SEED, export.PARITY_SEED}) == 3


def test_a_directory_that_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(TrainError) as caught:
        export.export_run(tmp_path, tmp_path / "out")
    assert caught.value.code is ExitCode.SOURCE
