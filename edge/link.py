# SPDX-License-Identifier: Apache-2.0
"""One connection to a broker, from CONNECT to its end; paho does the protocol, not the policy.

One thread owns a Link and moves it with :meth:`Link.step`: no thread of paho's, no queue of paho's
that grows unseen (every byte that was handed over and not sent yet is counted), no reconnecting
behind our back. A Link that went down stays down; make another.
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from posewire.errors import ExitCode

from . import messages
from .errors import EdgeError
from .ring import Message

KEEPALIVE_S = 10  # a dead link is seen after two of these; paho's default takes two minutes
CONNECT_TIMEOUT_S = 5.0
CONNACK_TIMEOUT_S = 10.0
SEND_BUFFER_BYTES = 256 * 1024  # what the kernel holds for a stalled broker grows stale, too

Cause = Literal["unreachable", "silent", "closed", "protocol", "refused", "taken", "lost"]


@dataclass(frozen=True)
class Broker:
    """Where to connect and as whom."""

    host: str
    port: int
    tls: bool = False
    insecure: bool = False  # TLS without verification
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    username: str | None = None
    password: str | None = None

    def __str__(self) -> str:
        return f"{'mqtts' if self.tls else 'mqtt'}://{self.host}:{self.port}"

    def tls_context(self) -> ssl.SSLContext | None:
        """None without TLS. Raises EdgeError (CONFIG) naming the file that cannot be used."""
        if not self.tls:
            return None
        try:
            context = ssl.create_default_context(cafile=self.ca_file)
        except (OSError, ssl.SSLError) as error:
            raise EdgeError(f"{self.ca_file}: not usable as CA file: {error}") from None
        if self.insecure:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if self.cert_file:
            try:
                context.load_cert_chain(self.cert_file, self.key_file)
            except (OSError, ssl.SSLError) as error:
                raise EdgeError(f"{self.cert_file}: not usable as certificate: {error}") from None
        return context


class LinkError(EdgeError):
    """A connection that was not made or has ended; ``cause`` decides when to try again."""

    default_code = ExitCode.UNAVAILABLE

    def __init__(self, message: str, cause: Cause) -> None:
        super().__init__(message)
        self.cause = cause


class Link:
    """See the module. Calls come from one thread. ``version``: "5" or "3.1.1"."""

    def __init__(
        self,
        broker: Broker,
        client_id: str,
        version: str = "5",
        will: tuple[str, bytes] | None = None,
        on_message: Callable[[str, bytes], None] | None = None,
    ) -> None:
        self._broker = broker
        self._version = version
        self._answered = False
        self._down: LinkError | None = None
        self._unsent: dict[int, tuple[int, Message | None]] = {}  # packet id -> bytes, pose
        self._sent_at_once: list[int] = []
        self._subscribing: set[int] = set()
        self.unsent_bytes = 0
        self.sent = 0  # poses delivered: written at QoS 0, acknowledged at QoS 1
        self._expiring = _properties(messages.EXPIRY_S) if version == "5" else None
        self._lasting = _properties(None) if version == "5" else None
        five = version == "5"
        client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=client_id,
            clean_session=None if five else True,
            protocol=MQTTProtocolVersion.MQTTv5 if five else MQTTProtocolVersion.MQTTv311,
            reconnect_on_failure=False,
        )
        client.connect_timeout = CONNECT_TIMEOUT_S
        client.max_inflight_messages_set(100)
        if will is not None:
            client.will_set(will[0], will[1], qos=1, retain=True, properties=_will(five))
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_publish = self._on_publish
        client.on_subscribe = self._on_subscribe
        if on_message is not None:
            client.on_message = lambda _client, _data, got: on_message(
                got.topic, bytes(got.payload)
            )
        self._client = client

    def open(self, stopping: Callable[[], bool] = lambda: False) -> None:
        """Connects and waits for the broker's answer.

        Raises LinkError, EdgeError (TLS files). ``stopping`` is asked five times a second.
        """
        context = self._broker.tls_context()
        if context is not None:
            self._client.tls_set_context(context)
        if self._broker.username is not None:
            self._client.username_pw_set(self._broker.username, self._broker.password)
        extra: dict[str, Any] = {"clean_start": True} if self._version == "5" else {}
        try:
            self._client.connect(self._broker.host, self._broker.port, KEEPALIVE_S, **extra)
        except (OSError, ValueError) as error:
            raise LinkError(f"{self._broker}: {_network_error(error)}", "unreachable") from None
        connection = self._client.socket()
        if isinstance(connection, socket.socket):
            with contextlib.suppress(OSError):
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        deadline = time.monotonic() + CONNACK_TIMEOUT_S
        while not self._answered:
            if stopping():
                raise LinkError("stopped while connecting", "lost")
            if time.monotonic() > deadline:
                raise LinkError(f"{self._broker}: the broker does not answer", "silent")
            self.step(0.2)

    def step(self, timeout_s: float, wake: int | None = None) -> None:
        """Waits for the socket, or for ``wake`` (a descriptor) to be readable, and serves it.

        Raises LinkError when the connection has ended.
        """
        connection = self._client.socket()
        if connection is None:
            raise self._ended()
        if isinstance(connection, ssl.SSLSocket) and connection.pending():
            timeout_s = 0.0
        writing = select.POLLOUT if self._client.want_write() else 0
        poll = select.poll()
        poll.register(connection.fileno(), select.POLLIN | writing)
        if wake is not None:
            poll.register(wake, select.POLLIN)
        ready = dict(poll.poll(timeout_s * 1000))
        mine = ready.get(connection.fileno(), 0)
        if mine & ~select.POLLOUT or timeout_s == 0.0:
            self._client.loop_read()
        if writing:
            self._client.loop_write()
        self._client.loop_misc()
        if self._client.socket() is None:
            raise self._ended()

    def publish(self, topic: str, payload: bytes, *, qos: int, retain: bool) -> None:
        """Sends something that is not a pose."""
        self._hand_over(topic, payload, qos, retain, None)

    def publish_pose(self, message: Message, qos: int) -> None:
        """Sends a pose; when the link goes down it is in :meth:`undelivered` until delivered."""
        self._hand_over(message.topic, message.payload, qos, False, message)

    def subscribe(self, topics: list[str], qos: int) -> None:
        """Subscribes and waits for the broker's consent. Raises LinkError when it refuses."""
        for topic in topics:
            code, packet = self._client.subscribe(topic, qos)
            if code != paho.MQTT_ERR_SUCCESS or packet is None:
                raise self._ended()
            self._subscribing.add(packet)
        deadline = time.monotonic() + CONNACK_TIMEOUT_S
        while self._subscribing:
            if time.monotonic() > deadline:
                raise LinkError(f"{self._broker}: the broker does not answer", "silent")
            self.step(0.2)
        if self._down:
            raise self._down

    def undelivered(self) -> list[Message]:
        """Poses that were handed over and not delivered, oldest first."""
        return [message for _, message in self._unsent.values() if message is not None]

    def drain(self, seconds: float) -> bool:
        """Steps until everything is sent (QoS 0) or acknowledged (QoS 1), or the time is over."""
        deadline = time.monotonic() + seconds
        while self._unsent and time.monotonic() < deadline:
            self.step(0.05)
        return not self._unsent

    def close(self) -> None:
        """Says goodbye: the broker then keeps the last will to itself."""
        with contextlib.suppress(LinkError):
            self._client.disconnect()
            deadline = time.monotonic() + 1.0
            while self._client.socket() is not None and time.monotonic() < deadline:
                self.step(0.05)

    def drop(self) -> None:
        """Lets go of the socket without a word."""
        connection = self._client.socket()
        if connection is not None:
            with contextlib.suppress(OSError):
                connection.close()

    def _hand_over(
        self, topic: str, payload: bytes, qos: int, retain: bool, pose: Message | None
    ) -> None:
        properties = self._lasting if pose is None else self._expiring
        size = len(topic) + len(payload)
        self._sent_at_once.clear()  # paho may call on_publish before publish() returns
        done = self._client.publish(topic, payload, qos, retain, properties)
        if done.mid in self._sent_at_once:
            self.sent += pose is not None
        else:
            self._unsent[done.mid] = (size, pose)
            self.unsent_bytes += size

    def _on_publish(self, _client: Any, _data: Any, packet: int, *_rest: Any) -> None:
        known = self._unsent.pop(packet, None)
        if known is None:
            self._sent_at_once.append(packet)
            return
        self.unsent_bytes -= known[0]
        self.sent += known[1] is not None

    def _on_connect(self, _client: Any, _data: Any, _flags: Any, reason: Any, _p: Any) -> None:
        if reason.is_failure:
            wrong_version = "unsupported protocol" in str(reason).lower()
            self._down = LinkError(
                f"{self._broker}: the broker refuses us: {reason}",
                "protocol" if wrong_version else "refused",
            )
        self._answered = True

    def _on_subscribe(self, _client: Any, _data: Any, packet: int, reasons: Any, _p: Any) -> None:
        self._subscribing.discard(packet)
        for reason in reasons:
            if reason.is_failure:
                self._down = LinkError(
                    f"{self._broker}: the broker refuses the subscription: {reason}", "refused"
                )

    def _on_disconnect(self, _client: Any, _data: Any, flags: Any, reason: Any, _p: Any) -> None:
        if self._down is not None:
            return
        if not self._answered:
            self._down = LinkError(
                f"{self._broker}: the broker closed the connection without an answer", "closed"
            )
        elif flags.is_disconnect_packet_from_server and reason.value == 142:
            self._down = LinkError(
                f"{self._broker}: another client took over our client id; "
                "does a second daemon of this node run?",
                "taken",
            )
        else:
            self._down = LinkError(f"{self._broker}: connection lost{_because(reason)}", "lost")

    def _ended(self) -> LinkError:
        return self._down or LinkError(f"{self._broker}: connection lost", "lost")


def _properties(expiry_s: int | None) -> Properties:
    properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    properties.ContentType = messages.CONTENT_TYPE
    properties.PayloadFormatIndicator = 1  # UTF-8 text
    if expiry_s is not None:
        properties.MessageExpiryInterval = expiry_s
    return properties


def _will(five: bool) -> Properties | None:
    if not five:
        return None
    properties = Properties(PacketTypes.WILLMESSAGE)  # type: ignore[no-untyped-call]
    properties.ContentType = messages.CONTENT_TYPE
    properties.PayloadFormatIndicator = 1
    return properties


def _network_error(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the broker's certificate is not accepted: {error.verify_message}"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return getattr(error, "strerror", None) or str(error)


def _because(reason: Any) -> str:
    return "" if str(reason) == "Unspecified error" else f": {reason}"
