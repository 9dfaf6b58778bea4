# SPDX-License-Identifier: Apache-2.0
"""The table of algorithms. A new one is a file here and a line below."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from posewire.skeleton import Skeleton

from ..algorithm import Algorithm
from ..errors import TrainError
from .associative_embedding import AssociativeEmbedding
from .center import Center
from .heatmap import Heatmap
from .paf import Paf
from .pifpaf import PifPaf
from .pose_proposal import PoseProposal
from .simcc import Simcc

ALGORITHMS: Mapping[str, Callable[[Skeleton, Mapping[str, Any]], Algorithm]] = {
    "associative_embedding": AssociativeEmbedding.from_options,
    "center": Center.from_options,
    "heatmap": Heatmap.from_options,
    "paf": Paf.from_options,
    "pifpaf": PifPaf.from_options,
    "pose_proposal": PoseProposal.from_options,
    "simcc": Simcc.from_options,
}


def make_algorithm(name: str, skeleton: Skeleton, options: Mapping[str, Any]) -> Algorithm:
    """The algorithm of that name. Raises TrainError listing the known ones or naming the option."""
    if name not in ALGORITHMS:
        raise TrainError(
            f"model.algorithm: unknown algorithm {name!r}; known are {', '.join(ALGORITHMS)}"
        )
    return ALGORITHMS[name](skeleton, options)
