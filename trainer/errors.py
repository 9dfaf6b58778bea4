# SPDX-License-Identifier: Apache-2.0
"""The trainer's one error class."""

from __future__ import annotations

from posewire.errors import ExitCode, PosewireError


class TrainError(PosewireError):
    """A configuration, a data set or a checkpoint that cannot be used."""

    default_code = ExitCode.CONFIG
