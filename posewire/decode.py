# SPDX-License-Identifier: Apache-2.0
"""The engine's decoders, from Python: network outputs to poses.

They run in C++ (cpp/decode/), the same code on the device, in evaluation and in the gate.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .engine_core import engine_errors


@dataclass(frozen=True)
class Poses:
    """The people of one picture.

    scores     float32 [N], a person's score: the mean over all K keypoints, absent ones count 0
    keypoints  float32 [N, K, 3] (x, y, score), network pixels; an absent keypoint is 0, 0, 0
    """

    scores: NDArray[np.float32]
    keypoints: NDArray[np.float32]


class Decoder:
    """Decodes one network's outputs. Pure and reentrant; the GIL is released while it works."""

    def __init__(self, manifest: Mapping[str, Any], artifact: int = 0) -> None:
        """``manifest`` as in manifest.json; without artifacts the outputs are float32 NCHW.

        ``artifact`` says whose layouts and quantisation the outputs have. Raises PosewireError
        (BUNDLE) for a manifest or decode parameters that the engine refuses.
        """
        with engine_errors() as core:
            self._decoder = core.Decoder(json.dumps(manifest), artifact)

    def decode(self, outputs: Mapping[str, NDArray[Any]]) -> Poses:
        """One frame's outputs by name: [C, H, W] or [H, W, C] as the artifact's layout says, a
        batch axis of 1 accepted, float32 or float16.

        Raises PosewireError for a missing output or another shape.
        """
        with engine_errors():
            scores, keypoints = self._decoder.decode(dict(outputs))
        return Poses(np.asarray(scores), np.asarray(keypoints))
