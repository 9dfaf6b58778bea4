# SPDX-License-Identifier: Apache-2.0
"""Crops and boxes: where a crop lies, what it shows, the AP of boxes that is known beforehand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from posewire.decode import Decoder, Poses
from posewire.errors import PosewireError
from posewire.score import Labels
from posewire.skeleton import load_skeleton
from posewire.top_down import Boxes, annotated_boxes, box_ap, boxes_of, crop_rectangle, cut

FRAME, NETWORK = (640, 480), (192, 256)
KEYPOINTS = [100.0, 100.0, 2.0] + [0.0] * 48


def test_a_crop_is_the_box_grown_to_the_inputs_aspect() -> None:
    assert crop_rectangle((100, 100, 75, 100), FRAME, NETWORK, 1.0) == (100, 100, 75, 100)
    assert crop_rectangle((100, 100, 60, 100), FRAME, NETWORK, 1.2) == (85, 90, 90, 120)
    wide = crop_rectangle((100, 200, 150, 20), FRAME, NETWORK, 1.0)
    assert wide == (100, 110, 150, 200)
    assert crop_rectangle((-50, 0, 125, 100), FRAME, NETWORK, 1.0) == (0, 0, 75, 100)
    for box in ((700, 0, 10, 10), (10, 10, 0.5, 50), (0, 0, float("nan"), 9), (9, 9, -5, 9)):
        assert crop_rectangle(box, FRAME, NETWORK, 1.25) is None


def test_a_cut_is_grey_outside_of_the_picture() -> None:
    picture = np.arange(6 * 8 * 3, dtype=np.uint8).reshape(6, 8, 3)
    np.testing.assert_array_equal(cut(picture, (2, 1, 3, 4)), picture[1:5, 2:5])
    outside = cut(picture, (-2, 4, 4, 5))
    assert outside.shape == (5, 4, 3)
    np.testing.assert_array_equal(outside[:2, 2:], picture[4:, :2])
    assert (outside[2:] == 114).all()
    assert (outside[:, :2] == 114).all()
    assert (cut(picture, (20, 20, 3, 3)) == 114).all()


def labels(boxes: dict[int, list[Any]], **more: Any) -> Labels:
    annotations = [
        {"id": 7, "image_id": image, "category_id": 1, "bbox": box, "area": box[2] * box[3],
         "keypoints": KEYPOINTS, "iscrowd": 0, **more}
        for image, found in boxes.items() for box in found
    ]  # fmt: skip
    images = [{"id": image, "file_name": f"{image}.jpg"} for image in boxes]
    data = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "p"}]}
    return Labels("labels", load_skeleton("coco17"), 1, data)


def test_the_ap_of_boxes() -> None:
    truth = labels({1: [[10, 10, 100, 200]], 2: [[50, 50, 100, 100], [200, 50, 120, 100]], 3: []})
    right = annotated_boxes(truth)
    assert [len(one.scores) for one in right.values()] == [1, 2, 0]
    assert box_ap(truth, right).ap == pytest.approx(1.0)
    score = box_ap(truth, {1: right[1]})
    assert score.ap == pytest.approx(0.337, abs=0.01)  # one of three
    assert (score.people, score.found, score.images) == (3, 1, 3)
    moved = Boxes(right[1].boxes + np.array([30, 0, 0, 0], np.float32), right[1].scores)
    assert box_ap(labels({1: [[10, 10, 100, 200]]}), {1: moved}).ap50 == pytest.approx(1.0)
    assert box_ap(labels({1: [[10, 10, 100, 200]]}), {1: moved}).ap75 == 0.0
    assert box_ap(truth, {}).ap == 0.0


def test_unlabelled_people_have_no_crop() -> None:
    assert not annotated_boxes(labels({1: [[1, 1, 9, 9]]}, keypoints=[0.0] * 51))[1].scores.size
    assert not annotated_boxes(labels({1: [[1, 1, 9, 9]]}, iscrowd=1))[1].scores.size


DETECTOR: dict[str, Any] = {
    "mode": "detector",
    "skeleton": None,
    "input": {"name": "image", "width": 96, "height": 64, "channels": "BGR", "resize": "letterbox"},
    "outputs": [{"name": "boxes", "channels": 5, "length": 4, "layout": "NWC"}],
    "decode": {"algorithm": "center", "score_threshold": 0.3, "nms_iou": 0.5},
}


def test_a_detectors_poses_are_boxes() -> None:
    rows = np.array(
        [[10, 20, 30, 60, 0.5], [11, 20, 30, 60, 0.9], [50, 5, 90, 60, 0.7], [1, 1, 9, 9, 0.2]],
        np.float32,
    )
    found = boxes_of(Decoder(DETECTOR).decode({"boxes": rows}))
    np.testing.assert_allclose(found.boxes, [[11, 20, 19, 40], [50, 5, 40, 55]])
    np.testing.assert_allclose(found.scores, [0.9, 0.7])
    assert len(found.over(0.8).scores) == 1
    nothing = Decoder(DETECTOR).decode({"boxes": np.full((4, 5), np.nan, np.float32)})
    assert nothing.keypoints.shape == (0, 2, 3)
    assert boxes_of(Poses(nothing.scores, nothing.keypoints)).boxes.shape == (0, 4)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"outputs": [{"name": "boxes", "channels": 6, "length": 4}]}, "boxes alone, of 5"),
        ({"outputs": [{"name": "rows", "channels": 5, "length": 4}]}, "boxes alone"),
        ({"decode": {"algorithm": "center", "corners": False}}, "boxes are corners"),
        ({"skeleton": load_skeleton("coco17").to_dict()}, "skeleton"),
    ],
)
def test_other_detectors_are_refused(changes: dict[str, Any], match: str) -> None:
    with pytest.raises(PosewireError, match=match):
        Decoder({**DETECTOR, **changes})
