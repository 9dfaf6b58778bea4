# SPDX-License-Identifier: Apache-2.0
"""The training loop.

Keras' ``train_on_batch`` makes the step the same in every backend; what surrounds it (schedule by
step or clock, checkpoints, exact resume) needs a loop of our own. A step depends on the step
number, the seed and the state alone, so an interrupted and resumed run continues as the
uninterrupted one would have (with a schedule by clock, up to the rates).
"""

from __future__ import annotations

import json
import math
import shutil
import signal
import threading
import time
from collections import defaultdict
from contextlib import closing
from pathlib import Path
from types import FrameType, TracebackType

import keras

from posewire import __version__
from posewire.errors import ExitCode

from .algorithm import Algorithm
from .checkpoint import (
    CONFIG_NAME,
    WEIGHTS_NAME,
    State,
    load_checkpoint,
    newest_checkpoint,
    replace_file,
    save_checkpoint,
)
from .config import Config, ScheduleConfig, load_config
from .data.loader import Batch, Loader
from .errors import TrainError
from .model import PoseModel, as_stages, build_network, build_trainer
from .progress import Image, Reporter, as_numpy, draw_maps

PICTURES = 6  # pictures on a sheet of predictions


def learning_rate(schedule: ScheduleConfig, base: float, step: int, elapsed_s: float) -> float:
    """The rate of a step (from 0): linear warm-up, then cosine down to ``final`` x base."""
    done = min(1.0, fraction_done(schedule, step, elapsed_s))
    cosine = schedule.final + (1 - schedule.final) * 0.5 * (1 + math.cos(math.pi * done))
    return base * cosine * min(1.0, (step + 1) / max(1, schedule.warmup_steps))


def fraction_done(schedule: ScheduleConfig, step: int, elapsed_s: float) -> float:
    """How much of the run is over: by steps or, if given, minutes, whichever is further."""
    by_step = step / schedule.steps
    if schedule.minutes is None:
        return by_step
    return max(by_step, elapsed_s / (60 * schedule.minutes))


class _Stop:
    """Turns the first SIGINT or SIGTERM into a flag, so that a step is never cut in half."""

    def __init__(self) -> None:
        self.asked = False
        self._old: dict[signal.Signals, object] = {}

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True

    def __enter__(self) -> _Stop:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._old[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)  # type: ignore[arg-type]


def train(
    config_path: Path | str,
    run_dir: Path | str,
    *,
    resume: bool = False,
    stop_after_steps: int | None = None,
    quiet: bool = False,
) -> Path:
    """Trains ``config_path`` in ``run_dir`` and returns the file of the averaged weights.

    ``resume`` continues from the newest checkpoint of ``run_dir`` with the configuration stored
    there, which ``config_path`` must equal; without it ``run_dir`` must not hold a run.
    ``stop_after_steps`` ends this sitting early, leaving a checkpoint.
    Raises TrainError: CONFIG, SOURCE (data), CANNOT_WRITE, INTERRUPTED (after a checkpoint).
    """
    config_path, run = Path(config_path), Path(run_dir)
    config = load_config(config_path)
    checkpoint = _prepare(config_path, run, config, resume)
    keras.utils.set_random_seed(config.seed)
    network = build_network(config, config_path.parent, pretrained=checkpoint is None)
    if config.teacher is not None and not network.algorithm.teachable:
        raise TrainError(
            f"{config_path}: teacher: algorithm {config.model.algorithm!r} takes no teacher"
        )
    mode = network.algorithm.mode
    loader = Loader(config, config_path.parent, network.skeleton, mode)
    model = build_trainer(config, network, loader.teacher.weights if loader.teacher else None)
    state = State() if checkpoint is None else load_checkpoint(checkpoint, model)
    schedule = config.training.schedule
    with Reporter(run, schedule.steps, quiet) as reporter, _Stop() as stop:
        reporter.say(
            f"{config.name}: {network.keras.count_params():,} weights, {loader.pictures:,} "
            f"{'people' if mode == 'top_down' else 'pictures'}, {keras.backend.backend()}, "
            f"from step {state.step}"
        )
        state = _loop(
            config, run, model, network.algorithm, loader, state, reporter, stop, stop_after_steps
        )
        if stop.asked:
            raise TrainError(
                f"interrupted at step {state.step}; continue with --resume", ExitCode.INTERRUPTED
            )
        reporter.say(f"done: {run / WEIGHTS_NAME} after {state.step} steps")
    return run / WEIGHTS_NAME


