# SPDX-License-Identifier: Apache-2.0
"""A training run's configuration, read from TOML.

Every key is checked: an unknown, missing or wrong one raises TrainError naming file, line and key
("coco17_paf.toml:14: training.batch: Input should be greater than 0"). Relative paths are looked
for beside the configuration, then under the folder that POSEWIRE_DATA names.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal

import tomllib
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from posewire.errors import ExitCode

from .errors import TrainError

DATA_VARIABLE = "POSEWIRE_DATA"

Positive = Annotated[float, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(gt=0)]


class _Table(BaseModel):
    """A TOML table: unknown keys are errors, values never change, "1" is not a number."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class InputConfig(_Table):
    """The size of the training pictures in pixels, multiples of 32."""

    width: Annotated[int, Field(gt=0, multiple_of=32)] = 192
    height: Annotated[int, Field(gt=0, multiple_of=32)] = 192


class ModelConfig(_Table):
    """Which algorithm on which backbone; ``algorithm_options`` are checked by the algorithm."""

    algorithm: str = "paf"
    backbone: str = "mobilenetv2"
    alpha: Positive = 1.0  # width of the backbone
    weights: str | None = None  # .weights.h5 of keras.applications, without the top
    frozen_blocks: Annotated[int, Field(ge=0)] = 0  # the first blocks are not trained
    initial: str | None = None  # network weights of an earlier run to start from
    algorithm_options: dict[str, Any] = Field(default_factory=dict)


class ScheduleConfig(_Table):
    """Learning rate over the run: linear warm-up, then cosine to ``final`` times the rate.

    The run ends after ``steps`` steps or, if ``minutes`` is given, after that much training time,
    whichever comes first; the cosine follows whichever is further along, so a slow machine still
    ends annealed. With ``minutes`` the rates depend on the clock: only ``steps`` is repeatable.
    """

    kind: Literal["cosine"] = "cosine"
    steps: Count
    minutes: Positive | None = None
    warmup_steps: Annotated[int, Field(ge=0)] = 200
    final: Fraction = 0.01


class TrainingConfig(_Table):
    """Optimiser and bookkeeping."""

    schedule: ScheduleConfig
    batch: Count = 16
    learning_rate: Positive = 1.5e-3
    backbone_factor: Annotated[float, Field(ge=0)] = 0.25  # of the learning rate
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    clip_norm: Positive | None = None
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.998
    log_steps: Count = 50
    checkpoint_minutes: Positive = 5.0
    keep_checkpoints: Count = 3
    picture_steps: Annotated[int, Field(ge=0)] = 1000  # 0: no pictures
    workers: Count = 1
    worker_kind: Literal["thread", "process"] = "thread"  # processes keep a GPU busy
    prefetch: Count = 6  # batches kept ready
    pad_people: Count = 4  # labels are padded to a multiple; each size compiles the step once


class AugmentConfig(_Table):
    """Changes to pixels and keypoints together; ranges are [least, most].

    Of a top-down algorithm the picture is one person's crop as posewire/top_down.py cuts it, and
    the keys mean changes to that crop (defaults: TOP_DOWN_AUGMENT): ``size`` how large the person
    is, 1 being the size of inference; ``shift`` how far off the crop's centre, of the crop's size;
    ``half_body`` the share of crops of the upper or lower (or left or right) half alone. Crops are
    not tiled and show one person: ``mosaic`` is 0 and nothing else, ``cover`` and ``max_people``
    say nothing.
    """

    size: tuple[float, float] = (0.3, 1.05)  # a person's longer side over the picture's shorter
    rotate_deg: Annotated[float, Field(ge=0, le=180)] = 30.0
    flip: Fraction = 0.5
    shift: Fraction = 0.35  # of the picture's size, centre of the chosen person
    cover: Fraction = 0.7  # share enlarged, if need be, so that the picture fills the frame
    mosaic: Fraction = 0.25  # share of pictures tiled from four
    half_body: Fraction = 0.0  # top-down alone
    colour: Fraction = 0.8  # share with changed brightness, contrast, saturation, hue
    grey: Fraction = 0.05
    blur: Fraction = 0.1
    noise: Fraction = 0.1
    max_people: Count = 12

    @model_validator(mode="after")
    def _ordered(self) -> AugmentConfig:
        if not 0 < self.size[0] <= self.size[1]:
            raise ValueError("size must be [least, most], both above 0")
        return self

    def of(self, mode: str) -> AugmentConfig:
        """The same with the defaults of that mode. Raises TrainError for a key that is not its."""
        key = "mosaic" if mode == "top_down" else "half_body"
        if key in self.model_fields_set and getattr(self, key) > 0:
            raise TrainError(f"augment.{key}: must be 0 for a {mode} algorithm")
        if mode != "top_down":
            return self
        rest = {k: v for k, v in TOP_DOWN_AUGMENT.items() if k not in self.model_fields_set}
        return self.model_copy(update=rest)


# MMPose's RandomBBoxTransform and RandomHalfBody, within rounding.
TOP_DOWN_AUGMENT: dict[str, Any] = {
    "size": (0.7, 1.35),
    "rotate_deg": 40.0,
    "shift": 0.08,
    "mosaic": 0.0,
    "half_body": 0.25,
}


