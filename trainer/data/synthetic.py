# SPDX-License-Identifier: Apache-2.0
"""Drawn people with perfect labels: pictures, COCO-format data sets and clips.

Everything follows from a seed: the same seed draws the same pixels on the same machine. Labels
follow COCO's conventions: v 2 visible, 1 hidden (labelled all the same), 0 outside of the picture
or not on the figure; the far side of a face is left unlabelled, as annotators leave it. Area and
box are those of the visible pixels.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from posewire.errors import ExitCode
from posewire.skeleton import Skeleton, convert_keypoints, load_skeleton

from ..errors import TrainError
from .synthetic_background import background
from .synthetic_body import Build, figure_skeleton
from .synthetic_camera import Camera, Light
from .synthetic_faces import Faces
from .synthetic_motion import Action
from .synthetic_outfit import Outfit
from .synthetic_scene import (
    Drawn,
    Person,
    Scene,
    around,
    draw,
    finish_scene,
    make_scene,
    standing_at,
)

Progress = Callable[[int, int], None]  # done, total
Image = NDArray[np.uint8]


def render(
    rng: np.random.Generator, width: int, height: int, people: tuple[int, int] = (1, 5)
) -> tuple[Image, list[Drawn]]:
    """One random picture, uint8 RGB [height, width, 3], with ``people`` (least, most) in it.

    The keypoints of those that can be seen are in figure_skeleton's order, in pixels.
    """
    image, drawn = draw(make_scene(rng, width, height, people))
    return _as_by_a_camera(rng, image), drawn


def _as_by_a_camera(rng: np.random.Generator, image: Image) -> Image:
    """Lens blur, vignette, tone and sensor noise."""
    height, width = image.shape[:2]
    picture = image.astype(np.float32)
    if rng.random() < 0.5:
        blur = float(rng.uniform(0.3, 1.0))
        picture = np.asarray(cv2.GaussianBlur(picture, (0, 0), blur), np.float32)
    tone = 255 * (picture / 255) ** np.float32(rng.uniform(0.8, 1.25))
    contrast, cast = rng.uniform(0.8, 1.15), rng.normal(1.0, 0.03, 3).astype(np.float32)
    tone = ((tone - 118) * np.float32(contrast) + 118) * cast
    x = np.linspace(-1, 1, width, dtype=np.float32)[None]
    y = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    tone *= (1 - np.float32(rng.uniform(0, 0.16)) * (x**2 + y**2))[..., None]
    grain = rng.standard_normal((height, width, 1), np.float32) * np.float32(rng.uniform(0, 5))
    return np.clip(tone + grain, 0, 255).astype(np.uint8)


class _Labels:
    """Collects COCO's three lists."""

    def __init__(self, skeleton: Skeleton, info: dict[str, Any]) -> None:
        self.skeleton, self.figure = skeleton, figure_skeleton()
        self.images: list[dict[str, Any]] = []
        self.annotations: list[dict[str, Any]] = []
        self.info = info

    def add(self, name: str, image: Image, people: list[Drawn], **more: Any) -> None:
        number = len(self.images) + 1
        height, width = image.shape[:2]
        entry = {"id": number, "file_name": name, "width": width, "height": height, **more}
        self.images.append(entry)
        if not people:
            return
        figures = np.stack([person.keypoints for person in people])
        keypoints = convert_keypoints(figures, self.figure, self.skeleton)
        for person, points in zip(people, keypoints, strict=True):
            labelled = int((points[:, 2] > 0).sum())
            if labelled == 0:
                continue
            flat = [v for x, y, s in points.tolist() for v in (round(x, 2), round(y, 2), int(s))]
            self.annotations.append(
                {
                    "id": len(self.annotations) + 1,
                    "image_id": number,
                    "category_id": 1,
                    "keypoints": flat,
                    "num_keypoints": labelled,
                    "bbox": [round(value, 2) for value in person.box],
                    "area": round(person.area, 2),
                    "iscrowd": 0,
                    "segmentation": [],
                    "person": person.index,
                }
            )

    def save(self, path: Path) -> None:
        category = {
            "id": 1,
            "name": "person",
            "supercategory": "person",
            "keypoints": list(self.skeleton.keypoints),
            "skeleton": [[a + 1, b + 1] for a, b in self.skeleton.limbs],
        }
        data = {
            "info": self.info,
            "images": self.images,
            "annotations": self.annotations,
            "categories": [category],
        }
        aside = path.with_name(f".{path.name}.partial")
        aside.write_text(json.dumps(data), encoding="utf-8")
        os.replace(aside, path)


def render_many(
    count: int, seed: int, width: int, height: int, people: tuple[int, int] = (1, 5)
) -> Iterator[tuple[Image, list[Drawn]]]:
    """``count`` pictures; picture i depends on the seed and i alone."""
    for index in range(count):
        yield render(np.random.default_rng((seed, index)), width, height, people)


