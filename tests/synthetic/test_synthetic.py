# SPDX-License-Identifier: Apache-2.0
"""Drawn people: labels that fit the pixels, COCO's format, the same from the same seed."""

from __future__ import annotations

import json
from dataclasses import fields
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from posewire.trainer.data import synthetic, synthetic_scene
from posewire.trainer.data.synthetic_body import (
    FIGURE_KEYPOINTS,
    LIMITS_DEG,
    Build,
    Posture,
    figure_skeleton,
    pose_figure,
)
from posewire.trainer.data.synthetic_camera import Camera, Light
from posewire.trainer.data.synthetic_faces import Faces
from posewire.trainer.data.synthetic_motion import ACTIONS, Action
from posewire.trainer.data.synthetic_outfit import Outfit
from posewire.trainer.errors import TrainError

from posewire.errors import ExitCode
from posewire.skeleton import load_skeleton

AT = {name: i for i, name in enumerate(FIGURE_KEYPOINTS)}


def test_the_same_seed_draws_the_same_and_another_does_not() -> None:
    one, people = synthetic.render(np.random.default_rng(3), 96, 72)
    again, same = synthetic.render(np.random.default_rng(3), 96, 72)
    other, _ = synthetic.render(np.random.default_rng(4), 96, 72)
    assert one.shape == (72, 96, 3)
    assert one.dtype == np.uint8
    np.testing.assert_array_equal(one, again)
    assert [p.box for p in people] == [p.box for p in same]
    assert (one != other).mean() > 0.3


def test_labels_lie_on_the_people() -> None:
    """A visible keypoint is inside its person's box of pixels, an unlabelled one is zero."""
    seen = 0
    for seed in range(12):
        image, people = synthetic.render(np.random.default_rng(seed), 128, 96, (1, 4))
        assert image.std() > 5
        for person in people:
            left, top, width, height = person.box
            assert 0 < person.area <= width * height
            assert left >= 0
            assert left + width <= 128
            assert top + height <= 96
            visible = person.keypoints[person.keypoints[:, 2] == 2]
            seen += len(visible)
            assert len(visible) > 0
            assert (visible[:, 0] >= left - 1.5).all()
            assert (visible[:, 0] <= left + width + 1.5).all()
            assert (visible[:, 1] >= top - 1.5).all()
            assert (visible[:, 1] <= top + height + 1.5).all()
            hidden = person.keypoints[person.keypoints[:, 2] == 0]
            assert not hidden.any()
    assert seen > 100


def lone_person(posture: Posture, heading: float) -> synthetic_scene.Scene:
    """One person 4 m before a camera at chest height, on a grey ground."""
    rng = np.random.default_rng(5)
    camera = Camera(160, 160, 200.0, 1.0, 0.0)
    person = synthetic_scene.Person(
        Build(),
        Outfit.random(rng),
        Action("still", lambda t: posture),
        synthetic_scene.standing_at(np.array((0.0, 0.0, -4.0)), heading),
    )
    grey = np.full((160, 160, 3), 128, np.uint8)
    light = Light(np.array((0.3, 0.8, 0.52)), np.full(3, 0.7), np.full(3, 0.4), 0.4)
    ground = np.zeros((160, 160), np.float32)
    return synthetic_scene.finish_scene(rng, camera, light, grey, ground, [person], Faces())


def test_left_is_the_persons_left() -> None:
    facing = synthetic_scene.draw(lone_person(Posture(), 0.0))[1][0].keypoints
    away = synthetic_scene.draw(lone_person(Posture(), np.pi))[1][0].keypoints
    for joint in ("shoulder", "elbow", "wrist", "hip", "knee", "ankle"):
        left, right = AT[f"left_{joint}"], AT[f"right_{joint}"]
        assert facing[left, 0] > facing[right, 0]  # seen from the front, left is on the right
        assert away[left, 0] < away[right, 0]


