# SPDX-License-Identifier: Apache-2.0
"""The drawn people's bodies: proportions, joint angles with limits, and forward kinematics.

World and body frames are right-handed, in metres: x to the person's left, y up, z forward (the
way the person faces). Angles are radians. Proportions follow the classical table of segment
lengths as fractions of stature (Drillis and Contini 1966), varied per person.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posewire.skeleton import Skeleton

Vector = NDArray[np.float64]

# The figure's own keypoints, richer than any one data set's; names are posewire.skeleton's
# meanings, so that mapping() finds them.
FIGURE_KEYPOINTS = (
    "nose",
    "left_eye",
    "right_eye",
    "left_ear",
    "right_ear",
    "left_shoulder",
    "right_shoulder",
    "left_elbow",
    "right_elbow",
    "left_wrist",
    "right_wrist",
    "left_hip",
    "right_hip",
    "left_knee",
    "right_knee",
    "left_ankle",
    "right_ankle",
    "head_top",
    "upper_neck",
    "neck",
    "mid_shoulder",
    "mid_hip",
    "left_big_toe",
    "right_big_toe",
    "left_small_toe",
    "right_small_toe",
    "left_heel",
    "right_heel",
)


def figure_skeleton() -> Skeleton:
    """The figure's keypoints as a skeleton, the source of every conversion."""
    other = {"left": "right", "right": "left"}

    def mirrored(name: str) -> int:
        side, _, rest = name.partition("_")
        return FIGURE_KEYPOINTS.index(f"{other[side]}_{rest}" if side in other else name)

    flips = tuple(mirrored(name) for name in FIGURE_KEYPOINTS)
    return Skeleton("figure", FIGURE_KEYPOINTS, (), flips, (0.08,) * len(FIGURE_KEYPOINTS))


@dataclass(frozen=True)
class Build:
    """One person's measures in metres; ``girth`` scales limb radii, ``belly`` the waist."""

    height: float = 1.72
    shoulder: float = 0.19  # half the distance between the shoulder joints
    hip: float = 0.095  # half the distance between the hip joints
    torso: float = 0.50  # hip line to shoulder line
    neck: float = 0.115  # shoulder line to the head's lower end
    head: float = 0.225  # chin to crown
    upper_arm: float = 0.295
    forearm: float = 0.26
    hand: float = 0.175
    thigh: float = 0.43
    shank: float = 0.42
    foot: float = 0.25
    ankle: float = 0.075  # height of the ankle over the sole
    girth: float = 1.0
    belly: float = 1.0
    waist: float = 0.82  # waist width over chest width
    bust: float = 0.0  # extra chest depth

    @classmethod
    def random(cls, rng: np.random.Generator) -> Build:
        """A grown-up of either sex, or sometimes a child."""
        child = rng.random() < 0.12
        female = rng.random() < 0.5
        height = float(np.clip(rng.normal(1.64 if female else 1.77, 0.07), 1.45, 2.02))
        head = float(rng.normal(0.225, 0.008))
        if child:
            height = float(rng.uniform(1.0, 1.45))
            head = 0.205 + 0.02 * (height - 1.0)
        scale = height / 1.72

        def near(value: float, spread: float = 0.04) -> float:
            return value * scale * float(np.clip(rng.normal(1.0, spread), 0.9, 1.1))

        neck, ankle = near(0.105), 0.075 * scale
        torso, thigh, shank = near(0.49), near(0.425), near(0.415)
        # Trunk and legs share what head, neck and feet leave of the stature.
        fit = (height - head - neck - ankle) / (torso + thigh + shank)
        return cls(
            height=height,
            shoulder=near(0.168 if female else 0.19),
            hip=near(0.098 if female else 0.092),
            torso=torso * fit,
            neck=neck,
            head=head,
            upper_arm=near(0.29),
            forearm=near(0.255),
            hand=near(0.172),
            thigh=thigh * fit,
            shank=shank * fit,
            foot=near(0.245),
            ankle=ankle,
            girth=float(np.clip(rng.normal(1.0, 0.13), 0.75, 1.4)) * scale ** (0.7 if child else 1),
            belly=float(np.clip(rng.normal(1.0, 0.16), 0.8, 1.6)),
            waist=float(rng.normal(0.76 if female else 0.88, 0.04)),
            bust=float(rng.uniform(0.0, 0.045)) * scale if female and not child else 0.0,
        )


