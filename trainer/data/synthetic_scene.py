# SPDX-License-Identifier: Apache-2.0
"""A scene of drawn people: who stands where, the painter, and what each keypoint's visibility is.

The painter sorts all faces by depth and fills them from far to near on an enlarged canvas whose
fourth channel remembers whose face was drawn last. That channel answers what is visible.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from .synthetic_background import background, noise
from .synthetic_body import FIGURE_KEYPOINTS, Build, Figure, pose_figure
from .synthetic_camera import Camera, Light
from .synthetic_faces import Faces, box
from .synthetic_mesh import MAX_PEOPLE, REGIONS, add_person
from .synthetic_motion import Action
from .synthetic_outfit import Outfit, random_colour

Rng = np.random.Generator
Array = NDArray[np.float64]
Path = Callable[[float], tuple[Array, float]]

NEAR_M = 0.25
SUPERSAMPLE = 2


@dataclass(frozen=True)
class Person:
    """One of the scene: body, clothes, motion, and where it is at a time (place, heading)."""

    build: Build
    outfit: Outfit
    action: Action
    path: Path

    def figure(self, t: float) -> Figure:
        place, heading = self.path(t)
        return pose_figure(self.build, self.action.posture(t), place, heading)


@dataclass(frozen=True)
class Drawn:
    """A person as seen: keypoints [28, 3] (x, y, v) in pixels of the picture (figure_skeleton's
    order), the visible area in pixels, its box left, top, width, height, and the person's index."""

    keypoints: NDArray[np.float32]
    area: float
    box: tuple[float, float, float, float]
    index: int


@dataclass(frozen=True)
class Scene:
    """Everything that is needed to draw a picture of any time."""

    camera: Camera
    light: Light
    backdrop: NDArray[np.uint8]
    ground: NDArray[np.float32]
    people: tuple[Person, ...]
    things: Faces
    grain: NDArray[np.float32]  # cloth's texture, multiplies drawn surfaces
    seed: int


def standing_at(place: Array, heading: float) -> Path:
    return lambda t: (place, heading)


def walking(place: Array, heading: float, speed: float) -> Path:
    """Straight on; t = 0 is at ``place``."""
    way = np.array((np.sin(heading), 0.0, np.cos(heading)))
    return lambda t: (place + way * speed * t, heading)


def around(centre: Array, wide: float, deep: float, speed: float, start: float) -> Path:
    """Round an ellipse at constant speed (negative: the other way), ``start`` in radians."""
    angle = np.linspace(0, 2 * np.pi, 721)
    x, z = centre[0] + wide * np.cos(angle), centre[2] + deep * np.sin(angle)
    length = np.concatenate(([0.0], np.cumsum(np.hypot(np.diff(x), np.diff(z)))))
    begin = float(np.interp(start % (2 * np.pi), angle, length))

    def at(t: float) -> tuple[Array, float]:
        a = float(np.interp((begin + speed * t) % length[-1], length, angle))
        way = np.sign(speed)
        heading = float(np.arctan2(-wide * np.sin(a) * way, deep * np.cos(a) * way))
        spot = np.array((centre[0] + wide * np.cos(a), 0.0, centre[2] + deep * np.sin(a)))
        return spot, heading

    return at


