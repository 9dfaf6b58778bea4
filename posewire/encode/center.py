# SPDX-License-Identifier: Apache-2.0
"""One-stage networks: a person is one place of the output (cpp/decode/center.cpp).

``FORMS`` has an encoder per family; ``ENCODER`` is CenterNet's, which uses most of the row.

centernet  Zhou et al., "Objects as Points" (arXiv 1904.07850), section 4.2, targets as in the
           authors' code: Gaussians around whole cells, their width from the box, regressions at
           those cells; coordinates of the house (cell i's centre is s i + (s - 1) / 2)
dekr       Geng et al. (CVPR 2021, arXiv 2104.02300), targets as in the authors' code: offsets from
           the keypoint to every cell around the centre, the centre being the keypoints' mean, cell
           i standing for pixel s i
rows       Ultralytics' YOLO-pose: a row for each cell of strides 8, 16 and 32
pairs      the same rows as boxes by corners and keypoints: RTMO (arXiv 2312.07526) as exported
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..skeleton import Skeleton
from . import gaussian
from .encoder import Array, Encoder, People, cell_centres, cells

STRIDE = 4
ROW_STRIDES = (8, 16, 32)
_BOX_GROWTH = 0.1  # a labelled box is larger than its keypoints' extents, each way
_LEAST_IOU = 0.7  # of a box moved by a Gaussian's radius
_DEKR_SIGMA, _DEKR_CENTRE_SIGMA, _DEKR_REACH = 2.0, 4.0, 4  # cells
_NEIGHBOUR_SCORE = 0.8  # of the rows beside a person's own


def _boxes(people: People) -> NDArray[np.float64]:
    """[P, K, 3] -> [P, 4] x1, y1, x2, y2: grown extents of the keypoints that are there."""
    there = people[:, :, 2:] > 0
    low = np.where(there, people[..., :2], np.inf).min(axis=1)
    high = np.where(there, people[..., :2], -np.inf).max(axis=1)
    margin = np.maximum(_BOX_GROWTH * (high - low), 2.0)
    return np.concatenate([low - margin, high + margin], axis=1)


def _seen(people: People) -> People:
    """The people with any keypoint."""
    return people[(people[..., 2] > 0).any(axis=1)] if len(people) else people


# ---- CenterNet


def _centernet_outputs(skeleton: Skeleton, width: int, height: int) -> list[dict[str, Any]]:
    channels = {
        "centers": 1,
        "offsets": 2 * skeleton.count,
        "heatmaps": skeleton.count,
        "heatmap_offset": 2,
        "sizes": 2,
        "center_offset": 2,
    }
    return [{"name": n, "channels": c, "stride": STRIDE} for n, c in channels.items()]


def _radius(width: float, height: float) -> int:
    """Cells that a box may grow by each way and still overlap itself by 0.7 (CornerNet, Law and
    Deng 2018, section 3.2; the case that decides in the authors' code)."""
    half = _LEAST_IOU * (width + height)
    root = math.sqrt(half**2 + 4 * _LEAST_IOU * (1 - _LEAST_IOU) * width * height)
    return max(0, int(root - half))


def _splat(
    plane: NDArray[np.float64], column: int, row: int, radius: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The maximum of the plane and a Gaussian around a cell, sigma a sixth of its diameter.

    Returns the rows and columns of the cells that it raised.
    """
    height, width = plane.shape
    ys = np.arange(max(0, row - radius), min(height, row + radius + 1))
    xs = np.arange(max(0, column - radius), min(width, column + radius + 1))
    sigma = (2 * radius + 1) / 6
    squared = (ys[:, None] - row) ** 2 + (xs[None, :] - column) ** 2
    gauss = np.exp(-squared / (2 * sigma**2))
    window = np.ix_(ys, xs)
    raised = np.nonzero(gauss > plane[window])
    plane[window] = np.maximum(plane[window], gauss)
    return ys[raised[0]], xs[raised[1]]


def _centernet(people: People, skeleton: Skeleton, width: int, height: int) -> dict[str, Array]:
    columns, rows = cells(width, STRIDE), cells(height, STRIDE)
    maps = {
        spec["name"]: np.zeros((spec["channels"], rows, columns))
        for spec in _centernet_outputs(skeleton, width, height)
    }
    people = _seen(people)
    boxes = (_boxes(people) - (STRIDE - 1) / 2) / STRIDE
    for person, box in zip(people, boxes, strict=True):
        spots = (person[:, :2] - (STRIDE - 1) / 2) / STRIDE
        size = box[2:] - box[:2]
        radius = _radius(*size)
        middle = (box[:2] + box[2:]) / 2
        column, row = np.clip(np.rint(middle).astype(int), 0, (columns - 1, rows - 1))
        # Trained at the centre's cell only; around it a network says of the same person as much.
        ys, xs = _splat(maps["centers"][0], column, row, radius)
        maps["sizes"][:, ys, xs] = size[:, None]
        maps["center_offset"][:, ys, xs] = middle[:, None] - (xs, ys)
        for k in np.flatnonzero(person[:, 2] > 0):
            maps["offsets"][2 * k : 2 * k + 2, ys, xs] = spots[k][:, None] - (xs, ys)
            x, y = np.rint(spots[k]).astype(int)
            if 0 <= x < columns and 0 <= y < rows:
                _splat(maps["heatmaps"][k], x, y, radius)
                maps["heatmap_offset"][:, y, x] = spots[k] - (x, y)
    return {name: values.astype(np.float32) for name, values in maps.items()}


# ---- DEKR


def _dekr_outputs(skeleton: Skeleton, width: int, height: int) -> list[dict[str, Any]]:
    return [
        {"name": "heatmaps", "channels": skeleton.count + 1, "stride": STRIDE},
        {"name": "offsets", "channels": 2 * skeleton.count, "stride": STRIDE},
    ]


def _dekr(people: People, skeleton: Skeleton, width: int, height: int) -> dict[str, Array]:
    people = _seen(people)
    there = people[..., 2:] > 0
    middles = (people[..., :2] * there).sum(axis=1) / np.maximum(there.sum(axis=1), 1)
    # The shared Gaussians are the house's: moved, so that cell i stands for pixel s i.
    half = (STRIDE - 1) / 2
    moved = people + np.array([half, half, 0])
    centres = np.concatenate([middles + half, np.ones((len(people), 1))], axis=1)
    joints = gaussian.heatmaps(moved, width, height, STRIDE, _DEKR_SIGMA)
    centre = gaussian.heatmaps(
        centres[:, None, :].reshape(-1, 1, 3), width, height, STRIDE, _DEKR_CENTRE_SIGMA
    )
    if not len(people):
        joints = np.zeros((skeleton.count, *centre.shape[1:]), np.float32)
    offsets = np.zeros((2 * skeleton.count, *centre.shape[1:]))
    boxes = _boxes(people)
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    for p in np.argsort(-areas):  # of overlapping ones the smaller person's stay
        x, y = (middles[p] / STRIDE).astype(int)
        rows = slice(max(y - _DEKR_REACH, 0), y + _DEKR_REACH)
        columns = slice(max(x - _DEKR_REACH, 0), x + _DEKR_REACH)
        ys, xs = np.mgrid[rows, columns][:, : offsets.shape[1], : offsets.shape[2]]
        inside = (ys < offsets.shape[1]) & (xs < offsets.shape[2])
        ys, xs = ys[inside], xs[inside]
        for k in np.flatnonzero(people[p, :, 2] > 0):
            offsets[2 * k, ys, xs] = xs - people[p, k, 0] / STRIDE
            offsets[2 * k + 1, ys, xs] = ys - people[p, k, 1] / STRIDE
    return {
        "heatmaps": np.concatenate([joints, centre]).astype(np.float32),
        "offsets": offsets.astype(np.float32),
    }


# ---- rows


def _length(width: int, height: int) -> int:
    return sum(cells(width, s) * cells(height, s) for s in ROW_STRIDES)


def _rows_outputs(skeleton: Skeleton, width: int, height: int) -> list[dict[str, Any]]:
    channels = 5 + 3 * skeleton.count
    return [{"name": "rows", "channels": channels, "length": _length(width, height)}]


def _rows(people: People, skeleton: Skeleton, width: int, height: int) -> dict[str, Array]:
    people = _seen(people)
    boxes = _boxes(people)
    anchors, strides = [], []
    for stride in ROW_STRIDES:
        ys, xs = np.meshgrid(
            cell_centres(cells(height, stride), stride),
            cell_centres(cells(width, stride), stride),
            indexing="ij",
        )
        anchors.append(np.stack([xs.ravel(), ys.ravel()]))
        strides.append(np.full(xs.size, float(stride)))
    places, stride_of = np.concatenate(anchors, axis=1), np.concatenate(strides)
    # A row without a person: a box and keypoints on its own cell, and scores near 0.
    rows = np.zeros((5 + 3 * skeleton.count, places.shape[1]))
    rows[:2], rows[2:4], rows[4] = places, stride_of, 1e-4
    rows[5::3], rows[6::3] = places[0], places[1]
    for person, box in zip(people, boxes, strict=True):
        middle = (box[:2] + box[2:]) / 2
        # The nearest cell of every stride, and those around it with a lower score: duplicates that
        # the decoder must drop, as many rows of a real network answer to one person.
        steps = np.abs(places - middle[:, None]).max(axis=0) / stride_of
        score = np.where(steps <= 0.5, 1.0, np.where(steps <= 1.5, _NEIGHBOUR_SCORE, 0.0))
        mine = np.flatnonzero(score > rows[4])
        rows[4, mine] = score[mine] - 1e-3 * np.arange(len(mine)) / len(mine)
        rows[:2, mine] = middle[:, None]
        rows[2:4, mine] = (box[2:] - box[:2])[:, None]
        for axis in (0, 1):
            rows[5 + axis :: 3, mine] = person[:, axis : axis + 1]
        rows[7::3, mine] = (person[:, 2:] > 0) * 1.0
    return {"rows": rows.astype(np.float32)}


def _pairs_outputs(skeleton: Skeleton, width: int, height: int) -> list[dict[str, Any]]:
    length = _length(width, height)
    return [
        {"name": "boxes", "channels": 5, "length": length},
        {"name": "keypoints", "channels": 3 * skeleton.count, "length": length},
    ]


def _pairs(people: People, skeleton: Skeleton, width: int, height: int) -> dict[str, Array]:
    rows = _rows(people, skeleton, width, height)["rows"]
    half = rows[2:4] / 2
    boxes = np.concatenate([rows[:2] - half, rows[:2] + half, rows[4:5]])
    return {"boxes": boxes, "keypoints": rows[5:].copy()}


_DEKR_DECODE = {"origin_px": 0.0, "toward_center": True}
FORMS: Mapping[str, Encoder] = {
    "centernet": Encoder("bottom_up", STRIDE, _centernet_outputs, _centernet, {}),
    "dekr": Encoder("bottom_up", STRIDE, _dekr_outputs, _dekr, _DEKR_DECODE),
    "rows": Encoder("bottom_up", ROW_STRIDES[0], _rows_outputs, _rows, {}),
    "pairs": Encoder("bottom_up", ROW_STRIDES[0], _pairs_outputs, _pairs, {}),
}
ENCODER = FORMS["centernet"]
