# SPDX-License-Identifier: Apache-2.0
"""A plain reference for Pose Proposal Networks, and the golden files made with it.

Written from Sekii, "Pose Proposal Networks" (ECCV 2018), not from the C++; nothing is optimised.

- proposals: a box of each kind (a keypoint or the person instance) in every cell; its score is
  p(R) p(I | R), what equation 1 calls the detection's confidence; non-maximum suppression by the
  overlap of boxes of one kind (section 3.2)
- limbs: score of both ends times the edge's probability, in a window of 9 x 9 cells; one to one,
  best first (section 3.3)
- people: connections that share a proposal, taken best first over all limbs; two groups that own
  the same kind are different people; scores are the house's (docs/design.md 3.3)

``python tests/decode/reference_pose_proposal.py`` rewrites tests/golden/pose_proposal. A case is
``<name>.json`` and ``<name>.<output>.bin`` per output, as in reference_paf.py. The people come from
posewire.encode, the maps are rendered here.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posewire.encode import draw_people
from posewire.skeleton import Skeleton, load_skeleton

Array = NDArray[np.float64]
Node = tuple[int, int]  # kind, index among its proposals
ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "golden" / "pose_proposal"
REACH = 4
OWN = Skeleton(
    "own",
    ("hub", "spoke_a", "spoke_b", "spoke_c", "rim"),
    ((0, 1), (0, 2), (0, 3), (3, 4), (1, 2)),
    (0, 2, 1, 3, 4),
    (0.05,) * 5,
)
DEFAULTS = {
    "score_threshold": 0.1,
    "edge_threshold": 0.05,
    "nms_iou": 0.3,
    "min_keypoints": 3,
    "person_threshold": 0.05,
}


@dataclass(frozen=True)
class Proposal:
    """One kind's box; network pixels."""

    score: float
    x: float
    y: float
    w: float
    h: float
    row: int
    column: int


def iou(a: Proposal, b: Proposal) -> float:
    """Intersection over union of two boxes."""
    width = min(a.x + a.w / 2, b.x + b.w / 2) - max(a.x - a.w / 2, b.x - b.w / 2)
    height = min(a.y + a.h / 2, b.y + b.h / 2) - max(a.y - a.h / 2, b.y - b.h / 2)
    both = max(width, 0.0) * max(height, 0.0)
    return both / (a.w * a.h + b.w * b.h - both) if both > 0 else 0.0


def proposals_of(
    maps: dict[str, Array], kind: int, stride: int, size: tuple[int, int], settings: dict[str, Any]
) -> list[Proposal]:
    """A kind's boxes, best first, without those that a better one overlaps."""
    found = []
    for row, column in np.ndindex(*maps["conf"].shape[1:]):
        c, x, y, w, h = (float(maps[name][kind, row, column]) for name in ("conf", *"xywh"))
        overlap = float(maps["iou"][kind, row, column]) if "iou" in maps else 1.0
        score = min(c, 1.0) * min(overlap, 1.0)
        if c > settings["score_threshold"] and score > settings["score_threshold"]:
            x, y, w, h = (min(max(v, 0.0), 1.0) for v in (x, y, w, h))
            place = (column + x) * stride, (row + y) * stride
            found.append(Proposal(score, *place, w * size[0], h * size[1], row, column))
    kept: list[Proposal] = []
    for one in sorted(found, key=lambda p: -p.score):
        if all(iou(better, one) <= settings["nms_iou"] for better in kept):
            kept.append(one)
    return kept


