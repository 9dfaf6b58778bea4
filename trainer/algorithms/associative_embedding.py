# SPDX-License-Identifier: Apache-2.0
"""Associative embedding on a light network (Newell et al., NeurIPS 2017, arXiv 1611.05424; targets
and loss as HigherHRNet has them, Cheng et al., CVPR 2020, arXiv 1908.10357).

Outputs ``heatmaps`` [K] at stride 4, a Gaussian of two cells per keypoint, and ``tags`` [K] at
stride 4, which have one value in all cells of a person's keypoints and other values in another
person's. With ``fine`` also ``heatmaps_2`` [K] at stride 2, a Gaussian of two of its cells
(HigherHRNet, section 3.3), made from the features and the first outputs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from keras import layers, ops
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from ..algorithm import (
    MASK_STRIDE,
    Algorithm,
    Labels,
    OutputSpec,
    Stages,
    TeacherWeights,
    Tensor,
)
from ..layers import Builder, output
from ..rendering import (
    heatmap_weight,
    heatmaps,
    nearest_cells,
    per_image,
    person_heatmaps,
    read_cells,
)

STRIDE = 4
SIGMA_CELLS = 2.0  # what the decoder's positions are exact for, at both strides
TAG_STEP = 1.7  # between the targets of people; the loss knows nothing of it
PAINTED = 0.1  # a keypoint's cells, for those targets and for looking at tags


class Options(BaseModel):
    """``model.algorithm_options`` of a configuration."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    width: int = Field(default=64, gt=0)  # channels of the head
    blocks: int = Field(default=2, gt=0)
    fine: bool = False  # heatmaps_2
    fine_blocks: int = Field(default=1, gt=0)
    positive_weight: float = Field(default=4.0, ge=0)  # error weight 1 + this where target is 1
    # HigherHRNet weighs both with 1e-3 beside a mean over K h w values, here is a sum: 1e-3 of its
    # 17 x 128 x 128.
    pull_weight: float = Field(default=280.0, ge=0)
    push_weight: float = Field(default=280.0, ge=0)
    box_margin: float = Field(default=0.1, ge=0)  # unknown keypoints: the box grown by this
    normalise: bool = True  # batch normalisation in the whole head; see paf