def render_dataset(
    out_dir: str | os.PathLike[str],
    count: int,
    seed: int,
    width: int,
    height: int,
    people: tuple[int, int] = (1, 5),
    skeleton: str = "coco17",
    progress: Progress | None = None,
) -> Path:
    """Draws a COCO-format data set: out_dir/images/000000.jpg … and out_dir/annotations.json.

    Returns the annotations' path; they are written last, so that a set that was interrupted has
    none. Raises TrainError (CANNOT_WRITE) where the file system refuses.
    """
    out = Path(out_dir)
    info = {
        "description": "drawn by posewire.trainer.data.synthetic",
        "seed": seed,
        "people": list(people),
    }
    labels = _Labels(load_skeleton(skeleton), info)
    try:
        (out / "images").mkdir(parents=True, exist_ok=True)
        for index, (image, drawn) in enumerate(render_many(count, seed, width, height, people)):
            name = f"{index:06d}.jpg"
            write_jpeg(out / "images" / name, image, quality=92)
            labels.add(name, image, drawn)
            if progress is not None:
                progress(index + 1, count)
        labels.save(out / "annotations.json")
    except OSError as error:
        raise TrainError(f"{out}: {error.strerror}", ExitCode.CANNOT_WRITE) from error
    return out / "annotations.json"


def write_jpeg(path: Path, image: Image, quality: int) -> None:
    """Writes an RGB picture. Raises OSError."""
    path.write_bytes(jpeg(image, quality))


def jpeg(image: Image, quality: int) -> bytes:
    """An RGB picture as the bytes of a JPEG file."""
    ok, data = cv2.imencode(
        ".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality]
    )
    if not ok:
        raise RuntimeError("OpenCV cannot encode JPEG")
    return data.tobytes()


SELFTEST_SEED = 20261120  # a series of its own: never calibration, never training


def selftest_pictures(
    count: int = 32, width: int = 320, height: int = 240
) -> Iterator[tuple[str, bytes]]:
    """The pictures a bundle carries for the agreement gate: names and JPEG bytes."""
    for index, (image, _) in enumerate(render_many(count, SELFTEST_SEED, width, height, (1, 4))):
        yield f"selftest-{index:02d}.jpg", jpeg(image, 85)


# --- clips ------------------------------------------------------------------------------------


def clip_scene(seed: int, width: int, height: int, people: int) -> Scene:
    """A quiet place seen from above eye level, where some walk about and others stand and wave."""
    rng = np.random.default_rng((seed, 1 << 20))
    camera = Camera(width, height, 0.92 * width, 2.1, float(np.deg2rad(9)))
    picture, ground = background(
        rng, camera, (-3.0, 3.0, 9.5), str(rng.choice(("room", "outdoors")))
    )
    doing = ("walk", "wave", "walk", "jumping_jack", "walk", "stand", "run", "arms_up")
    placed = []
    for index in range(people):
        name = doing[index % len(doing)]
        action = Action.random(rng, (name,))
        if action.speed:
            wide, deep = rng.uniform(1.2, 1.9), rng.uniform(0.35, 0.7)
            centre = np.array((rng.uniform(-0.5, 0.5), 0.0, -5.2 - 0.9 * index))
            way = action.speed * (1 if rng.random() < 0.5 else -1)
            path = around(centre, wide, deep, way, float(rng.uniform(0, 2 * np.pi)))
        else:
            spot = np.array((rng.uniform(0.9, 1.9) * (-1) ** (index // 2), 0.0, -4.6 - 0.5 * index))
            path = standing_at(spot, float(rng.normal(-0.3 * spot[0], 0.25)))
        placed.append(Person(Build.random(rng), Outfit.random(rng), action, path))
    light = Light.random(rng)
    return finish_scene(rng, camera, light, picture, ground, placed, Faces())


def render_clip(
    path: str | os.PathLike[str],
    seconds: float,
    fps: float,
    width: int,
    height: int,
    people: int,
    seed: int,
    skeleton: str = "coco17",
    progress: Progress | None = None,
) -> Path:
    """Draws a clip (MPEG-4 video in MP4) and its COCO-format annotations beside it.

    Image i + 1 of the annotations is frame i, with its "t_media_ms"; "person" in an annotation is
    the same number for the same person throughout. Returns the annotations' path.
    Raises TrainError (CANNOT_WRITE).
    """
    target = Path(path)
    scene = clip_scene(seed, width, height, people)
    info = {"description": "drawn by posewire.trainer.data.synthetic", "seed": seed, "fps": fps}
    labels = _Labels(load_skeleton(skeleton), info)
    aside = target.with_name(f".{target.stem}.partial.mp4")
    writer = cv2.VideoWriter(str(aside), cv2.VideoWriter.fourcc(*"mp4v"), fps, (width, height))
    if not writer.isOpened():
        raise TrainError(f"{target}: OpenCV cannot write this video", ExitCode.CANNOT_WRITE)
    total = round(seconds * fps)
    try:
        for index in range(total):
            image, drawn = draw(scene, index / fps)
            writer.write(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
            labels.add(f"frame-{index:06d}", image, drawn, t_media_ms=round(1000 * index / fps, 3))
            if progress is not None:
                progress(index + 1, total)
        writer.release()
        os.replace(aside, target)
        labels.save(target.with_suffix(".json"))
    except OSError as error:
        raise TrainError(f"{target}: {error.strerror}", ExitCode.CANNOT_WRITE) from error
    finally:
        writer.release()
        aside.unlink(missing_ok=True)
    return target.with_suffix(".json")
