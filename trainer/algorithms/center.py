# SPDX-License-Identifier: Apache-2.0
"""People as points, on a light network: CenterNet's poses (Zhou et al., "Objects as Points", arXiv
1904.07850, section 4.2; details as in the authors' code, coordinates the house's).

Outputs at stride 4, regressions in cells and judged at people's own cells only:

    centers         [1]    probability of the centre of a person's box
    offsets         [2 K]  from the centre's cell to every keypoint
    heatmaps        [K]    probability of a keypoint
    heatmap_offset  [2]    from a keypoint's cell to the keypoint
    sizes           [2]    of the box
    center_offset   [2]    from the centre's cell to the box's centre

The box is the labelled one within the picture; it also says how wide the person's Gaussians are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
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
from ..rendering import heatmap_weight, known_cells, mask_at, nearest_cells, read_cells

STRIDE = 4
LEAST_IOU = 0.7  # see gaussian_radius
Judge = Callable[[Tensor], Tensor]  # an output [B, h, w, C] -> what it loses
MAPS = ("centers", "heatmaps")  # probabilities
PRIOR = 0.1  # that probability before anything is learned, as in the authors' code
LEAST = 1e-4  # probabilities are kept this far from 0 and 1 in logarithms


class Options(BaseModel):
    """``model.algorithm_options`` of a configuration."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    width: int = Field(default=64, gt=0)  # channels of the head
    blocks: int = Field(default=2, gt=0)
    size_weight: float = Field(default=0.1, ge=0)  # section 3's, of sizes; other outputs count 1
    box_margin: float = Field(default=0.1, ge=0)  # unknown keypoints: the box grown by this
    normalise: bool = True  # batch normalisation in the whole head; see paf


@dataclass(frozen=True)
class People:
    """The labels in cells; of anybody or anything that is not there the numbers are finite.

    there    [B, P]        1: a person with a known keypoint and a box within the picture
    center   [B, P, 2]     the centre's cell
    middle   [B, P, 2]     the box's centre
    size     [B, P, 2]     of the box
    radius   [B, P]        of the Gaussians, whole
    known    [B, P, K]     1: a keypoint that is known
    spots    [B, P, K, 2]  where it is
    cells    [B, P, K, 2]  its cell
    inside   [B, P, K]     1: known, and the map has that cell
    """

    there: Tensor
    center: Tensor
    middle: Tensor
    size: Tensor
    radius: Tensor
    known: Tensor
    spots: Tensor
    cells: Tensor
    inside: Tensor


