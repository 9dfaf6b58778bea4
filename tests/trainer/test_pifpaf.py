# SPDX-License-Identifier: Apache-2.0
"""Targets and loss of the pifpaf algorithm against the encoder and plain loops in NumPy."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops
from numpy.typing import NDArray
from posewire.trainer.algorithms.pifpaf import (
    CompositeFields,
    PifPaf,
    focal_entropy,
    laplace,
    limb_owners,
)
from posewire.trainer.errors import TrainError

from posewire.encode import encoder
from posewire.skeleton import Skeleton, load_skeleton

COCO = load_skeleton("coco17")
S3 = Skeleton("s3", ("a", "b", "c"), ((0, 1), (2, 1)), (0, 2, 1), (0.1, 0.2, 0.3))
H, W = 12, 16  # cells
Floats = NDArray[np.float32]


def crowd(skeleton: Skeleton, seed: int, count: int = 5) -> Floats:
    """[2, P, K, 3]: people whose limbs cross and whose keypoints share cells; some keypoints are
    unknown, cut away or outside of the picture."""
    rng = np.random.default_rng(seed)
    centres = rng.uniform(0, (8 * W, 8 * H), (2, count, 1, 2))
    size = rng.uniform(4, 60, (2, count, 1, 1))
    points = centres + size * rng.uniform(-1, 1, (2, count, skeleton.count, 2))
    visibility = rng.choice([2, 2, 2, 1, 0, -1], (2, count, skeleton.count, 1))
    return np.concatenate([points, visibility], axis=-1).astype(np.float32)


def labels(keypoints: Any, boxes: Any = None, mask: Any = None) -> dict[str, Any]:
    keypoints = np.float32(keypoints)
    if boxes is None:
        boxes = np.tile(np.float32([0, 0, -1, -1]), (*keypoints.shape[:2], 1))
    blank = np.ones((len(keypoints), H, W), np.float32)
    return {
        "keypoints": ops.convert_to_tensor(keypoints),
        "boxes": ops.convert_to_tensor(np.float32(boxes)),
        "mask": ops.convert_to_tensor(blank if mask is None else np.float32(mask)),
    }


def algorithm(skeleton: Skeleton = S3, **options: Any) -> PifPaf:
    return PifPaf.from_options(skeleton, options)


def arrays(maps: Any) -> dict[str, Floats]:
    return {name: ops.convert_to_numpy(value) for name, value in maps.items()}


@pytest.mark.parametrize(("skeleton", "seed"), [(S3, 0), (S3, 1), (COCO, 2)])
def test_targets_are_the_encoders(skeleton: Skeleton, seed: int) -> None:
    people = crowd(skeleton, seed)
    found = arrays(algorithm(skeleton).targets(labels(people)))
    for picture, one in enumerate(people):
        there = np.float64(one)
        expected = encoder("pifpaf").render(there, skeleton, 8 * W, 8 * H)
        for name, maps in expected.items():
            assert (maps[1 :: 5 if name == "cif" else 8] == 1).sum() > 20
            np.testing.assert_allclose(
                np.moveaxis(found[name][picture], -1, 0), maps, atol=1e-4, err_msg=name
            )


def test_relative_positions_count_from_their_own_cell() -> None:
    given = labels(crowd(S3, 4))
    absolute, relative = (algorithm(relative=r) for r in (False, True))
    assert relative.decode_parameters() == {"algorithm": "pifpaf", "relative": True}
    one, other = (arrays(a.targets(given)) for a in (absolute, relative))
    ys, xs = np.mgrid[0:H, 0:W]
    for name, step, places in (("cif", 5, (2,)), ("caf", 8, (2, 4))):
        grid = np.zeros_like(one[name])
        for place in places:
            grid[..., place::step] += xs[None, :, :, None]
            grid[..., place + 1 :: step] += ys[None, :, :, None]
        np.testing.assert_allclose(one[name], other[name] + grid, atol=1e-5)
    losses = [
        float(a.loss(given, [{n: ops.convert_to_tensor(t[n]) for n in t}], None)["loss"])
        for a, t in ((absolute, one), (relative, other))
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_a_limb_longer_than_the_picture_has_no_gaps() -> None:
    """Ends far outside: four times as many cells long as points are drawn."""
    ends = ops.convert_to_tensor(np.float32([[[[[-28, -18], [42, 32]]]]]))
    drawn = ops.convert_to_numpy(limb_owners(ends, ops.ones((1, 1, 1)) > 0, H, W))[0, 0, ..., 0]
    rows = [round(-18 + (column + 28) * 5 / 7) for column in range(W)]
    cells = [(row, column) for column, row in enumerate(rows) if 0 <= row < H]
    assert len(cells) > 10
    assert all(drawn[cell] == 1 for cell in cells)
    assert drawn.sum() < 4 * len(cells)


def test_the_layer_activates_every_channel_as_its_kind() -> None:
    rng = np.random.default_rng(3)
    raw = rng.normal(0, 2, (2, 4, 7, 16)).astype(np.float32)
    layer = CompositeFields(2, 2)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    image = keras.Input((None, None, 16))
    model = keras.Model(image, again(image))  # of any size
    found = ops.convert_to_numpy(model(raw))
    ys, xs = np.mgrid[0:4, 0:7]
    for field in (0, 8):
        b, confidence, x1, y1, x2, y2, s1, s2 = np.moveaxis(raw[..., field : field + 8], -1, 0)
        expected = [b, 1 / (1 + np.exp(-confidence)), x1 + xs, y1 + ys, x2 + xs, y2 + ys]
        expected += [np.log1p(np.exp(s1)), np.log1p(np.exp(s2))]
        np.testing.assert_allclose(
            found[..., field : field + 8], np.stack(expected, -1), rtol=1e-4, atol=1e-5
        )


def test_unknown_keypoints_and_limbs_are_masked_in_their_persons_box_only() -> None:
    keypoints = [[[[12, 12, 2], [0, 0, 0], [12, 28, 2]], [[80, 20, 2], [80, 50, 2], [80, 80, 2]]]]
    boxes = [[[8, 8, 16, 32], [76, 16, 84, 84]]]
    fields = algorithm(box_margin=0.0).rendered(labels(keypoints, boxes))
    box = np.ones((H, W))
    box[0:5, 0:3] = 0  # 8..16 x 8..32 grown by a cell: centres 3.5, 11.5, 19.5 and 3.5 to 35.5
    cif, caf = (ops.convert_to_numpy(fields[name].known)[0] for name in ("cif", "caf"))
    for k, expected in enumerate((np.ones((H, W)), box, np.ones((H, W)))):
        np.testing.assert_array_equal(cif[..., k], expected)
    for limb in range(2):  # both end in the unknown keypoint
        np.testing.assert_array_equal(caf[..., limb], box)
    # A limb whose other end another picture of a mosaic hides is as open; its keypoint is not.
    keypoints[0][0][1] = [0, 0, -1]
    fields = algorithm(box_margin=0.0).rendered(labels(keypoints, boxes))
    assert ops.convert_to_numpy(fields["cif"].known).all()
    np.testing.assert_array_equal(ops.convert_to_numpy(fields["caf"].known)[0, ..., 0], box)


def test_drawn_cells_count_inside_a_masked_region_and_nothing_else_does() -> None:
    keypoints = [[[[44, 44, 2], [76, 44, 2], [0, 0, -1]]]]
    fields = algorithm().rendered(labels(keypoints, [[[40, 40, 80, 48]]], np.zeros((1, H, W))))
    for one in fields.values():
        np.testing.assert_array_equal(
            ops.convert_to_numpy(one.known), ops.convert_to_numpy(one.active)
        )
    assert ops.convert_to_numpy(fields["cif"].active).sum(axis=(0, 1, 2)).tolist() == [16, 16, 0]
    assert ops.convert_to_numpy(fields["caf"].active)[0].sum(axis=(0, 1))[1] == 0


def reference_loss(target: Floats, known: Floats, maps: Floats, points: int) -> float:
    """Of one output, [B, H, W, C] each, by cells and fields."""
    count = 2 + 3 * points
    total = 0.0
    for b, i, j, field in np.ndindex(*known.shape):
        t = target[b, i, j, count * field : count * (field + 1)]
        m = maps[b, i, j, count * field : count * (field + 1)]
        right = m[1] if t[1] else 1 - m[1]
        total += known[b, i, j, field] * -0.5 * (1 - right) * math.log(right)
        if not t[1]:
            continue
        log_b = 3 * math.tanh(m[0] / 3)
        for point in range(points):
            dx, dy = m[2 + 2 * point : 4 + 2 * point] - t[2 + 2 * point : 4 + 2 * point]
            norm = math.sqrt(dx**2 + dy**2 + 0.0125**2)
            total += norm / math.exp(log_b) + log_b + 3 - 0.0125 * math.exp(3)
            size = t[2 + 2 * points + point]
            total += abs(m[2 + 2 * points + point] - size) / (0.1 + size)
    return total / len(target)


def test_the_loss_is_the_definition() -> None:
    pifpaf = algorithm()
    keypoints = crowd(S3, 6)
    boxes = np.concatenate([keypoints[..., :2].min(axis=2), keypoints[..., :2].max(axis=2)], -1)
    mask = np.ones((2, H, W), np.float32)
    mask[:, :, :5] = 0
    given = labels(keypoints, boxes, mask)
    rng = np.random.default_rng(0)
    targets, fields = arrays(pifpaf.targets(given)), pifpaf.rendered(given)
    maps = {}
    for name, step in (("cif", 5), ("caf", 8)):
        shaken = targets[name] + rng.normal(0, 1, targets[name].shape)
        shaken[..., 1::step] = rng.uniform(0.05, 0.95, shaken[..., 1::step].shape)
        maps[name] = shaken.astype(np.float32)
    result = pifpaf.loss(given, [{n: ops.convert_to_tensor(v) for n, v in maps.items()}], None)
    for name, points in (("cif", 1), ("caf", 2)):
        known = ops.convert_to_numpy(fields[name].known)
        assert 0.1 < known.mean() < 0.9
        expected = reference_loss(targets[name], known, maps[name], points)
        assert float(result[name]) == pytest.approx(expected, rel=1e-3)
    total = float(result["cif"]) + float(result["caf"])
    assert float(result["loss"]) == pytest.approx(total, rel=1e-5)


def test_the_head_begins_with_nobodys_loss() -> None:
    pifpaf = algorithm(width=8, blocks=0)
    features = {s: keras.Input((8 * H // s, 8 * W // s, 4)) for s in (8, 16, 32)}
    (stage,) = pifpaf.head(features, (8 * W, 8 * H))
    model = keras.Model(list(features.values()), stage)
    maps = model([np.zeros((2, *f.shape[1:]), np.float32) for f in features.values()])
    result = pifpaf.loss(labels(crowd(S3, 8)), [maps], None)
    for name in ("cif", "caf"):
        assert float(result[name]) == pytest.approx(float(result[f"{name}_zero"]), rel=1e-3)


def test_extreme_outputs_have_finite_losses() -> None:
    certain = focal_entropy(ops.convert_to_tensor(np.float32([0, 1, 0, 1])), ops.zeros(4), 1.0)
    assert ops.convert_to_numpy(certain).tolist() == pytest.approx([0, 6.9, 0, 6.9], abs=0.1)
    far = laplace(ops.ones((2, 2)) * 100.0, ops.convert_to_tensor(np.float32([-50, 50])))
    assert np.isfinite(ops.convert_to_numpy(far)).all()
    assert float(laplace(ops.zeros((1, 2)), ops.ones((1,)) * -1e3)[0]) == pytest.approx(0, abs=1e-5)


def test_options_are_checked_and_outputs_follow_the_skeleton() -> None:
    outputs = {spec.name: (spec.channels, spec.stride) for spec in algorithm().outputs}
    assert outputs == {"cif": (15, 8), "caf": (16, 8)}
    assert algorithm().decode_parameters() == {"algorithm": "pifpaf"}
    with pytest.raises(TrainError, match=r"model\.algorithm_options\.blocks"):
        algorithm(blocks=-1)
