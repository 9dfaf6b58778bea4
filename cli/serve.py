# SPDX-License-Identifier: Apache-2.0
"""``posewire serve``: the daemon."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from posewire.errors import ExitCode

from . import out


def command(
    config: Annotated[Path, typer.Argument(metavar="CONFIG.toml", help="What to run, and where.")],
    check: Annotated[
        bool, typer.Option("--check", help="Check the config, say what it would do, and end.")
    ] = False,
) -> ExitCode:
    """Run the daemon: cameras in, poses out over MQTT.

    Compiles a portable bundle for this machine first (once; cached), keeps the engine running, and
    retries brokers and cameras for ever. Ends with code 0 when every source is finite and has
    ended, or on SIGTERM or Ctrl-C.

    \b
    posewire serve /etc/posewire/posewire.toml
    posewire serve posewire.toml --check
    """
    from posewire.edge.config import load_config
    from posewire.edge.daemon import Daemon

    out.logs()
    settings = load_config(config)
    if check:
        from posewire.edge.check import plan

        for line in plan(settings):
            print(line)
        return ExitCode.OK
    return Daemon(settings).run()
