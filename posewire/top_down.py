# SPDX-License-Identifier: Apache-2.0
"""Top-down networks and detectors on whole pictures: boxes, crops, poses, and the AP of boxes.

A detector's decoded pose is its box (cpp/decode/center_rows.cpp): two keypoints, the top left and
the bottom right corner. A top-down network's picture is one person's crop: the box, cut off at the
picture's border, grown by the manifest's ``crop.padding`` and then to the input's aspect; what lies
outside of the picture is grey (114). Networks and decoders run in C++, as in score.py.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .decode import Poses
from .engine_core import core as engine_core
from .engine_core import engine_errors
from .manifest import Manifest
from .score import Labels
from .skeleton import Skeleton

PAD = 114  # as in the letterbox
_LEAST_PX = 1.0  # a box under this has no crop
# What a detector's poses are scored and drawn with; a mirrored box is another pair of corners, so
# nothing flips.
BOX = Skeleton("box", ("top_left", "bottom_right"), ((0, 1),), (0, 1), (0.1, 0.1))


@dataclass(frozen=True)
class Boxes:
    """The detections of one picture: float32 [N, 4] (left, top, width, height in frame pixels) and
    scores [N] in 0..1."""

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]

    def over(self, score: float) -> Boxes:
        """Those of at least that score."""
        kept = self.scores >= score
        return Boxes(self.boxes[kept], self.scores[kept])


@dataclass(frozen=True)
class BoxScore:
    """COCO's box figures of one category (0..1, -1 where no label counts)."""

    ap: float
    ap50: float
    ap75: float
    ap_medium: float
    ap_large: float
    ar: float
    images: int
    people: int
    found: int


def boxes_of(poses: Poses) -> Boxes:
    """A detector's poses as boxes."""
    corners = poses.keypoints[..., :2]
    sides = corners[:, 1] - corners[:, 0]
    both = np.concatenate([corners[:, 0], sides], axis=1)
    return Boxes(both.reshape(-1, 4).astype(np.float32), poses.scores)


def annotated_boxes(labels: Labels) -> dict[int, Boxes]:
    """The labels' own boxes by image id, of people with a labelled keypoint, each of score 1."""
    found: dict[int, list[list[float]]] = {int(image["id"]): [] for image in labels.images}
    for annotation in labels.data["annotations"]:
        if not annotation.get("iscrowd", 0) and any(annotation["keypoints"][2::3]):
            found[int(annotation["image_id"])].append(annotation["bbox"])
    return {
        image: Boxes(np.array(boxes, np.float32).reshape(-1, 4), np.ones(len(boxes), np.float32))
        for image, boxes in found.items()
    }


def crop_rectangle(
    box: Sequence[float] | NDArray[Any],
    frame: tuple[int, int],
    network: tuple[int, int],
    padding: float,
) -> tuple[int, int, int, int] | None:
    """(left, top, width, height) in frame pixels of a box's crop; it may reach out of the frame.

    ``frame`` and ``network`` are (width, height), ``padding`` the manifest's crop.padding. None for
    a box that has no area inside the frame.
    """
    left, top = max(float(box[0]), 0.0), max(float(box[1]), 0.0)
    right = min(float(box[0] + box[2]), float(frame[0]))
    bottom = min(float(box[1] + box[3]), float(frame[1]))
    # Not "<": a NaN fails this too.
    if not (right - left >= _LEAST_PX and bottom - top >= _LEAST_PX):
        return None
    width, height = (right - left) * padding, (bottom - top) * padding
    aspect = network[0] / network[1]
    width, height = max(width, height * aspect), max(height, width / aspect)
    whole = (max(1, round(width)), max(1, round(height)))
    corner = (round((left + right - whole[0]) / 2), round((top + bottom - whole[1]) / 2))
    return (*corner, *whole)


