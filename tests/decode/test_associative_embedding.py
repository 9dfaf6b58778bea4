# SPDX-License-Identifier: Apache-2.0
"""Associative embedding beyond a plain round trip: two resolutions, noise, lost keypoints."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from posewire.decode import Decoder, Poses
from posewire.encode import Encoder, agreement, draw_people, partial_manifest
from posewire.encode.agreement import Agreement
from posewire.encode.associative_embedding import ENCODER, FINE
from posewire.encode.encoder import Array, People
from posewire.skeleton import load_skeleton

COCO17 = load_skeleton("coco17")
SIZE = (448, 384)


def manifest_of(row: Encoder, **decode: Any) -> dict[str, Any]:
    manifest = partial_manifest("associative_embedding", COCO17, *SIZE, decode=decode)
    outputs = [{**spec, "layout": "NCHW"} for spec in row.outputs(COCO17, *SIZE)]
    return {**manifest, "outputs": outputs}


def scenes(seed: int, apart_px: float) -> list[People]:
    rng = np.random.default_rng(seed)
    width, height = SIZE
    return [
        draw_people(COCO17, width, height, n, max(0.3, 0.7 - 0.04 * n) * height, rng, apart_px)
        for n in range(1, 11)
    ]


def noisy(outputs: dict[str, Array], noise: float, rng: np.random.Generator) -> dict[str, Array]:
    return {
        name: (maps + rng.normal(0.0, noise, maps.shape)).astype(np.float32)
        for name, maps in outputs.items()
    }


def agreed(row: Encoder, people: list[People], noise: float) -> tuple[Agreement, list[Poses]]:
    rng = np.random.default_rng(1)
    decoder = Decoder(manifest_of(row))
    poses = [decoder.decode(noisy(row.render(p, COCO17, *SIZE), noise, rng)) for p in people]
    return agreement(people, poses, row.cell_px), poses


@pytest.mark.parametrize(("noise", "error"), [(0.0, 0.05), (0.02, 0.05), (0.05, 0.1)])
@pytest.mark.parametrize("row", [ENCODER, FINE], ids=["stride 4", "strides 4 and 2"])
def test_noise_makes_and_costs_nobody(row: Encoder, noise: float, error: float) -> None:
    people = scenes(3, 16.0)
    result, poses = agreed(row, people, noise)
    assert result.recall >= 0.99
    assert result.precision >= 0.99
    assert result.error_cells <= error
    assert [len(p.scores) for p in poses] == [len(p) for p in people]


def test_the_second_resolution_tells_near_people_apart() -> None:
    """Two people whose keypoints are 7 pixels apart: under two cells of stride 4."""
    (one, *_) = scenes(4, 16.0)
    both = np.concatenate([one, one])
    both[1, :, 0] += 7.0
    coarse, fine = agreed(ENCODER, [both], 0.0)[0], agreed(FINE, [both], 0.0)[0]
    assert fine.recall == 1.0
    assert coarse.recall <= 0.6


def test_refine_fills_in_and_nothing_else_changes() -> None:
    people = scenes(5, 16.0)[3]
    outputs = ENCODER.render(people, COCO17, *SIZE)
    lost = [(0, 3), (1, 9), (2, 16)]
    for person, k in lost:  # under the threshold, not gone
        own = outputs["tags"][k] == np.float32(1.7 * (person + 1))
        outputs["heatmaps"][k][own] *= 0.09
    plain = Decoder(manifest_of(ENCODER)).decode(outputs)
    refined = Decoder(manifest_of(ENCODER, refine=True)).decode(outputs)
    assert (plain.keypoints[..., 2] == 0).sum() == len(lost)
    assert (refined.keypoints[..., 2] == 0).sum() == 0
    result = agreement([people], [refined], ENCODER.cell_px)
    assert result.matched == result.truth == result.found
    kept = plain.keypoints[..., 2] > 0
    order = [
        int(np.abs(refined.keypoints[:, 5] - row[5]).sum(axis=1).argmin())
        for row in plain.keypoints
    ]
    np.testing.assert_array_equal(refined.keypoints[order][kept], plain.keypoints[kept])
