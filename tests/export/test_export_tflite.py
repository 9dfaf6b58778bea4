# SPDX-License-Identifier: Apache-2.0
"""The TFLite files of an exported bundle, run by LiteRT's own interpreter."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from posewire.bundle import verify_bundle
from posewire.manifest import Artifact, Manifest

pytest.importorskip("tf2onnx")
pytest.importorskip("ai_edge_litert")

from posewire.trainer import export, export_onnx, export_tflite
from posewire.trainer.errors import TrainError

WIDTH, HEIGHT = 128, 96
pytestmark = pytest.mark.timeout(900)  # TensorFlow on a busy machine


def lite(manifest: Manifest, precision: str) -> Artifact:
    (found,) = (a for a in manifest.artifacts if (a.format, a.precision) == ("tflite", precision))
    return found


def pictures(count: int) -> Any:
    rng = np.random.default_rng(3)
    return rng.integers(0, 256, (count, HEIGHT, WIDTH, 3)).astype(np.uint8)


def reference(folder: Path, images: Any) -> Any:
    return export_onnx.run_onnx(export_onnx.session((folder / "model.onnx").read_bytes()), images)


def test_fp32_agrees_with_onnx(exported: Any) -> None:
    folder = exported[0]
    images = pictures(2)
    found = export_tflite.run_tflite((folder / "model.tflite").read_bytes(), images)
    for name, maps in reference(folder, images).items():
        assert np.abs(maps).max() > 0.05  # something to compare
        np.testing.assert_allclose(found[name], maps, atol=1e-4)


def test_int8_is_near_fp32_and_says_what_its_integers_mean(exported: Any) -> None:
    folder = exported[0]
    images = pictures(2)
    data = (folder / "model.int8.tflite").read_bytes()
    found = export_tflite.run_tflite(data, images)
    artifact = lite(verify_bundle(folder), "int8")
    for output in artifact.outputs:
        maps = reference(folder, images)[output.name]
        assert np.abs(found[output.name] - maps).mean() < 0.35 * np.abs(maps - maps.mean()).mean()
        # Every value is a whole number of steps from the zero point.
        assert output.scale is not None
        assert output.zero_point is not None
        steps = found[output.name] / output.scale + output.zero_point
        np.testing.assert_allclose(steps, np.round(steps), atol=1e-3)
        assert steps.min() > -128.5
        assert steps.max() < 127.5


def test_the_files_take_a_pictures_bytes(exported: Any) -> None:
    """uint8 NHWC without a scale of its own, so that every runtime row is fed alike; and the int8
    file is full integer: no tensor in it is floating point."""
    folder = exported[0]
    for precision, file in export_tflite.FILES.items():
        artifact = lite(verify_bundle(folder), precision)
        assert artifact.files == (file,)
        assert (artifact.input.layout, artifact.input.dtype) == ("NHWC", "uint8")
        running = export_tflite._interpreter((folder / file).read_bytes())
        (image,) = running.get_input_details()
        assert image["dtype"] == np.uint8
        assert list(image["shape"]) == [1, HEIGHT, WIDTH, 3]
        kinds = {detail["dtype"] for detail in running.get_tensor_details()}
        assert (np.float32 in kinds) == (precision == "fp32")


def test_dark_calibration_pictures_do_not_change_the_input(exported: Any) -> None:
    """The input's step stays one grey level though no picture here is brighter than 40; scale and
    zero point say what the network's normalisation, x / 127.5 - 1, says."""
    _, network, _ = exported
    outputs = network.algorithm.outputs
    frozen = export_onnx.frozen_graph(network.inference(), outputs, WIDTH, HEIGHT)
    dark = [picture // 7 for picture in pictures(2)]
    data = export_tflite.int8_tflite(frozen, outputs, WIDTH, HEIGHT, dark)
    scale, zero_point = export_tflite._interpreter(data).get_input_details()[0]["quantization"]
    assert abs(scale - 1 / 127.5) < 1e-6
    assert zero_point in (127, 128)


def test_figures_of_both_are_in_the_manifest(exported: Any) -> None:
    figures = {
        (figure.artifact, figure.metric): figure.value
        for figure in verify_bundle(exported[0]).accuracy
        if "TFLite" in figure.data
    }
    assert 0 <= figures["fp32", "max_abs_diff to fp32"] < export.PARITY_LIMIT
    assert 0 < figures["int8", "mean_abs_diff to fp32"] < 0.1


def test_a_tflite_file_that_differs_is_refused(exported: Any) -> None:
    images = pictures(1)
    before = reference(exported[0], images)
    moved = {name: maps + 0.01 for name, maps in before.items()}
    with pytest.raises(TrainError, match=r"TFLite differs from ONNX by 0\.01"):
        export._compare(moved, before, "fp32", "TFLite")


def test_tflite_follows_the_precisions_chosen() -> None:
    plan = export.Plan("tiny", "1", WIDTH, HEIGHT)
    assert plan.tflite_precisions == ("fp32", "int8")
    assert replace(plan, precisions=("fp32", "fp16")).tflite_precisions == ("fp32",)
    assert replace(plan, tflite=False).tflite_precisions == ()
