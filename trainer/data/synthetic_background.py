# SPDX-License-Identifier: Apache-2.0
"""Backgrounds: rooms, streets and meadows in perspective, studios, and plain clutter.

A background is uint8 RGB [H, W, 3] and a float mask [H, W] that is 1 where the ground is seen and
may take shadows.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from .synthetic_camera import Camera
from .synthetic_outfit import random_colour

Rng = np.random.Generator
Array = NDArray[np.float32]
Picture = tuple[NDArray[np.uint8], Array]
Space = tuple[float, float, float]  # metres: people stand between left and right, up to far


def noise(rng: Rng, width: int, height: int, coarse: int, octaves: int) -> Array:
    """Smooth noise of several octaves, float32 [height, width], about -1..1."""
    result = np.zeros((height, width), np.float32)
    strength, total = 1.0, 0.0
    for octave in range(octaves):
        cells = coarse * 2**octave
        grid = rng.uniform(-1, 1, (min(cells, height), min(cells, width))).astype(np.float32)
        smooth = cv2.resize(grid, (width, height), interpolation=cv2.INTER_LINEAR)
        result += np.float32(strength) * np.asarray(smooth, np.float32)
        total += strength
        strength *= 0.55
    scaled: Array = np.asarray(result / np.float32(total * 0.6), np.float32)
    return scaled


def _muted(rng: Rng, low: float = 60, high: float = 215) -> Array:
    grey = rng.uniform(low, high)
    tint = random_colour(rng)
    colour = grey + 0.8 * rng.random() ** 1.5 * (tint - tint.mean())
    muted: Array = np.clip(colour, 10, 245).astype(np.float32)
    return muted


def texture(rng: Rng, kind: str, size: int = 256) -> NDArray[np.uint8]:
    """A square of stuff, uint8 RGB [size, size, 3], about 2 m x 2 m when laid on a floor."""
    colour = _muted(rng)
    fine = noise(rng, size, size, 16, 4)[..., None]
    picture = colour * (1 + 0.10 * fine)
    if kind == "grass":
        green = np.array((rng.uniform(70, 120), rng.uniform(105, 150), rng.uniform(45, 75)))
        grain = rng.normal(0, 0.13, (size, size, 1)).astype(np.float32)
        picture = green.astype(np.float32) * (1 + 0.22 * fine + grain)
    elif kind == "asphalt":
        grain = rng.normal(0, 0.06, (size, size, 1)).astype(np.float32)
        picture = np.float32(rng.uniform(85, 150)) * (1 + 0.08 * fine + grain) * np.ones(3)
    elif kind in ("tiles", "bricks", "planks"):
        picture = _laid(rng, kind, picture, size)
    elif kind == "stripes":
        period = int(rng.choice((8, 16, 32, 64)))
        band = (np.arange(size) // period) % 2 == 0
        picture = np.where(band[None, :, None], picture, picture * rng.uniform(0.7, 0.95))
    return np.clip(picture, 0, 255).astype(np.uint8)


def _laid(rng: Rng, kind: str, picture: Array, size: int) -> Array:
    """Tiles, bricks or planks: pieces of slightly different colour with joints between."""
    high = int(rng.choice((16, 32))) if kind != "tiles" else int(rng.choice((32, 64, 128)))
    wide = {"tiles": high, "bricks": high * 2, "planks": 128}[kind]
    rows, columns = size // high, size // wide
    joint = rng.uniform(0.6, 0.9) if rng.random() < 0.8 else 1.15
    checker = kind == "tiles" and rng.random() < 0.3
    result = picture.astype(np.float32)
    for row in range(rows):
        shift = (row * wide // 2) if kind != "tiles" else 0
        shade = rng.normal(1.0, 0.07, columns).astype(np.float32)
        if checker:
            shade *= np.where((np.arange(columns) + row) % 2 == 0, 1.0, 0.55)
        line = np.roll(np.repeat(shade, wide), shift)
        line[(np.arange(size) - shift) % wide < 2] *= joint
        result[row * high : (row + 1) * high] *= line[None, :, None]
        result[row * high : row * high + 2] *= joint
    return result


def _lay(
    picture: Array,
    stuff: NDArray[np.uint8],
    u: Array,
    v: Array,
    where: NDArray[np.bool_],
    fade: Array,
) -> None:
    """Paints a plane: ``u``, ``v`` are metres in the plane; with distance its mean remains."""
    rows, columns = np.flatnonzero(where.any(axis=1)), np.flatnonzero(where.any(axis=0))
    if len(rows) == 0:
        return
    spot = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    size = stuff.shape[0]
    scale = np.float32(size / 2.0)
    mapped = cv2.remap(
        stuff,
        np.mod(u[spot] * scale, size),
        np.mod(v[spot] * scale, size),
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_WRAP,
    ).astype(np.float32)
    mean = stuff.reshape(-1, 3).mean(axis=0, dtype=np.float32)
    mixed = (mapped - mean) * fade[spot][..., None] + mean
    picture[spot][where[spot]] = mixed[where[spot]]


def _plane(rays: Array, axis: int, distance: float) -> Array:
    """How far along each ray the plane at ``distance`` on ``axis`` is met; inf where never."""
    way = rays[..., axis]
    with np.errstate(divide="ignore", invalid="ignore"):
        t = distance / way
    return np.where((t > 1e-3) & np.isfinite(t), t, np.inf).astype(np.float32)


def room(rng: Rng, camera: Camera, space: Space) -> Picture:
    """A box of a room: floor, ceiling, walls with skirting boards, pictures, doors and windows."""
    rays = camera.rays().astype(np.float32)
    far, half, ceiling = rng.uniform(5, 14), rng.uniform(3.0, 7.0), rng.uniform(2.5, 4.2)
    ceiling = max(ceiling, camera.height + 0.4)
    middle = rng.uniform(-0.5, 0.5) * half
    left, right = min(middle - half, space[0] - 0.6), max(middle + half, space[1] + 0.6)
    far = max(far, space[2] + 0.8)
    hits = np.stack(
        (
            _plane(rays, 1, -camera.height),
            _plane(rays, 1, ceiling - camera.height),
            _plane(rays, 2, -far),
            np.minimum(_plane(rays, 0, left), _plane(rays, 0, right)),
        )
    )
    nearest = hits.argmin(axis=0)
    t = np.minimum(hits.min(axis=0), 1000.0)
    at = rays * t[..., None]
    x, y, z = at[..., 0], at[..., 1] + np.float32(camera.height), at[..., 2]
    picture = np.zeros((camera.height_px, camera.width, 3), np.float32)
    fade = np.exp(-np.maximum(t - 3, 0) / 9).astype(np.float32)
    wall = texture(rng, str(rng.choice(("plain", "plain", "bricks", "stripes", "tiles"))))
    floor = texture(rng, str(rng.choice(("planks", "tiles", "plain", "planks"))))
    _lay(picture, floor, x, z, nearest == 0, fade)
    _lay(picture, texture(rng, "plain"), x, z, nearest == 1, fade)
    _lay(picture, wall, x, -y, nearest == 2, fade)
    _lay(picture, wall, z, -y, nearest == 3, fade)
    picture[nearest == 1] = picture[nearest == 1] * 0.3 + 165
    _furnish_wall(rng, picture, x, y, nearest == 2, half)
    _furnish_wall(rng, picture, z, y, nearest == 3, far)
    walls = nearest >= 2
    picture[walls & (y < 0.1)] *= rng.uniform(0.5, 1.2)
    side = np.where(nearest == 3, rng.uniform(0.75, 0.95), 1.0)[..., None]
    corner = 1 - 0.25 * np.exp(-np.abs(y) / 0.35) * walls
    picture *= side * corner[..., None]
    return np.clip(picture, 0, 255).astype(np.uint8), (nearest == 0).astype(np.float32)


def _furnish_wall(
    rng: Rng, picture: Array, u: Array, v: Array, where: NDArray[np.bool_], half: float
) -> None:
    """Doors, windows, pictures and shelves as rectangles in the wall's own metres."""
    for _ in range(int(rng.integers(0, 6))):
        kind = rng.choice(("door", "window", "picture", "board"))
        left = rng.uniform(-half, half * 0.8)
        wide, low, high = {
            "door": (0.95, 0.0, 2.05),
            "window": (rng.uniform(0.8, 2.2), 0.9, rng.uniform(1.8, 2.3)),
            "picture": (rng.uniform(0.3, 1.0), rng.uniform(1.1, 1.5), rng.uniform(1.7, 2.1)),
            "board": (rng.uniform(0.5, 2.0), 0.0, rng.uniform(0.6, 1.9)),
        }[str(kind)]
        inside = where & (u > left) & (u < left + wide) & (v > low) & (v < high)
        border = inside & (
            (u < left + 0.06) | (u > left + wide - 0.06) | (v > high - 0.06) | (v < low + 0.06)
        )
        colour = _muted(rng, 40, 235)
        if kind == "window":
            bright = np.array((190, 210, 230)) * rng.uniform(0.7, 1.15)
            picture[inside] = bright - 25 * (v[inside] - low)[:, None]
            picture[inside & (np.abs(u - left - wide / 2) < 0.03)] = colour
        elif kind == "picture":
            print_ = np.sin(u * rng.uniform(3, 15) + 3 * np.sin(v * rng.uniform(3, 9)))
            picture[inside] = _muted(rng) + 40 * print_[inside][:, None]
        else:
            picture[inside] = colour
            shelf = inside & (np.mod(v, 0.4) < 0.04)
            picture[shelf if kind == "board" else border] *= 0.6
        picture[border] = _muted(rng, 30, 240)


