# SPDX-License-Identifier: Apache-2.0
"""``posewire update``: a running node gets another bundle, and takes it back if it is no good."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from posewire.errors import ExitCode

from . import out

if TYPE_CHECKING:
    from posewire.edge.slots import Outcome, Store


def command(
    config: Annotated[
        Path, typer.Argument(metavar="CONFIG.toml", help="The node's, as `posewire serve` has it.")
    ],
    bundle: Annotated[
        Path | None, typer.Argument(metavar="BUNDLE", help="The portable bundle to run.")
    ] = None,
    previous: Annotated[
        bool, typer.Option("--previous", help="Back to the bundle that ran before.")
    ] = False,
    of_config: Annotated[
        bool, typer.Option("--config-bundle", help="Back to the bundle that the config names.")
    ] = False,
    show: Annotated[bool, typer.Option("--show", help="Only say what runs.")] = False,
    wait: Annotated[
        float, typer.Option(min=0, help="Seconds to wait until it is settled; 0: do not.")
    ] = 0.0,
    state: Annotated[
        Path | None,
        typer.Option(help="The daemon's state folder; default: bundle.state of the config."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> ExitCode:
    """Give a node another bundle while it runs.

    The bundle is verified and copied; the daemon compiles it beside the running engine, judges it,
    exchanges it, and takes it back by itself when it is not healthy. Without --wait the exit code
    says only that the wish was written down. With it: 0 the bundle runs, 1 it was rejected or taken
    back, 69 nothing was settled in that time (does the daemon run?).

    \b
    posewire update /etc/posewire/posewire.toml coco17-2 --state /var/lib/posewire --wait 600
    posewire update posewire.toml --previous
    posewire update posewire.toml --show
    """
    from posewire.edge.config import load_config
    from posewire.edge.slots import CONFIG, PREVIOUS, Store, state_folder

    if sum((bundle is not None, previous, of_config, show)) != 1:
        raise typer.BadParameter("give one of BUNDLE, --previous, --config-bundle and --show")
    settings = load_config(config)
    folder = state or state_folder(settings.bundle.state)
    with _as_owner(folder):
        store = Store(folder, settings.node)
        if show:
            return _show(store, settings.bundle.path, json=json)
        wanted = bundle if bundle is not None else PREVIOUS if previous else CONFIG
        wish = store.ask(wanted)
        last = _settled(store, wish.ticket, wait) if wait > 0 else None
    if json:
        out.figures({"asked": asdict(wish), "update": last and asdict(last)})
    elif last is not None:
        print(f"{last.name}: {last.state}{f': {last.why}' if last.why else ''}")
    elif wait == 0:
        print(f"{wanted}: written down; the daemon takes it up within a second, or when it starts")
    if wait == 0:
        return ExitCode.OK
    if last is None:
        out.error(f"{folder}: nothing settled in {wait:g} s; does the daemon of this node run?")
        return ExitCode.UNAVAILABLE
    return ExitCode.OK if last.state == "confirmed" else ExitCode.NO


def _show(store: Store, config_bundle: Path, *, json: bool) -> ExitCode:
    slots = store.slots()
    if json:
        out.figures(asdict(slots))
        return ExitCode.OK

    def said(identity: str | None) -> str:
        from posewire.edge.slots import CONFIG

        from posewire.bundle import read_manifest
        from posewire.errors import BundleError

        if identity is None:
            return "none"
        path = config_bundle if identity == CONFIG else store.bundle(identity)
        try:
            manifest = read_manifest(path)
        except BundleError as error:
            return str(error)
        return f"{manifest.name}@{manifest.version} at {path}"

    trial = "" if slots.trial is None else f" (on trial, start {slots.trial})"
    print(f"current   {said(slots.current)}{trial}")
    print(f"previous  {said(slots.previous)}")
    if slots.last is not None:
        why = f": {slots.last.why}" if slots.last.why else ""
        print(f"last      {slots.last.name}: {slots.last.state}{why}")
    if (wish := store.wish()) is not None:
        print(f"wanted    {said(wish.bundle) if wish.bundle != 'previous' else 'the previous one'}")
    return ExitCode.OK


def _settled(store: Store, ticket: str, seconds: float) -> Outcome | None:
    """What became of a wish; says each step. None where it is not settled in time."""
    from posewire.edge.slots import SETTLED

    until_s = time.monotonic() + seconds
    told = ""
    while time.monotonic() < until_s:
        last = store.slots().last
        if last is not None and last.ticket == ticket:
            if last.state != told:
                told = last.state
                out.note(f"{last.name}: {told}")
            if last.state in SETTLED:
                return last
        time.sleep(0.2)
    return None


@contextlib.contextmanager
def _as_owner(folder: Path) -> Iterator[None]:
    """Root writes as the owner of the state folder, whose daemon must be able to read and clear it
    away; and a link that the daemon's user put there leads root nowhere."""
    place = folder
    while not place.exists() and place != place.parent:
        place = place.parent
    owner = place.stat()
    if os.geteuid() != 0 or owner.st_uid == 0:
        yield
        return
    os.setegid(owner.st_gid)
    os.seteuid(owner.st_uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
