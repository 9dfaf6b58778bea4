# SPDX-License-Identifier: Apache-2.0
"""Targets and loss of the center algorithm against the encoder and plain loops in NumPy."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from keras import ops
from numpy.typing import NDArray
from posewire.trainer.algorithms.center import (
    Center,
    focal_loss,
    gaussian_radius,
    gaussians,
    people_of,
)
from posewire.trainer.errors import TrainError

from posewire.encode import draw_people
from posewire.encode.center import ENCODER
from posewire.skeleton import load_skeleton

SKELETON = load_skeleton("coco17")
K = SKELETON.count
WIDTH, HEIGHT = 192, 128
H, W = HEIGHT // 4, WIDTH // 4
OUTPUTS = [entry["name"] for entry in ENCODER.outputs(SKELETON, WIDTH, HEIGHT)]


def algorithm(**options: Any) -> Center:
    return Center.from_options(SKELETON, options)


def crowd(seed: int, count: int = 3) -> NDArray[np.float32]:
    """People within the picture, [P, K, 3], nobody's keypoint unknown."""
    rng = np.random.default_rng(seed)
    people = draw_people(SKELETON, WIDTH, HEIGHT, count, 80.0, rng)
    people = people[(people[..., 2] > 0).all(axis=1)]
    return people.astype(np.float32)


def boxes_of(people: NDArray[np.float32]) -> NDArray[np.float32]:
    """The boxes that the encoder has, which are the keypoints' extents, grown."""
    low, high = people[..., :2].min(axis=1), people[..., :2].max(axis=1)
    margin = np.maximum(0.1 * (high - low), 2.0)
    return np.concatenate([low - margin, high + margin], axis=1)