# Angle limits in degrees: (least, most). "twist" turns about the bone's own axis, outwards.
LIMITS_DEG: Mapping[str, tuple[float, float]] = {
    "spine_bend": (-25, 85),
    "spine_side": (-30, 30),
    "spine_twist": (-45, 45),
    "head_nod": (-40, 45),
    "head_turn": (-75, 75),
    "head_tilt": (-30, 30),
    "shoulder_flex": (-50, 180),
    "shoulder_abduct": (-25, 178),
    "shoulder_twist": (-90, 90),
    "elbow": (0, 150),
    "hip_flex": (-30, 120),
    "hip_abduct": (-20, 60),
    "hip_twist": (-35, 45),
    "knee": (0, 145),
    "ankle": (-25, 45),
}


@dataclass(frozen=True)
class Limbs:
    """The angles of one side, in radians."""

    shoulder_flex: float = 0.0  # upper arm forwards
    shoulder_abduct: float = 0.08  # upper arm sideways, away from the body
    shoulder_twist: float = 0.0  # turns the elbow's plane outwards
    elbow: float = 0.15
    hip_flex: float = 0.0  # thigh forwards
    hip_abduct: float = 0.03
    hip_twist: float = 0.1  # toes outwards
    knee: float = 0.03
    ankle: float = 0.0  # toes down


@dataclass(frozen=True)
class Posture:
    """All joint angles of one moment, in radians, and the body's place relative to the ground."""

    left: Limbs = field(default_factory=Limbs)
    right: Limbs = field(default_factory=Limbs)
    spine_bend: float = 0.0
    spine_side: float = 0.0
    spine_twist: float = 0.0
    head_nod: float = 0.0
    head_turn: float = 0.0
    head_tilt: float = 0.0
    pelvis_pitch: float = 0.0  # the whole body forwards; pi/2 lies on the belly
    pelvis_roll: float = 0.0
    lift: float = 0.0  # metres that the lowest point stands above the ground

    def limited(self) -> Posture:
        """The same posture with every angle inside LIMITS_DEG."""
        return Posture(
            left=_limited(self.left),
            right=_limited(self.right),
            **{
                item.name: _limit(item.name, getattr(self, item.name))
                for item in fields(self)
                if item.name not in ("left", "right")
            },
        )


def _limit(name: str, value: float) -> float:
    low, high = LIMITS_DEG.get(name, (-720.0, 720.0))
    return float(min(max(value, np.deg2rad(low)), np.deg2rad(high)))


def _limited(side: Limbs) -> Limbs:
    return Limbs(
        **{item.name: _limit(item.name, getattr(side, item.name)) for item in fields(side)}
    )


def turn_x(angle: float) -> Vector:
    """Rotation about x: up goes forward."""
    c, s = np.cos(angle), np.sin(angle)
    return np.array(((1, 0, 0), (0, c, -s), (0, s, c)))


def turn_y(angle: float) -> Vector:
    """Rotation about y: forward goes left."""
    c, s = np.cos(angle), np.sin(angle)
    return np.array(((c, 0, s), (0, 1, 0), (-s, 0, c)))


def turn_z(angle: float) -> Vector:
    """Rotation about z: down goes left."""
    c, s = np.cos(angle), np.sin(angle)
    return np.array(((c, -s, 0), (s, c, 0), (0, 0, 1)))


@dataclass(frozen=True)
class Bone:
    """A segment from ``start`` to ``end``; ``frame`` has the columns lateral, along (upwards),
    forward of the segment."""

    start: Vector
    end: Vector
    frame: Vector


