# SPDX-License-Identifier: Apache-2.0
"""Makes the clip that scripts/demo.sh shows by default, as H.264 through the ffmpeg program:

python -m posewire.trainer.data.synthetic_demo posewire/assets/demo.mp4
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import cv2

from posewire.errors import ExitCode, PosewireError

from ..errors import TrainError
from .synthetic import clip_scene
from .synthetic_scene import draw

SEED, PEOPLE = 11, 4
WIDTH, HEIGHT, FPS, SECONDS = 640, 360, 25, 13
MOST_BYTES = 1_500_000


def make(target: Path) -> int:
    """Draws the clip into ``target`` and returns its size in bytes. Raises TrainError."""
    if shutil.which("ffmpeg") is None:
        raise TrainError("ffmpeg is not installed", ExitCode.UNAVAILABLE)
    scene = clip_scene(SEED, WIDTH, HEIGHT, PEOPLE)
    with tempfile.TemporaryDirectory(prefix="posewire-demo-", dir=target.parent) as folder:
        made = Path(folder) / "demo.mp4"
        command = f"ffmpeg -v error -y -f rawvideo -pix_fmt bgr24 -s {WIDTH}x{HEIGHT} -r {FPS} -i -"
        command += " -c:v libx264 -preset slow -crf 25 -g 50 -pix_fmt yuv420p"
        command += f" -movflags +faststart -bitexact {made}"
        with subprocess.Popen(command.split(), stdin=subprocess.PIPE) as encoder:
            assert encoder.stdin is not None
            for index in range(SECONDS * FPS):
                image, _ = draw(scene, index / FPS)
                encoder.stdin.write(cv2.cvtColor(image, cv2.COLOR_RGB2BGR).tobytes())
            encoder.stdin.close()
        if encoder.returncode != 0:
            raise TrainError(f"{target}: ffmpeg failed", ExitCode.CANNOT_WRITE)
        size = made.stat().st_size
        if size > MOST_BYTES:
            raise TrainError(f"{target}: {size} bytes are more than {MOST_BYTES}", ExitCode.NO)
        os.replace(made, target)
    return size


def main(arguments: list[str]) -> int:
    """The program: one argument, where the clip goes."""
    try:
        print(f"{arguments[0]}: {make(Path(arguments[0]))} bytes")
    except PosewireError as error:
        print(f"posewire: {error}", file=sys.stderr)
        return int(error.code)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
