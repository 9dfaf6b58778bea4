# SPDX-License-Identifier: Apache-2.0
"""Keeps an engine running: restarts what crashed or hangs, with patience, and knows when to stop.

A hung driver or a crashed GPU runtime costs one child, never the MQTT session. What waiting does
not mend is not retried: a wrong call, bundle or config (64, 65, 78), and, when every source is
finite, whatever failed more than a few times.
"""

from __future__ import annotations

import logging
import signal
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from posewire.errors import ExitCode

from .engine import STOP_GRACE_S, Engine
from .errors import EdgeError
from .events import Event

State = Literal["starting", "running", "waiting", "stopped"]

FATAL = (ExitCode.USAGE, ExitCode.BUNDLE, ExitCode.CONFIG)
FATAL_WHEN_FINITE = (ExitCode.SOURCE, ExitCode.CANNOT_WRITE)
FIRST_DELAY_S, MAX_DELAY_S = 1.0, 60.0
HEALTHY_S = 60.0  # a run so long starts the back-off anew
STARTS, PER_S = 10, 600.0  # never more starts than this in that time
FINITE_STARTS = 5

_log = logging.getLogger("supervisor")


@dataclass
class Watch:
    """What the events of one engine process say about its health. Written by its reading thread."""

    ready: bool = False
    stopped: Event | None = None
    stats: dict[str, Any] = field(default_factory=dict)
    frame_s: float = field(default_factory=time.monotonic)  # when a frame was last finished
    waiting_s: float | None = None  # since when frames wait inside; None: none did, last we heard

    def note(self, event: Event) -> None:
        now = time.monotonic()
        if event.kind == "frame":
            self.frame_s = now
        elif event.kind == "ready":
            self.ready = True
            self.frame_s = now
        elif event.kind == "stopped":
            self.stopped = event
        elif event.kind == "stats":
            self.stats = dict(event.values)
            cameras = event.values["cameras"]
            waiting = sum(row["captured"] - row["published"] - row["dropped"] for row in cameras)
            self.waiting_s = (self.waiting_s or now) if waiting > 0 else None

    def stuck_s(self) -> float:
        """How long frames have been waiting inside and none has come out."""
        since_s = self.waiting_s
        return 0.0 if since_s is None else time.monotonic() - max(self.frame_s, since_s)


class Supervisor:
    """``launch`` makes an engine that reports to the given watch; it is not yet started.

    :meth:`run` is called once, from one thread; the attributes may be read from any.
    """

    def __init__(
        self,
        launch: Callable[[Callable[[Event], None]], Engine],
        *,
        heartbeat_s: float,
        start_timeout_s: float,
        finite: bool,
        on_down: Callable[[str], None] = lambda why: None,
    ) -> None:
        """``on_down(why)`` is told when an engine has ended and another will follow."""
        self._launch = launch
        self._heartbeat_s = heartbeat_s
        self._start_timeout_s = start_timeout_s
        self._finite = finite
        self._on_down = on_down
        self._begun: deque[float] = deque()
        self.state: State = "starting"
        self.starts = self.hangs = self.rejected = 0
        self.why: str | None = None
        self.watch = Watch()
        self.engine: Engine | None = None

    def run(self, stopping: Callable[[], bool], tick: Callable[[float], None]) -> None:
        """Returns when the engine has done its work or ``stopping`` says so.

        ``tick(seconds)`` is called all the time and may sleep for so long. Raises EdgeError with
        the engine's code for what is not retried.
        """
        delay_s = FIRST_DELAY_S
        try:
            while not stopping():
                began_s = time.monotonic()
                status = self._one(stopping, tick)
                if stopping() or self._done(status):
                    return
                self.why = self._tell(status)
                self._give_up_or_not(status)
                if time.monotonic() - began_s > HEALTHY_S:
                    delay_s = FIRST_DELAY_S
                self.state = "waiting"
                wait_s = max(delay_s, self._window_s())
                _log.error("%s; starting again in %.0f s", self.why, wait_s)
                self._on_down(self.why)
                delay_s = min(2 * delay_s, MAX_DELAY_S)
                until_s = time.monotonic() + wait_s
                while not stopping() and time.monotonic() < until_s:
                    tick(min(0.2, max(0.0, until_s - time.monotonic())))
        finally:
            self.state = "stopped"

    def _one(self, stopping: Callable[[], bool], tick: Callable[[float], None]) -> int:
        """One engine from start to end; returns its exit status."""
        self.watch = watch = Watch()
        self.state = "starting"
        self.engine = engine = self._launch(watch.note)
        self.starts += 1
        self._begun.append(time.monotonic())
        started_s = time.monotonic()
        hung = None
        engine.start()
        rejected = self.rejected
        try:
            while (status := engine.ended()) is None and not stopping():
                tick(0.1)
                self.rejected = rejected + engine.rejected
                if watch.ready and self.state == "starting":
                    self.state, self.why = "running", None
                hung = hung or self._hang(engine, watch, started_s)
                if hung:
                    engine.kill()
            if status is None:
                status = self._stop(engine, tick)
        finally:
            engine.kill()
            self.rejected = rejected + engine.rejected
        if hung:
            self.hangs += 1
            self._hung = hung
        return status

    _hung = ""

    def _hang(self, engine: Engine, watch: Watch, started_s: float) -> str:
        """Why the engine counts as hung, or nothing."""
        if not watch.ready:
            late = time.monotonic() - started_s > self._start_timeout_s
            return f"not ready after {self._start_timeout_s:g} s" if late else ""
        if engine.silent_s() > self._heartbeat_s:
            return f"silent for {self._heartbeat_s:g} s"
        if engine.silent_s() > 0 and watch.stuck_s() > self._heartbeat_s:
            return f"no frame finished for {self._heartbeat_s:g} s though some are waiting"
        return ""

    def _stop(self, engine: Engine, tick: Callable[[float], None]) -> int:
        """SIGTERM, time to drain, then SIGKILL."""
        engine.terminate()
        deadline = time.monotonic() + STOP_GRACE_S
        while (status := engine.ended()) is None:
            tick(0.05)
            if time.monotonic() > deadline:
                _log.warning("the engine did not end in %.0f s: killed", STOP_GRACE_S)
                engine.kill()
                deadline += 1e9
        return status

    def _done(self, status: int) -> bool:
        """Only finite sources end by themselves."""
        return status == 0 and self.watch.stopped is not None and self._finite

    def _tell(self, status: int) -> str:
        if self._hung:
            why, self._hung = f"the engine hung ({self._hung}) and was killed", ""
            return why
        if status < 0:
            return f"the engine was killed by {_signal_name(-status)}"
        told = self.watch.stopped.values.get("why") if self.watch.stopped else None
        words = told or (self.engine.last_words if self.engine else "")
        return f"the engine ended with code {status}" + (f": {words}" if words else "")

    def _give_up_or_not(self, status: int) -> None:
        fatal = FATAL + (FATAL_WHEN_FINITE if self._finite else ())
        why = self.why or ""
        if status in fatal:
            raise EdgeError(why, ExitCode(status))
        if self._finite and self.starts >= FINITE_STARTS:
            known = status in (ExitCode.UNAVAILABLE, ExitCode.BUG)
            raise EdgeError(
                f"{why}; given up after {self.starts} starts",
                ExitCode(status) if known else ExitCode.BUG,
            )

    def _window_s(self) -> float:
        """How long to wait so that no PER_S holds more than STARTS starts."""
        now = time.monotonic()
        while self._begun and self._begun[0] < now - PER_S:
            self._begun.popleft()
        return self._begun[0] + PER_S - now if len(self._begun) >= STARTS else 0.0


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
