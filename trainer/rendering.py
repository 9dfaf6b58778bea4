# SPDX-License-Identifier: Apache-2.0
"""What the targets of several algorithms are rendered from. Labels as algorithm.py has them."""

from __future__ import annotations

import numpy as np
from keras import ops

from .algorithm import MASK_STRIDE, Labels, Tensor


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


def heatmap_weight(heat: Tensor, labels: Labels, stride: int, margin: float) -> Tensor:
    """1 in the cells of keypoints' maps [B, h, w, K] whose truth is known, else 0.

    Unknown are those outside the labels' mask and, of a keypoint that a person lacks, the cells of
    that person's box grown by ``margin``; known after all is where anybody's is drawn.
    """
    height, width = heat.shape[1], heat.shape[2]
    unknown = ops.equal(labels["keypoints"][..., 2], 0)
    known = known_cells(unknown, labels["boxes"], height, width, stride, margin)
    everywhere = mask_at(labels["mask"], MASK_STRIDE, stride)
    return ops.maximum(everywhere * known, ops.cast(heat > 0.1, "float32"))


def nearest_cells(places: Tensor, height: int, width: int, stride: int) -> tuple[Tensor, Tensor]:
    """[..., 2] x, y in network pixels -> [..., 2] column and row of the nearest cell, whole numbers
    as float32, and [...] 1 where the map has that cell, else 0."""
    cells = ops.round((places - (stride - 1) / 2) / stride)
    last = ops.convert_to_tensor(np.array([width - 1, height - 1], np.float32))
    inside = ops.all(ops.logical_and(cells >= 0, cells <= last), axis=-1)
    return cells, ops.cast(inside, "float32")


def read_cells(maps: Tensor, cells: Tensor) -> Tensor:
    """Values of maps [B, h, w, C] in cells [B, N, C, 2], or [B, N, 1, 2] for all channels:
    [B, N, C]. Of cells outside the map anything finite."""
    height, width, channels = maps.shape[1:]
    index = ops.clip(cells[..., 1] * width + cells[..., 0], 0, height * width - 1)
    flat = ops.reshape(maps, (-1, height * width, channels))
    return ops.take_along_axis(flat, ops.cast(index, "int32"), axis=1)


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


def labelled(keypoints: Tensor) -> Tensor:
    """[B, P, K, 3] -> [B, K]: 1 where a person's keypoint is labelled or cut away, so that either
    way it is known what to say of it."""
    return ops.cast(ops.any(ops.not_equal(keypoints[..., 2], 0), axis=1), "float32")


def mask_at_keypoints(mask: Tensor, mask_stride: int, keypoints: Tensor) -> Tensor:
    """[B, h, w] and [B, P, K, 3] -> [B, K]: the mask where keypoints are (the border's outside of
    the picture), the least over people; 1 for those without a place."""
    height, width = mask.shape[1], mask.shape[2]
    column = ops.clip(ops.floor((keypoints[..., 0] + 0.5) / mask_stride), 0, width - 1)
    row = ops.clip(ops.floor((keypoints[..., 1] + 0.5) / mask_stride), 0, height - 1)
    shape = (-1, keypoints.shape[1] * keypoints.shape[2])
    cell = ops.reshape(ops.cast(row * width + column, "int32"), shape)
    found = ops.take_along_axis(ops.reshape(mask, (-1, height * width)), cell, axis=1)
    found = ops.reshape(found, (-1, keypoints.shape[1], keypoints.shape[2]))
    return ops.min(ops.where(keypoints[..., 2] > 0, found, 1.0), axis=1)


def per_image(error: Tensor) -> Tensor:
    """The sum over everything but the batch, averaged over the batch."""
    return ops.sum(error) / ops.cast(ops.shape(error)[0], "float32")
