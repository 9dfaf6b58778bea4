# SPDX-License-Identifier: Apache-2.0
"""Training pictures of a top-down network: one person each, cut out as at inference.

posewire/top_down.py grows the annotated box to a rectangle, and the engine fits that into the
network's input; ``crop_matrix`` is both as one map. The augmentation moves the picture on from
there, so a crop that is changed in nothing is the very crop of inference.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from posewire.errors import ExitCode
from posewire.skeleton import Skeleton
from posewire.top_down import crop_rectangle

from ..algorithm import CROP_PADDING
from ..config import AugmentConfig
from ..errors import TrainError
from .augment import PAD, Sample, apply, cut, photometric, random_turn
from .coco import Floats, Picture

_TRIES = 100  # draws, should boxes have no area inside their pictures
_LEAST_HALF = 4  # keypoints of a half that is shown alone
_HALF_MARGIN = 0.2  # of its keypoints' extent, on all sides: limbs are thicker than their labels


def one_by_one(pictures: Sequence[Picture], where: str) -> list[Picture]:
    """Every labelled person as a picture of its own, in which nothing else is labelled.

    Raises TrainError (SOURCE) where there is nobody.
    """
    nothing = np.zeros((0, 4), np.float32)
    people = []
    for picture in pictures:
        boxes = picture.boxes if picture.annotated is None else picture.annotated
        for i in np.flatnonzero((picture.keypoints[..., 2] > 0).any(axis=1)):
            one = slice(int(i), int(i) + 1)
            people.append(
                replace(
                    picture,
                    keypoints=picture.keypoints[one],
                    boxes=picture.boxes[one],
                    ignore=nothing,  # what the crop's person does is known even in a crowd
                    believe=None,
                    annotated=boxes[one],
                )
            )
    if not people:
        raise TrainError(f"{where}: nobody has a labelled keypoint", ExitCode.SOURCE)
    return people


def make_crop(
    rng: np.random.Generator,
    draw: Callable[[np.random.Generator], Picture],
    skeleton: Skeleton,
    size: tuple[int, int],
    stride: int,
    config: AugmentConfig,
) -> Sample:
    """One training picture of ``size`` (width, height) of the one person in each picture that
    ``draw`` yields. Keypoints outside of it are cut away."""
    for _ in range(_TRIES):
        picture = draw(rng)
        image = picture.read()
        shown = _half(rng, picture) if rng.random() < config.half_body else _box(picture)
        base = crop_matrix(shown, (image.shape[1], image.shape[0]), size)
        if base is None:
            continue
        matrix, mirror = _moved(rng, base, size, config)
        # Grey around it, always: so are the pictures of inference.
        sample = apply(image, picture, matrix, mirror, skeleton, size, stride, PAD)
        sample.image = photometric(rng, sample.image, config)
        return cut(sample, size)
    raise TrainError(f"{picture.path}: no box has an area inside its picture", ExitCode.SOURCE)


def crop_matrix(
    box: Floats, frame: tuple[int, int], network: tuple[int, int]
) -> NDArray[np.float64] | None:
    """The 2x3 map from frame to network pixels (index coordinates) of a box (left, top, width,
    height), as posewire/top_down.py and the engine's letterbox crop it; None for a box without an
    area inside the frame. ``frame`` and ``network`` are (width, height)."""
    rectangle = crop_rectangle(box, frame, network, CROP_PADDING)
    if rectangle is None:
        return None
    # The letterbox of docs/design.md 3.3: the rectangle's aspect is the network's up to rounding.
    scale = min(network[0] / rectangle[2], network[1] / rectangle[3])
    matrix = np.zeros((2, 3))
    for axis in range(2):
        fitted = max(1, int(rectangle[2 + axis] * scale + 0.5))
        margin = (network[axis] - fitted) // 2
        step = fitted / rectangle[2 + axis]
        matrix[axis, axis] = step
        matrix[axis, 2] = (0.5 - rectangle[axis]) * step + margin - 0.5
    return matrix


def _moved(
    rng: np.random.Generator,
    base: NDArray[np.float64],
    size: tuple[int, int],
    config: AugmentConfig,
) -> tuple[NDArray[np.float64], bool]:
    """``base`` scaled, turned, mirrored and shifted at random about the crop's centre, and whether
    it was mirrored."""
    scale = float(np.exp(rng.uniform(np.log(config.size[0]), np.log(config.size[1]))))
    linear, mirror = random_turn(rng, scale, config)
    centre = (np.array(size) - 1) / 2
    to = centre + rng.uniform(-1, 1, 2) * config.shift * np.array(size)
    matrix = linear @ base
    matrix[:, 2] += to - linear @ centre
    return matrix, mirror


def _box(picture: Picture) -> Floats:
    """The person's annotated box as left, top, width, height."""
    boxes = picture.boxes if picture.annotated is None else picture.annotated
    left, top, right, bottom = boxes[0]
    return np.array([left, top, right - left + 1, bottom - top + 1], np.float32)


def _half(rng: np.random.Generator, picture: Picture) -> Floats:
    """A box around half of the person: the labelled keypoints on one side of their middle, along
    the longer side of their extent. All of the person where either half has too few."""
    points = picture.keypoints[0, picture.keypoints[0, :, 2] > 0, :2]
    low, high = points.min(axis=0), points.max(axis=0)
    axis = int(np.argmax(high - low))
    first = points[:, axis] < (low[axis] + high[axis]) / 2
    if rng.random() < 0.5:
        first = ~first
    if min(first.sum(), (~first).sum()) < _LEAST_HALF:
        return _box(picture)
    low, high = points[first].min(axis=0), points[first].max(axis=0)
    grow = _HALF_MARGIN * float((high - low).max())
    return np.concatenate([low - grow, high - low + 2 * grow + 1]).astype(np.float32)
