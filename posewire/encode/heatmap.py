# SPDX-License-Identifier: Apache-2.0
"""Heatmaps of one person's crop at stride 4 (SimpleBaseline, ECCV 2018; HRNet, CVPR 2019).

``heatmaps`` [K]: a Gaussian of two cells per keypoint around its exact place. The original targets
round the place to a cell; this is DARK's unbiased encoding (Zhang et al., CVPR 2020, section 3.3),
which HRNet's successors train on. An absent keypoint's map is 0.
"""

from __future__ import annotations

from typing import Any

from ..skeleton import Skeleton
from . import gaussian
from .encoder import Array, Encoder, People

STRIDE = 4
SIGMA_CELLS = 2.0


def outputs(skeleton: Skeleton, width: int, height: int) -> list[dict[str, Any]]:
    """The manifest's outputs."""
    return [{"name": "heatmaps", "channels": skeleton.count, "stride": STRIDE}]


def render(people: People, skeleton: Skeleton, width: int, height: int) -> dict[str, Array]:
    """One crop, people [1 or 0, K, 3]; see the module's description."""
    return {"heatmaps": gaussian.heatmaps(people, width, height, STRIDE, SIGMA_CELLS)}


ENCODER = Encoder("top_down", STRIDE, outputs, render, {})
