# SPDX-License-Identifier: Apache-2.0
"""A plain reference for decoding composite fields, and the golden files made with it.

Written from Kreiss et al., "PifPaf" (CVPR 2019) and "OpenPifPaf" (arXiv 2103.02440), not from the
C++: loops over Python lists, every cell is looked at for every question.

- accumulated confidence: the sum over cells of confidence times a Gaussian around where they point
  (equation 1), here at the very point that is asked for instead of on a map of pixels; cut at one
  sigma and at 1, a cell counts a sixteenth (its patch is 4 x 4), (1 - d^2 / 16 sigma^2)^8 is the
  Gaussian
- seeds: cells by 0.9 times the accumulated confidence where they point plus 0.1 times their own
- associations: confidence times 0.1 + 0.9 times the accumulated confidence at the far end; near a
  keypoint weighed by a Gaussian, the best two blended (half the score if one stands alone)
- growth: greedy, the best connection sqrt(association * keypoint) of the frontier first, each
  checked by the way back
- a keypoint that a better person has already taken is dropped

``python tests/decode/reference_pifpaf.py`` rewrites tests/golden/pifpaf. A case is ``<name>.json``,
a partial manifest and the expected ``"people"``, and ``<name>.<output>.bin`` per output:
little-endian float32, as the manifest's ``layout`` says.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posewire.encode import draw_people
from posewire.encode import pifpaf as encode
from posewire.skeleton import load_skeleton

Array = NDArray[np.float32]
ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "golden" / "pifpaf"


@dataclass(frozen=True)
class Settings:
    """The row's parameters with its defaults."""

    cif_threshold: float = 0.3
    caf_threshold: float = 0.3
    seed_threshold: float = 0.2
    keypoint_threshold: float = 0.15
    keypoint_ratio: float = 0.5
    person_threshold: float = 0.15
    reverse_check: bool = True


@dataclass
class Joint:
    """A keypoint: cells, and a scale of two sigmas."""

    score: float
    x: float
    y: float
    scale: float


@dataclass
class Cell:
    """An active cell: what it says of one point (cif) or two (caf)."""

    confidence: float
    points: list[tuple[float, float, float]]  # x, y, scale


def active(field: Array, points: int, threshold: float) -> list[Cell]:
    """Cells of one field [2 + 3 * points, H, W] over a threshold that point into the map."""
    height, width = field.shape[1:]
    cells = []
    for row in range(height):
        for column in range(width):
            values = [float(v) for v in field[:, row, column]]
            if not values[1] > threshold:
                continue
            said = []
            for end in range(points):
                x, y, scale = values[2 + 2 * end], values[3 + 2 * end], values[-points + end]
                if -0.5 <= x <= width - 0.5 and -0.5 <= y <= height - 0.5:
                    said.append((x, y, min(max(scale, 0.0), 16.0)))
            if len(said) == points:
                cells.append(Cell(min(values[1], 1.0), said))
    return cells


def accumulated(cells: list[Cell], x: float, y: float, settings: Settings) -> float:
    """The accumulated confidence of one keypoint type at a point."""
    total = 0.0
    for cell in cells:
        if cell.confidence <= settings.cif_threshold:
            continue
        cx, cy, scale = cell.points[0]
        sigma = min(max(0.5 * scale, 0.125), 8.0)
        squared = ((x - cx) ** 2 + (y - cy) ** 2) / sigma**2
        if squared <= 1.0:
            total += cell.confidence / 16 * (1.0 - squared / 16) ** 8
    return min(total, 1.0)


