# SPDX-License-Identifier: Apache-2.0
"""Drawn pictures for top-down networks: one person each, cut out of drawn scenes as the engine cuts
them. Everything follows from a seed, as in synthetic.py."""

from __future__ import annotations

from collections.abc import Iterator

from posewire.top_down import crop_rectangle, cut

from .synthetic import SELFTEST_SEED, Image, jpeg, render_many

_LEAST_CROP_PX = 64  # people whose crop is lower than this make none
_SCENE = (640, 480)


def drawn_crops(seed: int, network: tuple[int, int], padding: float) -> Iterator[Image]:
    """Crops without end, uint8 RGB, of the aspect of ``network`` (width, height) but not yet of its
    size."""
    for image, people in render_many(1 << 20, seed, *_SCENE, (1, 4)):
        for person in people:
            box = [float(side) for side in person.box]
            rectangle = crop_rectangle(box, _SCENE, network, padding)
            if rectangle is not None and rectangle[3] >= _LEAST_CROP_PX:
                yield cut(image, rectangle)


def selftest_crops(
    count: int, network: tuple[int, int], padding: float
) -> Iterator[tuple[str, bytes]]:
    """The crops a top-down bundle carries for the agreement gate: names and JPEG bytes."""
    crops = drawn_crops(SELFTEST_SEED, network, padding)
    for index in range(count):
        yield f"selftest-{index:02d}.jpg", jpeg(next(crops), 85)
