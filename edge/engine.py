# SPDX-License-Identifier: Apache-2.0
"""One engine process: started, read, stopped, killed. Nothing here decides what happens next."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import posewire
from posewire.errors import ExitCode

from .config import Camera, SinkFile
from .config import Engine as EngineKeys
from .errors import EdgeError
from .events import MAX_LINE_BYTES, Event, read_event

STOP_GRACE_S = 15.0  # after SIGTERM, for draining and finishing files

_log = logging.getLogger("engine")
_LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}


def engine_command() -> list[str]:
    """The engine that was installed with this package, or $POSEWIRE_ENGINE (developers' builds).

    Raises PosewireError (UNAVAILABLE) where it is missing.
    """
    chosen = os.environ.get("POSEWIRE_ENGINE")
    if not chosen:
        return [str(posewire.engine_path())]
    if not os.access(chosen, os.X_OK):
        raise EdgeError(f"POSEWIRE_ENGINE: {chosen} is no program", ExitCode.UNAVAILABLE)
    return [chosen]


def write_engine_config(
    folder: Path,
    *,
    node: str,
    bundle: Path,
    cameras: Mapping[str, Camera],
    keys: EngineKeys,
    sinks: Sequence[SinkFile] = (),
    show: bool = False,
    retry: bool = True,
) -> Path:
    """``retry`` false: a camera that fails ends the engine instead of being tried for ever.

    Writes ``engine.json`` (mode 0600: camera addresses hold passwords) and returns its path.

    Raises EdgeError (CANNOT_WRITE).
    """
    value: dict[str, Any] = {
        "schema": 1,
        "node": node,
        "bundle": str(bundle.absolute()),
        "requests": keys.requests,
        "threads": keys.threads,
        "max_batch": keys.max_batch,
        "min_score": keys.min_score,
        "sources": [
            {
                "camera": name,
                "uri": camera.uri,
                "policy": camera.policy,
                "loop": camera.loop,
                "fps": camera.fps,
                "realtime": camera.realtime,
                "timeout_ms": camera.timeout_ms,
            }
            for name, camera in cameras.items()
        ],
        "sinks": [{"kind": "events"}],
        "stats_interval_ms": 1000,
        "retry": retry,
    }
    value["sinks"] += [{"kind": sink.kind, "path": str(sink.path)} for sink in sinks]
    value["sinks"] += [{"kind": "show"}] if show else []
    path = folder / "engine.json"
    aside = folder / f"engine.json.{os.getpid()}"
    try:
        aside.unlink(missing_ok=True)
        descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            json.dump(value, file, indent=1)
        os.replace(aside, path)
    except OSError as error:
        raise EdgeError(f"{path}: {error.strerror}", ExitCode.CANNOT_WRITE) from None
    return path


class Engine:
    """A child that speaks the protocol of events.py.

    ``on_event`` runs on the reading thread, one event at a time; while it blocks, the child is
    held back by its full pipe and :meth:`silent_s` stands still. It raises ValueError for an event
    that makes no sense.
    """

    def __init__(
        self, command: Sequence[str], config: Path, on_event: Callable[[Event], None]
    ) -> None:
        self._command = [*command, "--config", str(config)]
        self._on_event = on_event
        self._child: subprocess.Popen[bytes] | None = None
        self._threads: list[threading.Thread] = []
        self._heard_s = time.monotonic()
        self._handing = False
        self._gone_s = 0.0
        self.rejected = 0  # lines that were no event
        self.last_words = ""  # the last line it logged

    def start(self) -> None:
        """Raises EdgeError (UNAVAILABLE) when the program cannot be started."""
        try:
            self._child = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,  # Ctrl-C is ours to pass on, so that it drains
            )
        except OSError as error:
            raise EdgeError(
                f"{self._command[0]}: cannot start: {error.strerror}", ExitCode.UNAVAILABLE
            ) from None
        self._heard_s = time.monotonic()
        for target, stream in ((self._read, self._child.stdout), (self._hear, self._child.stderr)):
            assert stream is not None
            thread = threading.Thread(target=target, args=(stream,), name="engine", daemon=True)
            thread.start()
            self._threads.append(thread)

    @property
    def pid(self) -> int | None:
        return self._child.pid if self._child and self._child.poll() is None else None

    def ended(self) -> int | None:
        """The exit status once the process has ended and its last line is read, else None."""
        if self._child is None or self._child.poll() is None:
            return None
        self._gone_s = self._gone_s or time.monotonic()
        reading = any(thread.is_alive() for thread in self._threads)
        # A grandchild may keep the pipes open: what is unread a while after the end, stays so.
        if reading and (self._handing or time.monotonic() - self._gone_s < 5.0):
            return None
        return self._child.returncode

    def silent_s(self) -> float:
        """How long it has said nothing, while we were listening."""
        return 0.0 if self._handing else time.monotonic() - self._heard_s

    def terminate(self) -> None:
        """Asks it to drain and end."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """Ends it and whatever it started."""
        self._signal(signal.SIGKILL)

    def _signal(self, number: int) -> None:
        if self.pid is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, number)

    def _read(self, stream: IO[bytes]) -> None:
        with contextlib.closing(stream):
            while line := stream.readline(MAX_LINE_BYTES):
                whole = line.endswith(b"\n")
                while not whole:  # too long, or cut off by the end
                    rest = stream.readline(MAX_LINE_BYTES)
                    if not rest:
                        break
                    whole = rest.endswith(b"\n")
                    line = b"\0"  # not an event, whatever it began with
                self._take(line)

    def _take(self, line: bytes) -> None:
        self._heard_s = time.monotonic()
        try:
            event = read_event(line)
            self._handing = True
            self._on_event(event)
        except (ValueError, RecursionError) as error:
            self.rejected += 1
            if self.rejected in (1, 10, 100) or self.rejected % 1000 == 0:
                _log.warning("a line that is no event (%d so far): %s", self.rejected, error)
        except Exception:
            _log.exception("an event was not handled")
        finally:
            self._heard_s = time.monotonic()
            self._handing = False

    def _hear(self, stream: IO[bytes]) -> None:
        with contextlib.closing(stream):
            while line := stream.readline(8192):
                text = line.decode("utf-8", "replace").strip()
                if not text:
                    continue
                self.last_words = text
                level, _, rest = text.partition(" ")
                if level in _LEVELS:
                    _log.log(_LEVELS[level], "%s", rest)
                else:
                    _log.info("%s", text)
