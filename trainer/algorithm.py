# SPDX-License-Identifier: Apache-2.0
"""What an algorithm gives the trainer: a head, targets, a loss, and what its decoder must know.

Labels of one batch, all in network pixels (index coordinates, DESIGN 3.3), B pictures, P people
(padded), K keypoints, h x w cells of the output grid:

    keypoints  float32 [B, P, K, 3]  x, y, v; v > 0 known, 0 unknown, < 0 cut away (not there)
    boxes      float32 [B, P, 4]     left, top, right, bottom around all of the person; padding
                                     people have right < left
    mask       float32 [B, h, w]     1 where the labels may be believed, 0 where nothing is known
    teacher_<output>  float32 [B, h, w, C]   optional: a teacher's map for that output
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posewire.skeleton import Skeleton

Tensor = Any  # a tensor of whichever backend runs
Labels = Mapping[str, Tensor]
Stages = Sequence[Mapping[str, Tensor]]


@dataclass(frozen=True)
class OutputSpec:
    """One output of the network: its name, channels and stride in network pixels."""

    name: str
    channels: int
    stride: int


@dataclass(frozen=True)
class TeacherWeights:
    """How much a teacher's opinion counts, and per output which channels it has one about."""

    unknown: float
    known: float
    channels: Mapping[str, NDArray[np.float32]]


class Algorithm(ABC):
    """One way to turn a picture's features into poses. Stateless apart from its options."""

    def __init__(self, skeleton: Skeleton) -> None:
        self.skeleton = skeleton

    @property
    @abstractmethod
    def stride(self) -> int:
        """The stride of the backbone features that ``head`` wants and of its outputs."""

    @property
    @abstractmethod
    def outputs(self) -> tuple[OutputSpec, ...]:
        """The outputs of the exported network, in order."""

    @abstractmethod
    def head(self, features: Mapping[int, Tensor]) -> list[dict[str, Tensor]]:
        """Keras layers on the backbone's features (by stride): every stage's outputs by name.

        The last stage is what is exported; the others are supervised too.
        """

    @abstractmethod
    def loss(
        self, labels: Labels, stages: Stages, teacher: TeacherWeights | None
    ) -> dict[str, Tensor]:
        """Scalars, each a sum over the picture averaged over the batch.

        "loss" is what is minimised. For every output "<name>" is the last stage's loss against the
        labels and "<name>_zero" what an output that sees nobody would have lost.
        """

    @abstractmethod
    def decode_parameters(self) -> dict[str, Any]:
        """The manifest's ``decode`` table."""
