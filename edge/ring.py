# SPDX-License-Identifier: Apache-2.0
"""The queue rule of DESIGN 4: what waits for the broker is bounded by bytes and by age.

A client library's own queue is no bound: with the broker stalled, paho grew by 113 MB in 10 s.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

MAX_BYTES = 8 * 1024 * 1024
MAX_AGE_S = 2.0


@dataclass(frozen=True)
class Message:
    """One message that waits. ``born_s`` is on the ring's clock."""

    topic: str
    payload: bytes
    born_s: float

    @property
    def size(self) -> int:
        """Bytes it is counted as: topic and payload, and what a packet adds at most."""
        return len(self.topic) + len(self.payload) + 64


class Ring:
    """First in, first out; the oldest are dropped, and counted, when it is full or they are old.

    Any thread may call every method. ``max_age_s`` None: only the bytes bound it.
    """

    def __init__(
        self,
        max_bytes: int = MAX_BYTES,
        max_age_s: float | None = MAX_AGE_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._max_bytes = max_bytes
        self._max_age_s = max_age_s
        self._clock = clock
        self._lock = threading.Lock()
        self._waiting: deque[Message] = deque()
        self._bytes = 0
        self._dropped = 0

    def push(self, topic: str, payload: bytes) -> None:
        """Adds the newest message; one that alone exceeds max_bytes is dropped."""
        with self._lock:
            message = Message(topic, payload, self._clock())
            self._waiting.append(message)
            self._bytes += message.size
            self._trim()

    def pop(self) -> Message | None:
        """The oldest message that is still worth sending."""
        with self._lock:
            self._trim()
            if not self._waiting:
                return None
            message = self._waiting.popleft()
            self._bytes -= message.size
            return message

    def put_back(self, messages: Iterable[Message]) -> None:
        """Messages, oldest first, that were popped and not delivered; they keep their age."""
        with self._lock:
            for message in reversed(list(messages)):
                self._waiting.appendleft(message)
                self._bytes += message.size
            self._trim()

    @property
    def queued_bytes(self) -> int:
        with self._lock:
            self._trim()
            return self._bytes

    @property
    def dropped(self) -> int:
        """Messages dropped since the ring was made."""
        with self._lock:
            self._trim()
            return self._dropped

    def _trim(self) -> None:
        oldest_s = -1e300 if self._max_age_s is None else self._clock() - self._max_age_s
        while self._waiting and (
            self._bytes > self._max_bytes or self._waiting[0].born_s < oldest_s
        ):
            self._bytes -= self._waiting.popleft().size
            self._dropped += 1
