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

    def __init__(
        self, manifest: Mapping[str, Any], artifact: int = 0, *, kernels: str = ""
    ) -> None:
        """``manifest`` as in manifest.json, or partial: skeleton, input, outputs, decode and mode
        (absent: bottom_up). Without artifacts the outputs are NCHW or as their layout says.

        ``artifact`` says whose layouts and quantisation the outputs have; ``kernels`` names an
        instruction set instead of the best. Raises PosewireError (BUNDLE) for a manifest or decode
        parameters that the engine refuses, (USAGE) for kernels that this machine does not run.
        """
        with engine_errors() as core:
            self._decoder = core.Decoder(json.dumps(manifest), artifact, kernels)

    @property
    def kernels(self) -> str:
        """The instruction set of the inner loops: "avx512", "avx2" or "portable"."""
        return str(self._decoder.kernels)

    def decode(self, outputs: Mapping[str, NDArray[Any]]) -> Poses:
        """One frame's outputs by name: [C, H, W] or [H, W, C] as the artifact's layout says, a
        batch axis of 1 accepted, float32 or float16.

        Raises PosewireError for a missing output or another shape.
        """
        with engine_errors():
            scores, keypoints = self._decoder.decode(dict(outputs))
        return Poses(np.asarray(scores), np.asarray(keypoints))


class DecoderBench:
    """Times a decoder on frames in turn: one frame again and again would flatter the caches."""

    def __init__(self, decoder: Decoder) -> None:
        with engine_errors() as core:
            self._bench = core.DecoderBench(decoder._decoder)

    def add(self, outputs: Mapping[str, NDArray[Any]], *, same_frame: bool = False) -> None:
        """Another call, as :meth:`Decoder.decode` takes it and with its errors.

        ``same_frame``: timed together with the call before, as the crops of one picture are."""
        with engine_errors():
            self._bench.add(dict(outputs), same_frame)

    def run(self, rounds: int) -> NDArray[np.float64]:
        """Decodes all frames ``rounds`` times in turn: microseconds of one thread's CPU time
        without what reading the clock takes, [rounds, frames]."""
        with engine_errors():
            return np.asarray(self._bench.run(rounds))

    def poses(self) -> list[Poses]:
        """What is decoded in every call."""
        with engine_errors():
            return [Poses(np.asarray(s), np.asarray(k)) for s, k in self._bench.poses()]
