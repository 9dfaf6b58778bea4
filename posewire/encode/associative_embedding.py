# SPDX-License-Identifier: Apache-2.0
"""Associative embedding (Newell et al., NeurIPS 2017; HigherHRNet, Cheng et al., CVPR 2020).

``heatmaps`` [K] at stride 4: a Gaussian of two cells per keypoint, the maximum over people (section
3.3 of HigherHRNet: two cells at every stride). ``tags`` [K] at stride 4: the loss only asks that a
person's keypoints have one value and different people's are apart, by about one at least; here they
are 1.7 apart, on the cells where the person's Gaussian is over 0.1 and the highest, 0 elsewhere.
With ``FINE``, ``heatmaps_2`` [K] at stride 2 too, as HigherHRNet and LitePose have it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..skeleton import Skeleton
from . import gaussian
from .encoder import Array, Encoder, People

STRIDE = 4
SIGMA_CELLS = 2.0
TAG_STEP = 1.7
PAINTED = 0.1


def outputs(skeleton: Skeleton, width: int, height: int) -> list[dict[str, Any]]:
    """The manifest's outputs."""
    return [
        {"name": "heatmaps", "channels": skeleton.count, "stride": STRIDE},
        {"name": "tags", "channels": skeleton.count, "stride": STRIDE},
    ]


def render(people: People, skeleton: Skeleton, width: int, height: int) -> dict[str, Array]:
    """One frame; see the module's description."""
    heatmaps = gaussian.heatmaps(people, width, height, STRIDE, SIGMA_CELLS)
    tags = np.zeros_like(heatmaps)
    for i, person in enumerate(people):
        own = gaussian.heatmaps(person[None], width, height, STRIDE, SIGMA_CELLS)
        tags[(own > PAINTED) & (own == heatmaps)] = TAG_STEP * (i + 1)
    return {"heatmaps": heatmaps, "tags": tags}


def fine_outputs(skeleton: Skeleton, width: int, height: int) -> list[dict[str, Any]]:
    """The manifest's outputs with the second resolution."""
    fine = {"name": "heatmaps_2", "channels": skeleton.count, "stride": STRIDE // 2}
    return [*outputs(skeleton, width, height), fine]


def fine_render(people: People, skeleton: Skeleton, width: int, height: int) -> dict[str, Array]:
    """One frame with the second resolution."""
    fine = gaussian.heatmaps(people, width, height, STRIDE // 2, SIGMA_CELLS)
    return {**render(people, skeleton, width, height), "heatmaps_2": fine}


ENCODER = Encoder("bottom_up", STRIDE, outputs, render, {})
FINE = Encoder("bottom_up", STRIDE // 2, fine_outputs, fine_render, {})
