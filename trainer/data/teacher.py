# SPDX-License-Identifier: Apache-2.0
"""A teacher: a network whose maps are soft targets where the labels are silent.

It sees the very picture the student sees, on the data workers, through OpenVINO. Its channels are
matched to the student's by keypoint name and by limb: a limb drawn the other way round changes
sign, and a limb that the teacher draws in two halves over a midpoint (neck between the shoulders)
is put together from them. A channel that it lacks has weight 0.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posewire.errors import ExitCode
from posewire.skeleton import Skeleton, load_skeleton, mapping

from ..algorithm import TeacherWeights
from ..config import TeacherConfig, find_path
from ..errors import TrainError

Floats = NDArray[np.float32]


def channel_maps(
    teacher: Skeleton, student: Skeleton, heatmaps: tuple[int, int], pafs: tuple[int, int]
) -> tuple[Floats, Floats]:
    """Matrices from the teacher's channels to the student's [T, K + 1] and [T, 2L].

    A zero column is a channel the teacher has no opinion about.
    """
    total = max(heatmaps[0] + heatmaps[1], pafs[0] + pafs[1])
    heat = np.zeros((total, student.count + 1), np.float32)
    rules = mapping(teacher, student)
    for k, sources in enumerate(rules):
        if len(sources) == 1:
            heat[heatmaps[0] + sources[0], k] = 1.0
    if heatmaps[1] == teacher.count + 1:
        heat[heatmaps[0] + teacher.count, student.count] = 1.0
    field = np.zeros((total, 2 * len(student.limbs)), np.float32)
    index = {rule[0]: k for k, rule in enumerate(rules) if len(rule) == 1}  # teacher -> student
    middles = {t: set(rule) for t, rule in enumerate(mapping(student, teacher)) if len(rule) == 2}
    for number, limb in enumerate(student.limbs):
        for t, sign in _pieces(teacher, index, middles, limb):
            for axis in range(2):
                field[pafs[0] + 2 * t + axis, 2 * number + axis] = sign
    return heat, field


def _pieces(
    teacher: Skeleton,
    index: dict[int, int],
    middles: dict[int, set[int]],
    limb: tuple[int, int],
) -> list[tuple[int, float]]:
    """The teacher's limbs, with signs, that together are ``limb`` of the student."""
    ends = [(index.get(a), index.get(b)) for a, b in teacher.limbs]
    for t, pair in enumerate(ends):
        if pair == limb:
            return [(t, 1.0)]
        if pair == limb[::-1]:
            return [(t, -1.0)]
    for middle, sides in middles.items():
        if sides != set(limb):
            continue
        halves = []
        for student_end, towards in ((limb[0], True), (limb[1], False)):
            for t, (a, b) in enumerate(teacher.limbs):
                if a == middle and index.get(b) == student_end:
                    halves.append((t, -1.0 if towards else 1.0))
                elif b == middle and index.get(a) == student_end:
                    halves.append((t, 1.0 if towards else -1.0))
        if len(halves) == 2:
            return halves
    return []


class Teacher:
    """Runs the teacher over batches. ``open`` loads it; calls come from one thread at a time."""

    def __init__(self, config: TeacherConfig, folder: Path, student: Skeleton) -> None:
        self.config = config
        self._folder = folder
        skeleton = load_skeleton(config.skeleton)
        if config.heatmaps[1] not in (skeleton.count, skeleton.count + 1):
            raise TrainError(f"teacher.heatmaps: {skeleton.name} has {skeleton.count} keypoints")
        if config.pafs[1] != 2 * len(skeleton.limbs):
            raise TrainError(f"teacher.pafs: {skeleton.name} has {len(skeleton.limbs)} limbs")
        self._heat, self._field = channel_maps(skeleton, student, config.heatmaps, config.pafs)
        self._request: Any = None

    @property
    def weights(self) -> TeacherWeights:
        """What the loss needs to know."""
        channels = {
            "heatmaps": np.abs(self._heat).max(axis=0),
            "pafs": np.abs(self._field).max(axis=0),
        }
        return TeacherWeights(self.config.weight_unknown, self.config.weight_known, channels)

    def open(self) -> None:
        """Loads the network. Raises TrainError (SOURCE, UNAVAILABLE)."""
        path = find_path(self.config.onnx, self._folder, "teacher.onnx")
        try:
            import openvino
        except ImportError as error:
            raise TrainError("teacher: needs openvino", ExitCode.UNAVAILABLE) from error
        try:
            model = openvino.Core().compile_model(
                str(path),
                "CPU",
                {
                    "INFERENCE_NUM_THREADS": self.config.threads,
                    "INFERENCE_PRECISION_HINT": self.config.precision,
                },
            )
        except RuntimeError as error:
            raise TrainError(f"{path}: {error}", ExitCode.SOURCE) from error
        self._request = model.create_infer_request()

    def __call__(self, images: NDArray[np.uint8]) -> dict[str, Floats]:
        """RGB uint8 [B, H, W, 3] -> the student's maps [B, h, w, C] by output name."""
        batch = images[..., ::-1] if self.config.channels == "BGR" else images
        values = batch.astype(np.float32) * self.config.scale + self.config.offset
        if self.config.layout == "NCHW":
            values = np.ascontiguousarray(values.transpose(0, 3, 1, 2))
        found = np.asarray(next(iter(self._request.infer([values]).values())), np.float32)
        if self.config.layout == "NCHW":
            found = found.transpose(0, 2, 3, 1)
        rows, columns = (n // self.config.stride for n in images.shape[1:3])
        if found.shape[1:] != (rows, columns, len(self._heat)):
            raise TrainError(
                f"teacher: gives {found.shape[1:]}, expected {(rows, columns, len(self._heat))}"
            )
        return {"teacher_heatmaps": found @ self._heat, "teacher_pafs": found @ self._field}
