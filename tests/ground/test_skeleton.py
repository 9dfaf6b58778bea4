# SPDX-License-Identifier: Apache-2.0
"""Skeletons: the shipped ones, what is refused, and conversion between them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from posewire.errors import BundleError, ExitCode
from posewire.skeleton import Skeleton, convert_keypoints, load_skeleton, mapping, skeleton_names

COUNTS = {
    "body18": 18,
    "body25": 25,
    "coco17": 17,
    "coco_wholebody133": 133,
    "crowdpose14": 14,
    "halpe26": 26,
    "hand21": 21,
    "lsp14": 14,
    "mpii16": 16,
}


def test_every_shipped_skeleton_is_listed() -> None:
    assert skeleton_names() == tuple(sorted(COUNTS))


@pytest.mark.parametrize("name", sorted(COUNTS))
def test_shipped_skeleton(name: str) -> None:
    skeleton = load_skeleton(name)
    assert skeleton.count == COUNTS[name] == len(skeleton.sigmas)
    assert skeleton.is_connected()
    assert Skeleton.from_dict(skeleton.to_dict()) == skeleton
    for index, other in enumerate(skeleton.flips):
        a, b = skeleton.keypoints[index], skeleton.keypoints[other]
        if a.startswith("left_"):
            assert b == a.replace("left_", "right_", 1)
        # sigmas follow the joint, not the side; COCO-WholeBody's own feet are the exception
        if not (name == "coco_wholebody133" and index > 16):
            assert skeleton.sigmas[index] == skeleton.sigmas[other]


def test_coco_is_coco() -> None:
    pycocotools = pytest.importorskip("pycocotools.cocoeval")
    official = pycocotools.Params(iouType="keypoints").kpt_oks_sigmas
    np.testing.assert_allclose(load_skeleton("coco17").sigmas, official)


def good() -> dict[str, Any]:
    return load_skeleton("coco17").to_dict()


@pytest.mark.parametrize(
    ("key", "value", "named"),
    [
        ("colors", [], "colors: unknown key"),
        ("name", "Has Space", "name"),
        ("keypoints", [], "keypoints"),
        ("keypoints", "nose", "keypoints"),
        ("limbs", [[0, 1, 2]], "limbs[0]"),
        ("limbs", [[0, 17]], "limbs[0]"),
        ("limbs", [[0, 1], [1, 0]], "limbs[1]"),
        ("limbs", [[0, True]], "limbs[0]"),
        ("flips", [0] * 17, "flips[1]"),
        ("flips", [0], "flips"),
        ("sigmas", [0.1] * 16, "sigmas"),
        ("sigmas", [0.1] * 16 + [-0.1], "sigmas[16]"),
        ("sigmas", [0.1] * 16 + [float("nan")], "sigmas[16]"),
    ],
)
def test_a_bad_skeleton_names_file_and_key(key: str, value: Any, named: str) -> None:
    with pytest.raises(BundleError) as caught:
        Skeleton.from_dict({**good(), key: value}, "some/file.json: skeleton")
    assert str(caught.value).startswith(f"some/file.json: skeleton.{named}")
    assert caught.value.code == ExitCode.BUNDLE


def test_an_unknown_skeleton_lists_the_known() -> None:
    with pytest.raises(BundleError, match="known are body18, body25"):
        load_skeleton("../coco17")


def test_coco_to_openpose_is_the_published_table() -> None:
    coco, body = load_skeleton("coco17"), load_skeleton("body18")
    # algorithms.md: COCO index -> index in OpenPose's 18
    table = {0: 0, 1: 15, 2: 14, 3: 17, 4: 16, 5: 5, 6: 2, 7: 6, 8: 3, 9: 7, 10: 4, 11: 11}
    table |= {12: 8, 13: 12, 14: 9, 15: 13, 16: 10}
    rules = mapping(coco, body)
    assert {sources[0]: i for i, sources in enumerate(rules) if len(sources) == 1} == table
    assert rules[1] == (5, 6)


def test_derived_keypoints_need_all_their_sources() -> None:
    coco, body = load_skeleton("coco17"), load_skeleton("body25")
    points = np.zeros((3, 17, 3), np.float32)
    points[0, 5], points[0, 6] = (10, 20, 2), (30, 40, 1)
    points[1, 5] = (10, 20, 2)
    result = convert_keypoints(points, coco, body)
    neck, mid_hip = body.keypoints.index("neck"), body.keypoints.index("mid_hip")
    np.testing.assert_array_equal(result[0, neck], (20, 30, 1))
    np.testing.assert_array_equal(result[1, neck], (0, 0, 0))
    assert not result[:, mid_hip].any()
    assert result.shape == (3, 25, 3)
    assert result.dtype == np.float32


def test_the_same_word_in_two_sets_may_mean_two_points() -> None:
    lsp, body = load_skeleton("lsp14"), load_skeleton("body18")
    neck = body.keypoints.index("neck")
    shoulders = {lsp.keypoints.index(f"{side}_shoulder") for side in ("left", "right")}
    assert set(mapping(lsp, body)[neck]) == shoulders
    mpii = load_skeleton("mpii16")
    upper = mpii.keypoints.index("upper_neck")
    assert mapping(lsp, mpii)[upper] == (lsp.keypoints.index("neck"),)


@pytest.mark.parametrize("name", sorted(COUNTS))
def test_converting_to_itself_changes_nothing_that_is_labelled(name: str) -> None:
    skeleton = load_skeleton(name)
    rng = np.random.default_rng(1)
    points = rng.uniform(1, 100, (4, skeleton.count, 3)).astype(np.float32)
    points[..., 2] = rng.integers(0, 3, (4, skeleton.count))
    expected = np.where(points[..., 2:] > 0, points, 0)
    np.testing.assert_array_equal(convert_keypoints(points, skeleton, skeleton), expected)


def test_mirroring_commutes_with_conversion() -> None:
    coco = load_skeleton("coco17")
    points = np.random.default_rng(2).uniform(1, 99, (5, 17, 3)).astype(np.float32)
    for name in ("body18", "body25", "crowdpose14", "mpii16", "lsp14", "halpe26"):
        target = load_skeleton(name)
        one = convert_keypoints(points, coco, target)[:, list(target.flips)]
        other = convert_keypoints(points[:, list(coco.flips)], coco, target)
        np.testing.assert_allclose(one, other)


def test_a_wrong_shape_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\[N, 17, 3\]"):
        convert_keypoints(np.zeros((2, 18, 3)), load_skeleton("coco17"), load_skeleton("body18"))
