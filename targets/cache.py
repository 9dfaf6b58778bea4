# SPDX-License-Identifier: Apache-2.0
"""Where compiled bundles live: ``$STATE_DIRECTORY/compiled/<key>/`` under systemd, else
``$XDG_CACHE_HOME/posewire/compiled/<key>/``. Mode 0700; written aside and renamed.

The key is the sha256 of everything that the result depends on, so an entry never grows stale: it
is only ever missing, whole, or damaged, and a damaged one is made again.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from posewire.bundle import verify_bundle
from posewire.errors import BundleError, ExitCode
from posewire.manifest import Manifest

from .errors import TargetError


def folder() -> Path:
    """The cache's folder, made with mode 0700. Raises TargetError (CANNOT_WRITE)."""
    state = os.environ.get("STATE_DIRECTORY", "").split(":")[0]  # systemd may list several
    if state:
        root = Path(state) / "compiled"
    else:
        home = os.environ.get("XDG_CACHE_HOME", "")
        base = Path(home) if os.path.isabs(home) else Path.home() / ".cache"
        root = base / "posewire" / "compiled"
    try:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise TargetError(f"{root}: {error.strerror}", ExitCode.CANNOT_WRITE) from error
    status = root.stat()
    if status.st_uid != os.getuid() or status.st_mode & 0o022:
        raise TargetError(
            f"{root}: others may write there; compiled networks are code", ExitCode.CANNOT_WRITE
        )
    return root


_BUILD = ".build-"


def workplace() -> tempfile.TemporaryDirectory[str]:
    """A folder to build in, beside the entries. What processes that died left behind goes first."""
    for left in folder().glob(f"{_BUILD}*"):
        owner = left.name.removeprefix(_BUILD).split("-")[0]
        if not (owner.isdigit() and _is_alive(int(owner))):
            shutil.rmtree(left, ignore_errors=True)
    return tempfile.TemporaryDirectory(prefix=f"{_BUILD}{os.getpid()}-", dir=folder())


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def key(parts: Mapping[str, object]) -> str:
    """The entry's name: sha256 of the named parts."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


@contextlib.contextmanager
def locked(entry: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """One compiler at a time per entry; ``waiting()`` is called when another one is at it."""
    path = entry.with_name(entry.name + ".lock")
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise TargetError(f"{path}: {error.strerror}", ExitCode.CANNOT_WRITE) from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting()
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def find(entry: Path, derived_from: str, damaged: Callable[[str], None]) -> Manifest | None:
    """The entry's verified manifest, or None where there is none or it is damaged (said so)."""
    if not entry.exists():
        return None
    try:
        manifest = verify_bundle(entry)
    except BundleError as error:
        damaged(str(error))
        return None
    if manifest.derived_from is None or manifest.derived_from.sha256 != derived_from:
        damaged(f"{entry}: was not made from this bundle")
        return None
    return manifest
