# SPDX-License-Identifier: Apache-2.0
"""For every row: what its encoder renders of random people, its decoder reads back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from posewire.decode import Decoder, Poses
from posewire.encode import ENCODERS, agreement, draw_people, partial_manifest
from posewire.encode.encoder import Array, People
from posewire.skeleton import Skeleton, load_skeleton

SKELETONS = ("body18", "coco17", "mpii16", "crowdpose14", "own")
# A user's own: not a body at all.
OWN = Skeleton(
    "own",
    ("hub", "spoke_a", "spoke_b", "spoke_c", "rim"),
    ((0, 1), (0, 2), (0, 3), (3, 4), (1, 2)),
    (0, 2, 1, 3, 4),
    (0.05,) * 5,
)


def skeleton_named(name: str) -> Skeleton:
    return OWN if name == "own" else load_skeleton(name)


def lay_out(outputs: dict[str, Array], channels_last: bool) -> dict[str, Array]:
    if not channels_last:
        return outputs
    return {name: np.ascontiguousarray(np.moveaxis(v, 0, -1)) for name, v in outputs.items()}


def frames(
    stem: str, skeleton: Skeleton, size: tuple[int, int], counts: list[int], seed: int, last: bool
) -> tuple[list[People], list[Poses]]:
    """People and what was decoded of them, a frame per count (a crop per person, top-down)."""
    row = ENCODERS[stem]
    rng = np.random.default_rng(seed)
    width, height = size
    decoder = Decoder(partial_manifest(stem, skeleton, width, height, channels_last=last))
    truth: list[People] = []
    for count in counts:
        share = 0.75 if row.mode == "top_down" else max(0.3, 0.7 - 0.04 * count)
        one = 1 if row.mode == "top_down" else count
        truth.append(
            draw_people(skeleton, width, height, one, share * height, rng, 3 * row.cell_px)
        )
    poses = [
        decoder.decode(lay_out(row.render(people, skeleton, width, height), last))
        for people in truth
    ]
    return truth, poses


@pytest.mark.parametrize("stem", ENCODERS)
@pytest.mark.parametrize("name", SKELETONS)
def test_one_to_ten_people(stem: str, name: str) -> None:
    size = (192, 256) if ENCODERS[stem].mode == "top_down" else (448, 384)
    truth, poses = frames(stem, skeleton_named(name), size, list(range(1, 11)), 7, False)
    assert sum(len(people) for people in truth) >= 10
    agreed = agreement(truth, poses, ENCODERS[stem].cell_px)
    assert agreed.recall >= 0.99
    assert agreed.precision >= 0.99
    assert agreed.error_cells <= 0.05
    if ENCODERS[stem].mode != "top_down":
        assert [len(p.scores) for p in poses] == [len(people) for people in truth]


@pytest.mark.parametrize("stem", ENCODERS)
@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    name=st.sampled_from(SKELETONS),
    columns=st.integers(6, 12),
    rows=st.integers(6, 12),
    count=st.integers(1, 4),
    last=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_skeleton_size_and_layout(
    stem: str, name: str, columns: int, rows: int, count: int, last: bool, seed: int
) -> None:
    size = (32 * columns, 32 * rows)
    truth, poses = frames(stem, skeleton_named(name), size, [count] * 3, seed, last)
    agreed = agreement(truth, poses, ENCODERS[stem].cell_px)
    # A single keypoint is more than a hundredth of one small picture: at most one may be lost.
    assert agreed.matched >= min(agreed.truth - 1, 0.99 * agreed.truth)
    assert agreed.found - agreed.matched <= max(1, 0.01 * agreed.found)
    assert agreed.error_cells <= 0.05


@pytest.mark.parametrize("stem", ENCODERS)
def test_nobody_is_nobody(stem: str) -> None:
    skeleton = load_skeleton("coco17")
    width, height = (192, 256) if ENCODERS[stem].mode == "top_down" else (320, 256)
    outputs = ENCODERS[stem].render(np.zeros((0, 17, 3)), skeleton, width, height)
    decoder = Decoder(partial_manifest(stem, skeleton, width, height))
    assert len(decoder.decode(outputs).scores) == 0
