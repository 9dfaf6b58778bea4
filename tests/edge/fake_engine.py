#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""An engine without eyes: speaks the event protocol and fails on demand.

FAKE_ENGINE holds a JSON list, one behaviour per start (the last one repeats), e.g.
``[{"frames": 20, "then": "hang"}, {"frames": 50}]``::

    frames   per camera; 0 = none, null = for ever      fps     of each camera; 0 = flat out
    people   in each frame                              first   what happens before "ready"
    then     end | hang (silent) | stuck (statistics go on, frames do not) | crash | kill |
             deaf (ignores SIGTERM) | exit CODE WHY… ; "end" ends well

FAKE_ENGINE_STARTS names a file to which each start adds a byte: its number for the next.
"""

import argparse
import json
import os
import signal
import sys
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any


def say(**event: Any) -> None:
    sys.stdout.write(json.dumps(event, separators=(",", ":")) + "\n")
    sys.stdout.flush()


def garbage() -> None:
    """What a driver that prints to stdout, or a broken engine, may send."""
    out = sys.stdout.buffer
    out.write(b"[driver] loaded\n\xff\xfe\x00\n" + b"[" * 5000 + b"\n{}\n\n")
    out.write(b'{"event":"frame","payload":{"camera":"door"}}\n{"event":"later"}\n')
    out.write(b'{"event":"frame","payload":{"camera":"door","seq":0,"x":NaN}}\n')
    out.write(b'{"event":"stats","operators":[{}],"cameras":[]}\n')
    out.write(b'{"event":"frame","payload":{"camera":"elsewhere","seq":0}}\n')
    out.write(b"x" * 5_000_000 + b"\n")
    out.flush()


def frame(node: str, camera: str, seq: int, people: str) -> str:
    now = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
    head = {
        "schema": "posewire.poses/1",
        "node": node,
        "camera": camera,
        "seq": seq,
        "t_capture": now.replace("+00:00", "Z"),
        "image": {"width": 640, "height": 480},
        "skeleton": "coco17",
        "model": {"id": "fake", "sha256": "ab12", "precision": "fp32"},
        "lat_ms": {"infer": 7.1, "total": 31.0},
    }
    payload = json.dumps(head, separators=(",", ":"))[:-1] + f',"people":{people}}}'
    return f'{{"event":"frame","payload":{payload}}}\n'


class Engine:
    def __init__(self, config: dict[str, Any], plan: dict[str, Any]) -> None:
        self.node = config["node"]
        self.cameras = [source["camera"] for source in config["sources"]]
        self.plan = plan
        self.frames = 0
        self.waiting = 0
        self.said_s = 0.0
        self.asked = False
        signal.signal(signal.SIGTERM, self.on_term)

    def on_term(self, *_: object) -> None:
        self.asked = self.plan.get("then") != "deaf"

    def stats(self) -> None:
        if time.monotonic() - self.said_s < 0.2:
            return
        self.said_s = time.monotonic()
        operator = {"name": "infer", "frames": self.frames, "busy_ms": 1.5, "depth": 0}
        say(
            event="stats",
            fps=10.0,
            latency_ms={"p50": 20.0, "p99": 31.0},
            operators=[{**operator, "dropped": 0, "more": "than the wire has"}],
            cameras=[
                {
                    "camera": camera,
                    "captured": self.frames + self.waiting,
                    "published": self.frames,
                    "dropped": 0,
                }
                for camera in self.cameras
            ],
        )

    def play(self) -> None:
        person = {"score": 0.9, "box": [0.1, 0.2, 0.3, 0.5], "kp": [0.25, 0.5, 0.75] * 17}
        people = json.dumps([person] * self.plan.get("people", 1), separators=(",", ":"))
        wanted, fps = self.plan.get("frames", 20), self.plan.get("fps", 100)
        while not self.asked and (wanted is None or self.frames < wanted):
            for camera in self.cameras:
                sys.stdout.write(frame(self.node, camera, self.frames, people))
                sys.stdout.flush()
            self.frames += 1
            self.stats()
            if fps:
                time.sleep(1 / fps)

    def run(self) -> int:
        first = self.plan.get("first", "")
        if first == "garbage":
            garbage()
        while first == "hang":
            time.sleep(0.1)
        if first.startswith("exit"):
            return self.end(first)
        say(event="ready", bundle="b", runtime="fake", requests=1, max_batch=1,
            skeleton="coco17", precision="fp32")  # fmt: skip
        for camera in self.cameras:
            say(event="source", camera=camera, state="online", width=640, height=480, why=None)
        say(event="warning", where="fake", what="this is a test")
        print("info fake: playing", file=sys.stderr, flush=True)
        self.play()
        then = "end" if self.asked else self.plan.get("then", "end")
        return self.end(then)

    def end(self, then: str) -> int:
        if then == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if then == "crash":
            print("error cuda: device lost", file=sys.stderr, flush=True)
            return 70
        if then.startswith("exit"):
            _, code, *why = then.split(" ", 2)
            say(event="stopped", code=int(code), frames=self.frames, why=" ".join(why))
            return int(code)
        self.waiting = 3
        while then in ("hang", "stuck", "deaf"):
            if then != "hang":
                self.stats()
            time.sleep(0.05)
        for camera in self.cameras:
            say(event="source", camera=camera, state="ended", width=640, height=480, why=None)
        say(event="stopped", code=0, frames=self.frames, why="")
        return 0


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--config", type=Path, required=True)
    config = json.loads(parser.parse_args().config.read_text())
    plans = json.loads(os.environ.get("FAKE_ENGINE", "[{}]"))
    starts = 0
    if name := os.environ.get("FAKE_ENGINE_STARTS"):
        with open(name, "ab") as file:
            starts = file.tell()
            file.write(b"!")
    return Engine(config, plans[min(starts, len(plans) - 1)]).run()


if __name__ == "__main__":
    sys.exit(main())
