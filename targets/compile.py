# SPDX-License-Identifier: Apache-2.0
"""Portable bundle + recipe -> compiled bundle, through the gate, into the cache.

``--precision auto`` builds every precision that the bundle has an artifact for and this machine
runs, times them in turns, and takes the fastest that passes the gate. Nothing is replaced unless it
has passed.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from posewire.bundle import check_onnx, read_manifest, verify_bundle, write_bundle
from posewire.engine_core import core as engine_core
from posewire.errors import ExitCode
from posewire.manifest import Artifact, Manifest

from . import cache
from .errors import TargetError
from .gate import Gate, Progress, Verdict
from .recipe import Recipe, load_recipe

# runtime -> the file of this folder that compiles for it, imported when needed. Each has ARTIFACTS,
# version(), driver(), device(), missing(precision) and build(...) as openvino.py defines them.
COMPILERS = {"openvino": "openvino"}

_BENCH_SECONDS = 0.4
_BENCH_ROUNDS = 3


@dataclass(frozen=True)
class CompiledResult:
    """What compile_bundle made or found.

    path       the compiled bundle's directory
    precision  what it runs in
    gate       the gate's verdict; None for fp32 where there were no pictures to judge by
    cached     whether it was there already
    fps        inference alone per precision, pictures per second, where auto had to choose
    rejected   precisions that auto passed over, and why
    """

    path: Path
    precision: str
    gate: Verdict | None
    cached: bool
    fps: dict[str, float] = field(default_factory=dict)
    rejected: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Job:
    """Everything one compilation depends on."""

    folder: Path
    manifest: Manifest
    recipe: Recipe
    compiler: Any
    max_batch: int
    gate: Gate
    judged_by: str
    progress: Progress

    def key(self, precision: str) -> str:
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
                "version": self.compiler.version(),
                "driver": self.compiler.driver(),
                "device": self.compiler.device(),
                "precision": precision,
                "max_batch": self.max_batch,
                "recipe": self.recipe.sha256,
                "gate": self.judged_by,
            }
        )


def compile_bundle(
    bundle_dir: str | Path,
    target: str = "x86-cpu",
    precision: str = "auto",
    *,
    out: Path | None = None,
    labels: Path | None = None,
    images: Path | None = None,
    max_batch: int = 0,
    use_cache: bool = True,
    progress: Progress | None = None,
) -> CompiledResult:
    """Compiles a portable bundle for a target of this machine.

    ``precision`` is one of the recipe's or "auto"; ``labels`` and ``images`` choose the gate (see
    gate.py); ``max_batch`` 0 is the recipe's. The result lies in the cache, and in ``out`` where
    that is given (a compiled bundle there is replaced in one step). ``use_cache`` False compiles
    again. ``progress(phase, done, total)`` is called as work goes on, total 0 where it is unknown.

    Raises BundleError, TargetError: NO where the gate says no, UNAVAILABLE where this machine
    cannot run it, USAGE for unknown names.
    """
    say: Progress = progress if progress is not None else lambda phase, done, total: None
    folder = Path(bundle_dir)
    recipe = load_recipe(target)
    if precision != "auto" and precision not in recipe.precisions:
        raise TargetError(
            f"{target} has no precision {precision!r}; known are auto, "
            f"{', '.join(recipe.precisions)}",
            ExitCode.USAGE,
        )
    say("verify", 0, 0)
    manifest = verify_bundle(folder)
    if manifest.target is not None:
        raise TargetError(
            f"{folder}: is compiled already, for {manifest.target.name}; compile the portable one",
            ExitCode.BUNDLE,
        )
    _refuse_out(out, folder)
    gate = Gate(folder, manifest, recipe, labels=labels, images=images, progress=say)
    job = _Job(
        folder=folder,
        manifest=manifest,
        recipe=recipe,
        compiler=import_module(f".{COMPILERS[recipe.runtime]}", __package__),
        max_batch=max_batch or recipe.max_batch,
        gate=gate,
        judged_by=_judged_by(labels, images, gate),
        progress=say,
    )
    result = _cached_or_made(job, precision, use_cache)
    if out is None:
        return result
    made = read_manifest(result.path)
    raw = {name: value for name, value in made.raw.items() if name != "files"}
    write_bundle(out, raw, {name: result.path / name for name in made.files}, replace=True)
    return CompiledResult(**{**_fields(result), "path": out})


def _fields(result: CompiledResult) -> dict[str, Any]:
    return {name: getattr(result, name) for name in CompiledResult.__dataclass_fields__}


def _refuse_out(out: Path | None, folder: Path) -> None:
    """Before the work, not after it: what may not be replaced."""
    if out is None or not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if out.resolve() == folder.resolve():
        raise TargetError(f"{out}: is the portable bundle itself", ExitCode.CANNOT_WRITE)
    if not (out / "manifest.json").is_file() or read_manifest(out).target is None:
        raise TargetError(f"{out}: is in the way and no compiled bundle", ExitCode.CANNOT_WRITE)


def _judged_by(labels: Path | None, images: Path | None, gate: Gate) -> str:
    """Names the gate's data for the cache's key; the bundle's own pictures are in its manifest."""
    if images is None:
        return ""
    digest = hashlib.sha256(labels.read_bytes() if labels is not None else b"")
    for path in gate.pictures:
        status = path.stat()
        digest.update(f"{path.resolve()}\0{status.st_size}\0{status.st_mtime_ns}\0".encode())
    return digest.hexdigest()