def labels_of(people: Any, boxes: Any, mask: Any = None) -> dict[str, Any]:
    """One picture's labels."""
    mask = np.ones((HEIGHT // 8, WIDTH // 8)) if mask is None else mask
    given = {"keypoints": people, "boxes": boxes, "mask": mask}
    return {name: ops.convert_to_tensor(np.float32(value)[None]) for name, value in given.items()}


def numpy(maps: Any) -> dict[str, NDArray[np.float32]]:
    return {name: np.asarray(ops.convert_to_numpy(value)) for name, value in maps.items()}


def cell(x: float, y: float) -> tuple[int, int]:
    return round((x - 1.5) / 4), round((y - 1.5) / 4)


@pytest.mark.parametrize("seed", range(4))
def test_targets_are_the_encoders(seed: int) -> None:
    people = crowd(seed)
    boxes = boxes_of(people)
    inside = (boxes[:, :2] >= 0).all(axis=1) & (boxes[:, 2:] < (WIDTH - 1, HEIGHT - 1)).all(axis=1)
    people, boxes = people[inside], boxes[inside]  # others' boxes end at the picture's edge here
    assert len(people) >= 1
    found = numpy(algorithm().targets(labels_of(people, boxes)))
    assert list(found) == OUTPUTS
    wanted = ENCODER.render(people.astype(np.float64), SKELETON, WIDTH, HEIGHT)
    cells = [cell(x, y) for x, y in people[..., :2].reshape(-1, 2)]
    shared = {one for one in cells if cells.count(one) > 1}
    assert np.count_nonzero(wanted["centers"] == 1) == len(people)
    for name in OUTPUTS:
        different = np.abs(found[name][0].transpose(2, 0, 1) - wanted[name]).max(axis=0) > 1e-4
        if name == "heatmap_offset":  # the encoder keeps the last of those in one cell
            for x, y in shared:
                different[y, x] = False
        assert not different.any(), name


def authors_radius(width: float, height: float) -> int:
    """gaussian_radius of the authors' code, all of its three cases."""
    total, area, least = width + height, width * height, 0.7
    cases = (
        (1, total, area * (1 - least) / (1 + least)),
        (4, 2 * total, (1 - least) * area),
        (4 * least, -2 * least * total, (least - 1) * area),
    )
    return int(max(0, min((b + math.sqrt(b * b - 4 * a * c)) / 2 for a, b, c in cases)))


def test_radius_is_that_of_the_authors_code() -> None:
    sides = np.random.default_rng(0).uniform(0.5, 128, (200, 2)).astype(np.float32)
    found = ops.convert_to_numpy(gaussian_radius(ops.convert_to_tensor(sides)))
    np.testing.assert_array_equal(found, [authors_radius(*map(float, side)) for side in sides])
    assert float(gaussian_radius(ops.zeros((2,)))) == 0


def reference_focal(found: Any, target: Any, known: Any) -> float:
    """Equation 1, alpha 2 and beta 4."""
    total, peaks = 0.0, 0
    for p, y, w in zip(found.ravel(), target.ravel(), known.ravel(), strict=True):
        p = min(max(float(p), 1e-4), 1 - 1e-4)
        if y == 1:
            total -= (1 - p) ** 2 * math.log(p)
            peaks += 1
        else:
            total -= w * (1 - y) ** 4 * p**2 * math.log(1 - p)
    return total / max(peaks, 1)


def test_focal_loss_equals_the_definition() -> None:
    rng = np.random.default_rng(0)
    found = rng.uniform(0, 1, (2, 5, 6, 3)).astype(np.float32)
    found[0, 0, 0], found[1, 0, 0] = 0, 1
    target = rng.choice([0, 0.3, 0.95, 1], found.shape).astype(np.float32)
    known = rng.integers(0, 2, found.shape).astype(np.float32)
    known[target == 1] = 1
    for one in (target, np.minimum(target, 0.95)):  # also without any peak
        assert float(focal_loss(found, one, known)) == pytest.approx(
            reference_focal(found, one, known), rel=1e-4
        )


def test_regressions_equal_the_definition() -> None:
    """Absolute errors, at the person's own cells and of what is known there; sizes count 0.1."""
    people = crowd(1)
    people[0, 3] = 0, 0, 0  # unknown
    people[-1, 5] = 0, 0, -1  # cut away
    people[-1, 6, :2] = WIDTH + 30.0, 40.0  # beyond the picture
    boxes = boxes_of(crowd(1))
    labels = labels_of(people, boxes)
    rng = np.random.default_rng(2)
    sizes = {spec.name: spec.channels for spec in algorithm().outputs}
    maps = {n: rng.uniform(0.1, 0.9, (1, H, W, c)).astype(np.float32) for n, c in sizes.items()}
    wanted: dict[str, list[float]] = {name: [] for name in sizes}
    for person, (left, top, right, bottom) in zip(people, boxes, strict=True):
        left, top = max(left, -0.5), max(top, -0.5)
        right, bottom = min(right, WIDTH - 0.5), min(bottom, HEIGHT - 0.5)
        middle = np.array([(left + right) / 2, (top + bottom) / 2])
        column, row = cell(*middle)
        here = {name: values[0, row, column] for name, values in maps.items()}
        size = np.array([right - left, bottom - top]) / 4
        wanted["sizes"] += list(0.1 * np.abs(here["sizes"] - size))
        away = (middle - 1.5) / 4 - (column, row)
        wanted["center_offset"] += list(np.abs(here["center_offset"] - away))
        for k, (x, y, v) in enumerate(person):
            if v <= 0:
                continue
            spot = np.array([(x - 1.5) / 4, (y - 1.5) / 4])
            found = here["offsets"][2 * k : 2 * k + 2]
            wanted["offsets"] += list(np.abs(found - (spot - (column, row))))
            i, j = cell(x, y)
            if 0 <= i < W and 0 <= j < H:
                found = maps["heatmap_offset"][0, j, i]
                wanted["heatmap_offset"] += list(np.abs(found - (spot - (i, j))))
    lost = algorithm().loss(labels, [maps], None)
    for name, errors in wanted.items():
        if errors:
            assert float(lost[name]) == pytest.approx(np.mean(errors), rel=1e-3), name
    parts = sum(float(lost[name]) for name in sizes)
    assert float(lost["loss"]) == pytest.approx(parts, rel=1e-5)
    assert len(wanted["offsets"]) == 2 * (len(people) * K - 2)
    assert len(wanted["heatmap_offset"]) == len(wanted["offsets"]) - 2


def test_what_is_unknown_costs_nothing() -> None:
    people = crowd(1)[:1].repeat(2, axis=0)
    people[0, 1] = 0, 0, 0
    people[1] = 0, 0, 0  # somebody of whom only a box is known
    boxes = np.float32([boxes_of(crowd(1))[0], [150, 90, 170, 120]])
    mask = np.ones((HEIGHT // 8, WIDTH // 8))
    mask[0] = 0
    row = algorithm(box_margin=0.0)
    labels = labels_of(people, boxes, mask)
    truth = numpy(row.targets(labels))
    assert np.count_nonzero(truth["centers"] == 1) == 1

    def cost(name: str, x: float, y: float, k: int) -> float:
        """Of seeing something there, beside the truth."""
        maps = truth[name].copy()
        column, line = cell(x, y)
        maps[0, line, column, k] = 0.5
        both = (row.loss(labels, [{**truth, name: one}], None)[name] for one in (maps, truth[name]))
        more, less = (float(value) for value in both)
        return more - less

    middle = (boxes[0, :2] + boxes[0, 2:]) / 2
    elsewhere = 10.0 if middle[0] > WIDTH / 2 else WIDTH - 10.0, 60.0
    assert cost("centers", 160, 105, 0) == cost("heatmaps", 160, 105, 4) == 0
    assert cost("heatmaps", *middle, 1) == 0
    assert cost("centers", 100, 2, 0) == cost("heatmaps", 100, 2, 0) == 0
    assert cost("centers", *elsewhere, 0) > 0.1
    assert cost("heatmaps", *elsewhere, 1) > 0.005
    nose = people[0, 0, :2]
    assert cost("heatmaps", *nose, 0) > 0.005  # 1 said as 0.5


def test_people_at_the_edge_have_their_centre_in_the_picture() -> None:
    """Boxes are cut at the picture's edges, as in the authors' code; people beyond it are none."""
    people = np.zeros((4, K, 3), np.float32)
    people[:, 0] = 10, 10, 2
    boxes = [[-60, 20, 12, 70], [-60, -50, -20, -10], [180, 100, 400, 300], [0, 0, -1, -1]]
    found = people_of(labels_of(people, boxes))
    there = ops.convert_to_numpy(found.there)[0]
    np.testing.assert_array_equal(there, [1, 0, 1, 0])
    centers = ops.convert_to_numpy(found.center)[0]
    np.testing.assert_array_equal(centers[[0, 2]], [cell(5.75, 45), cell(185.75, 113.75)])
    maps = ops.convert_to_numpy(
        gaussians(found.center[:, :, None], found.there[..., None], found, H, W)
    )
    assert maps[0, 0, cell(5.75, 45)[1], cell(5.75, 45)[0], 0] == 1
    assert maps[0, 1].max() == maps[0, 3].max() == 0
    assert np.isfinite(maps).all()


def test_a_smaller_person_wins_nothing_outside_its_own_gaussian() -> None:
    """Where two people's centres are drawn, a cell tells of the one whose Gaussian is higher."""
    people = np.zeros((2, K, 3), np.float32)
    people[0], people[1] = (60, 64, 2), (100, 64, 2)
    boxes = [[20, 4, 100, 124], [80, 44, 120, 84]]
    maps = numpy(algorithm().targets(labels_of(people, boxes)))
    for person, (x, y) in enumerate(((60, 64), (100, 64))):
        column, row = cell(x, y)
        assert maps["centers"][0, row, column, 0] == 1
        size = maps["sizes"][0, row, column] * 4
        np.testing.assert_allclose(size, [80, 120] if person == 0 else [40, 40])


def test_options_are_checked() -> None:
    with pytest.raises(TrainError, match=r"model\.algorithm_options\.size_weight: .*0"):
        algorithm(size_weight=-1.0)
    outputs = {spec.name: (spec.channels, spec.stride) for spec in algorithm().outputs}
    assert outputs["offsets"] == (2 * K, 4)
    assert algorithm().decode_parameters() == {"algorithm": "center"}