def test_the_face_is_labelled_only_where_it_looks() -> None:
    facing = synthetic_scene.draw(lone_person(Posture(), 0.0))[1][0].keypoints
    away = synthetic_scene.draw(lone_person(Posture(), np.pi))[1][0].keypoints
    profile = synthetic_scene.draw(lone_person(Posture(), np.pi / 2))[1][0].keypoints
    face = [AT[name] for name in ("nose", "left_eye", "right_eye")]
    assert (facing[face, 2] == 2).all()
    assert (away[face, 2] == 0).all()
    # Facing +x, the person's right side is towards the camera.
    assert profile[AT["right_ear"], 2] == 2
    assert profile[AT["left_ear"], 2] == 0
    assert profile[AT["left_wrist"], 2] == 1
    assert profile[AT["right_wrist"], 2] == 2


def test_what_stands_in_front_hides() -> None:
    scene = lone_person(Posture(), 0.0)
    assert (synthetic_scene.draw(scene)[1][0].keypoints[AT["left_knee"], 2]) == 2
    from posewire.trainer.data.synthetic_faces import box

    scene.things.add(*box(np.array((-1, 0, -3.2)), np.array((1, 0.8, -3.0))), np.zeros(3), 0, 0.0)
    hidden = synthetic_scene.draw(scene)[1][0]
    assert hidden.keypoints[AT["left_knee"], 2] == 1
    assert hidden.keypoints[AT["nose"], 2] == 2
    assert hidden.box[1] + hidden.box[3] < 130  # the box is of what is seen


def test_a_body_stands_on_the_ground_and_has_its_length() -> None:
    for seed in range(8):
        rng = np.random.default_rng(seed)
        build = Build.random(rng)
        figure = pose_figure(build, Posture(), np.array((1.0, 0.0, -3.0)), 0.4)
        points = figure.keypoints
        assert abs(points[:, 1].min()) < 0.03
        assert points[AT["head_top"], 1] == pytest.approx(build.height, rel=0.07)
        forearm = points[AT["left_wrist"]] - points[AT["left_elbow"]]
        assert np.linalg.norm(forearm) == pytest.approx(build.forearm)


@pytest.mark.parametrize("name", sorted(ACTIONS))
def test_actions_are_continuous_and_within_the_limits(name: str) -> None:
    action = ACTIONS[name](np.random.default_rng(1))
    build, place = Build(), np.zeros(3)
    before = pose_figure(build, action.posture(0.0), place, 0.0).keypoints
    for step in range(1, 40):
        posture = action.posture(step * 0.02).limited()
        for side in (posture.left, posture.right):
            for item in fields(side):
                low, high = LIMITS_DEG[item.name]
                angle = np.rad2deg(getattr(side, item.name))
                assert low - 1e-6 <= angle <= high + 1e-6
        now = pose_figure(build, posture, place, 0.0).keypoints
        # Nothing moves faster than 14 m/s (a kicking or running foot).
        assert np.linalg.norm(now - before, axis=1).max() < 14 * 0.02
        before = now


def test_knees_and_elbows_bend_one_way_only() -> None:
    limited = Posture(left=type(Posture().left)(knee=-1.0, elbow=-2.0)).limited()
    assert limited.left.knee == 0
    assert limited.left.elbow == 0


def test_figure_skeleton_is_a_skeleton() -> None:
    figure = figure_skeleton()
    assert all(figure.flips[other] == i for i, other in enumerate(figure.flips))
    for name in ("coco17", "body18", "body25", "lsp14", "mpii16", "crowdpose14", "halpe26"):
        from posewire.skeleton import mapping

        assert all(mapping(figure, load_skeleton(name))), name


def test_people_round_an_ellipse_face_where_they_go() -> None:
    path = synthetic_scene.around(np.array((0.0, 0.0, -5.0)), 2.0, 0.7, 1.3, 0.5)
    for t in np.linspace(0, 9, 30):
        (here, heading), (there, _) = path(t), path(t + 0.01)
        step = (there - here) / 0.01
        assert np.linalg.norm(step) == pytest.approx(1.3, rel=0.05)
        way = np.array((np.sin(heading), 0, np.cos(heading)))
        assert step @ way / np.linalg.norm(step) > 0.99


def load(path: Path) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return data


