# SPDX-License-Identifier: Apache-2.0
"""``posewire listen``: a line a frame from a broker."""

from __future__ import annotations

import signal
import sys
from typing import Annotated, Any

import typer

from posewire.errors import ExitCode, PosewireError

from . import out


def command(
    url: Annotated[str, typer.Argument(metavar="URL", help="mqtt://host[:1883], mqtts://host…")],
    node: Annotated[str | None, typer.Option(help="Only this node; else all.")] = None,
    camera: Annotated[str | None, typer.Option(help="Only cameras of this name; else all.")] = None,
    count: Annotated[
        int | None, typer.Option(min=1, help="End after so many frames; else never.")
    ] = None,
    timeout: Annotated[
        float | None, typer.Option(min=0.1, help="End (69) after so many seconds of silence.")
    ] = None,
    json: Annotated[
        bool, typer.Option("--json", help="Print the messages as received, one per line.")
    ] = False,
    username: Annotated[str | None, typer.Option(help="With --password-file.")] = None,
    password_file: Annotated[
        str | None, typer.Option(help="The first line is the password; never on the command line.")
    ] = None,
    ca_file: Annotated[str | None, typer.Option(help="Authority for mqtts://.")] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="mqtts:// without verifying the broker.")
    ] = False,
) -> ExitCode:
    """Print the poses that a broker carries, a line a frame.

    Every message is checked against its schema; one that breaks it is told on stderr and makes the
    exit code 1. States of nodes and cameras are told on stderr. A broker that is not there, refuses
    or goes away: 69.

    \b
    posewire listen mqtt://localhost
    posewire listen mqtt://broker.local --node n1 --camera door --count 100
    posewire listen mqtt://broker.local --json > poses.jsonl
    """
    from posewire.edge.listen import Listener, broker_at

    run = _Run(count, json, timeout)
    broker = broker_at(
        url, username=username, password_file=password_file, ca_file=ca_file, insecure=insecure
    )
    listener = Listener(
        broker,
        node=node,
        camera=camera,
        on_pose=run.on_pose,
        on_state=run.on_state,
        on_flaw=run.on_flaw,
    )
    before = signal.signal(signal.SIGINT, run.on_interrupt)
    try:
        listener.run(run.stopping, lambda: out.note(f"listening to {broker}"))
    except PosewireError:
        if not run.interrupted:  # else it says no more than that it was
            raise
    finally:
        signal.signal(signal.SIGINT, before)
    if run.interrupted:
        raise KeyboardInterrupt
    if run.silent:
        out.error(f"no pose for {timeout:g} s")
        return ExitCode.UNAVAILABLE
    return ExitCode.NO if run.flaws else ExitCode.OK


class _Run:
    def __init__(self, count: int | None, json: bool, timeout: float | None) -> None:
        import time

        self._clock = time.monotonic
        self._left, self._json, self._timeout = count, json, timeout
        self._heard_s = self._clock()
        self.flaws = 0
        self.silent = False
        self.interrupted = False

    def on_interrupt(self, _number: int, _frame: object) -> None:
        """A flag, since an exception may be raised where Python only reports it and goes on (a
        finaliser). The second Ctrl-C does not wait for anything."""
        self.interrupted = True
        signal.signal(signal.SIGINT, signal.default_int_handler)

    def stopping(self) -> bool:
        if self._timeout is not None and self._clock() - self._heard_s > self._timeout:
            self.silent = True
        return self.interrupted or self.silent or self._left == 0

    def on_pose(self, pose: Any) -> None:
        if self._left == 0:
            return
        self._heard_s = self._clock()
        if self._json:  # whoever wrapped lines: JSON's own newlines are only white space
            sys.stdout.write(pose.payload.replace(b"\n", b" ").decode() + "\n")
        else:
            sys.stdout.write(pose.line() + "\n")
        sys.stdout.flush()
        if self._left is not None:
            self._left -= 1

    def on_state(self, topic: str, state: dict[str, Any]) -> None:
        name = topic.removeprefix("posewire/").removesuffix("/status")
        why = f": {state['why']}" if state.get("why") else ""
        out.note(f"{name} is {state['state']}{why}")

    def on_flaw(self, topic: str, what: str) -> None:
        self.flaws += 1
        out.note(f"warning: {topic}: against its schema: {what}")
