# SPDX-License-Identifier: Apache-2.0
"""Targets and loss of the pose_proposal algorithm against the encoder and plain loops in NumPy."""

from __future__ import annotations

import math
from itertools import product
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops
from numpy.typing import NDArray
from posewire.trainer.algorithms.pose_proposal import START, PoseProposal, ShareOfInput
from posewire.trainer.errors import TrainError

from posewire.encode import encoder
from posewire.skeleton import Skeleton, load_skeleton

COCO = load_skeleton("coco17")
S3 = Skeleton("s3", ("a", "b", "c"), ((0, 1), (2, 1)), (0, 2, 1), (0.1, 0.1, 0.1))
H, W = 5, 7  # cells
Floats = NDArray[np.float32]
KINDS = ("conf", "iou", "x", "y", "w", "h")


def crowd(skeleton: Skeleton, seed: int, count: int = 5) -> Floats:
    """[2, P, K, 3]: people of all sizes who share cells; some keypoints are unknown, cut away or
    outside of the picture."""
    rng = np.random.default_rng(seed)
    centres = rng.uniform(0, (32 * W, 32 * H), (2, count, 1, 2))
    size = rng.uniform(4, 90, (2, count, 1, 1))
    points = centres + size * rng.uniform(-1, 1, (2, count, skeleton.count, 2))
    visibility = rng.choice([2, 2, 2, 1, 0, -1], (2, count, skeleton.count, 1))
    return np.concatenate([points, visibility], axis=-1).astype(np.float32)


def labels(keypoints: Any, boxes: Any = None, mask: Any = None) -> dict[str, Any]:
    keypoints = np.float32(keypoints)
    if boxes is None:
        boxes = np.tile(np.float32([0, 0, -1, -1]), (*keypoints.shape[:2], 1))
    blank = np.ones((len(keypoints), 4 * H, 4 * W), np.float32)
    return {
        "keypoints": ops.convert_to_tensor(keypoints),
        "boxes": ops.convert_to_tensor(np.float32(boxes)),
        "mask": ops.convert_to_tensor(blank if mask is None else np.float32(mask)),
    }


def algorithm(skeleton: Skeleton = S3, **options: Any) -> PoseProposal:
    return PoseProposal.from_options(skeleton, options)


def arrays(maps: Any) -> dict[str, Floats]:
    return {name: ops.convert_to_numpy(value) for name, value in maps.items()}


@pytest.mark.parametrize(("skeleton", "seed"), [(S3, 0), (S3, 1), (COCO, 2), (COCO, 3)])
def test_targets_are_the_encoders(skeleton: Skeleton, seed: int) -> None:
    people = crowd(skeleton, seed)
    found = arrays(algorithm(skeleton).targets(labels(people)))
    edges = 0.0
    for picture, one in enumerate(people):
        expected = encoder("pose_proposal").render(np.float64(one), skeleton, 32 * W, 32 * H)
        edges += expected["edges"].sum()
        for name, maps in expected.items():
            np.testing.assert_allclose(
                np.moveaxis(found[name][picture], -1, 0), maps, atol=1e-5, err_msg=name
            )
    assert edges > 1


def test_a_larger_box_than_the_known_keypoints_is_the_persons() -> None:
    keypoints = [[[[40, 40, 2], [44, 50, 2], [0, 0, 0]]]]
    small, large = (
        arrays(algorithm().targets(labels(keypoints, [[box]])))
        for box in ([40, 40, 44, 50], [30, 30, 70, 130])
    )
    assert small["w"][0, 1, 1, 0] == pytest.approx(12 / 8 / (32 * W))
    assert large["w"][0, 1, 1, 0] == pytest.approx(100 / 8 / (32 * W))
    assert large["h"][0, 1, 1, 3] == pytest.approx(100 / 4 / (32 * H))


def test_a_limb_further_than_four_cells_has_no_edge() -> None:
    skeleton = Skeleton("s2", ("a", "b"), ((0, 1),), (0, 1), (0.1, 0.1))
    for cells, count in ((4, 1), (5, 0)):
        keypoints = [[[[16, 16, 2], [16 + 32 * cells, 16, 2]]]]
        edges = arrays(algorithm(skeleton).targets(labels(keypoints)))["edges"]
        assert edges.sum() == count
        if count:
            assert edges[0, 0, 0, 9 * 4 + 4 + cells] == 1


