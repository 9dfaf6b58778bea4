# SPDX-License-Identifier: Apache-2.0
"""Draws poses into a picture, for people to look at. The engine's video sink has its own."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .decode import Poses
from .skeleton import Skeleton


def draw_poses(image: NDArray[np.uint8], poses: Poses, skeleton: Skeleton) -> NDArray[np.uint8]:
    """A copy of the picture (BGR uint8 [H, W, 3]) with limbs and keypoints drawn in.

    ``poses`` are in its pixels. Limbs go from red to blue around the colour circle; a keypoint
    that is absent, and limbs to it, are left out.
    """
    cv2: Any = import_module("cv2")
    drawn = image.copy()
    thick = max(1, round(min(image.shape[:2]) / 200))
    hues = np.linspace(0, 150, max(1, len(skeleton.limbs))).astype(np.uint8)
    circle = np.stack([hues, np.full_like(hues, 230), np.full_like(hues, 255)], axis=-1)
    colours = cv2.cvtColor(circle[None], cv2.COLOR_HSV2BGR)[0].tolist()
    for person in poses.keypoints:
        points = [(round(float(x)), round(float(y))) for x, y, _ in person]
        present = person[:, 2] > 0
        for (a, b), colour in zip(skeleton.limbs, colours, strict=False):
            if present[a] and present[b]:
                cv2.line(drawn, points[a], points[b], colour, thick, cv2.LINE_AA)
        for point, there in zip(points, present, strict=True):
            if there:
                cv2.circle(drawn, point, thick + 1, (255, 255, 255), -1, cv2.LINE_AA)
    return drawn
