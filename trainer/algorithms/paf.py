# SPDX-License-Identifier: Apache-2.0
"""Part affinity fields on a light network (Osokin, "Real-time 2D Multi-Person Pose Estimation on
CPU: Lightweight OpenPose", 2018; targets after Cao et al., CVPR 2017).

Outputs at stride 8: ``heatmaps`` [K + 1], a Gaussian per keypoint and the background (1 - their
maximum) last; ``pafs`` [2L], channels 2i and 2i+1 the x and y of limb i's unit vector. Cell i of
either has its centre at 8i + 3.5 network pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from keras import layers, ops
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from ..algorithm import Algorithm, Labels, OutputSpec, Stages, TeacherWeights, Tensor
from ..layers import Builder, output
from ..rendering import cell_centres, heatmap_weight, heatmaps, known_cells, per_image

STRIDE = 8


class Options(BaseModel):
    """``model.algorithm_options`` of a configuration."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    width: int = Field(default=128, gt=0)  # channels of the head
    refinements: int = Field(default=1, ge=0)  # stages after the first
    initial_blocks: int = Field(default=2, gt=0)
    refinement_blocks: int = Field(default=2, gt=0)
    refinement_kernel: int = Field(default=5, gt=0)
    sigma_cells: float = Field(default=1.0, gt=0)
    limb_cells: float = Field(default=1.0, gt=0)  # half the width of a limb
    positive_weight: float = Field(default=4.0, ge=0)  # error weight 1 + this where target is 1
    box_margin: float = Field(default=0.1, ge=0)  # unknown keypoints: the box grown by this
    background_weight: float = Field(default=0.25, ge=0)
    # Batch normalisation everywhere in the head, or only where the backbone's features enter (they
    # differ in size by orders of magnitude): on a CPU the rest costs a third of a step.
    normalise: bool = True


@dataclass(frozen=True)
class Targets:
    """Rendered maps and their weights, all [B, h, w, channels]."""

    heatmaps: Tensor
    heatmap_weight: Tensor
    pafs: Tensor
    paf_weight: Tensor


class Paf(Algorithm):
    """Heatmaps and part affinity fields."""

    options_kind = Options
    options: Options
    teachable: ClassVar[bool] = True

    @property
    def outputs(self) -> tuple[OutputSpec, ...]:
        return (
            OutputSpec("heatmaps", self.skeleton.count + 1, STRIDE),
            OutputSpec("pafs", 2 * len(self.skeleton.limbs), STRIDE),
        )

    def decode_parameters(self) -> dict[str, Any]:
        return {"algorithm": "paf", "background": True}

    def look(self, maps: Mapping[str, NDArray[np.float32]]) -> list[NDArray[np.float32]]:
        fields = maps["pafs"]
        length = np.hypot(fields[..., 0::2], fields[..., 1::2])
        return [maps["heatmaps"][..., :-1].max(axis=-1), length.max(axis=-1)]

    # --- head ---------------------------------------------------------------------------------

    def head(
        self, features: Mapping[int, Tensor], size: tuple[int, int]
    ) -> list[dict[str, Tensor]]:
        build = Builder(self.options.width, self.options.normalise)
        merged = build.pyramid(features, STRIDE)
        stages = []
        x = merged
        for block in range(self.options.initial_blocks):
            x = build.residual(x, 3, f"stage0_block{block}")
        stages.append(self._stage_outputs(build, x, "stage0"))
        for stage in range(1, self.options.refinements + 1):
            name = f"stage{stage}"
            x = layers.Concatenate(name=f"{name}_in")([merged, *stages[-1].values()])
            x = build.pointwise(x, f"{name}_squeeze")
            for block in range(self.options.refinement_blocks):
                x = build.residual(x, self.options.refinement_kernel, f"{name}_block{block}")
            stages.append(self._stage_outputs(build, x, name))
        return stages

    def _stage_outputs(self, build: Builder, x: Tensor, stage: str) -> dict[str, Tensor]:
        outputs = {}
        for spec in self.outputs:
            bias = np.zeros(spec.channels, np.float32)
            if spec.name == "heatmaps":
                bias[-1] = 1.0  # nobody anywhere: the background is 1
            hidden = build.pointwise(x, f"{stage}_{spec.name}_hidden")
            outputs[spec.name] = output(hidden, bias.tolist(), f"{stage}_{spec.name}")
        return outputs

    # --- targets ------------------------------------------------------------------------------

    def targets(self, labels: Labels) -> dict[str, Tensor]:
        rendered = self.rendered(labels)
        return {"heatmaps": rendered.heatmaps, "pafs": rendered.pafs}

    def rendered(self, labels: Labels) -> Targets:
        """Renders the labels of one batch; h and w are those of ``labels["mask"]``."""
        keypoints, boxes, mask = labels["keypoints"], labels["boxes"], labels["mask"]
        height, width = mask.shape[1], mask.shape[2]
        heat = heatmaps(keypoints, height, width, STRIDE, self.options.sigma_cells)
        fields = render_pafs(
            keypoints, self._first, self._second, height, width, STRIDE, self.options.limb_cells
        )
        visibility = keypoints[..., 2]
        first = ops.take(visibility, self._first, axis=2)
        second = ops.take(visibility, self._second, axis=2)
        # A limb with a cut-away end is partly in the picture, but where is not known.
        either_unknown = ops.logical_or(ops.equal(first, 0), ops.equal(second, 0))
        one_cut = first * second < 0
        margin = self.options.box_margin
        limb_unknown = ops.logical_or(either_unknown, one_cut)
        limb_known = known_cells(limb_unknown, boxes, height, width, STRIDE, margin)
        # Where a labelled keypoint or limb of anybody is drawn, the truth is known after all.
        everywhere = ops.expand_dims(mask, -1)
        heat_weight = heatmap_weight(heat, labels, STRIDE, margin)
        drawn = ops.any(ops.not_equal(fields, 0), axis=-1)
        limb_weight = ops.maximum(everywhere * limb_known, ops.cast(drawn, "float32"))
        background = 1.0 - ops.max(heat, axis=-1, keepdims=True)
        background_known = ops.min(heat_weight, axis=-1, keepdims=True)
        shape = (-1, height, width, 2 * len(self._first))
        return Targets(
            ops.concatenate([heat, background], axis=-1),
            ops.concatenate([heat_weight, background_known], axis=-1),
            ops.reshape(fields, shape),
            ops.reshape(ops.stack([limb_weight, limb_weight], axis=-1), shape),
        )

    # --- loss ---------------------------------------------------------------------------------

    def loss(
        self, labels: Labels, stages: Stages, teacher: TeacherWeights | None
    ) -> dict[str, Tensor]:
        targets = self.rendered(labels)
        count = self.skeleton.count
        # Positive cells are few; the background repeats what the keypoints' maps say.
        heat_gain = 1.0 + self.options.positive_weight * targets.heatmaps[..., :count]
        rest = ops.full_like(targets.heatmaps[..., count:], self.options.background_weight)
        heat_gain = ops.concatenate([heat_gain, rest], axis=-1)
        on_limb = ops.cast(ops.not_equal(targets.pafs, 0), "float32")
        paf_gain = 1.0 + 0.5 * self.options.positive_weight * on_limb
        maps = {
            "heatmaps": (targets.heatmaps, targets.heatmap_weight, heat_gain),
            "pafs": (targets.pafs, targets.paf_weight, paf_gain),
        }
        result: dict[str, Tensor] = {}
        total = ops.zeros(())
        for name, (target, known, gain) in maps.items():
            weight = known * gain
            for stage in stages:
                term = per_image(weight * ops.square(stage[name] - target))
                total = total + term
                if teacher is not None:
                    total = total + _taught(
                        stage[name], labels[f"teacher_{name}"], known, teacher, name
                    )
                result[name] = term
            nothing = ops.zeros_like(target)
            if name == "heatmaps":
                nothing = ops.concatenate(
                    [nothing[..., :count], ops.ones_like(target[..., count:])], axis=-1
                )
            result[f"{name}_zero"] = per_image(weight * ops.square(nothing - target))
        result["loss"] = total
        return result


