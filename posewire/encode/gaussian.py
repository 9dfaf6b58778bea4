# SPDX-License-Identifier: Apache-2.0
"""Gaussian heatmaps, shared by the rows that have them."""

from __future__ import annotations

import numpy as np

from .encoder import Array, People, cell_centres, cells


def heatmaps(people: People, width: int, height: int, stride: int, sigma_cells: float) -> Array:
    """[P, K, 3] -> [K, H, W]: exp(-d^2 / 2 sigma^2), the maximum over people."""
    xs = cell_centres(cells(width, stride), stride)
    ys = cell_centres(cells(height, stride), stride)
    gain = -0.5 / (sigma_cells * stride) ** 2
    there = people[:, :, 2:] > 0
    across = np.exp(gain * (xs - people[:, :, :1]) ** 2) * there  # [P, K, W]
    down = np.exp(gain * (ys - people[:, :, 1:2]) ** 2)  # [P, K, H]
    maps = np.zeros((people.shape[1], len(ys), len(xs)))
    for person in range(len(people)):
        np.maximum(maps, down[person, :, :, None] * across[person, :, None, :], out=maps)
    return maps.astype(np.float32)
