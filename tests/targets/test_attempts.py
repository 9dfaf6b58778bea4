# SPDX-License-Identifier: Apache-2.0
"""A compiler that crashes is not started for ever: three times, then it is refused and said."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from posewire.targets import TargetError, attempts, compile_bundle

from posewire.errors import ExitCode

# What a daemon's child does, with a compiler that takes the process with it for int8.
CRASHING = """
import os, sys
from posewire.targets import compile_bundle, openvino
build = openvino.build
def crash(source, manifest, artifact, precision, *rest):
    if precision == "int8":
        os._exit(139)
    return build(source, manifest, artifact, precision, *rest)
openvino.build = crash
print(compile_bundle(sys.argv[1], precision=sys.argv[2]).precision)
"""


def child(bundle: Path, precision: str) -> subprocess.CompletedProcess[str]:
    """Its cache is this test's: XDG_CACHE_HOME is set."""
    command = [sys.executable, "-P", "-c", CRASHING, str(bundle), precision]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_three_crashes_and_no_more(make_bundle: Callable[..., Path], own_cache: Path) -> None:
    portable = make_bundle()
    assert child(portable, "int8").returncode == 139
    (mark,) = own_cache.glob("*.attempts")
    assert mark.read_text() == "1\n"
    assert child(portable, "auto").returncode == 139
    assert mark.read_text() == "2\n"  # the same key, whoever asked
    mark.write_text(f"{attempts.LIMIT}\n")
    with pytest.raises(TargetError, match="tried 3 times and never ended") as caught:
        compile_bundle(portable, precision="int8")
    assert caught.value.code == ExitCode.UNAVAILABLE
    result = compile_bundle(portable)  # auto passes over what crashes
    assert result.precision != "int8"
    assert "never ended" in result.rejected["int8"]
    assert compile_bundle(portable, precision="int8", use_cache=False).precision == "int8"
    assert not mark.exists()


def test_an_error_is_no_crash(
    make_bundle: Callable[..., Path], own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from posewire.targets import openvino

    def fail(*_: object) -> None:
        raise TargetError("refused", ExitCode.BUNDLE)

    portable = make_bundle()
    with monkeypatch.context() as changed:
        changed.setattr(openvino, "build", fail)
        for _ in range(attempts.LIMIT + 1):
            with pytest.raises(TargetError, match="refused"):
                compile_bundle(portable, precision="fp32")
    assert not list(own_cache.glob("*.attempts"))
    assert compile_bundle(portable, precision="fp32").precision == "fp32"


def test_a_damaged_mark_counts_nothing(own_cache: Path) -> None:
    own_cache.mkdir(parents=True, mode=0o700)
    for text, count in (("", 0), ("x", 0), ("-4", 0), ("2\n", 2)):
        (own_cache / "key.attempts").write_text(text)
        assert attempts.left_behind("key") == count
