# SPDX-License-Identifier: Apache-2.0
"""One compilation: what it depends on, and its steps (may it be built, build, judge)."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from posewire.bundle import write_bundle
from posewire.errors import ExitCode
from posewire.manifest import Artifact, Manifest

from . import attempts, cache
from .compiler import Compiler, source_of
from .errors import RefusedError, TargetError
from .gate import Gate, Progress, Verdict
from .keeping import Keeping
from .recipe import Recipe


@dataclass(frozen=True)
class Job:
    """Everything one compilation depends on."""

    folder: Path
    manifest: Manifest
    recipe: Recipe
    compiler: Compiler
    max_batch: int
    gate: Gate
    judged_by: str
    keeping: Keeping
    progress: Progress

    @cached_property
    def cannot_run(self) -> str | None:
        """Why this machine cannot run the result, so that its gate is pending."""
        return self.compiler.runs_here(self.recipe)

    def key(self, precision: str) -> str:
        """The name of the result in the cache."""
        artifacts = {
            name: entry.sha256
            for name, entry in self.manifest.files.items()
            if any(name in artifact.files for artifact in self.manifest.artifacts)
        }
        return cache.key(
            {
                "manifest": self.manifest.sha256,
                "artifacts": artifacts,
                "runtime": self.recipe.runtime,
                "version": self.compiler.version(self.recipe),
                "driver": self.compiler.driver(self.recipe),
                "device": self.compiler.device(self.recipe),
                "precision": precision,
                "max_batch": self.max_batch,
                "recipe": self.recipe.sha256,
                "gate": self.judged_by,
                "keep": self.keeping.wanted,
            }
        )

    def has_source(self, precision: str) -> bool:
        """Whether the bundle has the artifact that a precision is compiled from."""
        wanted = source_of(self.compiler, precision, self.recipe)
        return any((a.format, a.precision) == wanted for a in self.manifest.artifacts)

    def source(self, precision: str) -> Artifact:
        """That artifact; has_source() was asked before."""
        wanted = source_of(self.compiler, precision, self.recipe)
        return next(a for a in self.manifest.artifacts if (a.format, a.precision) == wanted)

    def why_not(self, precision: str) -> TargetError | None:
        """The error that asking for this precision would be; None where it can be built, and
        judged if it runs here."""
        if not self.has_source(precision):
            form, kind = source_of(self.compiler, precision, self.recipe)
            return TargetError(
                f"{self.folder}: has no {kind} {_SHOWN.get(form, form)} artifact, which "
                f"{precision} is compiled from",
                ExitCode.BUNDLE,
            )
        missing = self.compiler.missing(precision, self.recipe)
        if missing is not None:
            return TargetError(f"{precision}: {missing}", ExitCode.UNAVAILABLE)
        if attempts.left_behind(self.key(precision)) >= attempts.LIMIT:
            return TargetError(
                f"{precision}: building it was tried {attempts.LIMIT} times and never ended (it "
                "crashed or was killed); posewire compile --no-cache tries again",
                ExitCode.UNAVAILABLE,
            )
        if precision != "fp32" and not self.gate.pictures and self.cannot_run is None:
            return TargetError(
                f"{self.folder}: holds no selftest pictures, so {precision} cannot be judged; give "
                "--images, or --labels and --images",
                ExitCode.USAGE,
            )
        return None

    def build(self, precision: str, work: Path, kept: tuple[str, ...] = ()) -> Path:
        """A compiled bundle without a verdict, in a new folder below ``work``; the layers ``kept``
        of a Q/DQ network are in floating point."""
        self.progress(f"compile {precision}" + (f", {len(kept)} layers kept" if kept else ""), 0, 0)
        artifact = self.source(precision)
        folder = Path(tempfile.mkdtemp(prefix=f"{precision}-", dir=work))
        files = folder / "files"
        files.mkdir()
        source = self.keeping.source(artifact, kept, folder)
        with attempts.counted(self.key(precision)):
            built, entry = self.compiler.build(
                source,
                self.manifest,
                artifact,
                precision,
                files,
                self.recipe,
                self.max_batch,
            )
        raw = {name: value for name, value in self.manifest.raw.items() if name != "files"}
        raw["artifacts"] = [entry]
        raw["target"] = {
            "name": self.recipe.name,
            "runtime": self.recipe.runtime,
            "runtime_version": self.compiler.version(self.recipe),
            "device": self.compiler.device(self.recipe),
            "precision": precision,
            "max_batch": self.max_batch,
            **({"kept_layers": list(kept)} if kept else {}),
        }
        raw["gate"] = None
        raw["derived_from"] = {
            "name": self.manifest.name,
            "version": self.manifest.version,
            "sha256": self.manifest.sha256,
        }
        write_bundle(folder / "bundle", raw, built)
        return folder / "bundle"

    def judge(self, made: Path, precision: str) -> Verdict | None:
        """The gate's verdict; None for fp32 without pictures. Raises RefusedError over the limit,
        TargetError (NO) where the pictures say nothing."""
        if self.cannot_run is not None:
            return self.gate.pending()
        if not self.gate.pictures:
            self.progress("no pictures: fp32 is taken without a gate", 0, 0)
            return None
        verdict = self.gate.judge(made, precision)
        if not verdict.passed:
            what = "AP drops by" if verdict.kind == "ap" else "poses disagree by"
            raise RefusedError(
                f"{self.folder}: gate: {precision}: {what} {verdict.value:.3f}, the limit is "
                f"{verdict.limit} ({verdict.pictures} pictures)"
            )
        return verdict

    def more_kept(
        self, precision: str, kept: tuple[str, ...], attempt: int, refusal: RefusedError
    ) -> tuple[str, ...]:
        """The layers to keep in floating point after refusal number ``attempt`` (0, 1, …); says
        them. Raises the refusal, with the sensitive layers, where nothing is left to try."""
        artifact = self.source(precision)
        more = self.keeping.more(artifact, kept, attempt)
        if more is None:
            raise RefusedError(f"{refusal}{self.keeping.explained(artifact)}") from refusal
        new = ", ".join(name for name in more if name not in kept)
        self.progress(f"{refusal}; tried again with {new} in floating point", 0, 0)
        return more


_SHOWN = {"onnx": "ONNX", "tflite": "TFLite", "uff": "UFF"}
