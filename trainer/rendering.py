# SPDX-License-Identifier: Apache-2.0
"""What the targets of several algorithms are rendered from. Labels as algorithm.py has them."""

from __future__ import annotations

import numpy as np
from keras import ops

from .algorithm import Tensor


def cell_centres(cells: int, stride: int) -> Tensor:
    """Centres of ``cells`` cells in network pixels: stride * i + (stride - 1) / 2 (DESIGN 3.3)."""
    return ops.convert_to_tensor(np.arange(cells, dtype=np.float32) * stride + (stride - 1) / 2)


def person_heatmaps(
    keypoints: Tensor, height: int, width: int, stride: int, sigma_cells: float
) -> Tensor:
    """[B, P, K, 3] -> [B, P, h, w, K]: exp(-d^2 / 2 sigma^2) of every known keypoint."""
    sigma = sigma_cells * stride
    dx = cell_centres(width, stride)[:, None] - keypoints[:, :, None, :, 0]
    dy = cell_centres(height, stride)[:, None] - keypoints[:, :, None, :, 1]
    known = ops.cast(keypoints[:, :, None, :, 2] > 0, "float32")
    ex = ops.exp(ops.square(dx) * (-0.5 / sigma**2)) * known  # [B, P, w, K]
    ey = ops.exp(ops.square(dy) * (-0.5 / sigma**2))  # [B, P, h, K]
    return ey[:, :, :, None, :] * ex[:, :, None, :, :]


def heatmaps(keypoints: Tensor, height: int, width: int, stride: int, sigma_cells: float) -> Tensor:
    """[B, P, K, 3] -> [B, h, w, K]: exp(-d^2 / 2 sigma^2), the maximum over people."""
    return ops.max(person_heatmaps(keypoints, height, width, stride, sigma_cells), axis=1)


def known_cells(
    unknown: Tensor, boxes: Tensor, height: int, width: int, stride: int, margin: float
) -> Tensor:
    """[B, P, C] of channels unknown per person -> [B, h, w, C], 0 inside such a person's box, which
    is grown by ``margin`` of itself and one cell."""
    left, top, right, bottom = (boxes[..., i : i + 1] for i in range(4))
    real = ops.cast(right >= left, "float32")
    grow_x, grow_y = margin * (right - left) + stride, margin * (bottom - top) + stride
    xs, ys = cell_centres(width, stride), cell_centres(height, stride)
    in_x = ops.logical_and(xs >= left - grow_x, xs <= right + grow_x)  # [B, P, w]
    in_y = ops.logical_and(ys >= top - grow_y, ys <= bottom + grow_y)
    covered = ops.einsum(
        "bph,bpw,bpc->bhwc",
        ops.cast(in_y, "float32"),
        ops.cast(in_x, "float32"),
        ops.cast(unknown, "float32") * real,
    )
    return ops.cast(covered < 0.5, "float32")


def mask_at(mask: Tensor, mask_stride: int, stride: int) -> Tensor:
    """[B, h, w] at one stride -> [B, h', w', 1] at another, both powers of two: finer by
    repetition, coarser by the least."""
    mask = ops.expand_dims(mask, -1)
    if stride <= mask_stride:
        times = mask_stride // stride
        return ops.repeat(ops.repeat(mask, times, axis=1), times, axis=2)
    times = stride // mask_stride
    # Strides are the window's by default, but not in Keras' JAX backend.
    return -ops.max_pool(-mask, times, strides=times, padding="same")


def per_image(error: Tensor) -> Tensor:
    """The sum over everything but the batch, averaged over the batch."""
    return ops.sum(error) / ops.cast(ops.shape(error)[0], "float32")
