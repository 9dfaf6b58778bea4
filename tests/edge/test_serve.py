# SPDX-License-Identifier: Apache-2.0
"""`posewire serve` end to end: a real daemon process and a real Mosquitto, faults injected."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from posewire.edge.machine import memory_mb

POSES, DOOR = "posewire/n1/door/poses", "posewire/n1/door/status"
STATUS, INFO, HEALTH = "posewire/n1/status", "posewire/n1/info", "posewire/n1/health"
CAMERA = "rtsp://user:secret@127.0.0.1:1/never"  # endless; the fake engine opens nothing
FAST = "[engine]\nheartbeat_s = 1.0\nstart_timeout_s = 3.0\n[health]\ninterval_s = 0.3"

Make = Callable[..., Any]
Wait = Callable[..., None]


def test_a_finite_source_from_end_to_end(
    broker: Any, subscribe: Make, serve: Make, wait_for: Wait
) -> None:
    heard = subscribe(broker)
    daemon = serve(broker, {"frames": 200, "fps": 0, "first": "garbage"}, rest=FAST)
    assert daemon.ends() == 0
    wait_for(lambda: heard.last(STATUS) == {"state": "stopped"}, "stopped")
    assert heard.flaws == []
    assert [body["seq"] for body in heard.payloads(POSES)] == list(range(200))
    assert [body["state"] for body in heard.payloads(STATUS)] == ["online", "stopped"]
    assert [body["state"] for body in heard.payloads(DOOR)] == ["offline", "online", "ended"]
    assert heard.last(INFO)["skeleton"]["limbs"]
    assert heard.last(HEALTH)["rejected"] == 11
    _, _, retain, properties = next(got for got in heard.got if got[0] == POSES)
    assert not retain
    assert properties.ContentType == "application/json"
    assert properties.MessageExpiryInterval <= 2


def test_state_is_retained_and_poses_are_not(broker: Any, subscribe: Make, serve: Make) -> None:
    assert serve(broker, {"frames": 5}).ends() == 0
    heard = subscribe(broker)
    time.sleep(0.3)
    states = {topic: retain for topic, _, retain, _ in heard.got}
    assert states == {STATUS: True, INFO: True, DOOR: True}
    assert heard.last(STATUS) == {"state": "stopped"}
    assert heard.last(DOOR)["state"] == "ended"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_signal_ends_it_cleanly(
    broker: Any, subscribe: Make, serve: Make, wait_for: Wait, number: int, code: int
) -> None:
    heard = subscribe(broker)
    daemon = serve(broker, {"frames": None}, uri=CAMERA)
    wait_for(lambda: heard.count(POSES), "poses")
    daemon.process.send_signal(number)
    assert daemon.ends() == code
    wait_for(lambda: heard.last(STATUS) == {"state": "stopped"}, "stopped")
    assert "secret" not in daemon.said()


def test_the_last_will_after_sigkill_and_no_engine_is_left(
    broker: Any, subscribe: Make, serve: Make, wait_for: Wait, tmp_path: Path
) -> None:
    heard = subscribe(broker)
    daemon = serve(broker, {"frames": None}, uri=CAMERA)
    wait_for(lambda: heard.count(POSES), "poses")
    daemon.process.kill()
    wait_for(lambda: heard.last(STATUS) == {"state": "offline"}, "the last will", 3)
    wait_for(lambda: not _engines(tmp_path), "the engine ends with its daemon", 5)


def _engines(folder: Path) -> str:
    """Process ids of fake engines of this test; they carry its folder in their environment."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (
                b"fake_engine.py" in (process / "cmdline").read_bytes()
                and str(folder).encode() in (process / "environ").read_bytes()
            ):
                found.append(process.name)
        except OSError:
            continue
    return " ".join(found)


@pytest.mark.parametrize("fault", ["crash", "kill", "hang", "stuck"])
def test_an_engine_that_fails_is_started_again(
    broker: Any, subscribe: Make, serve: Make, wait_for: Wait, fault: str
) -> None:
    heard = subscribe(broker)
    plans = {"frames": 10, "then": fault}, {"frames": None}
    serve(broker, *plans, uri=CAMERA, rest=FAST)
    wait_for(lambda: heard.count(POSES) > 40, "poses of the second engine", 15)
    states = [body["state"] for body in heard.payloads(DOOR)]
    assert states == ["offline", "online", "offline", "online"]
    wait_for(lambda: heard.last(HEALTH)["engine"]["starts"] == 2, "health tells of the restart")
    assert heard.last(HEALTH)["engine"]["hangs"] == (fault in ("hang", "stuck"))
    assert [body["state"] for body in heard.payloads(STATUS)] == ["online"]
    assert heard.flaws == []


def test_an_engine_that_never_gets_ready_is_killed(
    broker: Any, subscribe: Make, serve: Make, wait_for: Wait
) -> None:
    heard = subscribe(broker)
    serve(broker, {"first": "hang"}, {"frames": None}, uri=CAMERA, rest=FAST)
    wait_for(lambda: heard.count(POSES), "poses of the second engine", 15)


def test_an_engine_that_ignores_sigterm_is_killed(
    broker: Any, subscribe: Make, serve: Make, wait_for: Wait
) -> None:
    heard = subscribe(broker)
    daemon = serve(broker, {"frames": 5, "then": "deaf"}, uri=CAMERA)
    wait_for(lambda: heard.count(POSES) == 5, "poses")
    daemon.process.terminate()
    assert daemon.ends(25) == 0
    wait_for(lambda: heard.last(STATUS) == {"state": "stopped"}, "stopped")


