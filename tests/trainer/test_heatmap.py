# SPDX-License-Identifier: Apache-2.0
"""Top-down heatmaps: targets are the encoder's, the loss is the one that plain loops compute."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from keras import ops
from posewire.trainer.algorithms import make_algorithm
from posewire.trainer.errors import TrainError

from posewire.encode import encoder
from posewire.skeleton import load_skeleton

C17 = load_skeleton("coco17")
WIDTH, HEIGHT = 64, 96
ABSENT, CUT = 3, 5  # keypoints that are not labelled, and cut away


def crops(count: int) -> Any:
    """[B, 1, 17, 3] at random places, two keypoints of each unknown or cut away."""
    rng = np.random.default_rng(4)
    points = rng.uniform(2, (WIDTH - 3, HEIGHT - 3, 2), (count, 1, 17, 3)).astype(np.float32)
    points[..., 2] = 2
    points[:, :, ABSENT] = 0
    points[:, :, CUT] = (0, 0, -1)
    return points


def labels(points: Any, mask: Any = None) -> dict[str, Any]:
    if mask is None:
        mask = np.ones((len(points), HEIGHT // 8, WIDTH // 8), np.float32)
    boxes = np.tile(np.float32([0, 0, WIDTH - 1, HEIGHT - 1]), (len(points), points.shape[1], 1))
    values = {"keypoints": points, "boxes": boxes, "mask": mask}
    return {name: ops.convert_to_tensor(value) for name, value in values.items()}


def test_targets_are_the_encoders() -> None:
    points = crops(3)
    maps = ops.convert_to_numpy(
        make_algorithm("heatmap", C17, {}).targets(labels(points))["heatmaps"]
    )
    for one, people in zip(maps, points, strict=True):
        wanted = encoder("heatmap").render(people, C17, WIDTH, HEIGHT)["heatmaps"]
        np.testing.assert_allclose(np.moveaxis(one, -1, 0), wanted, atol=1e-5)
        assert wanted[ABSENT].max() == wanted[CUT].max() == 0


def test_the_loss_is_the_squared_error_of_what_is_known() -> None:
    algorithm = make_algorithm("heatmap", C17, {})
    points, rng = crops(2), np.random.default_rng(8)
    mask = (rng.random((2, HEIGHT // 8, WIDTH // 8)) < 0.7).astype(np.float32)
    given = rng.normal(size=(2, HEIGHT // 4, WIDTH // 4, 17)).astype(np.float32)
    result = algorithm.loss(labels(points, mask), [{"heatmaps": given}], None)
    error = silence = 0.0
    for b in range(2):
        target = encoder("heatmap").render(points[b], C17, WIDTH, HEIGHT)["heatmaps"]
        for k in range(17):
            for y in range(HEIGHT // 4):
                for x in range(WIDTH // 4):
                    if k == ABSENT or not mask[b, y // 2, x // 2]:
                        continue
                    error += (given[b, y, x, k] - target[k, y, x]) ** 2 / 2
                    silence += target[k, y, x] ** 2 / 2
    assert float(result["heatmaps"]) == pytest.approx(error, rel=1e-4)
    assert float(result["loss"]) == pytest.approx(error, rel=1e-4)
    assert float(result["heatmaps_zero"]) == pytest.approx(silence, rel=1e-4)


def test_an_unknown_option_is_named() -> None:
    with pytest.raises(TrainError, match=r"model\.algorithm_options\.bolcks: unknown key"):
        make_algorithm("heatmap", C17, {"bolcks": 1})
