# SPDX-License-Identifier: Apache-2.0
"""A plain reference for one-stage networks (the row ``center``), and the golden files made with it.

Written from the papers, not from the C++; loops over NumPy arrays, nothing is optimised.

- grids: Zhou et al., "Objects as Points" (arXiv 1904.07850), section 4.2: centres are maxima among
  eight neighbours, keypoints are regressed from their cells and moved to the nearest maximum of
  their heatmap within 0.3 of the box's longer side (and inside the box, where there is one); Geng
  et al., "Bottom-Up Human Pose Estimation Via Disentangled Keypoint Regression" (CVPR 2021),
  section 3: keypoints stay where they are regressed and score their heatmap's value there
- rows: Maji et al., "YOLO-Pose" (arXiv 2204.06806): NMS of boxes by the detection's score
- duplicates of either: object keypoint similarity (COCO) against a better pose
- scores: the house's (docs/design.md 3.3)

``python tests/decode/reference_center.py`` rewrites tests/golden/center. A case is ``<name>.json``
and ``<name>.<output>.bin`` per output, as in reference_paf.py. Inputs come from posewire.encode.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posewire.encode import draw_people
from posewire.encode.center import FORMS
from posewire.skeleton import Skeleton, load_skeleton

Array = NDArray[np.float32]
Pose = list[list[float]]
ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "golden" / "center"
OWN = Skeleton(
    "own",
    ("hub", "spoke_a", "spoke_b", "spoke_c", "rim"),
    ((0, 1), (0, 2), (0, 3), (3, 4), (1, 2)),
    (0, 2, 1, 3, 4),
    (0.05,) * 5,
)
DEFAULTS = {
    "score_threshold": 0.1,
    "keypoint_threshold": 0.05,
    "person_threshold": 0.05,
    "nms_oks": 0.7,
    "nms_iou": 0.7,
    "max_people": 100,
    "max_candidates": 1024,
}


def maxima(plane: Array, threshold: float) -> list[tuple[int, int]]:
    """(row, column) of every value over the threshold and all its neighbours, in memory's order."""
    found = []
    for y, x in np.ndindex(*plane.shape):
        around = plane[max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2]
        if plane[y, x] > threshold and (around >= plane[y, x]).sum() == 1:
            found.append((y, x))
    return found


def offset(before: float, peak: float, after: float) -> float:
    """Vertex of the parabola through three logarithms, in cells from the middle one."""
    left, middle, right = (math.log(max(v, 0.02 * peak)) for v in (before, peak, after))
    bend = 2.0 * middle - left - right
    return min(max(0.5 * (right - left) / bend, -0.5), 0.5) if bend > 0.0 else 0.0


def sub_cell(plane: Array, y: int, x: int) -> tuple[float, float]:
    """(x, y) of a maximum in cells; on an axis without one of the neighbours the cell's own."""
    value, (height, width) = float(plane[y, x]), plane.shape
    dx = dy = 0.0
    if 0 < x < width - 1:
        dx = offset(float(plane[y, x - 1]), value, float(plane[y, x + 1]))
    if 0 < y < height - 1:
        dy = offset(float(plane[y - 1, x]), value, float(plane[y + 1, x]))
    return x + dx, y + dy


def bilinear(plane: Array, x: float, y: float) -> float:
    """The plane's value between its cells' centres; 0 outside its cells."""
    height, width = plane.shape
    if not (-0.5 <= x <= width - 0.5 and -0.5 <= y <= height - 0.5):
        return 0.0
    x, y = min(max(x, 0.0), width - 1.0), min(max(y, 0.0), height - 1.0)
    left, top = min(int(x), width - 2), min(int(y), height - 2)
    fx, fy = x - left, y - top
    upper = plane[top, left] * (1 - fx) + plane[top, left + 1] * fx
    lower = plane[top + 1, left] * (1 - fx) + plane[top + 1, left + 1] * fx
    return float(upper * (1 - fy) + lower * fy)


