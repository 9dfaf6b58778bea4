# SPDX-License-Identifier: Apache-2.0
"""A plain reference for decoding SimCC, and the golden files made with it.

Written from Li et al., "SimCC" (ECCV 2022, section 3) and RTMPose (arXiv 2303.07399, section 3.3),
not from the C++: loops in double precision.

- per keypoint and axis the largest value; bin i is pixel i / split ratio
- "parabola": the vertex through the largest value and its neighbours
- the score is the smaller of the two axes' largest values, or their mean; with ``softmax_beta`` of
  softmax(beta v)

``python tests/decode/reference_simcc.py`` rewrites tests/golden/simcc, in the form that
reference_paf.py describes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "golden" / "simcc"


def largest(row: Array, decode: dict[str, Any]) -> tuple[float, float]:
    """(bin, score) of one row [length]."""
    values = row.astype(np.float64)
    at = int(values.argmax())
    score = float(values[at])
    beta = float(decode.get("softmax_beta", 0.0))
    if beta > 0:
        chances = np.exp(beta * (values - values.max()))
        score = float(chances[at] / chances.sum())
    place = float(at)
    if decode.get("refine", "parabola") == "parabola" and 0 < at < len(values) - 1:
        before, middle, after = values[at - 1 : at + 2]
        bend = 2 * middle - before - after
        place += 0.5 * (after - before) / bend if bend > 0 else 0.0
    return place, score


def decode_rows(
    across: Array, down: Array, split: float, decode: dict[str, Any]
) -> list[dict[str, Any]]:
    """The person of one crop: [] or [{"score": s, "kp": K x [x, y, s]}], network pixels.

    across [K, Wx], down [K, Wy].
    """
    kp = []
    for row_x, row_y in zip(across, down, strict=True):
        x, score_x = largest(row_x, decode)
        y, score_y = largest(row_y, decode)
        mean = decode.get("score", "min") == "mean"
        score = (score_x + score_y) / 2 if mean else min(score_x, score_y)
        there = score >= decode.get("score_threshold", 0.05)
        kp.append([x / split, y / split, min(score, 1.0)] if there else [0.0, 0.0, 0.0])
    total = sum(point[2] for point in kp)
    return [{"score": total / len(kp), "kp": kp}] if total > 0 else []


@dataclass(frozen=True)
class Case:
    """One golden file's recipe; ``offset`` is added to all values, as a softmax loss allows."""

    name: str
    skeleton: str
    size: tuple[int, int]  # pixels: width, height
    split: float
    layout: str
    seed: int
    absent: tuple[int, ...] = ()
    noise: float = 0.003
    offset: float = 0.0
    decode: dict[str, Any] = field(default_factory=dict)


CASES = (
    Case("coco17-noise", "coco17", (48, 64), 2.0, "NCW", 1, absent=(5,)),
    Case("mpii16-softmax", "mpii16", (64, 64), 2.0, "NWC", 2, offset=-0.3, noise=0.001,
         decode={"softmax_beta": 10.0, "score": "mean", "score_threshold": 0.01}),
    Case("crowdpose14-split", "crowdpose14", (65, 91), 1.5, "NCW", 3, noise=0.0,
         decode={"refine": "none", "split_ratio": 1.5}),
    Case("coco17-empty", "coco17", (48, 64), 2.0, "NWC", 4, absent=tuple(range(17))),
)  # fmt: skip


def write_case(case: Case, into: Path) -> None:
    """Renders, decodes and writes one case."""
    skeleton = json.loads((ROOT / f"posewire/skeletons/{case.skeleton}.json").read_text())
    count = len(skeleton["keypoints"])
    rng = np.random.default_rng(case.seed)
    arrays: dict[str, Array] = {}
    heights = rng.uniform(0.4, 1.05, count)
    for name, pixels in zip(("simcc_x", "simcc_y"), case.size, strict=True):
        bins = np.arange(int(np.around(pixels * case.split)))
        places = rng.uniform(2.0, pixels - 3.0, count) * case.split
        rows = heights[:, None] * np.exp(-((bins - places[:, None]) ** 2) / (2 * pixels / 8))
        rows[list(case.absent)] = 0.0
        rows += case.offset + rng.normal(0.0, case.noise, rows.shape)
        arrays[name] = rows.astype(np.float32)
    found = decode_rows(arrays["simcc_x"], arrays["simcc_y"], case.split, case.decode)
    manifest = {
        "schema": 1, "name": case.name, "version": "1", "mode": "top_down", "skeleton": skeleton,
        "input": {"name": "image", "width": case.size[0], "height": case.size[1],
                  "channels": "RGB", "resize": "letterbox"},
        "crop": {"padding": 1.25, "fit": "letterbox"},
        "outputs": [
            {"name": name, "channels": count, "length": rows.shape[1], "layout": case.layout}
            for name, rows in arrays.items()
        ],
        "decode": {"algorithm": "simcc", **case.decode},
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
    for name, rows in arrays.items():
        laid = rows if case.layout == "NCW" else rows.T
        (into / f"{case.name}.{name}.bin").write_bytes(laid.astype("<f4").tobytes())


def main() -> None:
    """Rewrites tests/golden/simcc."""
    for case in CASES:
        write_case(case, GOLDEN)


if __name__ == "__main__":
    main()
