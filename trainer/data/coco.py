# SPDX-License-Identifier: Apache-2.0
"""COCO-format data sets of any skeleton, as labels of the model's skeleton.

What is not labelled is not known: a keypoint with v = 0 stays 0 (the loss is masked in that
person's box), a person without any keypoint and a crowd are boxes where nothing is known.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from posewire.errors import ExitCode
from posewire.skeleton import Skeleton, convert_keypoints, load_skeleton

from ..config import DatasetConfig, find_path
from ..errors import TrainError

Floats = NDArray[np.float32]
Image = NDArray[np.uint8]


@dataclass(frozen=True)
class Picture:
    """One labelled picture, coordinates in its own pixels (index coordinates)."""

    path: Path
    image_id: int
    keypoints: Floats  # [N, K, 3] x, y, v of the model's skeleton
    boxes: Floats  # [N, 4] left, top, right, bottom of those people
    ignore: Floats  # [M, 4] boxes where nothing is known
    believe: Floats | None  # [B, 4]: labels hold only inside these; None: everywhere
    annotated: Floats | None = None  # [N, 4] boxes as they were annotated; None: as ``boxes``

    def read(self) -> Image:
        """The pixels, RGB uint8 [H, W, 3], as stored (labels ignore EXIF too).

        Raises TrainError (SOURCE) naming the file.
        """
        flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
        image = cv2.imread(str(self.path), flags)
        if image is None:
            raise TrainError(f"{self.path}: missing or not a picture", ExitCode.SOURCE)
        return np.asarray(image, np.uint8)


def load_dataset(config: DatasetConfig, folder: Path, target: Skeleton) -> list[Picture]:
    """The pictures of one ``[[dataset]]`` in the order of their ids.

    ``folder`` is the configuration's. Raises TrainError naming the file and what is wrong in it.
    """
    annotations = find_path(config.annotations, folder, f"dataset {config.name}: annotations")
    images = find_path(config.images, folder, f"dataset {config.name}: images")
    try:
        data = json.loads(annotations.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise TrainError(f"{annotations}: not JSON: {error}", ExitCode.SOURCE) from error
    try:
        pictures = _pictures(data, config, images, load_skeleton(config.skeleton), target)
    except (KeyError, TypeError, IndexError) as error:
        raise TrainError(
            f"{annotations}: not COCO person keypoints: {type(error).__name__} {error}",
            ExitCode.SOURCE,
        ) from error
    except ValueError as error:
        raise TrainError(f"{annotations}: {error}", ExitCode.SOURCE) from error
    if not pictures:
        raise TrainError(f"{annotations}: dataset {config.name}: no picture left", ExitCode.SOURCE)
    return pictures


def _pictures(
    data: dict[str, Any], config: DatasetConfig, images: Path, source: Skeleton, target: Skeleton
) -> list[Picture]:
    people: dict[int, list[dict[str, Any]]] = {}
    for annotation in data["annotations"]:
        people.setdefault(annotation["image_id"], []).append(annotation)
    pictures = []
    for image in sorted(data["images"], key=lambda entry: int(entry["id"])):
        number = int(image["id"])
        if config.ids != "all" and number % 2 != ("even", "odd").index(config.ids):
            continue
        if any(image.get(key) for key in config.skip):
            continue
        path = images / image["file_name"]
        pictures.append(_picture(path, number, people.get(number, []), config, source, target))
    return pictures


def _picture(
    path: Path,
    number: int,
    annotations: list[dict[str, Any]],
    config: DatasetConfig,
    source: Skeleton,
    target: Skeleton,
) -> Picture:
    labelled, boxes, ignore = [], [], []
    for annotation in annotations:
        left, top, width, height = annotation["bbox"]
        box = (left, top, left + width - 1.0, top + height - 1.0)
        points = np.array(annotation.get("keypoints") or [], np.float32)
        if annotation.get("iscrowd") or not points.size or not np.any(points[2::3] > 0):
            ignore.append(box)
            continue
        if points.size != 3 * source.count:
            raise ValueError(
                f"annotation {annotation.get('id')}: {points.size} numbers in keypoints, "
                f"but {source.name} has {source.count} keypoints"
            )
        labelled.append(points.reshape(source.count, 3))
        boxes.append(box)
    shape = (len(labelled), source.count, 3)
    keypoints = convert_keypoints(np.array(labelled, np.float32).reshape(shape), source, target)
    people = np.array(boxes, np.float32).reshape(-1, 4)
    annotated = people.copy()
    seen = keypoints[..., 2] > 0
    for i in np.flatnonzero(seen.any(axis=1)):  # labels may reach out of their box
        points = keypoints[i, seen[i], :2]
        people[i, :2] = np.minimum(people[i, :2], points.min(axis=0))
        people[i, 2:] = np.maximum(people[i, 2:], points.max(axis=0))
    return Picture(
        path,
        number,
        keypoints,
        people,
        np.array(ignore, np.float32).reshape(-1, 4),
        people if config.outside_boxes == "unknown" else None,
        annotated,
    )