def test_the_sheet_shows_edges_only_where_their_limb_begins() -> None:
    network = algorithm()
    maps = arrays(network.targets(labels(np.zeros((1, 1, 3, 3)))))
    maps["edges"] = np.ones_like(maps["edges"])
    maps["conf"][0, 1, 2] = (0.2, 1, 0.6, 0)  # the limbs begin in a and c, they end in b
    edges = network.look(maps)[2]
    assert edges[0, 1, 2] == pytest.approx(0.6)
    assert edges.sum() == edges[0, 1, 2]


def reference_edge_weight(present: Floats, known: Floats, skeleton: Skeleton) -> Floats:
    """[h, w, K + 1] each -> [h, w, 81L]."""
    weight = np.zeros((H, W, 81 * len(skeleton.limbs)), np.float32)
    for row, column, limb in np.ndindex(H, W, len(skeleton.limbs)):
        a, b = skeleton.limbs[limb]
        for dy, dx in product(range(-4, 5), repeat=2):
            y, x = row + dy, column + dx
            if 0 <= y < H and 0 <= x < W:
                channel = 81 * limb + 9 * (dy + 4) + dx + 4
                counts = max(present[row, column, a], present[y, x, b])
                weight[row, column, channel] = counts * known[row, column, a] * known[y, x, b]
    return weight


def boxes_of(keypoints: Floats) -> Floats:
    return np.concatenate([keypoints[..., :2].min(axis=2), keypoints[..., :2].max(axis=2)], -1)


def test_edges_count_where_either_end_is_and_both_are_known() -> None:
    keypoints = crowd(COCO, 5, 3)
    mask = np.ones((2, 4 * H, 4 * W), np.float32)
    mask[:, :, 9:12] = 0  # of the third column a strip is not known: so is the column
    targets = algorithm(COCO).rendered(labels(keypoints, boxes_of(keypoints), mask))
    known, present = ops.convert_to_numpy(targets.known), arrays(targets.maps)["conf"]
    np.testing.assert_array_equal(known[:, :, 2], present[:, :, 2])
    assert 0.2 < known.mean() < 0.8
    for picture in range(2):
        expected = reference_edge_weight(present[picture], known[picture], COCO)
        assert expected.sum() > 100
        np.testing.assert_array_equal(ops.convert_to_numpy(targets.edge_weight)[picture], expected)


def test_unknown_keypoints_are_masked_in_their_persons_box_only() -> None:
    keypoints = [
        [[[40, 40, 2], [0, 0, 0], [44, 60, 2]], [[200, 20, 2], [210, 60, 2], [200, 90, 2]]]
    ]
    boxes = [[[34, 34, 60, 62], [190, 10, 215, 100]]]
    known = ops.convert_to_numpy(
        algorithm(box_margin=0.0).rendered(labels(keypoints, boxes)).known
    )[0]
    expected = np.ones((H, W))
    expected[0:3, 0:3] = 0  # grown by a cell: 2 to 92 x 94, centres 15.5, 47.5, 79.5
    for kind in range(4):
        np.testing.assert_array_equal(known[..., kind], expected if kind == 1 else 1)
    # Nobody knows where somebody is of whom only the box is labelled.
    keypoints[0][0] = [[0, 0, 0]] * 3
    known = ops.convert_to_numpy(
        algorithm(box_margin=0.0).rendered(labels(keypoints, boxes)).known
    )[0]
    for kind in range(4):
        np.testing.assert_array_equal(known[..., kind], expected)


