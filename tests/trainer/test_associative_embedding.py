# SPDX-License-Identifier: Apache-2.0
"""Targets and loss of associative embedding against the encoder and plain loops in NumPy."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops
from numpy.typing import NDArray
from posewire.trainer.algorithms.associative_embedding import (
    AssociativeEmbedding,
    pull_and_push,
)
from posewire.trainer.errors import TrainError
from posewire.trainer.evaluate import decoder_manifest

from posewire.encode import draw_people
from posewire.encode.associative_embedding import ENCODER, FINE
from posewire.skeleton import load_skeleton

SKELETON = load_skeleton("coco17")
K = SKELETON.count
WIDTH, HEIGHT = 96, 64


def algorithm(**options: Any) -> AssociativeEmbedding:
    return AssociativeEmbedding.from_options(SKELETON, options)


def crowd(seed: int, count: int = 4, width: int = WIDTH, height: int = HEIGHT) -> Any:
    """[count, K, 3] in and around the picture, some unknown and some cut away."""
    rng = np.random.default_rng(seed)
    points = rng.uniform(-8, (width + 8, height + 8, 1), (count, K, 3)).astype(np.float32)
    points[..., 2] = rng.choice([0, 2, 2, 2, -1], (count, K))
    return points


def labels_of(pictures: Any, boxes: Any = None, mask: Any = None) -> dict[str, Any]:
    keypoints = np.float32(pictures)
    if boxes is None:
        boxes = np.broadcast_to(np.float32([0, 0, WIDTH, HEIGHT]), (*keypoints.shape[:2], 4))
    if mask is None:
        mask = np.ones((len(keypoints), HEIGHT // 8, WIDTH // 8))
    return {
        "keypoints": ops.convert_to_tensor(keypoints),
        "boxes": ops.convert_to_tensor(np.float32(boxes)),
        "mask": ops.convert_to_tensor(np.float32(mask)),
    }


def numpy(values: Any) -> NDArray[np.float32]:
    return np.asarray(ops.convert_to_numpy(values))


@pytest.mark.parametrize("fine", [False, True])
def test_targets_are_the_encoders(fine: bool) -> None:
    pictures = np.stack([crowd(0), crowd(1)])
    found = algorithm(fine=fine).targets(labels_of(pictures))
    encoder = FINE if fine else ENCODER
    names = [entry["name"] for entry in encoder.outputs(SKELETON, WIDTH, HEIGHT)]
    assert list(found) == names
    for b, people in enumerate(pictures):
        wanted = encoder.render(people.astype(np.float64), SKELETON, WIDTH, HEIGHT)
        for name in set(names) - {"tags"}:
            np.testing.assert_allclose(
                numpy(found[name])[b].transpose(2, 0, 1), wanted[name], atol=1e-5
            )
        # float32 and float64 disagree on whose a cell is where two Gaussians are all but equal.
        same = np.isclose(numpy(found["tags"])[b].transpose(2, 0, 1), wanted["tags"], atol=1e-5)
        assert same.mean() > 0.999
        assert len(np.unique(wanted["tags"])) == len(people) + 1


def reference_pull_push(keypoints: Any, tags: Any) -> tuple[float, float]:
    """HigherHRNet's AELoss for one picture, where keypoints are read in their nearest cells."""
    means, pull = [], 0.0
    for person in keypoints:
        values = []
        for k, (x, y, v) in enumerate(person):
            column, row = math.floor((x + 0.5) / 4), math.floor((y + 0.5) / 4)
            if v > 0 and 0 <= column < WIDTH // 4 and 0 <= row < HEIGHT // 4:
                values.append(tags[row, column, k])
        if values:
            means.append(np.mean(values))
            pull += np.mean((np.array(values) - means[-1]) ** 2)
    push = sum(
        math.exp(-((a - b) ** 2))
        for i, a in enumerate(means)
        for j, b in enumerate(means)
        if i != j
    )
    count = len(means)
    return pull / max(count, 1), 0.5 * push / max(count * (count - 1), 1)


