# SPDX-License-Identifier: Apache-2.0
"""Compiling for small-arm, and the engine running it: the network of conftest.py as TFLite."""

from __future__ import annotations

import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from posewire.targets import Recipe, TargetError, compile_bundle, load_recipe, tflite

from posewire import _core
from posewire.bundle import read_manifest, verify_bundle, write_bundle
from posewire.errors import ExitCode

pytest.importorskip("ai_edge_litert")

MakeBundle = Callable[..., Path]
GOLDEN = Path(__file__).parents[1] / "golden" / "tflite"
FILES = {"fp32": "dots.tflite", "int8": "dots.int8.tflite"}
STEPS = {"heatmaps": 0.003921568859368563, "pafs": 0.003921643830835819}  # 0..1 in 255 steps


def artifact(precision: str) -> dict[str, Any]:
    outputs: list[dict[str, Any]] = [
        {"name": n, "layout": "NHWC", "dtype": "float32"} for n in ("heatmaps", "pafs")
    ]
    if precision == "int8":
        for output in outputs:
            output |= {"dtype": "int8", "scale": STEPS[output["name"]], "zero_point": -128}
    return {
        "files": [FILES[precision]],
        "format": "tflite",
        "precision": precision,
        "input": {"layout": "NHWC", "dtype": "uint8"},
        "outputs": outputs,
    }


def changed(
    portable: Path,
    name: str,
    files: dict[str, bytes] | None = None,
    change: Callable[[dict[str, Any]], None] = lambda raw: None,
) -> Path:
    """The portable bundle with the golden TFLite files, or other bytes, or a changed manifest."""
    manifest = read_manifest(portable)
    raw = {key: value for key, value in manifest.raw.items() if key != "files"}
    raw["artifacts"] = [*raw["artifacts"], *map(artifact, FILES)]
    change(raw)
    all_files: dict[str, Path | bytes] = {file: portable / file for file in manifest.files}
    all_files |= {file: (GOLDEN / file).read_bytes() for file in FILES.values()}
    all_files |= files or {}
    out = portable.with_name(name)
    write_bundle(out, raw, all_files)
    return out


@pytest.fixture
def portable(make_bundle: MakeBundle) -> Path:
    return changed(make_bundle(), "with-tflite")


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_people_are_found(portable: Path, precision: str) -> None:
    result = compile_bundle(portable, "small-arm", precision)
    assert result.gate is not None
    assert (result.gate.kind, result.gate.pictures) == ("agreement", 4)
    assert result.gate.value <= (1e-6 if precision == "fp32" else 0.05)
    made = verify_bundle(result.path)
    assert made.target is not None
    assert (made.target.runtime, made.target.precision) == ("tflite", precision)
    assert made.target.runtime_version == tflite.version(load_recipe("small-arm"))
    assert made.target.device == platform.machine()
    assert set(made.files) == {"model.tflite"}
    estimator = _core.Estimator(str(result.path))
    picture = _core.read_picture(str(portable / "selftest-01.png"))
    scores, keypoints = estimator.estimate(picture)
    assert keypoints.shape == (2, 3, 3)
    for x, y, apart in ((50, 30, 44), (140, 60, 48)):
        person = min(keypoints, key=lambda k: abs(k[0, 0] - x))
        for k in range(3):
            assert abs(person[k, 0] - x) < 5
            assert abs(person[k, 1] - y - k * apart) < 5
    assert (scores > 0.3).all()


def test_openvino_computes_the_same(portable: Path) -> None:
    picture = _core.read_picture(str(portable / "selftest-02.png"))
    maps = {}
    for target in ("small-arm", "x86-cpu"):
        if target == "x86-cpu" and platform.machine() != "x86_64":
            pytest.skip("x86-cpu is compiled on x86 alone")
        made = compile_bundle(portable, target, "fp32")
        maps[target] = _core.Estimator(str(made.path)).network(picture)
    for name, values in maps["x86-cpu"].items():
        assert np.abs(values).max() > 0.5
        np.testing.assert_allclose(maps["small-arm"][name], values, atol=1e-5)


def test_threads_and_requests_do_not_change_the_poses(portable: Path) -> None:
    made = compile_bundle(portable, "small-arm", "fp32").path
    files = sorted(str(path) for path in portable.glob("selftest-*"))
    found = []
    for requests, threads in ((1, 1), (1, 3), (5, 2), (0, 0)):
        estimator = _core.Estimator(str(made), requests, threads)
        assert requests in (0, estimator.requests)
        found.append(estimator.estimate_files(files * 3))
    for other in found[1:]:
        for (scores, points), (same_scores, same_points) in zip(found[0], other, strict=True):
            np.testing.assert_array_equal(scores, same_scores)
            np.testing.assert_array_equal(points, same_points)


