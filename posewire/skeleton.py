# SPDX-License-Identifier: Apache-2.0
"""Skeletons as data, and conversion of labels between them.

``skeletons/<name>.json`` holds exactly what a manifest's ``skeleton`` holds::

    {"name": "coco17", "keypoints": ["nose", ...], "limbs": [[15, 13], ...],
     "flips": [0, 2, 1, ...], "sigmas": [0.026, ...]}

keypoints  K names, unique, [a-z0-9_]; left_/right_ is the person's own side.
limbs      0-based pairs of different keypoints, each pair once; their order is the PAF channels'.
flips      flips[i] is the keypoint that i becomes in a mirrored picture: an involution of 0..K-1.
sigmas     the K per-keypoint constants of OKS, as a fraction of the root of the person's area.

Where the sigmas come from: coco17, crowdpose14 and coco_wholebody133 have official ones, those of
the evaluation code that COCO, CrowdPose and COCO-WholeBody publish. The other sets have none: each
of their keypoints takes the value COCO-WholeBody gives the same joint, and those it lacks take the
nearest joint's: neck, thorax, head top the shoulder's (0.079, as CrowdPose does for its head and
neck), pelvis and mid-hip the hip's (0.107), both feet the left foot's. hand21 takes
COCO-WholeBody's left hand. coco_wholebody133 has no official limbs inside the face: ours follow
the usual 68-point outlines, joined to the nose so that the whole is connected.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import BundleError

_KEYS = ("name", "keypoints", "limbs", "flips", "sigmas")
_WORD = re.compile(r"[a-z0-9_]{1,64}")


@dataclass(frozen=True)
class Skeleton:
    """A named set of K keypoints, L limbs between them, the mirror permutation and OKS sigmas."""

    name: str
    keypoints: tuple[str, ...]
    limbs: tuple[tuple[int, int], ...]
    flips: tuple[int, ...]
    sigmas: tuple[float, ...]

    @property
    def count(self) -> int:
        """K, the number of keypoints."""
        return len(self.keypoints)

    def is_connected(self) -> bool:
        """Whether the limbs join all keypoints into one figure (a PAF decoder needs that)."""
        reached, frontier = {0}, [0]
        while frontier:
            here = frontier.pop()
            for a, b in self.limbs:
                other = b if a == here else a if b == here else here
                if other not in reached:
                    reached.add(other)
                    frontier.append(other)
        return len(reached) == self.count

    def to_dict(self) -> dict[str, Any]:
        """The JSON form; ``from_dict(to_dict())`` is the same skeleton."""
        return {
            "name": self.name,
            "keypoints": list(self.keypoints),
            "limbs": [list(limb) for limb in self.limbs],
            "flips": list(self.flips),
            "sigmas": list(self.sigmas),
        }

    @classmethod
    def from_dict(cls, data: object, where: str = "skeleton") -> Skeleton:
        """Checks the JSON form and builds the skeleton.

        ``where`` starts every message ("file.json: " or "…manifest.json: skeleton.").
        Raises BundleError naming the key.
        """
        dot = where if where.endswith((" ", ".")) else where + "."
        if not isinstance(data, Mapping):
            raise BundleError(f"{where.rstrip('. :')}: must be an object")
        for key in data:
            if key not in _KEYS:
                raise BundleError(f"{dot}{key}: unknown key; known are {', '.join(_KEYS)}")
        for key in _KEYS:
            if key not in data:
                raise BundleError(f"{dot}{key}: is missing")
        name = data["name"]
        if not isinstance(name, str) or not _WORD.fullmatch(name):
            raise BundleError(f"{dot}name: must be 1 to 64 of a-z, 0-9, _")
        keypoints = _keypoints(data["keypoints"], dot)
        count = len(keypoints)
        return cls(
            name,
            keypoints,
            _limbs(data["limbs"], count, dot),
            _flips(data["flips"], count, dot),
            _sigmas(data["sigmas"], count, dot),
        )


def _sequence(value: object, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise BundleError(f"{where}: must be a list")
    return value


def _is_index(value: object, count: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < count


def _keypoints(value: object, dot: str) -> tuple[str, ...]:
    names = _sequence(value, f"{dot}keypoints")
    if not names:
        raise BundleError(f"{dot}keypoints: must not be empty")
    for i, name in enumerate(names):
        if not isinstance(name, str) or not _WORD.fullmatch(name):
            raise BundleError(f"{dot}keypoints[{i}]: must be 1 to 64 of a-z, 0-9, _")
        if name in names[:i]:
            raise BundleError(f"{dot}keypoints[{i}]: {name} appears twice")
    return tuple(names)


def _limbs(value: object, count: int, dot: str) -> tuple[tuple[int, int], ...]:
    seen: set[frozenset[int]] = set()
    limbs: list[tuple[int, int]] = []
    for i, limb in enumerate(_sequence(value, f"{dot}limbs")):
        if not isinstance(limb, list) or len(limb) != 2:
            raise BundleError(f"{dot}limbs[{i}]: must be a pair of keypoint indices")
        if not all(_is_index(end, count) for end in limb) or limb[0] == limb[1]:
            raise BundleError(
                f"{dot}limbs[{i}]: must join two different keypoints of 0..{count - 1}"
            )
        if frozenset(limb) in seen:
            raise BundleError(f"{dot}limbs[{i}]: appears twice")
        seen.add(frozenset(limb))
        limbs.append((limb[0], limb[1]))
    return tuple(limbs)


def _flips(value: object, count: int, dot: str) -> tuple[int, ...]:
    flips = _sequence(value, f"{dot}flips")
    if len(flips) != count:
        raise BundleError(
            f"{dot}flips: must have {count} entries, one per keypoint, not {len(flips)}"
        )
    for i, other in enumerate(flips):
        if not _is_index(other, count):
            raise BundleError(f"{dot}flips[{i}]: must be a keypoint index of 0..{count - 1}")
        if flips[other] != i:
            raise BundleError(f"{dot}flips[{i}]: mirrored twice must lead back to {i}")
    return tuple(flips)


def _sigmas(value: object, count: int, dot: str) -> tuple[float, ...]:
    sigmas = _sequence(value, f"{dot}sigmas")
    if len(sigmas) != count:
        raise BundleError(
            f"{dot}sigmas: must have {count} entries, one per keypoint, not {len(sigmas)}"
        )
    for i, sigma in enumerate(sigmas):
        number = isinstance(sigma, int | float) and not isinstance(sigma, bool)
        if not number or not 0.0 < sigma <= 1.0:
            raise BundleError(f"{dot}sigmas[{i}]: must be a number above 0 and at most 1")
    return tuple(float(sigma) for sigma in sigmas)


def skeleton_names() -> tuple[str, ...]:
    """The shipped skeletons, sorted."""
    folder = resources.files(__package__) / "skeletons"
    files = (entry.name for entry in folder.iterdir())
    return tuple(sorted(name[:-5] for name in files if name.endswith(".json")))


@cache
def load_skeleton(name: str) -> Skeleton:
    """A shipped skeleton by name. Raises BundleError listing the known ones."""
    if name not in skeleton_names():
        raise BundleError(f"unknown skeleton {name!r}; known are {', '.join(skeleton_names())}")
    file = f"{name}.json"
    text = (resources.files(__package__) / "skeletons" / file).read_text(encoding="utf-8")
    try:
        data = json.loads(text)
    except ValueError as error:
        raise BundleError(f"skeletons/{file}: not JSON: {error}") from error
    skeleton = Skeleton.from_dict(data, f"skeletons/{file}: ")
    if skeleton.name != name:
        raise BundleError(f"skeletons/{file}: name: must be {name}, the file's own name")
    return skeleton


# --- conversion between skeletons -------------------------------------------------------------

# One word means different points in different data sets, so keypoints are matched by meaning:
# LSP's "neck" is where the head meets the neck (MPII's upper_neck), while in OpenPose's two
# sets it is by definition the middle of the shoulders. A pair not listed means what it says.
_MEANING: Mapping[tuple[str, str], str] = {
    ("lsp14", "neck"): "upper_neck",
    ("body18", "neck"): "mid_shoulder",
    ("body25", "neck"): "mid_shoulder",
    ("halpe26", "neck"): "mid_shoulder",
    ("halpe26", "head"): "head_top",
    ("halpe26", "hip"): "mid_hip",
    ("mpii16", "thorax"): "mid_shoulder",
    ("mpii16", "pelvis"): "mid_hip",
}

# What stands in for a meaning that the source does not label: the mean of these.
_DERIVED: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "mid_shoulder": (("left_shoulder", "right_shoulder"),),
    "neck": (("mid_shoulder",), ("left_shoulder", "right_shoulder")),
    "mid_hip": (("left_hip", "right_hip"),),
}


def meaning(skeleton: Skeleton, index: int) -> str:
    """What keypoint ``index`` marks, in words shared by all shipped skeletons."""
    name = skeleton.keypoints[index]
    return _MEANING.get((skeleton.name, name), name)


def mapping(source: Skeleton, target: Skeleton) -> tuple[tuple[int, ...], ...]:
    """For each target keypoint the source keypoints whose mean it is.

    Length K' (the target's count). An empty entry means that the source cannot tell (a head top
    cannot be had from COCO's labels), one index is a plain copy, several are averaged.
    """
    known = {meaning(source, i): i for i in range(source.count)}

    def rule(what: str) -> tuple[int, ...]:
        for names in ((what,), *_DERIVED.get(what, ())):
            if all(name in known for name in names):
                return tuple(known[name] for name in names)
        return ()

    return tuple(rule(meaning(target, i)) for i in range(target.count))


def convert_keypoints(
    keypoints: NDArray[np.floating[Any]] | Sequence[Any], source: Skeleton, target: Skeleton
) -> NDArray[np.float32]:
    """Labels of one skeleton as labels of another: [N, K, 3] (x, y, v) -> float32 [N, K', 3].

    v is COCO's visibility (0 unlabelled, 1 occluded, 2 visible). A derived keypoint is labelled
    only where all those it is made of are, with the lowest of their v; what is unknown becomes
    0, 0, 0.
    Raises ValueError where the array's shape does not fit the source.
    """
    points = np.asarray(keypoints, np.float32)
    if points.ndim != 3 or points.shape[1:] != (source.count, 3):
        raise ValueError(
            f"keypoints must be [N, {source.count}, 3] for {source.name}, not {points.shape}"
        )
    result = np.zeros((len(points), target.count, 3), np.float32)
    for i, sources in enumerate(mapping(source, target)):
        if not sources:
            continue
        chosen = points[:, list(sources)]
        visibility = chosen[..., 2].min(axis=1)
        labelled = visibility > 0
        result[labelled, i, :2] = chosen[labelled, :, :2].mean(axis=1)
        result[labelled, i, 2] = visibility[labelled]
    return result
