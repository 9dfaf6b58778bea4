# SPDX-License-Identifier: Apache-2.0
"""Pose Proposal Networks (Sekii, ECCV 2018) at stride 32, targets as in HyperPose's port.

A kind is a keypoint or, last, the person instance: K + 1. ``conf`` [K + 1] is 1 in the cell of the
box's centre; ``iou`` there is a perfect network's: 1. ``x``, ``y``: the centre in its cell, 0 … 1,
cell i beginning at pixel 32 i; ``w``, ``h``: the box as a share of the input, an eighth of the
person's longer side for keypoints and a quarter for the instance. ``edges`` [81 L]: 1 where limb l
of the skeleton begins in the cell and ends in the one displaced by (dx, dy).

Two keypoints of one kind in one cell are one to this network: the larger person's, taken to be the
nearer one, stays. A limb that reaches further than four cells has no edge: the larger a person, the
more of its limbs are lost, as they are to the real network.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..skeleton import Skeleton
from .encoder import Array, Encoder, People, cells

STRIDE = 32
REACH = 4  # cells
_KINDS = ("conf", "iou", "x", "y", "w", "h")
_SIZE, _INSTANCE_SIZE = 1 / 8, 1 / 4  # of the person's longer side
_BOX_GROWTH = 0.1  # a labelled box is larger than its keypoints' extents, each way


def outputs(skeleton: Skeleton, width: int, height: int) -> list[dict[str, Any]]:
    """The manifest's outputs."""
    specs = [{"name": name, "channels": skeleton.count + 1, "stride": STRIDE} for name in _KINDS]
    edges = (2 * REACH + 1) ** 2 * len(skeleton.limbs)
    return [*specs, {"name": "edges", "channels": edges, "stride": STRIDE}]


def render(people: People, skeleton: Skeleton, width: int, height: int) -> dict[str, Array]:
    """One frame; see the module's description."""
    shape = (cells(height, STRIDE), cells(width, STRIDE))
    maps = {name: np.zeros((skeleton.count + 1, *shape)) for name in _KINDS}
    window = 2 * REACH + 1
    edges = np.zeros((len(skeleton.limbs), window, window, *shape))
    owner = np.full((skeleton.count + 1, *shape), -1)
    people = people[(people[..., 2] > 0).any(axis=1)] if len(people) else people
    longer = [_longer_side(person) for person in people]
    for p in np.argsort(longer):  # the largest last
        for k, (x, y, there) in enumerate(_with_instance(people[p])):
            column, row = int(x // STRIDE), int(y // STRIDE)
            if there <= 0 or not (0 <= row < shape[0] and 0 <= column < shape[1]):
                continue
            side = longer[p] * (_INSTANCE_SIZE if k == skeleton.count else _SIZE)
            told = (1, 1, x / STRIDE - column, y / STRIDE - row, side / width, side / height)
            for name, value in zip(_KINDS, told, strict=True):
                maps[name][k, row, column] = value
            owner[k, row, column] = p
    for limb, (first, second) in enumerate(skeleton.limbs):
        for p, row, column in _cells_of(owner[first]):
            for q, other_row, other_column in _cells_of(owner[second]):
                dy, dx = other_row - row + REACH, other_column - column + REACH
                if p == q and 0 <= dy < window and 0 <= dx < window:
                    edges[limb, dy, dx, row, column] = 1
    maps["edges"] = edges.reshape(-1, *shape)
    return {name: values.astype(np.float32) for name, values in maps.items()}


def _longer_side(person: NDArray[np.float64]) -> float:
    spots = person[person[:, 2] > 0, :2]
    return float(np.ptp(spots, axis=0).max() * (1 + 2 * _BOX_GROWTH))


def _with_instance(person: NDArray[np.float64]) -> NDArray[np.float64]:
    """[K, 3] -> [K + 1, 3]: the middle of the keypoints' extents last."""
    spots = person[person[:, 2] > 0, :2]
    middle = (spots.min(axis=0) + spots.max(axis=0)) / 2
    return np.concatenate([person, [[*middle, 1]]])


def _cells_of(owner: NDArray[np.int64]) -> list[tuple[int, int, int]]:
    """(person, row, column) of every cell that is somebody's."""
    return [(int(owner[r, c]), int(r), int(c)) for r, c in np.argwhere(owner >= 0)]


ENCODER = Encoder("bottom_up", STRIDE, outputs, render, {})
