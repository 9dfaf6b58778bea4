# SPDX-License-Identifier: Apache-2.0
"""The TensorRT compiler against the real Python bindings of every generation, without TensorRT.

The bindings (1 MB each) are downloaded into build/tensorrt-bindings once; the libraries that they
want are stubs of ours. What a build really computes needs a GPU and is not tested here: what is, is
that every class, flag, property and signature it uses exists in that version, and which are used.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from posewire.cli import program
from posewire.targets import TargetError, compile_bundle, cuda, load_recipe
from posewire.targets.compiler import with_options

from posewire.errors import ExitCode

cv2 = pytest.importorskip("cv2")
HERE = Path(__file__).parent
BUILD = HERE.parents[1] / "build" / "tensorrt-bindings"
PACKAGES = {
    "8.6.1": "tensorrt-bindings",
    "10.3.0": "tensorrt-cu12-bindings",
    "10.13.3.9": "tensorrt-cu12-bindings",
    "10.16.1.11": "tensorrt-cu13-bindings",
    "11.4.0.106": "tensorrt-cu13-bindings",
}
VERSIONS = list(PACKAGES)
OLD = [version for version in VERSIONS if version.startswith("8.")]
TEN = [version for version in VERSIONS if version.startswith("10.")]
BEFORE_11, FROM_10 = OLD + TEN, [*TEN, "11.4.0.106"]
LIBRARIES = ("nvinfer", "nvonnxparser", "nvinfer_plugin", "nvparsers")

Run = Callable[..., list[dict[str, Any]]]


def bindings(version: str) -> Path:
    """The folder of the bindings, downloaded where it is absent; skips where they cannot be had."""
    folder = BUILD / f"{version}-py{sys.version_info.major}{sys.version_info.minor}"
    if not folder.is_dir():
        aside = folder.with_name(f"{folder.name}.{os.getpid()}")
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
        command += ["--disable-pip-version-check", "--only-binary=:all:", "--target", str(aside)]
        done = subprocess.run(
            [*command, f"{PACKAGES[version]}=={version}"],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            last = (done.stderr.strip().splitlines() or ["pip failed"])[-1]
            pytest.skip(f"{PACKAGES[version]} {version} cannot be had: {last}")
        aside.rename(folder)
    return folder


@pytest.fixture(scope="session")
def stubs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of the stub libraries of every major version."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler here")
    folder = tmp_path_factory.mktemp("stubs")
    built = folder / "stub.o"
    source = str(HERE / "tensorrt_stub.c")
    subprocess.run([compiler, "-c", "-fPIC", "-O1", "-Wall", source, "-o", str(built)], check=True)
    for major in ("8", "10", "11"):
        for name in LIBRARIES:
            library = f"lib{name}.so.{major}"
            link = [compiler, "-shared", str(built), f"-Wl,-soname,{library}"]
            subprocess.run([*link, "-o", str(folder / library)], check=True)
    return folder


@pytest.fixture
def run(stubs: Path, tmp_path: Path) -> Run:
    """run(version, jobs) -> what tensorrt_double.py said of each; the cache is shared by the runs
    of one test."""

    def one(version: str, jobs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        out = tmp_path / "out"
        out.mkdir(exist_ok=True)
        environment = {
            **os.environ,
            "PYTHONPATH": str(bindings(version)),
            "LD_LIBRARY_PATH": str(stubs),
            "PYTHONSAFEPATH": "1",
        }
        done = subprocess.run(
            [sys.executable, str(HERE / "tensorrt_double.py"), str(out)],
            input=json.dumps(jobs),
            capture_output=True,
            text=True,
            env=environment,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        said: list[dict[str, Any]] = [json.loads(line) for line in done.stdout.splitlines()]
        assert len(said) == len(jobs)
        assert all(result["version"] == version for result in said)
        return said

    return one


def arguments(result: dict[str, Any], method: str) -> list[list[str]]:
    return [given for _, name, given in result["calls"] if name == method]


@pytest.fixture
def bundle(contract_bundle: Callable[..., Path]) -> str:
    return str(contract_bundle("paf"))


@pytest.mark.parametrize("version", VERSIONS)
def test_every_precision_is_built(version: str, run: Run, bundle: str) -> None:
    precisions = ("fp32", "fp16", "int8")
    jobs = [{"bundle": bundle, "target": "jetson-orin", "precision": p} for p in precisions]
    for precision, result in zip(precisions, run(version, jobs), strict=True):
        assert result.get("error", result.get("missing")) is None
        assert result["source"] == ["onnx", precision]
        assert (result["entry"]["format"], result["entry"]["precision"]) == ("tensorrt", precision)
        assert result["entry"]["input"] == {"layout": "NHWC", "dtype": "uint8"}
        assert result["files"] == {"model.plan": "serialised by nobody"}
        major = version.split(".")[0]
        typed = {"8": "1", "10": str(result["strong"]), "11": "0"}  # 8: explicit batch
        assert arguments(result, "create_network") == [[typed[major]]]
        flags = {"fp32": [], "fp16": ["BuilderFlag.FP16"], "int8": ["BuilderFlag.INT8"]}
        assert [f for (f,) in arguments(result, "set_flag")] == (
            flags[precision] if major == "8" else []
        )
        tf32 = [["BuilderFlag.TF32"]] if precision == "fp32" else []
        assert arguments(result, "clear_flag") == tf32
        shapes = ["image", "(1, 64, 96, 3)", "(4, 64, 96, 3)", "(4, 64, 96, 3)"]
        # One profile for each request in flight, where a profile serves one context.
        assert arguments(result, "set_shape") == [shapes] * (3 if major == "8" else 1)
        workspace = ["MemoryPoolType.WORKSPACE", str(1024 << 20)]
        assert arguments(result, "set_memory_pool_limit") == [workspace]
        assert arguments(result, "int8_calibrator") == []
        numbers = ".".join(version.split(".")[:3])
        assert result["key"] == [numbers, "driver 540.4, CUDA 12.6, sm_87", "a GPU"]


def test_the_timing_cache_is_kept(run: Run, bundle: str) -> None:
    job = {"bundle": bundle, "target": "jetson-orin", "precision": "fp16"}
    first, second = run("10.3.0", [job, job])
    assert arguments(first, "create_timing_cache") == [["0 bytes"]]
    assert arguments(second, "create_timing_cache") == [["20 bytes"]]
    (other,) = run("10.13.3.9", [job])
    assert arguments(other, "create_timing_cache") == [["0 bytes"]]


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """33 pictures; each one's sum tells it from the others."""
    folder = tmp_path / "photographs"
    folder.mkdir()
    for i in range(33):
        cv2.imwrite(str(folder / f"{i:02d}.png"), np.full((64, 96, 3), (i, 0, 7), np.uint8))
    return folder


