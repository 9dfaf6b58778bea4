# SPDX-License-Identifier: Apache-2.0
"""What a perfect network would say: a frame's outputs for known people, one row per decoder.

The inverse of cpp/decode, in plain numpy: the tests' round trips and ``posewire bench decode``
render their frames here, and the trainer's targets can be held against it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import ExitCode, PosewireError
from ..skeleton import Skeleton
from . import associative_embedding, center, heatmap, paf, pifpaf, pose_proposal, simcc
from .agreement import Agreement, agreement
from .encoder import Array, Encoder, People
from .frames import SIZES, Rendered, render_frames
from .people import draw_people

__all__ = [
    "ENCODERS",
    "SIZES",
    "Agreement",
    "Array",
    "Encoder",
    "People",
    "Rendered",
    "agreement",
    "draw_people",
    "encoder",
    "partial_manifest",
    "render_frames",
]

# To add an algorithm: its file here, named as its decoder, and its line.
ENCODERS: Mapping[str, Encoder] = {
    "associative_embedding": associative_embedding.ENCODER,
    "center": center.ENCODER,
    "heatmap": heatmap.ENCODER,
    "paf": paf.ENCODER,
    "pifpaf": pifpaf.ENCODER,
    "pose_proposal": pose_proposal.ENCODER,
    "simcc": simcc.ENCODER,
}


def encoder(algorithm: str) -> Encoder:
    """The row. Raises PosewireError (USAGE) for an unknown algorithm, listing the known ones."""
    if algorithm not in ENCODERS:
        raise PosewireError(
            f"unknown algorithm {algorithm!r} (known: {', '.join(ENCODERS)})", ExitCode.USAGE
        )
    return ENCODERS[algorithm]


def partial_manifest(
    algorithm: str,
    skeleton: Skeleton,
    width: int,
    height: int,
    *,
    channels_last: bool = False,
    decode: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """What of a manifest a decoder reads, for a network input of ``width`` x ``height`` pixels.

    ``decode`` adds to the row's own parameters. Raises PosewireError for an unknown algorithm.
    """
    row = encoder(algorithm)
    outputs = []
    for spec in row.outputs(skeleton, width, height):
        extent = "W" if "length" in spec else "HW"
        outputs.append({**spec, "layout": f"N{extent}C" if channels_last else f"NC{extent}"})
    size = {"width": width, "height": height}
    crop = {"crop": {"padding": 1.25, "fit": "letterbox"}} if row.mode == "top_down" else {}
    return {
        "mode": row.mode,
        "skeleton": skeleton.to_dict(),
        "input": {"name": "image", **size, "channels": "RGB", "resize": "letterbox"},
        **crop,
        "outputs": outputs,
        "decode": {"algorithm": algorithm, **row.decode, **(decode or {})},
    }