def overlap(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    """Of boxes x, y, w, h."""
    common, areas = 1.0, one[2] * one[3] + other[2] * other[3]
    for axis in range(2):
        least = max(box[axis] - box[axis + 2] / 2 for box in (one, other))
        most = min(box[axis] + box[axis + 2] / 2 for box in (one, other))
        common *= max(0.0, most - least)
    return common / (areas - common)


def reference_loss(targets: Any, maps: dict[str, Floats]) -> dict[str, float]:
    true, known = arrays(targets.maps), ops.convert_to_numpy(targets.known)
    edge_weight = ops.convert_to_numpy(targets.edge_weight)
    result = dict.fromkeys(START, 0.0)
    for at in np.ndindex(*known.shape):
        result["conf"] += 0.25 * known[at] * (maps["conf"][at] - true["conf"][at]) ** 2
        if not true["conf"][at]:
            continue
        boxes = [
            (one["x"][at] * 32, one["y"][at] * 32, one["w"][at] * 32 * W, one["h"][at] * 32 * H)
            for one in (true, maps)
        ]
        result["iou"] += (maps["iou"][at] - overlap(*boxes)) ** 2
        for name in ("x", "y"):
            result[name] += 5 * (maps[name][at] - true[name][at]) ** 2
        for name in ("w", "h"):
            result[name] += 5 * (math.sqrt(maps[name][at]) - math.sqrt(true[name][at])) ** 2
    error = edge_weight * (maps["edges"] - true["edges"]) ** 2
    result["edges"] = 0.5 * float(error.sum())
    return {name: value / len(known) for name, value in result.items()}


def test_the_loss_is_the_definition() -> None:
    network = algorithm()
    keypoints = crowd(S3, 6)
    given = labels(keypoints, boxes_of(keypoints))
    targets = network.rendered(given)
    rng = np.random.default_rng(0)
    maps = {
        name: np.clip(value + rng.normal(0, 0.1, value.shape), 0.01, 0.99).astype(np.float32)
        for name, value in arrays(targets.maps).items()
    }
    maps["iou"] = rng.uniform(0, 1, maps["iou"].shape).astype(np.float32)
    stage = {name: ops.convert_to_tensor(value) for name, value in maps.items()}
    result = {name: float(v) for name, v in network.loss(given, [stage], None).items()}
    for name, value in reference_loss(targets, maps).items():
        assert result[name] == pytest.approx(value, rel=1e-3), name
        assert value > 0
    assert result["loss"] == pytest.approx(sum(result[name] for name in START), rel=1e-5)


def test_the_truth_loses_nothing() -> None:
    network = algorithm()
    keypoints = crowd(S3, 7)
    given = labels(keypoints, boxes_of(keypoints))
    result = network.loss(given, [network.targets(given)], None)
    assert float(result["loss"]) == pytest.approx(0, abs=1e-6)


def test_the_overlap_that_iou_learns_moves_no_box() -> None:
    """Only place and size errors do: a box that is right but for its iou has no slope."""
    keypoints = crowd(S3, 8)
    given = labels(keypoints)
    network = algorithm(place_weight=0.0, size_weight=0.0, conf_weight=0.0, edge_weight=0.0)
    maps = arrays(network.targets(given))

    class Learner(keras.Model):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.free = {
                name: self.add_weight(shape=value.shape, initializer="zeros", name=name)
                for name, value in maps.items()
            }

        def call(self, x: Any) -> Any:
            return {name: value + 0.0 * ops.sum(x) for name, value in self.free.items()}

        def compute_loss(
            self,
            x: Any = None,
            y: Any = None,
            y_pred: Any = None,
            sample_weight: Any = None,
            training: bool = True,
        ) -> Any:
            return network.loss(y, [y_pred], None)["loss"]

    learner = Learner()
    for name, value in maps.items():
        learner.free[name].assign(value * 0.9)
    learner.compile(optimizer=keras.optimizers.SGD(0.1), jit_compile=False)
    learner.train_on_batch(np.zeros((2, 1), np.float32), given)
    after = {name: ops.convert_to_numpy(value) for name, value in learner.free.items()}
    for name, value in after.items():
        assert np.isfinite(value).all()
        moved = not np.allclose(value, maps[name] * np.float32(0.9), atol=1e-6)
        assert moved == (name == "iou"), name


def test_the_head_begins_with_its_shares_and_sizes_follow_the_picture() -> None:
    network = algorithm(width=8, blocks=0)
    features = {32: keras.Input((None, None, 4))}
    (stage,) = network.head(features, (32 * W, 32 * H))
    model = keras.Model(features[32], stage)
    trained = model(np.zeros((1, H, W, 4), np.float32))
    larger = model(np.zeros((1, 2 * H, 3 * W, 4), np.float32))
    for name, share in START.items():
        assert float(trained[name][0, 0, 0, 0]) == pytest.approx(share, rel=1e-3)
        shrunk = {"w": 3, "h": 2}.get(name, 1)  # the same pixels, of so many times the input
        assert float(larger[name][0, 0, 0, 0]) == pytest.approx(share / shrunk, rel=1e-3)
    layer = ShareOfInput(96, 1)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    assert float(again(ops.ones((1, 6, 2, 1)))[0, 0, 0, 0]) == pytest.approx(0.5)


def test_options_are_checked_and_outputs_follow_the_skeleton() -> None:
    outputs = {spec.name: (spec.channels, spec.stride) for spec in algorithm().outputs}
    assert outputs == {**dict.fromkeys(KINDS, (4, 32)), "edges": (162, 32)}
    assert algorithm().decode_parameters() == {"algorithm": "pose_proposal"}
    with pytest.raises(TrainError, match=r"model\.algorithm_options\.lambda: unknown key"):
        algorithm(**{"lambda": 1})
