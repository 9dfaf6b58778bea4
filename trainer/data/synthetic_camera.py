# SPDX-License-Identifier: Apache-2.0
"""The camera and the light of a drawn scene.

The camera stands at (0, height, 0) and looks along -z, tilted down by ``tilt``; people live at
z < 0, the ground is y = 0. Picture coordinates are index coordinates: the centre of the first
pixel is (0, 0).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Camera:
    """A pinhole camera. ``focal`` in pixels, ``height`` in metres, ``tilt`` in radians."""

    width: int
    height_px: int
    focal: float
    height: float
    tilt: float

    @property
    def place(self) -> Array:
        return np.array((0.0, self.height, 0.0))

    @property
    def axes(self) -> Array:
        """Rows: right, down, forward."""
        c, s = np.cos(self.tilt), np.sin(self.tilt)
        return np.array(((1.0, 0, 0), (0, -c, s), (0, -s, -c)))

    def project(self, points: Array) -> tuple[Array, Array]:
        """World points [..., 3] -> pixels [..., 2] and depths [...] (metres, may be negative)."""
        seen = (points - self.place) @ self.axes.T
        depth = seen[..., 2]
        safe = np.where(np.abs(depth) < 1e-6, 1e-6, depth)
        centre = np.array(((self.width - 1) / 2, (self.height_px - 1) / 2))
        return seen[..., :2] / safe[..., None] * self.focal + centre, depth

    def rays(self) -> Array:
        """The world direction through every pixel, float [H, W, 3], not normalised."""
        x = (np.arange(self.width) - (self.width - 1) / 2) / self.focal
        y = (np.arange(self.height_px) - (self.height_px - 1) / 2) / self.focal
        right, down, forward = self.axes
        result: Array = x[None, :, None] * right + y[:, None, None] * down + forward[None, None]
        return result

    @classmethod
    def random(cls, rng: np.random.Generator, width: int, height: int) -> Camera:
        """Eye level, close up, from above as a surveillance camera hangs, or from below."""
        kind = rng.choice(4, p=(0.5, 0.15, 0.25, 0.1))
        view = np.deg2rad(rng.uniform(35, 68))
        focal = 0.5 * max(width, height) / float(np.tan(view / 2))
        high, tilt = (
            (rng.uniform(1.0, 1.9), rng.uniform(-6, 12)),
            (rng.uniform(0.9, 1.7), rng.uniform(-8, 10)),
            (rng.uniform(2.3, 5.5), rng.uniform(14, 38)),
            (rng.uniform(0.25, 0.8), rng.uniform(-18, 2)),
        )[int(kind)]
        return cls(width, height, focal, float(high), float(np.deg2rad(tilt)))


@dataclass(frozen=True)
class Light:
    """A sun or lamp far away and the light from everywhere. ``towards`` points at the lamp."""

    towards: Array
    strength: Array  # RGB
    ambient: Array  # RGB
    shadow: float  # how dark a cast shadow is, 0..1

    def shade(self, normals: Array) -> Array:
        """The RGB factor [Q, 3] of surfaces with unit normals [Q, 3]."""
        facing = normals @ self.towards
        # Half-Lambert keeps the dark side from being flat; the ground throws some light back up.
        direct = np.clip(facing * 0.75 + 0.25, 0, 1) ** 1.3
        sky = 0.82 + 0.18 * normals[:, 1]
        result: Array = direct[:, None] * self.strength + sky[:, None] * self.ambient
        return result

    @classmethod
    def random(cls, rng: np.random.Generator) -> Light:
        around, high = rng.uniform(0, 2 * np.pi), rng.uniform(0.35, 1.4)
        towards = np.array(
            (np.cos(around) * np.cos(high), np.sin(high), np.sin(around) * np.cos(high))
        )
        hard = rng.uniform(0.25, 0.85)
        warm = rng.normal(0, 0.06)
        tint = np.array((1 + warm, 1.0, 1 - warm))
        level = rng.uniform(0.85, 1.15)
        return cls(
            towards,
            tint * hard * level,
            (2 - tint) * (1.12 - 0.85 * hard) * level,
            float(hard * 0.6),
        )
