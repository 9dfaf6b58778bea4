# SPDX-License-Identifier: Apache-2.0
"""Where the result cannot run: the gate is pending, nothing is timed, and it is judged later."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from posewire.cli import program
from posewire.targets import TargetError, compile_bundle, openvino

from posewire.bundle import verify_bundle
from posewire.errors import ExitCode

MakeBundle = Callable[..., Path]
WHY = "this machine has no such device"


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """openvino builds and cannot run; calling the fixture's value brings the device back."""
    monkeypatch.setattr(openvino, "runs_here", lambda recipe: WHY)
    return lambda: monkeypatch.setattr(openvino, "runs_here", lambda recipe: None)


def test_pending_is_said_and_judged_when_it_can_be(
    make_bundle: MakeBundle, elsewhere: Callable[[], None]
) -> None:
    portable = make_bundle()
    result = compile_bundle(portable, precision="int8")
    assert (result.cached, result.pending) == (False, WHY)
    assert result.gate is not None
    assert (result.gate.kind, result.gate.limit, result.gate.passed) == ("pending", 0.05, False)
    assert verify_bundle(result.path).gate is not None
    again = compile_bundle(portable, precision="int8")
    assert (again.cached, again.pending, again.gate) == (True, WHY, result.gate)

    elsewhere()
    log: list[str] = []
    judged = compile_bundle(
        portable, precision="int8", progress=lambda phase, done, total: log.append(phase)
    )
    assert "compile int8" not in log  # what was built is judged, not built again
    assert (judged.cached, judged.pending, judged.path) == (True, None, result.path)
    assert judged.gate is not None
    assert (judged.gate.kind, judged.gate.passed) == ("agreement", True)
    made = verify_bundle(result.path)
    assert made.gate is not None
    assert made.gate.kind == "agreement"


def test_what_is_pending_can_still_be_refused(
    make_bundle: MakeBundle, elsewhere: Callable[[], None]
) -> None:
    blind = make_bundle("blind", int8_steps=0.4)
    path = compile_bundle(blind, precision="int8").path
    elsewhere()
    with pytest.raises(TargetError, match="gate: int8: poses disagree") as caught:
        compile_bundle(blind, precision="int8")
    assert caught.value.code == ExitCode.NO
    still = verify_bundle(path)
    assert still.gate is not None
    assert still.gate.kind == "pending"


def test_auto_takes_the_first_of_the_recipe_and_times_later(
    make_bundle: MakeBundle, elsewhere: Callable[[], None]
) -> None:
    portable = make_bundle(selftest=False)  # no pictures are needed to build
    log: list[str] = []
    result = compile_bundle(portable, progress=lambda phase, done, total: log.append(phase))
    assert (result.precision, result.fps, result.pending) == ("fp32", {}, WHY)
    assert f"auto: fp32 is taken unmeasured: {WHY}" in log
    assert compile_bundle(portable, precision="int8").pending == WHY
    other = make_bundle("other")
    assert compile_bundle(other).precision == "fp32"
    elsewhere()
    timed = compile_bundle(other)
    assert not timed.cached
    assert len(timed.fps) > 1
    assert timed.gate is not None
    assert timed.gate.passed


@pytest.mark.usefixtures("elsewhere")
def test_the_verb_says_pending_and_exits_0(
    make_bundle: MakeBundle, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["compile", str(make_bundle()), "--target", "x86-cpu", "--precision", "int8"]
    assert program(asked) == 0
    assert f"gate pending: {WHY}" in capsys.readouterr().err
    assert program([*asked, "--json"]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (result["gate"]["kind"], result["pending"]) == ("pending", WHY)
