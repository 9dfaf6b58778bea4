# SPDX-License-Identifier: Apache-2.0
"""``posewire first-boot``: what a flashed device does once."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from . import out


class Step(str, Enum):
    identity = "identity"
    compile = "compile"


def command(
    step: Annotated[
        Step | None, typer.Option("--step", help="Only this step. [default: both, in turn]")
    ] = None,
    folder: Annotated[
        Path, typer.Option("--config-folder", metavar="DIR", help="Holds first-boot.toml.")
    ] = Path("/etc/posewire"),
    state: Annotated[
        Path, typer.Option("--state-folder", metavar="DIR", help="Where first-boot.done is put.")
    ] = Path("/var/lib/posewire"),
) -> None:
    """Make a flashed device a node: name, keys, compiled bundle.

    posewire-first-boot.service calls it, once; it may be cut off and called again at any moment.
    Identity needs root; compile runs as the service does, and tells its progress over MQTT.

    \b
    posewire first-boot --step identity
    """
    from posewire.edge.first_boot import STEPS

    out.logs()
    for name in [step.value] if step else list(STEPS):
        STEPS[name](folder, state)
