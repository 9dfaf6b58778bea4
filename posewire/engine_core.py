# SPDX-License-Identifier: Apache-2.0
"""Reaching the compiled module posewire._core, and its errors as ours."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator
from typing import Any

from .errors import ExitCode, PosewireError


def core() -> Any:
    """The module posewire._core. Raises PosewireError (UNAVAILABLE) where it was not built."""
    try:
        return importlib.import_module(f"{__package__}._core")
    except ImportError as error:
        raise PosewireError(
            f"posewire's compiled module cannot be loaded: {error}", ExitCode.UNAVAILABLE
        ) from error


@contextlib.contextmanager
def engine_errors() -> Iterator[Any]:
    """Yields posewire._core; what the engine raises inside is a PosewireError with its exit code.

    Its EngineError is a subclass of PosewireError already; one that is not (a compiled module of
    another version) is turned into one.
    """
    module = core()
    try:
        yield module
    except PosewireError:
        raise
    except module.EngineError as error:
        raise PosewireError(str(error), ExitCode(int(error.code))) from error
