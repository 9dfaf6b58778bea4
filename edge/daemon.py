# SPDX-License-Identifier: Apache-2.0
"""``posewire serve``: the composition root. Config in, one engine and one MQTT session running.

Threads: the caller's runs the supervisor and everything periodic; ``mqtt`` owns the connection;
``engine`` (two per child) read what the child says. Events become messages on the reading thread,
so a pose waits for nobody but the ring.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

import posewire
from posewire.bundle import read_manifest
from posewire.errors import ExitCode, PosewireError
from posewire.manifest import Manifest

from . import messages
from .config import Config
from .engine import Engine, engine_command, write_engine_config
from .errors import EdgeError
from .events import Event
from .link import Broker
from .machine import memory_mb, temperature_c
from .mqtt import Publisher, broker_of
from .notify import Notifier
from .prepare import compiled_bundle
from .slots import Outcome, Store, state_folder
from .sources import is_finite, is_lossless
from .supervisor import Supervisor
from .updates import Updates

DRAIN_S = 10.0  # for poses of files that still wait when the last frame is done
GIVE_UP_S = 3.0  # after SIGTERM, poses of files wait no longer for a broker that is away

_log = logging.getLogger("daemon")


class Daemon:
    """One node. :meth:`run` is called once."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._topics = messages.Topics(config.node)
        self._notifier = Notifier()
        self._stopping_s: float | None = None
        self._interrupted = False
        self._began_s = time.monotonic()
        self._health_s = float("-inf")
        self._states: dict[str, messages.CameraState] = {}
        self._finite = all(is_finite(camera) for camera in config.active.values())
        self._publisher = Publisher(
            self._broker,
            config.node,
            client_id=config.mqtt.client_id,
            version=config.mqtt.version,
            qos=config.mqtt.qos,
            lossless=all(is_lossless(camera) for camera in config.active.values()),
        )
        self._supervisor: Supervisor | None = None
        self._starts = self._hangs = self._rejected = 0  # of earlier bundles' supervisors
        self._manifest: Manifest | None = None
        self._updates = Updates(
            Store(state_folder(config.bundle.state), config.node),
            config.bundle.path,
            prepare=self._prepared,
            trial_s=config.bundle.trial_s,
            tell=self._tell_update,
        )

    def run(self) -> ExitCode:
        """Returns when every source has ended or SIGTERM came (OK), or SIGINT (INTERRUPTED).

        Raises PosewireError for what waiting does not mend.
        """
        command = engine_command()
        broker = self._broker()  # a missing password file is an error now, not a line in a log
        broker.tls_context()
        if broker.tls and broker.insecure:
            _log.warning("mqtt.insecure: the broker's certificate is NOT verified")
        with self._signals(), _runtime_folder() as folder:
            self._publisher.start()
            try:
                self._announce_cameras("starting")
                self._work(command, folder)
            except EdgeError as error:
                if error.code != ExitCode.INTERRUPTED:
                    raise
            finally:
                self._notifier.stopping()
                drain_s = DRAIN_S if self._finite and not self._stopping() else 1.0
                if not self._publisher.close(drain_s):
                    _log.warning("not everything was sent before the end")
        figures = self._publisher.figures()
        _log.info("ended; %d poses sent, %d dropped", figures.published, figures.dropped)
        return ExitCode.INTERRUPTED if self._interrupted else ExitCode.OK

    def _work(self, command: list[str], folder: Path) -> None:
        """Bundle after bundle: the one to start with, then whatever updates bring or take back."""
        compiled = self._first_bundle()
        try:
            while True:
                self._run_bundle(compiled, command, folder)
                if self._stopping():
                    return
                if not self._updates.must_end():
                    self._updates.finished()
                    return
                failed = self._updates.failed
                if failed is None:
                    compiled = self._updates.exchange()
                else:
                    compiled = self._compiled(self._updates.take_back(failed))
        finally:
            self._updates.close()

    def _first_bundle(self) -> Path:
        """What ran last, compiled. Files are not interrupted by an update: they begin with it."""
        compiled = self._compiled(self._updates.choose())
        self._updates.look(None)
        while self._finite and self._updates.preparing and not self._stopping():
            self._extended_tick(0.1)
            self._updates.look(None)
        if self._finite and self._updates.must_end():
            return self._updates.exchange()
        return compiled

    def _run_bundle(self, bundle: Path, command: list[str], folder: Path) -> None:
        """One supervisor's life. What the engine of a bundle on trial ends with is no error."""
        _log.info("running %s", bundle)
        self._manifest = read_manifest(bundle)
        self._tell_info()
        config = write_engine_config(
            folder,
            node=self._config.node,
            bundle=bundle,
            cameras=self._config.active,
            keys=self._config.engine,
            sinks=self._config.sinks,
        )
        self._updates.engine_starts()
        self._supervisor = supervisor = Supervisor(
            lambda note: Engine(command, config, self._events(note)),
            heartbeat_s=self._config.engine.heartbeat_s,
            start_timeout_s=self._config.engine.start_timeout_s,
            finite=self._finite,
            on_down=self._engine_down,
        )
        self._notifier.ready(f"{len(self._config.active)} cameras")
        if self._finite:
            self._wait_for_broker()
        try:
            supervisor.run(lambda: self._stopping() or self._updates.must_end(), self._tick)
        except EdgeError as error:
            if not self._updates.on_trial:
                raise
            self._updates.engine_failed(str(error))
        finally:
            self._tell_health()  # the whole run's figures, however short it was
            self._starts += supervisor.starts
            self._hangs += supervisor.hangs
            self._rejected += supervisor.rejected
            self._supervisor = None

    def _compiled(self, path: Path) -> Path:
        """The bundle to run; a first compilation takes its time, and says so. An update's bundle
        that cannot be compiled any more (a new runtime, say) is taken back."""
        try:
            if read_manifest(path).target is None:
                _log.info("preparing %s for this machine (made once, then cached)", path)
            return self._prepared(path, self._stopping, self._extended_tick, self._tell_preparing)
        except PosewireError as error:
            mendable = error.code not in (ExitCode.BUNDLE, ExitCode.NO)
            if mendable or self._updates.of_config:
                raise
            return self._compiled(self._updates.take_back(str(error)))

    def _prepared(
        self,
        path: Path,
        stopping: Callable[[], bool],
        tick: Callable[[float], None] = time.sleep,
        say: Callable[[str], None] = lambda line: _log_compiler(line),
    ) -> Path:
        keys = self._config.bundle
        return compiled_bundle(
            path,
            target=keys.target,
            precision=keys.precision,
            stopping=stopping,
            tick=tick,
            say=say,
        )

    def _extended_tick(self, seconds: float) -> None:
        """While systemd waits for the start."""
        self._notifier.extend(60)
        self._tick(seconds)

    def _tell_preparing(self, line: str) -> None:
        """From the child's reading thread: how far the first compilation is, to all who watch."""
        _log_compiler(line)
        self._notifier.status(line)
        self._announce_cameras(line)

    def _wait_for_broker(self) -> None:
        """Files would be played to nobody; cameras are not waited for."""
        if not self._publisher.connected.is_set():
            _log.info("waiting for the broker before the files are played")
        while not self._publisher.connected.is_set() and not self._stopping():
            self._tick(0.1)

    def _events(self, note: Callable[[Event], None]) -> Callable[[Event], None]:
        def on_event(event: Event) -> None:
            note(event)
            if event.kind == "frame":
                self._on_frame(event)
            elif event.kind == "source":
                self._on_source(event)
            elif event.kind == "ready":
                _log.info(
                    "engine ready: %s, %s", event.values["runtime"], event.values["precision"]
                )
            # A warning stands in the engine's log, too, which is already ours.

        return on_event

    def _on_frame(self, event: Event) -> None:
        camera = event.values["camera"]
        if camera not in self._config.active:
            raise ValueError(f"frame: unknown camera {camera!r}")
        if self._states.get(camera) == "offline":
            self._camera(camera, "online")
        self._publisher.push(self._topics.poses(camera), event.payload, self._given_up)

    def _on_source(self, event: Event) -> None:
        camera, state = event.values["camera"], event.values["state"]
        if camera not in self._config.active or state not in ("online", "offline", "ended"):
            raise ValueError(f"source: unknown camera {camera!r} or state {state!r}")
        why = event.values.get("why") or None
        width, height = event.values.get("width"), event.values.get("height")
        size = (width, height) if width and height else None
        _log.info("camera %s is %s%s", camera, state, f": {why}" if why else "")
        self._camera(camera, state, why, size)

    def _camera(
        self,
        camera: str,
        state: messages.CameraState,
        why: str | None = None,
        size: tuple[int, int] | None = None,
    ) -> None:
        self._states[camera] = state
        self._publisher.retain(
            self._topics.camera_status(camera), messages.camera_status(state, why, size)
        )

    def _announce_cameras(self, why: str) -> None:
        for name, camera in self._config.cameras.items():
            if camera.enabled:
                self._camera(name, "offline", why)
            else:
                self._camera(name, "disabled")

    def _engine_down(self, why: str) -> None:
        self._updates.engine_failed(why)
        for name in self._config.active:
            self._camera(name, "offline", why)
        self._health_s = float("-inf")  # tell now

    def _tick(self, seconds: float) -> None:
        """Everything periodic; sleeps for at most ``seconds``."""
        now = time.monotonic()
        if now - self._health_s >= self._config.health.interval_s:
            self._health_s = now
            self._tell_health()
        if self._progressing():
            self._notifier.feed()
        if self._supervisor is not None and not self._finite:
            self._updates.look(self._supervisor)
        time.sleep(seconds)

    def _tell_info(self) -> None:
        if self._manifest is not None:
            self._publisher.retain(self._topics.info, self._info(self._manifest))

    def _tell_update(self, outcome: Outcome) -> None:
        self._notifier.status(f"update {outcome.name}: {outcome.state}")
        self._tell_info()

    def _tell_health(self) -> None:
        self._publisher.push(self._topics.health, self._health(), lambda: True)

    def _progressing(self) -> bool:
        """Supervisor turning, connection's thread turning, engine not overdue. A camera or broker
        that is away is no reason to be restarted; the supervisor restarts the engine by itself."""
        return self._publisher.alive(within_s=15.0)

    def _health(self) -> bytes:
        supervisor, figures = self._supervisor, self._publisher.figures()
        engine = supervisor.engine if supervisor else None
        return messages.health(
            self._config.node,
            messages.Health(
                uptime_s=time.monotonic() - self._began_s,
                state=supervisor.state if supervisor else "starting",
                starts=self._starts + (supervisor.starts if supervisor else 0),
                hangs=self._hangs + (supervisor.hangs if supervisor else 0),
                why=supervisor.why if supervisor else None,
                stats=supervisor.watch.stats if supervisor else {},
                published=figures.published,
                dropped=figures.dropped,
                queued_bytes=figures.queued_bytes,
                connects=figures.connects,
                rejected=self._rejected + (supervisor.rejected if supervisor else 0),
                temperature_c=temperature_c(),
                daemon_mb=memory_mb(os.getpid()),
                engine_mb=memory_mb(engine.pid) if engine and engine.pid else None,
            ),
        )

    def _info(self, manifest: Manifest) -> bytes:
        target = manifest.target
        if target is None:
            raise EdgeError(f"{manifest.name}: is not compiled", ExitCode.BUG)
        keys = self._config.mqtt
        model = messages.Model(
            name=manifest.name,
            version=manifest.version,
            sha256=manifest.sha256,
            runtime=target.runtime,
            runtime_version=target.runtime_version,
            device=target.device,
            precision=target.precision,
            skeleton=manifest.raw.get("skeleton"),
        )
        tls = ("insecure" if keys.insecure else "verified") if keys.tls else "off"
        cameras = list(self._config.cameras)
        last = self._updates.last
        update = messages.Update(last.state, last.name, last.why) if last else None
        return messages.info(self._config.node, posewire.__version__, model, cameras, tls, update)

    def _broker(self) -> Broker:
        return broker_of(self._config.mqtt)

    def _stopping(self) -> bool:
        return self._stopping_s is not None

    def _given_up(self) -> bool:
        since = self._stopping_s
        return since is not None and time.monotonic() - since > GIVE_UP_S

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        def on_signal(number: int, _frame: FrameType | None) -> None:
            if self._stopping_s is None:
                _log.info("%s: stopping", signal.Signals(number).name)
                self._stopping_s = time.monotonic()
                self._interrupted = number == signal.SIGINT

        old = {number: signal.signal(number, on_signal) for number in (15, 2)}
        try:
            yield
        finally:
            for number, handler in old.items():
                signal.signal(number, handler)


@contextlib.contextmanager
def _runtime_folder() -> Iterator[Path]:
    """systemd's $RUNTIME_DIRECTORY, else a private temporary one."""
    given = os.environ.get("RUNTIME_DIRECTORY", "").split(":")[0]
    if given:
        yield Path(given)
        return
    with tempfile.TemporaryDirectory(prefix="posewire-") as folder:
        yield Path(folder)


def _log_compiler(line: str) -> None:
    """The child's progress begins with what the logger is called."""
    logging.getLogger("compile").info(line.removeprefix("compile: "))
