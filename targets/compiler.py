# SPDX-License-Identifier: Apache-2.0
"""What a compiler file of this folder must have, and the table of them.

A compiler is a module named as its runtime. Its functions take the recipe, because one runtime
serves several targets::

    ARTIFACTS       precision -> (format, precision) of the portable artifact it is compiled from
    OPTIONS         the keys of a recipe's [target.options] that it reads -> their type (or types)
    version(recipe) the runtime's version, which stands in target.runtime_version
    driver(recipe)  what the result depends on besides ("" for a CPU); only in the cache's key
    device(recipe)  what it is compiled for, which stands in target.device
    missing(precision, recipe)
                    why this machine cannot build that precision (one line); None where it can
    runs_here(recipe)
                    why this machine cannot run the result (one line): the gate is then `pending`;
                    None where it can
    build(source, manifest, artifact, precision, folder, recipe, max_batch)
                    compiles one artifact into files of ``folder``; returns them by their names in
                    the bundle, and the artifact's manifest entry. Raises TargetError (BUNDLE)
                    where the runtime refuses the network
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, cast

from posewire.errors import ExitCode
from posewire.manifest import Artifact, Manifest

from .errors import TargetError
from .recipe import Recipe

# runtime -> the file of this folder that compiles for it, imported when needed
COMPILERS = {
    "openvino": "openvino",
    "tensorrt": "tensorrt",
    "tensorrt_rtx": "tensorrt_rtx",
    "tflite": "tflite",
}


class Compiler(Protocol):
    """The module's names, for the type checker."""

    ARTIFACTS: Mapping[str, tuple[str, str]]
    OPTIONS: Mapping[str, type | tuple[type, ...]]

    def version(self, recipe: Recipe) -> str: ...
    def driver(self, recipe: Recipe) -> str: ...
    def device(self, recipe: Recipe) -> str: ...
    def missing(self, precision: str, recipe: Recipe) -> str | None: ...
    def runs_here(self, recipe: Recipe) -> str | None: ...
    def build(
        self,
        source: Path,
        manifest: Manifest,
        artifact: Artifact,
        precision: str,
        folder: Path,
        recipe: Recipe,
        max_batch: int,
    ) -> tuple[dict[str, Path], dict[str, Any]]: ...


def with_options(recipe: Recipe, options: Mapping[str, object]) -> Recipe:
    """The recipe with a caller's own options. Raises TargetError (USAGE) for one that its runtime
    does not read."""
    if not options:
        return recipe
    known = compiler_of(recipe).OPTIONS
    for key in options:
        if key not in known:
            raise TargetError(
                f"{recipe.name}: {recipe.runtime} has no option {key}", ExitCode.USAGE
            )
    return replace(recipe, options={**recipe.options, **options})


def source_of(compiler: Compiler, precision: str, recipe: Recipe) -> tuple[str, str]:
    """(format, precision) of the portable artifact that a precision is compiled from: the
    compiler's row, but for int8 that the runtime itself calibrates, which starts from fp32."""
    form, kind = compiler.ARTIFACTS[precision]
    calibrated = precision == "int8" and recipe.options.get("int8") == "calibrate"
    return (form, "fp32") if calibrated else (form, kind)


def compiler_of(recipe: Recipe) -> Compiler:
    """The recipe's compiler, with the recipe's names checked against it.

    Raises TargetError (CONFIG) naming the recipe's key: an unknown runtime, a precision that the
    runtime is not compiled for, an option that it does not read or of another type.
    """
    if recipe.runtime not in COMPILERS:
        raise TargetError(
            f"{recipe.where}.runtime: no compiler for {recipe.runtime!r}; known are "
            f"{', '.join(COMPILERS)}",
            ExitCode.CONFIG,
        )
    found = cast(Compiler, import_module(f".{COMPILERS[recipe.runtime]}", __package__))
    for precision in recipe.precisions:
        if precision not in found.ARTIFACTS:
            raise TargetError(
                f"{recipe.where}.precisions: {recipe.runtime} is not compiled for {precision}; "
                f"known are {', '.join(found.ARTIFACTS)}",
                ExitCode.CONFIG,
            )
    for key, value in recipe.options.items():
        if key not in found.OPTIONS:
            known = ", ".join(found.OPTIONS) or "none"
            raise TargetError(
                f"{recipe.where}.options.{key}: unknown key; {recipe.runtime} reads {known}",
                ExitCode.CONFIG,
            )
        types = found.OPTIONS[key]
        types = types if isinstance(types, tuple) else (types,)
        # In Python a bool is an int; in a recipe it is not.
        if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
            raise TargetError(
                f"{recipe.where}.options.{key}: must be {' or '.join(t.__name__ for t in types)}",
                ExitCode.CONFIG,
            )
    return found