@dataclass
class Frame:
    """Everything that is known of a frame before growing."""

    limbs: list[tuple[int, int]]
    settings: Settings
    cif: list[list[Cell]] = field(default_factory=list)
    caf: list[list[Cell]] = field(default_factory=list)

    def associations(self, limb: int, near: int) -> list[tuple[float, Cell]]:
        """Rescored cells of a limb, followed from its end ``near``."""
        far = 1 - near
        found = []
        for cell in self.caf[limb]:
            x, y, _ = cell.points[far]
            share = accumulated(self.cif[self.limbs[limb][far]], x, y, self.settings)
            score = cell.confidence * (0.1 + 0.9 * share)
            if score > self.settings.caf_threshold:
                found.append((score, cell))
        return found

    def follow(self, limb: int, near: int, start: Joint) -> Joint | None:
        """Where a limb leads from a keypoint."""
        reach = 0.5 * max(start.scale, 0.25)
        weighed = []
        for score, cell in self.associations(limb, near):
            dx, dy = cell.points[near][0] - start.x, cell.points[near][1] - start.y
            if abs(dx) <= reach and abs(dy) <= reach:
                weight = math.exp(-0.5 * (dx * dx + dy * dy) / reach**2)
                weighed.append((score * weight, cell.points[1 - near]))
        weighed.sort(key=lambda entry: -entry[0])
        if not weighed:
            return None
        best, one = weighed[0]
        if len(weighed) > 1:
            second, two = weighed[1]
            apart = math.hypot(one[0] - two[0], one[1] - two[1])
            close = apart <= 0.5 * max(one[2], 0.25)
            if second >= 0.01 and second >= 0.5 * best and close:
                blend = [
                    (best * a + second * b) / (best + second) for a, b in zip(one, two, strict=True)
                ]
                return Joint(0.5 * (best + second), *blend)
        return Joint(0.5 * best, *one)

    def connect(self, start: Joint, limb: int, near: int) -> Joint | None:
        """The keypoint at the other end, with its score, if the way back agrees."""
        end = self.follow(limb, near, start)
        if end is None:
            return None
        end.score = math.sqrt(end.score * start.score)
        settings = self.settings
        if end.score < max(settings.keypoint_threshold, settings.keypoint_ratio * start.score):
            return None
        if settings.reverse_check:
            back = self.follow(limb, 1 - near, end)
            if back is None:
                return None
            if abs(back.x - start.x) + abs(back.y - start.y) > max(start.scale, 0.25):
                return None
        return end

    def grow(self, kind: int, seed: Joint) -> dict[int, Joint]:
        """A person from one keypoint."""
        person = {kind: seed}
        known: dict[tuple[int, int], Joint | None] = {}
        while True:
            # The frontier anew in every step: connections from what is there to what is not.
            frontier = []
            for limb, ends in enumerate(self.limbs):
                for near in (0, 1):
                    if ends[near] in person and ends[1 - near] not in person:
                        if (limb, near) not in known:
                            start = person[ends[near]]
                            known[limb, near] = self.connect(start, limb, near)
                        joint = known[limb, near]
                        if joint is not None:
                            frontier.append((-joint.score, 2 * limb + near))
            if not frontier:
                return person
            edge = min(frontier)[1]
            joint = known[edge // 2, edge % 2]
            assert joint is not None
            person[self.limbs[edge // 2][1 - edge % 2]] = joint


def taken(people: list[dict[int, Joint]], kind: int, x: float, y: float) -> bool:
    """Whether one of the people has that keypoint there."""
    for person in people:
        if kind in person:
            joint, reach = person[kind], max(person[kind].scale, 0.5)
            if abs(joint.x - x) <= reach and abs(joint.y - y) <= reach:
                return True
    return False


def decode(
    cif: Array, caf: Array, limbs: list[tuple[int, int]], count: int, stride: int,
    settings: Settings, origin_px: float,
) -> list[dict[str, Any]]:  # fmt: skip
    """People of one frame, best first, in network pixels; cif [5 K, H, W], caf [8 L, H, W]."""
    frame = Frame(limbs, settings)
    low = min(settings.cif_threshold, settings.seed_threshold)
    frame.cif = [active(cif[5 * k : 5 * k + 5], 1, low) for k in range(count)]
    frame.caf = [
        active(caf[8 * n : 8 * n + 8], 2, settings.caf_threshold) for n in range(len(limbs))
    ]
    seeds = []
    for kind, cells in enumerate(frame.cif):
        for cell in cells:
            x, y, scale = cell.points[0]
            score = 0.9 * accumulated(cells, x, y, settings) + 0.1 * cell.confidence
            if min(score, cell.confidence) > settings.seed_threshold:
                seeds.append((kind, Joint(score, x, y, scale)))
    seeds.sort(key=lambda seed: -seed[1].score)
    people: list[dict[int, Joint]] = []
    for kind, seed in seeds:
        if not taken(people, kind, seed.x, seed.y):
            people.append(frame.grow(kind, seed))
    kept: list[dict[int, Joint]] = []
    for person in sorted(people, key=lambda p: -sum(joint.score for joint in p.values())):
        kept.append(
            {k: j for k, j in person.items() if not taken(kept, k, j.x, j.y)}
        )  # fmt: skip
    poses = []
    for person in kept:
        kp = [[0.0, 0.0, 0.0] for _ in range(count)]
        for kind, joint in person.items():
            if joint.score > settings.keypoint_threshold:
                kp[kind] = [
                    joint.x * stride + origin_px, joint.y * stride + origin_px, joint.score,
                ]  # fmt: skip
        mean = sum(point[2] for point in kp) / count
        if mean >= settings.person_threshold and any(point[2] > 0 for point in kp):
            poses.append({"score": mean, "kp": kp})
    return sorted(poses, key=lambda pose: -float(pose["score"]))


# ---- golden files


@dataclass(frozen=True)
class Case:
    """One golden file's recipe. Sizes are in cells."""

    name: str
    skeleton: str
    people: int
    height: float
    shape: tuple[int, int]
    stride: int
    layout: str
    seed: int
    noise: float = 0.0  # of positions, cells; confidences then vary as well
    absent: tuple[str, ...] = ()
    form: str = "absolute"  # or "relative", "confidence first"
    origin_px: float | None = None


CASES = (
    Case("coco17-three", "coco17", 3, 15.0, (18, 22), 8, "NCHW", 1, 0.03),
    Case("coco17-nhwc", "coco17", 2, 12.0, (17, 15), 8, "NHWC", 2, 0.02, ("left_hip", "nose")),
    Case("crowdpose14-first", "crowdpose14", 2, 13.0, (16, 20), 16, "NCHW", 3, 0.02,
         form="confidence first"),
    Case("mpii16-relative", "mpii16", 2, 14.0, (17, 19), 8, "NCHW", 4, 0.02, form="relative",
         origin_px=0.0),
    Case("coco17-empty", "coco17", 0, 14.0, (6, 9), 8, "NHWC", 5, 0.02),
)  # fmt: skip


def add_noise(fields: Array, channels: int, noise: float, rng: np.random.Generator) -> None:
    """Confidences 0.75 to 0.98 where something is and up to 0.2 elsewhere, positions shaken."""
    confidence = fields[1::channels]
    on = confidence > 0
    confidence[:] = np.where(
        on, rng.uniform(0.75, 0.98, on.shape), rng.uniform(0.0, 0.2, on.shape)
    )  # fmt: skip
    for channel in range(2, 4 if channels == 5 else 6):
        fields[channel::channels] += rng.normal(0.0, noise, on.shape).astype(np.float32)


def confidence_first(fields: Array, channels: int) -> Array:
    """From the order of the exported heads to the older one: b after the points, one a point."""
    split = fields.reshape(-1, channels, *fields.shape[1:])
    b, confidence = split[:, :1], split[:, 1:2]
    points = 1 if channels == 5 else 2
    parts = [confidence, split[:, 2 : 2 + 2 * points], *[b] * points, split[:, 2 + 2 * points :]]
    return np.concatenate(parts, axis=1).reshape(-1, *fields.shape[1:])


def write_case(case: Case, into: Path) -> None:
    """Renders, decodes and writes one case."""
    skeleton = load_skeleton(case.skeleton)
    rng = np.random.default_rng(case.seed)
    rows, columns = case.shape
    # Rendered at the encoder's stride; a field in cells is the same at any.
    size = encode.STRIDE * columns, encode.STRIDE * rows
    tall = encode.STRIDE * case.height
    people = draw_people(skeleton, *size, case.people, tall, rng, 3.0 * encode.STRIDE)
    if len(people) != case.people:
        raise SystemExit(f"{case.name}: no room for {case.people} people")
    for name in case.absent:
        people[:, skeleton.keypoints.index(name), 2] = 0
    fields = encode.render(people, skeleton, *size)
    cif, caf = fields["cif"], fields["caf"]
    if case.noise > 0:
        add_noise(cif, 5, case.noise, rng)
        add_noise(caf, 8, case.noise, rng)
    origin = (case.stride - 1) / 2 if case.origin_px is None else case.origin_px
    limbs = [(a, b) for a, b in skeleton.limbs]
    found = decode(cif, caf, limbs, skeleton.count, case.stride, Settings(), origin)
    parameters: dict[str, Any] = {"algorithm": "pifpaf"}
    if case.origin_px is not None:
        parameters["origin_px"] = case.origin_px
    if case.form == "relative":
        parameters["relative"] = True
        ys, xs = np.mgrid[0:rows, 0:columns].astype(np.float32)
        for channel, place in ((2, xs), (3, ys)):
            cif[channel::5] -= place
            caf[channel::8] -= place
            caf[channel + 2 :: 8] -= place
    if case.form == "confidence first":
        cif, caf = confidence_first(cif, 5), confidence_first(caf, 8)
    manifest = {
        "schema": 1, "name": case.name, "version": "1", "mode": "bottom_up",
        "skeleton": skeleton.to_dict(),
        "input": {"name": "image", "width": columns * case.stride, "height": rows * case.stride,
                  "channels": "RGB", "resize": "letterbox"},
        "outputs": [
            {"name": "cif", "channels": len(cif), "stride": case.stride, "layout": case.layout},
            {"name": "caf", "channels": len(caf), "stride": case.stride, "layout": case.layout},
        ],
        "decode": parameters,
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
    for name, maps in (("cif", cif), ("caf", caf)):
        laid = maps if case.layout == "NCHW" else maps.transpose(1, 2, 0)
        (into / f"{case.name}.{name}.bin").write_bytes(laid.astype("<f4").tobytes())


def main() -> None:
    """Rewrites tests/golden/pifpaf."""
    for case in CASES:
        write_case(case, GOLDEN)


if __name__ == "__main__":
    main()
