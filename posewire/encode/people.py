# SPDX-License-Identifier: Apache-2.0
"""Random people of any skeleton: standing bodies, turned a little, apart from one another."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from ..skeleton import Skeleton
from .encoder import People

# A standing body of height 1, x to the person's left, y down from the head.
_BODY = {
    "nose": (0.0, 0.08),
    "neck": (0.0, 0.18),
    "left_eye": (0.03, 0.06),
    "left_ear": (0.06, 0.07),
    "left_shoulder": (0.12, 0.19),
    "left_elbow": (0.18, 0.35),
    "left_wrist": (0.2, 0.5),
    "left_hip": (0.08, 0.52),
    "left_knee": (0.09, 0.75),
    "left_ankle": (0.1, 0.97),
    "head_top": (0.0, 0.0),
    "thorax": (0.0, 0.22),
    "pelvis": (0.0, 0.52),
    "mid_hip": (0.0, 0.52),
}
_BODY |= {name.replace("left", "right"): (-x, y) for name, (x, y) in _BODY.items() if x != 0}
_GROWN = (0.06, 0.16)  # a limb to a keypoint without a place in the body, in body heights
_ATTEMPTS = 500  # without a success in a row: there is no room for one more


def draw_people(
    skeleton: Skeleton,
    width: int,
    height: int,
    count: int,
    size_px: float,
    rng: np.random.Generator,
    apart_px: float = 24.0,
) -> People:
    """At most ``count`` people, [P, K, 3], all keypoints inside ``width`` x ``height`` pixels.

    About ``size_px`` tall; keypoints of one kind at least ``apart_px`` from one another (nearer
    ones are one blob to any network), so that fewer people come where there is no room for more.
    """
    people: list[NDArray[np.float64]] = []
    failed = 0
    while len(people) < count and failed < _ATTEMPTS:
        failed += 1
        person = _person(skeleton, width, height, size_px * rng.uniform(0.7, 1.3), rng)
        if person is None:
            continue
        if all(np.hypot(*(person - other)[:, :2].T).min() >= apart_px for other in people):
            people.append(person)
            failed = 0
    return np.array(people).reshape(len(people), skeleton.count, 3)


def _person(
    skeleton: Skeleton, width: int, height: int, size: float, rng: np.random.Generator
) -> NDArray[np.float64] | None:
    turn = 0.25 * rng.standard_normal()
    centre = rng.uniform((0, 0), (width, height))
    rotation = np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
    person = np.zeros((skeleton.count, 3))
    for k, name in enumerate(skeleton.keypoints):
        if name in _BODY:
            place = np.array(_BODY[name]) - (0, 0.5) + 0.03 * rng.standard_normal(2)
            person[k, :2] = centre + rotation @ place * size
            person[k, 2] = 1
    if not person[:, 2].any():
        person[0] = *centre, 1
    _grow(skeleton, person, size, rng)
    x, y, there = person.T
    fits = (x >= 0) & (y >= 0) & (x <= width - 1) & (y <= height - 1) & (there > 0)
    return person if fits.all() else None


def _grow(
    skeleton: Skeleton, person: NDArray[np.float64], size: float, rng: np.random.Generator
) -> None:
    """Keypoints without a place in the body grow from their neighbours along the limbs."""
    while not person[:, 2].all():
        grown = False
        for a, b in skeleton.limbs:
            if person[a, 2] != person[b, 2]:
                have, lack = (a, b) if person[a, 2] else (b, a)
                angle, length = rng.uniform(0, 2 * math.pi), size * rng.uniform(*_GROWN)
                step = length * np.array([math.cos(angle), math.sin(angle)])
                person[lack] = *(person[have, :2] + step), 1
                grown = True
        if not grown:
            return  # not connected: the caller sees keypoints that are not there
