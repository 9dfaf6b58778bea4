# SPDX-License-Identifier: Apache-2.0
"""Augmentation: pixels, keypoints, boxes and the mask of what is known, changed together.

A picture is placed by one affine map (flip, scale, rotation, shift) built around one of its people;
a mosaic tiles four such placements. All randomness comes from the generator that is passed in.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from posewire.skeleton import Skeleton

from ..config import AugmentConfig
from .coco import Floats, Image, Picture

CUT_AWAY = -1.0  # v of a keypoint that another tile of a mosaic hides
PAD = 114  # as the letterbox


@dataclass
class Sample:
    """One training picture, coordinates in its own pixels."""

    image: Image  # [H, W, 3] RGB
    keypoints: Floats  # [N, K, 3]
    boxes: Floats  # [N, 4] left, top, right, bottom
    mask: Floats  # [H / stride, W / stride]: 1 where the labels hold


def make_sample(
    rng: np.random.Generator,
    draw: Callable[[np.random.Generator], Picture],
    skeleton: Skeleton,
    size: tuple[int, int],
    stride: int,
    config: AugmentConfig,
) -> Sample:
    """One training picture of ``size`` (width, height) from the pictures that ``draw`` yields."""
    if rng.random() < config.mosaic:
        sample = _mosaic(rng, draw, skeleton, size, stride, config)
    else:
        sample = place(rng, draw(rng), skeleton, size, stride, config)
    sample.image = photometric(rng, sample.image, config)
    return _limit(sample, config.max_people)


def transform(matrix: NDArray[np.float64], points: NDArray[np.floating]) -> NDArray[np.float64]:
    """[..., 2] points through a 2x3 affine map."""
    return np.asarray(points @ matrix[:, :2].T + matrix[:, 2], np.float64)


def random_matrix(
    rng: np.random.Generator,
    picture_size: tuple[int, int],
    picture: Picture,
    size: tuple[int, int],
    config: AugmentConfig,
) -> tuple[NDArray[np.float64], bool]:
    """A random 2x3 map from picture to sample pixels, and whether it mirrors.

    One labelled person (else the whole picture) becomes ``config.size`` of the sample's shorter
    side and its centre lands ``config.shift`` around the sample's.
    """
    width, height = size
    if len(picture.boxes):
        left, top, right, bottom = picture.boxes[rng.integers(len(picture.boxes))]
    else:
        left, top, right, bottom = 0.0, 0.0, picture_size[0] - 1.0, picture_size[1] - 1.0
    extent = max(right - left + 1.0, bottom - top + 1.0, 8.0)
    # Even in the logarithm: as many halvings as doublings.
    wanted = np.exp(rng.uniform(np.log(config.size[0]), np.log(config.size[1])))
    if not len(picture.boxes):
        wanted = max(wanted, 0.8)  # a picture without people shown as crumbs teaches nothing
    scale = wanted * min(width, height) / extent
    if rng.random() < config.cover:  # rather a larger person than a frame mostly of padding
        scale = max(scale, 0.85 * max(width, height) / max(picture_size))
        wanted = scale * extent / min(width, height)
    linear, mirror = random_turn(rng, scale, config)
    # Small people may stand anywhere, one as large as the picture stays near its middle.
    room = config.shift * np.array([width, height]) * max(0.2, 1.3 - wanted)
    centre = np.array([(width - 1) / 2, (height - 1) / 2]) + rng.uniform(-1, 1, 2) * room
    origin = centre - linear @ np.array([(left + right) / 2, (top + bottom) / 2])
    return np.concatenate([linear, origin[:, None]], axis=1), mirror


def random_turn(
    rng: np.random.Generator, scale: float, config: AugmentConfig
) -> tuple[NDArray[np.float64], bool]:
    """A random 2x2 rotation times ``scale``, and whether it mirrors."""
    angle = np.deg2rad(np.clip(rng.normal(0, config.rotate_deg / 2), -180, 180))
    angle = np.clip(angle, -np.deg2rad(config.rotate_deg), np.deg2rad(config.rotate_deg))
    mirror = bool(rng.random() < config.flip)
    cos, sin = scale * np.cos(angle), scale * np.sin(angle)
    linear = np.array([[cos, -sin], [sin, cos]])
    if mirror:
        linear[:, 0] *= -1
    return linear, mirror


def place(
    rng: np.random.Generator,
    picture: Picture,
    skeleton: Skeleton,
    size: tuple[int, int],
    stride: int,
    config: AugmentConfig,
) -> Sample:
    """``picture`` under a random map; see ``random_matrix``."""
    image = picture.read()
    matrix, mirror = random_matrix(rng, (image.shape[1], image.shape[0]), picture, size, config)
    fill = PAD if rng.random() < 0.5 else int(rng.integers(256))
    return apply(image, picture, matrix, mirror, skeleton, size, stride, fill)


def apply(
    image: Image,
    picture: Picture,
    matrix: NDArray[np.float64],
    mirror: bool,
    skeleton: Skeleton,
    size: tuple[int, int],
    stride: int,
    fill: int = PAD,
) -> Sample:
    """``picture`` (its pixels are ``image``) under a given map; ``mirror``: the map flips sides."""
    shrink = float(np.sqrt(abs(np.linalg.det(matrix[:, :2]))))
    warp = matrix
    if shrink < 0.5:  # average first, or the warp would skip pixels
        small = (max(1, round(image.shape[1] * shrink)), max(1, round(image.shape[0] * shrink)))
        ratio = np.array([image.shape[1] / small[0], image.shape[0] / small[1]])
        image = np.asarray(cv2.resize(image, small, interpolation=cv2.INTER_AREA), np.uint8)
        # Index coordinates: x = (x' + 0.5) * ratio - 0.5.
        linear = matrix[:, :2] * ratio
        warp = np.column_stack([linear, matrix[:, 2] + matrix[:, :2] @ (0.5 * ratio - 0.5)])
    warped = cv2.warpAffine(
        image,
        warp,
        size,
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=(fill, fill, fill),
    )
    keypoints = picture.keypoints.copy()
    keypoints[..., :2] = transform(matrix, picture.keypoints[..., :2])
    keypoints[..., :2] *= keypoints[..., 2:] != 0
    if mirror:
        keypoints = keypoints[:, list(skeleton.flips)]
    return Sample(
        np.asarray(warped, np.uint8),
        keypoints.astype(np.float32),
        _hulls(matrix, picture.boxes),
        _mask(matrix, picture, size, stride),
    )


def _hulls(matrix: NDArray[np.float64], boxes: Floats) -> Floats:
    """The upright boxes around transformed ones."""
    left, top, right, bottom = boxes.T
    corners = np.stack(
        [np.stack([left, right, right, left], -1), np.stack([top, top, bottom, bottom], -1)], -1
    )
    moved = transform(matrix, corners)
    return np.concatenate([moved.min(axis=1), moved.max(axis=1)], axis=1).astype(np.float32)


def _mask(
    matrix: NDArray[np.float64], picture: Picture, size: tuple[int, int], stride: int
) -> Floats:
    """1 in cells whose centre, taken back to the picture, is where its labels hold."""
    width, height = size[0] // stride, size[1] // stride
    mask = np.ones((height, width), np.float32)
    if picture.believe is None and not len(picture.ignore):
        return mask
    xs = np.arange(width) * stride + (stride - 1) / 2
    ys = np.arange(height) * stride + (stride - 1) / 2
    centres = np.stack(np.meshgrid(xs, ys), axis=-1)
    back = transform(np.asarray(cv2.invertAffineTransform(matrix), np.float64), centres)

    def inside(boxes: Floats, grow: float) -> NDArray[np.bool_]:
        found = np.zeros((height, width), bool)
        for left, top, right, bottom in boxes:
            gx, gy = grow * (right - left), grow * (bottom - top)
            found |= (
                (back[..., 0] >= left - gx)
                & (back[..., 0] <= right + gx)
                & (back[..., 1] >= top - gy)
                & (back[..., 1] <= bottom + gy)
            )
        return found

    if picture.believe is not None:
        mask *= inside(picture.believe, 0.05)
    mask *= ~inside(picture.ignore, 0.05)
    return mask


def _mosaic(
    rng: np.random.Generator,
    draw: Callable[[np.random.Generator], Picture],
    skeleton: Skeleton,
    size: tuple[int, int],
    stride: int,
    config: AugmentConfig,
) -> Sample:
    """Four placements side by side, split at a random cell border."""
    width, height = size
    split_x = stride * round(rng.uniform(0.35, 0.65) * width / stride)
    split_y = stride * round(rng.uniform(0.35, 0.65) * height / stride)
    image = np.empty((height, width, 3), np.uint8)
    mask = np.empty((height // stride, width // stride), np.float32)
    keypoints, boxes = [], []
    for left, right in ((0, split_x), (split_x, width)):
        for top, bottom in ((0, split_y), (split_y, height)):
            tile = (right - left, bottom - top)
            part = place(rng, draw(rng), skeleton, tile, stride, config)
            image[top:bottom, left:right] = part.image
            mask[top // stride : bottom // stride, left // stride : right // stride] = part.mask
            kept = cut(part, tile)
            kept.keypoints[..., :2] += np.array([left, top], np.float32) * (
                kept.keypoints[..., 2:] > 0
            )
            kept.boxes += np.array([left, top, left, top], np.float32)
            keypoints.append(kept.keypoints)
            boxes.append(kept.boxes)
    return Sample(image, np.concatenate(keypoints), np.concatenate(boxes), mask)


def cut(sample: Sample, size: tuple[int, int]) -> Sample:
    """Hides what lies outside ``size``: keypoints become CUT_AWAY, boxes are clipped.

    People wholly outside are dropped.
    """
    limit = np.array(size, np.float32) - 0.5
    points = sample.keypoints
    inside = np.all((points[..., :2] >= -0.5) & (points[..., :2] < limit), axis=-1)
    points[~inside & (points[..., 2] > 0)] = (0.0, 0.0, CUT_AWAY)
    boxes = np.clip(sample.boxes, 0, np.array([*size, *size], np.float32) - 1)
    some = np.all(boxes[:, 2:] > boxes[:, :2], axis=1)
    return Sample(sample.image, points[some], boxes[some], sample.mask)


def _limit(sample: Sample, most: int) -> Sample:
    """Keeps the ``most`` largest people that show; the mask loses the others' boxes."""
    height, width = sample.image.shape[:2]
    boxes = np.clip(sample.boxes, 0, np.array([width, height, width, height], np.float32) - 1)
    area = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    shown = np.flatnonzero(area > 0)
    order = shown[np.argsort(-area[shown], kind="stable")]
    stride = height // sample.mask.shape[0]
    for left, top, right, bottom in boxes[order[most:]]:
        rows = slice(int(top) // stride, int(bottom) // stride + 1)
        sample.mask[rows, int(left) // stride : int(right) // stride + 1] = 0.0
    keep = order[:most]
    return Sample(sample.image, sample.keypoints[keep], sample.boxes[keep], sample.mask)


def photometric(rng: np.random.Generator, image: Image, config: AugmentConfig) -> Image:
    """Brightness, contrast, gamma, saturation, hue, grey, blur, noise; each with its chance."""
    if rng.random() < config.colour:
        levels = np.arange(256, dtype=np.float32) / 255
        levels = levels ** rng.uniform(0.7, 1.4)
        levels = (levels - 0.5) * rng.uniform(0.6, 1.4) + 0.5 + rng.uniform(-0.15, 0.15)
        tables = np.clip(levels[:, None] * rng.uniform(0.9, 1.1, 3) * 255, 0, 255)
        image = np.asarray(cv2.LUT(image, tables.astype(np.uint8)[None]), np.uint8)
        grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
        saturation = rng.uniform(0.5, 1.5)
        image = np.asarray(cv2.addWeighted(image, saturation, grey, 1 - saturation, 0), np.uint8)
    if rng.random() < config.grey:
        image = np.asarray(
            cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB), np.uint8
        )
    if rng.random() < config.blur:
        image = np.asarray(cv2.GaussianBlur(image, (0, 0), rng.uniform(0.4, 1.4)), np.uint8)
    if rng.random() < config.noise:
        noise = rng.normal(0, rng.uniform(2, 10), image.shape)
        image = np.clip(image + noise, 0, 255).astype(np.uint8)
    return image
