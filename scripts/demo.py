# SPDX-License-Identifier: Apache-2.0
"""What scripts/demo.sh runs: broker, daemon and subscriber, each the real one, and what they leave.

    demo-out/poses.jsonl    the MQTT messages as received, one a line
    demo-out/annotated.mp4  the engine's video sink
    demo-out/frames.png     some frames of it on one sheet

The outputs are made in a folder beside and take their names only when they are whole.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from posewire.cli import out
from posewire.edge.config import Camera
from posewire.edge.link import Broker
from posewire.edge.listen import Listener, Pose
from posewire.edge.sources import absolute, frames_in, is_finite, path_of, redacted

import posewire
from posewire.errors import ExitCode, PosewireError

ROOT = Path(__file__).resolve().parent.parent
NODE, CAMERA = "demo", "camera"
NAMES = ("poses.jsonl", "annotated.mp4", "frames.png")
BROKER_S = 10.0  # for a broker to listen
LAST_WORDS_S = 10.0  # for what the daemon sent to arrive here, after its end
STOP_S = 40.0  # for a daemon that was asked to end


class Interrupt:
    """Ctrl-C and SIGTERM, counted: the first ends the demo cleanly, a second one does not wait."""

    def __init__(self) -> None:
        self.count = 0
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._on_signal)

    def _on_signal(self, *_: object) -> None:
        self.count += 1


def main() -> int:
    parser = argparse.ArgumentParser(prog="demo.sh", description="Poses over MQTT, all the way.")
    parser.add_argument("source", nargs="?", help="video, folder, v4l2:…, rtsp://…, synthetic:…")
    parser.add_argument("--bundle", type=Path, help="default: the one in models/")
    parser.add_argument("--precision", default="auto", help="fp32, bf16, int8 or auto")
    parser.add_argument("--out", type=Path, default=ROOT / "demo-out", help="default: demo-out/")
    try:
        options = parser.parse_args()
    except SystemExit as error:
        return ExitCode.USAGE if error.code else ExitCode.OK
    try:
        return demo(options, Interrupt())
    except PosewireError as error:
        out.error(str(error))
        return error.code
    except OSError as error:
        out.error(f"{error.filename}: {error.strerror}" if error.filename else str(error))
        return ExitCode.CANNOT_WRITE


def demo(options: argparse.Namespace, interrupt: Interrupt) -> int:
    """The whole demo; returns the exit code."""
    source = absolute(options.source or str(_shipped_clip()), Path.cwd())
    path = path_of(source)
    if path is not None and not path.exists():
        raise PosewireError(f"{options.source}: no such file or folder", ExitCode.SOURCE)
    bundle = (options.bundle or _reference_bundle()).absolute()
    final: Path = options.out.absolute()
    final.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=".making-", dir=final))
    try:
        with tempfile.TemporaryDirectory(prefix="posewire-demo-") as folder:
            code, subscriber = _show(
                source, bundle, options.precision, Path(folder), aside, interrupt
            )
        return _finish(code, subscriber, is_finite(Camera(uri=source)), aside, final, interrupt)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _show(
    source: str, bundle: Path, precision: str, folder: Path, aside: Path, interrupt: Interrupt
) -> tuple[int, Subscriber]:
    """Runs broker, subscriber and daemon until the source ends; returns the daemon's exit code."""
    finite = is_finite(Camera(uri=source))
    with mosquitto(folder) as broker, out.progress() as bar:
        task = bar.add_task("starting", total=frames_in(source), said="")
        subscriber = Subscriber(broker, aside / "poses.jsonl", bar, task)
        bar.console.print(
            f"source {redacted(source)}\nbundle {bundle}\nbroker {broker}",
            highlight=False,
            soft_wrap=True,
        )
        with subscriber, daemon(_config(folder, broker, bundle, precision, source, aside)) as child:
            logs = threading.Thread(target=_print_log, args=(child.stderr, bar.console))
            logs.start()
            asked_s = None
            while child.poll() is None:
                time.sleep(0.1)
                subscriber.show()
                if interrupt.count and asked_s is None:
                    asked_s = time.monotonic()
                    bar.update(task, description="ending")
                    child.terminate()
                if interrupt.count > 1 or (asked_s and time.monotonic() - asked_s > STOP_S):
                    child.kill()
            logs.join(2.0)
            subscriber.wait_for_the_end()
        done = "ended" if interrupt.count or child.returncode else "done"
        total = subscriber.messages if finite and done == "done" else None
        if total:
            bar.update(task, total=total)
        bar.update(task, description=done)
    return child.returncode, subscriber


