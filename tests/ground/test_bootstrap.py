# SPDX-License-Identifier: Apache-2.0
"""The bootstrap against pycocotools itself, and against what must come out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from posewire.bootstrap import _matches, ap_difference
from posewire.decode import Poses
from posewire.errors import ExitCode, PosewireError
from posewire.score import Labels, coco_ap, matched
from posewire.skeleton import load_skeleton

SKELETON = load_skeleton("coco17")
IMAGES = 24


def labels(images: int = IMAGES, people: bool = True) -> Labels:
    random = np.random.default_rng(5)
    annotations = []
    for image in range(1, images + 1):
        for _ in range(int(random.integers(0, 4)) if people else 0):
            points = np.zeros((17, 3))
            points[:, :2] = random.uniform(0, 100, 2) + random.uniform(0, 80, (17, 2))
            points[:, 2] = 2
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image,
                    "category_id": 1,
                    "iscrowd": int(random.random() < 0.1),
                    "keypoints": points.ravel().tolist(),
                    "num_keypoints": 17,
                    "bbox": [*points[:, :2].min(axis=0), 80.0, 80.0],
                    "area": 3000.0,
                }
            )
    files = [
        {"id": i, "file_name": f"{i}.jpg", "width": 200, "height": 200}
        for i in range(1, images + 1)
    ]
    category = {"id": 1, "name": "person", "keypoints": list(SKELETON.keypoints)}
    data = {"images": files, "annotations": annotations, "categories": [category]}
    return Labels("labels.json", SKELETON, 1, data)


def poses(of: Labels, noise_px: float, seed: int, missed: float = 0.2) -> dict[int, Poses]:
    """The labelled people moved by noise, some missed, some made up."""
    random = np.random.default_rng(seed)
    found: dict[int, Poses] = {}
    for image in of.images:
        points = []
        for annotation in of.data["annotations"]:
            if annotation["image_id"] == image["id"] and random.random() > missed:
                points.append(np.array(annotation["keypoints"]).reshape(17, 3))
        if random.random() < 0.3:
            points.append(np.c_[random.uniform(0, 200, (17, 2)), np.ones(17)])
        keypoints = np.array(points, np.float32).reshape(-1, 17, 3)
        keypoints[..., :2] += random.normal(0, noise_px, keypoints[..., :2].shape)
        scores = random.uniform(0.1, 1, len(keypoints)).astype(np.float32)
        found[int(image["id"])] = Poses(scores, keypoints)
    return found


def resampled(of: Labels, found: dict[int, Poses], drawn: Any) -> tuple[Labels, dict[int, Poses]]:
    """Labels and poses in which picture i stands drawn[i] times, under new ids."""
    images: list[Any] = []
    annotations: list[Any] = []
    again: dict[int, Poses] = {}
    for image, times in zip(of.images, drawn, strict=True):
        for _ in range(int(times)):
            images.append({**image, "id": len(images) + 1})
            again[len(images)] = found[image["id"]]
            for annotation in of.data["annotations"]:
                if annotation["image_id"] == image["id"]:
                    one = {"id": len(annotations) + 1, "image_id": len(images)}
                    annotations.append({**annotation, **one})
    data = {**of.data, "images": images, "annotations": annotations}
    return Labels(of.path, of.skeleton, of.category, data), again


@pytest.mark.parametrize("noise_px", [1.0, 4.0, 9.0])
def test_a_resample_has_the_ap_that_pycocotools_gives_it(noise_px: float) -> None:
    of = labels()
    found = poses(of, noise_px, 1)
    matches = _matches(matched(of, found, SKELETON))
    random = np.random.default_rng(2)
    drawn = random.multinomial(IMAGES, np.full(IMAGES, 1 / IMAGES), size=6)
    drawn[0] = 1
    values = matches.ap(drawn.astype(np.float64))
    for times, value in zip(drawn, values, strict=True):
        assert value == pytest.approx(coco_ap(*resampled(of, found, times), SKELETON).ap, abs=1e-9)


def test_a_better_network_is_better_for_sure() -> None:
    of = labels()
    good, bad = poses(of, 1.0, 1), poses(of, 9.0, 1)
    found = ap_difference(of, good, bad, SKELETON, resamples=300)
    ap = coco_ap(of, good, SKELETON).ap - coco_ap(of, bad, SKELETON).ap
    assert found.value == pytest.approx(ap, abs=1e-9)
    assert 0 < found.low < found.value < found.high
    back = ap_difference(of, bad, good, SKELETON, resamples=300)
    assert (back.value, back.low, back.high) == pytest.approx(
        (-found.value, -found.high, -found.low)
    )


def test_pictures_are_paired() -> None:
    """Against itself nothing differs in any resample; against an independent network of the same
    quality the interval holds zero."""
    of = labels()
    one = poses(of, 4.0, 1)
    same = ap_difference(of, one, one, SKELETON, resamples=100)
    assert (same.value, same.low, same.high) == (0.0, 0.0, 0.0)
    other = ap_difference(of, one, poses(of, 4.0, 2), SKELETON, resamples=300)
    assert other.low < 0 < other.high


def test_the_seed_decides() -> None:
    of = labels()
    one, other = poses(of, 4.0, 1), poses(of, 5.0, 2)
    first, again, another = (
        ap_difference(of, one, other, SKELETON, resamples=100, seed=seed) for seed in (3, 3, 4)
    )
    assert first == again
    assert (first.low, first.high) != (another.low, another.high)
    assert first.value == another.value


def test_the_interval_narrows_with_more_pictures() -> None:
    wide, narrow = (
        ap_difference(of, poses(of, 4.0, 1), poses(of, 5.0, 2), SKELETON, resamples=200)
        for of in (labels(12), labels(96))
    )
    assert narrow.high - narrow.low < 0.7 * (wide.high - wide.low)


def test_nobody_found_and_nobody_labelled() -> None:
    of = labels()
    empty = {
        image: Poses(np.zeros(0, np.float32), np.zeros((0, 17, 3), np.float32))
        for image in range(1, IMAGES + 1)
    }
    found = ap_difference(of, poses(of, 1.0, 1), empty, SKELETON, resamples=50)
    assert found.value == pytest.approx(coco_ap(of, poses(of, 1.0, 1), SKELETON).ap)
    with pytest.raises(PosewireError, match="labels nobody") as caught:
        ap_difference(labels(people=False), empty, empty, SKELETON)
    assert caught.value.code is ExitCode.SOURCE
