# SPDX-License-Identifier: Apache-2.0
"""Pose Proposal Networks (Sekii, ECCV 2018) on a light network.

Outputs at stride 32, all probabilities or shares. A kind is a keypoint or, last, the person
instance: ``conf`` [K + 1] that a kind's box has its centre in the cell, ``iou`` the box's expected
overlap with the true one, ``x``, ``y`` its centre in the cell, ``w``, ``h`` its size as a share of
the input's; ``edges`` [81L], channel 81 l + 9 (dy + 4) + dx + 4: limb l from here ends dx, dy cells
away. A limb that reaches further has no edge.

Targets are posewire.encode.pose_proposal's, where a person is as large as its labelled box if that
is more than its known keypoints tell. The loss is the paper's (section 3, training; the weights are
its lambdas), with d a kind's presence in a cell:

    conf   0.25 (d - p)^2 in every cell
    iou    1 d (overlap of the predicted box with the true one - p)^2
    x, y   5 d (x - p)^2
    w, h   5 d (sqrt w - sqrt p)^2
    edges  0.5 max(d here, d there) (e - p)^2, e being 1 if both are one person's

``mask`` and, in the box of a person whose labels leave a kind open, that kind are left out of conf
and of the edges that would begin or end there; a cell where somebody has the kind counts always.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import layers, ops
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from ..algorithm import MASK_STRIDE, Algorithm, Labels, OutputSpec, Stages, TeacherWeights, Tensor
from ..layers import Builder, output
from ..rendering import known_cells, mask_at, per_image

STRIDE = 32
REACH = 4  # cells from a limb's first to its second end, each way
WINDOW = 2 * REACH + 1
SIZE, INSTANCE_SIZE = 1 / 8, 1 / 4  # of the person's longer side
BOX_GROWTH = 0.1  # a labelled box is larger than its keypoints' extents, each way
# Where the head begins. Not nearer to 0: a sigmoid there has no slope and a square none either.
START = {"conf": 0.1, "iou": 0.5, "x": 0.5, "y": 0.5, "w": 0.1, "h": 0.1, "edges": 0.1}
_LEAST = 1e-6
_FAR = 1e6


class Options(BaseModel):
    """``model.algorithm_options`` of a configuration."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    width: int = Field(default=256, gt=0)  # channels of the head
    blocks: int = Field(default=2, ge=0)
    kernel: int = Field(default=3, gt=0)
    normalise: bool = True  # batch normalisation everywhere in the head
    # The paper's weights.
    conf_weight: float = Field(default=0.25, ge=0)
    iou_weight: float = Field(default=1.0, ge=0)
    place_weight: float = Field(default=5.0, ge=0)
    size_weight: float = Field(default=5.0, ge=0)
    edge_weight: float = Field(default=0.5, ge=0)
    box_margin: float = Field(default=0.1, ge=0)  # unknown keypoints: the box grown by this


@dataclass(frozen=True)
class Targets:
    """What the labels say.

    maps   by output, [B, h, w, channels]
    known  [B, h, w, K + 1]  0 where nobody knows whether a kind is there
    edge_weight  [B, h, w, 81L]
    """

    maps: Mapping[str, Tensor]
    known: Tensor
    edge_weight: Tensor


@keras.saving.register_keras_serializable("posewire")
class ShareOfInput(keras.layers.Layer):  # type: ignore[misc]  # keras is untyped
    """Shares of an input of ``pixels`` pixels along an axis (1 or 2) of maps as shares of the
    picture that is given: a network that is exported for another size sees people of the same."""

    def __init__(self, pixels: int, axis: int, **settings: Any) -> None:
        super().__init__(**settings)
        self.pixels, self.axis = pixels, axis

    def call(self, x: Tensor) -> Tensor:
        given = ops.cast(ops.shape(x)[self.axis] * STRIDE, self.compute_dtype)
        return x * (self.pixels / given)

    def compute_output_shape(self, shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "pixels": self.pixels, "axis": self.axis}


