# SPDX-License-Identifier: Apache-2.0
"""Augmentation moves pixels and keypoints together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from posewire.trainer.config import AugmentConfig
from posewire.trainer.data.augment import (
    CUT_AWAY,
    apply,
    cut,
    make_sample,
    photometric,
    random_matrix,
)
from posewire.trainer.data.augment import Sample as Augmented
from posewire.trainer.data.coco import Picture

from posewire.skeleton import load_skeleton

C17 = load_skeleton("coco17")
SIZE = (128, 96)


class Painted(Picture):
    """A picture whose keypoints are visible: keypoint k is a dot of grey level 60 + 10 k."""

    def read(self) -> Any:
        image = np.zeros((300, 400, 3), np.uint8)
        for person in self.keypoints:
            for k, (x, y, v) in enumerate(person):
                if v > 0:
                    cv2.circle(image, (int(x), int(y)), 9, (60 + 10 * k,) * 3, -1)
        return image


def painted(**changes: Any) -> Painted:
    keypoints = np.zeros((1, 17, 3), np.float32)
    for k in range(17):
        keypoints[0, k] = (110 + 40 * (k % 5), 70 + 40 * (k // 5), 2)
    fields = {
        "path": Path("none"),
        "image_id": 1,
        "keypoints": keypoints,
        "boxes": np.float32([[100, 60, 290, 210]]),
        "ignore": np.zeros((0, 4), np.float32),
        "believe": None,
    }
    return Painted(**(fields | changes))


@pytest.mark.parametrize("seed", range(12))
def test_keypoints_follow_their_pixels(seed: int) -> None:
    rng = np.random.default_rng(seed)
    picture = painted()
    config = AugmentConfig(size=(0.8, 1.2), rotate_deg=40.0)
    matrix, mirror = random_matrix(rng, (400, 300), picture, SIZE, config)
    sample = apply(picture.read(), picture, matrix, mirror, C17, SIZE, 8, fill=0)
    checked = 0
    for k, (x, y, _) in enumerate(sample.keypoints[0]):
        if 0 <= x <= SIZE[0] - 1 and 0 <= y <= SIZE[1] - 1:
            # A mirrored person's left wrist is where the picture shows the right one.
            shown = C17.flips[k] if mirror else k
            assert abs(int(sample.image[round(y), round(x), 0]) - (60 + 10 * shown)) <= 4
            checked += 1
    assert checked >= 4


def test_shrinking_by_area_keeps_the_half_pixel() -> None:
    """The pixels of a picture shrunk to a quarter still lie where the map puts them."""
    picture = painted()
    image = np.zeros((300, 400, 3), np.uint8)
    image[:, 160:] = 200  # an edge between columns 159 and 160
    matrix = np.array([[0.25, 0, 3.0], [0, 0.25, 2.0]])
    sample = apply(image, picture, matrix, False, C17, SIZE, 8, fill=0)
    row = sample.image[40, :, 0].astype(float)
    edge = np.interp(100, row[:100], np.arange(100))  # where it crosses half the height
    assert edge == pytest.approx(0.25 * 159.5 + 3.0, abs=0.3)


def test_mirroring_exchanges_left_and_right_keypoints() -> None:
    picture = painted()
    matrix = np.array([[-1.0, 0, 399], [0, 1, 0]])
    sample = apply(picture.read(), picture, matrix, True, C17, (400, 300), 4, fill=0)
    left, right = C17.keypoints.index("left_knee"), C17.keypoints.index("right_knee")
    before = picture.keypoints[0]
    assert sample.keypoints[0, left, 0] == 399 - before[right, 0]
    assert sample.keypoints[0, right, 1] == before[left, 1]
    assert sample.boxes[0].tolist() == [399 - 290, 60, 399 - 100, 210]


def test_unknown_keypoints_stay_unknown() -> None:
    picture = painted()
    picture.keypoints[0, 3] = 0
    matrix = np.array([[0.5, 0, 7], [0, 0.5, 9]])
    sample = apply(picture.read(), picture, matrix, False, C17, SIZE, 8)
    assert sample.keypoints[0, 3].tolist() == [0, 0, 0]


def test_mask_hides_crowds_and_what_lies_outside_believed_boxes() -> None:
    identity = np.array([[1.0, 0, 0], [0, 1, 0]])
    crowd = painted(ignore=np.float32([[64, 32, 95, 63]]))
    mask = apply(crowd.read(), crowd, identity, False, C17, SIZE, 8).mask
    expected = np.ones((12, 16))
    expected[4:8, 8:12] = 0
    np.testing.assert_array_equal(mask, expected)
    only = painted(believe=np.float32([[64, 32, 95, 63]]))
    mask = apply(only.read(), only, identity, False, C17, SIZE, 8).mask
    np.testing.assert_array_equal(mask, 1 - expected)
    turned = np.array([[0.0, -1, 95], [1, 0, 0]])  # a quarter turn: x' = 95 - y, y' = x
    mask = apply(crowd.read(), crowd, turned, False, C17, SIZE, 8).mask
    expected = np.ones((12, 16))
    expected[8:12, 4:8] = 0
    np.testing.assert_array_equal(mask, expected)


def test_cut_marks_hidden_keypoints_and_drops_people_outside() -> None:
    keypoints = np.zeros((2, 17, 3), np.float32)
    keypoints[0, 0] = (5, 5, 2)
    keypoints[0, 1] = (70, 5, 2)
    keypoints[1, 0] = (80, 5, 2)
    boxes = np.float32([[0, 0, 75, 10], [70, 0, 90, 10]])
    sample = Augmented(
        np.zeros((64, 64, 3), np.uint8), keypoints, boxes, np.ones((8, 8), np.float32)
    )
    result = cut(sample, (64, 64))
    assert len(result.boxes) == 1
    assert result.boxes[0].tolist() == [0, 0, 63, 10]
    assert result.keypoints[0, :3, 2].tolist() == [2, CUT_AWAY, 0]


def test_mosaic_keypoints_show_their_pixels() -> None:
    config = AugmentConfig(
        mosaic=1.0, colour=0.0, grey=0.0, blur=0.0, noise=0.0, flip=0.0, size=(0.9, 1.1)
    )
    checked = 0
    for seed in range(6):
        rng = np.random.default_rng(seed)
        sample = make_sample(rng, lambda _: painted(), C17, (192, 192), 8, config)
        assert sample.image.shape == (192, 192, 3)
        assert sample.mask.shape == (24, 24)
        for person in sample.keypoints:
            for k, (x, y, v) in enumerate(person):
                if v > 0 and 1 < x % 64 < 63:
                    assert 0 <= x < 192
                    assert 0 <= y < 192
                    level = int(sample.image[round(y), round(x), 0])
                    checked += abs(level - (60 + 10 * k)) <= 6
                    assert abs(level - (60 + 10 * k)) <= 40
    assert checked > 60


def test_people_beyond_the_limit_are_masked_not_forgotten() -> None:
    boxes = np.float32([[100, 60, 290, 210], [150, 90, 240, 170]])
    picture = painted(boxes=boxes, keypoints=np.repeat(painted().keypoints, 2, axis=0))
    config = AugmentConfig(
        mosaic=0.0, flip=0.0, rotate_deg=0.0, size=(0.5, 0.5), max_people=1, cover=0.0
    )
    sample = make_sample(np.random.default_rng(0), lambda _: picture, C17, (384, 384), 8, config)
    assert len(sample.boxes) == 1
    assert (sample.mask == 0).any()


def test_photometric_changes_no_shape_and_is_repeatable() -> None:
    image = np.random.default_rng(0).integers(0, 255, (64, 48, 3), np.uint8)
    config = AugmentConfig(colour=1.0, grey=0.5, blur=1.0, noise=1.0)
    first, again = (photometric(np.random.default_rng(5), image, config) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert first.shape == image.shape
    assert first.dtype == np.uint8
    assert (first != image).any()