def keypoint(x: float, y: float, score: float, threshold: float) -> list[float]:
    """[x, y, score], or an absent one."""
    return [x, y, min(score, 1.0)] if score >= threshold and score > 0 else [0.0, 0.0, 0.0]


def area_of(pose: Pose) -> float:
    """Square pixels: the extents' product, at least a quarter of the longer one's square."""
    spots = np.array([point[:2] for point in pose if point[2] > 0])
    width, height = np.ptp(spots, axis=0)
    return max(float(width * height), 0.25 * float(max(width, height)) ** 2, 1.0)


def similarity(better: Pose, weaker: Pose, sigmas: tuple[float, ...]) -> float:
    """OKS over the weaker pose's keypoints; one that the better pose lacks counts 0."""
    terms = []
    for (ax, ay, a), (bx, by, b), sigma in zip(better, weaker, sigmas, strict=True):
        if b > 0:
            squared = (ax - bx) ** 2 + (ay - by) ** 2
            gain = math.exp(-squared / (2 * (2 * sigma) ** 2 * area_of(better)))
            terms.append(gain if a > 0 else 0.0)
    return sum(terms) / len(terms)


def report(kept: list[Pose], settings: dict[str, Any]) -> list[dict[str, Any]]:
    """People best first."""
    people = [{"score": sum(p[2] for p in pose) / len(pose), "kp": pose} for pose in kept]
    people = [person for person in people if person["score"] >= settings["person_threshold"]]
    return sorted(people, key=lambda person: -float(person["score"]))  # type: ignore[arg-type]


# ---- grids


def grid_keypoints(
    outputs: dict[str, Array], row: int, column: int, score: float, settings: dict[str, Any]
) -> list[tuple[float, float, float]]:
    """(x, y, score) of every keypoint of the centre at (row, column), cells."""
    regressed = outputs["offsets"][:, row, column].astype(float).reshape(-1, 2)
    if settings.get("toward_center", False):
        regressed = -regressed
    regressed = regressed + np.array([column, row])
    heatmaps = outputs.get("heatmaps")
    box = None
    if "sizes" in outputs:
        size = outputs["sizes"][:, row, column].astype(float)
        middle = np.array([column, row], float)
        if "center_offset" in outputs:
            middle += outputs["center_offset"][:, row, column]
        box = (*(middle - size / 2), *(middle + size / 2))
        longer = float(size.max())
    else:
        longer = float(np.ptp(regressed, axis=0).max())
    limit = min(settings["snap"] * longer, 16.0)
    found = []
    for k, (x, y) in enumerate(regressed):
        if heatmaps is None:
            found.append((x, y, score))
            continue
        spots = []
        if limit > 0:
            for r, c in maxima(heatmaps[k], settings["keypoint_threshold"]):
                if "heatmap_offset" in outputs:
                    dx, dy = outputs["heatmap_offset"][:, r, c].astype(float)
                    sx, sy = c + dx, r + dy
                else:
                    sx, sy = sub_cell(heatmaps[k], r, c)
                spots.append((math.hypot(sx - x, sy - y), sx, sy, float(heatmaps[k][r, c])))
        distance, sx, sy, value = min(spots, default=(math.inf, 0.0, 0.0, 0.0))
        boxed = box is None or (box[0] <= sx <= box[2] and box[1] <= sy <= box[3])
        if distance <= limit and boxed:
            found.append((sx, sy, value))
        else:
            found.append((x, y, bilinear(heatmaps[k], x, y)))
    return found


