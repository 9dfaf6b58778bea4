# SPDX-License-Identifier: Apache-2.0
"""Batches for training: a pure function of (seed, index), prepared ahead by workers.

Sample i of a run is drawn with its own generator seeded by (seed, i), so the order of the workers
does not matter and a resumed run continues with exactly the samples it would have seen. Threads
serve a CPU that trains; a GPU takes more than one interpreter can prepare and wants processes.
"""

from __future__ import annotations

import multiprocessing
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from posewire.skeleton import Skeleton

from ..algorithm import MASK_STRIDE
from ..config import Config
from .augment import Sample, make_sample
from .coco import Floats, Picture, load_dataset
from .crops import make_crop, one_by_one
from .teacher import Teacher


@dataclass(frozen=True)
class Batch:
    """``images`` uint8 [B, H, W, 3], RGB; ``labels`` as algorithm.py describes them."""

    images: NDArray[np.uint8]
    labels: dict[str, Floats]


class Loader:
    """Mixes the configuration's data sets by weight and augments them."""

    def __init__(
        self, config: Config, folder: Path, skeleton: Skeleton, mode: str = "bottom_up"
    ) -> None:
        """Reads all annotations. ``folder`` is the configuration's, ``mode`` the algorithm's: of
        "top_down" a sample is one person's crop. Raises TrainError."""
        self.config = config
        self.folder = folder
        self.skeleton = skeleton
        self.mode = mode
        self.augment = config.augment.of(mode)
        self.datasets = [load_dataset(entry, folder, skeleton) for entry in config.dataset]
        if mode == "top_down":
            self.datasets = [
                one_by_one(pictures, f"dataset {entry.name}")
                for pictures, entry in zip(self.datasets, config.dataset, strict=True)
            ]
        weights = np.array([entry.weight for entry in config.dataset])
        self._cumulative = np.cumsum(weights / weights.sum())
        self.teacher = None if config.teacher is None else Teacher(config.teacher, folder, skeleton)
        self._teacher_lock = threading.Lock()

    @property
    def pictures(self) -> int:
        """How many different pictures there are; top-down: people."""
        return sum(len(dataset) for dataset in self.datasets)

    def draw(self, rng: np.random.Generator) -> Picture:
        """A picture of a data set chosen by weight; top-down: with one of its people."""
        chosen = int(np.searchsorted(self._cumulative, rng.random(), side="right"))
        dataset = self.datasets[min(chosen, len(self.datasets) - 1)]
        return dataset[rng.integers(len(dataset))]

    def sample(self, index: int) -> Sample:
        """Training sample ``index``."""
        rng = np.random.default_rng((self.config.seed, index))
        size = (self.config.input.width, self.config.input.height)
        make = make_crop if self.mode == "top_down" else make_sample
        return make(rng, self.draw, self.skeleton, size, MASK_STRIDE, self.augment)

    def batch(self, step: int) -> Batch:
        """The batch of one step (from 0)."""
        size = self.config.training.batch
        samples = [self.sample(step * size + i) for i in range(size)]
        images = np.stack([sample.image for sample in samples])
        most, multiple = self.augment.max_people, self.config.training.pad_people
        if self.mode == "top_down":
            most = multiple = 1
        labels = pack(samples, most, self.skeleton.count, multiple)
        if self.teacher is not None:
            with self._teacher_lock:
                labels |= self.teacher(images)
        return Batch(images, labels)

    def batches(self, first: int, last: int) -> Generator[Batch, None, None]:
        """The batches of steps ``first`` to ``last`` - 1, in order, prepared ahead.

        An error in a worker is raised here, at its batch. Closing the iterator stops the workers.
        """
        pool, prepare = self._workers()
        waiting: deque[Future[Batch]] = deque()
        coming = iter(range(first, last))
        try:
            for step in coming:
                waiting.append(pool.submit(prepare, step))
                if len(waiting) >= self.config.training.prefetch:
                    break
            while waiting:
                batch = waiting.popleft().result()
                for step in coming:
                    waiting.append(pool.submit(prepare, step))
                    break
                yield batch
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _workers(self) -> tuple[Executor, Callable[[int], Batch]]:
        """The pool, and what it runs for a step."""
        training = self.config.training
        if training.worker_kind == "thread":
            if self.teacher is not None:
                self.teacher.open()
            return ThreadPoolExecutor(training.workers, "loader"), self.batch
        # Spawned, not forked: the parent runs a GPU's threads by now.
        pool = ProcessPoolExecutor(
            training.workers,
            multiprocessing.get_context("spawn"),
            _open_worker,
            (self.config, self.folder, self.skeleton, self.mode),
        )
        return pool, _batch_of_worker


class _Worker:
    """What a worker process keeps between batches: a loader of its own."""

    loader: Loader


def _open_worker(config: Config, folder: Path, skeleton: Skeleton, mode: str) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    cv2.setNumThreads(1)
    _Worker.loader = Loader(config, folder, skeleton, mode)
    if _Worker.loader.teacher is not None:
        _Worker.loader.teacher.open()


def _batch_of_worker(step: int) -> Batch:
    return _Worker.loader.batch(step)


def pack(samples: list[Sample], most: int, count: int, multiple: int = 4) -> dict[str, Floats]:
    """Labels of several samples, people padded to a multiple of ``multiple`` (at most ``most``).

    A few sizes rather than the largest one: the targets cost time in proportion, and each size
    compiles the step once.
    """
    largest = max(len(sample.boxes) for sample in samples)
    people = min(most, max(multiple, -(-largest // multiple) * multiple))
    keypoints: NDArray[np.float32] = np.zeros((len(samples), people, count, 3), np.float32)
    boxes: NDArray[np.float32] = np.zeros((len(samples), people, 4), np.float32)
    boxes[..., 2:] = -1.0
    for i, sample in enumerate(samples):
        keypoints[i, : len(sample.boxes)] = sample.keypoints
        boxes[i, : len(sample.boxes)] = sample.boxes
    return {
        "keypoints": keypoints,
        "boxes": boxes,
        "mask": np.stack([sample.mask for sample in samples]),
    }
