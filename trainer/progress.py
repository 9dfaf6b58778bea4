# SPDX-License-Identifier: Apache-2.0
"""How a run is watched: progress bar, one line per interval, TensorBoard, pictures."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import cv2
import keras
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.event_file_writer import EventFileWriter

Image = NDArray[np.uint8]


class Events:
    """TensorBoard scalars and pictures without any backend's help."""

    def __init__(self, folder: Path) -> None:
        self._writer = EventFileWriter(str(folder))

    def _add(self, step: int, value: Any) -> None:
        self._writer.add_event(
            Event(wall_time=time.time(), step=step, summary=Summary(value=[value]))
        )

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """One point of each curve."""
        for name, value in values.items():
            self._add(step, Summary.Value(tag=name, simple_value=value))

    def picture(self, step: int, name: str, image: Image) -> None:
        """An RGB picture."""
        done, data = cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
        if done:
            picture = Summary.Image(
                height=image.shape[0],
                width=image.shape[1],
                colorspace=3,
                encoded_image_string=data.tobytes(),
            )
            self._add(step, Summary.Value(tag=name, image=picture))

    def close(self) -> None:
        """Writes what is left."""
        self._writer.close()


class Reporter:
    """Shows and records a run. Use as a context; on a terminal it draws a bar."""

    def __init__(self, run: Path, steps: int, quiet: bool = False) -> None:
        self._run = run
        self._console = Console(quiet=quiet)
        self._events = Events(run / "events")
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:3.0f}%"),
            TimeElapsedColumn(),
            console=self._console,
            disable=quiet or not self._console.is_terminal,
        )
        self._task = self._bar.add_task("training", total=1.0)
        self._steps = steps

    def __enter__(self) -> Reporter:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()
        self._events.close()

    def say(self, text: str) -> None:
        """One line above the bar."""
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def advance(self, fraction: float) -> None:
        """How much of the run is done, 0 to 1."""
        self._bar.update(self._task, completed=min(fraction, 1.0))

    def log(self, step: int, values: Mapping[str, float], outputs: tuple[str, ...]) -> None:
        """One interval's means: a line, a row of history.jsonl, points in TensorBoard."""
        parts = "  ".join(
            f"{name} {values[name]:.1f} ({values[name] / max(values[f'{name}_zero'], 1e-9):.3f} "
            "of nobody)"
            for name in outputs
        )
        self.say(
            f"{time.strftime('%H:%M:%S')} step {step}/{self._steps}  loss {values['loss']:.1f}  "
            f"{parts}  rate {values['learning_rate']:.2e}  {values['images_per_s']:.1f} images/s"
        )
        self._events.scalars(step, values)
        row = {"step": step, **{name: float(value) for name, value in values.items()}}
        with (self._run / "history.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    def picture(self, step: int, image: Image) -> None:
        """Keeps a picture of predictions."""
        folder = self._run / "pictures"
        folder.mkdir(exist_ok=True)
        path = folder / f"step-{step:08d}.jpg"
        cv2.imwrite(str(path), cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
        self._events.picture(step, "predictions", image)


def overlay(image: Image, value: NDArray[np.float32]) -> Image:
    """A map of 0..1 [h, w] drawn over a darkened picture [H, W, 3]."""
    height, width = image.shape[:2]
    grown = cv2.resize(np.clip(value, 0, 1), (width, height), interpolation=cv2.INTER_NEAREST)
    colours = cv2.cvtColor(
        cv2.applyColorMap((grown * 255).astype(np.uint8), cv2.COLORMAP_TURBO), cv2.COLOR_BGR2RGB
    )
    alpha = 0.2 + 0.6 * grown[..., None]
    return np.asarray(image * (1 - alpha) * 0.9 + colours * alpha, np.uint8)


def draw_maps(images: Image, maps: Sequence[NDArray[np.float32]]) -> Image:
    """A sheet: a line for each picture [B, H, W, 3], alone and under each map [B, h, w]."""
    lines = [
        np.concatenate([image, *(overlay(image, one[i]) for one in maps)], axis=1)
        for i, image in enumerate(images)
    ]
    return np.concatenate(lines)


def as_numpy(maps: Mapping[str, Any]) -> dict[str, NDArray[np.float32]]:
    """Tensors of any backend as arrays."""
    return {name: keras.ops.convert_to_numpy(value) for name, value in maps.items()}
