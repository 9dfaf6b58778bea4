# SPDX-License-Identifier: Apache-2.0
"""Coordinate classification of one person's crop (SimCC, ECCV 2022; RTMPose, arXiv 2303.07399).

``simcc_x`` [K, 2 W] and ``simcc_y`` [K, 2 H]: per axis a Gaussian over bins of half a pixel, bin i
at pixel i / 2. Its sigma is RTMPose's, sqrt(pixels / 8) bins: 4.9 and 5.66 for 192 x 256. Its
centre is the keypoint's exact place; the papers round it to a bin (SimCC, equation 1), which a
network trained on places all over a bin averages out. An absent keypoint's rows are 0.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..skeleton import Skeleton
from .encoder import Array, Encoder, People

SPLIT = 2


def outputs(skeleton: Skeleton, width: int, height: int) -> list[dict[str, Any]]:
    """The manifest's outputs."""
    return [
        {"name": "simcc_x", "channels": skeleton.count, "length": SPLIT * width},
        {"name": "simcc_y", "channels": skeleton.count, "length": SPLIT * height},
    ]


def render(people: People, skeleton: Skeleton, width: int, height: int) -> dict[str, Array]:
    """One crop, people [1 or 0, K, 3]; see the module's description."""
    return {
        "simcc_x": _rows(people[..., 0], people[..., 2], width),
        "simcc_y": _rows(people[..., 1], people[..., 2], height),
    }


def _rows(places: NDArray[np.float64], there: NDArray[np.float64], pixels: int) -> Array:
    """[P, K] pixels -> [K, SPLIT * pixels], the maximum over people."""
    bins = np.arange(SPLIT * pixels)
    squared = (bins - SPLIT * places[:, :, None]) ** 2
    rows = np.exp(-squared / (2 * pixels / 8)) * (there[:, :, None] > 0)
    highest: NDArray[np.float64] = rows.max(axis=0, initial=0)
    return highest.astype(np.float32)


# A row's unit is the pixel: bins are finer than what the classifier can tell apart.
ENCODER = Encoder("top_down", 1.0, outputs, render, {})
