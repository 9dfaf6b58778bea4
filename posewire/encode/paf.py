# SPDX-License-Identifier: Apache-2.0
"""Part affinity fields (Cao et al., CVPR 2017, section 2.2 and 2.3) at stride 8.

``heatmaps`` [K + 1]: a Gaussian of one cell per keypoint, the maximum over people; the background,
1 - their maximum, last. ``pafs`` [2L]: channels 2i and 2i + 1 are x and y of limb i's unit vector
within one cell of it (across and beyond its ends), averaged where people overlap.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..skeleton import Skeleton
from . import gaussian
from .encoder import Array, Encoder, People, cell_centres, cells

STRIDE = 8
SIGMA_CELLS = 1.0
LIMB_CELLS = 1.0


def outputs(skeleton: Skeleton, width: int, height: int) -> list[dict[str, Any]]:
    """The manifest's outputs."""
    return [
        {"name": "heatmaps", "channels": skeleton.count + 1, "stride": STRIDE},
        {"name": "pafs", "channels": 2 * len(skeleton.limbs), "stride": STRIDE},
    ]


def render(people: People, skeleton: Skeleton, width: int, height: int) -> dict[str, Array]:
    """One frame; see the module's description."""
    heat = gaussian.heatmaps(people, width, height, STRIDE, SIGMA_CELLS)
    background = 1 - heat.max(axis=0, keepdims=True)
    return {
        "heatmaps": np.concatenate([heat, background]),
        "pafs": _fields(people, skeleton, width, height),
    }


def _fields(people: People, skeleton: Skeleton, width: int, height: int) -> Array:
    xs = cell_centres(cells(width, STRIDE), STRIDE)[None, :]
    ys = cell_centres(cells(height, STRIDE), STRIDE)[:, None]
    reach = LIMB_CELLS * STRIDE
    fields = np.zeros((2 * len(skeleton.limbs), ys.size, xs.size))
    for limb, (first, second) in enumerate(skeleton.limbs):
        hits = np.zeros((ys.size, xs.size))
        for person in people:
            (ax, ay, av), (bx, by, bv) = person[first], person[second]
            length = np.hypot(bx - ax, by - ay)
            if av <= 0 or bv <= 0 or length < 1e-3:
                continue
            ux, uy = (bx - ax) / length, (by - ay) / length
            along = (xs - ax) * ux + (ys - ay) * uy
            across = (xs - ax) * uy - (ys - ay) * ux
            on = (np.abs(across) <= reach) & (along >= -reach) & (along <= length + reach)
            fields[2 * limb] += on * ux
            fields[2 * limb + 1] += on * uy
            hits += on
        fields[2 * limb : 2 * limb + 2] /= np.maximum(hits, 1)
    return fields.astype(np.float32)


ENCODER = Encoder("bottom_up", STRIDE, outputs, render, {"background": True})
