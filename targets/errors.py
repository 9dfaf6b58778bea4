# SPDX-License-Identifier: Apache-2.0
"""The storey's error class."""

from __future__ import annotations

from posewire.errors import ExitCode, PosewireError


class TargetError(PosewireError):
    """A bundle cannot be compiled for this target, or the result failed its gate."""

    default_code = ExitCode.UNAVAILABLE


class RefusedError(TargetError):
    """The gate has measured, and the result is over the limit."""

    default_code = ExitCode.NO
