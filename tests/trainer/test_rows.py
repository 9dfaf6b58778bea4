# SPDX-License-Identifier: Apache-2.0
"""The contract of every row of the table of algorithms; a new row needs no new test here.

Targets are what posewire.encode renders, the engine's decoder finds the people in them, the loss
prefers them to silence, the head has the outputs it names, and a few steps on one batch learn.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras import ops
from numpy.typing import NDArray
from posewire.trainer.algorithm import MASK_STRIDE, Algorithm
from posewire.trainer.algorithms import ALGORITHMS, make_algorithm
from posewire.trainer.evaluate import decoder_manifest

from posewire.decode import Decoder, Poses
from posewire.encode import encoder
from posewire.skeleton import load_skeleton

pytest.importorskip("posewire._core", reason="the engine's Python module is not built")

SKELETON = load_skeleton("coco17")
WIDTH, HEIGHT = 192, 256
STEPS = 15
rows = pytest.mark.parametrize("name", sorted(ALGORITHMS))


def figure(left: float, top: float, height: float) -> NDArray[np.float32]:
    """A standing coco17 person, keypoints off the cell centres."""
    xs = [0, 1, -1, 2, -2, 4, -4, 6, -6, 7, -7, 3, -3, 3.5, -3.5, 4, -4]
    ys = [2, 1, 1, 1.5, 1.5, 5, 5, 9, 9, 13, 13, 13, 13, 18.5, 18.5, 24, 24]
    points = np.stack([left + np.array(xs) * height / 25, top + np.array(ys) * height / 25], -1)
    return np.concatenate([points, np.full((17, 1), 2.0)], axis=1).astype(np.float32)


def crowd(algorithm: Algorithm) -> NDArray[np.float32]:
    """[P, 17, 3]: two people side by side, one for a network that sees one."""
    if algorithm.mode == "top_down":
        return figure(97.3, 22.1, 210.0)[None]
    return np.stack([figure(48.3, 40.1, 130.0), figure(143.9, 61.7, 120.0)])


def labels_of(*pictures: NDArray[np.float32]) -> dict[str, Any]:
    """The labels of a batch, one [P, 17, 3] a picture."""
    points = np.stack(pictures)
    boxes = np.concatenate([points[..., :2].min(axis=2), points[..., :2].max(axis=2)], axis=-1)
    mask = np.ones((len(points), HEIGHT // MASK_STRIDE, WIDTH // MASK_STRIDE), np.float32)
    return {
        "keypoints": ops.convert_to_tensor(points),
        "boxes": ops.convert_to_tensor(boxes),
        "mask": ops.convert_to_tensor(mask),
    }


def with_padding(labels: dict[str, Any]) -> dict[str, Any]:
    """The same people and as many padding ones."""
    keypoints, boxes = labels["keypoints"], labels["boxes"]
    nobody = ops.convert_to_tensor(np.float32([0, 0, -1, -1])) + ops.zeros_like(boxes)
    return {
        **labels,
        "keypoints": ops.concatenate([keypoints, ops.zeros_like(keypoints)], 1),
        "boxes": ops.concatenate([boxes, nobody], 1),
    }


def arrays(maps: Any) -> dict[str, NDArray[np.float32]]:
    return {name: ops.convert_to_numpy(value) for name, value in maps.items()}


def decoded(algorithm: Algorithm, maps: dict[str, NDArray[np.float32]]) -> Poses:
    manifest = decoder_manifest("test", SKELETON, algorithm, WIDTH, HEIGHT)
    return Decoder(manifest).decode({name: value[0] for name, value in maps.items()})


def channels_last(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (*shape[1:], shape[0])


@rows
def test_rendered_people_are_decoded_where_they_are(name: str) -> None:
    algorithm = make_algorithm(name, SKELETON, {})
    people = crowd(algorithm)
    poses = decoded(algorithm, arrays(algorithm.targets(labels_of(people))))
    assert len(poses.scores) == len(people)
    found = poses.keypoints[np.argsort(poses.keypoints[:, 0, 0])]
    assert (found[..., 2] > 0.5).all()
    distance = np.linalg.norm(found[..., :2] - people[..., :2], axis=-1)
    cell = encoder(name).cell_px
    assert distance.max() < 0.35 * cell
    assert np.abs((found[..., :2] - people[..., :2]).mean(axis=(0, 1))).max() < 0.07 * cell


@rows
def test_shapes_are_the_manifests(name: str) -> None:
    algorithm = make_algorithm(name, SKELETON, {})
    targets = algorithm.targets(labels_of(crowd(algorithm)))
    assert list(targets) == [spec.name for spec in algorithm.outputs]
    features = {
        stride: keras.Input((HEIGHT // stride, WIDTH // stride, 2 * stride))
        for stride in (4, 8, 16, 32)
    }
    stages = algorithm.head(features, (WIDTH, HEIGHT))
    for spec in algorithm.outputs:
        wanted = channels_last(spec.shape(WIDTH, HEIGHT))
        assert tuple(targets[spec.name].shape[1:]) == wanted, spec.name
        for stage in stages:
            assert tuple(stage[spec.name].shape[1:]) == wanted, spec.name
    pictures = algorithm.look(arrays(targets))
    assert all(one.ndim == 3 and 0 <= one.min() <= one.max() <= 1 + 1e-6 for one in pictures)
    assert all(one.max() > 0.5 for one in pictures)


@rows
def test_any_number_of_people_is_rendered(name: str) -> None:
    """It changes from batch to batch, and then a compiled step does not know it."""
    algorithm = make_algorithm(name, SKELETON, {})

    class Rendering(keras.layers.Layer):  # type: ignore[misc]
        def call(self, labels: Any) -> Any:
            return algorithm.targets(labels)

    given = labels_of(crowd(algorithm))
    inputs = {
        key: keras.Input(batch_shape=(1, None, *value.shape[2:]) if key != "mask" else value.shape)
        for key, value in given.items()
    }
    rendering = keras.Model(inputs, Rendering()(inputs))
    for labels in (given, with_padding(given)):
        found, expected = arrays(rendering(labels)), arrays(algorithm.targets(labels))
        for output, value in expected.items():
            np.testing.assert_allclose(found[output], value, atol=1e-6)


@rows
def test_the_loss_prefers_the_truth(name: str) -> None:
    algorithm = make_algorithm(name, SKELETON, {})
    labels = labels_of(crowd(algorithm), crowd(algorithm) + np.float32([3, 2, 0]))
    targets = algorithm.targets(labels)
    silent = {key: ops.zeros_like(value) for key, value in targets.items()}
    truth, silence = (
        {key: float(value) for key, value in algorithm.loss(labels, [maps], None).items()}
        for maps in (targets, silent)
    )
    outputs = {spec.name for spec in algorithm.outputs}
    assert set(truth) == {"loss"} | outputs | {f"{output}_zero" for output in outputs}
    assert all(np.isfinite([*truth.values(), *silence.values()]))
    assert truth["loss"] < 0.5 * silence["loss"]


@rows
def test_nobody_and_padding_people_are_finite_and_add_nothing(name: str) -> None:
    algorithm = make_algorithm(name, SKELETON, {})
    people = crowd(algorithm)
    labels = labels_of(people)
    padded = with_padding(labels)
    alone, more = (arrays(algorithm.targets(one)) for one in (labels, padded))
    for output in alone:
        np.testing.assert_allclose(more[output], alone[output], atol=1e-5)
    nobody = dict(labels_of(np.zeros_like(people)))
    nobody["boxes"] = ops.convert_to_tensor(np.float32([[[0, 0, -1, -1]] * len(people)]))
    targets = algorithm.targets(nobody)
    assert len(decoded(algorithm, arrays(targets)).scores) == 0
    for given in (padded, nobody):
        values = algorithm.loss(given, [targets], None)
        assert np.isfinite([float(value) for value in values.values()]).all()


@rows
def test_a_few_steps_learn_one_batch(name: str) -> None:
    """A head on fixed random features learns to say where two pictures' people are."""
    keras.utils.set_random_seed(5)
    algorithm = make_algorithm(name, SKELETON, {})
    labels = labels_of(crowd(algorithm), crowd(algorithm) + np.float32([5, 3, 0]))
    rng = np.random.default_rng(2)
    features = {
        stride: rng.normal(size=(2, HEIGHT // stride, WIDTH // stride, 32)).astype(np.float32)
        for stride in (4, 8, 16, 32)
    }
    inputs = {stride: keras.Input(value.shape[1:]) for stride, value in features.items()}
    head = keras.Model(list(inputs.values()), algorithm.head(inputs, (WIDTH, HEIGHT)))

    class Learner(keras.Model):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.head = head

        def call(self, x: Any, training: bool | None = None) -> Any:
            stages = self.head(x, training=training)
            return [stages] if isinstance(stages, dict) else stages

        def compute_loss(
            self,
            x: Any = None,
            y: Any = None,
            y_pred: Any = None,
            sample_weight: Any = None,
            training: bool = True,
        ) -> Any:
            return algorithm.loss(y, y_pred, None)["loss"]

    learner = Learner()
    learner.compile(optimizer=keras.optimizers.Adam(5e-3), jit_compile=False)
    given = list(features.values())
    losses = [float(learner.train_on_batch(given, labels)) for _ in range(STEPS)]
    assert np.isfinite(losses).all()
    assert np.mean(losses[-3:]) < 0.7 * losses[0]
