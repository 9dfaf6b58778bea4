# SPDX-License-Identifier: Apache-2.0
"""What the daemon does about `posewire update`: prepare, exchange, watch, and take back.

A wish is noticed within a second. Its bundle is compiled and judged beside the running engine, by
the same child process that compiles at start (prepare.py): what is not compiled or does not pass
its gate never runs. Then one rename makes it the current one, and the engine is started anew. It is
on trial until it has been ready for ``trial_s`` seconds without ending, hanging, or taking frames
and finishing none; a camera that is away proves nothing against it. Otherwise the previous bundle
runs again. A trial that the daemon itself does not survive (a power cut, a driver that takes the
machine down) is begun again at most ``STARTS`` times.

All methods are called by the daemon's main thread; only the compilation has one of its own.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from posewire.bundle import read_manifest
from posewire.errors import BundleError, ExitCode, PosewireError

from .slots import CONFIG, PREVIOUS, Outcome, Slots, State, Store, Wish, identity_of
from .supervisor import Supervisor

STARTS = 3
LOOK_S = 1.0

_log = logging.getLogger("update")

Prepare = Callable[[Path, Callable[[], bool]], Path]


class Updates:
    """The exchange of one node's bundle.

    ``prepare(bundle, stopping)`` compiles, and returns the compiled bundle; it runs on a thread.
    ``tell(outcome)`` is called whenever an update gets on.
    """

    def __init__(
        self,
        store: Store,
        config_bundle: Path,
        *,
        prepare: Prepare,
        trial_s: float,
        tell: Callable[[Outcome], None],
    ) -> None:
        self._store, self._config_bundle = store, config_bundle
        self._prepare, self._trial_s, self._tell = prepare, trial_s, tell
        self._slots = Slots()
        self._looked_s = float("-inf")
        self._ready_s: float | None = None
        self._failed: str | None = None
        self._preparing: _Preparing | None = None

    @property
    def last(self) -> Outcome | None:
        """The newest update, for `info`."""
        return self._slots.last

    @property
    def on_trial(self) -> bool:
        return self._slots.trial is not None

    @property
    def of_config(self) -> bool:
        """Whether the config's own bundle runs: there is nothing to go back to."""
        return self._slots.current == CONFIG

    def choose(self) -> Path:
        """The bundle to start with. Counts the start of one that is on trial, and takes it back
        after too many."""
        self._slots = slots = self._store.slots()
        here = identity_of(self._config_bundle)
        if here and slots.config != here and slots.current != CONFIG:
            _log.warning("the config names another bundle than before: it takes over")
            self._slots = Slots(config=here, last=slots.last)
            self._store.write(self._slots)
        elif slots.trial is not None:
            if slots.trial >= STARTS:
                return self.take_back(f"was not healthy in {slots.trial} starts")
            self._slots = replace(slots, trial=slots.trial + 1)
            self._store.write(self._slots)
        self._store.sweep()
        return self._path(self._slots.current)

    @property
    def preparing(self) -> bool:
        """Whether a bundle is being compiled."""
        return self._preparing is not None and not self.must_end()

    def must_end(self) -> bool:
        """Whether the engine is to end, because the bundle changes."""
        ready = self._preparing is not None and self._preparing.made is not None
        return self._failed is not None or ready

    def engine_failed(self, why: str) -> None:
        """The engine ended or hung. On trial that is enough."""
        if self.on_trial and self._failed is None:
            self._failed = why

    def look(self, supervisor: Supervisor | None) -> None:
        """To be called all the time; does something once a second."""
        now = time.monotonic()
        if now - self._looked_s < LOOK_S:
            return
        self._looked_s = now
        if self.on_trial:
            if supervisor is not None:
                self._judge(supervisor, now)
        elif self._preparing is not None:
            self._see_whether_prepared()
        elif (wish := self._store.wish()) is not None:
            self._begin(wish)

    def engine_starts(self) -> None:
        """Another engine is about to be started: its trial begins."""
        self._ready_s, self._failed = None, None

    @property
    def failed(self) -> str | None:
        """Why the bundle on trial is to be taken back."""
        return self._failed

    def exchange(self) -> Path:
        """The prepared bundle is the current one, on trial; returns it, compiled. After must_end()
        where nothing has failed."""
        done, self._preparing = self._preparing, None
        assert done is not None
        assert done.made is not None
        self._slots = replace(
            self._slots,
            config=identity_of(self._config_bundle),
            current=done.identity,
            previous=self._slots.current,
            trial=1,
        )
        self._say(done.outcome, "trial")
        self._store.settle()
        return done.made

    def take_back(self, why: str) -> Path:
        """The previous bundle is the current one again; returns where it lies, portable."""
        slots = self._slots
        back = slots.previous or CONFIG
        self._slots = replace(slots, current=back, previous=None, trial=None)
        last = slots.last or Outcome("", slots.current, "", "trial")
        self._say(last, "rolled_back", why)
        self._store.settle()
        return self._path(back)

    def finished(self) -> None:
        """Finite sources have ended well: the bundle has proved itself."""
        if self.on_trial:
            self._confirm()

    def close(self) -> None:
        """Ends a compilation that is going on; it is begun again at the next start."""
        if self._preparing is not None:
            self._preparing.stop()
            self._preparing = None

    def _path(self, identity: str) -> Path:
        return self._config_bundle if identity == CONFIG else self._store.bundle(identity)

    def _begin(self, wish: Wish) -> None:
        identity = wish.bundle
        if identity == PREVIOUS:
            identity = self._slots.previous or ""
        outcome = Outcome(wish.ticket, identity, "", "preparing")
        path = self._path(identity)
        try:
            if not identity:
                raise BundleError("there is no previous bundle")
            manifest = read_manifest(path)
            outcome = replace(outcome, name=f"{manifest.name}@{manifest.version}")
        except BundleError as error:
            self._reject(outcome, str(error))
            return
        if identity == self._slots.current:
            self._say(outcome, "confirmed", "it runs already")
            self._store.settle()
            return
        last = self._slots.last
        if last is not None and last.ticket == wish.ticket and last.state == "preparing":
            outcome = replace(outcome, tries=last.tries + 1)
            if last.tries >= STARTS:
                self._reject(outcome, f"was begun {last.tries} times and never ended")
                return
        _log.info("%s: prepared beside the running engine", outcome.name)
        self._say(outcome, "preparing")
        self._preparing = _Preparing(identity, outcome, path, self._prepare)

    def _see_whether_prepared(self) -> None:
        preparing = self._preparing
        if preparing is None or preparing.error is None:
            return
        self._preparing = None
        self._reject(preparing.outcome, preparing.error)

    def _reject(self, outcome: Outcome, why: str) -> None:
        self._say(outcome, "rejected", why)
        self._store.settle()
        self._store.sweep()

    def _judge(self, supervisor: Supervisor, now: float) -> None:
        if supervisor.state != "running":
            self._ready_s = None
            return
        if self._ready_s is None:
            self._ready_s = now
        if now - self._ready_s < self._trial_s:
            return
        rows = supervisor.watch.stats.get("cameras", ())
        taken = sum(row["captured"] - row["dropped"] for row in rows)
        finished = sum(row["published"] for row in rows)
        if taken > 0 and finished == 0:
            self._failed = f"{taken} frames taken in {self._trial_s:g} s, none finished"
        else:
            self._confirm()

    def _confirm(self) -> None:
        self._slots = replace(self._slots, trial=None)
        self._say(self._slots.last or Outcome("", self._slots.current, "", "trial"), "confirmed")
        self._store.sweep()

    def _say(self, outcome: Outcome, state: State, why: str | None = None) -> None:
        """Written down first, then told."""
        outcome = replace(outcome, state=state, why=why)
        self._slots = replace(self._slots, last=outcome)
        self._store.write(self._slots)
        level = logging.ERROR if state in ("rejected", "rolled_back") else logging.INFO
        _log.log(level, "%s: %s%s", outcome.name, state, f": {why}" if why else "")
        self._tell(outcome)


class _Preparing:
    """A compilation on its own thread. ``made`` or ``error`` is set when it is over."""

    def __init__(self, identity: str, outcome: Outcome, path: Path, prepare: Prepare) -> None:
        self.identity, self.outcome = identity, outcome
        self.made: Path | None = None
        self.error: str | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(
            target=self._run, args=(path, prepare), name="prepare", daemon=True
        )
        self._thread.start()

    def _run(self, path: Path, prepare: Prepare) -> None:
        try:
            self.made = prepare(path, self._stopping.is_set)
        except PosewireError as error:
            if error.code != ExitCode.INTERRUPTED:
                self.error = str(error)
        except Exception as error:  # ours to mend, but no reason to end the daemon
            _log.exception("an update was not prepared")
            self.error = f"{type(error).__name__}: {error}"

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join(12.0)  # the child gets SIGTERM, then SIGKILL
