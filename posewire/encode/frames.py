# SPDX-License-Identifier: Apache-2.0
"""Frames of known people, drawn and rendered, for timing a decoder (``posewire bench decode``)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from ..skeleton import Skeleton
from .encoder import Array, Encoder, People
from .people import draw_people

# (width, height) of the network's input, pixels.
SIZES: Mapping[str, tuple[int, int]] = {
    "bottom_up": (432, 368),
    "top_down": (192, 256),
    "detector": (416, 416),
}


@dataclass(frozen=True)
class Rendered:
    """One decoder call: a picture with all of its people, or one person's crop (top_down).

    name     "frame-000", of a crop "frame-000-person-00"
    frame    which frame it belongs to
    people   [P, K, 3], network pixels
    outputs  arrays by output name, channels first, with noise
    """

    name: str
    frame: int
    people: People
    outputs: Mapping[str, Array]


def person_share(count: int) -> float:
    """A person's height, of the input's, so that ``count`` of them find room: 0.72, 0.39 of 10."""
    return 0.72 * math.pow(max(count, 1), -0.27)


def render_frames(
    row: Encoder,
    skeleton: Skeleton,
    size: tuple[int, int],
    people: int,
    frames: int,
    noise: float,
    rng: np.random.Generator,
) -> Iterator[Rendered]:
    """``frames`` pictures of ``people`` random people each, fewer where there is no room for more;
    for a top_down row as many crops, one person filling each.

    ``size``: width and height, pixels. ``noise``: standard deviation of Gaussian noise that is
    added to every value of every output, in the output's own unit.
    """
    width, height = size
    crops = row.mode == "top_down"
    for frame in range(frames):
        for crop in range(people if crops else 1):
            name = f"frame-{frame:03d}" + (f"-person-{crop:02d}" if crops else "")
            share, count = (0.75, 1) if crops else (person_share(people), people)
            apart = 3 * row.cell_px
            drawn = draw_people(skeleton, width, height, count, share * height, rng, apart)
            outputs = row.render(drawn, skeleton, width, height)
            yield Rendered(name, frame, drawn, _noisy(outputs, noise, rng))


def _noisy(
    outputs: Mapping[str, Array], noise: float, rng: np.random.Generator
) -> dict[str, Array]:
    if noise == 0:
        return dict(outputs)
    return {
        name: (values + noise * rng.standard_normal(values.shape)).astype(np.float32)
        for name, values in outputs.items()
    }