def decode_grid(
    outputs: dict[str, Array], skeleton: Skeleton, stride: int, settings: dict[str, Any]
) -> list[dict[str, Any]]:
    """People of one frame in network pixels; outputs [C, H, W]."""
    settings = {"snap": 0.3 if "heatmap_offset" in outputs else 0.0, **settings}
    centers = outputs["centers"][0] if "centers" in outputs else outputs["heatmaps"][-1]
    shift = settings.get("origin_px", (stride - 1) / 2)
    places = maxima(centers, settings["score_threshold"])
    places.sort(key=lambda place: -min(float(centers[place]), 1.0))
    kept: list[Pose] = []
    for row, column in places[: settings["max_people"]]:
        score = min(float(centers[row, column]), 1.0)
        regressed = {"offsets": outputs["offsets"]}  # where the offsets alone put the keypoints
        poses = [
            [
                keypoint(stride * x + shift, stride * y + shift, s, settings["keypoint_threshold"])
                for x, y, s in grid_keypoints(given, row, column, score, settings)
            ]
            for given in (regressed, outputs)
        ]
        # A pose that is a better one once more is dropped before it is moved, or after.
        if not any(similarity(k, poses[0], skeleton.sigmas) >= settings["nms_oks"] for k in kept):
            add(kept, poses[1], skeleton, settings)
    return report(kept, settings)


def add(kept: list[Pose], pose: Pose, skeleton: Skeleton, settings: dict[str, Any]) -> bool:
    """Keeps the pose unless it is empty or a better one once more; whether it did."""
    if all(point[2] == 0 for point in pose):
        return False
    if any(similarity(k, pose, skeleton.sigmas) >= settings["nms_oks"] for k in kept):
        return False
    kept.append(pose)
    return True


# ---- rows


