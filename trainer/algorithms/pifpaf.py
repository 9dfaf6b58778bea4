# SPDX-License-Identifier: Apache-2.0
"""Composite fields (Kreiss et al., "PifPaf", CVPR 2019; "OpenPifPaf", arXiv 2103.02440, section 3).

Outputs at stride 8, field by field: ``cif`` [5K] b, confidence, x, y, scale of every keypoint;
``caf`` [8L] b, confidence, x1, y1, x2, y2, scale1, scale2 of every limb. Confidences are
probabilities, x and y positions in the map and scales sizes, both in cells: the activations and the
cell's own index are inside the network (``CompositeFields``). b is the logarithm of the width that
the network gives its own error, in cells; only the loss reads it.

Targets are posewire.encode.pifpaf's. The loss of every field is that of OpenPifPaf 0.12:

    confidence  cross entropy times alpha |p - t| ^ gamma (focal weight, alpha 0.5, gamma 1): of
                some 40 cells one is somebody's, and the easy others would drown it
    location    Laplace: norm / b + log b, where norm is the length of (dx, dy, 0.1 pixels) and
                log b stays within 3 (CVPR 2019, section 3.4); a constant makes its least value 0
    scale       |s - t| / (0.1 + t): relative, in cells

Location and scale count in somebody's cells alone. Confidences count where the labels know: not
where ``mask`` is 0, nor, for a keypoint or limb that a person's labels leave open, in that person's
box. In a cell that is somebody's they always do.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from ..algorithm import MASK_STRIDE, Algorithm, Labels, OutputSpec, Stages, TeacherWeights, Tensor
from ..layers import Builder, output
from ..rendering import known_cells, mask_at, per_image

STRIDE = 8
SIDE = 4  # cells of a keypoint's patch, each way
LIMB_SIDE = 3  # cells of the patch that is drawn along a limb
WIDTH = 0.1 / STRIDE  # cells: an error that is as good as none, b's target
MIN_SCALE = 0.1  # cells: of somebody without an extent
LOG_B_RANGE = 3.0  # the logarithm of b stays within
# Where the head begins: the common share of cells that is somebody's, a common scale in cells.
RARE, SCALE = 0.02, 0.5
_LEAST_PROBABILITY = 1e-6
_FAR = 1e6  # cells


class Options(BaseModel):
    """``model.algorithm_options`` of a configuration."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    width: int = Field(default=128, gt=0)  # channels of the head
    blocks: int = Field(default=3, ge=0)
    kernel: int = Field(default=5, gt=0)
    normalise: bool = True  # batch normalisation everywhere in the head
    # Positions from their own cell, as int8 outputs (TFLite's) need: their steps are a 255th of the
    # largest value.
    relative: bool = False
    focal_gamma: float = Field(default=1.0, ge=0)
    confidence_weight: float = Field(default=1.0, ge=0)
    location_weight: float = Field(default=1.0, ge=0)
    scale_weight: float = Field(default=1.0, ge=0)
    box_margin: float = Field(default=0.1, ge=0)  # unknown keypoints: the box grown by this


@dataclass(frozen=True)
class Fields:
    """Targets of the F fields of one output, each of which tells of P points (1 or 2).

    active  [B, h, w, F]        1 in somebody's cells
    known   [B, h, w, F]        0 where nobody knows whether it is
    ends    [B, h, w, F, P, 2]  x and y, cells of the map; 0 in others
    scales  [B, h, w, F, P]     cells; 0 in others
    """

    active: Tensor
    known: Tensor
    ends: Tensor
    scales: Tensor


