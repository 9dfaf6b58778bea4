# SPDX-License-Identifier: Apache-2.0
"""How good a run's averaged weights are, without exporting them first.

The network runs in Keras; letterbox, decoder and score are the device's own (posewire._core).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import keras
import numpy as np
from numpy.typing import NDArray

from posewire.decode import Decoder, Poses
from posewire.errors import ExitCode
from posewire.preprocess import letterbox
from posewire.score import coco_ap, load_labels, pck
from posewire.skeleton import Skeleton
from posewire.top_down import Boxes, annotated_boxes, crop_rectangle, cut

from .algorithm import CROP_PADDING, Algorithm
from .checkpoint import load_run
from .errors import TrainError
from .model import check_size

Picture = NDArray[np.uint8]


def decoder_manifest(
    name: str, skeleton: Skeleton, algorithm: Algorithm, width: int, height: int
) -> dict[str, Any]:
    """The parts of a manifest that a decoder reads, for a network that is not exported yet."""
    return {
        "schema": 1,
        "name": name,
        "version": "0.0.0",
        "mode": algorithm.mode,
        "skeleton": skeleton.to_dict(),
        "input": {
            "name": "image",
            "width": width,
            "height": height,
            "channels": "RGB",
            "resize": "letterbox",
        },
        **algorithm.crop,
        "outputs": [spec.entry(width, height) for spec in algorithm.outputs],
        "decode": algorithm.decode_parameters(),
        "artifacts": [
            {
                "files": ["none.onnx"],
                "format": "onnx",
                "precision": "fp32",
                "input": {"layout": "NHWC", "dtype": "uint8"},
                "outputs": [
                    {"name": spec.name, "layout": spec.layout(True), "dtype": "float32"}
                    for spec in algorithm.outputs
                ],
            }
        ],
        "target": None,
        "gate": None,
        "files": {"none.onnx": {"sha256": "0" * 64, "bytes": 1}},
    }


def evaluate_run(
    run: Path | str,
    annotations: Path | str,
    images: Path | str,
    *,
    width: int | None = None,
    height: int | None = None,
    ids: str = "all",
    weights: Path | None = None,
) -> dict[str, Any]:
    """COCO figures and PCK@0.2 of a run's averaged weights at one input size.

    The size is 384 x 384 unless given, of a top-down network that of its training. A top-down
    network gets the annotated boxes' crops: its figures say nothing of a detector.
    ``ids`` "even" or "odd" scores only pictures with such an id, the rule of the configuration's
    data sets. Raises PosewireError naming what is missing.
    """
    config, network = load_run(Path(run), weights)
    labels = load_labels(Path(annotations))
    if ids != "all":
        keep = [i for i in labels.images if int(i["id"]) % 2 == ("even", "odd").index(ids)]
        numbers = {i["id"] for i in keep}
        people = [a for a in labels.data["annotations"] if a["image_id"] in numbers]
        labels.data["images"][:] = keep
        labels.data["annotations"][:] = people
    top_down = network.algorithm.mode == "top_down"
    usual = (config.input.width, config.input.height) if top_down else (384, 384)
    size = (width or usual[0], height or usual[1])
    check_size(network, *size, "evaluate")
    manifest = decoder_manifest(config.name, network.skeleton, network.algorithm, *size)
    decoder, count = Decoder(manifest), network.skeleton.count
    estimate = _Estimate(network.inference(), decoder, size, count)
    boxes = annotated_boxes(labels) if top_down else {}
    poses = {}
    paths = labels.files(Path(images))
    for entry, path in zip(labels.images, paths, strict=True):
        number = int(entry["id"])
        picture = _read(path)
        poses[number] = (
            estimate.crops(picture, boxes[number]) if top_down else estimate.whole(picture)
        )
    score = coco_ap(labels, poses, network.skeleton)
    return {**asdict(score), "pck": pck(labels, poses, network.skeleton)}


def _read(path: Path) -> Picture:
    image = cv2.imread(str(path), cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION)
    if image is None:
        raise TrainError(f"{path}: missing or not a picture", ExitCode.SOURCE)
    return np.asarray(image, np.uint8)


@dataclass(frozen=True)
class _Estimate:
    """A Keras network and its decoder, at one size (width, height)."""

    model: keras.Model
    decoder: Decoder
    size: tuple[int, int]
    keypoints: int  # of a pose

    def whole(self, picture: Picture) -> Poses:
        """The poses of a picture, in its pixels."""
        fitted, geometry = letterbox(picture, *self.size)
        maps = self.model(fitted[None].astype(np.float32), training=False)
        outputs = {name: keras.ops.convert_to_numpy(value)[0] for name, value in maps.items()}
        found = self.decoder.decode(outputs)
        points = np.array(found.keypoints)
        there = points[..., 2:] > 0
        points[..., :2] = np.where(there, geometry.to_frame(points[..., :2]), 0.0)
        return Poses(found.scores, points)

    def crops(self, picture: Picture, boxes: Boxes) -> Poses:
        """The poses of a picture's boxes, each cut out as posewire/top_down.py does."""
        frame = (picture.shape[1], picture.shape[0])
        scores = [np.zeros(0, np.float32)]
        points = [np.zeros((0, self.keypoints, 3), np.float32)]
        for box in boxes.boxes:
            rectangle = crop_rectangle(box, frame, self.size, CROP_PADDING)
            if rectangle is None:
                continue
            found = self.whole(cut(picture, rectangle))
            moved = np.array(found.keypoints)
            moved[..., :2] += np.array(rectangle[:2], np.float32) * (moved[..., 2:] > 0)
            scores.append(found.scores)
            points.append(moved)
        return Poses(np.concatenate(scores), np.concatenate(points))