def connections(
    edges: Array, limbs: list[tuple[int, int]], proposals: list[list[Proposal]], least: float
) -> list[tuple[float, Node, Node]]:
    """The limbs, edges [L, 9, 9, H, W]."""
    found = []
    for limb, (first, second) in enumerate(limbs):
        pairs = []
        for i, a in enumerate(proposals[first]):
            for j, b in enumerate(proposals[second]):
                dy, dx = b.row - a.row + REACH, b.column - a.column + REACH
                if 0 <= dy <= 2 * REACH and 0 <= dx <= 2 * REACH:
                    edge = min(float(edges[limb, dy, dx, a.row, a.column]), 1.0)
                    if edge > least:
                        pairs.append((a.score * edge * b.score, i, j))
        used_a: set[int] = set()
        used_b: set[int] = set()
        for score, i, j in sorted(pairs, reverse=True):
            if i not in used_a and j not in used_b:
                used_a.add(i)
                used_b.add(j)
                found.append((score, (first, i), (second, j)))
    return found


def assemble(links: list[tuple[float, Node, Node]]) -> list[dict[int, int]]:
    """Groups of proposals: kind -> index."""
    groups: list[dict[int, int]] = []
    for _, one, two in sorted(links, reverse=True):
        sides = []
        for kind, index in (one, two):
            group = next((g for g in groups if g.get(kind) == index), None)
            if group is None:
                group = {kind: index}
                groups.append(group)
            sides.append(group)
        left, right = sides
        if left is not right and not left.keys() & right.keys():
            left.update(right)
            groups = [g for g in groups if g is not right]
    return groups


def decode(
    maps: dict[str, Array],
    skeleton: Skeleton,
    stride: int,
    size: tuple[int, int],
    settings: dict[str, Any],
) -> list[dict[str, Any]]:
    """People of one frame, [{"score": s, "kp": K x [x, y, score]}] in network pixels.

    maps [K + 1, H, W] by name, edges [81 L, H, W]; size: the input's width, height.
    """
    count = skeleton.count
    instance = settings.get("instance", count)
    kinds = [k if k < instance else k + 1 for k in range(count)]
    limbs = settings.get("limbs", [(kinds[a], kinds[b]) for a, b in skeleton.limbs])
    proposals = [proposals_of(maps, k, stride, size, settings) for k in range(count + 1)]
    window = 2 * REACH + 1
    edges = maps["edges"].reshape(len(limbs), window, window, *maps["conf"].shape[1:])
    people = []
    for group in assemble(connections(edges, limbs, proposals, settings["edge_threshold"])):
        kp = [[0.0, 0.0, 0.0] for _ in range(count)]
        for k, kind in enumerate(kinds):
            if kind in group:
                one = proposals[kind][group[kind]]
                kp[k] = [one.x, one.y, one.score]
        score = sum(point[2] for point in kp) / count
        there = sum(point[2] > 0 for point in kp)
        if there >= settings["min_keypoints"] and score >= settings["person_threshold"]:
            people.append({"score": score, "kp": kp})
    return sorted(people, key=lambda person: -float(person["score"]))  # type: ignore[arg-type]


# ---- golden files


@dataclass(frozen=True)
class Case:
    """One golden file's recipe; ``absent``: (person, keypoint) that the network does not see."""

    name: str
    skeleton: Skeleton
    people: int
    share: float
    size: tuple[int, int]
    stride: int
    last: bool
    seed: int
    decode: dict[str, Any] = field(default_factory=dict)
    absent: tuple[tuple[int, int], ...] = ()
    iou: bool = True


LSP = load_skeleton("lsp14")
# From the instance to the hub, and the skeleton's own; the instance first, so keypoint k is k + 1.
STAR = {"instance": 0, "limbs": [[0, 1], [1, 2], [1, 3], [1, 4], [4, 5], [0, 2], [0, 4]]}
CASES = (
    Case("lsp14-two", LSP, 2, 0.9, (192, 160), 32, False, 1),
    Case("own-nhwc", OWN, 3, 0.5, (256, 192), 32, True, 2, {"min_keypoints": 2}, iou=False),
    Case("own-instance", OWN, 3, 0.5, (128, 112), 16, False, 3, STAR, ((0, 0), (1, 3), (2, 4))),
    Case("own-tiny", OWN, 1, 0.8, (64, 96), 32, True, 4),
    Case("own-empty", OWN, 0, 0.5, (128, 128), 32, False, 5),
)