@dataclass(frozen=True)
class Figure:
    """A posed body in the world: bones by name, the pelvis, chest and head frames, keypoints."""

    build: Build
    bones: Mapping[str, Bone]
    pelvis: Vector
    pelvis_frame: Vector
    chest: Vector  # the middle of the shoulder line
    chest_frame: Vector
    head: Vector  # the head's centre
    head_frame: Vector
    keypoints: NDArray[np.float64]  # [len(FIGURE_KEYPOINTS), 3]


_SEGMENTS = ("upper_arm", "forearm", "hand", "thigh", "shank", "foot")
DOWN = np.array((0.0, -1.0, 0.0))
FORWARD = np.array((0.0, 0.0, 1.0))


def _arm(build: Build, side: float, shoulder: Vector, chest: Vector, a: Limbs) -> list[Bone]:
    upper = (
        chest
        @ turn_z(side * a.shoulder_abduct)
        @ turn_x(-a.shoulder_flex)
        @ turn_y(side * a.shoulder_twist)
    )
    elbow = shoulder + upper @ DOWN * build.upper_arm
    lower = upper @ turn_x(-a.elbow)
    wrist = elbow + lower @ DOWN * build.forearm
    tip = wrist + lower @ turn_x(-0.12) @ DOWN * build.hand
    return [Bone(shoulder, elbow, upper), Bone(elbow, wrist, lower), Bone(wrist, tip, lower)]


def _leg(build: Build, side: float, hip: Vector, pelvis: Vector, a: Limbs) -> list[Bone]:
    upper = pelvis @ turn_z(side * a.hip_abduct) @ turn_x(-a.hip_flex) @ turn_y(side * a.hip_twist)
    knee = hip + upper @ DOWN * build.thigh
    lower = upper @ turn_x(a.knee)
    ankle = knee + lower @ DOWN * build.shank
    foot = lower @ turn_x(a.ankle)
    toe = ankle + foot @ (FORWARD * build.foot * 0.72 + DOWN * build.ankle * 0.75)
    return [Bone(hip, knee, upper), Bone(knee, ankle, lower), Bone(ankle, toe, foot)]


def _head_points(build: Build, centre: Vector, frame: Vector) -> dict[str, Vector]:
    """The face's keypoints, on the surface of the head that synthetic_mesh draws."""
    h = build.head
    local = {
        "nose": (0.0, -0.10, 0.50),
        "left_eye": (0.14, 0.06, 0.40),
        "right_eye": (-0.14, 0.06, 0.40),
        "left_ear": (0.335, -0.01, -0.02),
        "right_ear": (-0.335, -0.01, -0.02),
        "head_top": (0.0, 0.53, -0.02),
        "upper_neck": (0.0, -0.50, -0.10),
    }
    return {name: centre + frame @ (np.array(at) * h) for name, at in local.items()}


