# SPDX-License-Identifier: Apache-2.0
"""The bundles of a node on disk: which runs, which ran before, which is wanted.

::

    <state>/bundles/<node>/
        <id>/          a portable bundle, verified when it was copied; id: sha256 of its manifest
        wanted.json    what `posewire update` asks for; the daemon takes it away when it is settled
        slots.json     what runs; only the daemon writes it
        lock           held while bundles are copied or cleared away

    <state>     bundle.state of the config, else $STATE_DIRECTORY (systemd), else
                $XDG_STATE_HOME/posewire

A slot names a bundle by its id, or "config" for the one that the config names. slots.json changes
in one rename, and that rename is the whole exchange: after a power cut the node has either the old
pair of current and previous or the new one, and at worst a copied bundle that nothing names, which
is cleared away. Files are written aside, synced and renamed, their folder is synced.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, cast

from posewire.bundle import read_manifest, verify_bundle
from posewire.errors import BundleError, ExitCode

from .errors import EdgeError

CONFIG = "config"
PREVIOUS = "previous"
SETTLED = ("confirmed", "rejected", "rolled_back")

State = Literal["preparing", "trial", "confirmed", "rejected", "rolled_back"]

_ID = re.compile(r"[0-9a-f]{64}")
_log = logging.getLogger("update")


@dataclass(frozen=True)
class Outcome:
    """How far one update came. ``ticket`` is that of its wish, ``name`` the bundle's name@version,
    ``tries`` how often it was begun.

    preparing    compiled and judged beside the running engine
    trial        runs, and may still be taken back
    confirmed    runs
    rejected     never ran: not compiled, or refused by the gate
    rolled_back  ran and was not healthy: the previous one runs again
    """

    ticket: str
    bundle: str
    name: str
    state: State
    why: str | None = None
    tries: int = 1


@dataclass(frozen=True)
class Wish:
    """wanted.json: the bundle to run, an id, "config" or "previous"."""

    ticket: str
    bundle: str


@dataclass(frozen=True)
class Slots:
    """slots.json.

    config    sha256 of the manifest of the config's bundle when this was written: a config that
              names another one since then takes over
    current   what runs
    previous  what ran before, to go back to
    trial     starts of the current one so far, while it is on trial; else None
    last      the newest update
    """

    config: str = ""
    current: str = CONFIG
    previous: str | None = None
    trial: int | None = None
    last: Outcome | None = None


class Store:
    """The folder of one node. Reading makes nothing; writing raises EdgeError (CANNOT_WRITE)."""

    def __init__(self, state: Path, node: str) -> None:
        self.folder = state / "bundles" / node

    def bundle(self, identity: str) -> Path:
        """Where a bundle lies that is not the config's."""
        return self.folder / identity

    def slots(self) -> Slots:
        """What slots.json says; the config's bundle where there is none or it is damaged."""
        value = self._read("slots.json")
        try:
            if value is None:
                return Slots()
            last = value["last"]
            read = Slots(
                config=str(value["config"]),
                current=_slot(value["current"]),
                previous=None if value["previous"] is None else _slot(value["previous"]),
                trial=None if value["trial"] is None else int(value["trial"]),
                last=None if last is None else Outcome(**last),
            )
        except (KeyError, TypeError, ValueError) as error:
            _log.error("%s: is damaged (%s); the config's bundle runs", self.folder, error)
            return Slots()
        return read

    def write(self, slots: Slots) -> None:
        """In one step."""
        self._write("slots.json", asdict(slots))

    def wish(self) -> Wish | None:
        """What `posewire update` asks for; None where nothing, or nothing that makes sense."""
        value = self._read("wanted.json")
        if value is None:
            return None
        try:
            bundle = value["bundle"]
            return Wish(str(value["ticket"]), PREVIOUS if bundle == PREVIOUS else _slot(bundle))
        except (KeyError, TypeError, ValueError) as error:
            _log.error("%s/wanted.json: is no wish (%s); taken away", self.folder, error)
            self.settle()
            return None

    def ask(self, bundle: Path | str) -> Wish:
        """Asks the daemon to run a portable bundle, which is copied and verified here, or CONFIG or
        PREVIOUS. Raises BundleError for a bundle that is not whole or not portable."""
        ticket = os.urandom(8).hex()
        self._make()
        with self._locked(wait=True):
            identity = bundle if isinstance(bundle, str) else self._copied(bundle)
            wish = Wish(ticket, identity)
            self._write("wanted.json", asdict(wish))
        return wish

    def settle(self) -> None:
        """Takes the wish away."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.folder / "wanted.json")
            _sync(self.folder)

    def sweep(self) -> None:
        """Clears away what nothing names: bundles of earlier updates, and halves of copies."""
        if not self.folder.is_dir():
            return
        with self._locked(wait=False) as mine:
            if not mine:
                return  # a copy is being made; another time
            slots, wish = self.slots(), self.wish()
            named = {slots.current, slots.previous, wish.bundle if wish else None}
            for path in self.folder.iterdir():
                if path.is_dir() and path.name not in named:
                    shutil.rmtree(path, ignore_errors=True)

    def _copied(self, source: Path) -> str:
        manifest = verify_bundle(source)
        if manifest.target is not None:
            raise BundleError(
                f"{source}: is compiled, for {manifest.target.name}; an update is a portable "
                "bundle, the node compiles it"
            )
        place = self.bundle(manifest.sha256)
        try:
            verify_bundle(place)
            return manifest.sha256
        except BundleError:
            shutil.rmtree(place, ignore_errors=True)  # it went bad on the disk, or never was
        aside = self.folder / f"{manifest.sha256}.aside"
        shutil.rmtree(aside, ignore_errors=True)
        try:
            aside.mkdir(mode=0o700)
            for name in (*manifest.files, "manifest.json", "manifest.sig"):  # byte for byte
                if name != "manifest.sig" or (source / name).exists():
                    _copy(source / name, aside / name)
            _sync(aside)
            if verify_bundle(aside).sha256 != manifest.sha256:
                raise BundleError(f"{source}: changed while it was copied")
            os.rename(aside, place)
            _sync(self.folder)
        except OSError as error:
            raise EdgeError(f"{aside}: {error.strerror}", ExitCode.CANNOT_WRITE) from None
        finally:
            shutil.rmtree(aside, ignore_errors=True)
        return manifest.sha256

    def _make(self) -> None:
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise EdgeError(f"{self.folder}: {error.strerror}", ExitCode.CANNOT_WRITE) from None

    @contextlib.contextmanager
    def _locked(self, *, wait: bool) -> Iterator[bool]:
        path = self.folder / "lock"
        try:
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            descriptor = os.open(path, flags, 0o600)
        except OSError as error:
            raise EdgeError(f"{path}: {error.strerror}", ExitCode.CANNOT_WRITE) from None
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                yield False
                return
            yield True
        finally:
            os.close(descriptor)

    def _read(self, name: str) -> Mapping[str, Any] | None:
        try:
            value = json.loads((self.folder / name).read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            _log.error("%s/%s: cannot be read: %s", self.folder, name, error)
            return {}
        return cast("Mapping[str, Any]", value if isinstance(value, dict) else {})

    def _write(self, name: str, value: Mapping[str, Any]) -> None:
        self._make()
        path, aside = self.folder / name, self.folder / f"{name}.aside"
        try:
            aside.unlink(missing_ok=True)
            descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w") as file:
                json.dump(value, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(aside, path)
            _sync(self.folder)
        except OSError as error:
            raise EdgeError(f"{path}: {error.strerror}", ExitCode.CANNOT_WRITE) from None


def _slot(value: object) -> str:
    if isinstance(value, str) and (value == CONFIG or _ID.fullmatch(value)):
        return value
    raise ValueError(f"{value!r} names no bundle")


def _copy(source: Path, target: Path) -> None:
    shutil.copyfile(source, target, follow_symlinks=False)
    with open(target, "rb") as file:
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def state_folder(chosen: Path | None) -> Path:
    """Where nodes keep their bundles; ``chosen`` is the config's bundle.state."""
    if chosen is not None:
        return chosen
    given = os.environ.get("STATE_DIRECTORY", "").split(":")[0]  # systemd may list several
    if given:
        return Path(given)
    home = os.environ.get("XDG_STATE_HOME", "")
    return (Path(home) if os.path.isabs(home) else Path.home() / ".local" / "state") / "posewire"


def identity_of(bundle: Path) -> str:
    """The sha256 of a bundle's manifest; "" where it cannot be read."""
    try:
        return read_manifest(bundle).sha256
    except BundleError:
        return ""