class Center(Algorithm):
    """Centres, and from there everything else."""

    options_kind = Options
    options: Options

    @property
    def outputs(self) -> tuple[OutputSpec, ...]:
        count = self.skeleton.count
        channels = {
            "centers": 1,
            "offsets": 2 * count,
            "heatmaps": count,
            "heatmap_offset": 2,
            "sizes": 2,
            "center_offset": 2,
        }
        return tuple(OutputSpec(name, size, STRIDE) for name, size in channels.items())

    def decode_parameters(self) -> dict[str, Any]:
        return {"algorithm": "center"}

    def look(self, maps: Mapping[str, NDArray[np.float32]]) -> list[NDArray[np.float32]]:
        return [maps["centers"][..., 0], maps["heatmaps"].max(axis=-1)]

    # --- head ---------------------------------------------------------------------------------

    def head(
        self, features: Mapping[int, Tensor], size: tuple[int, int]
    ) -> list[dict[str, Tensor]]:
        build = Builder(self.options.width, self.options.normalise)
        x = build.pyramid(features, STRIDE)
        for block in range(self.options.blocks):
            x = build.residual(x, 3, f"block{block}")
        outputs = {}
        for spec in self.outputs:
            hidden = build.pointwise(x, f"{spec.name}_hidden")
            if spec.name in MAPS:
                bias = [float(np.log(PRIOR / (1 - PRIOR)))] * spec.channels
                logits = output(hidden, bias, f"out_{spec.name}")
                outputs[spec.name] = layers.Activation("sigmoid", name=spec.name)(logits)
            else:
                outputs[spec.name] = output(hidden, [0.0] * spec.channels, f"out_{spec.name}")
        return [outputs]

    # --- targets ------------------------------------------------------------------------------

    def targets(self, labels: Labels) -> dict[str, Tensor]:
        """Regressions stand wherever a person's centre is drawn, as the decoder may look there."""
        height, width = _sides(labels)
        people = people_of(labels)
        drawn = gaussians(people.center[:, :, None], people.there[..., None], people, height, width)
        mine = _first_of_highest(drawn[..., 0])
        columns = np.arange(width, dtype=np.float32)
        rows = np.arange(height, dtype=np.float32)
        cells = ops.convert_to_tensor(np.stack(np.meshgrid(columns, rows), axis=-1))  # [h, w, 2]

        def painted(values: Tensor) -> Tensor:
            """[B, P, C] -> [B, h, w, C] in the cells of their people."""
            return ops.einsum("bphw,bpc->bhwc", mine, values)

        count = self.skeleton.count
        spots = ops.einsum("bphw,bpkc->bhwkc", mine, people.spots * people.known[..., None])
        spots = ops.reshape(spots, (-1, height, width, 2 * count))
        known = painted(ops.repeat(people.known, 2, axis=2))
        anybody = ops.sum(mine, axis=1)[..., None]
        found = {
            "centers": ops.max(drawn, axis=1),
            "offsets": spots - known * ops.tile(cells, (1, 1, count)),
            "heatmaps": _keypoint_maps(people, height, width),
            "heatmap_offset": _in_own_cells(people, height, width),
            "sizes": painted(people.size),
            "center_offset": painted(people.middle) - anybody * cells,
        }
        return {spec.name: found[spec.name] for spec in self.outputs}

    # --- loss ---------------------------------------------------------------------------------

    def loss(
        self, labels: Labels, stages: Stages, teacher: TeacherWeights | None
    ) -> dict[str, Tensor]:
        """Equations 1 to 4, normalised as in the authors' code: focal losses over the number of
        centres or keypoints in the batch, the others means over the values that are known in it."""
        people = people_of(labels)
        judges = {**self._probabilities(labels, people), **_regressions(people)}
        result: dict[str, Tensor] = {}
        total = ops.zeros(())
        for spec in self.outputs:
            weight = self.options.size_weight if spec.name == "sizes" else 1.0
            judge = judges[spec.name]
            terms = [weight * judge(stage[spec.name]) for stage in stages]
            for term in terms:
                total = total + term
            result[spec.name] = terms[-1]
            result[f"{spec.name}_zero"] = weight * judge(ops.zeros_like(stages[-1][spec.name]))
        result["loss"] = total
        return result

    def _probabilities(self, labels: Labels, people: People) -> dict[str, Judge]:
        height, width = _sides(labels)
        margin = self.options.box_margin
        centers = _center_map(people, height, width)
        # Somebody of whom no keypoint is known: a decoder may report that person or not.
        unknown = ops.logical_not(ops.any(labels["keypoints"][..., 2] > 0, axis=-1, keepdims=True))
        known = known_cells(unknown, labels["boxes"], height, width, STRIDE, margin)
        known = known * mask_at(labels["mask"], MASK_STRIDE, STRIDE)
        known = ops.maximum(known, ops.cast(centers > 0.1, "float32"))
        heat = _keypoint_maps(people, height, width)
        heat_known = heatmap_weight(heat, labels, STRIDE, margin)
        return {
            "centers": lambda found: focal_loss(found, centers, known),
            "heatmaps": lambda found: focal_loss(found, heat, heat_known),
        }


