# SPDX-License-Identifier: Apache-2.0
"""Exit codes and the error classes of the ground floor.

Every storey has one error class of its own, a subclass of :class:`PosewireError`; ``str(error)``
is one clear line that names what went wrong and where, ``error.code`` the process's exit code.
"""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """What a posewire program ends with; the unit's RestartPreventExitStatus relies on it."""

    OK = 0
    NO = 1  # it ran and the answer is no: gate, verify, doctor
    USAGE = 64
    BUNDLE = 65
    SOURCE = 66  # a source or data set is missing or unreadable
    UNAVAILABLE = 69  # device, runtime or broker
    BUG = 70
    CANNOT_WRITE = 73
    CONFIG = 78
    INTERRUPTED = 130


class PosewireError(Exception):
    """An expected failure with an exit code; ``str()`` is one line.

    Subclasses set ``default_code``; a caller that knows better passes ``code``.
    """

    default_code = ExitCode.BUG

    def __init__(self, message: str, code: ExitCode | None = None) -> None:
        super().__init__(" ".join(message.split("\n")))
        self.code = self.default_code if code is None else ExitCode(code)


class BundleError(PosewireError):
    """A bundle is missing, damaged, from the future, or contradicts itself."""

    default_code = ExitCode.BUNDLE
