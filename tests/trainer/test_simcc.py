# SPDX-License-Identifier: Apache-2.0
"""SimCC: targets are the encoder's, the loss is RTMPose's, and scores tell present from absent."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras import ops
from numpy.typing import NDArray
from posewire.trainer.algorithms import make_algorithm
from posewire.trainer.errors import TrainError
from posewire.trainer.evaluate import decoder_manifest

from posewire.decode import Decoder
from posewire.encode import encoder
from posewire.skeleton import load_skeleton

C17 = load_skeleton("coco17")
WIDTH, HEIGHT = 64, 96
ABSENT, CUT, MASKED = 3, 5, 7


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
    rows = make_algorithm("simcc", C17, {}).targets(labels(points))
    for b, people in enumerate(points):
        wanted = encoder("simcc").render(people, C17, WIDTH, HEIGHT)
        for name, row in wanted.items():
            found = ops.convert_to_numpy(rows[name])[b].T
            np.testing.assert_allclose(found, row, atol=1e-5)
            assert row[ABSENT].max() == row[CUT].max() == 0


def softmax(values: NDArray[Any]) -> NDArray[Any]:
    powers: NDArray[Any] = np.exp(values - values.max())
    return powers / powers.sum()


def test_the_loss_is_rtmposes_and_settles_the_level() -> None:
    algorithm = make_algorithm("simcc", C17, {"level_weight": 0.5})
    points, rng = crops(2), np.random.default_rng(8)
    points[:, :, MASKED, :2] = (20.0, 41.0)
    mask = np.ones((2, HEIGHT // 8, WIDTH // 8), np.float32)
    mask[:, 5, 2] = 0
    others = np.all(points[..., :2] // 8 == (2, 5), axis=-1)
    assert others.sum() == 2  # nobody else stands there
    given = {
        "simcc_x": rng.normal(size=(2, 2 * WIDTH, 17)).astype(np.float32),
        "simcc_y": rng.normal(size=(2, 2 * HEIGHT, 17)).astype(np.float32),
    }
    result = algorithm.loss(labels(points, mask), [given], None)
    total = 0.0
    for name, rows in given.items():
        error = silence = 0.0
        for b in range(2):
            target = encoder("simcc").render(points[b], C17, WIDTH, HEIGHT)[name].astype(float)
            for k in range(17):
                if k in (ABSENT, MASKED):
                    continue
                wanted = softmax(10 * target[k])
                for row, add in ((rows[b, :, k].astype(float), 1), (0 * target[k], 0)):
                    divergence = np.sum(wanted * np.log(wanted / softmax(10 * row)))
                    level = 10 * (row.mean() - target[k].mean())
                    term = (divergence + 0.5 * level**2) / 2
                    error, silence = error + add * term, silence + (1 - add) * term
        assert float(result[name]) == pytest.approx(error, rel=1e-4)
        assert float(result[f"{name}_zero"]) == pytest.approx(silence, rel=1e-4)
        total += error
    assert float(result["loss"]) == pytest.approx(total, rel=1e-4)


def test_what_minimises_the_loss_scores_presence() -> None:
    """Free rows of one crop, started anywhere: a keypoint that is there scores high, one that is
    cut away under the decoder's threshold; a divergence alone would leave either anywhere."""
    keras.utils.set_random_seed(3)
    algorithm = make_algorithm("simcc", C17, {})
    points = crops(1)
    truth = labels(points)
    variables = {
        spec.name: keras.Variable(2.0 + np.zeros((1, 2 * pixels, 17), np.float32), name=spec.name)
        for spec, pixels in zip(algorithm.outputs, (WIDTH, HEIGHT), strict=True)
    }

    class Rows(keras.Model):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            for name, variable in variables.items():
                setattr(self, name, variable)

        def call(self, x: Any) -> Any:
            return [{name: variable + 0.0 * ops.sum(x) for name, variable in variables.items()}]

        def compute_loss(
            self,
            x: Any = None,
            y: Any = None,
            y_pred: Any = None,
            sample_weight: Any = None,
            training: bool = True,
        ) -> Any:
            return algorithm.loss(y, y_pred, None)["loss"]

    model = Rows()
    model.compile(optimizer=keras.optimizers.Adam(0.02), jit_compile=False)
    for _ in range(200):
        model.train_on_batch(np.zeros((1, 1), np.float32), truth)
    manifest = decoder_manifest("test", C17, algorithm, WIDTH, HEIGHT)
    rows = {name: ops.convert_to_numpy(value)[0] for name, value in variables.items()}
    scores = Decoder(manifest).decode(rows).keypoints[0, :, 2]
    there = points[0, 0, :, 2] > 0
    assert scores[there].min() > 0.6
    assert scores[CUT] == 0


def test_an_unknown_option_is_named() -> None:
    with pytest.raises(TrainError, match=r"model\.algorithm_options\.beta: Input should be"):
        make_algorithm("simcc", C17, {"beta": 0.0})
