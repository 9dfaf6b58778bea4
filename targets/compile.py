# SPDX-License-Identifier: Apache-2.0
"""Portable bundle + recipe -> compiled bundle, through the gate, into the cache.

``--precision auto`` builds every precision that the bundle has an artifact for and this machine
runs, times them in turns, and takes the fastest that passes the gate. Nothing is replaced unless it
has passed. Where this machine can build for the target and cannot run the result, the gate is
`pending`: auto then takes the recipe's first precision that can be built, and compiling the same
bundle again on a machine that runs it judges what was built.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from posewire.bundle import check_onnx, read_manifest, verify_bundle, write_bundle
from posewire.engine_core import core as engine_core
from posewire.errors import ExitCode
from posewire.manifest import Manifest

from . import attempts, cache
from .compiler import compiler_of, with_options
from .errors import RefusedError, TargetError
from .gate import Gate, Progress, Verdict
from .job import Job
from .keeping import Keeping
from .recipe import Recipe, load_recipe

_BENCH_SECONDS = 0.4
_BENCH_ROUNDS = 3


@dataclass(frozen=True)
class CompiledResult:
    """What compile_bundle made or found.

    path       the compiled bundle's directory
    precision  what it runs in
    gate       the gate's verdict; None for fp32 where there were no pictures to judge by
    pending    why the gate could not run here; None where it did
    cached     whether it was there already
    fps        inference alone per precision, pictures per second, where auto had to choose
    rejected   precisions that auto passed over, and why
    kept       layers of a quantised network that stayed in floating point
    """

    path: Path
    precision: str
    gate: Verdict | None
    cached: bool
    pending: str | None = None
    fps: dict[str, float] = field(default_factory=dict)
    rejected: dict[str, str] = field(default_factory=dict)
    kept: tuple[str, ...] = ()


def compile_bundle(
    bundle_dir: str | Path,
    target: str = "x86-cpu",
    precision: str = "auto",
    *,
    out: Path | None = None,
    labels: Path | None = None,
    images: Path | None = None,
    max_batch: int = 0,
    keep_layers: str = "auto",
    options: Mapping[str, object] | None = None,
    use_cache: bool = True,
    progress: Progress | None = None,
) -> CompiledResult:
    """Compiles a portable bundle for a target.

    ``precision`` is one of the recipe's or "auto"; ``labels`` and ``images`` choose the gate (see
    gate.py); ``max_batch`` 0 is the recipe's; ``keep_layers`` says which layers of a Q/DQ network
    stay in floating point (see keeping.py); ``options`` add to the runtime's options. The result
    lies in the cache, and in ``out`` where that is given (a compiled bundle there is replaced in
    one step). ``use_cache`` False compiles again. ``progress(phase, done, total)`` is called as
    work goes on, total 0 where it is unknown.

    Raises BundleError, TargetError: NO where the gate says no, UNAVAILABLE where this machine
    cannot build it, USAGE for unknown names, CONFIG for a recipe that is wrong.
    """
    say: Progress = progress if progress is not None else lambda phase, done, total: None
    folder = Path(bundle_dir)
    recipe = with_options(load_recipe(target), options or {})
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
    _refuse_calibration(gate, recipe)
    job = Job(
        folder=folder,
        manifest=manifest,
        recipe=recipe,
        compiler=compiler_of(recipe),
        max_batch=max_batch or recipe.max_batch,
        gate=gate,
        judged_by=_judged_by(labels, images, gate),
        keeping=Keeping(folder, manifest, keep_layers, say),
        progress=say,
    )
    result = _cached_or_made(job, precision, use_cache)
    if out is None:
        return result
    made = read_manifest(result.path)
    raw = {name: value for name, value in made.raw.items() if name != "files"}
    write_bundle(out, raw, {name: result.path / name for name in made.files}, replace=True)
    return replace(result, path=out)


def _refuse_out(out: Path | None, folder: Path) -> None:
    """Before the work, not after it: what may not be replaced."""
    if out is None or not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if out.resolve() == folder.resolve():
        raise TargetError(f"{out}: is the portable bundle itself", ExitCode.CANNOT_WRITE)
    if not (out / "manifest.json").is_file() or read_manifest(out).target is None:
        raise TargetError(f"{out}: is in the way and no compiled bundle", ExitCode.CANNOT_WRITE)


def _refuse_calibration(gate: Gate, recipe: Recipe) -> None:
    """What calibrates must not judge."""
    folder = recipe.options.get("calibration")
    if folder is None:
        return
    for path in gate.pictures:
        if path.resolve().parent == Path(str(folder)).resolve():
            raise TargetError(
                f"{path}: is a calibration picture and cannot be the gate's, too", ExitCode.USAGE
            )


def _judged_by(labels: Path | None, images: Path | None, gate: Gate) -> str:
    """Names the gate's data for the cache's key; the bundle's own pictures are in its manifest."""
    if images is None:
        return ""
    digest = hashlib.sha256(labels.read_bytes() if labels is not None else b"")
    for path in gate.pictures:
        status = path.stat()
        digest.update(f"{path.resolve()}\0{status.st_size}\0{status.st_mtime_ns}\0".encode())
    return digest.hexdigest()


