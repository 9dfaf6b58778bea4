# SPDX-License-Identifier: Apache-2.0
"""Frames for ``posewire bench decode --inputs`` that --people does not draw.

``python tests/decode/stored_frames.py FORM FOLDER``: eight frames of ten people, with noise.

- the forms of ``center``: centernet and dekr at 512 x 512 (128 x 128 cells), rows and pairs at
  640 x 640 (8400 rows)
- ``pose_proposal`` at 384 x 384 (12 x 12 cells), people nearer than three cells: ten would find no
  room otherwise; keypoints that share a cell are lost, which costs no time
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from posewire.encode import ENCODERS, draw_people
from posewire.encode.center import FORMS
from posewire.skeleton import load_skeleton
from posewire.stored_outputs import write_frames

SIZES = {"centernet": 512, "dekr": 512, "rows": 640, "pairs": 640, "pose_proposal": 384}
NOISE = 0.01
PEOPLE, FRAMES = 10, 8


def main(form: str, folder: Path) -> None:
    """Writes the folder."""
    row = ENCODERS["pose_proposal"] if form == "pose_proposal" else FORMS[form]
    skeleton, side = load_skeleton("coco17"), SIZES[form]
    rng = np.random.default_rng(0)
    outputs = []
    for spec in row.outputs(skeleton, side, side):
        outputs.append({**spec, "layout": "NCW" if "length" in spec else "NCHW"})
    manifest = {
        "skeleton": skeleton.to_dict(),
        "input": {
            "name": "image", "width": side, "height": side, "channels": "RGB",
            "resize": "letterbox",
        },
        "outputs": outputs,
        "decode": {
            "algorithm": "pose_proposal" if form == "pose_proposal" else "center", **row.decode
        },
    }  # fmt: skip
    frames = []
    for n in range(FRAMES):
        apart = 34.0 if form == "pose_proposal" else 24.0
        people = draw_people(skeleton, side, side, PEOPLE, 0.38 * side, rng, apart)
        print(f"frame {n}: {len(people)} people")
        maps = row.render(people, skeleton, side, side)
        for values in maps.values():
            values += NOISE * rng.standard_normal(values.shape).astype(np.float32)
        frames.append((f"frame-{n:03d}", maps))
    write_frames(folder, manifest, frames)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
