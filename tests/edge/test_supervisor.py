# SPDX-License-Identifier: Apache-2.0
"""When an engine is started again, when not, and how patiently; without processes or waiting."""

from __future__ import annotations

import itertools
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from posewire.edge import supervisor as module
from posewire.edge.config import Camera
from posewire.edge.errors import EdgeError
from posewire.edge.events import Event
from posewire.edge.machine import memory_mb, temperature_c
from posewire.edge.notify import Notifier
from posewire.edge.sources import absolute, frames_in, is_finite, is_lossless, path_of, redacted
from posewire.edge.supervisor import Supervisor


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


class Engine:
    """Ends with a status after a while; ``events`` are told at its start."""

    last_words = "the last line"
    rejected = 0

    def __init__(self, clock: Clock, note: Callable[[Event], None], plan: dict[str, Any]) -> None:
        self.clock, self.note, self.plan = clock, note, plan
        self.end: int | None = None

    def start(self) -> None:
        self.until = self.clock.now + self.plan.get("lasts", 1.0)
        for kind, values in self.plan.get("events", [("ready", {})]):
            self.note(Event(kind, values))

    def ended(self) -> int | None:
        if self.end is None and self.clock.now >= self.until:
            self.end = self.plan.get("status", 70)
        return self.end

    def silent_s(self) -> float:
        return self.plan.get("silent", 0.001)

    def terminate(self) -> None:
        self.end = 0

    def kill(self) -> None:
        self.end = -9 if self.end is None else self.end


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


def supervise(
    clock: Clock, *plans: dict[str, Any], finite: bool = False, until_s: float = 1e6
) -> tuple[Supervisor, list[float]]:
    """The last plan repeats. Returns the supervisor and when each engine was made."""
    starts: list[float] = []

    def launch(note: Callable[[Event], None]) -> Any:
        starts.append(clock.now)
        return Engine(clock, note, plans[min(len(starts), len(plans)) - 1])

    def tick(seconds: float) -> None:
        clock.now += max(seconds, 0.01)

    one = Supervisor(launch, heartbeat_s=10.0, start_timeout_s=60.0, finite=finite)
    try:
        one.run(lambda: clock.now >= until_s, tick)
    finally:
        assert one.state == "stopped"
    return one, starts


ENDED = {"status": 0, "events": [("ready", {}), ("stopped", {"code": 0, "frames": 1})]}


def test_finite_sources_end(clock: Clock) -> None:
    _, starts = supervise(clock, ENDED, finite=True)
    assert len(starts) == 1


def test_cameras_do_not_end(clock: Clock) -> None:
    _, starts = supervise(clock, ENDED, until_s=20)
    assert len(starts) > 2


def test_the_back_off_grows(clock: Clock) -> None:
    _, starts = supervise(clock, {}, until_s=60)
    waits = [round(b - a - 1) for a, b in itertools.pairwise(starts)]
    assert waits == [1, 2, 4, 8, 16]


def test_a_long_healthy_run_starts_it_anew(clock: Clock) -> None:
    _, starts = supervise(clock, {}, {}, {}, {"lasts": 100.0}, {}, until_s=125)
    assert round(starts[4] - starts[3] - 100) == 1


def test_no_more_than_ten_starts_in_ten_minutes(clock: Clock) -> None:
    _, starts = supervise(clock, {"lasts": 0.1}, until_s=4000)
    for begin in starts:
        assert sum(begin <= other < begin + 600 for other in starts) <= 10
    assert starts[-1] > 3000  # and it never gives up


@pytest.mark.parametrize("code", [64, 65, 78])
def test_what_is_fatal(clock: Clock, code: int) -> None:
    with pytest.raises(EdgeError, match="the last line") as caught:
        supervise(clock, {"status": code})
    assert caught.value.code == code


@pytest.mark.parametrize("code", [66, 73])
def test_what_is_fatal_for_files_only(clock: Clock, code: int) -> None:
    with pytest.raises(EdgeError) as caught:
        supervise(clock, {"status": code}, finite=True)
    assert caught.value.code == code
    assert len(supervise(clock, {"status": code}, until_s=clock.now + 20)[1]) > 2


def test_files_are_given_up_after_a_few_crashes(clock: Clock) -> None:
    with pytest.raises(EdgeError, match="SIGSEGV; given up after 5 starts") as caught:
        supervise(clock, {"status": -11}, finite=True)
    assert caught.value.code == 70