@pytest.mark.parametrize("version", VERSIONS)
def test_calibration(version: str, run: Run, bundle: str, photographs: Path) -> None:
    options = {"int8": "calibrate", "calibration": str(photographs)}
    job = {"bundle": bundle, "target": "jetson-orin", "precision": "int8", "options": options}
    result, again = run(version, [job, job])
    if version not in BEFORE_11:
        assert "has no calibrators" in result["missing"]
        return
    assert result.get("error") is None
    assert result["source"] == ["onnx", "fp32"]
    assert arguments(result, "set_flag") == [["BuilderFlag.INT8"]]
    assert arguments(result, "create_network") == [["1" if version in OLD else "0"]]
    assert len(arguments(result, "set_calibration_profile")) == 1
    found = result["calibrated"]
    # The 33rd picture fills no batch. A picture's sum, red and blue being swapped or not.
    assert (found["size"], found["batches"], found["table"]) == (4, 8, "a table")
    sums = [sum((i + 7) * 64 * 96 for i in range(n, n + 4)) for n in range(0, 32, 4)]
    assert found["sums"] == sums
    assert found["before"] is None
    assert again["calibrated"]["before"] is not None  # the table, so TensorRT asks for no batch
    before = result["key"]
    cv2.imwrite(str(photographs / "00.png"), np.zeros((64, 96, 3), np.uint8))
    (other,) = run(version, [job])
    assert other["key"] != before  # other pictures make another engine
    assert other["calibrated"]["before"] is None


