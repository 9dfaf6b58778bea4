# SPDX-License-Identifier: Apache-2.0
"""Compiling for x86-cpu: results, the gate, the cache, and every refusal with its exit code."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from posewire.targets import TargetError, compile_bundle, gate, load_recipe, openvino
from posewire.targets.compile import CompiledResult

from posewire import _core
from posewire.bundle import read_manifest, verify_bundle
from posewire.errors import BundleError, ExitCode, PosewireError

MakeBundle = Callable[..., Path]


class Log:
    """A progress callback that remembers the phases."""

    def __init__(self) -> None:
        self.phases: list[str] = []

    def __call__(self, phase: str, done: int, total: int) -> None:
        assert 0 <= done <= max(total, 0)
        if phase not in self.phases:
            self.phases.append(phase)


def test_fp32_is_compiled_judged_and_found_again(make_bundle: MakeBundle, own_cache: Path) -> None:
    portable = make_bundle()
    log = Log()
    result = compile_bundle(portable, precision="fp32", progress=log)
    assert isinstance(result, CompiledResult)
    assert (result.precision, result.cached) == ("fp32", False)
    assert result.path.parent == own_cache
    assert result.path.stat().st_mode & 0o777 == 0o700
    assert own_cache.stat().st_mode & 0o777 == 0o700
    assert {"verify", "compile fp32", "reference", "gate fp32"} <= set(log.phases)
    assert result.gate is not None
    assert (result.gate.kind, result.gate.pictures) == ("agreement", 4)
    assert result.gate.value <= 1e-6

    made = verify_bundle(result.path)
    source = read_manifest(portable)
    assert made.target is not None
    assert made.target.runtime_version == openvino.version(load_recipe("x86-cpu"))
    assert made.target.device == openvino.device(load_recipe("x86-cpu"))
    assert made.derived_from is not None
    assert made.derived_from.sha256 == source.sha256
    assert made.gate is not None
    assert made.gate.value == result.gate.value

    again = compile_bundle(portable, precision="fp32", progress=log)
    assert again.cached
    assert again.path == result.path
    assert again.gate == result.gate
    assert [p.name for p in own_cache.iterdir() if p.name.startswith(".build")] == []


def test_every_precision_finds_the_people_drawn(make_bundle: MakeBundle) -> None:
    portable = make_bundle()
    for precision in ("fp32", "bf16", "int8"):
        if openvino.missing(precision, load_recipe("x86-cpu")) is not None:
            with pytest.raises(TargetError) as caught:
                compile_bundle(portable, precision=precision)
            assert caught.value.code == ExitCode.UNAVAILABLE
            continue
        result = compile_bundle(portable, precision=precision)
        estimator = _core.Estimator(str(result.path))
        scores, keypoints = estimator.estimate(
            _core.read_picture(str(portable / "selftest-01.png"))
        )
        assert keypoints.shape == (2, 3, 3)
        for x, y, apart in ((50, 30, 44), (140, 60, 48)):
            person = min(keypoints, key=lambda k: abs(k[0, 0] - x))
            for k in range(3):
                assert abs(person[k, 0] - x) < 5
                assert abs(person[k, 1] - y - k * apart) < 5
        assert (scores > 0.3).all()


def test_auto_times_the_precisions_and_says_so(make_bundle: MakeBundle) -> None:
    result = compile_bundle(make_bundle())
    assert result.precision in result.fps
    assert set(result.fps) | set(result.rejected) == {"fp32", "bf16", "int8"}
    usable = {name: fps for name, fps in result.fps.items() if name not in result.rejected}
    assert result.fps[result.precision] == max(usable.values())
    again = compile_bundle(result.path.parent.parent.parent.parent / "portable")
    assert again.cached
    assert again.precision == result.precision


def test_a_blind_int8_fails_its_gate_and_replaces_nothing(
    make_bundle: MakeBundle, tmp_path: Path, own_cache: Path
) -> None:
    out = tmp_path / "out"
    compile_bundle(make_bundle("good"), precision="int8", out=out)
    before = (out / "manifest.json").read_bytes()
    entries = sorted(own_cache.iterdir())

    blind = make_bundle("blind", int8_steps=0.4)
    with pytest.raises(
        TargetError, match=r"gate: int8: poses disagree by .*limit is 0.05"
    ) as caught:
        compile_bundle(blind, precision="int8", out=out)
    assert caught.value.code == ExitCode.NO
    assert (out / "manifest.json").read_bytes() == before
    assert [p for p in sorted(own_cache.iterdir()) if p.suffix != ".lock"] == [
        p for p in entries if p.suffix != ".lock"
    ]

    result = compile_bundle(blind)  # auto takes another one
    assert result.precision != "int8"
    if "int8" in result.rejected:
        assert "disagree" in result.rejected["int8"]


def test_the_gate_with_labels_measures_ap(
    make_bundle: MakeBundle, labelled: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    labels, images = labelled
    portable = make_bundle(selftest=False)
    with pytest.raises(TargetError, match="labels 7 people, the AP gate needs 200") as caught:
        compile_bundle(portable, precision="int8", labels=labels, images=images)
    assert caught.value.code == ExitCode.USAGE
    monkeypatch.setattr(gate, "MIN_PEOPLE", 7)
    result = compile_bundle(portable, precision="int8", labels=labels, images=images)
    assert result.gate is not None
    assert (result.gate.kind, result.gate.pictures, result.gate.limit) == ("ap", 5, 0.01)

    blind = make_bundle("blind", selftest=False, int8_steps=0.4)
    with pytest.raises(TargetError, match="AP drops by 1") as caught:
        compile_bundle(blind, precision="int8", labels=labels, images=images)
    assert caught.value.code == ExitCode.NO


def test_a_folder_of_pictures_can_be_the_gate(
    make_bundle: MakeBundle, labelled: tuple[Path, Path], tmp_path: Path
) -> None:
    portable = make_bundle(selftest=False)
    with pytest.raises(TargetError, match="cannot be judged") as caught:
        compile_bundle(portable, precision="int8")
    assert caught.value.code == ExitCode.USAGE
    result = compile_bundle(portable, precision="int8", images=labelled[1])
    assert result.gate is not None
    assert (result.gate.kind, result.gate.pictures) == ("agreement", 5)
    ungated = compile_bundle(portable, precision="fp32")
    assert ungated.gate is None
    assert compile_bundle(portable).precision == "fp32"  # auto: all that can be judged

    (tmp_path / "empty").mkdir()
    with pytest.raises(TargetError, match="holds no pictures") as caught:
        compile_bundle(portable, images=tmp_path / "empty")
    assert caught.value.code == ExitCode.SOURCE


def test_pictures_without_people_say_nothing_about_int8(
    make_bundle: MakeBundle, labelled: tuple[Path, Path], tmp_path: Path
) -> None:
    dark = tmp_path / "dark"
    dark.mkdir()
    shutil.copy(labelled[1] / "004.png", dark)
    portable = make_bundle(selftest=False)
    with pytest.raises(TargetError, match="finds nobody in 1 pictures") as caught:
        compile_bundle(portable, precision="int8", images=dark)
    assert caught.value.code == ExitCode.NO
    assert compile_bundle(portable, precision="fp32", images=dark).gate is not None


def test_a_damaged_entry_is_made_again_and_said(make_bundle: MakeBundle) -> None:
    portable = make_bundle()
    path = compile_bundle(portable, precision="fp32").path
    weights = path / "model.bin"
    weights.write_bytes(b"x" + weights.read_bytes()[1:])
    log = Log()
    result = compile_bundle(portable, precision="fp32", progress=log)
    assert not result.cached
    assert any("damaged" in phase and "model.bin" in phase for phase in log.phases)
    verify_bundle(path)
    (path / "manifest.json").unlink()
    assert not compile_bundle(portable, precision="fp32").cached
    verify_bundle(path)


def test_the_key_holds_precision_pictures_and_the_bundle(
    make_bundle: MakeBundle, labelled: tuple[Path, Path]
) -> None:
    one, other = make_bundle("one"), make_bundle("other", precisions=("fp32",))
    results = [
        compile_bundle(one, precision="fp32"),
        compile_bundle(one, precision="int8"),
        compile_bundle(one, precision="fp32", images=labelled[1]),
        compile_bundle(one, precision="fp32", max_batch=4),
        compile_bundle(other, precision="fp32"),
    ]
    assert len({result.path for result in results}) == len(results)
    assert not any(result.cached for result in results)


def test_batches_give_the_same_poses(make_bundle: MakeBundle) -> None:
    result = compile_bundle(make_bundle(), precision="fp32", max_batch=4)
    run = _core.bench_inference(str(result.path), 0.05, 2)
    assert run["max_batch"] == 4
    assert run["fps"] > 0
    assert run["requests"] == 2


def test_compilers_do_not_clash(make_bundle: MakeBundle) -> None:
    portable = make_bundle()
    script = (
        "import sys; from posewire.targets import compile_bundle\n"
        "print(compile_bundle(sys.argv[1], precision='fp32').path)"
    )
    children = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(portable)],
            cwd="/",
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    said = [child.communicate(timeout=120)[0].strip() for child in children]
    assert [child.returncode for child in children] == [0, 0]
    assert said[0] == said[1]
    verify_bundle(said[0])


def test_refusals(make_bundle: MakeBundle, tmp_path: Path) -> None:
    portable = make_bundle(precisions=("fp32",))
    cases: list[tuple[dict[str, object], ExitCode, str]] = [
        ({"target": "toaster"}, ExitCode.USAGE, "known are .*x86-cpu"),
        ({"precision": "fp8"}, ExitCode.USAGE, "known are auto, fp32"),
        ({"precision": "int8"}, ExitCode.BUNDLE, "has no int8-u8 ONNX artifact"),
        ({"labels": tmp_path / "x.json"}, ExitCode.USAGE, "--labels needs --images"),
        ({"images": tmp_path / "nowhere"}, ExitCode.SOURCE, "nowhere: is not a folder"),
        ({"out": portable}, ExitCode.CANNOT_WRITE, "the portable bundle itself"),
    ]
    for arguments, code, match in cases:
        with pytest.raises(PosewireError, match=match) as caught:
            compile_bundle(portable, **arguments)  # type: ignore[arg-type]
        assert caught.value.code == code, arguments
    compiled = compile_bundle(portable, precision="fp32").path
    with pytest.raises(TargetError, match="is compiled already") as caught_again:
        compile_bundle(compiled)
    assert caught_again.value.code == ExitCode.BUNDLE
    (tmp_path / "file").write_text("mine")
    with pytest.raises(TargetError, match="in the way"):
        compile_bundle(portable, out=tmp_path / "file")


def test_a_cpu_target_is_compiled_on_its_own_kind_of_machine(
    make_bundle: MakeBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    portable = make_bundle()
    elsewhere = {"x86-cpu": "aarch64", "arm-cpu": "x86_64"}
    for target, machine in elsewhere.items():
        monkeypatch.setattr("platform.machine", lambda machine=machine: machine)
        for precision in ("fp32", "auto"):
            with pytest.raises(TargetError, match=f"this machine is {machine}, {target} is for "):
                compile_bundle(portable, target, precision)
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    capable = openvino.missing("fp16", load_recipe("arm-cpu")) is None  # this CPU's own word
    result = compile_bundle(portable, "arm-cpu", "fp32")
    made = verify_bundle(result.path)
    assert made.target is not None
    assert (made.target.name, made.target.precision) == ("arm-cpu", "fp32")
    if capable:
        half = compile_bundle(portable, "arm-cpu", "fp16")
        assert half.gate is not None
        assert half.gate.passed


def test_a_manifest_that_disagrees_with_its_onnx(make_bundle: MakeBundle) -> None:
    from posewire.bundle import write_bundle

    portable = make_bundle(precisions=("fp32",))
    raw = json.loads((portable / "manifest.json").read_text())
    del raw["files"]
    raw["outputs"][1]["stride"] = 16
    wrong = portable.with_name("wrong")
    write_bundle(wrong, raw, {"model.onnx": portable / "model.onnx"})
    with pytest.raises(BundleError, match="pafs") as caught:
        compile_bundle(wrong, precision="fp32")
    assert caught.value.code == ExitCode.BUNDLE


def test_the_engine_refuses_a_bundle_of_another_version_or_device(
    make_bundle: MakeBundle, tmp_path: Path
) -> None:
    from posewire.bundle import write_bundle

    compiled = compile_bundle(make_bundle(), precision="fp32").path
    for key, value in (("runtime_version", "2001.1"), ("device", "Another CPU")):
        raw = json.loads((compiled / "manifest.json").read_text())
        files = {name: compiled / name for name in raw.pop("files")}
        raw["target"][key] = value
        write_bundle(tmp_path / key, raw, files)
        with pytest.raises(_core.EngineError, match=value) as caught:
            _core.Estimator(str(tmp_path / key))
        assert caught.value.code == ExitCode.BUNDLE
        assert "posewire compile" in str(caught.value)


def test_a_shared_cache_folder_is_refused(
    make_bundle: MakeBundle, own_cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    own_cache.mkdir(parents=True)
    own_cache.chmod(0o777)
    with pytest.raises(TargetError, match="others may write there"):
        compile_bundle(make_bundle(), precision="fp32")
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path / "state"))
    assert compile_bundle(tmp_path / "portable", precision="fp32").path.parent == (
        tmp_path / "state" / "compiled"
    )
