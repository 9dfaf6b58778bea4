# SPDX-License-Identifier: Apache-2.0
"""A compiled bundle without the gate: to measure what a precision costs that the gate refuses."""

from __future__ import annotations

from pathlib import Path

from posewire.bundle import verify_bundle
from posewire.errors import ExitCode

from .compiler import compiler_of
from .errors import TargetError
from .gate import Gate, Progress
from .job import Job
from .keeping import Keeping
from .recipe import load_recipe


def build_unjudged(
    bundle_dir: str | Path,
    target: str,
    precision: str,
    folder: Path,
    *,
    progress: Progress | None = None,
) -> Path:
    """Compiles one precision into ``folder``, an empty one, and returns the compiled bundle there.

    Its gate is null, and it never enters the cache: what a device runs goes through compile_bundle.
    Raises BundleError and TargetError as compile_bundle does, but NO.
    """
    say: Progress = progress if progress is not None else lambda phase, done, total: None
    portable = Path(bundle_dir)
    recipe = load_recipe(target)
    if precision not in recipe.precisions:
        raise TargetError(
            f"{target} has no precision {precision!r}; known are {', '.join(recipe.precisions)}",
            ExitCode.USAGE,
        )
    manifest = verify_bundle(portable)
    job = Job(
        folder=portable,
        manifest=manifest,
        recipe=recipe,
        compiler=compiler_of(recipe),
        max_batch=recipe.max_batch,
        gate=Gate(portable, manifest, recipe, labels=None, images=None, progress=say),
        judged_by="",
        keeping=Keeping(portable, manifest, "auto", say),
        progress=say,
    )
    why = job.why_not(precision)
    if why is not None:
        raise why
    return job.build(precision, folder, job.keeping.first(job.source(precision)))
