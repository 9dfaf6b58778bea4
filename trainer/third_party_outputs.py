# SPDX-License-Identifier: Apache-2.0
"""What a third-party network's outputs become in a manifest: names, channels, strides.

A rule is written NAME=TENSOR or NAME=TENSOR[FIRST:LAST] (channels, the last not included). Without
rules they are guessed where only one guess is possible: tensors of the algorithm's own names; a
single tensor for an algorithm of one output; OpenPose's single tensor of heatmaps and fields. What
was guessed is said.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from posewire.errors import ExitCode
from posewire.skeleton import Skeleton

from .errors import TrainError

# algorithm -> the sets of outputs that its decoder reads (docs/decoders.md); optional ones last.
OUTPUTS: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "paf": (("heatmaps", "pafs"),),
    "pifpaf": (("cif", "caf"),),
    "pose_proposal": (("conf", "iou", "x", "y", "w", "h", "edges"),),
    "associative_embedding": (("heatmaps", "tags"), ("heatmaps", "tags", "heatmaps_2")),
    "heatmap": (("heatmaps",),),
    "simcc": (("simcc_x", "simcc_y"),),
    "center": (("rows",), ("boxes", "keypoints"), ("centers", "offsets")),
    "yolox": (("boxes",),),
}
# What is no row of cpp/decode by that name: yolox gets its grid decoded inside the network.
ROWS: Mapping[str, tuple[str, str]] = {"yolox": ("center", "detector")}  # (algorithm, mode)
MODES: Mapping[str, str] = {"heatmap": "top_down", "simcc": "top_down"}
SEQUENCES = ("simcc_x", "simcc_y", "rows", "boxes", "keypoints")

_RULE = re.compile(
    r"(?P<name>[A-Za-z0-9][\w.+-]*)=(?P<tensor>[^\[\]]+)(\[(?P<a>\d+):(?P<b>\d+)\])?"
)


@dataclass(frozen=True)
class Rule:
    """One output of the manifest: a tensor of the network, or a range of its channels."""

    name: str
    tensor: str
    first: int | None = None
    last: int | None = None


@dataclass(frozen=True)
class Found:
    """An output as the network has it: where its channels are, and its size.

    shape     without the batch, as the network has it
    channels  the channel axis in ``shape``
    stride    in input pixels; None for a sequence
    """

    rule: Rule
    shape: tuple[int, ...]
    channels: int
    stride: int | None

    @property
    def count(self) -> int:
        """Channels after the rule's range."""
        whole = self.shape[self.channels]
        return (self.rule.last or whole) - (self.rule.first or 0)


def algorithm_names() -> tuple[str, ...]:
    """What --algorithm takes."""
    return tuple(sorted(OUTPUTS))


def decoder_of(algorithm: str) -> str:
    """The row of cpp/decode. Raises TrainError (USAGE) listing the known ones."""
    if algorithm not in OUTPUTS:
        known = ", ".join(algorithm_names())
        raise TrainError(f"unknown algorithm {algorithm!r}; known are {known}", ExitCode.USAGE)
    return ROWS[algorithm][0] if algorithm in ROWS else algorithm


def mode_of(algorithm: str) -> str:
    """bottom_up, top_down or detector."""
    return ROWS[algorithm][1] if algorithm in ROWS else MODES.get(algorithm, "bottom_up")


def parse_rule(text: str) -> Rule:
    """Raises TrainError (USAGE)."""
    match = _RULE.fullmatch(text)
    if match is None:
        raise TrainError(
            f"--outputs {text}: must be NAME=TENSOR or NAME=TENSOR[FIRST:LAST]", ExitCode.USAGE
        )
    first, last = (None if match[g] is None else int(match[g]) for g in ("a", "b"))
    if first is not None and last is not None and first >= last:
        raise TrainError(f"--outputs {text}: an empty range of channels", ExitCode.USAGE)
    return Rule(match["name"], match["tensor"], first, last)


def guess(
    algorithm: str, skeleton: Skeleton | None, tensors: Mapping[str, tuple[int, ...]]
) -> tuple[Rule, ...]:
    """Rules for a network's outputs (name -> shape without the batch).

    Raises TrainError (USAGE) naming the tensors and what is needed, where nothing is certain.
    """
    wanted = OUTPUTS[algorithm]
    for names in wanted:
        if set(names) == set(tensors):
            return tuple(Rule(name, name) for name in names)
    if len(tensors) == 1:
        ((tensor, shape),) = tensors.items()
        if len(wanted[0]) == 1:
            return (Rule(wanted[0][0], tensor),)
        if algorithm == "paf" and skeleton is not None:
            maps, fields = skeleton.count + 1, 2 * len(skeleton.limbs)
            if maps + fields in shape:
                return (
                    Rule("heatmaps", tensor, 0, maps),
                    Rule("pafs", tensor, maps, maps + fields),
                )
    shown = "; ".join(f"{name} {list(shape)}" for name, shape in tensors.items())
    sets = " or ".join(" ".join(names) for names in wanted)
    raise TrainError(
        f"the network's outputs are {shown}; say which are {sets}: "
        "--outputs NAME=TENSOR[FIRST:LAST]",
        ExitCode.USAGE,
    )


def find(
    rule: Rule, tensors: Mapping[str, tuple[int, ...]], width: int, height: int, stride: int | None
) -> Found:
    """Where the channels of an output are, and its stride. Raises TrainError (USAGE)."""

    def fail(why: str) -> TrainError:
        return TrainError(f"output {rule.name} ({rule.tensor}): {why}", ExitCode.USAGE)

    if rule.tensor not in tensors:
        raise fail(f"the network has no such output; it has {', '.join(tensors)}")
    shape = tensors[rule.tensor]
    if rule.name in SEQUENCES:
        if len(shape) != 2:
            raise fail(f"a sequence is [batch, channels, length] or so, not {list(shape)}")
        # Bins come channel by channel; of rows there are more than of their values.
        axis = 0 if rule.name.startswith("simcc") or shape[0] < shape[1] else 1
        return _ranged(Found(rule, shape, axis, None), fail)
    if len(shape) != 3:
        raise fail(f"maps are [batch, channels, height, width] or so, not {list(shape)}")
    fits = {
        axis: step
        for axis, (high, wide) in ((0, shape[1:]), (2, shape[:2]))
        if (step := _stride(high, wide, width, height, stride)) is not None
    }
    if len(fits) != 1:
        many = "both orders fit" if fits else f"no stride leads from {width}x{height} to it"
        raise fail(f"shape {list(shape)}: {many}; --stride N says which is meant")
    ((axis, step),) = fits.items()
    return _ranged(Found(rule, shape, axis, step), fail)


def _ranged(found: Found, fail: object) -> Found:
    whole = found.shape[found.channels]
    if found.rule.last is not None and found.rule.last > whole:
        assert callable(fail)
        raise fail(f"has {whole} channels, the rule asks for {found.rule.last}")
    return found


def _stride(high: int, wide: int, width: int, height: int, given: int | None) -> int | None:
    """The stride whose maps have that size; the smallest where several round to it."""
    steps: Sequence[int] = range(1, 129) if given is None else (given,)
    return next((s for s in steps if -(-height // s) == high and -(-width // s) == wide), None)
