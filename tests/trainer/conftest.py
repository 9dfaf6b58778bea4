# SPDX-License-Identifier: Apache-2.0
"""A tiny data set and configuration, so that these tests need no downloaded file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

COCO17 = 17

CONFIG = """
name = "tiny"
seed = 7
[input]
width = 64
height = 64
[model]
backbone = "mobilenetv1"
alpha = 0.25
[model.algorithm_options]
width = 16
refinements = 1
initial_blocks = 1
refinement_blocks = 1
[training]
batch = 2
log_steps = 1
picture_steps = 0
ema = 0.5
[training.schedule]
steps = 4
warmup_steps = 2
[[dataset]]
name = "dots"
annotations = "labels.json"
images = "images"
"""


def stick_person(left: float, top: float, size: float) -> list[float]:
    """Seventeen labelled keypoints on a grid inside a box; left and right differ."""
    points: list[float] = []
    for k in range(COCO17):
        points += [left + size * (0.1 + 0.2 * (k % 5)), top + size * (0.1 + 0.05 * k), 2]
    return points


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A folder with four pictures, labels.json and config.toml."""
    rng = np.random.default_rng(3)
    (tmp_path / "images").mkdir()
    images, annotations = [], []
    for i in range(1, 5):
        picture = rng.integers(0, 255, (80, 100, 3), np.uint8)
        cv2.imwrite(str(tmp_path / "images" / f"{i}.png"), picture)
        images.append({"id": i, "file_name": f"{i}.png", "width": 100, "height": 80})
        box = [10.0 + i, 8.0, 50.0, 60.0]
        annotations.append(
            {
                "id": i,
                "image_id": i,
                "category_id": 1,
                "iscrowd": 0,
                "bbox": box,
                "area": 3000.0,
                "keypoints": stick_person(10.0 + i, 8.0, 50.0),
                "num_keypoints": COCO17,
            }
        )
    write_labels(tmp_path / "labels.json", images, annotations)
    (tmp_path / "config.toml").write_text(CONFIG, encoding="utf-8")
    return tmp_path


def write_labels(path: Path, images: list[dict[str, object]], annotations: list[object]) -> None:
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": []}))


@pytest.fixture
def edit(tiny: Path) -> Callable[[str, str], Path]:
    """Replaces text in the tiny configuration and returns its path."""

    def change(old: str, new: str) -> Path:
        path = tiny / "config.toml"
        text = path.read_text(encoding="utf-8")
        assert old in text
        path.write_text(text.replace(old, new, 1), encoding="utf-8")
        return path

    return change