def _cached_or_made(job: Job, precision: str, use_cache: bool) -> CompiledResult:
    entry = cache.folder() / job.key(precision)

    if not use_cache:
        for one in job.recipe.precisions:
            attempts.forget(job.key(one))

    def damaged(why: str) -> None:
        job.progress(f"damaged cache entry is made again ({why})", 0, 0)

    with cache.locked(entry, lambda: job.progress("waiting for another compiler", 0, 0)):
        found = cache.find(entry, job.manifest.sha256, damaged) if use_cache else None
        if found is not None and found.target is not None and not _untimed(job, precision, found):
            return _taken(job, entry, found.target.precision, found)
        job.progress("check", 0, 0)
        check_onnx(job.manifest, job.folder)
        with tempfile.TemporaryDirectory(prefix=".build-", dir=entry.parent) as work:
            made = _make(job, precision, Path(work))
            _store(made.path, entry, made.gate)
    return replace(made, path=entry, pending=job.cannot_run)


def _untimed(job: Job, precision: str, found: Manifest) -> bool:
    """Whether auto chose blindly what it can choose by the clock now."""
    pending = found.gate is not None and found.gate.kind == "pending"
    return precision == "auto" and pending and job.cannot_run is None


def _taken(job: Job, entry: Path, precision: str, found: Manifest) -> CompiledResult:
    """What lies in the cache; judged now if nobody could when it was made."""
    verdict = Verdict(**asdict(found.gate)) if found.gate is not None else None
    if verdict is not None and verdict.kind == "pending" and job.cannot_run is None:
        verdict = job.judge(entry, precision)
        _store(entry, entry, verdict)
    pending = job.cannot_run if verdict is not None and verdict.kind == "pending" else None
    kept = found.target.kept_layers if found.target is not None else ()
    return CompiledResult(entry, precision, verdict, cached=True, pending=pending, kept=kept)


def _store(made: Path, entry: Path, verdict: Verdict | None) -> None:
    """The judged bundle, with its verdict, under its key. A damaged entry is in nobody's way."""
    manifest = read_manifest(made)
    raw = {name: value for name, value in manifest.raw.items() if name != "files"}
    raw["gate"] = None if verdict is None else verdict.as_json()
    if entry.exists() and not (entry / "manifest.json").is_file():
        shutil.rmtree(entry)
    write_bundle(entry, raw, {name: made / name for name in manifest.files}, replace=True)
    os.chmod(entry, 0o700)


def _make(job: Job, precision: str, work: Path) -> CompiledResult:
    if precision == "auto":
        return _first(job, work) if job.cannot_run is not None else _fastest(job, work)
    why = job.why_not(precision)
    if why is not None:
        raise why
    job.keeping.refuse_names(job.source(precision), precision)
    kept = job.keeping.first(job.source(precision))
    for attempt in itertools.count():
        made = job.build(precision, work, kept)
        try:
            verdict = job.judge(made, precision)
            break
        except RefusedError as refusal:
            kept = job.more_kept(precision, kept, attempt, refusal)
    return CompiledResult(made, precision, verdict, cached=False, kept=kept)