def outdoors(rng: Rng, camera: Camera, space: Space) -> Picture:
    """Sky, ground to the horizon, and houses or trees where they meet."""
    rays = camera.rays().astype(np.float32)
    height, width = camera.height_px, camera.width
    t = np.minimum(_plane(rays, 1, -camera.height), 1e4)
    ground = rays[..., 1] < 0
    up = np.clip(rays[..., 1] / np.linalg.norm(rays, axis=2), 0, 1)
    blue = np.array((110, 150, 205)) * rng.uniform(0.7, 1.2)
    haze = np.array((205, 215, 225)) * rng.uniform(0.75, 1.1)
    clouds = np.clip(noise(rng, width, height, 3, 4) + rng.uniform(-0.4, 0.6), 0, 1)[..., None]
    blend = np.clip(up * 2.2, 0, 1)[..., None]
    sky = haze * (1 - blend) + blue * blend
    picture = (sky * (1 - 0.7 * clouds) + 235 * 0.7 * clouds).astype(np.float32)
    _skyline(rng, picture, camera)
    at = rays * t[..., None]
    fade = np.exp(-np.maximum(t - 4, 0) / 10).astype(np.float32)
    kind = str(rng.choice(("grass", "asphalt", "tiles", "bricks", "plain")))
    _lay(picture, texture(rng, kind), at[..., 0], at[..., 2], ground, fade)
    if kind == "asphalt" and rng.random() < 0.6:
        line = ground & (np.abs(at[..., 0] - rng.uniform(-3, 3)) < 0.07)
        picture[line] = picture[line] * 0.3 + 150
    far = np.clip((t - 25) / 120, 0, 0.8)[..., None] * ground[..., None]
    picture = picture * (1 - far) + haze * far
    return np.clip(picture, 0, 255).astype(np.uint8), ground.astype(np.float32)


