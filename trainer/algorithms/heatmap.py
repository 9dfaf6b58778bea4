# SPDX-License-Identifier: Apache-2.0
"""Heatmaps of one person's crop (SimpleBaseline: Xiao et al., "Simple Baselines for Human Pose
Estimation and Tracking", ECCV 2018, section 2; HRNet, CVPR 2019, has the same head) on a light
pyramid.

Output at stride 4: ``heatmaps`` [K], a Gaussian of two cells around each keypoint's exact place
(DARK, Zhang et al., CVPR 2020, section 3.3; the original rounds it to a cell). Cell i has its
centre at 4i + 1.5 network pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import numpy as np
from keras import layers, ops
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from ..algorithm import MASK_STRIDE, Algorithm, Labels, OutputSpec, Stages, TeacherWeights, Tensor
from ..layers import Builder, output
from ..rendering import heatmaps, labelled, mask_at, per_image

STRIDE = 4
STEP = 0.2  # of the last layer's values is what the output has


class Options(BaseModel):
    """``model.algorithm_options`` of a configuration."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    width: int = Field(default=96, gt=0)  # channels of the head
    blocks: int = Field(default=2, gt=0)  # residual blocks at stride 4
    sigma_cells: float = Field(default=2.0, gt=0)


class Heatmap(Algorithm):
    """One map per keypoint of the person that the crop was made for."""

    options_kind = Options
    options: Options
    mode: ClassVar[Literal["bottom_up", "top_down"]] = "top_down"

    @property
    def outputs(self) -> tuple[OutputSpec, ...]:
        return (OutputSpec("heatmaps", self.skeleton.count, STRIDE),)

    def decode_parameters(self) -> dict[str, Any]:
        return {"algorithm": "heatmap"}

    def look(self, maps: Mapping[str, NDArray[np.float32]]) -> list[NDArray[np.float32]]:
        return [np.clip(maps["heatmaps"].max(axis=-1), 0.0, 1.0)]

    def head(
        self, features: Mapping[int, Tensor], size: tuple[int, int]
    ) -> list[dict[str, Tensor]]:
        build = Builder(self.options.width)
        x = build.pyramid(features, STRIDE)
        for block in range(self.options.blocks):
            x = build.residual(x, 3, f"block{block}")
        x = build.pointwise(x, "stage0_hidden")
        nobody = np.zeros(self.skeleton.count, np.float32).tolist()
        maps = output(x, nobody, "stage0_heatmaps_long")
        # Nearly every cell is 0: at the optimiser's full step what all cells share overshoots.
        return [{"heatmaps": layers.Rescaling(STEP, name="stage0_heatmaps")(maps)}]

    def targets(self, labels: Labels) -> dict[str, Tensor]:
        mask = labels["mask"]
        height, width = (side * MASK_STRIDE // STRIDE for side in mask.shape[1:3])
        sigma = self.options.sigma_cells
        return {"heatmaps": heatmaps(labels["keypoints"], height, width, STRIDE, sigma)}

    def loss(
        self, labels: Labels, stages: Stages, teacher: TeacherWeights | None
    ) -> dict[str, Tensor]:
        """The squared error of every keypoint's map (Xiao et al., section 2). One that is not
        labelled has weight 0; one that the crop cuts off (v < 0) has an empty map: such a map's low
        maximum is how the decoder knows an absent keypoint."""
        target = self.targets(labels)["heatmaps"]
        weight = labelled(labels["keypoints"])[:, None, None, :]
        weight = weight * mask_at(labels["mask"], MASK_STRIDE, STRIDE)
        terms = [per_image(weight * ops.square(stage["heatmaps"] - target)) for stage in stages]
        return {
            "loss": sum(terms[1:], terms[0]),
            "heatmaps": terms[-1],
            "heatmaps_zero": per_image(weight * ops.square(target)),
        }
