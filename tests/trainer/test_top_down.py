# SPDX-License-Identifier: Apache-2.0
"""Top-down training: crops are those of inference, and a run learns, resumes and is evaluated."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from posewire.trainer.config import AugmentConfig, load_config, parse_config
from posewire.trainer.data.augment import CUT_AWAY
from posewire.trainer.data.coco import Picture
from posewire.trainer.data.crops import crop_matrix, make_crop, one_by_one
from posewire.trainer.data.loader import Loader
from posewire.trainer.data.synthetic import render_dataset
from posewire.trainer.errors import TrainError
from posewire.trainer.evaluate import evaluate_run
from posewire.trainer.train import train

from posewire.preprocess import letterbox
from posewire.skeleton import load_skeleton
from posewire.top_down import crop_rectangle
from posewire.top_down import cut as cut_out

pytest.importorskip("posewire._core", reason="the engine's Python module is not built")

C17 = load_skeleton("coco17")
SIZE = (96, 128)
NOTHING = AugmentConfig(
    size=(1.0, 1.0), rotate_deg=0.0, flip=0.0, shift=0.0, half_body=0.0,
    colour=0.0, grey=0.0, blur=0.0, noise=0.0,
)  # fmt: skip
BOXES = [
    (100.0, 60.0, 91.0, 151.0),
    (-20.0, 150.5, 120.0, 200.0),  # over the border
    (300.0, 20.0, 90.0, 30.0),  # wide
    (200.3, 100.7, 11.0, 17.0),  # enlarged
]


class Photo(Picture):
    """Smooth colours, so that resampling twice costs little."""

    def read(self) -> Any:
        rng = np.random.default_rng(2)
        small = rng.integers(0, 255, (12, 16, 3), np.uint8)
        return cv2.resize(small, (400, 300), interpolation=cv2.INTER_CUBIC)


def photo(box: tuple[float, ...], people: int = 1) -> Photo:
    left, top, width, height = box
    rng = np.random.default_rng(7)
    points = rng.random((people, 17, 3)).astype(np.float32)
    points[..., :2] = points[..., :2] * (width - 1, height - 1) + (left, top)
    points[..., 2] = 2
    corners = np.float32([[left, top, left + width - 1, top + height - 1]] * people)
    wider = corners + np.float32([-9, -9, 9, 9])
    return Photo(Path("none"), 1, points, wider, np.zeros((0, 4), np.float32), None, corners)


def crop(picture: Picture, config: AugmentConfig, seed: int = 0) -> Any:
    return make_crop(np.random.default_rng(seed), lambda _: picture, C17, SIZE, 8, config)


@pytest.mark.parametrize("box", BOXES)
def test_an_unchanged_crop_is_inferences(box: tuple[float, ...]) -> None:
    """The same pixels as cut and letterboxed by the engine, keypoints where its map puts them."""
    picture = photo(box)
    sample = crop(picture, NOTHING)
    image = picture.read()
    rectangle = crop_rectangle(box, (400, 300), SIZE, 1.25)
    assert rectangle is not None
    fitted, geometry = letterbox(cut_out(image, rectangle), *SIZE)
    difference = np.abs(sample.image.astype(int) - fitted.astype(int))
    assert np.median(difference) <= 1
    assert difference.mean() < 2.5  # the padding's edge is blurred otherwise
    wanted = geometry.to_network(picture.keypoints[0, :, :2] - np.float32(rectangle[:2]))
    there = sample.keypoints[0, :, 2] > 0
    assert there.sum() >= 8
    np.testing.assert_allclose(sample.keypoints[0, there, :2], wanted[there], atol=2e-3)
    assert (sample.mask == 1).all()


def test_the_map_is_the_letterboxs_for_any_rectangle() -> None:
    rng = np.random.default_rng(1)
    for _ in range(50):
        box = np.float32([*rng.uniform(0, 150, 2), *rng.uniform(2, 150, 2)])
        network = (32 * int(rng.integers(1, 9)), 32 * int(rng.integers(1, 9)))
        matrix = crop_matrix(box, (400, 300), network)
        rectangle = crop_rectangle(box, (400, 300), network, 1.25)
        assert matrix is not None
        assert rectangle is not None
        _, geometry = letterbox(np.zeros((rectangle[3], rectangle[2], 3), np.uint8), *network)
        for x, y in ((0.0, 0.0), (399.0, 299.0)):
            wanted = geometry.to_network(np.float64([x - rectangle[0], y - rectangle[1]]))
            np.testing.assert_allclose(matrix @ (x, y, 1), wanted, atol=1e-2)
    assert crop_matrix(np.float32([500, 10, 20, 20]), (400, 300), (96, 128)) is None


@pytest.mark.parametrize("seed", range(8))
def test_keypoints_follow_their_pixels(seed: int) -> None:
    """Under everything that AugmentConfig does: each keypoint is a dot of its own grey."""
    picture = photo((100.0, 60.0, 120.0, 160.0))
    for k in range(17):
        picture.keypoints[0, k] = (115 + 25 * (k % 4), 75 + 33 * (k // 4), 2)

    class Dots(Photo):
        def read(self) -> Any:
            image = np.zeros((300, 400, 3), np.uint8)
            for k, (x, y, _) in enumerate(self.keypoints[0]):
                cv2.circle(image, (int(x), int(y)), 6, (60 + 10 * k,) * 3, -1)
            return image

    dots = Dots(**{name: getattr(picture, name) for name in picture.__dataclass_fields__})
    changes = {"colour": 0.0, "grey": 0.0, "blur": 0.0, "noise": 0.0, "flip": 1.0}
    config = AugmentConfig(**changes, half_body=0.5).of("top_down")
    sample = crop(dots, config, seed)
    known = sample.keypoints[0, :, 2] > 0
    assert known.sum() >= 4
    assert (sample.keypoints[0, ~known] == (0, 0, CUT_AWAY)).all()
    for k in np.flatnonzero(known):
        x, y, _ = sample.keypoints[0, k]
        # A mirrored person's left wrist is where the picture shows the right one.
        assert abs(int(sample.image[round(y), round(x), 0]) - (60 + 10 * C17.flips[k])) <= 6


def test_half_a_body_is_a_larger_half() -> None:
    whole = crop(photo((100.0, 20.0, 80.0, 250.0)), NOTHING)
    half = crop(photo((100.0, 20.0, 80.0, 250.0)), replaced(NOTHING, half_body=1.0))
    assert (whole.keypoints[0, :, 2] > 0).all()
    shown = half.keypoints[0, :, 2] > 0
    assert 4 <= shown.sum() < 17
    one, other = (np.ptp(s.keypoints[0, shown, 1]) for s in (whole, half))
    assert other > 1.4 * one


def replaced(config: AugmentConfig, **changes: Any) -> AugmentConfig:
    return config.model_copy(update=changes)


def test_people_come_one_by_one() -> None:
    crowd = replace(
        photo(BOXES[0], people=3),
        ignore=np.float32([[0, 0, 50, 50]]),
        believe=np.float32([[0, 0, 9, 9]]),
    )
    crowd.keypoints[1] = 0  # nobody labelled it
    people = one_by_one([crowd], "dataset x")
    assert [one.keypoints[0, 0, 0] for one in people] == [
        crowd.keypoints[0, 0, 0],
        crowd.keypoints[2, 0, 0],
    ]
    assert all(len(one.boxes) == 1 and not len(one.ignore) for one in people)
    assert (crop(people[0], NOTHING).mask == 1).all()
    crowd.keypoints[:] = 0
    with pytest.raises(TrainError, match="dataset x: nobody has a labelled keypoint"):
        one_by_one([crowd], "dataset x")


def test_a_box_outside_its_picture_is_an_error_not_a_loop() -> None:
    with pytest.raises(TrainError, match="none: no box has an area inside its picture"):
        crop(photo((500.0, 10.0, 50.0, 50.0)), NOTHING)


def test_keys_of_the_other_mode_are_refused() -> None:
    with pytest.raises(TrainError, match=r"augment\.mosaic: must be 0 for a top_down algorithm"):
        AugmentConfig(mosaic=0.25).of("top_down")
    with pytest.raises(TrainError, match=r"augment\.half_body: must be 0 for a bottom_up"):
        AugmentConfig(half_body=0.2).of("bottom_up")
    given = AugmentConfig(mosaic=0.0, size=(0.9, 1.1)).of("top_down")
    assert given.size == (0.9, 1.1)
    assert given.half_body > 0


# --- a run ------------------------------------------------------------------------------------

CONFIG = """
name = "tiny-NAME"
seed = 7
[input]
width = 64
height = 96
[model]
algorithm = "NAME"
backbone = "mobilenetv1"
alpha = 0.25
[model.algorithm_options]
width = 16
blocks = 1
[training]
batch = 4
learning_rate = 5e-3
backbone_factor = 1.0
log_steps = 1
picture_steps = 0
ema = 0.5
[training.schedule]
steps = 25
warmup_steps = 2
[augment]
size = [0.9, 1.1]
[[dataset]]
name = "drawn"
annotations = "annotations.json"
images = "images"
"""


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drawn")
    render_dataset(folder, 2, 5, 200, 160, people=(1, 2))
    return folder


def test_a_run_learns_and_is_evaluated_on_annotated_boxes(drawn: Path, tmp_path: Path) -> None:
    """Of heatmaps; tests/export/test_export_top_down.py trains a simcc."""
    config = drawn / "heatmap.toml"
    config.write_text(CONFIG.replace("NAME", "heatmap"), encoding="utf-8")
    run = tmp_path / "run"
    train(config, run, quiet=True)
    rows = [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]
    losses = [row["heatmaps"] / row["heatmaps_zero"] for row in rows]
    assert np.isfinite(losses).all()
    assert np.mean(losses[-5:]) < 0.95 * np.mean(losses[:2])
    figures = evaluate_run(run, drawn / "annotations.json", drawn / "images")
    data = json.loads((drawn / "annotations.json").read_text())
    assert figures["images"] == 2
    assert figures["people"] == len(data["annotations"])
    assert figures["found"] <= figures["people"]
    assert 0 <= figures["ap"] <= 1


def test_samples_are_a_function_of_seed_and_index(drawn: Path) -> None:
    config = parse_config(CONFIG.replace("NAME", "simcc"), "config.toml")
    one, other = (Loader(config, drawn, C17, "top_down") for _ in range(2))
    first, again = one.sample(3), other.sample(3)
    np.testing.assert_array_equal(first.image, again.image)
    np.testing.assert_array_equal(first.keypoints, again.keypoints)
    assert first.image.shape == (96, 64, 3)
    assert (one.sample(4).image != first.image).any()
    batch = one.batch(0)
    assert batch.labels["keypoints"].shape == (4, 1, 17, 3)
    assert batch.labels["boxes"].shape == (4, 1, 4)
    assert batch.labels["mask"].shape == (4, 12, 8)
    people = len(json.loads((drawn / "annotations.json").read_text())["annotations"])
    assert one.pictures == people


def test_the_shipped_configurations_are_top_down() -> None:
    folder = Path(__file__).parents[2] / "trainer" / "configs"
    for name in ("heatmap", "simcc"):
        config = load_config(folder / f"coco17_{name}.toml")
        assert (config.input.width, config.input.height) == (192, 256)
        assert config.augment.of("top_down").mosaic == 0