def test_auto_times_both(portable: Path) -> None:
    result = compile_bundle(portable, "small-arm", "auto")
    assert set(result.fps) == {"fp32", "int8"}
    assert result.gate is not None


def test_a_bundle_without_tflite_says_so(make_bundle: MakeBundle) -> None:
    with pytest.raises(TargetError, match="no fp32 TFLite artifact") as caught:
        compile_bundle(make_bundle(), "small-arm", "fp32")
    assert caught.value.code == ExitCode.BUNDLE


def scaled(raw: dict[str, Any]) -> None:
    raw["artifacts"][-1]["outputs"][0]["scale"] = 0.5


def renamed(raw: dict[str, Any]) -> None:
    for output in (raw["outputs"][0], *(a["outputs"][0] for a in raw["artifacts"])):
        output["name"] = "maps"


def planes(raw: dict[str, Any]) -> None:
    raw["artifacts"][-2]["outputs"][1]["layout"] = "NCHW"


GOOD = (GOLDEN / FILES["fp32"]).read_bytes()


@pytest.mark.parametrize(
    ("precision", "files", "change", "named"),
    [
        ("fp32", {FILES["fp32"]: b""}, None, "is no TFLite file"),
        ("fp32", {FILES["fp32"]: GOOD[:700]}, None, "damaged|signatures"),
        ("fp32", {FILES["fp32"]: (GOLDEN / "mean.tflite").read_bytes()}, None, "mean, twice"),
        ("int8", {FILES["int8"]: GOOD}, None, "heatmaps is float32"),
        ("fp32", {}, planes, r"pafs is float32 \[1, 12, 16, 4\], the manifest says"),
        ("int8", {}, scaled, "heatmaps has scale 0.00"),
    ],
)
def test_what_disagrees_is_refused(
    make_bundle: MakeBundle,
    own_cache: Path,
    precision: str,
    files: dict[str, bytes],
    change: Callable[[dict[str, Any]], None] | None,
    named: str,
) -> None:
    bundle = changed(make_bundle(), "other", files, change or (lambda raw: None))
    with pytest.raises(Exception, match=named) as caught:
        compile_bundle(bundle, "small-arm", precision)
    assert getattr(caught.value, "code", None) == ExitCode.BUNDLE
    assert not [path for path in own_cache.iterdir() if path.is_dir()]


def test_without_litert(portable: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = {"name": "tflite", "version": "", "available": False, "why": "LiteRT is not there"}
    monkeypatch.setattr(tflite, "_row", lambda: row)
    with pytest.raises(TargetError, match="LiteRT is not there") as caught:
        compile_bundle(portable, "small-arm", "fp32")
    assert caught.value.code == ExitCode.UNAVAILABLE
    assert tflite.missing("int8", load_recipe("small-arm")) == "LiteRT is not there"


def test_full_integer_is_checked_and_the_operators_are_listed(
    portable: Path, tmp_path: Path
) -> None:
    """For accelerators with integer arithmetic alone."""
    assert list(tflite.floating_operators(GOLDEN / FILES["int8"])) == []
    floating = list(tflite.floating_operators(GOLDEN / FILES["fp32"]))
    assert any(line.startswith("CONV_2D -> ") for line in floating)
    assert any(line.startswith("CAST -> ") for line in floating)

    values = load_recipe("small-arm").__dict__ | {"options": {"full_integer": True}}
    recipe = Recipe(**values)
    manifest = read_manifest(portable)

    def build(precision: str, file: str) -> None:
        (entry,) = (
            a for a in manifest.artifacts if (a.format, a.precision) == ("tflite", precision)
        )
        tflite.build(GOLDEN / file, manifest, entry, precision, tmp_path, recipe, 1)

    build("int8", FILES["int8"])
    build("fp32", FILES["fp32"])  # asked for by its name, it may be what it is
    entry = next(a for a in manifest.artifacts if (a.format, a.precision) == ("tflite", "fp32"))
    with pytest.raises(TargetError, match=r"operators are not integer: .*CONV_2D") as caught:
        tflite.build(GOLDEN / FILES["fp32"], manifest, entry, "int8", tmp_path, recipe, 1)
    assert caught.value.code == ExitCode.BUNDLE
