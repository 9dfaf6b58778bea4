# SPDX-License-Identifier: Apache-2.0
"""compile, evaluate, inspect and verify as a person calls them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import pytest
from posewire.cli import program

from posewire.bundle import read_manifest
from posewire.errors import ExitCode

MakeBundle = Callable[..., Path]


def test_compile_says_where_and_what(
    make_bundle: MakeBundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    portable, out = make_bundle(), tmp_path / "compiled"
    arguments = ["compile", str(portable), "--precision", "fp32", "--json", "-o", str(out)]
    assert program(arguments) == ExitCode.OK
    said = capsys.readouterr()
    figures = json.loads(said.out.splitlines()[-1])
    assert figures["bundle"] == str(out)
    assert figures["precision"] == "fp32"
    assert figures["gate"]["kind"] == "agreement"
    assert not figures["cached"]
    assert "compile fp32" in said.err
    made = read_manifest(out)
    assert made.target is not None
    assert made.target.name == "x86-cpu"
    assert program(arguments) == ExitCode.OK
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["cached"]


def test_a_failed_gate_is_exit_code_1(
    make_bundle: MakeBundle, capsys: pytest.CaptureFixture[str]
) -> None:
    blind = make_bundle(int8_steps=0.4)
    assert program(["compile", str(blind), "--precision", "int8"]) == ExitCode.NO
    said = capsys.readouterr()
    assert said.err.splitlines()[-1].startswith("posewire: error: ")
    assert "poses disagree by 1.000" in said.err
    assert said.out == ""


@pytest.mark.parametrize("compiled_first", [False, True])
def test_evaluate_ends_with_the_figures(
    make_bundle: MakeBundle,
    labelled: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    compiled_first: bool,
) -> None:
    bundle = make_bundle()
    if compiled_first:
        compiled = tmp_path / "compiled"
        assert program(["compile", str(bundle), "--precision", "fp32", "-o", str(compiled)]) == 0
        bundle = compiled
    labels, images = labelled
    out = tmp_path / "out"
    arguments = ["evaluate", str(bundle), str(labels), "--images", str(images), "--json"]
    assert program([*arguments, "-o", str(out)]) == ExitCode.OK
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert figures["images"] == 5
    assert figures["people"] == figures["found"] == 7
    assert figures["AP"] > 0.9
    assert figures["AP50"] == 1.0
    assert figures["AR"] > 0.9
    assert figures["PCK@0.2"] is None  # no shoulders, no hips
    assert json.loads((out / "figures.json").read_text()) == figures
    assert len(json.loads((out / "poses.json").read_text())["results"]) == 7
    drawn = sorted((out / "pictures").iterdir())
    assert [path.name for path in drawn] == [f"{i:03d}.jpg" for i in range(5)]
    assert (cv2.imread(str(drawn[0])) != cv2.imread(str(images / "000.png"))).any()


def test_evaluate_against_another_precision(
    make_bundle: MakeBundle,
    labelled: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A bundle whose int8 form is blind: the gate refuses it, and that is what is measured."""
    bundle = str(make_bundle(int8_steps=0.4))
    labels, images = labelled
    common = [str(labels), "--images", str(images), "-o", str(tmp_path / "out"), "--json"]
    against = ["--against", bundle, "--against-precision", "int8"]
    assert program(["evaluate", bundle, *common, *against]) == ExitCode.OK
    said = capsys.readouterr()
    figures = json.loads(said.out.splitlines()[-1])
    other = figures["against"]
    assert other["precision"] == "int8"
    assert other["AP_difference"] == pytest.approx(figures["AP"], abs=1e-4)
    low, high = other["interval"]
    assert 0 < low <= other["AP_difference"] <= high
    assert "it is measured all the same" in said.err

    assert program(["evaluate", bundle, *common, "--against", bundle]) == ExitCode.OK
    other = json.loads(capsys.readouterr().out.splitlines()[-1])["against"]
    assert (other["AP_difference"], other["interval"]) == (0.0, [0.0, 0.0])


def test_evaluate_names_what_is_wrong(
    make_bundle: MakeBundle,
    labelled: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    bundle = str(make_bundle())
    labels, images = labelled
    data = json.loads(labels.read_text())

    def refused(changed: object, folder: Path = images) -> str:
        bad = tmp_path / "bad.json"
        bad.write_text(changed if isinstance(changed, str) else json.dumps(changed))
        code = program(["evaluate", bundle, str(bad), "--images", str(folder)])
        assert code == ExitCode.SOURCE
        return capsys.readouterr().err.splitlines()[-1]

    assert "bad.json: is not JSON" in refused("{")
    assert "annotations: must be a list" in refused({**data, "annotations": None})
    keypoints = [{**data["categories"][0], "keypoints": ["a", "b", "c"]}]
    assert "no known skeleton has the keypoints a, b, c" in refused(
        {**data, "categories": keypoints}
    )
    short = [{**data["annotations"][0], "keypoints": [1, 2]}]
    assert "annotations[0] (id 1).keypoints: must have 9" in refused({**data, "annotations": short})
    lost = [*data["images"], {"id": 99, "file_name": "lost.png"}]
    assert "lost.png: is missing" in refused({**data, "images": lost})
    assert "nowhere: is not a folder" in refused(data, tmp_path / "nowhere")
    (images / "000.png").write_bytes(b"no picture")
    assert "000.png" in refused(data)


def test_inspect_and_verify(make_bundle: MakeBundle, capsys: pytest.CaptureFixture[str]) -> None:
    portable = make_bundle()
    assert program(["inspect", str(portable)]) == ExitCode.OK
    said = capsys.readouterr().out
    for word in ("tiny 1", "dots3 (3 keypoints, 2 limbs)", "128 x 96 RGB", "int8-u8 onnx"):
        assert word in said
    assert program(["inspect", str(portable), "--json"]) == ExitCode.OK
    assert json.loads(capsys.readouterr().out)["name"] == "tiny"

    assert program(["verify", str(portable), "--json"]) == ExitCode.OK
    assert json.loads(capsys.readouterr().out)["files"] == 6
    (portable / "model.onnx").write_bytes(b"tampered")
    assert program(["verify", str(portable)]) == ExitCode.BUNDLE
    assert "model.onnx" in capsys.readouterr().err
    assert program(["inspect", str(portable / "nothing")]) == ExitCode.BUNDLE
