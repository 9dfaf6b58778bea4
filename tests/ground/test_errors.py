# SPDX-License-Identifier: Apache-2.0
"""Exit codes are a contract with systemd and scripts; messages are one line."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

import pytest

import posewire
from posewire.errors import BundleError, ExitCode, PosewireError


def test_exit_codes_are_the_design_s() -> None:
    assert {code.name: int(code) for code in ExitCode} == {
        "OK": 0,
        "NO": 1,
        "USAGE": 64,
        "BUNDLE": 65,
        "SOURCE": 66,
        "UNAVAILABLE": 69,
        "BUG": 70,
        "CANNOT_WRITE": 73,
        "CONFIG": 78,
        "INTERRUPTED": 130,
    }


def test_a_message_is_one_line_and_carries_its_code() -> None:
    error = PosewireError("one\ntwo", ExitCode.SOURCE)
    assert str(error) == "one two"
    assert error.code is ExitCode.SOURCE
    assert BundleError("x").code is ExitCode.BUNDLE
    assert PosewireError("x").code is ExitCode.BUG


def test_the_engine_is_found_where_it_was_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bin").mkdir()
    binary = tmp_path / "bin" / "posewire-engine"
    binary.write_bytes(b"")
    monkeypatch.setattr(posewire, "__path__", [str(tmp_path)])
    assert posewire.engine_path() == binary


def test_a_missing_engine_says_where_it_was_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(posewire, "__path__", [str(tmp_path)])

    def absent(name: str) -> None:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "distribution", absent)
    with pytest.raises(PosewireError, match=str(tmp_path)) as caught:
        posewire.engine_path()
    assert caught.value.code is ExitCode.UNAVAILABLE
