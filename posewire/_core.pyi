# SPDX-License-Identifier: Apache-2.0
"""The engine from Python: preprocessing, decoders, networks and the whole pipeline.

All calls that take time release the GIL. Pictures are BGR uint8 [H, W, 3], any strides. Coordinates
are index coordinates: the centre of the first pixel is (0, 0).
"""

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from .errors import PosewireError

_Poses = tuple[NDArray[np.float32], NDArray[np.float32]]

class EngineError(PosewireError):
    """What the engine refuses: ``code`` is the exit code, ``where`` the file, key, camera or
    operator."""

    where: str

def version() -> str:
    """The engine's own version."""

class Decoder:
    """Network outputs to poses. Pure and reentrant."""

    def __init__(self, manifest_json: str, artifact: int = 0, kernels: str = "") -> None:
        """A manifest of which at least skeleton, input, outputs and decode stand; without a mode
        it is bottom_up.

        ``artifact`` says whose layouts and quantisation the outputs have; without artifacts
        they are NCHW, or as ``outputs[].layout`` says. ``kernels``: one of decoder_kernels()
        instead of the best. Raises EngineError (BUNDLE; USAGE for unknown kernels).
        """
    def decode(self, outputs: Mapping[str, NDArray[Any]]) -> _Poses:
        """One frame's maps by name, [C, H, W] or [H, W, C] as the layout says, a batch axis of 1
        accepted; float32, float16, or integers with the artifact's scale and zero point.

        Returns (scores [N], keypoints [N, K, 3] of x, y, score), float32, network pixels.
        Raises EngineError (USAGE) for a missing output, another type or shape.
        """

    @property
    def kernels(self) -> str:
        """The instruction set in use: "avx512", "avx2", "portable"."""

class DecoderBench:
    """Times a decoder on frames in turn, one thread at a time. The frames' arrays are kept and
    read where they lie."""

    def __init__(self, decoder: Decoder) -> None: ...
    def add(self, outputs: Mapping[str, NDArray[Any]], same_frame: bool = False) -> None:
        """Another call, checked as Decoder.decode does: a frame of its own, or timed together with
        the call before. Raises EngineError (USAGE)."""
    def run(self, rounds: int) -> NDArray[np.float64]:
        """Microseconds of this thread's CPU time without the clock's own, [rounds, frames]; every
        round decodes each frame once, in the order they were added."""
    def poses(self) -> list[_Poses]:
        """What is decoded in every call, in that order."""

def decoder_kernels() -> list[str]:
    """The instruction sets that this machine runs, best first."""

def decoders() -> list[str]:
    """The known algorithms."""

class Letterbox:
    """Where a picture lies in the network's input; scales in network pixels per frame pixel."""

    @property
    def scale_x(self) -> float: ...
    @property
    def scale_y(self) -> float: ...
    @property
    def left(self) -> int: ...
    @property
    def top(self) -> int: ...
    @property
    def width(self) -> int:
        """The picture's width inside the network's input, without padding."""
    @property
    def height(self) -> int: ...
    def to_frame(self, points: NDArray[np.float32]) -> NDArray[np.float32]:
        """Network pixels [N, 2] -> frame pixels [N, 2]."""
    def to_network(self, points: NDArray[np.float32]) -> NDArray[np.float32]:
        """Frame pixels [N, 2] -> network pixels [N, 2]."""

def letterbox(
    image: NDArray[np.uint8], width: int, height: int
) -> tuple[NDArray[np.uint8], Letterbox]:
    """uint8 [H, W, 3] -> (uint8 [height, width, 3], geometry); keeps the channels' order."""

def read_picture(path: str) -> NDArray[np.uint8]:
    """A picture file as BGR uint8 [H, W, 3], EXIF orientation applied.

    Raises EngineError (SOURCE).
    """

def read_frames(uri: str, count: int, timeout_ms: int = 5000) -> list[NDArray[np.uint8]]:
    """The first frames of a source, BGR uint8 [H, W, 3]; fewer where it ends before.

    Raises EngineError: CONFIG for an unknown scheme, SOURCE for a source that cannot be read.
    """

def source_schemes() -> list[str]:
    """The known URI schemes."""

class Estimator:
    """A compiled bundle, opened: pictures in, poses out. Any thread may call any method."""

    def __init__(self, bundle_dir: str, requests: int = 0, threads: int = 0) -> None:
        """``requests`` in flight and the runtime's ``threads``; 0: its own choice.

        Raises EngineError: BUNDLE for a bundle that is damaged, portable, or was compiled for
        another version or device, UNAVAILABLE where its runtime is missing.
        """
    def estimate(self, image: NDArray[np.uint8]) -> _Poses:
        """(scores [N], keypoints [N, K, 3] of x, y, score), float32, pixels of the picture."""
    def estimate_files(self, paths: Sequence[str]) -> list[_Poses]:
        """The same for picture files, several at once, in the order of ``paths``.

        Raises EngineError (SOURCE) for the first that cannot be read.
        """
    def network(self, image: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        """The raw outputs by name, [C, H, W], of the letterboxed picture."""
    @property
    def requests(self) -> int: ...
    @property
    def manifest_json(self) -> str:
        """manifest.json, as it was read when the bundle was opened."""

class Pipeline:
    """Sources to poses, as engine.json (given as text) describes it."""

    def __init__(self, config_json: str) -> None:
        """Raises EngineError (CONFIG) naming the key. Opens nothing yet."""
    def run(self) -> int:
        """Runs to the end and returns the number of frames.

        Events that nobody takes meanwhile with next_event are lost, oldest first. Raises
        EngineError.
        """
    def next_event(self, timeout_s: float | None = None) -> dict[str, Any] | None:
        """The next event, as posewire-engine prints it; starts the pipeline when run() did not,
        and then no event is lost. None: nothing came in time, or "stopped" came before."""
    def stop(self) -> None:
        """Ends the sources; what is under way still comes. Any thread."""

class _Runtime(TypedDict):
    name: str
    version: str
    available: bool
    why: str

def runtimes() -> list[_Runtime]:
    """Every runtime that the engine knows; ``why`` says what is missing."""

class _Bench(TypedDict):
    fps: float
    seconds: float
    pictures: int
    requests: int
    max_batch: int

def bench_inference(
    bundle_dir: str,
    seconds: float = 2.0,
    requests: int = 0,
    threads: int = 0,
    pictures: Sequence[NDArray[np.uint8]] = (),
) -> _Bench:
    """Inference alone, every request busy: the letterboxed pictures in turn, without any: noise."""
