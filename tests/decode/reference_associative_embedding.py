# SPDX-License-Identifier: Apache-2.0
"""A plain reference for grouping by associative embedding, and the golden files made with it.

Written from Newell et al., "Associative Embedding" (NeurIPS 2017, section 3.2) and HigherHRNet
(Cheng et al., CVPR 2020, section 3.4), not from the C++: NumPy, SciPy's assignment, nothing is
optimised. Where the row departs from the papers (docs/decoders.md: ``support``, pairs over the tag
threshold, positions, the mean of two resolutions at candidates only) this does as the row.

``python tests/decode/reference_associative_embedding.py`` rewrites
tests/golden/associative_embedding: per case ``<name>.json`` (a partial manifest and the expected
"people") and ``<name>.<output>.bin``, little-endian float32.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from posewire.encode import draw_people
from posewire.encode.associative_embedding import ENCODER, FINE
from posewire.skeleton import Skeleton, load_skeleton

Array = NDArray[np.float32]
Window = NDArray[np.float64]
GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "associative_embedding"


@dataclass(frozen=True)
class Settings:
    """The row's parameters with its defaults."""

    score_threshold: float = 0.1
    support: float = 0.6
    tag_threshold: float = 1.0
    max_people: int = 30
    min_keypoints: int = 3
    person_threshold: float = 0.05
    order: list[int] | None = None
    refine: bool = False


@dataclass(frozen=True)
class Candidate:
    """x, y: cells of its map, sub-cell; ``stride`` is that map's."""

    x: float
    y: float
    score: float
    tag: float
    stride: int


@dataclass
class Person:
    """Candidates by keypoint."""

    found: dict[int, Candidate] = field(default_factory=dict)

    @property
    def tag(self) -> float:
        return float(np.mean([candidate.tag for candidate in self.found.values()]))


def maxima(heatmap: Array, threshold: float, support: float) -> list[tuple[int, int]]:
    """(x, y) of the 5 x 5 maxima over the threshold that their neighbours support, best first."""
    padded = np.pad(heatmap.astype(np.float64), 1, mode="edge")
    found = []
    for y, x in np.argwhere(heatmap > threshold):
        value = heatmap[y, x]
        window = heatmap[max(y - 2, 0) : y + 3, max(x - 2, 0) : x + 3]
        if value < window.max():
            continue
        first = np.argwhere(window == value)[0]  # of equal ones
        if (first[0] + max(y - 2, 0), first[1] + max(x - 2, 0)) != (y, x):
            continue
        if padded[y : y + 3, x : x + 3].sum() - value >= 8 * support * value:
            found.append((int(x), int(y)))
    return sorted(found, key=lambda at: (-float(heatmap[at[1], at[0]]), at[1], at[0]))


def vertex(places: Window, sums: Window) -> float:
    """Weighted least squares of a parabola through the logarithms, in cells from the middle."""
    if len(places) < 3:
        return 0.0
    c, b, _ = np.polyfit(places, np.log(sums), 2, w=sums)  # polyfit squares its weights
    reach = 1.0 if len(places) == 5 else 0.5
    return float(np.clip(-b / (2 * c), -reach, reach)) if c < 0 else 0.0


def centre(heatmap: Array, x: int, y: int) -> tuple[float, float]:
    """Of the blob whose highest cell is (x, y)."""
    height, width = heatmap.shape
    shares = np.clip(heatmap.astype(np.float64) / float(heatmap[y, x]), 0.02, 1.0)
    for reach in (2, 1):
        us = np.arange(max(x - reach, 0), min(x + reach, width - 1) + 1)
        vs = np.arange(max(y - reach, 0), min(y + reach, height - 1) + 1)
        window = shares[vs[0] : vs[-1] + 1, us[0] : us[-1] + 1]
        across, down = window.sum(axis=0), window.sum(axis=1)
        falls = all(
            sums[places == outer] <= sums[places == inner]
            for places, sums in ((us - x, across), (vs - y, down))
            for outer, inner in ((-2, -1), (2, 1))
            if outer in places
        )
        if falls or reach == 1:
            break
    return x + vertex(us - x, across), y + vertex(vs - y, down)


