# SPDX-License-Identifier: Apache-2.0
"""The drawn people's heads: skull, hair, ears, and a face with eyes, brows, nose and mouth.

Everything is given in units of the head's height, in the head's frame: x to the person's left,
y up, z forward, the origin in the middle between chin and crown.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from .synthetic_body import Figure
from .synthetic_faces import Faces, disc, rings, skin_between
from .synthetic_outfit import Outfit

Array = NDArray[np.float64]

# Height, half-width, how far to the front, how far to the back.
_SKULL = np.array(
    (
        (-0.505, 0.030, 0.285, -0.18),
        (-0.49, 0.11, 0.335, -0.05),
        (-0.42, 0.19, 0.395, 0.09),
        (-0.32, 0.235, 0.415, 0.22),
        (-0.18, 0.275, 0.425, 0.33),
        (-0.05, 0.300, 0.425, 0.395),
        (0.08, 0.318, 0.400, 0.43),
        (0.20, 0.325, 0.415, 0.445),
        (0.32, 0.300, 0.375, 0.425),
        (0.42, 0.235, 0.285, 0.345),
        (0.48, 0.145, 0.175, 0.225),
        (0.505, 0.040, 0.050, 0.070),
    )
)


def _surface(x: float, y: float) -> float:
    """How far to the front the face is at (x, y)."""
    a = float(np.interp(y, _SKULL[:, 0], _SKULL[:, 1]))
    front = float(np.interp(y, _SKULL[:, 0], _SKULL[:, 2]))
    back = float(np.interp(y, _SKULL[:, 0], _SKULL[:, 3]))
    middle, deep = (front - back) / 2, (front + back) / 2
    return middle + deep * float(np.sqrt(max(0.0, 1 - (x / a) ** 2)))


@lru_cache(maxsize=64)
def _skull(count: int, n: int, swell: float, low: float = -0.505) -> tuple[Array, Array]:
    """Faces of the skull grown by ``swell``, from height ``low`` up, and their outward ways."""
    y = np.linspace(low, 0.505, count)
    a, front, back = (np.interp(y, _SKULL[:, 0], _SKULL[:, i]) for i in (1, 2, 3))
    centres = np.stack((np.zeros(count), y * (1 + swell * 0.6), (front - back) / 2), axis=1)
    ring = rings(
        centres,
        np.array(((1.0, 0, 0),)),
        np.array(((0, 0, 1.0),)),
        a * (1 + swell) + swell * 0.1,
        (front + back) / 2 * (1 + swell) + swell * 0.1,
        n,
    )
    return skin_between(ring)


@lru_cache(maxsize=2)
def _plates(close: bool) -> tuple[Array, Array, tuple[str, ...], Array]:
    """Eyes, brows and mouth: discs on the face, turned outwards as the face is there."""
    spots = []
    for side in (1.0, -1.0):
        x = side * 0.135
        spots += [
            ("lid", x, 0.06, 0.075, 0.045, 0.05),
            ("white", x, 0.058, 0.062, 0.030, 0.06),
            ("iris", x, 0.058, 0.029, 0.030, 0.07),
            ("brow", x * 1.05, 0.150, 0.088, 0.017, 0.05),
        ]
        if close:
            spots.append(("glint", x * 0.96, 0.068, 0.008, 0.009, 0.08))
    spots += [("lips", 0.0, -0.255, 0.105, 0.026, 0.05), ("mouth", 0.0, -0.25, 0.098, 0.006, 0.06)]
    corners, outside, names, lifts = [], [], [], []
    for name, x, y, rx, ry, lift in spots:
        slope = (_surface(x + 0.02, y) - _surface(x - 0.02, y)) / 0.04
        across = np.array((1.0, 0.0, slope)) / np.hypot(1.0, slope)
        centre = np.array((x, y, _surface(x, y) + 0.012))
        corners.append(disc(centre, across, np.array((0.0, 1.0, 0.0)), rx, ry))
        outside += [(-slope, 0.0, 1.0)] * 3
        names += [name] * 3
        lifts += [lift] * 3
    return np.concatenate(corners), np.array(outside), tuple(names), np.array(lifts)


@lru_cache(maxsize=2)
def _ear(side: float) -> tuple[Array, Array, Array, Array]:
    """An ear's faces and outward ways, and those of its inside."""
    x = np.array((0.285, 0.325, 0.355, 0.365)) * side
    centres = np.stack((x, np.full(4, -0.01), np.full(4, -0.03)), axis=1)
    up, ahead = np.array(((0, 1.0, 0),)), np.array(((0, 0, 1.0),))
    high, deep = np.array((0.09, 0.13, 0.13, 0.07)), np.array((0.04, 0.072, 0.075, 0.035))
    corners, outside = skin_between(rings(centres, up, ahead, high, deep, 8))
    inner = disc(centres[3], ahead[0], up[0], 0.05, 0.09)
    return corners, outside, inner, np.array((side, 0.0, 0.2))