@pytest.mark.parametrize("skeleton", ["coco17", "body18"])
def test_a_data_set_is_cocos(tmp_path: Path, skeleton: str) -> None:
    calls: list[tuple[int, int]] = []
    path = synthetic.render_dataset(
        tmp_path / "set",
        5,
        seed=1,
        width=96,
        height=64,
        people=(1, 3),
        skeleton=skeleton,
        progress=lambda done, total: calls.append((done, total)),
    )
    assert calls == [(i + 1, 5) for i in range(5)]
    data = load(path)
    count = load_skeleton(skeleton).count
    assert data["categories"][0]["keypoints"] == list(load_skeleton(skeleton).keypoints)
    assert len(data["images"]) == 5
    assert data["annotations"]
    for image in data["images"]:
        picture = cv2.imread(str(tmp_path / "set" / "images" / image["file_name"]))
        assert picture is not None
        assert picture.shape == (image["height"], image["width"], 3)
    for annotation in data["annotations"]:
        points = np.reshape(annotation["keypoints"], (count, 3))
        assert annotation["num_keypoints"] == (points[:, 2] > 0).sum() > 0
        assert set(points[:, 2]) <= {0, 1, 2}
        assert annotation["iscrowd"] == 0
        assert annotation["area"] > 0


def test_pycocotools_reads_it(tmp_path: Path) -> None:
    coco = pytest.importorskip("pycocotools.coco")
    path = synthetic.render_dataset(tmp_path, 3, seed=2, width=64, height=64)
    read = coco.COCO(str(path))
    assert sorted(read.getImgIds()) == [1, 2, 3]


def test_a_data_set_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x", encoding="utf-8")
    with pytest.raises(TrainError) as caught:
        synthetic.render_dataset(tmp_path / "file", 1, seed=1, width=32, height=32)
    assert caught.value.code is ExitCode.CANNOT_WRITE


def test_a_clip_moves_and_keeps_its_people_apart(tmp_path: Path) -> None:
    path = synthetic.render_clip(tmp_path / "clip.mp4", 0.4, 25, 128, 72, 2, seed=3)
    data = load(path)
    assert len(data["images"]) == 10
    assert data["images"][5]["t_media_ms"] == 200
    capture = cv2.VideoCapture(str(tmp_path / "clip.mp4"))
    frames = []
    while (read := capture.read())[0]:
        frames.append(read[1])
    assert len(frames) == 10
    assert frames[0].shape == (72, 128, 3)
    assert (frames[0] != frames[9]).any()
    walker = [np.reshape(a["keypoints"], (17, 3)) for a in data["annotations"] if a["person"] == 0]
    steps = [np.abs(b - a)[(a[:, 2] > 0) & (b[:, 2] > 0), :2].max() for a, b in pairwise(walker)]
    assert 0 < max(steps) < 12
    assert sorted(p.name for p in tmp_path.iterdir()) == ["clip.json", "clip.mp4"]


def test_a_clip_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(TrainError, match=r"none/clip\.mp4") as caught:
        synthetic.render_clip(tmp_path / "none" / "clip.mp4", 0.1, 25, 64, 48, 1, seed=3)
    assert caught.value.code is ExitCode.CANNOT_WRITE


def test_selftest_pictures_have_plain_names() -> None:
    from posewire.manifest import PLAIN_NAME

    pictures = list(synthetic.selftest_pictures(3, 64, 48))
    assert [name for name, _ in pictures] == [f"selftest-0{i}.jpg" for i in range(3)]
    assert all(PLAIN_NAME.fullmatch(name) for name, _ in pictures)
    assert all(data[:2] == b"\xff\xd8" for _, data in pictures)


def test_too_many_people_are_refused() -> None:
    with pytest.raises(ValueError, match=r"0\.\.15"):
        synthetic.render(np.random.default_rng(1), 64, 64, (16, 16))


def test_an_empty_scene_is_a_background() -> None:
    image, people = synthetic.render(np.random.default_rng(1), 64, 64, (0, 0))
    assert image.shape == (64, 64, 3)
    assert people == []
