# SPDX-License-Identifier: Apache-2.0
"""One small untrained network, exported once for all tests here."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

CONFIG = """
name = "tiny"
skeleton = "coco17"

[input]
width = 128
height = 96

[model]
backbone = "mobilenetv1"
alpha = 0.25

[model.algorithm_options]
width = 16
initial_blocks = 1
refinement_blocks = 1

[training]

[training.schedule]
steps = 1

[[dataset]]
name = "nothing"
annotations = "none.json"
images = "none"
"""
WIDTH, HEIGHT = 128, 96


def _enliven(model: Any) -> None:
    """Weights of a size at which signals neither die out nor grow.

    The first weights let a signal die out in so many depthwise layers, down to steps of 1e-9 that
    no INT8 kernel takes; and heads that are all but zero (layers.output) hide differences.
    """
    for layer in model.layers:
        if hasattr(layer, "kernel"):
            kernel, *rest = layer.get_weights()
            depthwise = layer.__class__.__name__ == "DepthwiseConv2D"
            inputs = math.prod(kernel.shape[: 2 if depthwise else -1])
            head = kernel.std() < 0.01
            kernel *= (0.3 if head else 1.4) / (inputs**0.5 * kernel.std())
            layer.set_weights([kernel, *rest])


@pytest.fixture(scope="session")
def enliven() -> Callable[[Any], None]:
    """The function above."""
    return _enliven


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run directory as the trainer leaves it: configuration and averaged weights."""
    keras = pytest.importorskip("keras")
    if keras.backend.backend() != "tensorflow":
        pytest.skip("exporting is TensorFlow's; this session runs another backend")
    from posewire.trainer.config import parse_config
    from posewire.trainer.model import build_network

    folder = tmp_path_factory.mktemp("run")
    (folder / "config.toml").write_text(CONFIG, encoding="utf-8")
    keras.utils.set_random_seed(7)
    network = build_network(parse_config(CONFIG, "config.toml"), folder)
    _enliven(network.keras)
    network.keras.save_weights(str(folder / "network.weights.h5"))
    return folder


@pytest.fixture(scope="session")
def exported(run_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """(bundle directory, network, lines that were said)."""
    from posewire.trainer.checkpoint import load_run
    from posewire.trainer.export import Plan, export_network

    _, network = load_run(run_folder)
    plan = Plan(
        "tiny",
        "0.0.1",
        WIDTH,
        HEIGHT,
        calibration_pictures=4,
        parity_pictures=2,
        selftest_pictures=2,
    )
    out = tmp_path_factory.mktemp("export") / "bundle"
    said: list[str] = []
    export_network(network, out, plan, say=said.append)
    return out, network, said
