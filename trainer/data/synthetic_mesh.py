# SPDX-License-Identifier: Apache-2.0
"""A posed, dressed body as faces: trunk, limbs, hands and shoes. The head is synthetic_head's."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from .synthetic_body import Bone, Figure
from .synthetic_faces import Faces, rings, skin_between
from .synthetic_head import add_head
from .synthetic_outfit import Cloth, Outfit

Array = NDArray[np.float64]

# Which region of a person a pixel shows; with the person's number it is the pixel's owner.
REGIONS = (
    "torso",
    "head",
    "left_upper_arm",
    "left_forearm",
    "left_hand",
    "right_upper_arm",
    "right_forearm",
    "right_hand",
    "left_thigh",
    "left_shank",
    "left_foot",
    "right_thigh",
    "right_shank",
    "right_foot",
    "skirt",
)
MAX_PEOPLE = 15  # an owner is one byte: person (1..15) * 16 + region

# Half-widths (lateral, forward) in metres along each bone of a person of 1.72 m.
_UPPER_ARM = np.array(
    ((0.0, 0.047, 0.052), (0.2, 0.051, 0.056), (0.5, 0.047, 0.051), (0.8, 0.041, 0.043),
     (1.0, 0.040, 0.042))
)  # fmt: skip
_FOREARM = np.array(
    ((0.0, 0.040, 0.042), (0.2, 0.044, 0.043), (0.5, 0.038, 0.036), (0.8, 0.028, 0.029),
     (1.0, 0.024, 0.027))
)  # fmt: skip
_THIGH = np.array(
    ((0.0, 0.090, 0.094), (0.2, 0.089, 0.091), (0.5, 0.075, 0.079), (0.8, 0.061, 0.064),
     (1.0, 0.056, 0.060))
)  # fmt: skip
_SHANK = np.array(
    ((0.0, 0.054, 0.057), (0.2, 0.055, 0.060), (0.4, 0.053, 0.057), (0.7, 0.041, 0.043),
     (1.0, 0.036, 0.038))
)  # fmt: skip
# The trunk, from the hip line (0) to the shoulder line (1): fraction, half-width, half-depth.
_TRUNK = np.array(
    (
        (-0.235, 0.030, 0.040),
        (-0.20, 0.095, 0.080),
        (-0.12, 0.150, 0.108),
        (0.00, 0.172, 0.118),
        (0.12, 0.168, 0.114),
        (0.28, 0.156, 0.104),
        (0.42, 0.150, 0.100),
        (0.58, 0.160, 0.108),
        (0.74, 0.174, 0.116),
        (0.86, 0.182, 0.112),
        (0.94, 0.184, 0.098),
        (1.00, 0.174, 0.085),
        (1.05, 0.135, 0.074),
        (1.10, 0.086, 0.065),
        (1.15, 0.058, 0.058),
    )
)


@dataclass(frozen=True)
class _Loft:
    """Rings that make one limb: [R, 3], [R, 3, 3], [R], [R], colours [R - 1, n, 3]."""

    centres: Array
    frames: Array
    a: Array
    b: Array
    colour: Array
    owner: int
    bias: float


@lru_cache(maxsize=256)
def _fold_sheet(seed: int, n: int) -> Array:
    """Smooth noise [96, n], periodic around; a person keeps theirs through a clip."""
    coarse = np.random.default_rng(seed).normal(0, 1, (24, 5)).astype(np.float32)
    coarse[:, 4] = coarse[:, 0]
    columns = np.linspace(0, 4, n, endpoint=False, dtype=np.float32)
    rows = np.linspace(0, 23, 96, dtype=np.float32)
    grid = np.broadcast_arrays(columns[None], rows[:, None])
    noise = cv2.remap(coarse, grid[0].copy(), grid[1].copy(), cv2.INTER_LINEAR)
    return np.clip(noise.astype(np.float64) * 1.5, -2.5, 2.5)


class _Dressed:
    """Adds one person's limbs to ``faces``; ``n`` is the number of faces around a limb."""

    def __init__(self, faces: Faces, figure: Figure, outfit: Outfit, person: int, n: int) -> None:
        self.faces, self.figure, self.outfit = faces, figure, outfit
        self.person, self.n = person, n
        self.sheet_row = 0
        self.lofts: dict[int, list[_Loft]] = {}

    def owner(self, region: str) -> int:
        return self.person * 16 + REGIONS.index(region)

    def folds(self, count: int, n: int) -> Array:
        """Light and dark of cloth folds, [count, n], smooth around the limb."""
        sheet = _fold_sheet(self.outfit.seed, n)
        self.sheet_row = (self.sheet_row + 11) % (len(sheet) - count)
        return 1 + self.outfit.folds * sheet[self.sheet_row : self.sheet_row + count]

    def limb(
        self, bone: Bone, profile: Array, length: float, cloth: Cloth, reach: float, region: str
    ) -> None:
        """A limb covered with cloth up to the fraction ``length`` of its bone (if > 0)."""
        girth, loose = self.figure.build.girth, self.outfit.loose
        edge = float(np.clip(length, 0.0, 1.0))
        t = np.unique(
            np.concatenate((np.linspace(0, 1, 6 + self.n // 4), [edge, min(edge + 0.012, 1.0)]))
        )
        a = np.interp(t, profile[:, 0], profile[:, 1]) * girth
        b = np.interp(t, profile[:, 0], profile[:, 2]) * girth
        air = np.where(t <= edge, loose, 0.0) if length > 0 else np.zeros_like(t)
        a, b = a + air, b + air
        span = float(np.linalg.norm(bone.end - bone.start))
        # Rounded ends, so that bent joints have no gaps.
        cap = np.array((0.97, 0.8, 0.45))
        round_ = np.sqrt(1 - cap**2)
        # A thigh ends flat inside the hips, or it would stand out over the belt.
        first = 0.4 if region.endswith("thigh") else 1.0
        t = np.concatenate((-cap * first * a[0] / span, t, 1 + cap[::-1] * a[-1] / span))
        a = np.concatenate((round_ * a[0], a, round_[::-1] * a[-1]))
        b = np.concatenate((round_ * b[0], b, round_[::-1] * b[-1]))
        centres = bone.start + t[:, None] * (bone.end - bone.start)
        middle = (t[:-1] + t[1:]) / 2
        covered = middle < edge if length > 0 else np.zeros(len(middle), bool)
        if length >= 1.0:
            covered[:] = True
        self.loft(centres, bone.frame, a, b, middle * span + reach, covered, cloth, self.n, region)

    def loft(
        self,
        centres: Array,
        frame: Array,
        a: Array,
        b: Array,
        along: Array,
        covered: Array,
        cloth: Cloth,
        n: int,
        region: str,
        bias: float = 0.0,
    ) -> None:
        """Rings as faces: cloth where ``covered`` [R-1], skin elsewhere. ``frame`` is one
        [3, 3] or one per ring; ``along`` is the pattern's coordinate of each row, metres."""
        frames = np.broadcast_to(frame, (len(centres), 3, 3))
        if covered.any():
            angle = np.linspace(0, 2 * np.pi, n, endpoint=False)
            colour = cloth.at(along[:, None], angle[None]) * self.folds(len(along), n)[..., None]
            colour = np.where(covered[:, None, None], colour, self.outfit.skin)
        else:
            colour = np.broadcast_to(self.outfit.skin, (len(along), n, 3))
        loft = _Loft(centres, frames, a, b, colour, self.owner(region), bias)
        self.lofts.setdefault(n, []).append(loft)

    def finish(self) -> None:
        """All lofts into faces, those with the same number of sides at once."""
        for n, lofts in self.lofts.items():
            frames = np.concatenate([loft.frames for loft in lofts])
            vertices = rings(
                np.concatenate([loft.centres for loft in lofts]),
                frames[:, :, 0],
                frames[:, :, 2],
                np.concatenate([loft.a for loft in lofts]),
                np.concatenate([loft.b for loft in lofts]),
                n,
            )
            corners, outside = skin_between(vertices)
            ends = np.cumsum([len(loft.centres) for loft in lofts])
            rows = np.ones(len(vertices) - 1, bool)
            rows[ends[:-1] - 1] = False  # no faces between one loft and the next
            chosen = np.repeat(rows, n)
            colour = np.concatenate([loft.colour for loft in lofts]).reshape(-1, 3)
            counts = [(len(loft.centres) - 1) * n for loft in lofts]
            self.faces.corners.append(corners[chosen])
            self.faces.outside.append(outside[chosen])
            self.faces.colour.append(colour)
            owners = np.array([loft.owner for loft in lofts], np.uint8)
            self.faces.owner.append(np.repeat(owners, counts))
            self.faces.bias.append(np.repeat([loft.bias for loft in lofts], counts))
            if n > 6:
                solids = np.split(vertices, ends[:-1])
                self.faces.solids.extend(solid.reshape(-1, 3) for solid in solids)

    def trunk(self) -> None:
        build, outfit = self.figure.build, self.outfit
        profile = _TRUNK
        s = np.interp(np.linspace(0, 1, 26), np.linspace(0, 1, len(profile)), profile[:, 0])
        s = np.unique(np.concatenate((s, [outfit.hem, outfit.hem + 0.012])))
        a = np.interp(s, profile[:, 0], profile[:, 1])
        b = np.interp(s, profile[:, 0], profile[:, 2])
        upper = np.clip((s - 0.1) / 0.6, 0, 1)
        a *= (1 - upper) * build.hip / 0.093 + upper * build.shoulder / 0.188
        a *= 0.55 + 0.45 * build.girth
        b *= 0.45 + 0.55 * build.girth
        middle = np.exp(-(((s - 0.4) / 0.22) ** 2))
        a *= 1 - middle * (1 - build.waist * (0.6 + 0.4 * build.belly))
        b *= 1 + middle * (build.belly - 1) * 0.8
        b += build.bust * np.exp(-(((s - 0.74) / 0.1) ** 2))
        air = np.where(s > outfit.hem, outfit.loose * 1.2, 0.004)
        air = np.where(s > 1.05, 0.0, air)
        centres, frames = self.spine(s)
        rows = (s[:-1] + s[1:]) / 2
        neckline = rows < 1.06
        is_top = rows > outfit.hem
        n = self.n + 8
        along = rows * build.torso
        # The top hangs over what is worn below: drawn a little nearer, or the two would mix.
        for cloth, chosen, bias in ((outfit.bottom, ~is_top, 0.0), (outfit.top, is_top, 0.02)):
            rows_chosen = np.flatnonzero(chosen)
            if len(rows_chosen) == 0:
                continue
            span = slice(rows_chosen[0], rows_chosen[-1] + 2)
            inner = slice(rows_chosen[0], rows_chosen[-1] + 1)
            self.loft(
                centres[span],
                frames[span],
                (a + air)[span],
                (b + air)[span],
                along[inner],
                neckline[inner],
                cloth,
                n,
                "torso",
                bias,
            )

    def spine(self, s: Array) -> tuple[Array, Array]:
        """Centres and frames of the trunk's rings: a curve from the pelvis to the shoulder line."""
        figure, torso = self.figure, self.figure.build.torso
        low, high = figure.pelvis_frame, figure.chest_frame
        bend = figure.pelvis + low[:, 1] * torso * 0.45
        t = np.clip(s, 0, 1)[:, None]
        centres = (1 - t) ** 2 * figure.pelvis + 2 * t * (1 - t) * bend + t**2 * figure.chest
        centres = centres + np.minimum(s, 0)[:, None] * torso * low[:, 1]
        centres = centres + np.maximum(s - 1, 0)[:, None] * torso * high[:, 1]
        share = np.clip((s - 0.15) / 0.6, 0, 1)[:, None, None]
        frames = low * (1 - share) + high * share
        return centres, frames / np.linalg.norm(frames, axis=1, keepdims=True)

    def arms_and_legs(self) -> None:
        outfit, bones = self.outfit, self.figure.build
        for side in ("left", "right"):
            for upper, lower, reach, cloth, length, span in (
                ("upper_arm", "forearm", _UPPER_ARM, outfit.top, outfit.sleeve, bones.upper_arm),
                ("thigh", "shank", _THIGH, outfit.bottom, outfit.leg, bones.thigh),
            ):
                lower_profile = _FOREARM if upper == "upper_arm" else _SHANK
                for name, profile, covered, start in (
                    (upper, reach, length, 0.0),
                    (lower, lower_profile, length - 1.0, span),
                ):
                    bone = self.figure.bones[f"{side}_{name}"]
                    self.limb(bone, profile, covered, cloth, start, f"{side}_{name}")
            self.hand(side)
            self.shoe(side)

    def hand(self, side: str) -> None:
        """A palm, four fingers and a thumb; from afar a mitten."""
        bone, build = self.figure.bones[f"{side}_hand"], self.figure.build
        size = build.hand / 0.172
        down = (bone.end - bone.start) / np.linalg.norm(bone.end - bone.start)
        fingers = self.n >= 12
        t = np.array((-0.08, 0.0, 0.2, 0.45, 0.56) if fingers else (-0.08, 0.0, 0.3, 0.6, 0.9, 1.0))
        wide = np.array(
            (0.012, 0.026, 0.036, 0.042, 0.036)
            if fingers
            else (0.012, 0.026, 0.038, 0.038, 0.026, 0.01)
        )
        thick = np.full(len(t), 0.016)
        thick[[0, -1]] = 0.010
        self.bare(bone.start + t[:, None] * down * build.hand, bone.frame, thick, wide, side, size)
        forward, inward = bone.frame[:, 2], bone.frame[:, 0] * (-1 if side == "left" else 1)
        strands = [(-0.03, 0.40), (-0.01, 0.46), (0.011, 0.47), (0.031, 0.42)] if fingers else []
        for offset, length in strands:
            start = bone.start + (down * 0.5) * build.hand + forward * offset * size
            bent = down + inward * 0.25 + forward * offset * 1.5
            self.finger(start, bent, length * build.hand, side, size)
        thumb = bone.start + down * 0.18 * build.hand + forward * 0.03 * size
        self.finger(thumb, down + forward * 0.75 + inward * 0.2, 0.36 * build.hand, side, size)

    def finger(self, start: Array, way: Array, length: float, side: str, size: float) -> None:
        way = way / np.linalg.norm(way)
        t = np.array((0.0, 0.5, 0.9, 1.0))
        r = np.array((0.010, 0.0095, 0.008, 0.003))
        frame = _frame_along(way)
        self.bare(start + t[:, None] * way * length, frame, r, r, side, size, n=6)

    def bare(
        self,
        centres: Array,
        frame: Array,
        a: Array,
        b: Array,
        side: str,
        size: float,
        n: int | None = None,
    ) -> None:
        nothing = np.zeros(len(centres) - 1, bool)
        along = np.zeros(len(centres) - 1)
        region = f"{side}_hand"
        self.loft(
            centres, frame, a * size, b * size, along, nothing, self.outfit.top, n or self.n, region
        )

    def shoe(self, side: str) -> None:
        """From the heel to the toes, with a sole of another colour."""
        bone, build = self.figure.bones[f"{side}_foot"], self.figure.build
        size = build.foot / 0.245
        z = np.array((-0.062, -0.058, -0.035, 0.0, 0.045, 0.09, 0.13, 0.165, 0.188, 0.192)) * size
        half = np.array((0.012, 0.028, 0.037, 0.038, 0.039, 0.044, 0.048, 0.042, 0.022, 0.006))
        top = np.array(
            (-0.055, -0.02, 0.012, 0.018, -0.005, -0.024, -0.036, -0.046, -0.058, -0.065)
        )
        sole = -build.ankle * 0.98
        high = np.maximum((top * size - sole) / 2, 0.008)
        centres = (
            bone.start + z[:, None] * bone.frame[:, 2] + (sole + high)[:, None] * bone.frame[:, 1]
        )
        frame = bone.frame[:, [0, 2, 1]]  # rings stand across the foot
        angle = np.linspace(0, 2 * np.pi, self.n, endpoint=False) + np.pi / self.n
        is_sole = np.sin(angle) * (high[:-1] + high[1:])[:, None] / 2 < 0.018 - high[:-1, None]
        colour = np.where(is_sole[..., None], self.outfit.sole, self.outfit.shoe)
        frames = np.broadcast_to(frame, (len(z), 3, 3))
        loft = _Loft(centres, frames, half * size, high, colour, self.owner(f"{side}_foot"), 0.0)
        self.lofts.setdefault(self.n, []).append(loft)

    def skirt(self) -> None:
        """A cone from the hips around both thighs."""
        figure, outfit, build = self.figure, self.outfit, self.figure.build
        t = np.linspace(0, 1, 8)
        reach = outfit.skirt / (build.thigh + build.shank)
        legs = [
            _along_leg(figure.bones[f"{side}_thigh"], figure.bones[f"{side}_shank"], t * reach)
            for side in ("left", "right")
        ]
        centres = (legs[0] + legs[1]) / 2 + figure.pelvis_frame[:, 1] * 0.03 * (1 - t)[:, None]
        apart = np.abs((legs[0] - legs[1]) @ figure.pelvis_frame) / 2
        flare = 0.03 + 0.07 * t
        a = np.maximum(apart[:, 0] + 0.08 + flare, 0.17 + flare * 0.6)
        b = np.maximum(apart[:, 2] + 0.07 + flare, 0.115 + flare * 0.7)
        along = (t[:-1] + t[1:]) / 2 * outfit.skirt
        covered = np.ones(len(along), bool)
        n = self.n + 8
        self.loft(centres, figure.pelvis_frame, a, b, along, covered, outfit.bottom, n, "skirt")


def _along_leg(thigh: Bone, shank: Bone, t: Array) -> Array:
    """Points down the leg, 0 at the hip and 1 at the ankle."""
    upper = np.clip(t * 2, 0, 1)[:, None]
    lower = np.clip(t * 2 - 1, 0, 1)[:, None]
    result: Array = (
        thigh.start + upper * (thigh.end - thigh.start) + lower * (shank.end - shank.start)
    )
    return result


def _frame_along(way: Array) -> Array:
    """Some orthogonal frame whose second column is ``way``."""
    side = np.cross(way, (0.31, 0.2, 0.93))
    side /= np.linalg.norm(side)
    return np.stack((side, way, np.cross(side, way)), axis=1)


def add_person(faces: Faces, figure: Figure, outfit: Outfit, person: int, detail: int) -> None:
    """Appends a person's faces. ``person`` is 1..15; ``detail`` 6..16 faces around a limb."""
    if not 1 <= person <= MAX_PEOPLE:
        raise ValueError(f"person must be 1..{MAX_PEOPLE}, not {person}")
    dressed = _Dressed(faces, figure, outfit, person, detail)
    dressed.trunk()
    dressed.arms_and_legs()
    if outfit.skirt > 0:
        dressed.skirt()
    neck = figure.bones["neck"]
    t = np.array((-0.35, 0.0, 0.4, 1.0, 1.35))
    radius = np.array((0.066, 0.056, 0.052, 0.052, 0.05)) * (0.5 + 0.5 * figure.build.girth)
    dressed.loft(
        neck.start + t[:, None] * (neck.end - neck.start) * (1 / 0.7),
        neck.frame,
        radius,
        radius,
        np.zeros(4),
        np.zeros(4, bool),
        outfit.top,
        detail,
        "head",
    )
    dressed.finish()
    add_head(faces, figure, outfit, dressed.owner("head"), detail)
