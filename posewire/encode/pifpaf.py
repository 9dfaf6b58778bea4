# SPDX-License-Identifier: Apache-2.0
"""Composite fields (Kreiss et al., CVPR 2019; arXiv 2103.02440, section 3) at stride 8.

As the heads of OpenPifPaf 0.12 and 0.13 export them: ``cif`` [5K] is b, confidence, x, y, scale per
keypoint and ``caf`` [8L] is b, confidence, x1, y1, x2, y2, scale1, scale2 per limb; x and y are
positions in the map in cells, scales are in cells, b is the logarithm of the width in cells.

Targets as that project's encoder makes them: 4 x 4 cells around a keypoint, of two people's the
nearer; along a limb 3 x 3 cells around points of its middle, of two limbs' the one whose line is
nearer. A person's scale is the square root of the area that its keypoints span (no correction for
absent ones), times the keypoint's OKS sigma. Inactive cells point at themselves with a
confidence of 0.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..skeleton import Skeleton
from .encoder import Array, Encoder, People, cells

STRIDE = 8
SIDE = 4  # cells of a keypoint's patch, each way
LIMB_SIDE = 3  # cells of the patch that is drawn along a limb
WIDTH_PX = 0.1  # b's: what the project calls bmin
MIN_SCALE = 0.1  # cells: of somebody without an extent

Field = NDArray[np.float64]


def outputs(skeleton: Skeleton, width: int, height: int) -> list[dict[str, Any]]:
    """The manifest's outputs."""
    return [
        {"name": "cif", "channels": 5 * skeleton.count, "stride": STRIDE},
        {"name": "caf", "channels": 8 * len(skeleton.limbs), "stride": STRIDE},
    ]


def render(people: People, skeleton: Skeleton, width: int, height: int) -> dict[str, Array]:
    """One frame; see the module's description."""
    shape = cells(height, STRIDE), cells(width, STRIDE)
    placed = people.copy()
    placed[..., :2] = (people[..., :2] - (STRIDE - 1) / 2) / STRIDE  # cells
    sigmas = np.asarray(skeleton.sigmas)
    scales = np.array([_scale(person) for person in placed]).reshape(-1, 1) * sigmas  # [P, K]
    cif = [_intensity(placed[:, k], scales[:, k], shape) for k in range(skeleton.count)]
    caf = [_association(placed[:, [a, b]], scales[:, [a, b]], shape) for a, b in skeleton.limbs]
    return {
        "cif": np.concatenate(cif).astype(np.float32),
        "caf": np.concatenate(caf).astype(np.float32),
    }


def _scale(person: NDArray[np.float64]) -> float:
    there = person[person[:, 2] > 0, :2]
    if len(there) == 0:
        return MIN_SCALE
    return max(MIN_SCALE, float(np.sqrt(np.prod(there.max(axis=0) - there.min(axis=0)))))


def _blank(points: int, shape: tuple[int, int]) -> Field:
    """Inactive cells: [2 + 3 * points, H, W]."""
    ys, xs = np.mgrid[0 : shape[0], 0 : shape[1]].astype(np.float64)
    field = np.zeros((2 + 3 * points, *shape))
    field[2 : 2 + 2 * points : 2] = xs
    field[3 : 3 + 2 * points : 2] = ys
    return field


def _intensity(keypoints: Field, scales: Field, shape: tuple[int, int]) -> Field:
    """One keypoint type of all people, [P, 3] -> [5, H, W]."""
    field = _blank(1, shape)
    nearest = np.full(shape, np.inf)
    for (x, y, there), scale in zip(keypoints, scales, strict=True):
        if there <= 0:
            continue
        left, top = np.round(np.array([x, y]) - (SIDE - 1) / 2).astype(int)
        for row in range(max(top, 0), min(top + SIDE, shape[0])):
            for column in range(max(left, 0), min(left + SIDE, shape[1])):
                distance = np.hypot(x - column, y - row)
                if distance < nearest[row, column]:
                    nearest[row, column] = distance
                    field[:, row, column] = np.log(WIDTH_PX / STRIDE), 1, x, y, scale
    return field


def _association(ends: Field, scales: Field, shape: tuple[int, int]) -> Field:
    """One limb of all people, [P, 2, 3] -> [8, H, W]."""
    field = _blank(2, shape)
    nearest = np.full(shape, np.inf)
    for ((ax, ay, a_there), (bx, by, b_there)), (a_scale, b_scale) in zip(
        ends, scales, strict=True
    ):
        if a_there <= 0 or b_there <= 0:
            continue
        dx, dy = bx - ax, by - ay
        length = float(np.hypot(dx, dy))
        for row, column in _along(ax, ay, dx, dy, length, shape):
            across = abs(dy * (column - ax) - dx * (row - ay)) / (length + 0.01)
            if across <= nearest[row, column]:
                nearest[row, column] = across
                log_width = np.log(WIDTH_PX / STRIDE)
                field[:, row, column] = log_width, 1, ax, ay, bx, by, a_scale, b_scale
    return field


def _along(
    ax: float, ay: float, dx: float, dy: float, length: float, shape: tuple[int, int]
) -> list[tuple[int, int]]:
    """Cells (row, column) of a limb: patches around points of its middle, each cell once."""
    margin = float(np.clip(LIMB_SIDE / 2 / (length + 1e-9), 0.25, 0.4))
    reach = range(-(LIMB_SIDE // 2), LIMB_SIDE // 2 + 1)
    found: dict[tuple[int, int], None] = {}
    for share in np.linspace(margin, 1 - margin, max(2, int(np.ceil(length)))):
        for below in reach:
            for right in reach:
                row = int(np.round(ay + share * dy + below))
                column = int(np.round(ax + share * dx + right))
                if 0 <= row < shape[0] and 0 <= column < shape[1]:
                    found[row, column] = None
    return list(found)


ENCODER = Encoder("bottom_up", STRIDE, outputs, render, {})