class AssociativeEmbedding(Algorithm):
    """Heatmaps and tags."""

    options_kind = Options
    options: Options

    @property
    def outputs(self) -> tuple[OutputSpec, ...]:
        count = self.skeleton.count
        coarse = OutputSpec("heatmaps", count, STRIDE), OutputSpec("tags", count, STRIDE)
        if not self.options.fine:
            return coarse
        return (*coarse, OutputSpec("heatmaps_2", count, STRIDE // 2))

    def decode_parameters(self) -> dict[str, Any]:
        return {"algorithm": "associative_embedding"}

    def look(self, maps: Mapping[str, NDArray[np.float32]]) -> list[NDArray[np.float32]]:
        heat = maps["heatmaps"]
        strongest = heat.argmax(axis=-1)[..., None]
        tags = np.take_along_axis(maps["tags"], strongest, axis=-1)[..., 0]
        highest = heat.max(axis=-1)
        return [np.clip(highest, 0, 1), _tag_picture(tags, highest > PAINTED)]

    # --- head ---------------------------------------------------------------------------------

    def head(
        self, features: Mapping[int, Tensor], size: tuple[int, int]
    ) -> list[dict[str, Tensor]]:
        build = Builder(self.options.width, self.options.normalise)
        x = build.pyramid(features, STRIDE)
        for block in range(self.options.blocks):
            x = build.residual(x, 3, f"block{block}")
        outputs = {name: self._output(build, x, name) for name in ("heatmaps", "tags")}
        if self.options.fine:
            x = layers.Concatenate(name="fine_in")([x, *outputs.values()])
            x = build.pointwise(x, "fine_squeeze")
            # HigherHRNet's transposed convolution as nearest up-sampling and a separable one, which
            # every runtime has.
            x = layers.UpSampling2D(2, name="fine_up")(x)
            for block in range(self.options.fine_blocks):
                x = build.residual(x, 3, f"fine_block{block}")
            outputs["heatmaps_2"] = self._output(build, x, "heatmaps_2")
        return [outputs]

    def _output(self, build: Builder, x: Tensor, name: str) -> Tensor:
        hidden = build.pointwise(x, f"{name}_hidden")
        return output(hidden, [0.0] * self.skeleton.count, f"out_{name}")

    # --- targets ------------------------------------------------------------------------------

    def targets(self, labels: Labels) -> dict[str, Tensor]:
        heat = {
            spec.name: _heatmaps(labels, spec.stride or STRIDE)
            for spec in self.outputs
            if spec.name != "tags"
        }
        keypoints = labels["keypoints"]
        height, width = heat["heatmaps"].shape[1:3]
        own = person_heatmaps(keypoints, height, width, STRIDE, SIGMA_CELLS)
        mine = ops.logical_and(own > PAINTED, ops.equal(own, heat["heatmaps"][:, None]))
        # 1, 2, … of people; how many there are, a compiled step does not know.
        order = ops.cumsum(ops.ones_like(keypoints[..., 0, 0]), axis=1)
        steps = TAG_STEP * order[:, :, None, None, None]
        tags = ops.max(ops.cast(mine, "float32") * steps, axis=1)
        found = {**heat, "tags": tags}
        return {spec.name: found[spec.name] for spec in self.outputs}

    # --- loss ---------------------------------------------------------------------------------

    def loss(
        self, labels: Labels, stages: Stages, teacher: TeacherWeights | None
    ) -> dict[str, Tensor]:
        """Squared error of the heatmaps (HigherHRNet, section 3.4; positive cells weigh more, as
        they are few) and pull and push of the tags, weighted."""
        result: dict[str, Tensor] = {}
        total = ops.zeros(())
        for spec in self.outputs:
            if spec.name == "tags":
                terms = [self._tag_loss(labels, stage["tags"]) for stage in stages]
                nothing = self._tag_loss(labels, ops.zeros_like(stages[-1]["tags"]))
            else:
                stride = spec.stride or STRIDE
                target = _heatmaps(labels, stride)
                weight = heatmap_weight(target, labels, stride, self.options.box_margin)
                weight = weight * (1.0 + self.options.positive_weight * target)
                terms = [
                    per_image(weight * ops.square(stage[spec.name] - target)) for stage in stages
                ]
                nothing = per_image(weight * ops.square(target))
            for term in terms:
                total = total + term
            result[spec.name], result[f"{spec.name}_zero"] = terms[-1], nothing
        result["loss"] = total
        return result

    def _tag_loss(self, labels: Labels, tags: Tensor) -> Tensor:
        pull, push = pull_and_push(labels["keypoints"], tags)
        return per_image(self.options.pull_weight * pull + self.options.push_weight * push)


def _heatmaps(labels: Labels, stride: int) -> Tensor:
    height, width = (side * MASK_STRIDE // stride for side in labels["mask"].shape[1:3])
    return heatmaps(labels["keypoints"], height, width, stride, SIGMA_CELLS)


def pull_and_push(keypoints: Tensor, tags: Tensor) -> tuple[Tensor, Tensor]:
    """[B, P, K, 3] and tags [B, h, w, K] -> two losses of every picture, [B] (Newell et al.,
    section 3.2, with means over keypoints and pairs as in HigherHRNet's code).

    Pull is the variance of a person's tags at its known keypoints' cells, the mean over people;
    push half of exp(-difference^2) of two people's mean tags, the mean over pairs.
    """
    height, width = tags.shape[1:3]
    cells, inside = nearest_cells(keypoints[..., :2], height, width, STRIDE)
    known = inside * ops.cast(keypoints[..., 2] > 0, "float32")  # [B, P, K]
    values = read_cells(tags, cells)
    count = ops.sum(known, axis=-1)
    divisor = ops.maximum(count, 1.0)
    mean = ops.sum(values * known, axis=-1) / divisor  # [B, P]
    spread = ops.sum(ops.square(values - mean[..., None]) * known, axis=-1) / divisor
    there = ops.cast(count > 0, "float32")
    people = ops.sum(there, axis=-1)
    pull = ops.sum(spread, axis=-1) / ops.maximum(people, 1.0)
    alike = ops.exp(-ops.square(mean[:, :, None] - mean[:, None, :]))
    alike = alike * there[:, :, None] * there[:, None, :]
    # Everybody is like itself: those pairs are none.
    pairs = ops.maximum(people * (people - 1.0), 1.0)
    push = 0.5 * (ops.sum(alike, axis=(1, 2)) - people) / pairs
    return pull, push


def _tag_picture(tags: NDArray[np.float32], shown: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Tags [B, h, w] as 0.3 … 1 where ``shown``, each picture from its lowest to its highest."""
    picture = np.zeros(tags.shape, np.float32)
    for one, values, where in zip(picture, tags, shown, strict=True):
        if where.any():
            low, high = values[where].min(), values[where].max()
            one[where] = 1 - 0.7 * (high - values[where]) / max(high - low, 1e-6)
    return picture