def _cached_or_made(job: _Job, precision: str, use_cache: bool) -> CompiledResult:
    entry = cache.folder() / job.key(precision)

    def damaged(why: str) -> None:
        job.progress(f"damaged cache entry is made again ({why})", 0, 0)

    with cache.locked(entry, lambda: job.progress("waiting for another compiler", 0, 0)):
        found = cache.find(entry, job.manifest.sha256, damaged) if use_cache else None
        if found is not None and found.target is not None:
            verdict = Verdict(**asdict(found.gate)) if found.gate is not None else None
            return CompiledResult(entry, found.target.precision, verdict, cached=True)
        job.progress("check", 0, 0)
        check_onnx(job.manifest, job.folder)
        with tempfile.TemporaryDirectory(prefix=".build-", dir=entry.parent) as work:
            made = _make(job, precision, Path(work))
            _store(made.path, entry, made.gate)
    return CompiledResult(**{**_fields(made), "path": entry})


def _store(made: Path, entry: Path, verdict: Verdict | None) -> None:
    """The judged bundle, with its verdict, under its key. A damaged entry is in nobody's way."""
    manifest = read_manifest(made)
    raw = {name: value for name, value in manifest.raw.items() if name != "files"}
    raw["gate"] = None if verdict is None else asdict(verdict)
    if entry.exists() and not (entry / "manifest.json").is_file():
        shutil.rmtree(entry)
    write_bundle(entry, raw, {name: made / name for name in manifest.files}, replace=True)
    os.chmod(entry, 0o700)


def _make(job: _Job, precision: str, work: Path) -> CompiledResult:
    if precision != "auto":
        why = _why_not(job, precision)
        if why is not None:
            raise why
        made = _build(job, precision, work)
        return CompiledResult(made, precision, _judge(job, made, precision), cached=False)
    return _fastest(job, work)


def _why_not(job: _Job, precision: str) -> TargetError | None:
    """The error that asking for this precision would be; None where it can be built and judged."""
    wanted = job.compiler.ARTIFACTS[precision]
    if not any(a.format == "onnx" and a.precision == wanted for a in job.manifest.artifacts):
        return TargetError(
            f"{job.folder}: has no {wanted} ONNX artifact, which {precision} is compiled from",
            ExitCode.BUNDLE,
        )
    missing = job.compiler.missing(precision)
    if missing is not None:
        return TargetError(f"{precision}: {missing}", ExitCode.UNAVAILABLE)
    if precision != "fp32" and not job.gate.pictures:
        return TargetError(
            f"{job.folder}: holds no selftest pictures, so {precision} cannot be judged; give "
            "--images, or --labels and --images",
            ExitCode.USAGE,
        )
    return None