class DatasetConfig(_Table):
    """One COCO-format data set.

    ``ids`` keeps only images with an even or odd id (a split that needs no list), ``skip`` leaves
    out images that have one of these keys set, ``outside_boxes`` says whether people without an
    annotation may stand outside the annotated boxes ("unknown": no loss there).
    """

    name: str
    annotations: str
    images: str
    skeleton: str = "coco17"
    weight: Positive = 1.0
    ids: Literal["all", "even", "odd"] = "all"
    skip: tuple[str, ...] = ()
    outside_boxes: Literal["background", "unknown"] = "background"


class TeacherConfig(_Table):
    """A network whose maps are soft targets: all of the loss where the labels are silent.

    ``weight_unknown`` weighs its squared error where labels say nothing, ``weight_known`` where
    they do. Channels it lacks (matched by keypoint name and limb) have no weight.
    """

    onnx: str
    skeleton: str
    channels: Literal["RGB", "BGR"] = "RGB"
    scale: float = 1.0  # x * scale + offset is what the teacher wants of 0..255
    offset: float = 0.0
    layout: Literal["NHWC", "NCHW"] = "NHWC"
    heatmaps: tuple[int, int]  # first channel, count: K or K + 1 with the background last
    pafs: tuple[int, int]  # first channel, count: 2 per limb of its skeleton
    stride: Count = 8
    threads: Count = 1
    precision: Literal["f32", "bf16"] = "f32"
    weight_unknown: Annotated[float, Field(ge=0)] = 1.0
    weight_known: Annotated[float, Field(ge=0)] = 0.25


class Config(_Table):
    """The whole file."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.-]{0,63}$")]
    skeleton: str = "coco17"
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 1
    input: InputConfig = InputConfig()
    model: ModelConfig = ModelConfig()
    training: TrainingConfig
    augment: AugmentConfig = AugmentConfig()
    dataset: Annotated[tuple[DatasetConfig, ...], Field(min_length=1)]
    teacher: TeacherConfig | None = None


_HEADER = re.compile(r"^\s*(\[\[?)\s*([^\]]+?)\s*\]\]?\s*(#.*)?$")
_KEY = re.compile(r"^\s*([A-Za-z0-9_\-\"'. ]+?)\s*=")


def _names(text: str) -> tuple[str, ...]:
    return tuple(part.strip().strip("\"'") for part in text.split("."))


def find_line(text: str, location: tuple[str | int, ...]) -> int | None:
    """The line (from 1) of the key at ``location`` or of its nearest enclosing table.

    Array tables count from 0: ("dataset", 1, "weight"). None where nothing of it is in the text.
    """
    best: tuple[int, int] | None = None  # (depth, line)
    prefix: tuple[str | int, ...] = ()
    counts: dict[tuple[str, ...], int] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        header = _HEADER.match(line)
        key = _KEY.match(line)
        if header:
            names = _names(header[2])
            prefix = names
            if header[1] == "[[":
                counts[names] = counts.get(names, -1) + 1
                prefix = (*names, counts[names])
            path = prefix
        elif key:
            path = (*prefix, *_names(key[1]))
        else:
            continue
        depth = len(path)
        if location[:depth] == path and (best is None or depth > best[0]):
            best = (depth, number)
    return None if best is None else best[1]


def _dotted(location: tuple[str | int, ...]) -> str:
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def parse_config(text: str, where: str) -> Config:
    """Checks the text of a configuration; ``where`` is the file's name in messages.

    Raises TrainError (CONFIG) naming file, line and key.
    """
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        line = re.search(r"at line (\d+)", str(error))
        raise TrainError(f"{where}:{line[1] if line else 1}: not TOML: {error}") from error
    try:
        return Config.model_validate(_tuples(data))
    except ValidationError as error:
        first = error.errors()[0]
        location = first["loc"]
        line_number = find_line(text, location)
        what = "unknown key" if first["type"] == "extra_forbidden" else first["msg"]
        place = where if line_number is None else f"{where}:{line_number}"
        raise TrainError(f"{place}: {_dotted(location)}: {what}") from error


def _tuples(value: Any) -> Any:
    """TOML arrays as tuples, which is what strict validation of a frozen table wants."""
    if isinstance(value, dict):
        return {key: _tuples(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return tuple(_tuples(entry) for entry in value)
    return value


def load_config(path: Path) -> Config:
    """Reads and checks a configuration file. Raises TrainError naming file, line and key."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise TrainError(f"{path}: cannot read: {error}") from error
    return parse_config(text, str(path))


def find_path(name: str, config_folder: Path, key: str) -> Path:
    """Where a path of the configuration is. Raises TrainError (SOURCE) naming key and places."""
    places = [config_folder / name]
    if os.environ.get(DATA_VARIABLE):
        places.append(Path(os.environ[DATA_VARIABLE]) / name)
    for place in places:
        if place.exists():
            return place
    hint = "" if os.environ.get(DATA_VARIABLE) else f" ({DATA_VARIABLE} is not set)"
    raise TrainError(
        f"{key}: {name} not found; looked at {', '.join(map(str, places))}{hint}", ExitCode.SOURCE
    )
