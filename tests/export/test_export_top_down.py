# SPDX-License-Identifier: Apache-2.0
"""Top-down networks, trained on one person's crop until they know it, exported, and decoded by the
engine from what the exported files compute."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from posewire.bundle import check_onnx, verify_bundle
from posewire.decode import Decoder
from posewire.manifest import Manifest
from posewire.preprocess import letterbox
from posewire.top_down import crop_rectangle, cut

onnx = pytest.importorskip("onnx")
pytest.importorskip("tf2onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("posewire._core", reason="the engine's Python module is not built")

from posewire.trainer import export, export_onnx, export_tflite  # noqa: E402
from posewire.trainer.checkpoint import load_run  # noqa: E402
from posewire.trainer.data.synthetic import render_dataset  # noqa: E402
from posewire.trainer.errors import TrainError  # noqa: E402
from posewire.trainer.evaluate import evaluate_run  # noqa: E402
from posewire.trainer.train import train  # noqa: E402

WIDTH, HEIGHT = 64, 96
PRECISIONS = {"simcc": ("fp32", "int8"), "heatmap": ("fp32",)}
pytestmark = pytest.mark.timeout(900)  # TensorFlow on a busy machine

CONFIG = """
name = "tiny-NAME"
seed = 7
[input]
width = 64
height = 96
[model]
algorithm = "NAME"
backbone = "mobilenetv1"
alpha = 0.25
[model.algorithm_options]
width = 24
blocks = 1
[training]
batch = 1
learning_rate = 5e-3
backbone_factor = 0.5
log_steps = 50
picture_steps = 0
ema = 0.0
[training.schedule]
steps = 200
warmup_steps = 10
final = 0.02
[augment]
size = [1.0, 1.0]
rotate_deg = 0.0
flip = 0.0
shift = 0.0
half_body = 0.0
colour = 0.0
grey = 0.0
blur = 0.0
noise = 0.0
[[dataset]]
name = "drawn"
annotations = "annotations.json"
images = "images"
"""
# Until batch normalisation's averages (over 50 steps) have forgotten how they began: with random
# weights the finer features are so faint that they need longer.
STEPS = {"simcc": 200, "heatmap": 450}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One picture of one person."""
    folder = tmp_path_factory.mktemp("drawn")
    render_dataset(folder, 1, 11, 240, 200, people=(1, 1))
    return folder


@pytest.fixture(scope="module", params=["simcc", "heatmap"])
def made(
    request: pytest.FixtureRequest, drawn: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Path, Path]:
    """(algorithm, run, bundle)."""
    keras = pytest.importorskip("keras")
    if keras.backend.backend() != "tensorflow":
        pytest.skip("exporting is TensorFlow's; this session runs another backend")
    name = request.param
    folder = tmp_path_factory.mktemp(name)
    config = drawn / f"{name}.toml"
    text = CONFIG.replace("NAME", name).replace("steps = 200", f"steps = {STEPS[name]}")
    config.write_text(text, encoding="utf-8")
    train(config, folder / "run", quiet=True)
    plan = export.Plan(
        f"tiny-{name}",
        "0.0.1",
        WIDTH,
        HEIGHT,
        precisions=PRECISIONS[name],
        tflite=name == "simcc",
        calibration_pictures=4,
        parity_pictures=2,
        selftest_pictures=3,
    )
    export.export_network(load_run(folder / "run")[1], folder / "bundle", plan)
    return name, folder / "run", folder / "bundle"


def person(drawn: Path) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """The person's crop, and its labels in network pixels."""
    data = json.loads((drawn / "annotations.json").read_text())
    (annotation,) = data["annotations"]
    picture = cv2.imread(str(drawn / "images" / "000000.jpg"), cv2.IMREAD_COLOR_RGB)
    assert picture is not None
    frame = (picture.shape[1], picture.shape[0])
    rectangle = crop_rectangle(annotation["bbox"], frame, (WIDTH, HEIGHT), 1.25)
    assert rectangle is not None
    fitted, geometry = letterbox(cut(np.asarray(picture, np.uint8), rectangle), WIDTH, HEIGHT)
    points = np.float32(annotation["keypoints"]).reshape(17, 3)
    points[:, :2] = geometry.to_network(points[:, :2] - np.float32(rectangle[:2]))
    return fitted, points


def outputs(bundle: Path, manifest: Manifest, index: int, crop: Any) -> dict[str, Any]:
    """What an artifact computes of a crop, as the manifest says it lies in memory."""
    artifact = manifest.artifacts[index]
    data = (bundle / artifact.files[0]).read_bytes()
    if artifact.format == "onnx":
        return export_onnx.run_onnx(export_onnx.session(data), crop[None])
    running = export_tflite._interpreter(data)
    running.allocate_tensors()
    running.set_tensor(running.get_input_details()[0]["index"], crop[None])
    running.invoke()
    details = export_tflite._outputs(running)
    return {name: running.get_tensor(one["index"]) for name, one in details.items()}


