# SPDX-License-Identifier: Apache-2.0
"""bench: the pipeline against its ceiling, on a network with a known speed and on a real one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from posewire.cli import program
from posewire.targets import compile_bundle

from posewire.bundle import read_manifest, write_bundle
from posewire.errors import ExitCode

MakeBundle = Callable[..., Path]

KEYS = {"fps", "ceiling_fps", "ratio", "latency_ms", "frames_in", "frames_out", "dropped"}


def test_a_portable_bundle_is_compiled_and_measured(
    make_bundle: MakeBundle, labelled: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["bench", str(make_bundle()), "--source", str(labelled[1]), "--precision", "fp32"]
    assert program([*arguments, "--ceiling-seconds", "0.1", "--json"]) == ExitCode.OK
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert set(figures) >= KEYS
    assert figures["frames_in"] == figures["frames_out"] == 5
    assert figures["dropped"] == 0
    assert figures["precision"] == "fp32"
    assert figures["fps"] > 0
    assert figures["ratio"] == pytest.approx(figures["fps"] / figures["ceiling_fps"], rel=0.01)
    assert set(figures["latency_ms"]) == {"p50", "p99"}
    assert 0 < figures["latency_ms"]["p50"] <= figures["latency_ms"]["p99"]


def test_the_ceiling_is_what_the_device_can_do(
    make_bundle: MakeBundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A device of 20 ms a picture: the ceiling is 50, and the pipeline must come near."""
    compiled = compile_bundle(make_bundle(), precision="fp32").path
    raw = {k: v for k, v in read_manifest(compiled).raw.items() if k != "files"}
    artifact = {**raw["artifacts"][0], "files": ["fake.json"], "format": "fake"}
    target = {**raw["target"], "runtime": "fake", "runtime_version": "1", "device": ""}
    files: dict[str, Path | bytes] = {"fake.json": b'{"infer_ms": 20}'}
    fake = tmp_path / "fake"
    write_bundle(fake, {**raw, "artifacts": [artifact], "target": target}, files)
    arguments = ["bench", str(fake), "--source", "synthetic:?people=2&frames=40"]
    assert program([*arguments, "--ceiling-seconds", "0.4", "--json"]) == ExitCode.OK
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert 30 < figures["ceiling_fps"] <= 51
    assert figures["ratio"] > 0.5
    assert figures["frames_out"] == 40


def test_bench_names_what_is_missing(
    make_bundle: MakeBundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = str(make_bundle())
    for source, code in (
        (str(tmp_path / "nothing.avi"), ExitCode.SOURCE),
        ("gopher://x", ExitCode.CONFIG),
    ):
        arguments = ["bench", bundle, "--precision", "fp32", "--source", source]
        assert program(arguments) == code
        assert source in capsys.readouterr().err.splitlines()[-1]
    assert program(["bench", str(tmp_path), "--source", "x.avi"]) == ExitCode.BUNDLE