def _prepare(config_path: Path, run: Path, config: Config, resume: bool) -> Path | None:
    """Makes or checks the run directory; the checkpoint to continue from."""
    stored = run / CONFIG_NAME
    if resume:
        if not stored.is_file():
            raise TrainError(f"{run}: no run to resume", ExitCode.SOURCE)
        if load_config(stored) != config:
            raise TrainError(f"{config_path}: differs from {stored}, with which the run started")
        return newest_checkpoint(run)
    if stored.exists():
        raise TrainError(f"{run}: holds a run already; resume it or choose another directory")
    replace_file(stored, lambda aside: _copy(config_path, aside))
    facts = {
        "config": str(config_path.resolve()),
        "posewire": __version__,
        "keras": keras.__version__,
        "backend": keras.backend.backend(),
    }
    replace_file(run / "run.json", lambda aside: _write_text(aside, json.dumps(facts, indent=1)))
    return None


def _copy(source: Path, target: Path) -> None:
    shutil.copyfile(source, target)


def _write_text(path: Path, text: str) -> None:
    path.write_text(text + "\n", encoding="utf-8")


def _loop(
    config: Config,
    run: Path,
    model: PoseModel,
    algorithm: Algorithm,
    loader: Loader,
    state: State,
    reporter: Reporter,
    stop: _Stop,
    stop_after_steps: int | None,
) -> State:
    training = config.training
    schedule = training.schedule
    outputs = tuple(spec.name for spec in algorithm.outputs)
    last = (
        schedule.steps
        if stop_after_steps is None
        else min(schedule.steps, state.step + stop_after_steps)
    )
    started = saved = logged = time.monotonic()
    step, since = state.step, 0
    sums: defaultdict[str, float] = defaultdict(float)

    def now() -> State:
        return State(step, state.elapsed_s + time.monotonic() - started)

    with closing(loader.batches(step, last)) as batches:
        for batch in batches:
            elapsed = now().elapsed_s
            if stop.asked or fraction_done(schedule, step, elapsed) >= 1:
                break
            rate = learning_rate(schedule, training.learning_rate, step, elapsed)
            model.optimizer.learning_rate = rate
            # Keras resets its metrics in this call: these are of one batch.
            values = model.train_on_batch(batch.images, batch.labels, return_dict=True)
            step, since = step + 1, since + 1
            for name, value in values.items():
                sums[name] += float(value)
            reporter.advance(fraction_done(schedule, step, elapsed))
            if not math.isfinite(float(values["loss"])):
                raise TrainError(f"step {step}: the loss is not finite", ExitCode.BUG)
            if step % training.log_steps == 0 or step == last:
                moment = time.monotonic()
                speed = since * training.batch / (moment - logged)
                means = {name: total / since for name, total in sums.items()}
                reporter.log(step, {**means, "learning_rate": rate, "images_per_s": speed}, outputs)
                sums.clear()
                since, logged = 0, moment
            if training.picture_steps and step % training.picture_steps == 0:
                reporter.picture(step, prediction_sheet(model, algorithm, batch))
            if time.monotonic() - saved > 60 * training.checkpoint_minutes:
                save_checkpoint(run, model, now(), training.keep_checkpoints)
                saved = time.monotonic()
    save_checkpoint(run, model, now(), training.keep_checkpoints)
    return now()


def prediction_sheet(model: PoseModel, algorithm: Algorithm, batch: Batch) -> Image:
    """The first pictures of a batch with targets and predictions drawn over them."""
    images = batch.images[:PICTURES]
    predicted = as_numpy(as_stages(model.network.predict_on_batch(images))[-1])
    labels = {name: values[:PICTURES] for name, values in batch.labels.items()}
    targets = as_numpy(algorithm.targets(labels))
    return draw_maps(images, [*algorithm.look(targets), *algorithm.look(predicted)])