def test_every_artifact_finds_the_person_again(made: tuple[str, Path, Path], drawn: Path) -> None:
    """Labelled keypoints near their labels, through the manifest's own layouts and scales."""
    _, _, bundle = made
    manifest = verify_bundle(bundle)
    crop, labels = person(drawn)
    known = labels[:, 2] > 0
    assert known.sum() >= 10
    compared = 0
    for index, artifact in enumerate(manifest.artifacts):
        if artifact.format == "uff":
            continue
        found = Decoder(manifest.raw, index).decode(outputs(bundle, manifest, index, crop))
        assert len(found.scores) == 1, artifact
        points = found.keypoints[0]
        assert (points[known, 2] > 0.3).all(), artifact
        distance = np.linalg.norm(points[known, :2] - labels[known, :2], axis=1)
        assert distance.mean() < (1.5 if artifact.precision == "fp32" else 3.0), artifact
        compared += 1
    assert compared >= 1


def test_the_bundle_is_a_top_down_one(made: tuple[str, Path, Path]) -> None:
    name, _, bundle = made
    manifest = verify_bundle(bundle)
    check_onnx(manifest, bundle)
    assert manifest.mode == "top_down"
    assert manifest.crop is not None
    assert manifest.crop.padding == 1.25
    assert manifest.decode["algorithm"] == name
    layout = {"simcc": "NCW", "heatmap": "NCHW"}[name]
    assert {one.layout for one in manifest.artifacts[0].outputs} == {layout}
    formats = Counter((artifact.format, artifact.precision) for artifact in manifest.artifacts)
    if name == "simcc":
        assert [(one.name, one.length) for one in manifest.outputs] == [
            ("simcc_x", 2 * WIDTH),
            ("simcc_y", 2 * HEIGHT),
        ]
        assert formats["tflite", "int8"] == formats["onnx", "int8"] == 1
    else:
        assert formats["uff", "fp32"] == 1
    figures = {(one.artifact, one.metric): one.value for one in manifest.accuracy}
    assert 0 <= figures["fp32", "max_abs_diff to Keras"] < export.PARITY_LIMIT


def test_the_gates_pictures_are_crops(made: tuple[str, Path, Path]) -> None:
    """Of the network's aspect, one person each; so are the drawn calibration pictures."""
    _, _, bundle = made
    names = verify_bundle(bundle).selftest
    assert len(names) == 3
    for name in names:
        picture = cv2.imread(str(bundle / name))
        assert picture is not None
        height, width = picture.shape[:2]
        assert abs(width - height * WIDTH / HEIGHT) <= 1
    plan = export.Plan("tiny", "1", WIDTH, HEIGHT, calibration_pictures=2)
    crops, scenes = (
        np.stack(list(export._calibration(replace(plan, crops=crops)))) for crops in (True, False)
    )
    assert crops.shape == scenes.shape == (2, HEIGHT, WIDTH, 3)
    assert (crops != scenes).any()


def test_the_graph_has_no_scaffolding(made: tuple[str, Path, Path]) -> None:
    model = onnx.load(made[2] / "model.onnx")
    counts = Counter(node.op_type for node in model.graph.node)
    assert counts["Transpose"] == counts["Cast"] == 1
    convolutions = {"Cast", "Transpose", "Mul", "Add", "Conv", "Clip", "Resize"}
    lines = {"simcc": {"Reshape", "MatMul", "Gemm"}, "heatmap": set[str]()}
    assert set(counts) <= convolutions | lines[made[0]]


def test_another_size_is_refused_where_the_network_knows_its_own(
    made: tuple[str, Path, Path], drawn: Path, tmp_path: Path
) -> None:
    name, run, _ = made
    if name != "simcc":
        pytest.skip("heatmaps come in any size")
    with pytest.raises(TrainError, match="export: height: the network was trained for 96"):
        export.export_run(run, tmp_path / "out", height=128)
    with pytest.raises(TrainError, match="evaluate: width: the network was trained for 64"):
        evaluate_run(run, drawn / "annotations.json", drawn / "images", width=128)
    assert not (tmp_path / "out").exists()


def test_evaluation_agrees_with_the_labels(made: tuple[str, Path, Path], drawn: Path) -> None:
    """The run's weights on the annotated box, back in the picture's pixels."""
    figures = evaluate_run(made[1], drawn / "annotations.json", drawn / "images")
    assert figures["found"] == figures["people"] == 1
    assert figures["ap"] > 0.5