def _artifact(job: _Job, precision: str) -> Artifact:
    wanted = job.compiler.ARTIFACTS[precision]
    return next(a for a in job.manifest.artifacts if a.format == "onnx" and a.precision == wanted)


def _build(job: _Job, precision: str, work: Path) -> Path:
    """A compiled bundle without a verdict."""
    job.progress(f"compile {precision}", 0, 0)
    artifact = _artifact(job, precision)
    with _folder(work / f"{precision}-files") as files:
        built, entry = job.compiler.build(
            job.folder / artifact.files[0], job.manifest, artifact, precision, files
        )
        raw = {name: value for name, value in job.manifest.raw.items() if name != "files"}
        raw["artifacts"] = [entry]
        raw["target"] = {
            "name": job.recipe.name,
            "runtime": job.recipe.runtime,
            "runtime_version": job.compiler.version(),
            "device": job.compiler.device(),
            "precision": precision,
            "max_batch": job.max_batch,
        }
        raw["gate"] = None
        raw["derived_from"] = {
            "name": job.manifest.name,
            "version": job.manifest.version,
            "sha256": job.manifest.sha256,
        }
        write_bundle(work / precision, raw, built)
    return work / precision


@contextmanager
def _folder(path: Path) -> Iterator[Path]:
    path.mkdir()
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def _judge(job: _Job, made: Path, precision: str) -> Verdict | None:
    """Raises TargetError (NO) over the limit."""
    if not job.gate.pictures:
        job.progress("no pictures: fp32 is taken without a gate", 0, 0)
        return None
    verdict = job.gate.judge(made, precision)
    if not verdict.passed:
        what = "AP drops by" if verdict.kind == "ap" else "poses disagree by"
        raise TargetError(
            f"{job.folder}: gate: {precision}: {what} {verdict.value:.3f}, the limit is "
            f"{verdict.limit} ({verdict.pictures} pictures)",
            ExitCode.NO,
        )
    return verdict


def _fastest(job: _Job, work: Path) -> CompiledResult:
    """Every precision built, timed in turns, judged from the fastest down."""
    rejected: dict[str, str] = {}
    made: dict[str, Path] = {}
    for precision in job.recipe.precisions:
        why = _why_not(job, precision)
        if why is None:
            made[precision] = _build(job, precision, work)
        elif precision == "fp32":
            raise why
        else:
            rejected[precision] = str(why)
    fps = _timed(job, made) if len(made) > 1 else {}
    for precision in sorted(made, key=lambda p: -fps.get(p, 0.0)):
        try:
            verdict = _judge(job, made[precision], precision)
        except TargetError as error:
            if error.code != ExitCode.NO or precision == "fp32":
                raise
            rejected[precision] = str(error)
            continue
        return CompiledResult(
            made[precision], precision, verdict, cached=False, fps=fps, rejected=rejected
        )
    raise TargetError(f"{job.folder}: no precision passes the gate", ExitCode.NO)


def _timed(job: _Job, made: dict[str, Path]) -> dict[str, float]:
    """Inference alone. The precisions take turns, so that a busy moment hits them alike; the best
    window of each counts."""
    best = dict.fromkeys(made, 0.0)
    pictures = [engine_core().read_picture(str(path)) for path in job.gate.pictures[:4]]
    for turn in range(_BENCH_ROUNDS):
        for precision, folder in made.items():
            job.progress("time " + precision, turn, _BENCH_ROUNDS)
            run = engine_core().bench_inference(str(folder), _BENCH_SECONDS, 0, 0, pictures)
            best[precision] = max(best[precision], float(run["fps"]))
    return best