def cut(picture: NDArray[np.uint8], rectangle: tuple[int, int, int, int]) -> NDArray[np.uint8]:
    """The part of a picture [H, W, 3] in a rectangle, grey where there is none."""
    left, top, width, height = rectangle
    result = np.full((height, width, 3), PAD, np.uint8)
    rows = slice(max(top, 0), max(0, min(top + height, picture.shape[0])))
    columns = slice(max(left, 0), max(0, min(left + width, picture.shape[1])))
    inside = picture[rows, columns]
    y, x = rows.start - top, columns.start - left
    result[y : y + inside.shape[0], x : x + inside.shape[1]] = inside
    return result


def run_crops(
    bundle_dir: str | Path,
    manifest: Manifest,
    paths: Sequence[Path],
    boxes: Sequence[Boxes],
    progress: Callable[[int], None] | None = None,
    *,
    requests: int = 0,
    threads: int = 0,
) -> list[Poses]:
    """A compiled top-down bundle's poses of each picture's boxes, in frame pixels; a box in which
    nobody is found has none. ``boxes`` belong to ``paths`` one by one.

    A person's score is the mean of its keypoints' (docs/design.md 3.3), whatever the box's was.
    Raises PosewireError (SOURCE) for an unreadable picture.
    """
    with engine_errors():
        estimator = engine_core().Estimator(str(bundle_dir), requests, threads)

    network = (manifest.input.width, manifest.input.height)
    padding = manifest.crop.padding if manifest.crop is not None else 1.0

    def one(path: Path, found: Boxes) -> Poses:
        picture = engine_core().read_picture(str(path))
        scores, keypoints = [], []
        for box in found.boxes:
            frame = (picture.shape[1], picture.shape[0])
            rectangle = crop_rectangle(box, frame, network, padding)
            if rectangle is None:
                continue
            score, points = (np.array(part) for part in estimator.estimate(cut(picture, rectangle)))
            present = points[..., 2] > 0
            points[present, :2] += np.array(rectangle[:2], np.float32)
            scores.append(score)
            keypoints.append(points)
        if progress is not None:
            progress(1)
        count = manifest.skeleton.count if manifest.skeleton is not None else 0
        return Poses(
            np.concatenate([np.zeros(0, np.float32), *scores]),
            np.concatenate([np.zeros((0, count, 3), np.float32), *keypoints]),
        )

    with engine_errors(), ThreadPoolExecutor(max(1, estimator.requests)) as pool:
        return list(pool.map(one, paths, boxes))


def box_ap(labels: Labels, found: Mapping[int, Boxes]) -> BoxScore:
    """COCO AP of boxes (image id -> frame pixels) against all of the labels' boxes of their
    category, crowds ignored. A labelled picture that ``found`` lacks counts as empty."""
    annotations = [
        {**annotation, "id": i, "iscrowd": int(annotation.get("iscrowd", 0))}
        for i, annotation in enumerate(labels.data["annotations"], 1)
    ]
    data = {**labels.data, "annotations": annotations}
    detections = [
        {
            "id": 0,
            "image_id": image,
            "category_id": labels.category,
            "bbox": [float(side) for side in box],
            "area": float(box[2] * box[3]),
            "score": float(score),
            "iscrowd": 0,
        }
        for image, one in sorted(found.items())
        for box, score in zip(one.boxes, one.scores, strict=True)
    ]
    for i, detection in enumerate(detections, 1):
        detection["id"] = i
    with contextlib.redirect_stdout(io.StringIO()):
        module = import_module("pycocotools.coco")
        truth, given = module.COCO(), module.COCO()
        truth.dataset, given.dataset = data, {**data, "annotations": detections}
        truth.createIndex()
        given.createIndex()
        evaluation = import_module("pycocotools.cocoeval").COCOeval(truth, given, "bbox")
        evaluation.params.imgIds = sorted(int(image["id"]) for image in labels.images)
        evaluation.params.catIds = [labels.category]
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    stats = [float(value) for value in evaluation.stats]
    return BoxScore(
        ap=stats[0],
        ap50=stats[1],
        ap75=stats[2],
        ap_medium=stats[4],
        ap_large=stats[5],
        ar=stats[8],
        images=len(labels.images),
        people=sum(not annotation["iscrowd"] for annotation in annotations),
        found=len(detections),
    )