def test_pull_and_push_equal_the_definition() -> None:
    pictures = np.stack([crowd(seed) for seed in range(4)])
    pictures[2, 1:, :, 2] = 0  # one person
    pictures[3, ..., 2] = -1  # nobody
    tags = np.random.default_rng(9).normal(size=(4, HEIGHT // 4, WIDTH // 4, K)).astype(np.float32)
    found = [numpy(part) for part in pull_and_push(ops.convert_to_tensor(pictures), tags)]
    wanted = np.array([reference_pull_push(*one) for one in zip(pictures, tags, strict=True)])
    assert (wanted[:2] > 0.01).all()
    assert wanted[2, 1] == wanted[3].max() == 0
    np.testing.assert_allclose(np.stack(found, axis=-1), wanted, rtol=1e-4, atol=1e-6)


def test_the_tags_own_values_do_not_matter() -> None:
    """Any values do, in any order of people, so long as a person has one and others are apart."""
    people = algorithm().targets(labels_of(crowd(4)[None]))
    labels = labels_of(crowd(4)[None])

    def tags_loss(tags: Any) -> float:
        return float(algorithm().loss(labels, [{**people, "tags": tags}], None)["tags"])

    tags = people["tags"]
    assert tags_loss(tags) == pytest.approx(tags_loss(30.0 - tags), rel=1e-3)
    assert tags_loss(3.0 * tags) < 1e-3 * tags_loss(ops.zeros_like(tags))
    assert tags_loss(0.1 * tags) > 0.5 * tags_loss(ops.zeros_like(tags))


def test_tags_learn_from_their_own_cells_alone() -> None:
    """The gradient is finite, also of a picture without people, and 0 elsewhere."""
    if keras.backend.backend() != "tensorflow":
        pytest.skip("differentiates with TensorFlow")
    import tensorflow as tf

    pictures = np.stack([crowd(0, 2), crowd(1, 2)])
    pictures[1, ..., 2] = 0
    tags = tf.Variable(tf.zeros((2, HEIGHT // 4, WIDTH // 4, K)))
    with tf.GradientTape() as tape:
        tape.watch(tags)
        pull, push = pull_and_push(tf.constant(pictures), tags + 0.01 * tf.range(float(K)))
        loss = tf.reduce_sum(pull + push)
    gradient = numpy(tape.gradient(loss, tags))
    assert np.isfinite(gradient).all()
    assert not gradient[1].any()
    known = pictures[0][pictures[0][..., 2] > 0]
    assert 10 < np.count_nonzero(gradient[0]) <= len(known)


def test_what_is_unknown_costs_nothing() -> None:
    """A keypoint that a person lacks is free in that person's box; so is all outside the mask."""
    person = np.zeros((1, 1, K, 3), np.float32)
    person[0, 0] = (20, 20, 2)
    person[0, 0, 1] = 0, 0, 0  # unknown
    person[0, 0, 2] = 0, 0, -1  # cut away: not in this picture
    mask = np.ones((1, HEIGHT // 8, WIDTH // 8))
    mask[0, :, 9:] = 0  # right of pixel 72
    labels = labels_of(person, [[[12, 12, 28, 28]]], mask)
    row = algorithm(fine=True, box_margin=0.0)
    truth = row.targets(labels)
    for name, stride in (("heatmaps", 4), ("heatmaps_2", 2)):

        def cost(x: int, y: int, k: int, name: str = name, stride: int = stride) -> float:
            maps = numpy(truth[name]).copy()
            maps[0, y // stride, x // stride, k] += 1.0
            return float(row.loss(labels, [{**truth, name: maps}], None)[name])

        assert cost(20, 20, 1) == cost(80, 20, 0) == 0.0
        assert [cost(60, 60, 1), cost(20, 20, 2), cost(60, 60, 0)] == pytest.approx([1.0] * 3)
        # Where a keypoint is drawn an error counts by how much of it is.
        assert cost(20, 20, 0) == pytest.approx(1 + 4 * numpy(truth[name]).max(), rel=1e-4)


def test_rendered_people_are_decoded_at_either_resolution() -> None:
    core = pytest.importorskip("posewire.decode", reason="the engine's module is not built")
    width, height = 256, 192
    people = draw_people(SKELETON, width, height, 2, 110.0, np.random.default_rng(3))
    assert len(people) == 2
    keypoints = people[None].astype(np.float32)
    boxes = np.zeros((1, len(people), 4))
    labels = labels_of(keypoints, boxes, np.ones((1, height // 8, width // 8)))
    for fine in (False, True):
        row = algorithm(fine=fine)
        maps = {name: numpy(value)[0] for name, value in row.targets(labels).items()}
        poses = core.Decoder(decoder_manifest("test", SKELETON, row, width, height)).decode(maps)
        assert len(poses.scores) == len(people)
        for found in poses.keypoints:
            gaps = np.linalg.norm(people[..., :2] - found[:, :2], axis=-1)
            assert (found[:, 2] > 0.5).all()
            assert gaps.max(axis=1).min() < (0.05 if fine else 0.1)


def test_options_are_checked_and_a_picture_of_tags_is_within_0_and_1() -> None:
    with pytest.raises(TrainError, match=r"model\.algorithm_options\.fines: unknown key"):
        algorithm(fines=True)
    rng = np.random.default_rng(0)
    heat = rng.uniform(0, 0.05, (2, 4, 5, K)).astype(np.float32)
    tags = rng.normal(0, 30, heat.shape).astype(np.float32)
    heat[0, 1, 1, 3], heat[0, 2, 2, 5] = 0.9, 1.3
    tags[0, 1, 1, 3], tags[0, 2, 2, 5] = -40, 70
    highest, picture = algorithm().look({"heatmaps": heat, "tags": tags})
    assert highest.max() == 1.0
    assert picture[0, 1, 1] == pytest.approx(0.3)
    assert picture[0, 2, 2] == 1.0
    assert np.count_nonzero(picture) == 2


def test_the_head_has_the_finer_output_too() -> None:
    features = {s: keras.Input((HEIGHT // s, WIDTH // s, 8)) for s in (4, 8, 16, 32)}
    row = algorithm(fine=True, width=8, blocks=1)
    (outputs,) = row.head(features, (WIDTH, HEIGHT))
    assert {name: tuple(value.shape[1:]) for name, value in outputs.items()} == {
        "heatmaps": (HEIGHT // 4, WIDTH // 4, K),
        "tags": (HEIGHT // 4, WIDTH // 4, K),
        "heatmaps_2": (HEIGHT // 2, WIDTH // 2, K),
    }
