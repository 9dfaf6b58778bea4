# SPDX-License-Identifier: Apache-2.0
"""What an algorithm gives the trainer: a head, targets, a loss, and what its decoder must know.

Labels of one batch, all in network pixels (index coordinates, DESIGN 3.3), B pictures, P people
(padded), K keypoints, h x w cells of the output grid:

    keypoints  float32 [B, P, K, 3]  x, y, v; v > 0 known, 0 unknown, < 0 cut away (not there)
    boxes      float32 [B, P, 4]     left, top, right, bottom around all of the person; padding
                                     people have right < left
    mask       float32 [B, h, w]     1 where the labels may be believed, 0 where nothing is known,
                                     in cells of MASK_STRIDE pixels
    teacher_<output>  float32 [B, h, w, C]   optional: a teacher's map for that output

A network of mode "top_down" sees crops of one person each (data/crops.py): P = 1. Whoever else can
be seen in the crop has no labels; the network learns to leave them alone.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from posewire.skeleton import Skeleton

from .options import checked

MASK_STRIDE = 8  # network pixels
CROP_PADDING = 1.25  # top-down: how much a box grows before it is cut out (the manifest's)
Tensor = Any  # a tensor of whichever backend runs
Labels = Mapping[str, Tensor]
Stages = Sequence[Mapping[str, Tensor]]


@dataclass(frozen=True)
class OutputSpec:
    """One output of the network: a map, or a sequence along one axis of the picture.

    name      in the manifest
    channels  of every cell or bin
    stride    a map's, network pixels; None of a sequence
    axis      a sequence's: "x" or "y"
    bins      a sequence's, for each network pixel along its axis
    """

    name: str
    channels: int
    stride: int | None = None
    axis: Literal["x", "y"] | None = None
    bins: int = 0

    def entry(self, width: int, height: int) -> dict[str, Any]:
        """The manifest's, for a network input of that size, pixels."""
        sizes = self._sizes(width, height)
        where = {"stride": self.stride} if self.stride else {"length": sizes[0]}
        return {"name": self.name, "channels": self.channels, **where}

    def shape(self, width: int, height: int) -> tuple[int, ...]:
        """One frame's, channels first: [C, h, w] or [C, length]."""
        return (self.channels, *self._sizes(width, height))

    def layout(self, channels_last: bool = False) -> str:
        """The manifest's name for how a batch of it lies in memory."""
        if self.stride:
            return "NHWC" if channels_last else "NCHW"
        return "NWC" if channels_last else "NCW"

    def _sizes(self, width: int, height: int) -> tuple[int, ...]:
        if self.stride:
            return -(-height // self.stride), -(-width // self.stride)
        return (self.bins * (width if self.axis == "x" else height),)


@dataclass(frozen=True)
class TeacherWeights:
    """How much a teacher's opinion counts, and per output which channels it has one about."""

    unknown: float
    known: float
    channels: Mapping[str, NDArray[np.float32]]


class Algorithm(ABC):
    """One way to turn a picture's features into poses. Stateless apart from its options."""

    options_kind: ClassVar[type[BaseModel]]
    options: BaseModel  # of that kind
    mode: ClassVar[Literal["bottom_up", "top_down"]] = "bottom_up"
    fixed_size: ClassVar[bool] = False  # the network takes pictures of its training size alone
    teachable: ClassVar[bool] = False  # the loss takes a teacher's maps

    def __init__(self, skeleton: Skeleton, options: BaseModel) -> None:
        self.skeleton, self.options = skeleton, options
        limbs = np.array(skeleton.limbs, np.int32).reshape(-1, 2)
        self._first, self._second = limbs[:, 0], limbs[:, 1]  # keypoints at the limbs' ends

    @classmethod
    def from_options(cls, skeleton: Skeleton, options: Mapping[str, Any]) -> Self:
        """Checks the options. Raises TrainError naming the key."""
        return cls(skeleton, checked(cls.options_kind, options))

    @property
    def crop(self) -> dict[str, Any]:
        """The manifest's ``crop``, by its key: only a top-down network has one."""
        if self.mode != "top_down":
            return {}
        return {"crop": {"padding": CROP_PADDING, "fit": "letterbox"}}

    @property
    @abstractmethod
    def outputs(self) -> tuple[OutputSpec, ...]:
        """The outputs of the exported network, in order."""

    @abstractmethod
    def head(
        self, features: Mapping[int, Tensor], size: tuple[int, int]
    ) -> list[dict[str, Tensor]]:
        """Keras layers on the backbone's features (by stride): every stage's outputs by name,
        channels last.

        The last stage is what is exported; the others are supervised too. ``size`` is the width and
        height of the training pictures; other sizes follow unless ``fixed_size``.
        """

    @abstractmethod
    def targets(self, labels: Labels) -> dict[str, Tensor]:
        """What a network that knows the labels would say, by output name, channels last."""

    @abstractmethod
    def look(self, maps: Mapping[str, NDArray[np.float32]]) -> list[NDArray[np.float32]]:
        """What a person would look at of outputs or targets: maps [B, h, w] of 0 … 1, the same
        number every time."""

    @abstractmethod
    def loss(
        self, labels: Labels, stages: Stages, teacher: TeacherWeights | None
    ) -> dict[str, Tensor]:
        """Scalars, each a sum over the picture averaged over the batch, or normalised as its paper
        has it.

        "loss" is what is minimised. For every output "<name>" is the last stage's loss against the
        labels and "<name>_zero" what an output that sees nobody would have lost.
        """

    @abstractmethod
    def decode_parameters(self) -> dict[str, Any]:
        """The manifest's ``decode`` table."""
