# SPDX-License-Identifier: Apache-2.0
"""A plain reference for decoding part affinity fields, and the golden files made with it.

Written from Cao et al., "Realtime Multi-Person 2D Pose Estimation using Part Affinity Fields"
(CVPR 2017, arXiv 1611.08050), not from the C++: loops over NumPy arrays, nothing is optimised.

- keypoint candidates: maxima of the confidence maps (section 2.2); sub-cell position by a parabola
  through the logarithms of the neighbours, which is exact for the Gaussian of equation 7; a
  candidate must stand out of the map's white noise (not in the paper)
- limb score: the line integral of equation 10, 11 by uniformly spaced samples, both ends included
- matching: greedy, per limb, by descending score (section 2.4)
- people: connections that share a candidate (section 2.4), taken best first over all limbs; two
  groups that own the same keypoint type are different people

``python tests/decode/reference_paf.py`` rewrites tests/golden/paf. A case is ``<name>.json``, a
partial manifest and the expected ``"people"``, and
``<name>.<output>.bin`` per output: little-endian float32, as the manifest's ``layout`` says.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "golden" / "paf"


@dataclass(frozen=True)
class Settings:
    """The row's parameters with its defaults."""

    score_threshold: float = 0.05
    noise_margin: float = 4.0
    limb_threshold: float = 0.03
    limb_ratio: float = 0.7
    samples: int = 10
    length_prior: float = 0.5
    min_keypoints: int = 3
    person_threshold: float = 0.05


def offset(before: float, peak: float, after: float) -> float:
    """Vertex of the parabola through three logarithms, in cells from the middle one."""
    low = 0.02 * peak
    left, middle, right = (math.log(max(v, low)) for v in (before, peak, after))
    bend = 2.0 * middle - left - right
    return min(max(0.5 * (right - left) / bend, -0.5), 0.5) if bend > 0.0 else 0.0


def noise_of(heatmap: Array) -> float:
    """Standard deviation of white noise, from the negative values among 8 of every 32 cells.

    Half of such noise is negative, and a network's own response hardly ever is.
    """
    whole = heatmap.size // 32
    some = heatmap.ravel()[: 32 * whole].reshape(whole, 32)[:, :8].astype(np.float64)
    return math.sqrt(2.0 * float((np.clip(some, -1.0, 0.0) ** 2).mean())) if whole > 0 else 0.0


def find_peaks(heatmap: Array, threshold: float) -> list[tuple[float, float, float]]:
    """(x, y, score) in cells of every maximum among its eight neighbours, away from the border."""
    height, width = heatmap.shape
    peaks = []
    for y, x in np.argwhere(heatmap > threshold).tolist():
        value = float(heatmap[y, x])
        around = heatmap[max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2]
        if value < around.max() or (around == value).sum() > 1:
            continue
        dx = dy = 0.0
        if 0 < x < width - 1:
            dx = offset(float(heatmap[y, x - 1]), value, float(heatmap[y, x + 1]))
        if 0 < y < height - 1:
            dy = offset(float(heatmap[y - 1, x]), value, float(heatmap[y + 1, x]))
        peaks.append((x + dx, y + dy, min(value, 1.0)))
    return peaks


def bilinear(plane: Array, x: float, y: float) -> float:
    """The plane's value between its cells' centres, clamped to the map."""
    height, width = plane.shape
    x, y = min(max(x, 0.0), width - 1.0), min(max(y, 0.0), height - 1.0)
    left, top = min(int(x), width - 2), min(int(y), height - 2)
    fx, fy = x - left, y - top
    upper = plane[top, left] * (1 - fx) + plane[top, left + 1] * fx
    lower = plane[top + 1, left] * (1 - fx) + plane[top + 1, left + 1] * fx
    return float(upper * (1 - fy) + lower * fy)


def limb_score(
    field: Array, a: tuple[float, ...], b: tuple[float, ...], settings: Settings
) -> float | None:
    """Mean of the field's component along a -> b plus the length prior; None: no limb."""
    length = math.hypot(b[0] - a[0], b[1] - a[1])
    if length < 1e-6:
        return None
    ux, uy = (b[0] - a[0]) / length, (b[1] - a[1]) / length
    dots = []
    for i in range(settings.samples):
        t = i / (settings.samples - 1)
        x, y = a[0] + t * (b[0] - a[0]), a[1] + t * (b[1] - a[1])
        dot = bilinear(field[0], x, y) * ux + bilinear(field[1], x, y) * uy
        dots.append(min(max(dot, -1.0), 1.0))
    hits = sum(dot > settings.limb_threshold for dot in dots)
    free = settings.length_prior * field.shape[1]
    score = sum(dots) / len(dots) + min(free / length - 1.0, 0.0)
    return score if hits >= settings.limb_ratio * settings.samples - 1e-9 and score > 0 else None