def _finish(
    code: int, got: Subscriber, finite: bool, aside: Path, final: Path, interrupt: Interrupt
) -> int:
    """Puts the outputs in place, says what happened, and returns the exit code."""
    if code != 0:
        out.error(f"the daemon ended with exit code {code} (its reason is above)")
        return code if code > 0 else ExitCode.BUG
    if got.messages == 0:
        if interrupt.count:
            out.note("ended before the first frame; nothing was written")
            return ExitCode.INTERRUPTED
        out.error("no message arrived")
        return ExitCode.UNAVAILABLE
    if interrupt.count and finite and all((final / name).exists() for name in NAMES):
        out.note(f"interrupted: the whole results of an earlier run in {final} are left alone")
        return ExitCode.INTERRUPTED
    _contact_sheet(aside / "annotated.mp4", aside / "frames.png")
    for name in NAMES:
        os.replace(aside / name, final / name)
    out.note(
        f"{got.messages} messages, {got.people / got.messages:.2f} people a frame, "
        f"{got.fps():.1f} fps, latency {got.latency_ms():.0f} ms (median); see:"
    )
    for name in NAMES:
        print(final / name)
    if got.flaws or (finite and not interrupt.count and got.missing):
        out.error(f"{got.flaws} messages broke their schema, {got.missing} frames are missing")
        return ExitCode.NO
    return ExitCode.INTERRUPTED if interrupt.count and finite else ExitCode.OK


class Subscriber:
    """Listens on its own thread and connection; used as a context it is subscribed inside."""

    def __init__(self, broker: Broker, path: Path, bar: Any, task: Any) -> None:
        self._listener = Listener(
            broker, node=NODE, on_pose=self._on_pose, on_state=self._on_state, on_flaw=self._on_flaw
        )
        self._path, self._bar, self._task = path, bar, task
        self._thread = threading.Thread(target=self._run, name="subscriber")
        self._ready, self._ended, self._stop = (threading.Event() for _ in range(3))
        self._error: PosewireError | None = None
        self._latencies: list[float] = []
        self._lines: list[str] = []
        self._said = ""
        self._first_s = self._last_s = 0.0
        self.messages = self.people = self.flaws = self.missing = 0

    def __enter__(self) -> Subscriber:
        self._file: IO[bytes] = open(self._path, "wb")  # closed in __exit__
        self._thread.start()
        self._ready.wait(15.0)
        self.show()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._file.close()
        self.show()

    def show(self) -> None:
        """Prints the lines since the last call, in one go: a terminal is slower than a network.

        Raises what ended the thread too early."""
        if self._error is not None:
            raise self._error
        lines, self._lines = self._lines, []
        if lines:
            self._bar.console.print("\n".join(lines), highlight=False, markup=False, soft_wrap=True)
            self._bar.update(
                self._task, description="running", completed=self.messages, said=self._said
            )

    def wait_for_the_end(self) -> None:
        """Until the node's "stopped" has arrived: everything before it has, too."""
        if self.messages:
            self._ended.wait(LAST_WORDS_S)

    def fps(self) -> float:
        """Frames per second from the first message to the last."""
        span = self._last_s - self._first_s
        return (self.messages - 1) / span if span > 0 else 0.0

    def latency_ms(self) -> float:
        return sorted(self._latencies)[len(self._latencies) // 2]

    def _run(self) -> None:
        try:
            self._listener.run(self._stop.is_set, self._ready.set)
        except PosewireError as error:
            self._error = error
        self._ready.set()

    def _on_pose(self, pose: Pose) -> None:
        self._last_s = time.monotonic()
        self._first_s = self._first_s or self._last_s
        self._file.write(pose.payload + b"\n")
        self.messages += 1
        self.people += pose.people
        self.missing += pose.gap
        self._latencies.append(pose.latency_ms)
        self._said = f"{pose.fps or 0.0:6.1f} fps  {pose.people:2d} people"
        self._lines.append(pose.line())

    def _on_state(self, topic: str, state: dict[str, Any]) -> None:
        if topic == f"posewire/{NODE}/status" and state["state"] == "stopped":
            self._ended.set()

    def _on_flaw(self, topic: str, what: str) -> None:
        self.flaws += 1
        self._lines.append(f"{topic}: against its schema: {what}")


@contextlib.contextmanager
def mosquitto(folder: Path) -> Iterator[Broker]:
    """A private broker on a free loopback port, for as long as the context lasts."""
    program = shutil.which("mosquitto", path=os.environ.get("PATH", "") + ":/usr/sbin")
    if program is None:
        raise PosewireError("mosquitto is not installed", ExitCode.UNAVAILABLE)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    config, log = folder / "mosquitto.conf", folder / "mosquitto.log"
    config.write_text(
        f"listener {port} 127.0.0.1\nallow_anonymous true\npersistence false\n"
        "max_queued_messages 100000\nmax_inflight_messages 1000\nset_tcp_nodelay true\n"
    )
    with open(log, "wb") as lines:
        child = subprocess.Popen(
            [program, "-c", str(config)],
            stdin=subprocess.DEVNULL,
            stdout=lines,
            stderr=lines,
            start_new_session=True,
            preexec_fn=_end_with_us,
        )
    try:
        deadline = time.monotonic() + BROKER_S
        while not _listens(port):
            if child.poll() is not None or time.monotonic() > deadline:
                said = log.read_text("utf-8", "replace").strip().splitlines()[-1:]
                raise PosewireError(f"mosquitto: does not start: {said}", ExitCode.UNAVAILABLE)
            time.sleep(0.05)
        yield Broker("127.0.0.1", port)
    finally:
        _end(child)


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1.0):
        return True
    return False