@pytest.mark.parametrize(
    ("plan", "why"),
    [
        ({"lasts": 1e9, "events": []}, "not ready after 60 s"),
        ({"lasts": 1e9, "silent": 11.0}, "silent for 10 s"),
        (
            {
                "lasts": 1e9,
                "events": [
                    ("ready", {}),
                    ("stats", {"cameras": [{"captured": 5, "published": 1, "dropped": 1}]}),
                ],
            },
            "no frame finished for 10 s though some are waiting",
        ),
    ],
)
def test_hangs_are_seen(clock: Clock, plan: dict[str, Any], why: str) -> None:
    one, starts = supervise(clock, plan, {"lasts": 1e9, "events": [("ready", {})]}, until_s=200)
    assert (one.hangs, len(starts)) == (1, 2)


def test_an_idle_engine_does_not_hang(clock: Clock) -> None:
    stats = {"cameras": [{"captured": 5, "published": 4, "dropped": 1}]}

    class Idle(Engine):
        def ended(self) -> int | None:
            self.note(Event("stats", stats))
            return super().ended()

    starts = []

    def launch(note: Callable[[Event], None]) -> Any:
        starts.append(clock.now)
        return Idle(clock, note, {"lasts": 1e9})

    def tick(seconds: float) -> None:
        clock.now += max(seconds, 0.01)

    one = Supervisor(launch, heartbeat_s=10.0, start_timeout_s=60.0, finite=False)
    one.run(lambda: clock.now > 200, tick)
    assert (one.hangs, len(starts)) == (0, 1)


def test_notifications(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(str(tmp_path / "notify"))
        server.settimeout(5)
        notifier = Notifier(
            {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "30000000"}
        )
        assert notifier.watchdog_s == 30
        notifier.ready("1 camera")
        assert server.recv(100) == b"READY=1\nSTATUS=1 camera"
        notifier.feed()
        notifier.feed()  # too soon to be sent again
        notifier.stopping()
        assert server.recv(100) == b"WATCHDOG=1"
        assert server.recv(100) == b"STOPPING=1"


def test_notifications_outside_systemd_do_nothing() -> None:
    other = {"WATCHDOG_USEC": "1000", "WATCHDOG_PID": "1"}
    notifier = Notifier(other)
    assert notifier.watchdog_s is None
    notifier.ready("x")
    notifier.feed()


def test_the_machine(tmp_path: Path) -> None:
    for number, text in enumerate(("41500\n", "nonsense", "39000\n")):
        (tmp_path / f"thermal_zone{number}").mkdir()
        (tmp_path / f"thermal_zone{number}" / "temp").write_text(text)
    assert temperature_c(tmp_path) == 41.5
    assert temperature_c(tmp_path / "none") is None
    own = memory_mb(os.getpid())
    assert own is not None
    assert 5 < own < 5000
    assert memory_mb(2**22 + 1) is None


@pytest.mark.parametrize(
    ("uri", "finite", "lossless"),
    [
        ("clip.mp4", True, True),
        ("file:clip.mp4", True, True),
        ("./a:b.mp4", True, True),
        ("synthetic:?people=5", False, False),
        ("synthetic:?frames=5", True, True),
        ("synthetic:?frames=0", False, False),
        ("v4l2:/dev/video0", False, False),
        ("rtsp://camera/1", False, False),
        ("HTTP://camera/1", False, False),
    ],
)
def test_what_an_address_says(uri: str, finite: bool, lossless: bool) -> None:
    assert is_finite(Camera(uri=uri)) == finite
    assert is_lossless(Camera(uri=uri)) == lossless
    assert not is_finite(Camera(uri=uri, loop=True))
    assert is_lossless(Camera(uri=uri, policy="block"))


def test_paths_of_addresses(tmp_path: Path) -> None:
    assert path_of("file:///a/b.mp4") == Path("/a/b.mp4")
    assert path_of("rtsp://camera") is None
    assert absolute("a.mp4", tmp_path) == str(tmp_path / "a.mp4")
    assert absolute("file:a.mp4", tmp_path) == f"file:{tmp_path}/a.mp4"
    assert absolute("/a.mp4", tmp_path) == "/a.mp4"
    assert absolute("rtsp://a", tmp_path) == "rtsp://a"
    for name in ("1.jpg", "2.PNG", ".3.jpg", "4.txt"):
        (tmp_path / name).touch()
    assert frames_in(str(tmp_path)) == 2
    assert frames_in(str(tmp_path / "1.jpg")) == 1
    assert frames_in("synthetic:?people=1&frames=7") == 7
    assert frames_in("v4l2:/dev/video0") is None


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("rtsp://me:secret@host/1", "rtsp://***@host/1"),
        ("rtsp://me:sec@ret@host/1", "rtsp://***@host/1"),
        ("rtsp://host/a@b", "rtsp://host/a@b"),
    ],
)
def test_credentials_are_not_shown(uri: str, shown: str) -> None:
    assert redacted(uri) == shown