def bilinear(plane: Array, x: float, y: float) -> float:
    """The plane's value between its cells' centres, clamped to the map."""
    height, width = plane.shape
    x, y = min(max(x, 0.0), width - 1.0), min(max(y, 0.0), height - 1.0)
    left, top = min(int(x), width - 2), min(int(y), height - 2)
    fx, fy = x - left, y - top
    upper = plane[top, left] * (1 - fx) + plane[top, left + 1] * fx
    lower = plane[top + 1, left] * (1 - fx) + plane[top + 1, left + 1] * fx
    return float(upper * (1 - fy) + lower * fy)


def candidates(outputs: dict[str, Array], k: int, stride: int, settings: Settings) -> list[Any]:
    """Of keypoint k, best first."""
    heatmap, tags = outputs["heatmaps"][k], outputs["tags"][k % len(outputs["tags"])]
    if "heatmaps_2" not in outputs:
        places = maxima(heatmap, settings.score_threshold, settings.support)
        return [
            Candidate(
                *centre(heatmap, x, y), min(float(heatmap[y, x]), 1.0), float(tags[y, x]), stride
            )
            for x, y in places[: settings.max_people]
        ]
    fine = outputs["heatmaps_2"][k]
    places = maxima(fine, settings.score_threshold / 2, settings.support)
    found = []
    for x, y in places[: settings.max_people]:
        coarse = bilinear(heatmap, x / 2 - 0.25, y / 2 - 0.25)
        score = (min(float(fine[y, x]), 1.0) + min(coarse, 1.0)) / 2
        tag = float(tags[y // 2, x // 2])
        if score > settings.score_threshold:
            found.append(Candidate(*centre(fine, x, y), score, tag, stride // 2))
    return sorted(found, key=lambda candidate: -candidate.score)


def group(people: list[Person], k: int, found: list[Candidate], settings: Settings) -> None:
    """Gives each candidate of keypoint k to a person, or makes a new one of it."""
    tags = np.array([person.tag for person in people])
    none = 100 * math.floor(settings.tag_threshold + 0.5) + 1
    # A column of its own for every candidate: staying alone.
    costs = np.full((len(found), len(people) + len(found)), float(none))
    for i, candidate in enumerate(found):
        apart = np.abs(candidate.tag - tags)
        near = apart < settings.tag_threshold
        costs[i, : len(people)][near] = 100 * np.floor(apart[near] + 0.5) - candidate.score
    number = len(people)
    rows, columns = linear_sum_assignment(costs)
    for i, j in sorted(zip(rows, columns, strict=True)):
        if j < number and costs[i, j] < none:
            people[j].found[k] = found[i]
        else:
            people.append(Person({k: found[i]}))


def refine(person: Person, outputs: dict[str, Array], count: int, stride: int) -> None:
    """Missing keypoints: where the heatmap minus the rounded tag distance is highest and over 0."""
    tag = person.tag
    for k in set(range(count)) - set(person.found):
        heatmap, tags = outputs["heatmaps"][k], outputs["tags"][k % len(outputs["tags"])]
        value = heatmap - np.floor(np.abs(tags - np.float32(tag)) + np.float32(0.5))
        y, x = (int(i) for i in np.unravel_index(value.argmax(), value.shape))
        if value[y, x] > 0:
            score = min(float(heatmap[y, x]), 1.0)
            person.found[k] = Candidate(*centre(heatmap, x, y), score, tag, stride)


def decode(
    outputs: dict[str, Array], count: int, stride: int, settings: Settings
) -> list[dict[str, Any]]:
    """People of one frame: [{"score": s, "kp": K x [x, y, score]}] in network pixels."""
    people: list[Person] = []
    for k in settings.order or range(count):
        group(people, k, candidates(outputs, k, stride, settings), settings)
    found = []
    for person in people:
        if len(person.found) < settings.min_keypoints:
            continue
        if settings.refine:
            refine(person, outputs, count, stride)
        kp = [[0.0, 0.0, 0.0] for _ in range(count)]
        for k, at in person.found.items():
            shift = (at.stride - 1) / 2
            kp[k] = [at.x * at.stride + shift, at.y * at.stride + shift, at.score]
        mean = sum(point[2] for point in kp) / count
        if mean >= settings.person_threshold:
            found.append({"score": mean, "kp": kp})
    return sorted(found, key=lambda person: -float(person["score"]))[: settings.max_people]


# ---- golden files

OWN = Skeleton(
    "own",
    ("hub", "spoke_a", "spoke_b", "spoke_c", "rim"),
    ((0, 1), (0, 2), (0, 3), (3, 4), (1, 2)),
    (0, 2, 1, 3, 4),
    (0.05,) * 5,
)


@dataclass(frozen=True)
class Case:
    """One golden file's recipe."""

    name: str
    skeleton: Skeleton
    people: int
    size: tuple[int, int]
    seed: int
    noise: float = 0.0
    layout: str = "NCHW"
    fine: bool = False
    shared: bool = False
    absent: float = 0.0
    settings: dict[str, Any] = field(default_factory=dict)


COCO17 = load_skeleton("coco17")
CASES = (
    Case("coco17-three", COCO17, 3, (128, 112), 1),
    Case("coco17-noise", COCO17, 3, (128, 112), 2, 0.05, absent=0.2),
    Case("coco17-fine", COCO17, 2, (80, 72), 3, 0.02, "NHWC", fine=True),
    Case("own-refine", OWN, 3, (120, 96), 4, 0.01, "NHWC", absent=0.3,
         settings={"refine": True, "order": [4, 2, 0, 1, 3]}),
    Case("own-shared", OWN, 3, (121, 95), 5, 0.02, shared=True),
    Case("coco17-empty", COCO17, 0, (96, 80), 6, 0.05),
)  # fmt: skip


def write_case(case: Case, into: Path) -> None:
    """Renders, decodes and writes one case."""
    skeleton, (width, height) = case.skeleton, case.size
    rng = np.random.default_rng(case.seed)
    people = draw_people(skeleton, width, height, case.people, 0.6 * height, rng, 12.0)
    if len(people) != case.people:
        raise SystemExit(f"{case.name}: no room for {case.people} people")
    row = FINE if case.fine else ENCODER
    outputs = row.render(people, skeleton, width, height)
    if case.absent:  # weak rather than gone: what ``refine`` is for
        for k, person in np.argwhere(rng.random((skeleton.count, case.people)) < case.absent):
            own = outputs["tags"][k] == np.float32(1.7 * (person + 1))
            outputs["heatmaps"][k][own] *= 0.08
    if case.shared:
        outputs["tags"] = outputs["tags"].max(axis=0, keepdims=True)
    for name, maps in outputs.items():
        outputs[name] = (maps + rng.normal(0.0, case.noise, maps.shape)).astype(np.float32)
    specs = [
        {**spec, "channels": len(outputs[spec["name"]]), "layout": case.layout}
        for spec in row.outputs(skeleton, width, height)
    ]
    stride = int(specs[0]["stride"])
    found = decode(outputs, skeleton.count, stride, Settings(**case.settings))
    manifest = {
        "schema": 1, "name": case.name, "version": "1", "mode": "bottom_up",
        "skeleton": skeleton.to_dict(),
        "input": {"name": "image", "width": width, "height": height,
                  "channels": "RGB", "resize": "letterbox"},
        "outputs": specs,
        "decode": {"algorithm": "associative_embedding", **case.settings},
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
    for name, maps in outputs.items():
        laid = maps if case.layout == "NCHW" else maps.transpose(1, 2, 0)
        (into / f"{case.name}.{name}.bin").write_bytes(laid.astype("<f4").tobytes())
    print(case.name, len(found), [sum(p[2] > 0 for p in person["kp"]) for person in found])


def main() -> None:
    """Rewrites tests/golden/associative_embedding."""
    for case in CASES:
        write_case(case, GOLDEN)


if __name__ == "__main__":
    main()
