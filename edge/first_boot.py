# SPDX-License-Identifier: Apache-2.0
"""``posewire first-boot``: a flashed device becomes a node: identity, keys, compiled bundle.

``/etc/posewire/first-boot.toml`` is a configuration as :mod:`.config` describes it, made for many
devices: its line ``node = "auto"`` becomes this device's own name. Two steps, each of which may be
cut off at any moment and does nothing when it is done:

identity (root)   ``posewire.toml`` with the node's name, ``keys/node.key`` (EC P-256, mode 0600,
                  the service's) and ``keys/node.csr``, a request to sign it as a TLS client
compile (service) the bundle, compiled for this device into the service's cache; then
                  ``first-boot.done`` in the state directory, after which the unit does nothing

Progress of the second step is told in topics that exist (docs/mqtt.md), so a fleet needs nothing
new: each camera is ``offline`` in its retained status, with a ``why`` "first boot: …", and
``health`` says the same with engine state ``starting``.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import pwd
import re
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

from posewire.bundle import read_manifest
from posewire.errors import ExitCode, PosewireError

from . import messages
from .config import Config, load_config
from .errors import EdgeError
from .machine import memory_mb, temperature_c
from .mqtt import Publisher, broker_of
from .notify import Notifier
from .prepare import compiled_bundle

USER = "posewire"  # whom systemd/sysusers.d makes; the keys become its own where it exists
DONE = "first-boot.done"
_AUTO = re.compile(r'^node[ \t]*=[ \t]*"auto"', re.MULTILINE)

_log = logging.getLogger("first-boot")


def node_name(root: Path = Path("/")) -> str:
    """This device's name: from the board's serial number, else from the machine's id.

    The id itself is confidential (machine-id(5)), so a digest of it stands in the name. Raises
    EdgeError (UNAVAILABLE) where the device has neither.
    """
    with contextlib.suppress(OSError):
        serial = (root / "proc/device-tree/serial-number").read_bytes().decode("ascii", "ignore")
        plain = re.sub(r"[^a-z0-9]", "", serial.lower())
        if plain.strip("0"):
            return f"node-{plain[-12:]}"
    with contextlib.suppress(OSError):
        machine = (root / "etc/machine-id").read_text("ascii", "ignore").strip()
        if re.fullmatch(r"[0-9a-f]{32}", machine):
            return f"node-{hashlib.sha256(f'posewire {machine}'.encode()).hexdigest()[:12]}"
    raise EdgeError(
        "first boot: no serial number in /proc/device-tree and no id in /etc/machine-id; "
        "write the node's name into first-boot.toml",
        ExitCode.UNAVAILABLE,
    )


def make_identity(folder: Path, root: Path = Path("/")) -> str:
    """The first step, in ``folder`` (/etc/posewire). Returns the node's name.

    What exists is kept: a name that a broker knows must not change. Raises EdgeError.
    """
    path = folder / "posewire.toml"
    if not path.exists():
        template = folder / "first-boot.toml"
        try:
            text = template.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise EdgeError(f"{template}: cannot read it: {error}") from None
        if _AUTO.search(text):
            text = _AUTO.sub(f'node = "{node_name(root)}"', text, count=1)
        _publish_config(path, template, text)
        _log.info("%s written", path)
    node = load_config(path).node
    _make_keys(folder / "keys", node)
    return node


def _publish_config(path: Path, template: Path, text: str) -> None:
    """Checked before it has its name: the daemon never sees a configuration that it refuses."""
    aside = path.with_name(f".{path.name}.partial")
    try:
        _write(aside, text.encode(), 0o640)
        load_config(aside)
        with contextlib.suppress(KeyError, PermissionError):
            os.chown(aside, -1, pwd.getpwnam(USER).pw_gid)
        _rename(aside, path)
    except EdgeError as error:  # lines are the template's: one line was replaced by one
        aside.unlink(missing_ok=True)
        raise EdgeError(str(error).replace(str(aside), str(template)), error.code) from None
    except OSError as error:
        raise EdgeError(f"{path}: cannot write: {error.strerror}", ExitCode.CANNOT_WRITE) from None


def _make_keys(folder: Path, node: str) -> None:
    """``node.key`` once and for ever; ``node.csr`` from it."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key_path, request_path = folder / "node.key", folder / "node.csr"
    try:
        folder.mkdir(mode=0o750, exist_ok=True)
        _give(folder)
        if not key_path.exists():
            pem = ec.generate_private_key(ec.SECP256R1()).private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
            aside = folder / ".node.key.partial"
            _write(aside, pem, 0o600)
            _give(aside)
            _rename(aside, key_path)
            _log.info("%s made", key_path)
        if not request_path.exists():
            key = serialization.load_pem_private_key(key_path.read_bytes(), None)
            if not isinstance(key, ec.EllipticCurvePrivateKey):
                raise EdgeError(f"{key_path}: is no elliptic-curve key")
            name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, node)])
            builder = x509.CertificateSigningRequestBuilder().subject_name(name)
            request = builder.sign(key, hashes.SHA256())
            aside = folder / ".node.csr.partial"
            _write(aside, request.public_bytes(serialization.Encoding.PEM), 0o644)
            _rename(aside, request_path)
            _log.info("%s made; have it signed for a TLS client certificate", request_path)
    except OSError as error:
        raise EdgeError(
            f"{folder}: cannot write: {error.strerror}", ExitCode.CANNOT_WRITE
        ) from None
    except ValueError as error:
        raise EdgeError(f"{key_path}: is no private key: {error}") from None


