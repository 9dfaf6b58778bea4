# SPDX-License-Identifier: Apache-2.0
"""The contract of every row of the table of algorithms, exported; a new row needs no new test here.

A small untrained network becomes a bundle that verifies, ONNX Runtime computes what Keras does, and
the engine's decoder opens the manifest and reads the outputs.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from posewire.bundle import verify_bundle
from posewire.decode import Decoder

keras = pytest.importorskip("keras")
pytest.importorskip("tf2onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("posewire._core", reason="the engine's Python module is not built")

from posewire.trainer import export, export_onnx  # noqa: E402
from posewire.trainer.algorithms import ALGORITHMS  # noqa: E402
from posewire.trainer.config import parse_config  # noqa: E402
from posewire.trainer.model import build_network  # noqa: E402

CONFIG = """
name = "row"
[input]
width = 96
height = 128
[model]
algorithm = "{name}"
backbone = "mobilenetv1"
alpha = 0.25
[training.schedule]
steps = 1
[[dataset]]
name = "nothing"
annotations = "none.json"
images = "none"
"""
WIDTH, HEIGHT = 96, 128
pytestmark = pytest.mark.timeout(900)  # TensorFlow on a busy machine


@pytest.mark.parametrize("name", sorted(ALGORITHMS))
def test_a_network_is_exported_and_its_outputs_are_decoded(
    name: str, tmp_path: Path, enliven: Callable[[Any], None]
) -> None:
    if keras.backend.backend() != "tensorflow":
        pytest.skip("exporting is TensorFlow's; this session runs another backend")
    keras.utils.set_random_seed(3)
    network = build_network(parse_config(CONFIG.format(name=name), "config.toml"), tmp_path)
    nested = [layer for layer in network.keras.layers if isinstance(layer, keras.Model)]
    for model in (network.keras, *nested):
        enliven(model)
    only = {"precisions": ("fp32",), "tflite": False, "uff": False}
    plan = export.Plan(
        "row", "0.0.1", WIDTH, HEIGHT, **only, parity_pictures=1, selftest_pictures=1
    )
    folder = tmp_path / "bundle"
    export.export_network(network, folder, plan)

    manifest = verify_bundle(folder)
    specs = network.algorithm.outputs
    assert manifest.decode["algorithm"] == name
    assert [output.name for output in manifest.outputs] == [spec.name for spec in specs]

    rng = np.random.default_rng(1)
    pictures = rng.integers(0, 256, (2, HEIGHT, WIDTH, 3)).astype(np.uint8)
    expected = network.inference().predict_on_batch(pictures.astype(np.float32))
    running = export_onnx.session((folder / "model.onnx").read_bytes())
    found = export_onnx.run_onnx(running, pictures)
    assert set(found) == {spec.name for spec in specs}
    for spec in specs:
        channels_first = np.moveaxis(expected[spec.name], -1, 1)
        assert found[spec.name].shape == (2, *spec.shape(WIDTH, HEIGHT))
        assert channels_first.std() > 1e-3  # something to compare
        np.testing.assert_allclose(
            found[spec.name], channels_first, rtol=1e-4, atol=export.PARITY_LIMIT
        )

    decoder = Decoder(json.loads((folder / "manifest.json").read_text()))
    for i in range(len(pictures)):
        poses = decoder.decode({spec: values[i] for spec, values in found.items()})
        assert poses.keypoints.shape == (len(poses.scores), network.skeleton.count, 3)
        assert np.isfinite(poses.keypoints).all()
