# SPDX-License-Identifier: Apache-2.0
"""A detector's boxes are judged as poses of two corners, which are no keypoints of its manifest."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from posewire.targets import gate, load_recipe

from posewire.decode import Poses
from posewire.manifest import check_manifest

CORPUS = Path(__file__).parents[1] / "golden" / "bundles"


def boxes(*found: tuple[float, float, float, float]) -> Poses:
    corners = [[[x, y, 0.9], [x + width, y + height, 0.9]] for x, y, width, height in found]
    return Poses(np.full(len(found), 0.9, np.float32), np.array(corners, np.float32))


@pytest.mark.parametrize(("shift", "passed"), [(0.0, True), (40.0, False)])
def test_a_detector_is_judged_by_its_boxes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shift: float, passed: bool
) -> None:
    data = json.loads((CORPUS / "good_detector.json").read_text("utf-8"))["manifest"]
    manifest = check_manifest(data, "manifest.json")
    (tmp_path / "picture.png").write_bytes(b"")
    reference = [boxes((10, 20, 50, 120), (200, 30, 60, 150))]
    compiled = [boxes((10 + shift, 20, 50, 120), (200 + shift, 30, 60, 150))]
    monkeypatch.setattr(gate, "reference_poses", lambda *_: reference)
    monkeypatch.setattr(gate, "run_pictures", lambda *_: compiled)
    one = gate.Gate(
        tmp_path,
        manifest,
        load_recipe("x86-cpu"),
        labels=None,
        images=tmp_path,
        progress=lambda phase, done, total: None,
    )
    verdict = one.judge(tmp_path, "int8")
    assert (verdict.kind, verdict.passed) == ("agreement", passed)
    made = {**data, "gate": verdict.as_json()}
    assert check_manifest(made, "manifest.json").gate is not None
