# SPDX-License-Identifier: Apache-2.0
"""Coordinate classification of one person's crop (SimCC: Li et al., ECCV 2022; RTMPose: Jiang et
al., arXiv 2303.07399, section 3.2), with a light head.

Outputs: ``simcc_x`` [K, 2 W] and ``simcc_y`` [K, 2 H], a row of bins of half a pixel per keypoint
and axis: bin i is pixel i / 2. A row's target is a Gaussian of sqrt(pixels / 8) bins around the
keypoint's exact place, highest value 1 (posewire/encode/simcc.py); of an absent keypoint it is 0.

The head is RTMPose's without its attention: a 7 x 7 convolution to K maps, each of them flattened,
one hidden layer, and a classifier per axis, all three shared by the keypoints. So a network knows
the size of its crops: ``fixed_size``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import keras
import numpy as np
from keras import layers, ops
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from ..algorithm import MASK_STRIDE, Algorithm, Labels, OutputSpec, Stages, TeacherWeights, Tensor
from ..layers import Builder
from ..rendering import labelled, mask_at_keypoints, per_image

SPLIT = 2  # bins per pixel
STRIDE = 16  # of the maps that are flattened


class Options(BaseModel):
    """``model.algorithm_options`` of a configuration."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    width: int = Field(default=128, gt=0)  # channels of the head
    blocks: int = Field(default=1, ge=0)  # residual blocks at stride 16
    hidden: int = Field(default=256, gt=0)  # what a keypoint is known by
    beta: float = Field(default=10.0, gt=0)  # RTMPose's temperature, as a factor
    level_weight: float = Field(default=1.0, gt=0)


class Simcc(Algorithm):
    """Two rows of bins per keypoint of the person that the crop was made for."""

    options_kind = Options
    options: Options
    mode: ClassVar[Literal["bottom_up", "top_down"]] = "top_down"
    fixed_size: ClassVar[bool] = True

    @property
    def outputs(self) -> tuple[OutputSpec, ...]:
        count = self.skeleton.count
        return (
            OutputSpec("simcc_x", count, axis="x", bins=SPLIT),
            OutputSpec("simcc_y", count, axis="y", bins=SPLIT),
        )

    def decode_parameters(self) -> dict[str, Any]:
        """Raw values, no softmax: the loss makes a row's highest value 1 where the place is
        certain and the row flat near 0 where the keypoint is absent. A softmax spreads its 1 over
        every Gaussian's bins: a certain keypoint would score 0.2.
        """
        return {"algorithm": "simcc"}

    def look(self, maps: Mapping[str, NDArray[np.float32]]) -> list[NDArray[np.float32]]:
        across, down = maps["simcc_x"], maps["simcc_y"]  # [B, bins, K]
        seen = np.zeros((len(across), down.shape[1], across.shape[1]), np.float32)
        for k in range(across.shape[2]):
            rows = np.clip(down[:, :, None, k], 0.0, 1.0), np.clip(across[:, None, :, k], 0.0, 1.0)
            np.maximum(seen, rows[0] * rows[1], out=seen)
        return [seen]

    # --- head ---------------------------------------------------------------------------------

    def head(
        self, features: Mapping[int, Tensor], size: tuple[int, int]
    ) -> list[dict[str, Tensor]]:
        build = Builder(self.options.width)
        x = build.pyramid(features, STRIDE)
        for block in range(self.options.blocks):
            x = build.residual(x, 3, f"block{block}")
        count = self.skeleton.count
        x = layers.Conv2D(count, 7, padding="same", name="stage0_maps")(x)
        cells = (size[0] // STRIDE) * (size[1] // STRIDE)
        # One line per keypoint: a layer on matrices is one operator in every runtime.
        x = ops.reshape(ops.transpose(x, (0, 3, 1, 2)), (-1, cells))
        x = layers.Dense(self.options.hidden, kernel_initializer="he_normal", name="stage0_known")(
            x
        )
        x = layers.ReLU(6.0, name="stage0_known_relu")(x)
        stage = {}
        for spec, pixels in zip(self.outputs, size, strict=True):
            # Logits are beta times what the output is: a step of the optimiser on the values
            # themselves would be beta times as long.
            logits = layers.Dense(
                SPLIT * pixels,
                kernel_initializer=keras.initializers.RandomNormal(stddev=0.01),
                name=f"stage0_{spec.name}_logits",
            )(x)
            rows = layers.Rescaling(1.0 / self.options.beta, name=f"stage0_{spec.name}")(logits)
            rows = ops.reshape(rows, (-1, count, SPLIT * pixels))
            stage[spec.name] = ops.transpose(rows, (0, 2, 1))
        return [stage]

    # --- targets ------------------------------------------------------------------------------

    def targets(self, labels: Labels) -> dict[str, Tensor]:
        keypoints = labels["keypoints"]
        height, width = (side * MASK_STRIDE for side in labels["mask"].shape[1:3])
        return {
            "simcc_x": render_rows(keypoints[..., 0], keypoints[..., 2], width),
            "simcc_y": render_rows(keypoints[..., 1], keypoints[..., 2], height),
        }

    # --- loss ---------------------------------------------------------------------------------

    def loss(
        self, labels: Labels, stages: Stages, teacher: TeacherWeights | None
    ) -> dict[str, Tensor]:
        """The Kullback-Leibler divergence of softmax(beta row) from softmax(beta target); a
        keypoint that is not labelled has weight 0 (RTMPose, section 3.2, and its KLDiscretLoss).

        A softmax does not see a constant added to a row, but the decoder's score does: the squared
        error of each row's mean settles it. With it a row that is certain reaches 1, and one that
        is flat, as the target of a keypoint that the crop cuts off (v < 0), stays near 0.
        """
        weight = labelled(labels["keypoints"])
        weight = weight * mask_at_keypoints(labels["mask"], MASK_STRIDE, labels["keypoints"])
        total = ops.zeros(())
        result: dict[str, Tensor] = {}
        for name, target in self.targets(labels).items():
            for stage in stages:
                term = self._divergence(stage[name], target, weight)
                total = total + term
                result[name] = term
            result[f"{name}_zero"] = self._divergence(ops.zeros_like(target), target, weight)
        return {**result, "loss": total}

    def _divergence(self, rows: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        beta = self.options.beta
        wanted = ops.log_softmax(beta * target, axis=1)
        given = ops.log_softmax(beta * rows, axis=1)
        divergence = ops.sum(ops.exp(wanted) * (wanted - given), axis=1)
        level = ops.mean(rows, axis=1) - ops.mean(target, axis=1)
        # In the loss's own unit: a difference in values counts beta times in the logarithms.
        return per_image(
            weight * (divergence + self.options.level_weight * ops.square(beta * level))
        )


def render_rows(places: Tensor, there: Tensor, pixels: int) -> Tensor:
    """[B, P, K] places in pixels -> [B, SPLIT * pixels, K]: Gaussians, the maximum over people."""
    bins = ops.convert_to_tensor(np.arange(SPLIT * pixels, dtype=np.float32)[:, None])
    squared = ops.square(bins - SPLIT * places[:, :, None, :])
    known = ops.cast(there[:, :, None, :] > 0, "float32")
    return ops.max(ops.exp(squared * (-0.5 / (pixels / 8))) * known, axis=1)