@contextlib.contextmanager
def daemon(config: Path) -> Iterator[subprocess.Popen[bytes]]:
    """`posewire serve` as it would run anywhere; ended with the context."""
    child = subprocess.Popen(
        [sys.executable, "-m", "posewire.cli", "serve", str(config)],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,  # Ctrl-C comes from us, so that the last frames arrive
        preexec_fn=_end_with_us,
    )
    try:
        yield child
    finally:
        _end(child, STOP_S)


def _end_with_us() -> None:
    """In the child: SIGTERM when the demo dies, however it dies (PR_SET_PDEATHSIG of Linux)."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)


def _end(child: subprocess.Popen[bytes], seconds: float = 5.0) -> None:
    if child.poll() is None:
        child.terminate()
    try:
        child.wait(seconds)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def _config(
    folder: Path, broker: Broker, bundle: Path, precision: str, source: str, aside: Path
) -> Path:
    qos = 1 if is_finite(Camera(uri=source)) else 0
    path = folder / "posewire.toml"
    path.touch(mode=0o600)  # an RTSP address may hold a password
    quoted = {"bundle": bundle, "source": source, "video": aside / "annotated.mp4"}
    text = {name: json.dumps(str(value)) for name, value in quoted.items()}  # TOML's, too
    path.write_text(
        f"""node = "{NODE}"
[bundle]
path = {text["bundle"]}
precision = "{precision}"
[mqtt]
url = "mqtt://{broker.host}:{broker.port}"
qos = {qos}
[cameras.{CAMERA}]
uri = {text["source"]}
[[sinks]]
kind = "video"
path = {text["video"]}
"""
    )
    return path


def _print_log(stream: IO[bytes], console: Any) -> None:
    for line in stream:
        console.print(
            line.decode("utf-8", "replace").rstrip(), style="dim", markup=False, soft_wrap=True
        )


def _reference_bundle() -> Path:
    found = sorted(path.parent for path in (ROOT / "models").glob("*/manifest.json"))
    if not found:
        raise PosewireError("models/ holds no bundle; name one with --bundle", ExitCode.BUNDLE)
    return found[0]


def _shipped_clip() -> Path:
    clip = Path(str(posewire.__file__)).parent / "assets" / "demo.mp4"
    if not clip.is_file():
        raise PosewireError(f"{clip}: the shipped clip is missing; name a SOURCE", ExitCode.SOURCE)
    return clip


def _contact_sheet(video: Path, sheet: Path, columns: int = 4, rows: int = 3) -> None:
    """Frames of the video, evenly spaced in time, each with its number, on one picture."""
    import cv2
    import numpy as np

    reader = cv2.VideoCapture(str(video))
    count = int(reader.get(cv2.CAP_PROP_FRAME_COUNT))
    wanted = np.unique(np.linspace(0, max(count - 1, 0), columns * rows).round().astype(int))
    pictures = []
    for number in wanted:
        reader.set(cv2.CAP_PROP_POS_FRAMES, int(number))
        good, picture = reader.read()
        if not good:
            continue
        size = (480, max(1, round(480 * picture.shape[0] / picture.shape[1])))
        picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
        text = f"frame {number}"
        for colour, width in ((0, 0, 0), 3), ((255, 255, 255), 1):
            at = (8, size[1] - 10)  # the engine writes its own words at the top
            cv2.putText(picture, text, at, cv2.FONT_HERSHEY_SIMPLEX, 0.5, colour, width)
        picture = cv2.copyMakeBorder(picture, 2, 2, 2, 2, cv2.BORDER_CONSTANT, value=(255,) * 3)
        pictures.append(picture)
    reader.release()
    if not pictures:
        raise PosewireError(f"{video.name}: no frame can be read from it", ExitCode.BUG)
    blank = np.full_like(pictures[0], 32)
    pictures += [blank] * (-len(pictures) % columns)
    lines = [np.hstack(_row(pictures, row, columns)) for row in range(len(pictures) // columns)]
    if not cv2.imwrite(str(sheet), np.vstack(lines)):
        raise PosewireError(f"{sheet}: cannot be written", ExitCode.CANNOT_WRITE)


def _row(pictures: Sequence[Any], row: int, columns: int) -> list[Any]:
    return list(pictures[row * columns : (row + 1) * columns])


if __name__ == "__main__":
    sys.exit(main())
