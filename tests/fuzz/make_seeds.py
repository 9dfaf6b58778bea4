# SPDX-License-Identifier: Apache-2.0
"""Writes a folder of seeds per fuzz target, from tests/golden: make_seeds.py FOLDER.

fuzz_open gets every golden manifest; fuzz_<row> its golden frames, once per element type, and a few
hostile patterns. The form of a row's input stands on top of fuzz_row.cpp. No numpy: scripts/fuzz.sh
runs this with any Python.
"""

from __future__ import annotations

import json
import struct
import sys
from array import array
from pathlib import Path

GOLDEN = Path(__file__).resolve().parent.parent / "golden"
UINT8, INT8, FLOAT16, FLOAT32 = range(4)  # DType's order
SIZES = 4
HALF_MOST = 65504.0
# As float32: what a network never says, and what makes a peak in every other cell.
PATTERNS = {
    "peaks": (0.9, 0.1),
    "ramp": tuple(i / 64 for i in range(64)),
    "not-finite": (float("nan"), 0.5, float("inf"), 0.9, float("-inf")),
    "huge": (3e38, -3e38, 1e-45, 0.7),
}


def quantisation(most: float) -> tuple[int, int]:
    """The second byte of an output for values up to ``most``, and its scale as a power of two."""
    scale = 0
    while scale < 15 and 2.0 ** (scale - 9) * 127 < most:
        scale += 1
    return scale | 8 << 4, scale - 9  # zero point 17 * 8 = 136 (uint8), 8 (int8)


def stored(values: array[float], dtype: int, power: int) -> bytes:
    """float32 values in another element type."""
    if dtype == FLOAT32:
        return values.tobytes()
    if dtype == FLOAT16:
        held = (max(-HALF_MOST, min(HALF_MOST, value)) for value in values)
        return struct.pack(f"<{len(values)}e", *held)
    low, high, zero = (0, 255, 136) if dtype == UINT8 else (-128, 127, 8)
    whole = (max(low, min(high, round(value / 2.0**power) + zero)) for value in values)
    return struct.pack(f"{len(values)}{'B' if dtype == UINT8 else 'b'}", *whole)


def golden_seeds(path: Path, case: int) -> dict[str, bytes]:
    """One golden case in every element type, in its own layout and size."""
    outputs = []
    for output in json.loads(path.read_text())["manifest"]["outputs"]:
        values = array("f")
        values.frombytes(path.with_name(f"{path.stem}.{output['name']}.bin").read_bytes())
        outputs.append(values)
    seeds = {}
    for dtype, name in enumerate(("uint8", "int8", "float16", "float32")):
        header, body = bytearray([case << 2 & 255]), bytearray()
        for values in outputs:
            byte, power = quantisation(max(map(abs, values), default=1.0))
            header += bytes([dtype, byte])
            body += stored(values, dtype, power)
        seeds[f"{path.stem}-{name}"] = bytes(header + body)
    for name, pattern in PATTERNS.items():
        for size in range(SIZES):  # the small ones are quick: the fuzzer likes them
            header = bytes([case << 2 & 255 | size]) + bytes([FLOAT32, 0]) * len(outputs)
            seeds[f"{path.stem}-{name}-{size}"] = header + array("f", pattern).tobytes()
    return seeds


def main() -> int:
    """Exit code 64 without the folder's name."""
    if len(sys.argv) != 2:
        print("usage: make_seeds.py FOLDER", file=sys.stderr)
        return 64
    seeds: dict[str, dict[str, bytes]] = {"fuzz_open": {}}
    for row in sorted(path for path in GOLDEN.iterdir() if path.is_dir()):
        paths = sorted(path for path in row.glob("*.json"))
        for case, path in enumerate(paths):
            golden = json.loads(path.read_text())
            if "manifest" not in golden:
                continue
            text = json.dumps(golden["manifest"])
            seeds["fuzz_open"][f"{row.name}-{path.stem}"] = text.encode()
            if "people" in golden:  # a decoder's
                seeds.setdefault(f"fuzz_{row.name}", {}).update(golden_seeds(path, case))
    for target, files in seeds.items():
        folder = Path(sys.argv[1]) / target
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in files.items():
            (folder / name).write_bytes(data)
    return 0


if __name__ == "__main__":
    sys.exit(main())
