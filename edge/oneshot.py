# SPDX-License-Identifier: Apache-2.0
"""One engine over one source, without a broker: what ``posewire run`` does."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from posewire.errors import ExitCode

from .config import Camera, SinkFile
from .config import Engine as EngineKeys
from .engine import STOP_GRACE_S, Engine, engine_command, write_engine_config
from .errors import EdgeError
from .events import Event
from .supervisor import Watch

SILENCE_S = 30.0  # frames are waiting and none is finished, or nothing is said: it hangs
START_S = 180.0
NODE, CAMERA = "local", "source"  # what the messages say


@dataclass
class Progress:
    """Counted from the frames that came out. ``people``: of the newest frame."""

    frames: int = 0
    people: int = 0
    people_in_all: int = 0
    ready_s: float | None = None  # monotonic, when the engine was ready
    last_s: float = 0.0
    size: tuple[int, int] | None = None  # width, height

    @property
    def fps(self) -> float:
        """Frames per second from the moment that the engine was ready."""
        if self.ready_s is None or self.last_s <= self.ready_s:
            return 0.0
        return self.frames / (self.last_s - self.ready_s)


def run_once(
    bundle: Path,
    camera: Camera,
    *,
    keys: EngineKeys,
    sinks: Sequence[SinkFile],
    show: bool,
    on_progress: Callable[[Progress], None],
    stopping: Callable[[], int],
) -> Progress:
    """Runs a compiled bundle over a source until it ends.

    ``stopping()``: 0 go on, 1 drain and end, 2 end at once; asked ten times a second. After 1 the
    outputs are whole up to the last finished frame. ``on_progress`` is called as often.
    Raises EdgeError with the engine's exit code and reason.
    """
    progress, watch = Progress(), Watch()

    def on_event(event: Event) -> None:
        watch.note(event)
        now = time.monotonic()
        if event.kind == "frame":
            progress.people = len(event.values.get("people", ()))
            progress.people_in_all += progress.people
            progress.frames += 1
            progress.last_s = now
        elif event.kind == "ready":
            progress.ready_s = now
        elif event.kind == "source" and event.values.get("width"):
            progress.size = event.values["width"], event.values["height"]

    with tempfile.TemporaryDirectory(prefix="posewire-") as folder:
        config = write_engine_config(
            Path(folder),
            node=NODE,
            bundle=bundle,
            cameras={CAMERA: camera},
            keys=keys,
            sinks=sinks,
            show=show,
            retry=False,
        )
        engine = Engine(engine_command(), config, on_event)
        engine.start()
        try:
            status = _until_ended(engine, watch, lambda: on_progress(progress), stopping)
        finally:
            engine.kill()
    if status != 0 and stopping() < 2:
        raise _failure(engine, watch, status)
    return progress


def _until_ended(
    engine: Engine, watch: Watch, tell: Callable[[], None], stopping: Callable[[], int]
) -> int:
    began_s = time.monotonic()
    asked_s: float | None = None
    while (status := engine.ended()) is None:
        time.sleep(0.1)
        tell()
        now = time.monotonic()
        if stopping() and asked_s is None:
            asked_s = now
            engine.terminate()
        if stopping() > 1 or (asked_s is not None and now - asked_s > STOP_GRACE_S):
            engine.kill()
        late = not watch.ready and now - began_s > START_S
        stuck = watch.ready and max(engine.silent_s(), watch.stuck_s()) > SILENCE_S
        if asked_s is None and (late or stuck):
            engine.kill()
            raise EdgeError("the engine hung and was killed", ExitCode.BUG)
    tell()
    return status


def _failure(engine: Engine, watch: Watch, status: int) -> EdgeError:
    told = watch.stopped.values.get("why") if watch.stopped else None
    why = told or engine.last_words or f"the engine ended with status {status}"
    known = {int(code) for code in ExitCode}
    return EdgeError(why, ExitCode(status) if status in known else ExitCode.BUG)
