# SPDX-License-Identifier: Apache-2.0
"""What the trainer renders is what the engine's decoder reads back."""

from __future__ import annotations

import numpy as np
import pytest
from keras import ops
from posewire.trainer.algorithms import ALGORITHMS, make_algorithm
from posewire.trainer.evaluate import decoder_manifest

from posewire.decode import Decoder
from posewire.skeleton import load_skeleton

pytest.importorskip("posewire._core", reason="the engine's Python module is not built")

SIZE = 256


def figure(left: float, top: float, height: float) -> np.ndarray:  # type: ignore[type-arg]
    """A standing coco17 person, keypoints off the cell centres."""
    xs = [0, 1, -1, 2, -2, 4, -4, 6, -6, 7, -7, 3, -3, 3.5, -3.5, 4, -4]
    ys = [2, 1, 1, 1.5, 1.5, 5, 5, 9, 9, 13, 13, 13, 13, 18.5, 18.5, 24, 24]
    points = np.stack([left + np.array(xs) * height / 25, top + np.array(ys) * height / 25], -1)
    return np.concatenate([points, np.full((17, 1), 2.0)], axis=1)


@pytest.mark.parametrize("name", sorted(ALGORITHMS))
def test_rendered_people_are_decoded_where_they_are(name: str) -> None:
    skeleton = load_skeleton("coco17")
    algorithm = make_algorithm(name, skeleton, {})
    people = np.stack([figure(70.3, 22.1, 200.0), figure(182.9, 31.7, 190.0)])
    cells = SIZE // algorithm.stride
    targets = algorithm.targets(
        {
            "keypoints": ops.convert_to_tensor(np.float32(people[None])),
            "boxes": ops.convert_to_tensor(np.float32([[[20, 20, 120, 230], [130, 20, 240, 240]]])),
            "mask": ops.ones((1, cells, cells)),
        }
    )
    maps = {
        spec.name: ops.convert_to_numpy(getattr(targets, spec.name))[0]
        for spec in algorithm.outputs
    }
    manifest = decoder_manifest("test", skeleton, algorithm, SIZE, SIZE)
    poses = Decoder(manifest).decode(maps)
    assert len(poses.scores) == 2
    found = poses.keypoints[np.argsort(poses.keypoints[:, 0, 0])]
    assert (found[..., 2] > 0.5).all()
    distance = np.linalg.norm(found[..., :2] - people[..., :2], axis=-1)
    assert distance.max() < 2.5  # of a cell of 8 pixels
    assert np.abs((found[..., :2] - people[..., :2]).mean(axis=(0, 1))).max() < 0.5