def _place_people(rng: Rng, camera: Camera, count: int) -> list[Person]:
    """People at distances that give a wide range of sizes, few of them inside one another."""
    people: list[Person] = []
    spots: list[Array] = []
    usual = float(np.exp(rng.uniform(np.log(0.22), np.log(1.25))))  # of the picture's height
    for _ in range(count * 12):
        if len(people) == count:
            break
        share = usual * float(np.exp(rng.normal(0, 0.35)))
        distance = max(camera.focal * 1.7 / (share * camera.height_px), 1.1)
        half = distance * camera.width / 2 / camera.focal
        spot = np.array((rng.uniform(-0.95, 0.95) * half, 0.0, -distance))
        pixel, depth = camera.project(spot + np.array((0, 0.95, 0)))
        inside = (pixel >= 0).all() and pixel[0] < camera.width and pixel[1] < camera.height_px
        close = any(np.linalg.norm(spot - other) < rng.uniform(0.3, 0.7) for other in spots)
        if depth < 1.0 or close or not (inside or rng.random() < 0.1):
            continue
        action = Action.random(rng)
        heading = float(rng.normal(0, 0.7) if rng.random() < 0.55 else rng.uniform(-np.pi, np.pi))
        path = walking(spot, heading, action.speed) if action.speed else standing_at(spot, heading)
        people.append(Person(Build.random(rng), Outfit.random(rng), action, path))
        spots.append(spot)
    return people


def _seat(things: Faces, figure: Figure, rng: Rng) -> None:
    """Something under a sitting person, sometimes with a back."""
    forward = figure.pelvis_frame[:, 2]
    heading = float(np.arctan2(forward[0], forward[2]))
    top = max(float(figure.pelvis[1]) - 0.11 * figure.build.girth, 0.08)
    x, _, z = figure.pelvis + forward * 0.06
    colour = random_colour(rng)
    wide = rng.uniform(0.2, 0.6)
    corners, out = box(np.array((x - wide, 0.0, z - 0.24)), np.array((x + wide, top, z + 0.2)))
    turned, ways = _turned(corners, out, np.array((x, 0, z)), heading)
    things.add(turned, ways, colour, 0, -0.05)
    things.solids.append(turned.reshape(-1, 3))
    if rng.random() < 0.5:
        low, high = np.array((x - wide, top, z - 0.3)), np.array((x + wide, top + 0.5, z - 0.24))
        turned, ways = _turned(*box(low, high), np.array((x, 0, z)), heading)
        things.add(turned, ways, colour * 0.9, 0, 0.0)


def _turned(corners: Array, out: Array, about: Array, heading: float) -> tuple[Array, Array]:
    c, s = np.cos(heading), np.sin(heading)
    turn = np.array(((c, 0, s), (0, 1, 0), (-s, 0, c)))
    return (corners - about) @ turn.T + about, out @ turn.T


def _furniture(rng: Rng, camera: Camera, people: list[Person], things: Faces) -> None:
    """Boxes, posts and tables, some in front of people so that they hide some of them."""
    depths = [-float(person.path(0.0)[0][2]) for person in people] or [4.0]
    for _ in range(int(rng.choice((0, 1, 2, 4), p=(0.35, 0.3, 0.2, 0.15)))):
        distance = float(rng.uniform(0.6, 1.6) * rng.choice(depths))
        half = distance * camera.width / 2 / camera.focal
        x = float(rng.uniform(-1, 1) * half)
        if distance < 0.9:
            continue
        kind = rng.integers(3)
        wide, high, deep = (
            (rng.uniform(0.2, 0.8), rng.uniform(0.3, 1.0), rng.uniform(0.2, 0.6)),
            (rng.uniform(0.05, 0.15), rng.uniform(1.5, 3.0), rng.uniform(0.05, 0.15)),
            (rng.uniform(0.4, 1.0), rng.uniform(0.05, 0.08), rng.uniform(0.3, 0.5)),
        )[int(kind)]
        floor = rng.uniform(0.5, 0.8) if kind == 2 else 0.0
        low = np.array((x - wide, floor, -distance - deep))
        corners, out = box(low, np.array((x + wide, floor + high, -distance + deep)), rng.normal())
        things.add(corners, out, random_colour(rng) * rng.uniform(0.7, 1.0), 0, 0.0)
        things.solids.append(corners.reshape(-1, 3))
        if kind == 2:
            for leg in (-0.9, 0.9):
                at = np.array((x + leg * wide, 0.0, -distance))
                low, high = at - np.array((0.03, 0, 0.03)), at + np.array((0.03, floor, 0.03))
                corners, out = box(low, high)
                things.add(corners, out, np.full(3, 70.0), 0, 0.0)


