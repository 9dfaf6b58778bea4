# SPDX-License-Identifier: Apache-2.0
"""What a run directory holds, and how it survives a crash.

    config.toml                  the configuration as started
    run.json                     where the configuration came from, backend, versions
    checkpoints/step-00001234.npz   everything a resume needs: network, optimiser, step, time
    network.weights.h5           newest averaged (EMA) weights: what evaluate and export use
    history.jsonl                one line per log interval
    pictures/, events/           predictions, TensorBoard

Each file is written aside, flushed to disk and renamed: a reader never sees half of one.
"""

from __future__ import annotations

import io
import json
import os
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import keras
import numpy as np

from posewire.errors import ExitCode

from .config import Config, load_config
from .errors import TrainError
from .model import Network, build_network, load_weights

CONFIG_NAME = "config.toml"
WEIGHTS_NAME = "network.weights.h5"
CHECKPOINT_GLOB = "step-*.npz"


@dataclass(frozen=True)
class State:
    """Where a run stands."""

    step: int = 0
    elapsed_s: float = 0.0  # training time of all sittings


def replace_file(path: Path, write: Callable[[Path], None]) -> None:
    """Writes a file aside with ``write``, flushes it to disk and renames it into place.

    Raises TrainError (CANNOT_WRITE) naming the file.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Keras insists on the suffix, so it stays at the end of the temporary name.
        suffix = "".join(path.suffixes)
        with tempfile.TemporaryDirectory(prefix=".writing-", dir=path.parent) as folder:
            aside = Path(folder) / f"new{suffix}"
            write(aside)
            with aside.open("rb") as file:
                os.fsync(file.fileno())
            aside.replace(path)
    except OSError as error:
        raise TrainError(f"{path}: cannot write: {error}", ExitCode.CANNOT_WRITE) from error


def _variables(model: keras.Model) -> list[keras.Variable]:
    return [*model.network.variables, *model.optimizer.variables]


def save_checkpoint(run: Path, model: keras.Model, state: State, keep: int) -> Path:
    """Saves everything that a resume needs and the averaged weights; drops old checkpoints."""
    arrays = {f"v{i}": np.asarray(v) for i, v in enumerate(_variables(model))}
    names = [variable.path for variable in _variables(model)]
    head = json.dumps({**asdict(state), "variables": names})

    def write(path: Path) -> None:
        buffer = io.BytesIO()
        np.savez(buffer, head=np.array(head), **arrays)  # type: ignore[arg-type]
        path.write_bytes(buffer.getbuffer())

    path = run / "checkpoints" / f"step-{state.step:08d}.npz"
    replace_file(path, write)
    save_averaged(model, run / WEIGHTS_NAME)
    for old in sorted(path.parent.glob(CHECKPOINT_GLOB))[:-keep]:
        old.unlink(missing_ok=True)
    return path


def save_averaged(model: keras.Model, path: Path) -> None:
    """The network's weights with the running average in place of the last step's."""
    variables = model.network.trainable_variables
    current = [np.array(v) for v in variables]
    try:
        if model.optimizer.use_ema and int(np.asarray(model.optimizer.iterations)) > 0:
            model.optimizer.finalize_variable_values(variables)
        replace_file(path, lambda aside: model.network.save_weights(str(aside)))
    finally:
        for variable, value in zip(variables, current, strict=True):
            variable.assign(value)


def newest_checkpoint(run: Path) -> Path | None:
    """The checkpoint with the most steps."""
    found = sorted((run / "checkpoints").glob(CHECKPOINT_GLOB))
    return found[-1] if found else None


def load_checkpoint(path: Path, model: keras.Model) -> State:
    """Puts a checkpoint's values into a built model.

    Raises TrainError naming the file when it is damaged or of another network.
    """
    variables = _variables(model)
    try:
        with np.load(path, allow_pickle=False) as data:
            head = json.loads(str(data["head"]))
            # Optimiser variables carry the optimiser's own counter in their paths: count and
            # shape decide, the network's paths must agree.
            count = len(model.network.variables)
            same = head["variables"][:count] == [v.path for v in variables[:count]]
            if not same or len(head["variables"]) != len(variables):
                raise TrainError(f"{path}: is of another network than the configuration's")
            for i, variable in enumerate(variables):
                variable.assign(data[f"v{i}"])
            return State(int(head["step"]), float(head["elapsed_s"]))
    except (OSError, ValueError, KeyError, zipfile.BadZipFile, EOFError) as error:
        raise TrainError(f"{path}: damaged checkpoint: {error}", ExitCode.SOURCE) from error


def load_run(run: Path, averaged: Path | None = None) -> tuple[Config, Network]:
    """A run's configuration and its network with the averaged weights (of ``averaged``, if given).

    Raises TrainError when the directory is not a run or has no weights yet.
    """
    config_path = run / CONFIG_NAME
    weights = averaged or run / WEIGHTS_NAME
    for path in (config_path, weights):
        if not path.is_file():
            raise TrainError(f"{path}: missing; is {run} a training run?", ExitCode.SOURCE)
    config = load_config(config_path)
    network = build_network(config, run, pretrained=False)
    load_weights(network.keras, weights)
    return config, network
