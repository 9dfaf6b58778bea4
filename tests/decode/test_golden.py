# SPDX-License-Identifier: Apache-2.0
"""The compiled decoder agrees with the plain Python references on golden files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from posewire.decode import Decoder
from posewire.encode import ENCODERS
from posewire.engine_core import engine_errors
from posewire.errors import ExitCode, PosewireError

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
CASES = sorted(path for stem in ENCODERS for path in (GOLDEN / stem).glob("*.json"))
PAF = [path for path in CASES if path.parent.name == "paf"]


def name_of(path: Path) -> str:
    return f"{path.parent.name}-{path.stem}"


def load(path: Path) -> tuple[dict[str, Any], dict[str, NDArray[np.float32]]]:
    """A golden case: its JSON and its outputs, laid out as the manifest says."""
    golden = json.loads(path.read_text())
    size = golden["manifest"]["input"]
    outputs = {}
    for spec in golden["manifest"]["outputs"]:
        values = np.fromfile(path.with_suffix(f".{spec['name']}.bin"), "<f4")
        if "length" in spec:
            cells: tuple[int, ...] = (spec["length"],)
        else:
            cells = tuple(-(-size[side] // spec["stride"]) for side in ("height", "width"))
        channels = (spec["channels"],)
        shape = channels + cells if spec["layout"][1] == "C" else cells + channels
        outputs[spec["name"]] = values.reshape(shape)
    return golden, outputs


def test_every_row_has_golden_files_and_an_encoder() -> None:
    with engine_errors() as core:
        assert sorted(core.decoders()) == sorted(ENCODERS)
    for stem in ENCODERS:
        assert len([path for path in CASES if path.parent.name == stem]) >= 3, stem


@pytest.mark.parametrize("batch", [False, True])
@pytest.mark.parametrize("path", CASES, ids=name_of)
def test_decoder_agrees(path: Path, batch: bool) -> None:
    golden, outputs = load(path)
    if batch:
        outputs = {name: values[None] for name, values in outputs.items()}
    poses = Decoder(golden["manifest"]).decode(outputs)
    people = golden["people"]
    count = len(golden["manifest"]["skeleton"]["keypoints"])
    assert poses.keypoints.shape == (len(people), count, 3)
    if people:  # 0.01 network pixel and 1e-4 of score: what float32 leaves open
        expected = np.array([person["kp"] for person in people])
        np.testing.assert_allclose(poses.keypoints[..., :2], expected[..., :2], atol=0.01)
        np.testing.assert_allclose(poses.keypoints[..., 2], expected[..., 2], atol=1e-4)
        np.testing.assert_allclose(poses.scores, [p["score"] for p in people], atol=1e-4)


@pytest.mark.parametrize("path", CASES, ids=name_of)
def test_half_precision_and_strides(path: Path) -> None:
    golden, outputs = load(path)
    decoder = Decoder(golden["manifest"])
    full = decoder.decode(outputs)
    half = decoder.decode({name: values.astype(np.float16) for name, values in outputs.items()})
    assert half.keypoints.shape == full.keypoints.shape
    np.testing.assert_allclose(half.keypoints, full.keypoints, atol=0.2)
    # The same values behind other strides: Fortran order.
    other = decoder.decode({name: np.asfortranarray(values) for name, values in outputs.items()})
    np.testing.assert_array_equal(other.keypoints, full.keypoints)


def test_errors_are_typed() -> None:
    golden, outputs = load(PAF[0])
    manifest = golden["manifest"]
    for change, message in (
        ({"algorithm": "magic"}, "known: "),
        ({"algorithm": "paf", "sample": 3}, "decode.sample"),
        ({"algorithm": "paf", "samples": 1000}, "decode.samples"),
    ):
        with pytest.raises(PosewireError, match=message) as refused:
            Decoder({**manifest, "decode": change})
        assert refused.value.code == ExitCode.BUNDLE
    with pytest.raises(PosewireError, match="pafs"):
        Decoder(manifest).decode({"heatmaps": outputs["heatmaps"]})
    with pytest.raises(PosewireError, match="heatmaps"):
        Decoder(manifest).decode({**outputs, "heatmaps": outputs["heatmaps"][:-1]})