def make_scene(
    rng: Rng, width: int, height: int, people: tuple[int, int], backdrop: str | None = None
) -> Scene:
    """A random scene with ``people`` (least, most) people in it."""
    count = int(rng.integers(people[0], people[1] + 1))
    if not 0 <= count <= MAX_PEOPLE:
        raise ValueError(f"people must be 0..{MAX_PEOPLE}, not {people}")
    for _ in range(20):
        camera = Camera.random(rng, width, height)
        placed = _place_people(rng, camera, count)
        if len(placed) == count:
            break
    things = Faces()
    for person in placed:
        if person.action.seated:
            _seat(things, person.figure(0.0), rng)
    _furniture(rng, camera, placed, things)
    spots = np.array([person.path(0.0)[0] for person in placed] or [np.zeros(3)])
    space = (float(spots[:, 0].min()), float(spots[:, 0].max()), float(-spots[:, 2].min()))
    picture, ground = background(rng, camera, space, backdrop)
    return finish_scene(rng, camera, Light.random(rng), picture, ground, placed, things)


def finish_scene(
    rng: Rng,
    camera: Camera,
    light: Light,
    picture: NDArray[np.uint8],
    ground: NDArray[np.float32],
    people: list[Person],
    things: Faces,
) -> Scene:
    """A scene of given content, with the texture that cloth gets."""
    big = (camera.width * SUPERSAMPLE, camera.height_px * SUPERSAMPLE)
    grain = np.asarray(cv2.merge([1 + 0.05 * noise(rng, *big, 48, 3)] * 3), np.float32)
    seed = int(rng.integers(1 << 31))
    return Scene(camera, light, picture, ground, tuple(people), things, grain, seed)


def draw(scene: Scene, t: float = 0.0) -> tuple[NDArray[np.uint8], list[Drawn]]:
    """The picture of a moment, uint8 RGB [H, W, 3], and the people in it that can be seen."""
    camera = scene.camera
    figures = [person.figure(t) for person in scene.people]
    faces = Faces()
    faces.extend(scene.things)
    for i, (person, figure) in enumerate(zip(scene.people, figures, strict=True)):
        add_person(faces, figure, person.outfit, i + 1, _detail(camera, figure))
    picture = scene.backdrop
    if faces.corners:
        picture = _cast_shadows(scene, faces)
    rgb, owners = _paint(scene, faces, picture, figures)
    small = cv2.resize(rgb, (camera.width, camera.height_px), interpolation=cv2.INTER_AREA)
    people = [
        drawn
        for i, figure in enumerate(figures)
        if (drawn := _look(camera, owners, figure, i)) is not None
    ]
    return np.asarray(small, np.uint8), people


def _detail(camera: Camera, figure: Figure) -> int:
    """Faces around a limb: as many as the person's size in the picture can show."""
    pixels = _height_px(camera, figure)
    return 8 if pixels < 90 else 10 if pixels < 180 else 14 if pixels < 350 else 20


def _height_px(camera: Camera, figure: Figure) -> float:
    """How tall a person appears."""
    depth = float(camera.project(figure.chest)[1])
    return camera.focal * figure.build.height / max(depth, 0.5)


