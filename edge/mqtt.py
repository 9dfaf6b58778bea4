# SPDX-License-Identifier: Apache-2.0
"""The daemon's side of MQTT: a thread that stays connected and sends what it is given.

Policy (DESIGN 3.5 and 4): a last will; retained state is latest-only and published again after
every connect, so a broker may forget it; poses wait in a bounded ring and reach the library only
while it holds less than 64 KB; the wait between attempts is capped at 10 s, and grows only for
reasons that waiting mends. A broker that refuses us is a reason to wait, never to end.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from . import messages
from .config import Mqtt
from .errors import EdgeError
from .link import Broker, Link, LinkError
from .ring import MAX_BYTES, Ring

LIBRARY_BYTES = 64 * 1024
FIRST_DELAY_S, MAX_DELAY_S = 0.5, 10.0
REFUSED_DELAY_S = 10.0  # at most six attempts a minute with a wrong password
TAKEN_DELAY_S = 25.0  # two daemons with one name: at most three takeovers a minute
SHORT_ONES = 3  # connections lost so soon and so often: taken over, too
STABLE_S = 30.0  # a connection that lasted so long starts the back-off anew
HIGH_WATER_BYTES = MAX_BYTES // 8  # lossless: the sender waits above it

_log = logging.getLogger("mqtt")


def broker_of(keys: Mqtt) -> Broker:
    """The broker that a config names, the password read now. Raises EdgeError naming its file."""
    return Broker(
        host=keys.host,
        port=keys.port,
        tls=keys.tls,
        insecure=keys.insecure,
        ca_file=keys.ca_file,
        cert_file=keys.cert_file,
        key_file=keys.key_file,
        username=keys.username,
        password=keys.password(),
    )


@dataclass(frozen=True)
class Figures:
    """Counters since the start; queued_bytes is the moment's."""

    published: int
    dropped: int
    queued_bytes: int
    connects: int


