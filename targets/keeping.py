# SPDX-License-Identifier: Apache-2.0
"""Layers of a Q/DQ network that stay in floating point: asked for, of heads, or after a refusal.

``--keep-layers``::

    auto       the heads from the start; where the gate refuses, the layers that spoil the outputs
               most (sensitivity.py), and the gate is asked again, twice at most
    none       nothing; the gate's first word counts
    NAME,NAME  these and the heads; a refusal lists the sensitive layers, and that is all

Never more than half of the layers are kept: what then still fails is no quantised network.
"""

from __future__ import annotations

from pathlib import Path

import onnx

from posewire.errors import ExitCode
from posewire.manifest import Artifact, Manifest

from . import sensitivity
from .errors import TargetError
from .gate import Progress, portable_fp32
from .qdq import Network, check_names, keep

TRIES = 2
_LISTED = 8


class Keeping:
    """What is kept of one portable bundle's quantised networks. ``wanted`` is --keep-layers."""

    def __init__(self, folder: Path, manifest: Manifest, wanted: str, progress: Progress) -> None:
        self._folder, self._manifest, self._progress = folder, manifest, progress
        self.wanted = wanted
        self._names = [] if wanted in ("auto", "none") else [n for n in wanted.split(",") if n]
        self._ranked: dict[str, dict[str, float]] = {}

    def applies(self, artifact: Artifact) -> bool:
        """Whether the artifact is an explicit Q/DQ network, the only one that can be edited."""
        return artifact.format == "onnx" and artifact.precision.startswith("int8")

    def refuse_names(self, artifact: Artifact, precision: str) -> None:
        """Raises TargetError (USAGE) where layers are named of what has no Q/DQ pairs."""
        if self._names and not self.applies(artifact):
            kind = "quantised already" if artifact.precision == "int8" else "in floating point"
            raise TargetError(
                f"--keep-layers: {precision} is compiled from {artifact.files[0]}, a network that "
                f"is {kind}; layers can be kept only of ONNX with Q/DQ pairs",
                ExitCode.USAGE,
            )

    def first(self, artifact: Artifact) -> tuple[str, ...]:
        """The layers that are kept before the gate has said anything."""
        if self.wanted == "none" or not self.applies(artifact):
            return ()
        network = self._network(artifact)
        check_names(network, self._names, artifact.files[0])
        heads = [name for name in network.heads() if name not in self._names]
        together = (*self._names, *heads)
        return together if 2 * len(together) <= len(network.layers()) else tuple(self._names)

    def more(
        self, artifact: Artifact, kept: tuple[str, ...], attempt: int
    ) -> tuple[str, ...] | None:
        """After refusal number ``attempt`` (0, 1, …): the layers to keep next; None: give up."""
        if self.wanted != "auto" or attempt >= TRIES or not self.applies(artifact):
            return None
        ranked = self.sensitive(artifact)
        chosen = [name for name in sensitivity.choose(ranked, attempt) if name not in kept]
        return (*kept, *chosen) if chosen else None

    def sensitive(self, artifact: Artifact) -> dict[str, float]:
        """Layer -> error, the worst first; empty where nothing can be said."""
        if self.wanted == "none" or not self.applies(artifact):
            return {}
        file = artifact.files[0]
        if file not in self._ranked:
            _, plain = portable_fp32(self._manifest, self._folder)
            feeds = sensitivity.drawn(self._manifest, plain)
            quantised = Network(self._edited(artifact, self.first(artifact)))
            self._ranked[file] = sensitivity.errors(quantised, self._plain(), feeds, self._progress)
        return self._ranked[file]

    def explained(self, artifact: Artifact) -> str:
        """The end of a refusal's message: the worst layers, or why there are none to be named."""
        if artifact.format != "onnx" and artifact.precision == "int8":
            return f"; no layer of {artifact.files[0]} can be kept: it is quantised already"
        ranked = self.sensitive(artifact)
        worst = [f"{name} ({error:.3f})" for name, error in list(ranked.items())[:_LISTED]]
        more = len(ranked) - len(worst)
        listed = ", ".join(worst) + (f" and {more} more" if more > 0 else "")
        return f"; sensitive layers: {listed}" if listed else ""

    def source(self, artifact: Artifact, kept: tuple[str, ...], work: Path) -> Path:
        """The network to compile: the bundle's own file, or an edited copy in ``work``."""
        if not kept:
            return self._folder / artifact.files[0]
        path = work / artifact.files[0]
        onnx.save(self._edited(artifact, kept), path)
        return path

    def _edited(self, artifact: Artifact, kept: tuple[str, ...]) -> onnx.ModelProto:
        network = self._network(artifact)
        return keep(network.model, self._plain(), kept) if kept else network.model

    def _network(self, artifact: Artifact) -> Network:
        return Network.read(self._folder / artifact.files[0])

    def _plain(self) -> Network:
        _, plain = portable_fp32(self._manifest, self._folder)
        return Network.read(self._folder / plain.files[0])
