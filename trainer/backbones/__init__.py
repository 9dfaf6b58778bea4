# SPDX-License-Identifier: Apache-2.0
"""The table of backbones. A new one is a line below (and a file, unless an existing one serves)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from ..errors import TrainError
from .mobilenet import Backbone, mobilenet_v1, mobilenet_v2

BACKBONES: Mapping[str, Callable[[float, Path | None, int], Backbone]] = {
    "mobilenetv1": mobilenet_v1,
    "mobilenetv2": mobilenet_v2,
}


def make_backbone(name: str, alpha: float, weights: Path | None, frozen_blocks: int) -> Backbone:
    """The backbone of that name. Raises TrainError listing the known ones."""
    if name not in BACKBONES:
        raise TrainError(
            f"model.backbone: unknown backbone {name!r}; known are {', '.join(BACKBONES)}"
        )
    return BACKBONES[name](alpha, weights, frozen_blocks)