def _cast_shadows(scene: Scene, faces: Faces) -> NDArray[np.uint8]:
    """The background with soft shadows on the ground, and dark where things touch it."""
    camera, towards = scene.camera, scene.light.towards
    mask = np.zeros(scene.ground.shape, np.uint8)
    if scene.ground.any() and faces.solids:
        points = np.concatenate(faces.solids)
        flat = points - towards * (points[:, 1:2] / towards[1])
        flat[:, 1] = 0.0
        pixels, depth = camera.project(flat)
        pixels = np.clip(pixels, -2000, 4000).astype(np.float32)
        ends = np.cumsum([len(solid) for solid in faces.solids])[:-1]
        for outline, far in zip(np.split(pixels, ends), np.split(depth, ends), strict=True):
            if far.min() > NEAR_M:
                cv2.fillConvexPoly(mask, cv2.convexHull(outline).astype(np.int32), 255)
    soft = cv2.GaussianBlur(mask, (0, 0), 0.006 * camera.height_px + 0.6)
    dark = 1 - soft * np.float32(scene.light.shadow / 255) * scene.ground
    shaded = cv2.multiply(scene.backdrop, cv2.merge([dark] * 3), dtype=cv2.CV_8U)
    return np.asarray(shaded, np.uint8)


def _paint(
    scene: Scene, faces: Faces, picture: NDArray[np.uint8], figures: list[Figure]
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """All faces from far to near: uint8 RGB [H * S, W * S, 3] and owners [H * S, W * S]."""
    camera = scene.camera
    width, height = camera.width * SUPERSAMPLE, camera.height_px * SUPERSAMPLE
    canvas = np.zeros((height, width, 4), np.uint8)
    canvas[..., :3] = cv2.resize(picture, (width, height), interpolation=cv2.INTER_NEAREST)
    if not faces.corners:
        return np.ascontiguousarray(canvas[..., :3]), np.ascontiguousarray(canvas[..., 3])
    corners, outside, colour, owner, bias = faces.joined()
    normals = outside / (np.linalg.norm(outside, axis=1, keepdims=True) + 1e-12)
    middle = corners.mean(axis=1)
    view = camera.place - middle
    distance = np.linalg.norm(view, axis=1)
    pixels, depth = camera.project(corners)
    pixels = (pixels + 0.5) * SUPERSAMPLE - 0.5
    low, high = pixels.min(axis=1), pixels.max(axis=1)
    seen = (
        ((normals * view).sum(axis=1) > 0)
        & (depth.min(axis=1) > NEAR_M)
        & (high > 0).all(axis=1)
        & (low < (width, height)).all(axis=1)
    )
    index = np.flatnonzero(seen)
    index = index[np.argsort(bias[index] - distance[index])]
    # A dim rim where a surface turns away, as skin and cloth have, sets people off.
    turned = (normals[index] * view[index]).sum(axis=1) / distance[index]
    shade = scene.light.shade(normals[index]) * (0.86 + 0.14 * np.clip(turned * 2, 0, 1))[:, None]
    lit = np.clip(colour[index] * shade, 0, 255)
    rgbo = np.concatenate((lit, owner[index, None].astype(np.float64)), axis=1).tolist()
    points = np.clip(pixels[index], -20000, 20000)
    quads = np.rint(points * 16).astype(np.int32)
    fill = cv2.fillConvexPoly
    for quad, value in zip(quads, rgbo, strict=True):
        fill(canvas, quad, value, 8, 4)
    rgb = np.asarray(cv2.cvtColor(canvas, cv2.COLOR_BGRA2BGR), np.uint8)  # drops the owner
    owners = np.ascontiguousarray(canvas[..., 3])
    _smooth_inside(rgb, owners, max((_height_px(camera, figure) for figure in figures), default=0))
    textured = cv2.multiply(rgb, scene.grain, dtype=cv2.CV_8U)
    cv2.copyTo(textured, owners, rgb)
    return rgb, owners


def _smooth_inside(rgb: NDArray[np.uint8], owners: NDArray[np.uint8], person_px: float) -> None:
    """Hides the single faces of bodies: blurs, in place, where all around has the same owner.

    Faces of the head keep their edges, and so does every outline.
    """
    reach = 2 * int(person_px * SUPERSAMPLE / 70) + 1
    if reach < 3:
        return
    reach = min(reach, 15)
    around_ = np.ones((reach, reach), np.uint8)
    same = cv2.compare(cv2.dilate(owners, around_), cv2.erode(owners, around_), cv2.CMP_EQ)
    same[(owners == 0) | (owners & 15 == REGIONS.index("head"))] = 0
    cv2.copyTo(cv2.GaussianBlur(rgb, (reach, reach), 0), same, rgb)


# The regions on which a keypoint counts as visible; a face needs more than that, see _FACING.
_SHOWS = {
    "shoulder": ("{}_upper_arm", "torso"),
    "elbow": ("{}_upper_arm", "{}_forearm"),
    "wrist": ("{}_forearm", "{}_hand"),
    "hip": ("torso", "{}_thigh", "skirt"),
    "knee": ("{}_thigh", "{}_shank", "skirt"),
    "ankle": ("{}_shank", "{}_foot"),
    "big_toe": ("{}_foot",),
    "small_toe": ("{}_foot",),
    "heel": ("{}_foot",),
}
# Where each point of the face looks to, in the head's frame.
_FACING = {
    "nose": (0.0, 0.0, 1.0),
    "left_eye": (0.5, 0.0, 0.87),
    "right_eye": (-0.5, 0.0, 0.87),
    "left_ear": (1.0, 0.0, 0.0),
    "right_ear": (-1.0, 0.0, 0.0),
}


def _regions_that_show() -> list[frozenset[int]]:
    result = []
    for name in FIGURE_KEYPOINTS:
        side, _, joint = name.partition("_")
        patterns: tuple[str, ...] = ("head",) if name in _FACING else ("head", "torso")
        if side in ("left", "right"):
            patterns = _SHOWS.get(joint, patterns)
        result.append(frozenset(REGIONS.index(pattern.format(side)) for pattern in patterns))
    return result


_REGIONS_THAT_SHOW = _regions_that_show()


def _look(camera: Camera, owners: NDArray[np.uint8], figure: Figure, index: int) -> Drawn | None:
    """What can be seen of a person; None where nothing worth a label can."""
    mine = (owners >> 4) == index + 1
    area = float(np.count_nonzero(mine)) / SUPERSAMPLE**2
    if area < 6:
        return None
    columns, rows = np.flatnonzero(mine.any(axis=0)), np.flatnonzero(mine.any(axis=1))
    left, right = columns[0] / SUPERSAMPLE, (columns[-1] + 1) / SUPERSAMPLE
    top, bottom = rows[0] / SUPERSAMPLE, (rows[-1] + 1) / SUPERSAMPLE
    pixels, depth = camera.project(figure.keypoints)
    centre_depth = float(camera.project((figure.pelvis + figure.chest) / 2)[1])
    result = np.zeros((len(FIGURE_KEYPOINTS), 3), np.float32)
    for i, name in enumerate(FIGURE_KEYPOINTS):
        x, y = pixels[i]
        inside = -0.5 <= x < camera.width - 0.5 and -0.5 <= y < camera.height_px - 0.5
        if not inside or depth[i] < NEAR_M:
            continue
        owner = int(owners[int((y + 0.5) * SUPERSAMPLE), int((x + 0.5) * SUPERSAMPLE)])
        seen = owner >> 4 == index + 1 and owner & 15 in _REGIONS_THAT_SHOW[i]
        if name in _FACING:
            away = camera.place - figure.keypoints[i]
            facing = float(figure.head_frame @ _FACING[name] @ away / np.linalg.norm(away))
            if facing < -0.35:  # the other side of the head: no annotator would mark it
                continue
            seen = seen and facing > -0.1
        elif name.endswith(("shoulder", "hip")) and depth[i] > centre_depth + 0.07:
            seen = seen and owner & 15 not in (0, REGIONS.index("skirt"))
        result[i] = (x, y, 2 if seen else 1)
    if not (result[:, 2] == 2).any():
        return None
    box = (float(left), float(top), float(right - left), float(bottom - top))
    return Drawn(result, area, box, index)
