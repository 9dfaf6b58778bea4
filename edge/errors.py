# SPDX-License-Identifier: Apache-2.0
"""This storey's error class."""

from __future__ import annotations

from posewire.errors import ExitCode, PosewireError


class EdgeError(PosewireError):
    """The daemon cannot do what it was told: its config, unless the raiser says otherwise."""

    default_code = ExitCode.CONFIG