def compile_once(config: Config, state: Path) -> Path:
    """The second step; ``state`` is the service's state directory. Returns the compiled bundle.

    Raises PosewireError; EdgeError (INTERRUPTED) after SIGTERM or SIGINT.
    """
    done = state / DONE
    progress = _Progress(config)
    progress.start()
    why = "first boot: failed"
    try:
        with _signals() as stopped:
            progress.say(f"preparing {config.bundle.path}")
            bundle = compiled_bundle(
                config.bundle.path,
                target=config.bundle.target,
                precision=config.bundle.precision,
                stopping=lambda: stopped[0],
                tick=progress.tick,
                say=progress.say,
            )
        manifest = read_manifest(bundle)
        record = {"node": config.node, "bundle": str(bundle), "manifest": manifest.sha256}
        _finish(done, record)
        why = "first boot: done"
        return bundle
    except PosewireError as error:
        why = f"first boot: {error}"
        raise
    finally:
        progress.close(why)


def is_done(state: Path) -> bool:
    return (state / DONE).exists()


class _Progress:
    """The journal, ``systemctl status`` and MQTT, told the same. A broker that is away costs only
    its messages."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._topics = messages.Topics(config.node)
        self._notifier = Notifier()
        self._began_s = time.monotonic()
        self._health_s = float("-inf")
        self._why = ""
        mqtt = config.mqtt
        self._publisher = Publisher(
            lambda: broker_of(mqtt), config.node, client_id=mqtt.client_id, version=mqtt.version
        )

    def start(self) -> None:
        self._publisher.start()

    def say(self, line: str) -> None:
        _log.info("%s", line)
        self._tell(f"first boot: {line}")

    def tick(self, seconds: float) -> None:
        if time.monotonic() - self._health_s >= self._config.health.interval_s:
            self._health()
        time.sleep(seconds)

    def close(self, why: str) -> None:
        self._tell(why)
        self._publisher.close(1.0)

    def _tell(self, why: str) -> None:
        self._why = why
        self._notifier.status(why)
        for camera in self._config.active:
            self._publisher.retain(
                self._topics.camera_status(camera), messages.camera_status("offline", why)
            )
        self._health()

    def _health(self) -> None:
        self._health_s = time.monotonic()
        figures = self._publisher.figures()
        health = messages.Health(
            uptime_s=time.monotonic() - self._began_s,
            state="starting",
            starts=0,
            hangs=0,
            why=self._why,
            stats={},
            published=figures.published,
            dropped=figures.dropped,
            queued_bytes=figures.queued_bytes,
            connects=figures.connects,
            rejected=0,
            temperature_c=temperature_c(),
            daemon_mb=memory_mb(os.getpid()),
            engine_mb=None,
        )
        payload = messages.health(self._config.node, health)
        self._publisher.push(self._topics.health, payload, lambda: True)


@contextlib.contextmanager
def _signals() -> Iterator[list[bool]]:
    stopped = [False]

    def on_signal(number: int, _frame: FrameType | None) -> None:
        _log.info("%s: stopping; the next start goes on", signal.Signals(number).name)
        stopped[0] = True

    old = {number: signal.signal(number, on_signal) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stopped
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


def _finish(path: Path, record: dict[str, str]) -> None:
    aside = path.with_name(f".{path.name}.partial")
    try:
        _write(aside, json.dumps(record).encode() + b"\n", 0o644)
        _rename(aside, path)
    except OSError as error:
        raise EdgeError(f"{path}: cannot write: {error.strerror}", ExitCode.CANNOT_WRITE) from None


def _write(path: Path, data: bytes, mode: int) -> None:
    """On the disk when this returns: the power may go at any moment. Raises OSError."""
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
    with open(descriptor, "wb") as file:
        os.fchmod(descriptor, mode)
        file.write(data)
        file.flush()
        os.fsync(descriptor)


def _rename(aside: Path, path: Path) -> None:
    os.replace(aside, path)
    descriptor = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _give(path: Path) -> None:
    """To the service's user, where there is one and we are root."""
    if os.geteuid() != 0:
        return
    with contextlib.suppress(KeyError):
        user = pwd.getpwnam(USER)
        os.chown(path, user.pw_uid, user.pw_gid)


STEPS: dict[str, Callable[[Path, Path], None]] = {
    "identity": lambda folder, state: _log.info("node %s", make_identity(folder)),
    "compile": lambda folder, state: _compile_step(folder, state),
}


def _compile_step(folder: Path, state: Path) -> None:
    if is_done(state):
        _log.info("%s exists: nothing to do", state / DONE)
        return
    bundle = compile_once(load_config(folder / "posewire.toml"), state)
    _log.info("compiled: %s", bundle)
