# SPDX-License-Identifier: Apache-2.0
"""How much each quantised layer alone spoils the outputs, and which ones to keep therefore.

A layer's error is that of the network in which it is the only quantised one: the root mean square
of the difference to fp32, over the standard deviation of fp32, of the worst output. One at a time
is additive enough to rank by, and unlike "all but one" it still finds each of several bad layers.
The pictures are drawn by the engine's synthetic source, or given as a folder: never the gate's, or
the gate would be passed by what it was to judge.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from posewire.engine_core import core as engine_core
from posewire.manifest import Artifact, Manifest

from .gate import Progress, input_tensor
from .qdq import Network, keep

PICTURES = 2
_SEED = 20261  # of the drawn pictures
_OUTLIER = 4.0  # times the median error: kept at the first try

Feed = dict[str, NDArray[Any]]


def drawn(manifest: Manifest, artifact: Artifact) -> list[Feed]:
    """Feeds of one picture each: stick people of the synthetic source."""
    feeds = []
    for index in range(PICTURES):
        size = f"width={manifest.input.width}&height={manifest.input.height}"
        uri = f"synthetic:?people={2 + 3 * index}&seed={_SEED + index}&frames=1&{size}"
        (picture,) = engine_core().read_frames(uri, 1)
        fitted, _ = engine_core().letterbox(picture, manifest.input.width, manifest.input.height)
        feeds.append({manifest.input.name: input_tensor(fitted, manifest, artifact)})
    return feeds


def errors(
    quantised: Network, plain: Network, feeds: Sequence[Feed], progress: Progress
) -> dict[str, float]:
    """Layer -> error, the worst first."""
    layers = quantised.layers()
    reference = outputs_of(plain.model, feeds)
    found: dict[str, float] = {}
    for done, layer in enumerate(layers):
        progress("sensitive layers", done, len(layers))
        alone = keep(quantised.model, plain, [other for other in layers if other != layer])
        found[layer] = error_of(reference, outputs_of(alone, feeds))
    progress("sensitive layers", len(layers), len(layers))
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def outputs_of(model: onnx.ModelProto, feeds: Sequence[Feed]) -> list[list[NDArray[Any]]]:
    onnxruntime: Any = import_module("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    # One network is run a few times: optimising it would take longer than it saves.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return [session.run(None, feed) for feed in feeds]


def error_of(reference: list[list[NDArray[Any]]], given: list[list[NDArray[Any]]]) -> float:
    worst = 0.0
    for index in range(len(reference[0])):
        wanted = np.stack([outputs[index] for outputs in reference]).astype(np.float64)
        found = np.stack([outputs[index] for outputs in given]).astype(np.float64)
        spread = float(wanted.std()) or 1.0
        worst = max(worst, math.sqrt(float(((wanted - found) ** 2).mean())) / spread)
    return worst


def choose(ranked: dict[str, float], attempt: int) -> list[str]:
    """The layers to keep at the first (0) or second (1) try, worst first; never more than half, or
    the network would be quantised in name only. Empty where that leaves none."""
    half = len(ranked) // 2
    usual = sorted(ranked.values())[(len(ranked) - 1) // 2] if ranked else 0.0
    outliers = sum(error > _OUTLIER * usual for error in ranked.values())
    first = min(max(1, outliers), half)
    count = first if attempt == 0 else min(max(2 * first, math.ceil(len(ranked) / 4)), half)
    return list(ranked)[:count]