@pytest.mark.parametrize("code", [64, 65, 78])
def test_what_waiting_does_not_mend_is_not_retried(broker: Any, serve: Make, code: int) -> None:
    daemon = serve(broker, {"first": f"exit {code} door: no such thing"}, uri=CAMERA)
    assert daemon.ends() == code
    assert daemon.starts.read_bytes() == b"!"
    last = daemon.said().splitlines()[-1]
    assert last == f"posewire: error: the engine ended with code {code}: door: no such thing"


def test_a_missing_file_ends_a_daemon_of_files(broker: Any, serve: Make) -> None:
    daemon = serve(broker, {"first": "exit 66 clip.mp4: no such file"}, uri="clip.mp4")
    assert daemon.ends() == 66
    assert "clip.mp4" in daemon.said().splitlines()[-1]


def test_an_absent_camera_is_waited_for(
    broker: Any, subscribe: Make, serve: Make, wait_for: Wait
) -> None:
    heard = subscribe(broker)
    plans = {"first": "exit 66 door: no such device"}, {"frames": None}
    daemon = serve(broker, *plans, uri="v4l2:/dev/video99")
    wait_for(lambda: heard.count(POSES), "poses once the camera is there", 15)
    states = heard.payloads(DOOR)
    assert {"state": "offline", "why": states[-2].get("why")} == states[-2]
    assert daemon.process.poll() is None


def test_a_broker_that_comes_late(
    make_broker: Make, subscribe: Make, serve: Make, wait_for: Wait
) -> None:
    broker = make_broker()
    daemon = serve(broker, {"frames": 50, "fps": 0})
    time.sleep(2.0)
    assert daemon.starts.read_bytes() == b""  # files are not played to nobody
    broker.start()
    heard = subscribe(broker)
    assert daemon.ends() == 0
    wait_for(lambda: heard.count(POSES) == 50, "every frame")


def test_a_broker_that_refuses_is_asked_again(
    make_broker: Make, serve: Make, wait_for: Wait, tmp_path: Path
) -> None:
    (tmp_path / "users").write_text("")
    (tmp_path / "wrong").write_text("guess\n")
    broker = make_broker(f"password_file {tmp_path / 'users'}")
    broker.start()
    keys = 'username = "me"\npassword_file = "wrong"'
    daemon = serve(broker, {"frames": None}, uri=CAMERA, mqtt=keys)
    wait_for(lambda: "refuses us: Not authorized" in daemon.said(), "the reason in the log")
    time.sleep(1.0)
    assert daemon.process.poll() is None
    assert daemon.starts.read_bytes() == b"!"  # it keeps inferring
    assert "guess" not in daemon.said()


def test_a_password_that_is_right(
    make_broker: Make, serve: Make, wait_for: Wait, tmp_path: Path
) -> None:
    users = tmp_path / "users"
    users.write_text("me:secret\n")
    subprocess.run(["mosquitto_passwd", "-U", str(users)], check=True)
    os.chmod(users, 0o644)
    (tmp_path / "right").write_text("secret\n")
    broker = make_broker(f"password_file {users}")
    broker.start()
    daemon = serve(broker, {"frames": 5}, mqtt='username = "me"\npassword_file = "right"')
    assert daemon.ends() == 0


def test_retained_state_comes_back_with_a_broker_that_forgot_it(
    broker: Any, subscribe: Make, serve: Make, wait_for: Wait
) -> None:
    heard = subscribe(broker)
    serve(broker, {"frames": None}, uri=CAMERA)
    wait_for(lambda: heard.count(POSES), "poses")
    broker.stop()
    heard.close()
    time.sleep(1.0)
    broker.start()
    again = subscribe(broker)
    wait_for(lambda: {got[0] for got in again.got} >= {STATUS, INFO, DOOR, POSES}, "all topics", 15)
    assert again.last(STATUS) == {"state": "online"}
    assert again.flaws == []


def test_a_stalled_broker_costs_no_memory_and_is_noticed(
    broker: Any, subscribe: Make, serve: Make, wait_for: Wait
) -> None:
    heard = subscribe(broker)
    plan = {"frames": None, "fps": 800, "people": 15}
    daemon = serve(broker, plan, uri=CAMERA, rest=FAST)
    wait_for(lambda: heard.count(POSES) > 100, "poses")
    before = memory_mb(daemon.process.pid)
    broker.send(signal.SIGSTOP)
    time.sleep(8.0)  # some 100 MB of poses
    after = memory_mb(daemon.process.pid)
    assert before is not None
    assert after is not None
    assert after - before < 20
    wait_for(lambda: "connection lost" in daemon.said(), "the stall is noticed", 60)
    seen = heard.count(POSES)
    broker.send(signal.SIGCONT)
    wait_for(lambda: heard.count(POSES) > seen + 100, "poses again", 25)
    wait_for(lambda: heard.last(HEALTH)["mqtt"]["dropped"] > 0, "drops are counted")


def test_a_stalled_broker_does_not_keep_it_from_ending(
    broker: Any, serve: Make, wait_for: Wait, subscribe: Make
) -> None:
    heard = subscribe(broker)
    daemon = serve(broker, {"frames": None}, uri="synthetic:?frames=100000")
    wait_for(lambda: heard.count(POSES), "poses")
    broker.send(signal.SIGSTOP)
    time.sleep(1.0)
    daemon.process.terminate()
    assert daemon.ends(20) == 0
