# SPDX-License-Identifier: Apache-2.0
"""Scoring: figures that can be told in advance, skeletons that differ, labels that are wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from posewire.decode import Poses
from posewire.draw import draw_poses
from posewire.errors import ExitCode, PosewireError
from posewire.score import coco_ap, load_labels, pck
from posewire.skeleton import Skeleton, convert_keypoints, load_skeleton

COCO = load_skeleton("coco17")
AREA = 100.0 * 200.0 * 0.5


def figure(x: float, y: float) -> NDArray[np.float32]:
    """[17, 3], all visible: left and right apart, head to feet 200 pixels."""
    points = np.zeros((17, 3), np.float32)
    rows = [0, -5, -5, -3, -3, 40, 40, 70, 70, 100, 100, 100, 100, 150, 150, 200, 200]
    for k, name in enumerate(COCO.keypoints):
        side = -20 if name.startswith("left") else 20 if name.startswith("right") else 0
        points[k] = (x + side, y + rows[k], 2)
    return points


def annotation(number: int, image: int, points: NDArray[np.float32], **more: Any) -> dict[str, Any]:
    return {
        "id": number,
        "image_id": image,
        "category_id": 1,
        "iscrowd": 0,
        "keypoints": [float(value) for value in points.ravel()],
        "num_keypoints": int((points[:, 2] > 0).sum()),
        "bbox": [float(points[:, 0].min()), float(points[:, 1].min()), 100.0, 200.0],
        "area": AREA,
        **more,
    }


PEOPLE = {1: [figure(100, 100)], 2: [figure(100, 100), figure(300, 120)], 3: []}


def write(path: Path, skeleton: Skeleton = COCO, **changes: Any) -> Path:
    annotations = []
    for image, people in PEOPLE.items():
        for points in people:
            own = convert_keypoints(points[None], COCO, skeleton)[0]
            annotations.append(annotation(len(annotations) + 1, image, own))
    data = {
        "images": [{"id": i, "file_name": f"{i}.jpg", "width": 640, "height": 480} for i in PEOPLE],
        "annotations": annotations,
        "categories": [{"id": 1, "name": "person", "keypoints": list(skeleton.keypoints)}],
    }
    path.write_text(json.dumps({**data, **changes}))
    return path


def perfect(skeleton: Skeleton = COCO) -> dict[int, Poses]:
    found = {}
    for image, people in PEOPLE.items():
        points = convert_keypoints(np.array(people).reshape(-1, 17, 3), COCO, skeleton)
        found[image] = Poses(np.ones(len(points), np.float32), points)
    return found


def test_perfect_poses_are_perfect(tmp_path: Path) -> None:
    labels = load_labels(write(tmp_path / "a.json"))
    score = coco_ap(labels, perfect(), COCO)
    assert (score.ap, score.ap50, score.ap75, score.ar) == (1.0, 1.0, 1.0, 1.0)
    assert (score.images, score.people, score.found, score.keypoints) == (3, 3, 3, 17)
    assert set(score.similarity) == set(COCO.keypoints)
    assert min(score.similarity.values()) == pytest.approx(1.0)
    assert pck(labels, perfect(), COCO) == 1.0


def test_nobody_found_is_zero_not_an_error(tmp_path: Path) -> None:
    labels = load_labels(write(tmp_path / "a.json"))
    for poses in ({}, {1: Poses(np.zeros(0, np.float32), np.zeros((0, 17, 3), np.float32))}):
        score = coco_ap(labels, poses, COCO)
        assert (score.ap, score.ar, score.found, score.images) == (0.0, 0.0, 0, 3)
        assert pck(labels, poses, COCO) == 0.0


def test_people_in_a_picture_without_any_cost_precision(tmp_path: Path) -> None:
    labels = load_labels(write(tmp_path / "a.json"))
    poses = perfect()
    ghost = Poses(np.full(3, 2.0, np.float32), np.array([figure(400, 100)] * 3))  # surest of all
    score = coco_ap(labels, {**poses, 3: ghost}, COCO)
    assert score.ap == pytest.approx(0.5, abs=0.01)  # 3 right of 6
    assert score.ar == 1.0


def test_the_figure_is_that_of_the_formula(tmp_path: Path) -> None:
    """Every keypoint off by d: OKS = mean exp(-d^2 / (2 area (2 sigma)^2)), AP its share of the
    thresholds 0.5, 0.55, …, 0.95."""
    labels = load_labels(write(tmp_path / "a.json"))
    d = 6.0
    poses = perfect()
    for one in poses.values():
        one.keypoints[..., 0] += d
    sigmas = np.array(COCO.sigmas)
    similarity = np.exp(-(d**2) / (2 * AREA * (2 * sigmas) ** 2))
    passed = (np.arange(0.5, 0.96, 0.05) <= similarity.mean()).mean()
    assert 0 < passed < 1
    score = coco_ap(labels, poses, COCO)
    assert score.ap == pytest.approx(passed)
    assert score.similarity["nose"] == pytest.approx(similarity[0], rel=1e-4)


def test_other_skeletons_are_compared_by_meaning(tmp_path: Path) -> None:
    labels = load_labels(write(tmp_path / "coco.json"))
    body18, lsp14 = load_skeleton("body18"), load_skeleton("lsp14")
    score = coco_ap(labels, perfect(body18), body18)
    assert (score.ap, score.keypoints) == (1.0, 17)
    fewer = coco_ap(labels, perfect(lsp14), lsp14)  # no face
    assert (fewer.ap, fewer.keypoints) == (1.0, 12)
    assert "nose" not in fewer.similarity
    lsp = load_labels(write(tmp_path / "lsp.json", lsp14))
    assert lsp.skeleton.name == "lsp14"
    assert pck(lsp, perfect(), COCO) == 1.0


def test_a_custom_skeleton_is_the_bundles(tmp_path: Path) -> None:
    own = Skeleton("own", tuple("abcdefghijklmnopq"), COCO.limbs, COCO.flips, (0.2,) * 17)
    categories = [{"id": 1, "name": "person", "keypoints": list(own.keypoints)}]
    path = write(tmp_path / "own.json", categories=categories)
    assert load_labels(path, own).skeleton is own
    with pytest.raises(PosewireError, match="no known skeleton has the keypoints a, b, c"):
        load_labels(path)


def test_pck_takes_the_best_pose_and_half_a_torso_is_too_far(tmp_path: Path) -> None:
    labels = load_labels(write(tmp_path / "a.json"))
    torso = float(np.hypot(40, 60))
    poses = perfect()
    far = poses[1].keypoints.copy()
    far[..., 1] += 300
    poses[1] = Poses(np.ones(2, np.float32), np.concatenate([far, poses[1].keypoints]))
    assert pck(labels, poses, COCO) == 1.0
    for one in poses.values():
        one.keypoints[..., 0] += 0.19 * torso
    assert pck(labels, poses, COCO) == 1.0
    for one in poses.values():
        one.keypoints[..., 0] += 0.02 * torso
    assert pck(labels, poses, COCO) == 0.0


def test_crowds_and_unlabelled_people_do_not_count(tmp_path: Path) -> None:
    crowd = annotation(1, 1, np.zeros((17, 3), np.float32), iscrowd=1)
    unlabelled = annotation(2, 1, np.zeros((17, 3), np.float32))
    labels = load_labels(write(tmp_path / "a.json", annotations=[crowd, unlabelled]))
    assert labels.people == 0
    score = coco_ap(labels, perfect(), COCO)
    assert score.ap == -1.0
    assert pck(labels, perfect(), COCO) == -1.0


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"images": []}, "images: is empty"),
        ({"categories": [{"id": 1, "name": "person"}]}, "none has keypoints"),
        ({"categories": 3}, "categories: must be a list"),
        ({"annotations": [{"category_id": 1}]}, "KeyError"),
        ({"annotations": [annotation(7, 99, figure(0, 0))]}, "id 7.*99 is not among the images"),
        ({"annotations": [annotation(7, 1, figure(0, 0), area=0)]}, "area: must be above 0"),
        ({"annotations": [annotation(7, 1, figure(0, 0), bbox=[])]}, "bbox"),
    ],
)
def test_bad_labels_are_named(tmp_path: Path, changes: dict[str, Any], match: str) -> None:
    path = write(tmp_path / "bad.json", **changes)
    with pytest.raises(PosewireError, match=match) as caught:
        load_labels(path)
    assert caught.value.code == ExitCode.SOURCE
    assert "bad.json" in str(caught.value)


def test_missing_files_are_named(tmp_path: Path) -> None:
    labels = load_labels(write(tmp_path / "a.json"))
    with pytest.raises(PosewireError, match=r"1\.jpg: is missing") as caught:
        labels.files(tmp_path)
    assert caught.value.code == ExitCode.SOURCE
    with pytest.raises(PosewireError, match="cannot be read"):
        load_labels(tmp_path / "none.json")


def test_drawing_marks_the_pose_and_nothing_else() -> None:
    image = np.full((400, 400, 3), 50, np.uint8)
    points = figure(200, 100)
    points[0] = 0  # an absent nose
    drawn = draw_poses(image, Poses(np.ones(1, np.float32), points[None]), COCO)
    assert (image == 50).all()
    assert (drawn[170:172, 179:182] != 50).any()  # left elbow
    assert (drawn[:20, :20] == 50).all()  # where 0, 0 would be
    assert (drawn[:, 300:] == 50).all()


def test_only_the_held_out_half_counts(tmp_path: Path) -> None:
    labels = load_labels(write(tmp_path / "a.json"))
    even = labels.only("even")
    assert [image["id"] for image in even.images] == [2]
    assert even.people == len(PEOPLE[2])
    assert coco_ap(even, {2: perfect()[2]}, COCO).ap == 1.0
    assert labels.only("all") is labels
    with pytest.raises(PosewireError, match="none has an even id"):
        labels.only("odd").only("even")
