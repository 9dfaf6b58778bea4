# SPDX-License-Identifier: Apache-2.0
"""``posewire train``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import out


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
    Ctrl-C writes a checkpoint first. KERAS_BACKEND chooses tensorflow (default), jax or torch.

    \b
    posewire train train.toml
    posewire train train.toml -o runs/first --resume
    tensorboard --logdir runs
    """
    from posewire.trainer.train import train

    folder = run or Path("runs") / config.stem
    weights = train(config, folder, resume=resume, stop_after_steps=steps)
    out.note(f"weights: {weights}")