def _sides(labels: Labels) -> tuple[int, int]:
    height, width = (side * MASK_STRIDE // STRIDE for side in labels["mask"].shape[1:3])
    return height, width


def people_of(labels: Labels) -> People:
    """The labels of a batch in cells."""
    height, width = _sides(labels)
    keypoints = labels["keypoints"]
    corners = (labels["boxes"] - (STRIDE - 1) / 2) / STRIDE
    edge = ops.convert_to_tensor(np.array([width - 0.5, height - 0.5], np.float32))
    low = ops.maximum(corners[..., :2], -0.5)  # the picture's edges, half a cell from the centres
    high = ops.minimum(corners[..., 2:], edge)
    shown = ops.cast(ops.all(high > low, axis=-1), "float32")
    size = ops.maximum(high - low, 0.0)
    middle = (low + high) / 2
    known = ops.cast(keypoints[..., 2] > 0, "float32") * shown[..., None]
    cells, inside = nearest_cells(keypoints[..., :2], height, width, STRIDE)
    return People(
        there=ops.max(known, axis=-1),
        center=ops.clip(ops.round(middle), 0.0, edge - 0.5),
        middle=middle,
        size=size,
        radius=gaussian_radius(size),
        known=known,
        spots=(keypoints[..., :2] - (STRIDE - 1) / 2) / STRIDE,
        cells=cells,
        inside=known * inside,
    )


def gaussian_radius(size: Tensor) -> Tensor:
    """[..., 2] width and height of boxes -> [...] whole cells: how far Gaussians reach.

    CornerNet's radius (Law and Deng 2018, section 3.2) in the case that decides in the authors'
    code, and as that has it: 2.8 times how far a box may grow each way and still overlap itself by
    LEAST_IOU, since it divides by 2 for 2 a where it solves the quadratic equation.
    """
    half = LEAST_IOU * (size[..., 0] + size[..., 1])
    area = size[..., 0] * size[..., 1]
    root = ops.sqrt(ops.square(half) + 4 * LEAST_IOU * (1 - LEAST_IOU) * area)
    return ops.floor(ops.maximum(root - half, 0.0))


def gaussians(cells: Tensor, there: Tensor, people: People, height: int, width: int) -> Tensor:
    """[B, P, N, 2] and [B, P, N] 1 or 0 -> [B, P, h, w, N]: a Gaussian around each whole cell, cut
    at the person's radius, sigma a sixth of its diameter."""
    radius = people.radius[:, :, None, None]
    gain = -0.5 * ops.square(6.0 / (2.0 * radius + 1.0))
    columns = ops.convert_to_tensor(np.arange(width, dtype=np.float32)[:, None])
    rows = ops.convert_to_tensor(np.arange(height, dtype=np.float32)[:, None])
    dx = columns - cells[:, :, None, :, 0]  # [B, P, w, N]
    dy = rows - cells[:, :, None, :, 1]  # [B, P, h, N]
    ex = ops.exp(gain * ops.square(dx)) * ops.cast(ops.abs(dx) <= radius, "float32")
    ey = ops.exp(gain * ops.square(dy)) * ops.cast(ops.abs(dy) <= radius, "float32")
    return (ey * there[:, :, None])[:, :, :, None] * ex[:, :, None]


def _center_map(people: People, height: int, width: int) -> Tensor:
    drawn = gaussians(people.center[:, :, None], people.there[..., None], people, height, width)
    return ops.max(drawn, axis=1)


def _keypoint_maps(people: People, height: int, width: int) -> Tensor:
    return ops.max(gaussians(people.cells, people.inside, people, height, width), axis=1)


def _first_of_highest(strength: Tensor) -> Tensor:
    """[B, P, h, w] -> the same, 1 for the person whose cell it is, of equal ones the first."""
    highest = ops.max(strength, axis=1, keepdims=True)
    mine = ops.logical_and(strength > 0, ops.equal(strength, highest))
    mine = ops.cast(mine, "float32")
    return mine * ops.cast(ops.equal(ops.cumsum(mine, axis=1), 1.0), "float32")


def _in_own_cells(people: People, height: int, width: int) -> Tensor:
    """[B, h, w, 2]: from a keypoint's cell to the keypoint; the mean of those that share it."""
    away = people.spots - people.cells
    columns, rows = (ops.convert_to_tensor(np.arange(n, dtype=np.float32)) for n in (width, height))
    column = ops.cast(ops.equal(people.cells[..., :1], columns), "float32")  # [B, P, K, w]
    row = ops.cast(ops.equal(people.cells[..., 1:], rows), "float32") * people.inside[..., None]

    def summed(values: Tensor) -> Tensor:
        return ops.einsum("bpkh,bpkw->bhw", row, column * values)

    count = summed(ops.ones_like(column))
    planes = [summed(away[..., axis, None]) for axis in (0, 1)]
    return ops.stack(planes, axis=-1) / ops.maximum(count, 1.0)[..., None]


# --- what an output loses ---------------------------------------------------------------------


def focal_loss(found: Tensor, target: Tensor, known: Tensor) -> Tensor:
    """Equation 1 with alpha 2 and beta 4, where ``known``; over the number of targets that are 1,
    which are known always."""
    found = ops.clip(found, LEAST, 1.0 - LEAST)
    peak = ops.cast(target > 1.0 - 1e-6, "float32")
    hit = peak * ops.square(1.0 - found) * ops.log(found)
    rest = known * (1.0 - peak) * (1.0 - target) ** 4 * ops.square(found) * ops.log(1.0 - found)
    return -ops.sum(hit + rest) / ops.maximum(ops.sum(peak), 1.0)


def _regressions(people: People) -> dict[str, Judge]:
    """Equations 2 and 3 and section 4.2's: absolute errors at people's own cells."""
    batch, count = ops.shape(people.known)[0], people.known.shape[2]
    centers = people.center[:, :, None]
    there = people.there[..., None]
    joints = ops.reshape(people.cells, (batch, -1, 1, 2))
    away = ops.reshape(people.spots - people.cells, (batch, -1, 2))
    inside = ops.reshape(people.inside, (batch, -1, 1))
    offsets = ops.reshape(people.spots - centers, (batch, -1, 2 * count))
    known = ops.repeat(people.known, 2, axis=2)
    return {
        "offsets": lambda found: _absolute(read_cells(found, centers), offsets, known),
        "heatmap_offset": lambda found: _absolute(read_cells(found, joints), away, inside),
        "sizes": lambda found: _absolute(read_cells(found, centers), people.size, there),
        "center_offset": lambda found: _absolute(
            read_cells(found, centers), people.middle - people.center, there
        ),
    }


def _absolute(found: Tensor, wanted: Tensor, known: Tensor) -> Tensor:
    """The mean error of the values that are known."""
    known = ops.broadcast_to(known, ops.shape(wanted))
    return ops.sum(known * ops.abs(found - wanted)) / ops.maximum(ops.sum(known), 1.0)
