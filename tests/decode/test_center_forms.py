# SPDX-License-Identifier: Apache-2.0
"""Every form of one-stage networks is read back: test_round_trip.py for the other encoders."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from posewire.decode import Decoder, Poses
from posewire.encode import agreement, draw_people
from posewire.encode.center import FORMS
from posewire.encode.encoder import Array, Encoder
from posewire.skeleton import Skeleton, load_skeleton

SIZE = (448, 384)


def manifest(row: Encoder, skeleton: Skeleton, last: bool, **decode: Any) -> dict[str, Any]:
    outputs = []
    for spec in row.outputs(skeleton, *SIZE):
        extent = "W" if "length" in spec else "HW"
        outputs.append({**spec, "layout": f"N{extent}C" if last else f"NC{extent}"})
    return {
        "mode": "bottom_up",
        "skeleton": skeleton.to_dict(),
        "input": {
            "name": "image", "width": SIZE[0], "height": SIZE[1], "channels": "RGB",
            "resize": "letterbox",
        },
        "outputs": outputs,
        "decode": {"algorithm": "center", **row.decode, **decode},
    }  # fmt: skip


def decoded(row: Encoder, skeleton: Skeleton, maps: dict[str, Array], last: bool) -> Poses:
    if last:
        maps = {name: np.ascontiguousarray(np.moveaxis(v, 0, -1)) for name, v in maps.items()}
    return Decoder(manifest(row, skeleton, last)).decode(maps)


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("name", ["coco17", "body18", "crowdpose14", "hand21"])
@pytest.mark.parametrize("form", FORMS)
def test_round_trip(form: str, name: str, last: bool) -> None:
    row, skeleton = FORMS[form], load_skeleton(name)
    rng = np.random.default_rng(11)
    truth = [
        draw_people(skeleton, *SIZE, n, max(0.3, 0.7 - 0.04 * n) * SIZE[1], rng, 24.0)
        for n in range(11)
    ]
    poses = [decoded(row, skeleton, row.render(people, skeleton, *SIZE), last) for people in truth]
    assert [len(p.scores) for p in poses] == [len(people) for people in truth]
    agreed = agreement(truth, poses, row.cell_px)
    assert agreed.truth > 100
    assert agreed.recall >= 0.99
    assert agreed.precision >= 0.99
    assert agreed.error_cells <= 0.05


def test_rows_without_keypoint_scores_have_the_detections() -> None:
    skeleton = load_skeleton("coco17")
    people = draw_people(skeleton, *SIZE, 2, 200.0, np.random.default_rng(5), 24.0)
    rows = FORMS["rows"].render(people, skeleton, *SIZE)["rows"]
    rows[4] *= 0.5
    kept = np.delete(rows, np.arange(7, len(rows), 3), axis=0)

    def outputs(skeleton: Skeleton, width: int, height: int) -> list[dict[str, Any]]:
        return [{"name": "rows", "channels": len(kept), "length": kept.shape[1]}]

    poses = decoded(replace(FORMS["rows"], outputs=outputs), skeleton, {"rows": kept}, False)
    assert len(poses.scores) == 2
    np.testing.assert_allclose(poses.keypoints[..., 2], 0.5, atol=1e-3)
    assert agreement([people], [poses], 8.0).recall == 1


@pytest.mark.parametrize("last", [False, True])
def test_end_to_end_rows_are_corners_and_a_class(last: bool) -> None:
    skeleton = load_skeleton("coco17")
    people = draw_people(skeleton, *SIZE, 3, 160.0, np.random.default_rng(6), 24.0)
    pairs = FORMS["pairs"].render(people, skeleton, *SIZE)
    values = np.concatenate([pairs["boxes"], np.zeros_like(pairs["boxes"][:1]), pairs["keypoints"]])

    def outputs(skeleton: Skeleton, width: int, height: int) -> list[dict[str, Any]]:
        return [{"name": "rows", "channels": len(values), "length": values.shape[1]}]

    poses = decoded(replace(FORMS["rows"], outputs=outputs), skeleton, {"rows": values}, last)
    assert len(poses.scores) == 3
    assert agreement([people], [poses], 8.0).recall == 1
