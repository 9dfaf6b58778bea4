# SPDX-License-Identifier: Apache-2.0
"""How decoded people agree with the known ones, over any number of frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..decode import Poses
from .encoder import People


@dataclass(frozen=True)
class Agreement:
    """Keypoints over frames: there in truth, found, and matched (the right person, within a cell).

    ``error_px`` is the summed distance of the matched ones, network pixels.
    """

    truth: int
    found: int
    matched: int
    error_px: float
    cell_px: float

    @property
    def recall(self) -> float:
        """Matched of the true keypoints; 1 without any."""
        return self.matched / self.truth if self.truth else 1.0

    @property
    def precision(self) -> float:
        """Matched of the found keypoints; 1 without any."""
        return self.matched / self.found if self.found else 1.0

    @property
    def error_cells(self) -> float:
        """Mean distance of the matched keypoints, in cells; 0 without any."""
        return self.error_px / self.matched / self.cell_px if self.matched else 0.0


def agreement(truth: Sequence[People], poses: Sequence[Poses], cell_px: float) -> Agreement:
    """Frames of true people [P, K, 3] against what was decoded of them, in network pixels.

    People are paired one to one, greedily by the number of keypoints within one cell.
    """
    total = found = matched = 0
    error = 0.0
    for people, decoded in zip(truth, poses, strict=True):
        total += int((people[..., 2] > 0).sum())
        found += int((decoded.keypoints[..., 2] > 0).sum())
        if len(people) == 0 or len(decoded.scores) == 0:
            continue
        offset = people[:, None, :, :2] - decoded.keypoints[None, :, :, :2]
        distance = np.hypot(offset[..., 0], offset[..., 1])  # [P, found people, K]
        both = (people[:, None, :, 2] > 0) & (decoded.keypoints[None, :, :, 2] > 0)
        near = both & (distance <= cell_px)
        hits = near.sum(axis=-1)
        while hits.max() > 0:
            person, pose = np.unravel_index(hits.argmax(), hits.shape)
            matched += int(hits[person, pose])
            error += float(distance[person, pose][near[person, pose]].sum())
            hits[person, :] = hits[:, pose] = 0
    return Agreement(total, found, matched, error, cell_px)
