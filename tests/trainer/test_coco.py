# SPDX-License-Identifier: Apache-2.0
"""Data sets become labels of the model's skeleton, and what is unknown stays unknown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from posewire.trainer.config import DatasetConfig
from posewire.trainer.data.coco import load_dataset
from posewire.trainer.errors import TrainError

from posewire.errors import ExitCode
from posewire.skeleton import load_skeleton

C17 = load_skeleton("coco17")


def stick_person(left: float, top: float, size: float) -> list[float]:
    """Seventeen labelled keypoints inside a box."""
    return [v for k in range(17) for v in (left + size * 0.2 * (k % 5), top + size * 0.05 * k, 2.0)]


def write_labels(path: Path, images: list[dict[str, object]], annotations: list[Any]) -> None:
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": []}))


def dataset(**settings: Any) -> DatasetConfig:
    return DatasetConfig(name="d", annotations="labels.json", images="images", **settings)


def person(image: int, **changes: Any) -> dict[str, Any]:
    entry = {
        "id": 1,
        "image_id": image,
        "iscrowd": 0,
        "bbox": [10, 20, 30, 40],
        "keypoints": stick_person(10, 20, 30),
    }
    return entry | changes


def test_split_by_id_and_skipped_keys(tiny: Path) -> None:
    data = json.loads((tiny / "labels.json").read_text())
    data["images"][3]["near_duplicate"] = "val"
    (tiny / "labels.json").write_text(json.dumps(data))

    def ids(**settings: Any) -> list[int]:
        return [p.image_id for p in load_dataset(dataset(**settings), tiny, C17)]

    assert ids() == [1, 2, 3, 4]
    assert ids(ids="even") == [2, 4]
    assert ids(ids="odd") == [1, 3]
    assert ids(ids="even", skip=("near_duplicate",)) == [2]


def test_crowds_and_people_without_keypoints_are_unknown(tiny: Path) -> None:
    images: list[dict[str, object]] = [{"id": 1, "file_name": "1.png"}]
    people = [person(1), person(1, iscrowd=1), person(1, keypoints=[0] * 51)]
    del people[2]["keypoints"]
    write_labels(tiny / "labels.json", images, people)
    picture = load_dataset(dataset(), tiny, C17)[0]
    assert len(picture.keypoints) == len(picture.boxes) == 1
    assert picture.ignore.tolist() == [[10, 20, 39, 59]] * 2
    assert picture.believe is None
    only = load_dataset(dataset(outside_boxes="unknown"), tiny, C17)[0]
    assert only.believe is not None
    assert len(only.believe) == 1


def test_other_skeletons_are_mapped_by_name(tiny: Path) -> None:
    lsp = load_skeleton("lsp14")
    points = [v for k in range(lsp.count) for v in (float(k), 2.0 * k, 2)]
    images: list[dict[str, object]] = [{"id": 1, "file_name": "1.png"}]
    write_labels(tiny / "labels.json", images, [person(1, keypoints=points)])
    picture = load_dataset(dataset(skeleton="lsp14"), tiny, C17)[0]
    for k, name in enumerate(C17.keypoints):
        if name in lsp.keypoints:
            source = lsp.keypoints.index(name)
            assert picture.keypoints[0, k].tolist() == [source, 2 * source, 2]
        else:  # a face that LSP does not label
            assert picture.keypoints[0, k].tolist() == [0, 0, 0]


def test_boxes_hold_their_keypoints(tiny: Path) -> None:
    points = stick_person(10, 20, 30)
    points[0] = 2.0  # nose left of the box
    images: list[dict[str, object]] = [{"id": 1, "file_name": "1.png"}]
    write_labels(tiny / "labels.json", images, [person(1, keypoints=points)])
    assert load_dataset(dataset(), tiny, C17)[0].boxes[0, 0] == 2.0


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("{", "not JSON"),
        ('{"images": []}', "not COCO person keypoints: KeyError 'annotations'"),
        ('{"images": [], "annotations": []}', "no picture left"),
    ],
)
def test_bad_files_are_named(tiny: Path, text: str, what: str) -> None:
    (tiny / "labels.json").write_text(text)
    with pytest.raises(TrainError, match=what) as caught:
        load_dataset(dataset(), tiny, C17)
    assert "labels.json" in str(caught.value)
    assert caught.value.code == ExitCode.SOURCE


def test_wrong_skeleton_is_an_error(tiny: Path) -> None:
    with pytest.raises(TrainError, match="annotation 1: 51 numbers in keypoints, but body18 has"):
        load_dataset(dataset(skeleton="body18"), tiny, C17)


def test_missing_picture_is_named(tiny: Path) -> None:
    (tiny / "images" / "2.png").unlink()
    picture = load_dataset(dataset(ids="even"), tiny, C17)[0]
    with pytest.raises(TrainError, match=r"2\.png: missing or not a picture"):
        picture.read()


def test_pixels_are_rgb_as_stored(tiny: Path) -> None:
    import cv2

    blue = np.zeros((4, 6, 3), np.uint8)
    blue[..., 0] = 255  # OpenCV writes BGR
    cv2.imwrite(str(tiny / "images" / "1.png"), blue)
    pixels = load_dataset(dataset(), tiny, C17)[0].read()
    assert pixels.shape == (4, 6, 3)
    assert pixels[0, 0].tolist() == [0, 0, 255]