class Publisher:
    """Every method but start and close may be called from any thread, and none of them blocks,
    except :meth:`push` when ``lossless``.

    ``lossless``: for sources that can wait (files): nothing is dropped, push() waits instead.
    """

    def __init__(
        self,
        broker: Callable[[], Broker],
        node: str,
        *,
        client_id: str | None = None,
        version: Literal["auto", "5", "3.1.1"] = "auto",
        qos: int = 0,
        lossless: bool = False,
    ) -> None:
        """``broker`` is asked before each attempt, so that a changed password is picked up."""
        self._broker = broker
        self._topics = messages.Topics(node)
        self._client_id = client_id or f"posewire-{node}"
        self._auto = version == "auto"
        self._version = "5" if self._auto else version
        self._qos = qos
        self._lossless = lossless
        self._ring = Ring(max_age_s=None) if lossless else Ring()
        self._lock = threading.Lock()
        self._retained: dict[str, bytes] = {}
        self._changed: set[str] = set()
        self._published = self._connects = 0
        self._link: Link | None = None
        self._closing = threading.Event()
        self._busy = False  # connecting: may block for longer than a tick
        self._ticked_s = time.monotonic()
        self._delay_s = FIRST_DELAY_S / 2
        self._short = 0  # connections lost soon after they were made, in a row
        self._drain_s = 0.0
        self.connected = threading.Event()
        self._thread = threading.Thread(target=self._run, name="mqtt", daemon=True)

    def start(self) -> None:
        """Returns at once; the connection is made in the background."""
        self._wake_out, self._wake_in = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._thread.start()

    def push(self, topic: str, payload: bytes, give_up: Callable[[], bool] = lambda: False) -> None:
        """A pose. Lossless: waits while more than 1 MB is waiting, or until give_up()."""
        while self._lossless and self._ring.queued_bytes > HIGH_WATER_BYTES:
            if self._closing.is_set() or give_up():
                break
            time.sleep(0.005)
        self._ring.push(topic, payload)
        self._wake()

    def retain(self, topic: str, payload: bytes) -> None:
        """State: the newest payload of a topic replaces the older one."""
        with self._lock:
            if self._retained.get(topic) == payload:
                return
            self._retained[topic] = payload
            self._changed.add(topic)
        self._wake()

    def figures(self) -> Figures:
        link = self._link
        return Figures(
            self._published + (link.sent if link else 0),
            self._ring.dropped,
            self._ring.queued_bytes + (link.unsent_bytes if link else 0),
            self._connects,
        )

    def alive(self, within_s: float) -> bool:
        """Whether the thread works: for the watchdog. A broker that is away is not our death."""
        recent = time.monotonic() - self._ticked_s < within_s
        return self._thread.is_alive() and (recent or self._busy)

    def close(self, drain_s: float = 1.0) -> bool:
        """Sends what waits, at most for drain_s, then "stopped", and leaves.

        Returns whether everything went."""
        self._drain_s = drain_s
        self._closing.set()
        self._wake()
        self._thread.join(drain_s + 8.0)
        return not self._thread.is_alive() and self._ring.queued_bytes == 0

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError, OSError):
            os.write(self._wake_in, b"!")

    def _run(self) -> None:
        said = ""
        while not self._closing.is_set():
            began_s, connects = time.monotonic(), self._connects
            try:
                self._connection()
                return  # closed on purpose
            except LinkError as down:
                if self._connects > connects:
                    said = ""
                if str(down) != said:  # an outage is one line, not one per attempt
                    _log.warning("%s; trying again until it works", down)
                    said = str(down)
                connected_s = time.monotonic() - began_s if self._connects > connects else 0.0
                wait_s = self._wait_after(down, connected_s)
            except EdgeError as error:  # a certificate or password file that has gone
                _log.error("%s", error)
                wait_s = REFUSED_DELAY_S
            except Exception:  # a bug must not silence the node for ever
                _log.exception("unexpected failure of the connection")
                wait_s = REFUSED_DELAY_S
            finally:
                self._busy = False
                self._disconnected()
            self._pause(wait_s)

    def _wait_after(self, down: LinkError, connected_s: float) -> float:
        """How long to wait; ``connected_s``: how long the connection was good, 0 if never."""
        delay_s = self._delay_s = min(2 * self._delay_s, MAX_DELAY_S)
        if connected_s > STABLE_S:
            delay_s = self._delay_s = FIRST_DELAY_S
            self._short = 0
        if connected_s and down.cause == "lost":
            self._short += connected_s <= STABLE_S
        if down.cause == "taken" or self._short >= SHORT_ONES:
            if self._short == SHORT_ONES:  # not every broker says why
                _log.warning("lost so often: does a second daemon named %s run?", self._topics.node)
            return TAKEN_DELAY_S
        # Old brokers refuse MQTT 5 with a code, or just close. One that spoke it once, speaks it.
        if self._auto and self._connects == 0 and down.cause in ("protocol", "closed"):
            self._version = "3.1.1" if self._version == "5" else "5"
            return FIRST_DELAY_S if down.cause == "protocol" else delay_s
        return REFUSED_DELAY_S if down.cause == "refused" else delay_s

    def _connection(self) -> None:
        """One connection from beginning to end. Returns when closed on purpose."""
        self._busy = True
        broker = self._broker()
        will = (self._topics.status, messages.status("offline"))
        link = Link(broker, self._client_id, self._version, will)
        self._link = link
        try:
            link.open(self._closing.is_set)
        except LinkError:
            if self._closing.is_set():
                return
            raise
        self._busy = False
        self._connects += 1
        _log.info("connected to %s (MQTT %s)", broker, self._version)
        link.publish(self._topics.status, messages.status("online"), qos=1, retain=True)
        with self._lock:
            self._changed = set(self._retained)
        self._feed(link)
        self.connected.set()
        while not self._closing.is_set():
            link.step(0.5, self._wake_out)
            self._clear_wake()
            self._ticked_s = time.monotonic()
            self._feed(link)
        self._farewell(link)

    def _feed(self, link: Link) -> None:
        with self._lock:
            states = [(topic, self._retained[topic]) for topic in sorted(self._changed)]
            self._changed.clear()
        for topic, payload in states:
            link.publish(topic, payload, qos=1, retain=True)
        while link.unsent_bytes < LIBRARY_BYTES:
            message = self._ring.pop()
            if message is None:
                return
            if message.topic == self._topics.health:
                link.publish(message.topic, message.payload, qos=0, retain=False)
            else:
                link.publish_pose(message, self._qos)

    def _farewell(self, link: Link) -> None:
        deadline = time.monotonic() + self._drain_s
        self._feed(link)
        while self._ring.queued_bytes and time.monotonic() < deadline:
            link.step(0.02)
            self._feed(link)
        link.publish(self._topics.status, messages.status("stopped"), qos=1, retain=True)
        link.drain(max(1.0, deadline - time.monotonic()))
        link.close()

    def _disconnected(self) -> None:
        self.connected.clear()
        link, self._link = self._link, None
        if link is None:
            return
        self._published += link.sent
        self._ring.put_back(link.undelivered())
        link.drop()

    def _pause(self, seconds: float) -> None:
        """Sleeps unless closing; the thread counts as alive meanwhile."""
        deadline = time.monotonic() + seconds
        while not self._closing.is_set() and time.monotonic() < deadline:
            self._ticked_s = time.monotonic()
            self._closing.wait(min(1.0, max(0.0, deadline - time.monotonic())))

    def _clear_wake(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while len(os.read(self._wake_out, 4096)) == 4096:
                pass
