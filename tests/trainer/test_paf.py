# SPDX-License-Identifier: Apache-2.0
"""Targets and loss of the paf algorithm against plain loops in NumPy."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from keras import ops
from posewire.trainer.algorithm import TeacherWeights
from posewire.trainer.algorithms.paf import Options, Paf, render_pafs
from posewire.trainer.rendering import heatmaps

from posewire.skeleton import Skeleton

STRIDE = 8
SKELETON = Skeleton("s3", ("a", "b", "c"), ((0, 1), (2, 1)), (0, 2, 1), (0.1, 0.1, 0.1))
H, W = 6, 9


def centre(i: int) -> float:
    return STRIDE * i + 3.5


def people(count: int = 4, seed: int = 0) -> np.ndarray[Any, np.dtype[np.float32]]:
    rng = np.random.default_rng(seed)
    points = rng.uniform(-10, 80, (2, count, 3, 3)).astype(np.float32)
    points[..., 2] = rng.choice([0, 1, 2, -1], (2, count, 3))
    return points


def reference_heatmaps(keypoints: Any, sigma: float) -> Any:
    result = np.zeros((len(keypoints), H, W, keypoints.shape[2]))
    for b, i, j, k in np.ndindex(*result.shape):
        for x, y, v in keypoints[b, :, k]:
            if v > 0:
                d = (centre(j) - x) ** 2 + (centre(i) - y) ** 2
                value = math.exp(-d / (2 * (sigma * STRIDE) ** 2))
                result[b, i, j, k] = max(result[b, i, j, k], value)
    return result


def reference_pafs(keypoints: Any, cells: float) -> Any:
    result = np.zeros((len(keypoints), H, W, len(SKELETON.limbs), 2))
    for b, i, j, limb in np.ndindex(*result.shape[:4]):
        vectors = []
        for person in keypoints[b]:
            (ax, ay, av), (bx, by, bv) = (person[end] for end in SKELETON.limbs[limb])
            length = math.hypot(bx - ax, by - ay)
            if av <= 0 or bv <= 0 or length < 1e-3:
                continue
            ux, uy = (bx - ax) / length, (by - ay) / length
            px, py = centre(j) - ax, centre(i) - ay
            along, across = px * ux + py * uy, px * uy - py * ux
            if abs(across) <= cells * STRIDE and -4 <= along <= length + 4:
                vectors.append((ux, uy))
        if vectors:
            result[b, i, j, limb] = np.mean(vectors, axis=0)
    return result


def test_heatmaps_equal_the_definition() -> None:
    keypoints = people()
    found = ops.convert_to_numpy(heatmaps(ops.convert_to_tensor(keypoints), H, W, 8, 1.25))
    np.testing.assert_allclose(found, reference_heatmaps(keypoints, 1.25), atol=1e-5)


def test_pafs_equal_the_definition() -> None:
    keypoints = people(seed=1)
    keypoints[..., 2] = np.abs(keypoints[..., 2])
    limbs = np.array(SKELETON.limbs)
    found = ops.convert_to_numpy(
        render_pafs(ops.convert_to_tensor(keypoints), limbs[:, 0], limbs[:, 1], H, W, 8, 1.0)
    )
    expected = reference_pafs(keypoints, 1.0)
    assert np.abs(expected).sum() > 20
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_keypoint_on_a_cell_centre_peaks_at_one_in_both_maps() -> None:
    """The half-cell offset: heatmaps and fields use the same centres, 8 i + 3.5."""
    keypoints = np.zeros((1, 1, 3, 3), np.float32)
    keypoints[0, 0, 0] = (centre(2), centre(3), 2)
    keypoints[0, 0, 1] = (centre(6), centre(3), 2)
    tensor = ops.convert_to_tensor(keypoints)
    heat = ops.convert_to_numpy(heatmaps(tensor, H, W, 8, 1.0))[0, ..., 0]
    assert heat[3, 2] == 1.0
    assert heat.max() == heat[3, 2]
    assert heat[3, 1] == pytest.approx(heat[3, 3]) == pytest.approx(heat[2, 2])
    limbs = np.array(SKELETON.limbs)
    field = ops.convert_to_numpy(render_pafs(tensor, limbs[:, 0], limbs[:, 1], H, W, 8, 0.9))[0]
    on = field[..., 0, 0] > 0
    assert sorted({int(i) for i in np.nonzero(on)[0]}) == [3]
    assert np.nonzero(on[3])[0].tolist() == [2, 3, 4, 5, 6]


def labels(keypoints: Any, boxes: Any, mask: Any = None) -> dict[str, Any]:
    blank = np.ones((len(keypoints), H, W), np.float32)
    return {
        "keypoints": ops.convert_to_tensor(np.float32(keypoints)),
        "boxes": ops.convert_to_tensor(np.float32(boxes)),
        "mask": ops.convert_to_tensor(blank if mask is None else np.float32(mask)),
    }


def algorithm(**options: Any) -> Paf:
    return Paf.from_options(SKELETON, options)


def test_unknown_keypoints_are_masked_in_their_persons_box_only() -> None:
    keypoints = [[[[12, 12, 2], [0, 0, 0], [12, 28, 2]], [[60, 20, 2], [60, 30, 2], [60, 40, 2]]]]
    boxes = [[[8, 8, 16, 32], [56, 16, 64, 44]]]
    targets = algorithm(box_margin=0.0).rendered(labels(keypoints, boxes))
    heat = ops.convert_to_numpy(targets.heatmap_weight)[0]
    field = ops.convert_to_numpy(targets.paf_weight)[0]
    expected = np.ones((H, W))
    # The box 8..16 x 8..32 grown by a cell: centres 3.5, 11.5, 19.5 and 3.5 to 35.5.
    expected[0:5, 0:3] = 0
    np.testing.assert_array_equal(heat[..., 0], 1)
    np.testing.assert_array_equal(heat[..., 1], expected)
    np.testing.assert_array_equal(heat[..., 2], 1)
    np.testing.assert_array_equal(heat[..., 3], expected)  # so is the background
    for channel in range(4):  # both limbs end in the unknown keypoint
        np.testing.assert_array_equal(field[..., channel], expected)


def test_labels_inside_a_masked_region_count_all_the_same() -> None:
    keypoints = [[[[centre(4), centre(2), 2], [0, 0, -1], [0, 0, -1]]]]
    mask = np.zeros((1, H, W), np.float32)
    weight = algorithm().rendered(labels(keypoints, [[[30, 10, 40, 30]]], mask)).heatmap_weight
    weight = ops.convert_to_numpy(weight)[0]
    assert weight[2, 4, 0] == weight[2, 5, 0] == 1
    assert weight[0, 0].sum() == 0
    assert weight[..., 1].sum() == 0


def test_padding_people_change_nothing() -> None:
    keypoints = people(2)
    boxes = np.array([[[0, 0, 70, 40]] * 2] * 2, np.float32)
    padded = np.concatenate([keypoints, np.zeros_like(keypoints)], axis=1)
    padded_boxes = np.concatenate([boxes, np.float32([[[0, 0, -1, -1]] * 2] * 2)], axis=1)
    few, many = (
        algorithm().rendered(labels(k, b)) for k, b in ((keypoints, boxes), (padded, padded_boxes))
    )
    for name in ("heatmaps", "heatmap_weight", "pafs", "paf_weight"):
        a, b = (ops.convert_to_numpy(getattr(one, name)) for one in (few, many))
        np.testing.assert_allclose(a, b, atol=1e-6)


def stages_of(targets: Any) -> list[dict[str, Any]]:
    return [{"heatmaps": targets.heatmaps, "pafs": targets.pafs}]


def test_loss_is_zero_for_the_truth_and_nobodys_for_nobody() -> None:
    paf = algorithm()
    given = labels(people(), np.array([[[0, 0, 70, 40]] * 4] * 2))
    targets = paf.rendered(given)
    assert float(paf.loss(given, stages_of(targets), None)["loss"]) == 0.0
    nobody = np.zeros((2, H, W, 4), np.float32)
    nobody[..., 3] = 1
    silent = [{"heatmaps": ops.convert_to_tensor(nobody), "pafs": ops.zeros((2, H, W, 4))}]
    result = {k: float(v) for k, v in paf.loss(given, silent, None).items()}
    assert result["heatmaps"] == pytest.approx(result["heatmaps_zero"], rel=1e-5)
    assert result["pafs"] == pytest.approx(result["pafs_zero"], rel=1e-5)
    assert result["loss"] == pytest.approx(result["heatmaps"] + result["pafs"], rel=1e-5)
    assert result["heatmaps"] > 1


def test_a_teacher_decides_where_labels_are_silent() -> None:
    paf = algorithm(background_weight=0.0)
    given = labels(np.zeros((1, 1, 3, 3)), [[[0, 0, -1, -1]]], np.zeros((1, H, W)))
    ones = np.ones((1, H, W, 4), np.float32)
    given |= {"teacher_heatmaps": ops.convert_to_tensor(ones), "teacher_pafs": ops.zeros_like(ones)}
    channels = {"heatmaps": np.float32([1, 0, 0, 0]), "pafs": np.zeros(4, np.float32)}
    teacher = TeacherWeights(0.5, 0.25, channels)
    silent = [{"heatmaps": ops.zeros((1, H, W, 4)), "pafs": ops.zeros((1, H, W, 4))}]
    assert float(paf.loss(given, silent, teacher)["loss"]) == pytest.approx(0.5 * H * W)
    known = dict(given) | {"mask": ops.ones((1, H, W))}
    assert float(paf.loss(known, silent, teacher)["loss"]) == pytest.approx(0.25 * H * W)


def test_outputs_follow_the_skeleton() -> None:
    outputs = {spec.name: (spec.channels, spec.stride) for spec in algorithm().outputs}
    assert outputs == {"heatmaps": (4, 8), "pafs": (4, 8)}
    assert algorithm().decode_parameters() == {"algorithm": "paf", "background": True}
    assert Options().refinements == 1
