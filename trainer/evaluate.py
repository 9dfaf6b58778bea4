# SPDX-License-Identifier: Apache-2.0
"""How good a run's averaged weights are, without exporting them first.

The network runs in Keras; letterbox, decoder and score are the device's own (posewire._core).
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import keras
import numpy as np

from posewire.decode import Decoder, Poses
from posewire.errors import ExitCode
from posewire.preprocess import letterbox
from posewire.score import coco_ap, load_labels, pck
from posewire.skeleton import Skeleton

from .algorithm import Algorithm
from .checkpoint import load_run
from .errors import TrainError


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
        "outputs": [spec.entry(width, height) for spec in algorithm.outputs],
        "decode": algorithm.decode_parameters(),
        "artifacts": [
            {
                "files": ["none.onnx"],
                "format": "onnx",
                "precision": "fp32",
                "input": {"layout": "NHWC", "dtype": "uint8"},
                "outputs": [
                    {"name": spec.name, "layout": "NHWC", "dtype": "float32"}
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
    width: int = 384,
    height: int = 384,
    ids: str = "all",
    weights: Path | None = None,
) -> dict[str, Any]:
    """COCO figures and PCK@0.2 of a run's averaged weights at one input size.

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
    manifest = decoder_manifest(config.name, network.skeleton, network.algorithm, width, height)
    decoder = Decoder(manifest)
    model = network.inference()
    poses = {}
    paths = labels.files(Path(images))
    for entry, path in zip(labels.images, paths, strict=True):
        poses[int(entry["id"])] = _estimate(model, decoder, path, width, height)
    score = coco_ap(labels, poses, network.skeleton)
    return {**asdict(score), "pck": pck(labels, poses, network.skeleton)}


def _estimate(model: keras.Model, decoder: Decoder, path: Path, width: int, height: int) -> Poses:
    image = cv2.imread(str(path), cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION)
    if image is None:
        raise TrainError(f"{path}: missing or not a picture", ExitCode.SOURCE)
    fitted, geometry = letterbox(np.asarray(image, np.uint8), width, height)
    maps = model(fitted[None].astype(np.float32), training=False)
    outputs = {name: keras.ops.convert_to_numpy(value)[0] for name, value in maps.items()}
    found = decoder.decode(outputs)
    points = np.array(found.keypoints)
    there = points[..., 2] > 0
    points[..., :2] = np.where(there[..., None], geometry.to_frame(points[..., :2]), 0.0)
    return Poses(found.scores, points)
