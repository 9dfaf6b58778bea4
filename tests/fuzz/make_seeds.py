# SPDX-License-Identifier: Apache-2.0
"""Rewrites tests/fuzz/seeds: small valid inputs from which the fuzzers start."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
DTYPES = ("uint8", "int8", "float16", "float32")  # DType's order


def triangle(height: int, width: int) -> np.ndarray:
    """Three keypoints and their three limbs, as tests/fuzz/fuzz_paf.cpp's skeleton: [9, H, W]."""
    spots = np.array([[2.3, 2.1], [width - 3.2, 3.4], [width / 2, height - 3.3]])
    ys, xs = np.mgrid[0:height, 0:width]
    maps = np.zeros((9, height, width))
    for k, (x, y) in enumerate(spots):
        maps[k] = np.exp(-0.5 * ((xs - x) ** 2 + (ys - y) ** 2))
    for limb, (a, b) in enumerate(((0, 1), (1, 2), (2, 0))):
        vector = spots[b] - spots[a]
        length = np.hypot(*vector)
        unit = vector / length
        along = (xs - spots[a][0]) * unit[0] + (ys - spots[a][1]) * unit[1]
        across = (xs - spots[a][0]) * unit[1] - (ys - spots[a][1]) * unit[0]
        on = (np.abs(across) <= 1) & (along >= -1) & (along <= length + 1)
        maps[3 + 2 * limb], maps[4 + 2 * limb] = on * unit[0], on * unit[1]
    return maps


def main() -> None:
    """One seed per element type and layout, and the golden manifests."""
    paf = HERE / "seeds" / "paf"
    paf.mkdir(parents=True, exist_ok=True)
    for index, dtype in enumerate(DTYPES):
        for layout in (0, 1):
            height, width = 10 + index, 13
            maps = triangle(height, width)
            if dtype.endswith("int8"):
                maps = np.clip(np.rint(maps * 100) + (100 if dtype == "uint8" else 0), -128, 255)
            parts = [maps[:3], maps[3:]]
            if layout:
                parts = [part.transpose(1, 2, 0) for part in parts]
            body = b"".join(part.astype(dtype).tobytes() for part in parts)
            header = bytes([height - 2, width - 2, index + 4 * 15, layout])
            (paf / f"{dtype}-{'nhwc' if layout else 'nchw'}").write_bytes(header + body)
    opening = HERE / "seeds" / "open"
    opening.mkdir(parents=True, exist_ok=True)
    for path in sorted((HERE.parent / "golden").glob("*/*.json")):
        golden = json.loads(path.read_text())
        if "manifest" in golden:
            (opening / path.stem).write_text(json.dumps(golden["manifest"]))


if __name__ == "__main__":
    main()
