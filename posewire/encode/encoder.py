# SPDX-License-Identifier: Apache-2.0
"""What a row of the table of encodings gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..skeleton import Skeleton

Array = NDArray[np.float32]
People = NDArray[np.float64]
"""[P, K, 3] (x, y, v): network pixels, index coordinates; v > 0 where the keypoint is there."""


@dataclass(frozen=True)
class Encoder:
    """How one algorithm's network would describe people.

    mode      as in a manifest; a top_down frame is one person's crop, P = 1
    cell_px   network pixels of the finest output's cell: the unit of a decoder's error
    outputs   (skeleton, width, height) -> the manifest's outputs, without layouts
    render    (people, skeleton, width, height) -> one frame: arrays by output name, channels first,
              [C, H, W] or [C, length]
    decode    parameters of the decoder that these outputs need, besides the algorithm's name
    """

    mode: str
    cell_px: float
    outputs: Callable[[Skeleton, int, int], list[dict[str, Any]]]
    render: Callable[[People, Skeleton, int, int], dict[str, Array]]
    decode: Mapping[str, Any]


def cell_centres(count: int, stride: int) -> NDArray[np.float64]:
    """Centres of ``count`` cells in network pixels: stride * i + (stride - 1) / 2 (design 3.3)."""
    return np.arange(count, dtype=np.float64) * stride + (stride - 1) / 2


def cells(size: int, stride: int) -> int:
    """Cells along an axis of ``size`` pixels: ceil(size / stride), what "same" padding gives."""
    return -(-size // stride)