def _first(job: Job, work: Path) -> CompiledResult:
    """Where nothing can be run, nothing can be timed: the recipe's order decides."""
    rejected: dict[str, str] = {}
    for precision in job.recipe.precisions:
        why = job.why_not(precision)
        if why is not None:
            rejected[precision] = str(why)
            continue
        job.progress(f"auto: {precision} is taken unmeasured: {job.cannot_run}", 0, 0)
        kept = job.keeping.first(job.source(precision))
        made = job.build(precision, work, kept)
        verdict = job.judge(made, precision)
        return CompiledResult(made, precision, verdict, False, rejected=rejected, kept=kept)
    raise _none_built(job, rejected)


def _none_built(job: Job, rejected: dict[str, str]) -> TargetError:
    reasons = "; ".join(rejected.values())
    return TargetError(f"{job.folder}: nothing can be built for {job.recipe.name}: {reasons}")


@dataclass
class _Candidate:
    """A precision that auto may choose: what was built of it, and its tries at the gate."""

    path: Path
    kept: tuple[str, ...]
    refusals: int = 0


def _fastest(job: Job, work: Path) -> CompiledResult:
    """Every precision built, timed in turns, judged from the fastest down. One that is refused and
    can keep more layers in floating point is built and timed again."""
    made, rejected = _built(job, work)
    fps = _timed(job, made) if len(made) > 1 else {}
    last = ""
    while made:
        precision = max(made, key=lambda name: fps.get(name, 0.0))
        one = made[precision]
        try:
            verdict = job.judge(one.path, precision)
            rejected.pop(precision, None)
            return CompiledResult(
                one.path, precision, verdict, False, None, fps, rejected, one.kept
            )
        except RefusedError as refusal:
            try:
                one.kept = job.more_kept(precision, one.kept, one.refusals, refusal)
            except RefusedError as final:
                if precision == "fp32":
                    raise
                rejected[precision] = last = str(final)
                del made[precision]
                continue
            one.refusals += 1
            one.path = job.build(precision, work, one.kept)
            fps = {**fps, **(_timed(job, made) if len(made) > 1 else {})}
        except TargetError as error:  # the pictures say nothing
            if error.code != ExitCode.NO or precision == "fp32":
                raise
            rejected[precision] = last = str(error)
            del made[precision]
    raise TargetError(f"{job.folder}: no precision passes the gate: {last}", ExitCode.NO)


def _built(job: Job, work: Path) -> tuple[dict[str, _Candidate], dict[str, str]]:
    """What can be built, and why the rest cannot. Raises where that is fp32 or everything."""
    rejected: dict[str, str] = {}
    made: dict[str, _Candidate] = {}
    for precision in job.recipe.precisions:
        why = job.why_not(precision)
        if why is None:
            kept = job.keeping.first(job.source(precision))
            made[precision] = _Candidate(job.build(precision, work, kept), kept)
        elif precision == "fp32":
            raise why
        else:
            rejected[precision] = str(why)
    if not made:
        raise _none_built(job, rejected)
    return made, rejected


def _timed(job: Job, made: dict[str, _Candidate]) -> dict[str, float]:
    """Inference alone. The precisions take turns, so that a busy moment hits them alike; the best
    window of each counts."""
    best = dict.fromkeys(made, 0.0)
    pictures = [engine_core().read_picture(str(path)) for path in job.gate.pictures[:4]]
    for turn in range(_BENCH_ROUNDS):
        for precision, one in made.items():
            job.progress("time " + precision, turn, _BENCH_ROUNDS)
            run = engine_core().bench_inference(str(one.path), _BENCH_SECONDS, 0, 0, pictures)
            best[precision] = max(best[precision], float(run["fps"]))
    return best