def test_calibration_refuses(run: Run, bundle: str, photographs: Path, tmp_path: Path) -> None:
    few = tmp_path / "few"
    few.mkdir()
    shutil.copy(photographs / "00.png", few)
    job = {"bundle": bundle, "target": "jetson-orin", "precision": "int8"}
    shutil.copy(Path(bundle) / "selftest-01.png", photographs)
    results = run(
        "10.3.0",
        [
            {**job, "options": {"int8": "calibrate", **more}}
            for more in (
                {},
                {"calibration": str(few)},
                {"calibration": str(few / "none")},
                {"calibration": str(photographs)},
            )
        ],
    )
    assert [result["code"] for result in results] == [
        ExitCode.USAGE,
        ExitCode.SOURCE,
        ExitCode.SOURCE,
        ExitCode.USAGE,
    ]
    for result, why in zip(
        results, ("--calibration DIR", "1 pictures", "not a folder", "gate"), strict=True
    ):
        assert why in result["error"]


@pytest.mark.parametrize("version", VERSIONS)
def test_a_dla(version: str, run: Run, bundle: str, photographs: Path) -> None:
    def job(precision: str, max_batch: int = 1, **options: Any) -> dict[str, Any]:
        return {
            "bundle": bundle,
            "target": "jetson-orin",
            "precision": precision,
            "max_batch": max_batch,
            "options": {"dla_core": 1, **options},
        }

    calibrate = {"int8": "calibrate", "calibration": str(photographs)}
    half, calibrated, *refused = run(
        version,
        [
            job("fp16"),
            job("int8", **calibrate),
            job("fp32"),
            job("fp16", max_batch=2),
            job("fp16", dla_core=2),
            job("int8"),
        ],
    )
    assert arguments(half, "DLA_core") == [["1"]]
    assert arguments(half, "default_device_type") == [["DeviceType.DLA"]]
    fallback, weak = ["BuilderFlag.GPU_FALLBACK"], version in BEFORE_11
    assert arguments(half, "set_flag") == ([["BuilderFlag.FP16"], fallback] if weak else [fallback])
    assert arguments(half, "create_network") == [["1" if version in OLD else "0"]]
    assert {shape for _, *rest in arguments(half, "set_shape") for shape in rest} == {
        "(1, 64, 96, 3)"
    }
    if weak:
        assert arguments(calibrated, "set_flag") == [["BuilderFlag.INT8"], fallback]
        assert calibrated["calibrated"]["size"] == 1
    reasons = ["not fp32", "max_batch = 1", "has 2 DLA cores"] + ["no Q/DQ"] * weak
    for result, why in zip(refused, reasons, strict=False):
        assert why in result["error"]


def test_the_wrong_machine(run: Run, bundle: str) -> None:
    here = {"bundle": bundle, "precision": "fp16"}
    orin, xavier, nano = run(
        "10.3.0",
        [
            {**here, "target": "jetson-orin", "gpu": 86},
            {**here, "target": "jetson-xavier"},
            {**here, "target": "jetson-nano"},
        ],
    )
    assert orin["missing"] == "jetson-orin is for GPUs of sm_87, this machine has a GPU (sm_86)"
    assert "JetPack 5" in xavier["missing"]
    assert "JetPack 4" in nano["missing"]


def test_options_of_the_verb(
    bundle: str,
    photographs: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What needs no TensorRT: which options a target has, and that what calibrates cannot judge."""
    assert program(["compile", bundle, "--target", "x86-cpu", "--dla-core", "0"]) == ExitCode.USAGE
    assert "openvino has no option dla_core" in capsys.readouterr().err
    with pytest.raises(TargetError, match="cannot be the gate's, too") as caught:
        compile_bundle(
            bundle,
            "jetson-orin",
            "int8",
            images=photographs,
            options={"int8": "calibrate", "calibration": str(photographs)},
        )
    assert caught.value.code == ExitCode.USAGE
    recipe = load_recipe("jetson-orin")
    assert with_options(recipe, {}) == recipe
    changed = with_options(recipe, {"dla_core": 1})
    assert (changed.options["dla_core"], changed.options["workspace_mb"]) == (1, 1024)
    assert changed.sha256 != recipe.sha256  # another engine in the cache
    monkeypatch.setattr(cuda, "look", lambda: cuda.Cuda(why="no GPU in this test"))
    asked = ["compile", bundle, "--target", "jetson-orin", "--precision", "fp16"]
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    assert program(asked) == ExitCode.UNAVAILABLE
    said = capsys.readouterr().err
    assert "error: jetson-orin is for aarch64, this machine is riscv64" in said
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    assert program(asked) == ExitCode.UNAVAILABLE
    assert "jetson-orin: no GPU in this test" in capsys.readouterr().err