def render(case: Case, people: Array, rng: np.random.Generator) -> dict[str, Array]:
    """Noisy maps: neighbouring cells propose the same keypoint too, edges are not quite certain."""
    (width, height), stride, count = case.size, case.stride, case.skeleton.count
    instance = case.decode.get("instance", count)
    kinds = [k if k < instance else k + 1 for k in range(count)]
    limbs = case.decode.get("limbs", [(kinds[a], kinds[b]) for a, b in case.skeleton.limbs])
    shape = (-(-height // stride), -(-width // stride))
    maps = {name: rng.uniform(0.0, 0.06, (count + 1, *shape)) for name in ("conf", *"xywh")}
    maps["iou"] = rng.uniform(0.7, 1.0, (count + 1, *shape))
    edges = rng.uniform(0.0, 0.04, (len(limbs), 9, 9, *shape))
    for p, person in enumerate(people):
        middle = (person[:, :2].min(axis=0) + person[:, :2].max(axis=0)) / 2
        spots = {kinds[k]: person[k, :2] for k in range(count) if (p, k) not in case.absent}
        spots[instance] = middle
        side = float(np.ptp(person[:, :2], axis=0).max()) / 4
        home = {}
        for kind, (x, y) in spots.items():
            row, column = int(y // stride), int(x // stride)
            home[kind] = row, column
            for r, c in ((row, column - 1), (row, column)):  # the left cell sees it as well
                if c >= 0:
                    maps["conf"][kind, r, c] = rng.uniform(0.7, 0.95) if c == column else 0.5
                    maps["x"][kind, r, c] = min(x / stride - c, 1.0)
                    maps["y"][kind, r, c] = y / stride - r
                    maps["w"][kind, r, c] = side / width
                    maps["h"][kind, r, c] = side / height
        for limb, (a, b) in enumerate(limbs):
            if a in home and b in home:
                dy, dx = home[b][0] - home[a][0] + REACH, home[b][1] - home[a][1] + REACH
                if 0 <= dy <= 2 * REACH and 0 <= dx <= 2 * REACH:
                    edges[limb, dy, dx, home[a][0], home[a][1]] = rng.uniform(0.6, 1.0)
    maps["edges"] = edges.reshape(-1, *shape)
    if not case.iou:
        del maps["iou"]
    return {name: values.astype(np.float32) for name, values in maps.items()}


def write_case(case: Case, into: Path) -> None:
    """Renders, decodes and writes one case."""
    rng = np.random.default_rng(case.seed)
    width, height = case.size
    tall = case.share * height
    people = draw_people(case.skeleton, width, height, case.people, tall, rng, 2.0 * case.stride)
    if len(people) != case.people:
        raise SystemExit(f"{case.name}: no room for {case.people} people")
    maps = render(case, people, rng)
    found = decode(maps, case.skeleton, case.stride, case.size, {**DEFAULTS, **case.decode})
    layout = "NHWC" if case.last else "NCHW"
    golden = {
        "manifest": {
            "schema": 1, "name": case.name, "version": "1", "mode": "bottom_up",
            "skeleton": case.skeleton.to_dict(),
            "input": {"name": "image", "width": width, "height": height, "channels": "RGB",
                      "resize": "letterbox"},
            "outputs": [{"name": name, "channels": len(values), "stride": case.stride,
                         "layout": layout} for name, values in maps.items()],
            "decode": {"algorithm": "pose_proposal", **case.decode},
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
    for name, values in maps.items():
        laid = np.moveaxis(values, 0, -1) if case.last else values
        (into / f"{case.name}.{name}.bin").write_bytes(laid.astype("<f4").tobytes())


def main() -> None:
    """Rewrites tests/golden/pose_proposal."""
    for case in CASES:
        write_case(case, GOLDEN)


if __name__ == "__main__":
    main()
