# SPDX-License-Identifier: Apache-2.0
"""Real pictures through every fp32 form of the shipped network: ONNX Runtime, OpenVINO, TFLite."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from posewire import _core
from posewire.bundle import verify_bundle
from posewire.manifest import Manifest

pytest.importorskip("ai_edge_litert")

LIMIT = 1e-3  # largest difference, in output units
PICTURES = 6
KEYPOINTS = 17  # the maps before the background
SHIPPED = Path(__file__).parents[2] / "models" / "coco17-paf-mobilenetv2"


@pytest.fixture(scope="module")
def pictures() -> list[Path]:
    data = os.environ.get("POSEWIRE_DATA")
    if data is None:
        pytest.skip("POSEWIRE_DATA names no folder of real pictures")
    found = sorted(Path(data, "coco", "images").glob("*.jpg"))
    assert len(found) > PICTURES
    return found[:: len(found) // PICTURES][:PICTURES]


def through_onnx(folder: Path, manifest: Manifest, picture: Any) -> dict[str, Any]:
    import onnxruntime

    fitted, _ = _core.letterbox(picture, manifest.input.width, manifest.input.height)
    session = onnxruntime.InferenceSession(
        str(folder / "model.onnx"), providers=["CPUExecutionProvider"]
    )
    names = [output.name for output in manifest.outputs]
    image = np.ascontiguousarray(fitted[None, ..., ::-1])
    found = session.run(names, {manifest.input.name: image})
    return {name: maps[0] for name, maps in zip(names, found, strict=True)}


@pytest.mark.parametrize("target", ["small-arm", "x86-cpu"])
def test_fp32_is_the_same_everywhere(
    pictures: list[Path], target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from posewire.targets import compile_bundle

    if target == "x86-cpu" and platform.machine() != "x86_64":
        pytest.skip("x86-cpu is compiled on x86 alone")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    manifest = verify_bundle(SHIPPED)
    compiled = compile_bundle(SHIPPED, target, "fp32", images=_linked(pictures, tmp_path))
    estimator = _core.Estimator(str(compiled.path))
    worst = largest = 0.0
    for path in pictures:
        picture = _core.read_picture(str(path))
        found = estimator.network(picture)
        for name, maps in through_onnx(SHIPPED, manifest, picture).items():
            largest = max(largest, float(np.abs(maps[:KEYPOINTS]).max()))
            worst = max(worst, float(np.abs(found[name] - maps).max()))
    print(f"{target}: largest difference to ONNX Runtime {worst:.2g}")
    assert largest > 0.3  # somebody is in the pictures: there is something to compare
    assert worst <= LIMIT


def _linked(pictures: list[Path], folder: Path) -> Path:
    """These pictures alone in a folder, so that the gate is quick."""
    few = folder / "few"
    few.mkdir()
    for path in pictures:
        (few / path.name).symlink_to(path)
    return few