def _skyline(rng: Rng, picture: Array, camera: Camera) -> None:
    """Houses with windows, hedges and trees that stand on the horizon, far ones first."""
    height, width = picture.shape[:2]
    horizon = (height - 1) / 2 - camera.focal * float(np.tan(camera.tilt))
    if horizon < 2:
        return
    foot = int(min(horizon + 2, height))
    for _ in range(int(rng.integers(2, 9))):
        left = int(rng.integers(-width // 4, width))
        wide = int(rng.uniform(0.1, 0.5) * width)
        top = int(max(0, horizon - rng.uniform(0.08, 0.6) * height))
        if rng.random() < 0.55:
            _house(rng, picture, (left, top, left + wide, foot))
        else:
            green = np.array((60, 90, 45)) * rng.uniform(0.5, 1.4)
            wide = max(wide, 4)
            leaves = noise(rng, wide, max(foot - top, 2), 5, 4)
            yy, xx = np.mgrid[-1 : 1 : leaves.shape[0] * 1j, -1 : 1 : wide * 1j]
            crown = leaves * 0.5 + 0.5 > xx**2 + (yy + 0.2) ** 2
            crown |= (np.abs(xx) < 0.06) & (yy > 0.2)
            x0, x1 = max(left, 0), min(left + wide, width)
            if x1 <= x0:
                continue
            patch = picture[top : top + leaves.shape[0], x0:x1]
            inside = crown[: patch.shape[0], x0 - left : x1 - left]
            shade = (1 + 0.45 * leaves)[: patch.shape[0], x0 - left : x1 - left, None]
            patch[inside] = (green * shade)[inside]


def _house(rng: Rng, picture: Array, spot: tuple[int, int, int, int]) -> None:
    left, top, right, foot = spot
    colour, glass = _muted(rng, 70, 210), _muted(rng, 25, 110)
    front = picture[top:foot, max(left, 0) : max(right, 0)]
    front[:] = colour * (1 + 0.03 * rng.normal(size=(*front.shape[:2], 1)))
    step = int(rng.uniform(0.03, 0.09) * picture.shape[0]) + 4
    for y in range(top + step // 2, foot - step, step):
        for x in range(left + step // 3, right - step // 2, step):
            if x >= 0:
                tone = glass * rng.uniform(0.7, 1.6)
                picture[y : y + step // 2, x : x + step // 2] = np.clip(tone, 0, 255)


def studio(rng: Rng, camera: Camera, space: Space) -> Picture:
    """A smooth backdrop that runs into the floor."""
    height, width = camera.height_px, camera.width
    down = np.linspace(0, 1, height, dtype=np.float32)[:, None, None]
    across = np.linspace(-1, 1, width, dtype=np.float32)[None, :, None]
    top, low = _muted(rng, 30, 240), _muted(rng, 40, 230)
    glow = 1 - 0.3 * rng.random() * (across**2 + (down - 0.4) ** 2)
    picture = (top * (1 - down) + low * down) * glow
    picture = picture * (1 + 0.05 * noise(rng, width, height, 4, 5)[..., None])
    ground = (camera.rays()[..., 1] < -0.02).astype(np.float32)
    return np.clip(picture, 0, 255).astype(np.uint8), ground


def clutter(rng: Rng, camera: Camera, space: Space) -> Picture:
    """Anything at all: noise and random shapes, some of them limb-like, without a ground."""
    height, width = camera.height_px, camera.width
    layers = [noise(rng, width, height, int(rng.integers(2, 10)), 5) for _ in range(2)]
    one, two, third = (_muted(rng, 20, 235) for _ in range(3))
    mix = np.clip(layers[0] * 0.5 + 0.5, 0, 1)[..., None]
    picture = one * mix + two * (1 - mix) + 0.3 * third * layers[1][..., None]
    canvas = np.clip(picture, 0, 255).astype(np.uint8)
    for _ in range(int(rng.integers(5, 40))):
        colour = tuple(float(c) for c in _muted(rng, 10, 245))
        centre = (int(rng.integers(width)), int(rng.integers(height)))
        size = float(rng.uniform(0.02, 0.3) * width)
        kind = rng.integers(3)
        if kind == 0:
            angle = np.sort(rng.uniform(0, 2 * np.pi, int(rng.integers(3, 8))))
            points = np.stack((np.cos(angle), np.sin(angle)), axis=1) * size + centre
            cv2.fillPoly(canvas, [points.astype(np.int32)], colour, cv2.LINE_AA)
        elif kind == 1:
            axes = (int(size) + 1, int(size * rng.uniform(0.1, 1)) + 1)
            cv2.ellipse(
                canvas, centre, axes, float(rng.uniform(0, 180)), 0, 360, colour, -1, cv2.LINE_AA
            )
        else:
            end = (int(rng.integers(width)), int(rng.integers(height)))
            thick = max(1, int(size * 0.2))
            cv2.line(canvas, centre, end, colour, thick, cv2.LINE_AA)
    grain = 1 + 0.06 * noise(rng, width, height, 32, 3)[..., None]
    blurred = cv2.GaussianBlur(canvas, (0, 0), float(rng.uniform(0.5, 2.5)))
    result = np.clip(blurred * grain, 0, 255).astype(np.uint8)
    return result, np.zeros((height, width), np.float32)


KINDS: dict[str, tuple[float, Callable[[Rng, Camera, Space], Picture]]] = {
    "room": (0.38, room),
    "outdoors": (0.34, outdoors),
    "studio": (0.1, studio),
    "clutter": (0.18, clutter),
}


def background(
    rng: Rng, camera: Camera, space: Space = (0.0, 0.0, 0.0), kind: str | None = None
) -> Picture:
    """A background of the given kind, or of a random one, with room for people within ``space``."""
    if kind is None:
        weights = [weight for weight, _ in KINDS.values()]
        kind = list(KINDS)[int(rng.choice(len(weights), p=weights))]
    return KINDS[kind][1](rng, camera, space)