def add_head(faces: Faces, figure: Figure, outfit: Outfit, owner: int, detail: int) -> None:
    """Appends the head's faces, all owned by ``owner``."""
    head = _Head(faces, figure, outfit, owner)
    n = max(detail + 4, 12)
    head.skull(n)
    head.face(close=detail >= 10)
    for side in (1.0, -1.0):
        head.ear(side)
    head.hair(n)


class _Head:
    def __init__(self, faces: Faces, figure: Figure, outfit: Outfit, owner: int) -> None:
        self.faces, self.outfit, self.owner = faces, outfit, owner
        self.centre, self.frame = figure.head, figure.head_frame
        self.size = figure.build.head

    def put(self, corners: Array, outside: Array, colour: Array, bias: float | Array = 0.0) -> None:
        """Faces in head units into the world."""
        world = corners * self.size @ self.frame.T + self.centre
        self.faces.add(world, outside @ self.frame.T, colour, self.owner, bias * self.size)

    def skull(self, n: int) -> None:
        corners, outside = _skull(14, n, 0.0)
        self.faces.solids.append(corners[:, 0] * self.size @ self.frame.T + self.centre)
        middle = corners.mean(axis=1)
        colour = np.tile(self.outfit.skin, (len(middle), 1))
        jaw = (middle[:, 1] < -0.17) & (middle[:, 2] > -0.08)
        moustache = jaw & ~((np.abs(middle[:, 0]) < 0.12) & (middle[:, 1] > -0.3))
        strength = self.outfit.beard
        colour[moustache] = (1 - strength) * self.outfit.skin + strength * self.outfit.hair
        cheeks = (np.abs(middle[:, 0]) > 0.12) & (middle[:, 1] < 0.0) & (middle[:, 2] > 0.2)
        colour[cheeks & ~moustache] *= (1.02, 0.94, 0.93)
        self.put(corners, outside, colour)

    def face(self, *, close: bool) -> None:
        skin, hair = self.outfit.skin, self.outfit.hair
        lips = skin * (0.86, 0.58, 0.56)
        colours = {
            "lid": skin * 0.72,
            "white": np.full(3, 232.0),
            "iris": np.array((46.0, 34, 28)),
            "brow": hair * 0.8 + skin * 0.1,
            "lips": lips,
            "mouth": lips * 0.5,
            "glint": np.full(3, 250.0),
        }
        corners, outside, names, lift = _plates(close)
        colour = np.stack([colours[name] for name in names])
        self.put(corners, outside, colour, lift)

    def nose(self, skin: Array) -> None:
        bridge, tip = np.array((0.0, 0.06, 0.42)), np.array((0.0, -0.11, 0.52))
        under = np.array((0.0, -0.14, 0.43))
        for side in (1.0, -1.0):
            wing = np.array((side * 0.072, -0.125, 0.405))
            brow = np.array((side * 0.035, 0.06, 0.40))
            flank = np.stack((bridge, tip, wing, brow))[None]
            self.put(flank, np.array((side * 0.8, 0.1, 0.6)), skin, 0.03)
            below = np.stack((tip, wing, under, under))[None]
            self.put(below, np.array((0.0, -0.8, 0.5)), skin * 0.62, 0.03)

    def ear(self, side: float) -> None:
        corners, outside, inner, way = _ear(side)
        self.put(corners, outside, self.outfit.skin * (0.98, 0.88, 0.86))
        self.put(inner, way, self.outfit.skin * (0.9, 0.76, 0.74), 0.02)

    def hair(self, n: int) -> None:
        style = self.outfit.hair_style
        if style == "bald":
            return
        swell = {"short": 0.05, "cap": 0.06}.get(style, 0.085)
        corners, outside = _skull(18, n + 4, swell)
        middle = corners.mean(axis=1)
        y, z = middle[:, 1], middle[:, 2]
        nape = {"short": -0.25, "cap": -0.2, "bun": -0.22}.get(style, -0.42)
        side_low = 0.06 if style in ("short", "cap", "bun") else -0.35
        covered = np.where(z > 0.21, y > 0.3, np.where(z > -0.05, y > side_low, y > nape))
        colour = np.tile(self.outfit.hair, (len(middle), 1))
        rng = np.random.default_rng(self.outfit.seed + 1)
        colour *= rng.normal(1.0, 0.08, (len(middle), 1))
        if style == "cap":
            crown = y > 0.16
            colour[crown] = self.outfit.cap
            covered |= crown & (z > 0.0)
            self.peak()
        self.put(corners[covered], outside[covered], np.clip(colour[covered], 0, 255))
        if style == "long":
            self.fall(n)
        if style == "bun":
            y = np.linspace(-0.13, 0.13, 6)
            r = np.sqrt(0.135**2 - y**2 + 1e-6)
            centres = np.stack((np.zeros(6), 0.28 + y, np.full(6, -0.46)), axis=1)
            ring = rings(centres, np.array(((1.0, 0, 0),)), np.array(((0, 0, 1.0),)), r, r, 10)
            self.put(*skin_between(ring), self.outfit.hair)

    def peak(self) -> None:
        """A cap's peak over the forehead."""
        x = np.linspace(-0.3, 0.3, 6)
        inner = np.stack((x, np.full(6, 0.23), 0.43 - 1.2 * x**2), axis=1)
        outer = np.stack((x * 0.9, np.full(6, 0.17), 0.74 - 2.0 * x**2), axis=1)
        corners = np.stack((inner[:-1], inner[1:], outer[1:], outer[:-1]), axis=1)
        for way, shade in ((1.0, 1.0), (-1.0, 0.55)):
            self.put(corners, np.array((0.0, way, 0.25 * way)), self.outfit.cap * shade, 0.02)

    def fall(self, n: int) -> None:
        """Long hair down the back and over the shoulders' rear."""
        y = np.linspace(0.3, -0.95, 9)
        out = np.interp(y, (-0.95, -0.5, 0.0, 0.3), (0.22, 0.33, 0.385, 0.33))
        deep = np.interp(y, (-0.95, -0.5, 0.0, 0.3), (0.10, 0.17, 0.27, 0.25))
        back = np.interp(y, (-0.95, -0.5, 0.0, 0.3), (-0.36, -0.32, -0.24, -0.2))
        centres = np.stack((np.zeros(9), y, back), axis=1)
        ring = rings(centres, np.array(((1.0, 0, 0),)), np.array(((0, 0, 1.0),)), out, deep, n)
        corners, outside = skin_between(ring)
        strands = np.random.default_rng(self.outfit.seed + 2).normal(1.0, 0.1, (1, n, 1))
        colour = np.clip(self.outfit.hair * np.repeat(strands, 8, axis=0), 0, 255)
        self.put(corners, outside, colour.reshape(-1, 3))