def _taught(
    output: Tensor, opinion: Tensor, known: Tensor, teacher: TeacherWeights, name: str
) -> Tensor:
    weight = teacher.unknown + (teacher.known - teacher.unknown) * known
    channels = ops.convert_to_tensor(teacher.channels[name])
    return per_image(weight * channels * ops.square(output - opinion))


def render_pafs(
    keypoints: Tensor,
    first: np.ndarray[Any, Any],
    second: np.ndarray[Any, Any],
    height: int,
    width: int,
    stride: int,
    limb_cells: float,
) -> Tensor:
    """[B, P, K, 3] -> [B, h, w, L, 2]: each limb's unit vector within ``limb_cells`` of its line.

    The ends reach half a cell further, so that a limb shorter than a cell still marks one. Where
    limbs of several people overlap, the mean of their vectors. Ends in one point: nothing drawn.
    """
    a = ops.take(keypoints, first, axis=2)
    b = ops.take(keypoints, second, axis=2)
    known = ops.logical_and(a[..., 2] > 0, b[..., 2] > 0)
    vx, vy = b[..., 0] - a[..., 0], b[..., 1] - a[..., 1]
    length = ops.sqrt(ops.square(vx) + ops.square(vy))
    known = ops.logical_and(known, length > 1e-3)
    scale = 1.0 / ops.maximum(length, 1e-3)
    ux, uy = (vx * scale)[:, :, None, :], (vy * scale)[:, :, None, :]  # [B, P, 1, L]
    dx = cell_centres(width, stride)[:, None] - a[:, :, None, :, 0]  # [B, P, w, L]
    dy = cell_centres(height, stride)[:, None] - a[:, :, None, :, 1]  # [B, P, h, L]
    along = (dx * ux)[:, :, None] + (dy * uy)[:, :, :, None]  # [B, P, h, w, L]
    across = (dx * uy)[:, :, None] - (dy * ux)[:, :, :, None]
    middle = 0.5 * length[:, :, None, None, :]
    on = ops.logical_and(
        ops.abs(across) <= limb_cells * stride,
        ops.abs(along - middle) <= middle + 0.5 * stride,
    )
    on = ops.cast(ops.logical_and(on, known[:, :, None, None, :]), "float32")
    count = ops.maximum(ops.sum(on, axis=1), 1.0)
    x = ops.sum(on * ux[:, :, None], axis=1) / count
    y = ops.sum(on * uy[:, :, None], axis=1) / count
    return ops.stack([x, y], axis=-1)