def iou(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Of two boxes x1, y1, x2, y2."""
    both = np.clip(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0, None).prod()
    return float(both / ((a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod() - both))


def decode_rows(
    outputs: dict[str, Array], skeleton: Skeleton, settings: dict[str, Any]
) -> list[dict[str, Any]]:
    """People of one frame in network pixels; outputs [C, N]."""
    if "rows" in outputs:
        rows = outputs["rows"].astype(float)
        half = rows[2:4] / 2
        boxes, keypoints = np.concatenate([rows[:2] - half, rows[:2] + half]).T, rows[5:].T
        scores = rows[4]
    else:
        boxes, scores = outputs["boxes"][:4].T.astype(float), outputs["boxes"][4].astype(float)
        keypoints = outputs["keypoints"].T.astype(float)
    order = [
        i for i in np.argsort(-scores, kind="stable") if scores[i] > settings["score_threshold"]
    ]
    kept: list[Pose] = []
    kept_boxes: list[NDArray[np.float64]] = []
    for i in order[: settings["max_candidates"]]:
        if len(kept) == settings["max_people"]:
            break
        if any(iou(box, boxes[i]) > settings["nms_iou"] for box in kept_boxes):
            continue
        pose = [
            keypoint(float(x), float(y), float(s), settings["keypoint_threshold"])
            for x, y, s in keypoints[i].reshape(-1, 3)
        ]
        if add(kept, pose, skeleton, settings):
            kept_boxes.append(boxes[i])
    return report(kept, settings)


# ---- golden files

Change = Callable[[dict[str, Array], np.random.Generator], None]


def noisy_grid(outputs: dict[str, Array], rng: np.random.Generator) -> None:
    """A network's errors: regressions are off by a third of a cell, maps are not quite smooth."""
    for name, values in outputs.items():
        spread = {"offsets": 0.3, "sizes": 0.3}.get(name, 0.01)
        values += rng.normal(0.0, spread, values.shape).astype(np.float32)


def noisy_rows(outputs: dict[str, Array], rng: np.random.Generator) -> None:
    """Every row tells its person a little differently, and is surer or less sure of it."""
    for name, values in outputs.items():
        scores = np.zeros(len(values), bool)
        if name != "keypoints":
            scores[4] = True
        if name != "boxes":
            scores[(7 if name == "rows" else 2) :: 3] = True
        values[~scores] += rng.normal(0.0, 0.4, values[~scores].shape)
        values[scores] *= rng.uniform(0.5, 1.0, values[scores].shape)


def without(*names: str) -> Change:
    """A network that lacks these outputs."""

    def change(outputs: dict[str, Array], rng: np.random.Generator) -> None:
        noisy_grid(outputs, rng)
        for name in names:
            del outputs[name]

    return change


@dataclass(frozen=True)
class Case:
    """One golden file's recipe."""

    name: str
    form: str
    skeleton: Skeleton
    people: int
    size: tuple[int, int]
    last: bool
    seed: int
    change: Change
    decode: dict[str, Any] = field(default_factory=dict)


COCO, LSP = load_skeleton("coco17"), load_skeleton("lsp14")
PLAIN = without("heatmap_offset", "sizes", "center_offset")
CASES = (
    Case("centernet-coco17", "centernet", COCO, 2, (96, 80), False, 1, noisy_grid),
    Case("centernet-nhwc", "centernet", OWN, 4, (128, 96), True, 2, PLAIN, {"snap": 0.25}),
    Case("centernet-empty", "centernet", OWN, 0, (64, 64), False, 3, noisy_grid),
    Case("regressed", "centernet", OWN, 3, (96, 96), False, 4,
         without("heatmaps", "heatmap_offset", "sizes", "center_offset"), {"max_people": 2}),
    Case("dekr-lsp14", "dekr", LSP, 2, (96, 80), True, 5, noisy_grid),
    Case("rows-coco17", "rows", COCO, 3, (160, 128), False, 6, noisy_rows),
    Case("rows-nwc", "rows", OWN, 5, (192, 160), True, 7, noisy_rows, {"nms_iou": 1.0}),
    Case("pairs-nwc", "pairs", OWN, 4, (192, 160), True, 8, noisy_rows, {"score_threshold": 0.4}),
    Case("pairs-empty", "pairs", OWN, 0, (96, 96), False, 9, noisy_rows),
)  # fmt: skip


def write_case(case: Case, into: Path) -> None:
    """Renders, decodes and writes one case."""
    row, (width, height) = FORMS[case.form], case.size
    rng = np.random.default_rng(case.seed)
    people = draw_people(case.skeleton, width, height, case.people, 0.7 * height, rng, 12.0)
    if len(people) != case.people:
        raise SystemExit(f"{case.name}: no room for {case.people} people")
    outputs = row.render(people, case.skeleton, width, height)
    case.change(outputs, rng)
    decode = {**row.decode, **case.decode}
    settings = {**DEFAULTS, **decode}
    specs = []
    for spec in row.outputs(case.skeleton, width, height):
        extent = "W" if "length" in spec else "HW"
        if spec["name"] in outputs:
            specs.append({**spec, "layout": f"N{extent}C" if case.last else f"NC{extent}"})
    if case.form in ("rows", "pairs"):
        found = decode_rows(outputs, case.skeleton, settings)
    else:
        found = decode_grid(outputs, case.skeleton, specs[0]["stride"], settings)
    golden = {
        "manifest": {
            "schema": 1, "name": case.name, "version": "1", "mode": "bottom_up",
            "skeleton": case.skeleton.to_dict(),
            "input": {"name": "image", "width": width, "height": height, "channels": "RGB",
                      "resize": "letterbox"},
            "outputs": specs,
            "decode": {"algorithm": "center", **decode},
        },
        "people": [
            {
                "score": round(float(person["score"]), 5),
                "kp": [[round(float(v), 4) for v in point] for point in person["kp"]],
            }
            for person in found
        ],
    }  # fmt: skip
    into.mkdir(parents=True, exist_ok=True)
    (into / f"{case.name}.json").write_text(json.dumps(golden) + "\n")
    for name, maps in outputs.items():
        laid = np.moveaxis(maps, 0, -1) if case.last else maps
        (into / f"{case.name}.{name}.bin").write_bytes(laid.astype("<f4").tobytes())


def main() -> None:
    """Rewrites tests/golden/center."""
    for case in CASES:
        write_case(case, GOLDEN)


if __name__ == "__main__":
    main()
