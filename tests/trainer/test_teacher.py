# SPDX-License-Identifier: Apache-2.0
"""A teacher's channels find the student's by name and limb."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from posewire.trainer.config import TeacherConfig
from posewire.trainer.data.teacher import Teacher, channel_maps
from posewire.trainer.errors import TrainError

from posewire.skeleton import load_skeleton

BODY18, COCO17 = load_skeleton("body18"), load_skeleton("coco17")


def test_keypoints_are_matched_by_name() -> None:
    heat, _ = channel_maps(BODY18, COCO17, (0, 19), (19, 38))
    for k, name in enumerate(COCO17.keypoints):
        assert np.flatnonzero(heat[:, k]).tolist() == [BODY18.keypoints.index(name)]
    assert np.flatnonzero(heat[:, 17]).tolist() == [18]


def test_limbs_are_matched_by_ends_with_their_direction() -> None:
    _, field = channel_maps(BODY18, COCO17, (0, 19), (19, 38))
    seen = {"same": 0, "reversed": 0, "halves": 0, "none": 0}
    for limb, (a, b) in enumerate(COCO17.limbs):
        names = COCO17.keypoints[a], COCO17.keypoints[b]
        column = field[:, 2 * limb]
        np.testing.assert_array_equal(field[1:, 2 * limb + 1], column[:-1])
        sources = {(t - 19) // 2: column[t] for t in np.flatnonzero(column)}
        ends = {
            tuple(BODY18.keypoints[i] for i in BODY18.limbs[t]): sign for t, sign in sources.items()
        }
        if not sources:
            seen["none"] += 1
        elif names == ("left_shoulder", "right_shoulder"):
            # From the left shoulder to the neck (against the teacher's limb), then on.
            assert ends == {("neck", "left_shoulder"): -1, ("neck", "right_shoulder"): 1}
            seen["halves"] += 1
        else:
            ((pair, sign),) = ends.items()
            assert pair == (names if sign > 0 else names[::-1])
            seen["same" if sign > 0 else "reversed"] += 1
    # COCO's hip, torso and eye-eye limbs have no counterpart in OpenPose's order.
    assert seen == {"same": 8, "reversed": 6, "halves": 1, "none": 4}


def tiny_onnx(path: Path) -> None:
    """57 maps at stride 8: channel c is c plus the mean of the first input channel."""
    nodes = [
        helper.make_node("Slice", ["image", "from", "to", "axis"], ["first"]),
        helper.make_node("Transpose", ["first"], ["chw"], perm=[0, 3, 1, 2]),
        helper.make_node("AveragePool", ["chw"], ["small"], kernel_shape=[8, 8], strides=[8, 8]),
        helper.make_node("Add", ["small", "numbers"], ["maps"]),
        helper.make_node("Transpose", ["maps"], ["out"], perm=[0, 2, 3, 1]),
    ]
    constants = [
        helper.make_tensor("from", TensorProto.INT64, [1], [0]),
        helper.make_tensor("to", TensorProto.INT64, [1], [1]),
        helper.make_tensor("axis", TensorProto.INT64, [1], [3]),
        helper.make_tensor("numbers", TensorProto.FLOAT, [1, 57, 1, 1], list(range(57))),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", "h", "w", 3])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, ["n", "p", "q", 57])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    onnx.save(model, path)


def config(**changes: object) -> TeacherConfig:
    fields = {
        "onnx": "t.onnx",
        "skeleton": "body18",
        "channels": "BGR",
        "heatmaps": (0, 19),
        "pafs": (19, 38),
        "scale": 2.0,
        "offset": -1.0,
    }
    return TeacherConfig(**(fields | changes))


def test_a_teacher_sees_the_channels_it_wants_and_answers_in_the_students_order(
    tmp_path: Path,
) -> None:
    tiny_onnx(tmp_path / "t.onnx")
    teacher = Teacher(config(), tmp_path, COCO17)
    teacher.open()
    images = np.zeros((2, 16, 24, 3), np.uint8)
    images[1, ..., 2] = 50  # blue, the first of BGR
    maps = teacher(images)
    assert maps["teacher_heatmaps"].shape == (2, 2, 3, 18)
    assert maps["teacher_pafs"].shape == (2, 2, 3, 38)
    wrist = BODY18.keypoints.index("left_wrist")
    found = maps["teacher_heatmaps"][..., COCO17.keypoints.index("left_wrist")]
    np.testing.assert_allclose(found[0], wrist - 1, rtol=1e-5)
    np.testing.assert_allclose(found[1], wrist + 2 * 50 - 1, rtol=1e-5)


def test_a_description_that_contradicts_its_skeleton_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainError, match=r"teacher\.pafs: body18 has 19 limbs"):
        Teacher(config(pafs=(19, 36)), tmp_path, COCO17)
    with pytest.raises(TrainError, match=r"t\.onnx not found"):
        Teacher(config(), tmp_path, COCO17).open()
