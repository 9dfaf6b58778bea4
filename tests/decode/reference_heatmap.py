# SPDX-License-Identifier: Apache-2.0
"""A plain reference for decoding top-down heatmaps, and the golden files made with it.

Written from Xiao et al. (ECCV 2018, section 2) and Zhang et al., "Distribution-Aware Coordinate
Representation for Human Pose Estimation" (DARK, CVPR 2020, section 3.2), not from the C++: loops in
double precision, nothing is optimised.

- the maximum of each map, or of its mean with the mirrored crop's (mirrored back, left and right
  swapped, moved one cell right where the network's flips are not aligned)
- "quarter": a quarter of a cell towards the higher neighbour
- "dark": the map modulated with a Gaussian of 11 cells, sigma 2 (equation 10); its logarithm's
  first and second derivatives m1, m2 by differences; m - m2^-1 m1 (equation 9). Where the Gaussian
  or a difference would reach out of the map: expanded at the nearest cell with neighbours, with a
  Gaussian of as many cells as fit symmetrically

``python tests/decode/reference_heatmap.py`` rewrites tests/golden/heatmap, in the form that
reference_paf.py describes.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "golden" / "heatmap"
THRESHOLD = 0.05
KERNEL, SIGMA = 11, 2.0


def modulated(plane: Array, x: int, y: int, radius_x: int, radius_y: int) -> float:
    """The plane convolved with a Gaussian cut off after ``radius`` cells, at one cell."""
    total = 0.0
    for dy in range(-radius_y, radius_y + 1):
        for dx in range(-radius_x, radius_x + 1):
            weight = math.exp(-(dx * dx + dy * dy) / (2 * SIGMA * SIGMA))
            total += weight * float(plane[y + dy, x + dx])
    return total


def dark(plane: Array, x: int, y: int) -> tuple[float, float]:
    """DARK's place of a maximum, in cells."""
    height, width = plane.shape
    cx, cy = min(max(x, 1), width - 2), min(max(y, 1), height - 2)
    rx = min(KERNEL // 2, cx - 1, width - 2 - cx)
    ry = min(KERNEL // 2, cy - 1, height - 2 - cy)
    log = np.zeros((3, 3))
    for i in range(3):
        for j in range(3):
            log[i, j] = modulated(plane, cx + j - 1, cy + i - 1, rx, ry)
    log = np.log(np.maximum(log, 1e-3 * log[1, 1]))
    first = np.array([log[1, 2] - log[1, 0], log[2, 1] - log[0, 1]]) / 2
    mixed = (log[2, 2] - log[2, 0] - log[0, 2] + log[0, 0]) / 4
    second = np.array(
        [
            [log[1, 2] - 2 * log[1, 1] + log[1, 0], mixed],
            [mixed, log[2, 1] - 2 * log[1, 1] + log[0, 1]],
        ]
    )
    if second[0, 0] >= 0 or np.linalg.det(second) <= 1e-6:
        return float(x), float(y)
    place = np.array([cx, cy]) - np.linalg.solve(second, first)
    place = np.clip(place, np.array([x, y]) - 2.0, np.array([x, y]) + 2.0)
    return float(place[0]), float(place[1])


def quarter(plane: Array, x: int, y: int) -> tuple[float, float]:
    """The original step: a quarter of a cell towards the higher neighbour, per axis."""
    height, width = plane.shape
    dx = float(np.sign(plane[y, x + 1] - plane[y, x - 1])) if 0 < x < width - 1 else 0.0
    dy = float(np.sign(plane[y + 1, x] - plane[y - 1, x])) if 0 < y < height - 1 else 0.0
    return x + 0.25 * dx, y + 0.25 * dy


def mean_of_both(maps: Array, flipped: Array, flips: list[int], shift: bool) -> Array:
    """[K, H, W] each: the mean after undoing the mirroring."""
    back = flipped[:, :, ::-1][flips].copy()
    if shift:
        back[:, :, 1:] = back[:, :, :-1].copy()
    return ((maps + back) / 2).astype(np.float32)


def decode(
    maps: Array, stride: int, size: tuple[int, int], decode: dict[str, Any]
) -> list[dict[str, Any]]:
    """The person of one crop: [] or [{"score": s, "kp": K x [x, y, s]}], network pixels.

    maps [K, H, W]; ``size`` is the network input's width and height.
    """
    count, height, width = maps.shape
    refine = decode.get("refine", "dark")
    kp = []
    for plane in maps:
        y, x = (int(v) for v in np.unravel_index(int(plane.argmax()), plane.shape))
        score = float(plane[y, x])
        if score < THRESHOLD:
            kp.append([0.0, 0.0, 0.0])
            continue
        px, py = float(x), float(y)
        if refine == "dark":
            px, py = dark(plane, x, y)
        elif refine == "quarter":
            px, py = quarter(plane, x, y)
        align = decode.get("alignment", "half_pixel")
        if align == "half_pixel":
            px, py = px * stride + (stride - 1) / 2, py * stride + (stride - 1) / 2
        elif align == "asymmetric":
            px, py = px * stride, py * stride
        else:
            px, py = px * (size[0] - 1) / (width - 1), py * (size[1] - 1) / (height - 1)
        kp.append([px, py, min(score, 1.0)])
    total = sum(point[2] for point in kp)
    return [{"score": total / count, "kp": kp}] if total > 0 else []


@dataclass(frozen=True)
class Case:
    """One golden file's recipe. ``places``: among the cells, "inside" or "borders"."""

    name: str
    skeleton: str
    shape: tuple[int, int]  # cells: height, width
    layout: str
    seed: int
    places: str = "inside"
    sigma: float = 2.0
    absent: tuple[int, ...] = ()
    noise: float = 0.01
    flipped: bool = False
    decode: dict[str, Any] = field(default_factory=dict)
    stride: int = 4


CASES = (
    Case("coco17-noise", "coco17", (24, 18), "NCHW", 1, absent=(3,)),
    Case("mpii16-quarter", "mpii16", (20, 16), "NHWC", 2, decode={"refine": "quarter"}),
    Case("coco17-borders", "coco17", (18, 14), "NCHW", 3, places="borders", noise=0.0,
         decode={"alignment": "asymmetric"}),
    Case("crowdpose14-flipped", "crowdpose14", (20, 15), "NHWC", 4, flipped=True,
         decode={"flip_shift": True, "alignment": "align_corners"}),
    Case("coco17-flipped", "coco17", (16, 16), "NCHW", 6, flipped=True, sigma=1.5),
    Case("coco17-empty", "coco17", (16, 12), "NCHW", 5, absent=tuple(range(17))),
)  # fmt: skip


def draw_places(case: Case, count: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Keypoints [K, 2] in cells."""
    height, width = case.shape
    places = rng.uniform((2.0, 2.0), (width - 3.0, height - 3.0), (count, 2))
    if case.places == "borders":
        for k in range(count):  # on one border or in a corner
            axis = k % 3
            ends = (-0.4, case.shape[1 - min(axis, 1)] - 0.6)
            if axis < 2:
                places[k, axis] = ends[k // 3 % 2] + rng.uniform(0.0, 0.3) * (1 - 2 * (k // 3 % 2))
            else:
                places[k] = (0.2, height - 1.1) if k % 2 else (width - 1.3, 0.4)
    return places


def render(places: NDArray[np.float64], case: Case, rng: np.random.Generator) -> Array:
    """[K, H, W]: a Gaussian per keypoint, and noise."""
    height, width = case.shape
    ys, xs = np.mgrid[0:height, 0:width].astype(np.float64)
    maps = np.zeros((len(places), height, width))
    for k, (x, y) in enumerate(places):
        if k not in case.absent:
            squared = (xs - x) ** 2 + (ys - y) ** 2
            maps[k] = rng.uniform(0.4, 1.05) * np.exp(-squared / (2 * case.sigma**2))
    return (maps + rng.normal(0.0, case.noise, maps.shape)).astype(np.float32)


def write_case(case: Case, into: Path) -> None:
    """Renders, decodes and writes one case."""
    skeleton = json.loads((ROOT / f"posewire/skeletons/{case.skeleton}.json").read_text())
    count, flips = len(skeleton["keypoints"]), skeleton["flips"]
    rng = np.random.default_rng(case.seed)
    places = draw_places(case, count, rng)
    arrays = {"heatmaps": render(places, case, rng)}
    height, width = case.shape
    seen = arrays["heatmaps"]
    if case.flipped:
        shift = bool(case.decode.get("flip_shift", False))
        mirrored = places[flips] * (-1.0, 1.0) + (width - 1.0 + (1.0 if shift else 0.0), 0.0)
        arrays["heatmaps_flipped"] = render(mirrored, case, rng)
        seen = mean_of_both(seen, arrays["heatmaps_flipped"], flips, shift)
    size = (width * case.stride, height * case.stride)
    found = decode(seen, case.stride, size, case.decode)
    outputs = [
        {"name": name, "channels": count, "stride": case.stride, "layout": case.layout}
        for name in arrays
    ]
    manifest = {
        "schema": 1, "name": case.name, "version": "1", "mode": "top_down", "skeleton": skeleton,
        "input": {"name": "image", "width": size[0], "height": size[1], "channels": "RGB",
                  "resize": "letterbox"},
        "crop": {"padding": 1.25, "fit": "letterbox"}, "outputs": outputs,
        "decode": {"algorithm": "heatmap", **case.decode},
    }  # fmt: skip
    people = [
        {
            "score": round(person["score"], 5),
            "kp": [[round(v, 4) for v in point] for point in person["kp"]],
        }
        for person in found
    ]
    into.mkdir(parents=True, exist_ok=True)
    golden = {"manifest": manifest, "people": people}
    (into / f"{case.name}.json").write_text(json.dumps(golden) + "\n")
    for name, maps in arrays.items():
        laid = maps if case.layout == "NCHW" else maps.transpose(1, 2, 0)
        (into / f"{case.name}.{name}.bin").write_bytes(laid.astype("<f4").tobytes())


def main() -> None:
    """Rewrites tests/golden/heatmap."""
    for case in CASES:
        write_case(case, GOLDEN)


if __name__ == "__main__":
    main()
