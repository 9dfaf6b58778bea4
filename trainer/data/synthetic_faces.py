# SPDX-License-Identifier: Apache-2.0
"""Quadrilaterals in the world, with colour and owner: what the painter in synthetic_scene draws."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass
class Faces:
    """Four-cornered faces, collected chunk by chunk.

    corners  [Q, 4, 3] world metres        outside  [Q, 3] unnormalised outward direction
    colour   [Q, 3] RGB 0..255             owner    [Q] 0 a thing, else person * 16 + region
    bias     [Q] metres that a face is drawn nearer than it is (eyes on a face)
    solids   point clouds [M, 3] whose convex hulls cast the shadows
    """

    corners: list[Array] = field(default_factory=list)
    outside: list[Array] = field(default_factory=list)
    colour: list[Array] = field(default_factory=list)
    owner: list[NDArray[np.uint8]] = field(default_factory=list)
    bias: list[Array] = field(default_factory=list)
    solids: list[Array] = field(default_factory=list)

    def add(
        self, corners: Array, outside: Array, colour: Array, owner: int, bias: float | Array
    ) -> None:
        """Appends faces; ``colour`` and ``outside`` broadcast to [Q, 3], ``bias`` to [Q]."""
        count = len(corners)
        self.corners.append(corners)
        self.outside.append(np.broadcast_to(outside, (count, 3)))
        self.colour.append(np.broadcast_to(colour, (count, 3)))
        self.owner.append(np.full(count, owner, np.uint8))
        self.bias.append(np.broadcast_to(np.float64(bias), (count,)))

    def extend(self, other: Faces) -> None:
        """Appends another's faces."""
        for name in ("corners", "outside", "colour", "owner", "bias", "solids"):
            getattr(self, name).extend(getattr(other, name))

    def joined(self) -> tuple[Array, Array, Array, NDArray[np.uint8], Array]:
        """All chunks as corners, outside, colour, owner, bias."""
        return (
            np.concatenate(self.corners),
            np.concatenate(self.outside),
            np.concatenate(self.colour),
            np.concatenate(self.owner),
            np.concatenate(self.bias),
        )


def rings(centres: Array, across: Array, deep: Array, a: Array, b: Array, n: int) -> Array:
    """Vertices [R, n, 3] of R elliptic rings: half-width a along ``across``, b along ``deep``."""
    angle = np.linspace(0, 2 * np.pi, n, endpoint=False)
    x = np.cos(angle)[None, :, None] * np.reshape(a, (-1, 1, 1))
    y = np.sin(angle)[None, :, None] * np.reshape(b, (-1, 1, 1))
    result: Array = (
        centres[:, None] + x * np.atleast_2d(across)[:, None] + y * np.atleast_2d(deep)[:, None]
    )
    return result


def skin_between(vertices: Array) -> tuple[Array, Array]:
    """Faces between neighbouring rings: corners [(R-1) * n, 4, 3] and their outward directions."""
    following = np.roll(vertices, -1, axis=1)
    corners = np.stack((vertices[:-1], following[:-1], following[1:], vertices[1:]), axis=2)
    middle = vertices.mean(axis=1)
    centre = ((middle[:-1] + middle[1:]) / 2)[:, None]
    normal = np.cross(corners[:, :, 2] - corners[:, :, 0], corners[:, :, 3] - corners[:, :, 1])
    away = corners.mean(axis=2) - centre
    normal *= np.sign((normal * away).sum(axis=2, keepdims=True) + 1e-12)
    return corners.reshape(-1, 4, 3), normal.reshape(-1, 3)


def disc(centre: Array, across: Array, up: Array, radius_x: float, radius_y: float) -> Array:
    """A flat eight-cornered plate as three faces [3, 4, 3]."""
    angle = np.arange(8) * np.pi / 4 + np.pi / 8
    points = (
        centre + np.cos(angle)[:, None] * radius_x * across + np.sin(angle)[:, None] * radius_y * up
    )
    return np.stack((points[[0, 1, 2, 3]], points[[0, 3, 4, 7]], points[[7, 4, 5, 6]]))


def box(low: Array, high: Array, heading: float = 0.0) -> tuple[Array, Array]:
    """The six sides of an upright box turned by ``heading`` about its middle, each split in 16."""
    (x0, y0, z0), (x1, y1, z1) = low, high
    p = np.array([(x, y, z) for x in (x0, x1) for y in (y0, y1) for z in (z0, z1)])
    sides = p[[[0, 1, 3, 2], [4, 5, 7, 6], [0, 1, 5, 4], [2, 3, 7, 6], [0, 2, 6, 4], [1, 3, 7, 5]]]
    middle = (np.asarray(low) + high) / 2
    outside = sides.mean(axis=1) - middle
    cut = np.linspace(0, 1, 5)
    pieces, ways = [], []
    for side, way in zip(sides, outside, strict=True):
        grid = (
            side[0]
            + cut[:, None, None] * (side[1] - side[0])
            + cut[None, :, None] * (side[3] - side[0])
        )
        quads = np.stack((grid[:-1, :-1], grid[1:, :-1], grid[1:, 1:], grid[:-1, 1:]), axis=2)
        pieces.append(quads.reshape(-1, 4, 3))
        ways.append(np.repeat(way[None], 16, axis=0))
    c, s = np.cos(heading), np.sin(heading)
    turn = np.array(((c, 0, s), (0, 1, 0), (-s, 0, c)))
    corners = (np.concatenate(pieces) - middle) @ turn.T + middle
    return corners, np.concatenate(ways) @ turn.T
