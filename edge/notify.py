# SPDX-License-Identifier: Apache-2.0
"""systemd's notification protocol (sd_notify(3)); every call does nothing outside systemd."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Mapping


class Notifier:
    """``environment`` is where systemd's variables stand, normally os.environ."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        self._address = environment.get("NOTIFY_SOCKET", "")
        wanted = environment.get("WATCHDOG_USEC", "")
        mine = environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        self.watchdog_s = int(wanted) / 1e6 if wanted.isdigit() and mine else None
        self._fed_s = float("-inf")

    def ready(self, text: str) -> None:
        self._send(f"READY=1\nSTATUS={text}")

    def status(self, text: str) -> None:
        """The line that ``systemctl status`` shows."""
        self._send(f"STATUS={text}")

    def extend(self, seconds: float) -> None:
        """More time to start, for a first compilation."""
        self._send(f"EXTEND_TIMEOUT_USEC={int(seconds * 1e6)}")

    def stopping(self) -> None:
        self._send("STOPPING=1")

    def feed(self) -> None:
        """To be called while there is progress; at most a few times per watchdog period is sent."""
        now = time.monotonic()
        if self.watchdog_s is not None and now - self._fed_s > self.watchdog_s / 4:
            self._fed_s = now
            self._send("WATCHDOG=1")

    def _send(self, text: str) -> None:
        if not self._address:
            return
        address = self._address
        if address.startswith("@"):
            address = "\0" + address[1:]
        with (
            contextlib.suppress(OSError),
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as out,
        ):
            out.connect(address)
            out.send(text.encode())