@keras.saving.register_keras_serializable("posewire")
class CompositeFields(keras.layers.Layer):  # type: ignore[misc]  # keras is untyped
    """What a convolution says of ``fields`` fields of ``points`` points as an exported head's maps.

    Every channel goes through every activation and keeps its own by a factor of 0 or 1: picking
    channels and putting them together again would leave gathers or transposes in the graphs.
    """

    def __init__(self, fields: int, points: int, relative: bool = False, **settings: Any) -> None:
        super().__init__(**settings)
        self.fields, self.points, self.relative = fields, points, relative

    def _channels(self, first: int, count: int, step: int = 1) -> Tensor:
        """[C]: 1 in a field's channels first, first + step, …."""
        mask = np.zeros((self.fields, 2 + 3 * self.points), np.float32)
        mask[:, first : first + count * step : step] = 1.0
        return ops.convert_to_tensor(mask.reshape(-1), dtype=self.compute_dtype)

    def call(self, x: Tensor) -> Tensor:
        points = self.points
        value = x * (self._channels(0, 1) + self._channels(2, 2 * points))
        if not self.relative:
            rows = ops.arange(ops.shape(x)[1], dtype=self.compute_dtype)
            columns = ops.arange(ops.shape(x)[2], dtype=self.compute_dtype)
            value = value + ops.reshape(columns, (1, 1, -1, 1)) * self._channels(2, points, 2)
            value = value + ops.reshape(rows, (1, -1, 1, 1)) * self._channels(3, points, 2)
        value = value + ops.sigmoid(x) * self._channels(1, 1)
        return value + ops.softplus(x) * self._channels(2 + 2 * points, points)

    def compute_output_shape(self, shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return shape

    def get_config(self) -> dict[str, Any]:
        own = {"fields": self.fields, "points": self.points, "relative": self.relative}
        return {**super().get_config(), **own}


class PifPaf(Algorithm):
    """Composite intensity and association fields."""

    options_kind = Options
    options: Options

    @property
    def outputs(self) -> tuple[OutputSpec, ...]:
        return (
            OutputSpec("cif", 5 * self.skeleton.count, STRIDE),
            OutputSpec("caf", 8 * len(self.skeleton.limbs), STRIDE),
        )

    def decode_parameters(self) -> dict[str, Any]:
        relative = {"relative": True} if self.options.relative else {}
        return {"algorithm": "pifpaf", **relative}

    def look(self, maps: Mapping[str, NDArray[np.float32]]) -> list[NDArray[np.float32]]:
        return [maps["cif"][..., 1::5].max(axis=-1), maps["caf"][..., 1::8].max(axis=-1)]

    # --- head ---------------------------------------------------------------------------------

    def head(
        self, features: Mapping[int, Tensor], size: tuple[int, int]
    ) -> list[dict[str, Tensor]]:
        build = Builder(self.options.width, self.options.normalise)
        x = build.pyramid(features, STRIDE)
        for block in range(self.options.blocks):
            x = build.residual(x, self.options.kernel, f"block{block}")
        outputs = {}
        for name, fields, points in self._shapes():
            hidden = build.pointwise(x, f"{name}_hidden")
            raw = output(hidden, _start(points).tolist() * fields, f"{name}_raw")
            outputs[name] = CompositeFields(fields, points, self.options.relative, name=name)(raw)
        return [outputs]

    def _shapes(self) -> tuple[tuple[str, int, int], ...]:
        """Every output's name, fields, and points of each."""
        return ("cif", self.skeleton.count, 1), ("caf", len(self.skeleton.limbs), 2)

    # --- targets ------------------------------------------------------------------------------

    def targets(self, labels: Labels) -> dict[str, Tensor]:
        return {name: self._maps(fields) for name, fields in self.rendered(labels).items()}

    def rendered(self, labels: Labels) -> dict[str, Fields]:
        """Renders the labels of one batch, by output; h and w are those of ``labels["mask"]``."""
        keypoints, boxes, mask = labels["keypoints"], labels["boxes"], labels["mask"]
        height, width = mask.shape[1], mask.shape[2]
        places = (keypoints[..., :2] - (STRIDE - 1) / 2) / STRIDE  # cells
        visibility = keypoints[..., 2]
        sigmas = ops.convert_to_tensor(np.array(self.skeleton.sigmas, np.float32))
        scales = person_scales(places, visibility)[..., None] * sigmas  # [B, P, K]
        limb_places, limb_scales, limb_visibility = (
            ops.stack(
                [ops.take(one, self._first, axis=2), ops.take(one, self._second, axis=2)], axis=3
            )
            for one in (places, scales, visibility)
        )  # [B, P, L, 2, …]
        first, second = limb_visibility[..., 0], limb_visibility[..., 1]
        either_unknown = ops.any(ops.equal(limb_visibility, 0), axis=-1)
        # A limb with a cut-away end is partly in the picture, but where is not known.
        open_limbs = ops.logical_or(either_unknown, first * second < 0)
        there = ops.logical_and(first > 0, second > 0)
        believed = mask_at(mask, MASK_STRIDE, STRIDE)
        owners = {
            "cif": keypoint_owners(places, visibility > 0, height, width),
            "caf": limb_owners(limb_places, there, height, width),
        }
        values = {
            "cif": (ops.expand_dims(places, 3), ops.expand_dims(scales, 3)),
            "caf": (limb_places, limb_scales),
        }
        result = {}
        for name, unknown in (("cif", ops.equal(visibility, 0)), ("caf", open_limbs)):
            margin = self.options.box_margin
            known = believed * known_cells(unknown, boxes, height, width, STRIDE, margin)
            active = ops.sum(owners[name], axis=1)
            ends, sizes = values[name]
            result[name] = Fields(
                active,
                ops.maximum(known, active),
                ops.einsum("bphwf,bpfne->bhwfne", owners[name], ends),
                ops.einsum("bphwf,bpfn->bhwfn", owners[name], sizes),
            )
        return result

    def _maps(self, fields: Fields) -> Tensor:
        """The targets as an output of the network: inactive cells point at themselves."""
        height, width, count, points = fields.scales.shape[1:]
        active = fields.active[..., None]
        places = ops.where(active[..., None] > 0, fields.ends, _own_places(height, width))
        if self.options.relative:
            places = places - _own_places(height, width)
        flat = (-1, height, width, count, 2 * points)
        parts = [active * math.log(WIDTH), active, ops.reshape(places, flat), fields.scales]
        maps = ops.concatenate(parts, axis=-1)
        return ops.reshape(maps, (-1, height, width, count * (2 + 3 * points)))

    # --- loss ---------------------------------------------------------------------------------

    def loss(
        self, labels: Labels, stages: Stages, teacher: TeacherWeights | None
    ) -> dict[str, Tensor]:
        rendered = self.rendered(labels)
        result: dict[str, Tensor] = {}
        total = ops.zeros(())
        for name, fields, points in self._shapes():
            target = rendered[name]
            for stage in stages:
                result[name] = self._loss(target, stage[name])
                total = total + result[name]
            # Somebody rarely anywhere, and no more: what the head says before it has learnt.
            start = ops.convert_to_tensor(np.tile(_start(points), fields))
            raw = ops.zeros_like(stages[-1][name]) + start
            nobody = CompositeFields(fields, points, self.options.relative)(raw)
            result[f"{name}_zero"] = self._loss(target, nobody)
        result["loss"] = total
        return result

    def _loss(self, target: Fields, maps: Tensor) -> Tensor:
        """Of one output, summed over cells and fields and averaged over the batch."""
        height, width, count, points = target.scales.shape[1:]
        maps = ops.reshape(maps, (-1, height, width, count, 2 + 3 * points))
        places = ops.reshape(maps[..., 2 : 2 + 2 * points], (-1, height, width, count, points, 2))
        if self.options.relative:
            places = places + _own_places(height, width)
        options = self.options
        entropy = focal_entropy(maps[..., 1], target.active, options.focal_gamma)
        active = target.active[..., None]
        location = laplace(places - target.ends, maps[..., :1]) * active
        size = ops.abs(maps[..., 2 + 2 * points :] - target.scales) * active
        return (
            options.confidence_weight * per_image(target.known * entropy)
            + options.location_weight * per_image(location)
            + options.scale_weight * per_image(size / (MIN_SCALE + target.scales))
        )


def _start(points: int) -> NDArray[np.float32]:
    """[2 + 3 points]: biases of a field's last convolution."""
    scale = math.log(math.expm1(SCALE))
    start = [0.0, math.log(RARE / (1 - RARE)), *[0.0] * (2 * points), *[scale] * points]
    return np.array(start, np.float32)


def _own_places(height: int, width: int) -> Tensor:
    """[1, h, w, 1, 1, 2]: every cell's own x and y."""
    ys, xs = np.mgrid[0:height, 0:width].astype(np.float32)
    return ops.convert_to_tensor(np.stack([xs, ys], axis=-1)[None, :, :, None, None, :])


def focal_entropy(probability: Tensor, target: Tensor, gamma: float) -> Tensor:
    """Cross entropy to targets 0 or 1, times 0.5 |p - t| ^ gamma."""
    p = ops.clip(probability, _LEAST_PROBABILITY, 1.0 - _LEAST_PROBABILITY)
    right = target * p + (1.0 - target) * (1.0 - p)
    entropy = -0.5 * ops.log(right)
    return entropy * ops.power(1.0 - right, gamma) if gamma > 0 else entropy


def laplace(offset: Tensor, log_b: Tensor) -> Tensor:
    """[..., 2] distances in cells, [...] logarithms of their widths: norm / b + log b, from 0."""
    log_b = LOG_B_RANGE * ops.tanh(log_b / LOG_B_RANGE)
    norm = ops.sqrt(ops.sum(ops.square(offset), axis=-1) + WIDTH**2)
    least = (
        WIDTH * math.exp(LOG_B_RANGE) - LOG_B_RANGE
    )  # WIDTH is below any b: the smallest is best
    return norm * ops.exp(-log_b) + log_b - least


def person_scales(places: Tensor, visibility: Tensor) -> Tensor:
    """[B, P, K, 2], [B, P, K] -> [B, P]: the root of the area that known keypoints span, cells."""
    there = (visibility > 0)[..., None]
    most = ops.max(ops.where(there, places, -_FAR), axis=2)
    least = ops.min(ops.where(there, places, _FAR), axis=2)
    sides = ops.maximum(most - least, 0.0)  # of nobody 0
    return ops.maximum(ops.sqrt(sides[..., 0] * sides[..., 1]), MIN_SCALE)


def nearest_owners(covered: Tensor, distance: Tensor) -> Tensor:
    """[B, P, h, w, F], bool and float -> the same, 1 for the nearest of those who cover a cell."""
    nearest = ops.argmin(ops.where(covered, distance, _FAR), axis=1)
    numbers = ops.arange(ops.shape(covered)[1], dtype=nearest.dtype)[:, None, None, None]
    return ops.cast(ops.logical_and(covered, ops.equal(numbers, nearest[:, None])), "float32")


def keypoint_owners(places: Tensor, there: Tensor, height: int, width: int) -> Tensor:
    """[B, P, K, 2], [B, P, K] -> [B, P, h, w, K]: 1 in the cells around each keypoint."""
    corner = ops.round(places - (SIDE - 1) / 2)
    dx, in_x = _along_axis(places[..., 0], corner[..., 0], width)
    dy, in_y = _along_axis(places[..., 1], corner[..., 1], height)
    in_y = ops.logical_and(in_y, there[:, :, None])
    covered = ops.logical_and(in_y[:, :, :, None], in_x[:, :, None])
    return nearest_owners(covered, ops.square(dy)[:, :, :, None] + ops.square(dx)[:, :, None])


def _along_axis(place: Tensor, corner: Tensor, cells: int) -> tuple[Tensor, Tensor]:
    """[B, P, K] -> [B, P, cells, K]: distances from every cell, and whether the patch has it."""
    index = ops.convert_to_tensor(np.arange(cells, dtype=np.float32)[:, None])
    corner = corner[:, :, None]
    inside = ops.logical_and(index > corner - 0.5, index < corner + SIDE - 0.5)
    return index - place[:, :, None], inside


def limb_owners(ends: Tensor, there: Tensor, height: int, width: int) -> Tensor:
    """[B, P, L, 2, 2], [B, P, L] -> [B, P, h, w, L]: 1 in the cells along each limb's middle.

    Patches around points of it less than a cell apart. There are as many points as the map's
    diagonal has cells: farther apart, but with no gaps, if a limb is up to five times as long.
    """
    a, step = ends[..., 0, :], ends[..., 1, :] - ends[..., 0, :]
    length = ops.sqrt(ops.sum(ops.square(step), axis=-1))
    margin = ops.clip(LIMB_SIDE / 2 / (length + 1e-9), 0.25, 0.4)
    most = math.ceil(math.hypot(height, width))
    last = ops.clip(ops.ceil(length), 2, most)[:, :, None] - 1.0  # [B, P, 1, L]
    numbers = ops.convert_to_tensor(np.arange(most, dtype=np.float32)[:, None])
    share = margin[:, :, None] + (1 - 2 * margin[:, :, None]) * ops.minimum(numbers / last, 1.0)
    x = ops.round(a[:, :, None, :, 0] + share * step[:, :, None, :, 0])  # [B, P, points, L]
    y = ops.round(a[:, :, None, :, 1] + share * step[:, :, None, :, 1])
    columns = ops.convert_to_tensor(np.arange(width, dtype=np.float32)[:, None])
    rows = ops.convert_to_tensor(np.arange(height, dtype=np.float32)[:, None])
    reach = LIMB_SIDE // 2 + 0.5
    in_x = ops.cast(ops.abs(columns - x[..., None, :]) < reach, "float32")
    in_y = ops.cast(ops.abs(rows - y[..., None, :]) < reach, "float32")
    covered = ops.einsum("bpshl,bpswl->bphwl", in_y, in_x) > 0.5
    dx = (columns - a[:, :, None, :, 0])[:, :, None]  # [B, P, 1, w, L]
    dy = (rows - a[:, :, None, :, 1])[:, :, :, None]
    step_x, step_y = step[:, :, None, None, :, 0], step[:, :, None, None, :, 1]
    across = ops.abs(step_y * dx - step_x * dy) / (length[:, :, None, None] + 0.01)
    return nearest_owners(ops.logical_and(covered, there[:, :, None, None]), across)
