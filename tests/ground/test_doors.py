# SPDX-License-Identifier: Apache-2.0
"""The typed doors to the compiled module: the geometry's formula, shapes, and what errors say."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from posewire.decode import Decoder
from posewire.engine_core import core as core_module
from posewire.errors import ExitCode, PosewireError
from posewire.preprocess import Letterbox, letterbox

CORPUS = Path(__file__).parents[1] / "golden" / "bundles"


@pytest.fixture
def core() -> Any:
    return pytest.importorskip("posewire._core", reason="the compiled module is not installed")


def test_letterbox_maps_there_and_back() -> None:
    box = Letterbox(0.5, 0.48, 10, 0)
    points = np.array([[0.0, 0.0], [99.5, -0.5], [640.0, 480.0]], np.float32)
    there = box.to_network(points)
    # DESIGN 3.3: x = (x_net - left + 0.5) * w / w_new - 0.5
    np.testing.assert_allclose(there[0], [0.5 * 0.5 + 10 - 0.5, 0.5 * 0.48 - 0.5])
    np.testing.assert_allclose(box.to_frame(there), points, atol=1e-3)
    assert box.to_frame(there).dtype == np.float32
    with pytest.raises(ValueError, match=r"\[\.\.\., 2\]"):
        box.to_frame(np.zeros((3, 3), np.float32))


def test_the_door_and_the_engine_share_one_geometry(core: Any) -> None:
    image = np.zeros((37, 91, 3), np.uint8)
    _, there = core.letterbox(image, 64, 64)
    _, here = letterbox(image, 64, 64)
    points = np.array([[3.25, 40.0], [60.0, 1.5]], np.float32)
    np.testing.assert_allclose(here.to_frame(points), there.to_frame(points), atol=1e-4)
    np.testing.assert_allclose(here.to_network(points), there.to_network(points), atol=1e-4)


def test_letterbox_pads_with_grey(core: Any) -> None:
    fitted, box = letterbox(np.full((20, 40, 3), 7, np.uint8), 32, 32)
    assert fitted.shape == (32, 32, 3)
    assert (box.left, box.top) == (0, 8)
    assert (fitted[:8] == 114).all()
    assert (fitted[8:24] == 7).all()


@pytest.mark.parametrize("shape", [(4, 4), (4, 4, 1), (4, 4, 4)])
def test_letterbox_refuses_other_shapes(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"uint8 \[H, W, 3\]"):
        letterbox(np.zeros(shape, np.uint8), 32, 32)
    with pytest.raises(ValueError, match=r"uint8 \[H, W, 3\]"):
        letterbox(np.zeros((4, 4, 3), np.float32), 32, 32)


def test_decoding_silence_finds_nobody(core: Any) -> None:
    text = (CORPUS / "good.json").read_text(encoding="utf-8")
    manifest = json.loads(text)["manifest"]
    heatmaps = np.zeros((19, 46, 54), np.float32)
    heatmaps[18] = 1
    outputs = {"heatmaps": heatmaps, "pafs": np.zeros((38, 46, 54), np.float32)}
    poses = Decoder(manifest).decode(outputs)
    assert poses.scores.shape == (0,)
    assert poses.keypoints.shape == (0, 18, 3)


def test_a_manifest_that_the_engine_refuses(core: Any) -> None:
    text = (CORPUS / "output_stride_zero.json").read_text(encoding="utf-8")
    with pytest.raises(PosewireError, match="stride") as caught:
        Decoder(json.loads(text)["manifest"])
    assert caught.value.code == ExitCode.BUNDLE


def test_an_output_that_is_missing(core: Any) -> None:
    manifest = json.loads((CORPUS / "good.json").read_text(encoding="utf-8"))["manifest"]
    with pytest.raises(PosewireError, match=r"pafs|heatmaps"):
        Decoder(manifest).decode({"heatmaps": np.zeros((19, 46, 54), np.float32)})


def test_a_missing_compiled_part_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ImportError(f"no {name}")

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(PosewireError, match=r"no posewire\._core") as caught:
        core_module()
    assert caught.value.code is ExitCode.UNAVAILABLE