def decode(
    heatmaps: Array,
    pafs: Array,
    limbs: list[list[int]],
    count: int,
    stride: int,
    settings: Settings,
) -> list[dict[str, Any]]:
    """People of one frame: [{"score": s, "kp": K x [x, y, score]}] in network pixels.

    heatmaps [>= K, H, W], pafs [2 L, H, W].
    """
    peaks = [
        find_peaks(
            heatmaps[k],
            max(settings.score_threshold, settings.noise_margin * noise_of(heatmaps[k])),
        )
        for k in range(count)
    ]
    connections = []
    for limb, (first, second) in enumerate(limbs):
        field = pafs[2 * limb : 2 * limb + 2]
        pairs = []
        for i, a in enumerate(peaks[first]):
            for j, b in enumerate(peaks[second]):
                score = limb_score(field, a, b, settings)
                if score is not None:
                    pairs.append((score, i, j))
        used_a: set[int] = set()
        used_b: set[int] = set()
        for score, i, j in sorted(pairs, reverse=True):
            if i not in used_a and j not in used_b:
                used_a.add(i)
                used_b.add(j)
                connections.append((score, (first, i), (second, j)))
    groups: list[dict[int, int]] = []  # keypoint type -> candidate
    for _, one, two in sorted(connections, reverse=True):
        joined = {one[0]: one[1]}, {two[0]: two[1]}
        mine = [
            next((g for g in groups if g.get(kind) == index), None) for kind, index in (one, two)
        ]
        left = mine[0] if mine[0] is not None else joined[0]
        right = mine[1] if mine[1] is not None else joined[1]
        if left is right:
            continue
        clash = bool(left.keys() & right.keys())
        for group, known in ((left, mine[0]), (right, mine[1])):
            if known is None:
                groups.append(group)
        if not clash:
            left.update(right)
            groups = [g for g in groups if g is not right]
    people = []
    for group in groups:
        kp = [[0.0, 0.0, 0.0] for _ in range(count)]
        for kind, index in group.items():
            x, y, score = peaks[kind][index]
            kp[kind] = [x * stride + (stride - 1) / 2, y * stride + (stride - 1) / 2, score]
        mean = sum(point[2] for point in kp) / count
        if len(group) >= settings.min_keypoints and mean >= settings.person_threshold:
            people.append({"score": mean, "kp": kp})
    return sorted(people, key=lambda person: -float(person["score"]))


# ---- golden files

# A standing body of height 1 around its middle; x towards the person's own left.
BODY = {
    "nose": (0.0, -0.42), "neck": (0.0, -0.32),
    "left_eye": (0.03, -0.44), "right_eye": (-0.03, -0.44),
    "left_ear": (0.06, -0.43), "right_ear": (-0.06, -0.43),
    "left_shoulder": (0.12, -0.31), "right_shoulder": (-0.12, -0.31),
    "left_elbow": (0.19, -0.15), "right_elbow": (-0.19, -0.15),
    "left_wrist": (0.22, 0.0), "right_wrist": (-0.22, 0.0),
    "left_hip": (0.08, 0.02), "right_hip": (-0.08, 0.02),
    "left_knee": (0.09, 0.25), "right_knee": (-0.09, 0.25),
    "left_ankle": (0.1, 0.47), "right_ankle": (-0.1, 0.47),
}  # fmt: skip


def draw_people(
    names: list[str], count: int, size: float, shape: tuple[int, int], rng: np.random.Generator
) -> list[Array]:
    """People as [K, 2] cells, keypoints of one type at least three cells apart."""
    height, width = shape
    people: list[Array] = []
    for _ in range(5000):
        if len(people) == count:
            break
        body = np.array([BODY[name] for name in names], np.float64)
        body = size * rng.uniform(0.8, 1.2) * (body + rng.normal(0.0, 0.02, body.shape))
        turn = rng.normal(0.0, 0.2)
        spin = np.array([[math.cos(turn), math.sin(turn)], [-math.sin(turn), math.cos(turn)]])
        body = body @ spin + rng.uniform((0.0, 0.0), (width, height))
        inside = (body >= 1.0).all() and (body <= np.array([width - 2.0, height - 2.0])).all()
        apart = all((np.hypot(*(body - other).T) >= 3.0).all() for other in people)
        if inside and apart:
            people.append(body.astype(np.float32))
    return people


