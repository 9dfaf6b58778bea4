# SPDX-License-Identifier: Apache-2.0
"""``posewire train``."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from posewire.errors import ExitCode, PosewireError


def command(
    config: Annotated[
        Path, typer.Argument(metavar="CONFIG.toml", help="Network, data, schedule, seeds.")
    ],
    run: Annotated[
        Path | None,
        typer.Option("-o", "--out", help="Folder of the run; default: runs/<name of the config>."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the run exactly where it stopped.")
    ] = False,
    steps: Annotated[
        int | None,
        typer.Option(min=1, help="End this sitting after so many steps, with a checkpoint."),
    ] = None,
) -> None:
    """Train a pose network.

    Shows progress; the run's folder gets checkpoints, TensorBoard logs and pictures of predictions.
    A top-down algorithm (heatmap, simcc) learns from crops of the annotated people.
    Ctrl-C writes a checkpoint first. KERAS_BACKEND chooses tensorflow (default), jax or torch.

    \b
    posewire train train.toml
    posewire train train.toml -o runs/first --resume
    tensorboard --logdir runs
    """
    with trainer():
        from posewire.trainer.train import train

        train(config, run or Path("runs") / config.stem, resume=resume, stop_after_steps=steps)


@contextlib.contextmanager
def trainer() -> Iterator[None]:
    """Says what is missing where the training packages are not installed."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow's banner
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("posewire"):
            raise
        raise PosewireError(
            f"training needs {error.name}, which is not installed: pip install 'posewire[train]'",
            ExitCode.UNAVAILABLE,
        ) from error
