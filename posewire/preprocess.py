# SPDX-License-Identifier: Apache-2.0
"""The engine's preprocessing, from Python: the letterbox and its map back to the frame.

It runs in C++ (cpp/infer/preprocess.cpp), the same code on the device and in evaluation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .engine_core import engine_errors


@dataclass(frozen=True)
class Letterbox:
    """Where a picture lies in the network's input.

    scale_x, scale_y  network pixels per frame pixel, from the rounded size (they differ slightly)
    left, top         padding in network pixels

    Coordinates are index coordinates, the centre of the first pixel is (0, 0):
    x_net = (x + 0.5) * scale_x + left - 0.5.
    """

    scale_x: float
    scale_y: float
    left: int
    top: int

    def to_frame(self, points: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
        """Network pixels [..., 2] -> frame pixels [..., 2]."""
        return self._map(points, forward=False)

    def to_network(self, points: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
        """Frame pixels [..., 2] -> network pixels [..., 2]."""
        return self._map(points, forward=True)

    def _map(self, points: NDArray[np.floating[Any]], *, forward: bool) -> NDArray[np.float32]:
        array = np.asarray(points, np.float64)
        if array.shape[-1:] != (2,):
            raise ValueError(f"points must be [..., 2], not {array.shape}")
        scale = np.array((self.scale_x, self.scale_y))
        shift = np.array((self.left, self.top), np.float64)
        if forward:
            result = (array + 0.5) * scale + shift - 0.5
        else:
            result = (array - shift + 0.5) / scale - 0.5
        mapped: NDArray[np.float32] = result.astype(np.float32)
        return mapped


def letterbox(
    image: NDArray[np.uint8], width: int, height: int
) -> tuple[NDArray[np.uint8], Letterbox]:
    """Fits a picture into the network's input, centred, padded with 114.

    ``image`` is uint8 [H, W, 3] in any channel order, ``width`` and ``height`` the input's pixels.
    Returns uint8 [height, width, 3] and the geometry. Bilinear, area when shrinking by more than 2.
    Raises ValueError for another shape or type, PosewireError where the engine refuses.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"image must be uint8 [H, W, 3], not {image.dtype} {image.shape}")
    with engine_errors() as core:
        fitted, box = core.letterbox(np.ascontiguousarray(image), width, height)
    geometry = Letterbox(float(box.scale_x), float(box.scale_y), int(box.left), int(box.top))
    return np.asarray(fitted), geometry
