# SPDX-License-Identifier: Apache-2.0
"""From the bundle that a person names to the compiled one that the engine runs.

Engine plans are code: the daemon runs only what its own ``posewire compile`` child made from a
verified portable bundle (DESIGN 3.1). The child is a process because this storey must not import
targets, and because a compiler that crashes or is killed costs nothing here.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import platform
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

from posewire.bundle import read_manifest, verify_bundle
from posewire.errors import ExitCode

from .errors import EdgeError

_log = logging.getLogger("compile")
_TARGETS = {"x86_64": "x86-cpu", "AMD64": "x86-cpu"}


def default_target() -> str:
    """This machine's target. Raises EdgeError where only its user can know."""
    machine = platform.machine()
    if machine not in _TARGETS:
        raise EdgeError(
            f"bundle.target: no default for a {machine} machine; name the target "
            "(posewire doctor lists them)"
        )
    return _TARGETS[machine]


def compiled_bundle(
    path: Path,
    *,
    target: str | None,
    precision: str,
    stopping: Callable[[], bool] = lambda: False,
    tick: Callable[[float], None] = time.sleep,
    say: Callable[[str], None] = _log.info,
) -> Path:
    """The directory of a compiled bundle for this machine, made now or taken from the cache.

    ``tick(seconds)`` is called while the child works, ``say(line)`` from another thread for what it
    tells. Raises BundleError, EdgeError with the
    child's exit code, EdgeError (INTERRUPTED) when ``stopping()``.
    """
    manifest = read_manifest(path)
    if manifest.target is not None:
        verify_bundle(path)
        if manifest.gate is not None and manifest.gate.kind == "pending":
            raise EdgeError(
                f"{path}: its accuracy gate is pending: nobody has judged it yet; name the "
                "portable bundle, it is compiled and judged here",
                ExitCode.BUNDLE,
            )
        if manifest.target.runtime in ("tensorrt", "tensorrt_rtx"):
            raise EdgeError(
                f"{path}: a compiled TensorRT bundle is code and is not run from elsewhere; "
                "name the portable bundle, it is compiled here",
                ExitCode.BUNDLE,
            )
        return path
    command = [sys.executable, "-m", "posewire.cli", "compile", str(path.absolute())]
    command += ["--target", target or default_target(), "--precision", precision, "--json"]
    said: list[str] = []
    heard: list[str] = []
    child = subprocess.Popen(
        command,
        cwd="/",  # "-m" looks there first: a checkout's folder posewire/ would shadow the package
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    threads = [
        threading.Thread(target=_listen, args=(child.stdout, said, None), daemon=True),
        threading.Thread(target=_listen, args=(child.stderr, heard, say), daemon=True),
    ]
    for thread in threads:
        thread.start()
    try:
        while child.poll() is None:
            if stopping():
                raise EdgeError("stopped while compiling", ExitCode.INTERRUPTED)
            tick(0.1)
    finally:
        _end(child)
    for thread in threads:
        thread.join(5.0)
    return _result(path, child.returncode, said, heard)


def _result(path: Path, status: int, said: list[str], heard: list[str]) -> Path:
    if status != 0:
        errors = [line for line in heard if line.startswith("error: ")] or heard or [""]
        reason = errors[-1].removeprefix("error: ")
        why = f"{path}: not compiled" + (f": {reason}" if reason else f" (exit status {status})")
        known = {int(code) for code in ExitCode}
        raise EdgeError(why, ExitCode(status) if status in known else ExitCode.BUG)
    try:
        made = Path(json.loads(said[-1])["bundle"])
    except (IndexError, ValueError, KeyError, TypeError):
        raise EdgeError(
            f"{path}: `posewire compile --json` did not say where the bundle is", ExitCode.BUG
        ) from None
    manifest = read_manifest(made)
    if manifest.target is None:
        raise EdgeError(f"{made}: `posewire compile` made no compiled bundle", ExitCode.BUG)
    if manifest.gate is not None and manifest.gate.kind == "pending":
        raise EdgeError(
            f"{path}: compiled, but its accuracy gate is pending: this machine cannot run it",
            ExitCode.UNAVAILABLE,
        )
    return made


def _listen(stream: IO[bytes], lines: list[str], log: Callable[[str], None] | None) -> None:
    with contextlib.closing(stream):
        for line in stream:
            text = line.decode("utf-8", "replace").strip().removeprefix("posewire: ")
            if text:
                lines[:] = [*lines[-19:], text]
                if log is not None:
                    log(text)


def _end(child: subprocess.Popen[bytes]) -> None:
    """SIGTERM, then SIGKILL to the whole session; nothing half-written is left by its rules."""
    for number, seconds in ((signal.SIGTERM, 5.0), (signal.SIGKILL, 5.0)):
        if child.poll() is not None:
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(seconds)