class PoseProposal(Algorithm):
    """A grid of boxes for keypoints and people, and the edges between their cells."""

    options_kind = Options
    options: Options

    @property
    def outputs(self) -> tuple[OutputSpec, ...]:
        kinds, edges = self.skeleton.count + 1, WINDOW**2 * len(self.skeleton.limbs)
        return tuple(
            OutputSpec(name, edges if name == "edges" else kinds, STRIDE) for name in START
        )

    def decode_parameters(self) -> dict[str, Any]:
        return {"algorithm": "pose_proposal"}

    def look(self, maps: Mapping[str, NDArray[np.float32]]) -> list[NDArray[np.float32]]:
        conf, edges = maps["conf"], maps["edges"]
        edges = edges.reshape(*edges.shape[:3], len(self._first), -1).max(axis=-1)
        # Edges are only judged where one of their ends is: elsewhere a network says anything.
        edges = edges * conf[..., self._first]
        return [conf[..., :-1].max(axis=-1), conf[..., -1], edges.max(axis=-1)]

    # --- head ---------------------------------------------------------------------------------

    def head(
        self, features: Mapping[int, Tensor], size: tuple[int, int]
    ) -> list[dict[str, Tensor]]:
        build = Builder(self.options.width, self.options.normalise)
        x = build.pyramid(features, STRIDE)
        for block in range(self.options.blocks):
            x = build.residual(x, self.options.kernel, f"block{block}")
        hidden = {"edges": build.pointwise(x, "edges_hidden")}
        boxes = build.pointwise(x, "boxes_hidden")
        outputs = {}
        for spec in self.outputs:
            share = START[spec.name]
            bias = [math.log(share / (1 - share))] * spec.channels
            raw = output(hidden.get(spec.name, boxes), bias, f"{spec.name}_raw")
            value = layers.Activation("sigmoid", name=f"{spec.name}_sigmoid")(raw)
            if spec.name in ("w", "h"):
                pixels, axis = (size[0], 2) if spec.name == "w" else (size[1], 1)
                value = ShareOfInput(pixels, axis, name=spec.name)(value)
            outputs[spec.name] = value
        return [outputs]

    # --- targets ------------------------------------------------------------------------------

    def targets(self, labels: Labels) -> dict[str, Tensor]:
        return dict(self.rendered(labels).maps)

    def rendered(self, labels: Labels) -> Targets:
        """Renders the labels of one batch."""
        mask, boxes = labels["mask"], labels["boxes"]
        height, width = (-(-side * MASK_STRIDE // STRIDE) for side in mask.shape[1:3])
        people, longer = with_instance(labels["keypoints"], boxes)
        column = ops.floor(people[..., 0] / STRIDE)  # [B, P, K + 1]
        row = ops.floor(people[..., 1] / STRIDE)
        in_row = ops.logical_and(_is_index(row, height), (people[..., 2] > 0)[:, :, None])
        covered = ops.logical_and(in_row[:, :, :, None], _is_index(column, width)[:, :, None])
        owner = largest_owners(covered, longer)  # [B, P, h, w, K + 1]
        sides = longer[..., None] * np.array(
            [SIZE] * self.skeleton.count + [INSTANCE_SIZE], np.float32
        )
        values = {
            "conf": ops.ones_like(sides),
            "iou": ops.ones_like(sides),
            "x": people[..., 0] / STRIDE - column,
            "y": people[..., 1] / STRIDE - row,
            "w": sides / (STRIDE * width),
            "h": sides / (STRIDE * height),
        }
        maps = {name: ops.einsum("bphwk,bpk->bhwk", owner, value) for name, value in values.items()}
        maps["edges"] = self._edges(owner, row, column)
        unknown = ops.equal(people[..., 2], 0)
        known = mask_at(mask, MASK_STRIDE, STRIDE) * known_cells(
            unknown, boxes, height, width, STRIDE, self.options.box_margin
        )
        known = ops.maximum(known, maps["conf"])
        return Targets(maps, known, self._edge_weight(maps["conf"], known))

    def _edges(self, owner: Tensor, row: Tensor, column: Tensor) -> Tensor:
        """[B, h, w, 81L]: 1 where a limb begins and where in the window it ends."""
        height, width = owner.shape[2:4]
        begins = ops.take(owner, self._first, axis=4)  # [B, P, h, w, L]
        # A person's end that lost its cell to a larger person is not there to be joined.
        ends = ops.take(ops.sum(owner, axis=(2, 3)), self._second, axis=2)  # [B, P, L]
        across, down = (
            ops.take(place, self._second, axis=2) - ops.take(place, self._first, axis=2)
            for place in (column, row)
        )
        numbers = ops.convert_to_tensor(np.arange(WINDOW, dtype=np.float32))
        to_row, to_column = (
            ops.cast(ops.abs(step[..., None] + REACH - numbers) < 0.5, "float32")
            for step in (down, across)
        )  # [B, P, L, 9]
        begins = begins * ends[:, :, None, None]
        edges = ops.einsum("bphwl,bpli,bplj->bhwlij", begins, to_row, to_column)
        return ops.reshape(edges, (-1, height, width, len(self._first) * WINDOW**2))

    def _edge_weight(self, present: Tensor, known: Tensor) -> Tensor:
        """[B, h, w, 81L]: 1 for edges that begin or end in a cell with such a keypoint, 0 where
        either end is not known or outside of the picture."""
        height, width = present.shape[1:3]

        def at_ends(maps: Tensor) -> tuple[Tensor, Tensor]:
            """[B, h, w, K + 1] -> [B, h, w, L, 1, 1] here, [B, h, w, L, 9, 9] there."""
            rows, columns = _window_matrix(height), _window_matrix(width)
            there = ops.take(maps, self._second, axis=3)
            there = ops.einsum("byxl,hiy,wjx->bhwlij", there, rows, columns)
            return ops.take(maps, self._first, axis=3)[..., None, None], there

        here, there = at_ends(present)
        known_here, known_there = at_ends(known)
        weight = ops.maximum(here, there) * known_here * known_there
        return ops.reshape(weight, (-1, height, width, len(self._first) * WINDOW**2))

    # --- loss ---------------------------------------------------------------------------------

    def loss(
        self, labels: Labels, stages: Stages, teacher: TeacherWeights | None
    ) -> dict[str, Tensor]:
        targets = self.rendered(labels)
        result: dict[str, Tensor] = {}
        total = ops.zeros(())
        for stage in stages:
            losses = self._losses(targets, stage, self._overlap(targets, stage))
            total = total + sum(losses.values())
            result.update(losses)
        silence = {name: ops.zeros_like(value) for name, value in targets.maps.items()}
        nothing = self._losses(targets, silence, self._overlap(targets, stages[-1]))
        result |= {f"{name}_zero": value for name, value in nothing.items()}
        result["loss"] = total
        return result

    def _losses(
        self, targets: Targets, stage: Mapping[str, Tensor], overlap: Tensor
    ) -> dict[str, Tensor]:
        """By output; ``overlap`` [B, h, w, K + 1] is what ``iou`` should say."""
        maps, options = targets.maps, self.options
        present = maps["conf"]
        root = {name: ops.sqrt(ops.maximum(stage[name], _LEAST)) for name in ("w", "h")}
        true_root = {name: ops.sqrt(ops.maximum(maps[name], _LEAST)) for name in ("w", "h")}
        terms = {
            "conf": (options.conf_weight, targets.known, stage["conf"] - present),
            "iou": (options.iou_weight, present, stage["iou"] - overlap),
            "x": (options.place_weight, present, stage["x"] - maps["x"]),
            "y": (options.place_weight, present, stage["y"] - maps["y"]),
            "w": (options.size_weight, present, root["w"] - true_root["w"]),
            "h": (options.size_weight, present, root["h"] - true_root["h"]),
            "edges": (options.edge_weight, targets.edge_weight, stage["edges"] - maps["edges"]),
        }
        return {
            name: weight * per_image(where * ops.square(error))
            for name, (weight, where, error) in terms.items()
        }

    def _overlap(self, targets: Targets, stage: Mapping[str, Tensor]) -> Tensor:
        """[B, h, w, K + 1]: intersection over union of predicted and true boxes; no gradient."""
        maps = targets.maps
        height, width = maps["conf"].shape[1:3]
        common = true_area = area = 1.0
        for place, size, cells in (("x", "w", width), ("y", "h", height)):
            true_half, half = 0.5 * cells * maps[size], 0.5 * cells * stage[size]
            least = ops.maximum(maps[place] - true_half, stage[place] - half)
            most = ops.minimum(maps[place] + true_half, stage[place] + half)
            common = common * ops.maximum(most - least, 0.0)
            true_area, area = true_area * 2.0 * true_half, area * 2.0 * half
        either = ops.maximum(true_area + area - common, _LEAST)
        return ops.stop_gradient(common / either)


def with_instance(keypoints: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
    """[B, P, K, 3], [B, P, 4] -> [B, P, K + 1, 3], the middle of the known keypoints last, and
    [B, P] the longer side of each person, pixels.

    The instance of somebody without a known keypoint is as unknown as they.
    """
    there = (keypoints[..., 2] > 0)[..., None]
    most = ops.max(ops.where(there, keypoints[..., :2], -_FAR), axis=2)
    least = ops.min(ops.where(there, keypoints[..., :2], _FAR), axis=2)
    some = ops.any(there, axis=2)  # [B, P, 1]
    middle = ops.where(some, 0.5 * (least + most), 0.0)
    instance = ops.concatenate([middle, 2.0 * ops.cast(some, middle.dtype)], axis=-1)
    extent = ops.max(most - least, axis=-1) * (1 + 2 * BOX_GROWTH)
    labelled = ops.max(boxes[..., 2:] - boxes[..., :2], axis=-1)
    longer = ops.maximum(ops.maximum(extent, labelled), 0.0)
    return ops.concatenate([keypoints, instance[:, :, None]], axis=2), longer


def largest_owners(covered: Tensor, longer: Tensor) -> Tensor:
    """[B, P, h, w, K], [B, P] -> [B, P, h, w, K]: 1 for the largest of those with a keypoint of one
    kind in one cell; of equal ones the last."""
    size = ops.where(covered, longer[:, :, None, None, None], -1.0)
    people = ops.shape(covered)[1]
    largest = people - 1 - ops.cast(ops.argmax(ops.flip(size, axis=1), axis=1), "int32")
    numbers = ops.arange(people, dtype="int32")[:, None, None, None]
    return ops.cast(ops.logical_and(covered, ops.equal(numbers, largest[:, None])), "float32")


def _is_index(index: Tensor, cells: int) -> Tensor:
    """[B, P, K] whole numbers -> [B, P, cells, K], true in the cell of that number."""
    return ops.abs(np.arange(cells, dtype=np.float32)[:, None] - index[:, :, None]) < 0.5


def _window_matrix(cells: int) -> NDArray[np.float32]:
    """[cells, 9, cells]: 1 where the second cell is one step of the window from the first."""
    index = np.arange(cells)
    steps = np.arange(-REACH, REACH + 1)
    return np.asarray(index[:, None, None] + steps[:, None] == index, np.float32)