def pose_figure(build: Build, posture: Posture, place: Vector, heading: float) -> Figure:
    """Forward kinematics. ``place`` is the ground point under the pelvis (y is the ground's
    height), ``heading`` the direction the person faces: 0 looks along +z, pi/2 along +x."""
    p = posture.limited()
    pelvis = turn_y(heading) @ turn_x(p.pelvis_pitch) @ turn_z(p.pelvis_roll)
    chest = pelvis @ turn_y(p.spine_twist) @ turn_z(-p.spine_side) @ turn_x(p.spine_bend)
    # The spine bends along its length: its lower half follows the pelvis, the upper the chest.
    middle = pelvis @ np.array((0, build.torso * 0.45, 0.0))
    shoulders = middle + chest @ np.array((0, build.torso * 0.55, 0.0))
    head = chest @ turn_y(p.head_turn) @ turn_x(p.head_nod) @ turn_z(-p.head_tilt)
    neck_end = shoulders + chest @ np.array((0, build.neck * 0.7, 0.012))
    head_centre = neck_end + head @ np.array((0, build.neck * 0.3 + build.head * 0.5, 0.02))
    bones: dict[str, Bone] = {"neck": Bone(shoulders, neck_end, chest)}
    points: dict[str, Vector] = _head_points(build, head_centre, head)
    for name, side, angles in (("left", 1.0, p.left), ("right", -1.0, p.right)):
        raised = max(angles.shoulder_abduct, angles.shoulder_flex, 0.0) / np.pi
        offset = np.array((side * build.shoulder * (1 - 0.12 * raised), 0.09 * raised - 0.018, 0.0))
        arm = _arm(build, side, shoulders + chest @ offset, chest, angles)
        leg = _leg(build, side, pelvis @ np.array((side * build.hip, 0, 0.0)), pelvis, angles)
        for bone, segment in zip(_SEGMENTS, [*arm, *leg], strict=True):
            bones[f"{name}_{bone}"] = segment
        points |= _limb_points(build, name, side, arm, leg)
    points["mid_shoulder"] = (points["left_shoulder"] + points["right_shoulder"]) / 2
    points["mid_hip"] = (points["left_hip"] + points["right_hip"]) / 2
    points["neck"] = points["mid_shoulder"] + chest @ np.array((0, 0.035, 0.0))
    keypoints = np.stack([points[name] for name in FIGURE_KEYPOINTS])
    shift = np.asarray(place) + np.array((0, p.lift - _lowest(build, points), 0))
    return Figure(
        build=build,
        bones={n: Bone(b.start + shift, b.end + shift, b.frame) for n, b in bones.items()},
        pelvis=shift,
        pelvis_frame=pelvis,
        chest=shoulders + shift,
        chest_frame=chest,
        head=head_centre + shift,
        head_frame=head,
        keypoints=keypoints + shift,
    )


def _limb_points(
    build: Build, name: str, side: float, arm: list[Bone], leg: list[Bone]
) -> dict[str, Vector]:
    ankle, foot = leg[2].start, leg[2].frame

    def on_foot(x: float, y: float, z: float) -> Vector:
        return np.asarray(ankle + foot @ np.array((side * x, y, z)))

    sole = -build.ankle * 0.8
    return {
        f"{name}_shoulder": arm[0].start,
        f"{name}_elbow": arm[1].start,
        f"{name}_wrist": arm[2].start,
        f"{name}_hip": leg[0].start,
        f"{name}_knee": leg[1].start,
        f"{name}_ankle": leg[2].start,
        f"{name}_big_toe": on_foot(-0.02, sole, build.foot * 0.74),
        f"{name}_small_toe": on_foot(0.035, sole, build.foot * 0.66),
        f"{name}_heel": on_foot(0.0, sole, -build.foot * 0.22),
    }


def _lowest(build: Build, points: Mapping[str, Vector]) -> float:
    """The height of the body's lowest point over the pelvis' (negative when standing)."""
    radius = {"mid_hip": 0.13, "left_knee": 0.06, "right_knee": 0.06, "mid_shoulder": 0.13}
    radius |= {"left_wrist": 0.03, "right_wrist": 0.03, "nose": 0.02, "head_top": 0.0}
    sole = build.ankle * 0.2
    lowest = min(float(points[name][1]) - r * build.girth for name, r in radius.items())
    for side in ("left", "right"):
        for name in ("big_toe", "small_toe", "heel"):
            lowest = min(lowest, float(points[f"{side}_{name}"][1]) - sole)
    return lowest


def blend(one: Posture, other: Posture, amount: float) -> Posture:
    """The posture ``amount`` (0..1) of the way from one to the other."""

    def between(a: Any, b: Any) -> Any:
        if isinstance(a, float | int):
            return a + (b - a) * amount
        return type(a)(
            **{f.name: between(getattr(a, f.name), getattr(b, f.name)) for f in fields(a)}
        )

    result: Posture = between(one, other)
    return result