def render(
    people: list[Array], limbs: list[list[int]], count: int, shape: tuple[int, int], width: float
) -> tuple[Array, Array]:
    """Confidence maps (equations 6 and 7, sigma one cell) and fields (equations 8 and 9)."""
    height, columns = shape
    ys, xs = np.mgrid[0:height, 0:columns].astype(np.float64)
    heatmaps = np.zeros((count, height, columns))
    pafs = np.zeros((2 * len(limbs), height, columns))
    for k in range(count):
        for person in people:
            squared = (xs - person[k, 0]) ** 2 + (ys - person[k, 1]) ** 2
            heatmaps[k] = np.maximum(heatmaps[k], np.exp(-0.5 * squared))
    for limb, (first, second) in enumerate(limbs):
        number = np.zeros((height, columns))
        for person in people:
            vector = (person[second] - person[first]).astype(np.float64)
            length = float(np.hypot(*vector))
            unit = vector / length
            along = (xs - person[first, 0]) * unit[0] + (ys - person[first, 1]) * unit[1]
            across = (xs - person[first, 0]) * unit[1] - (ys - person[first, 1]) * unit[0]
            on = (np.abs(across) <= width) & (along >= -width) & (along <= length + width)
            pafs[2 * limb] += on * unit[0]
            pafs[2 * limb + 1] += on * unit[1]
            number += on
        pafs[2 * limb : 2 * limb + 2] /= np.maximum(number, 1)
    return heatmaps.astype(np.float32), pafs.astype(np.float32)


@dataclass(frozen=True)
class Case:
    """One golden file's recipe."""

    name: str
    skeleton: str
    people: int
    size: float
    shape: tuple[int, int]
    stride: int
    background: bool
    layout: str
    seed: int
    absent: tuple[str, ...] = ()
    noise: float = 0.01


CASES = (
    Case("body18-three", "body18", 3, 13.0, (20, 24), 8, True, "NCHW", 1),
    Case("body18-nhwc", "body18", 2, 15.0, (24, 20), 8, True, "NHWC", 2),
    Case("coco17-three", "coco17", 3, 13.0, (20, 26), 4, False, "NCHW", 3),
    Case("coco17-no-hip", "coco17", 2, 14.0, (20, 24), 8, True, "NCHW", 4, ("left_hip",)),
    Case("coco17-empty", "coco17", 0, 14.0, (20, 24), 8, False, "NHWC", 5),
    Case("body18-noisy", "body18", 2, 13.0, (20, 24), 8, True, "NCHW", 6, (), 0.05),
)


def write_case(case: Case, into: Path) -> None:
    """Renders, decodes and writes one case."""
    skeleton = json.loads((ROOT / f"posewire/skeletons/{case.skeleton}.json").read_text())
    names, limbs, count = skeleton["keypoints"], skeleton["limbs"], len(skeleton["keypoints"])
    rng = np.random.default_rng(case.seed)
    people = draw_people(names, case.people, case.size, case.shape, rng)
    if len(people) != case.people:
        raise SystemExit(f"{case.name}: no room for {case.people} people")
    heatmaps, pafs = render(people, limbs, count, case.shape, 1.0)
    for name in case.absent:
        gone = names.index(name)
        heatmaps[gone] = 0.0
        for limb, ends in enumerate(limbs):
            if gone in ends:
                pafs[2 * limb : 2 * limb + 2] = 0.0
    heatmaps += rng.normal(0.0, case.noise, heatmaps.shape).astype(np.float32)
    pafs += rng.normal(0.0, 2 * case.noise, pafs.shape).astype(np.float32)
    if case.background:
        heatmaps = np.concatenate([heatmaps, 1.0 - heatmaps.max(0, keepdims=True)])
    height, width = case.shape
    found = decode(heatmaps, pafs, limbs, count, case.stride, Settings())
    manifest = {
        "schema": 1, "name": case.name, "version": "1", "mode": "bottom_up", "skeleton": skeleton,
        "input": {"name": "image", "width": width * case.stride, "height": height * case.stride,
                  "channels": "RGB", "resize": "letterbox"},
        "outputs": [
            {"name": "heatmaps", "channels": len(heatmaps), "stride": case.stride,
             "layout": case.layout},
            {"name": "pafs", "channels": len(pafs), "stride": case.stride, "layout": case.layout},
        ],
        "decode": {"algorithm": "paf"},
    }  # fmt: skip
    golden = {
        "manifest": manifest,
        "people": [
            {
                "score": round(float(person["score"]), 5),
                "kp": [[round(float(v), 4) for v in point] for point in person["kp"]],
            }
            for person in found
        ],
    }
    into.mkdir(parents=True, exist_ok=True)
    (into / f"{case.name}.json").write_text(json.dumps(golden) + "\n")
    for name, maps in (("heatmaps", heatmaps), ("pafs", pafs)):
        laid = maps if case.layout == "NCHW" else maps.transpose(1, 2, 0)
        (into / f"{case.name}.{name}.bin").write_bytes(laid.astype("<f4").tobytes())


def main() -> None:
    """Rewrites tests/golden/paf."""
    for case in CASES:
        write_case(case, GOLDEN)


if __name__ == "__main__":
    main()
