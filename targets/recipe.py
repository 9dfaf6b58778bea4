# SPDX-License-Identifier: Apache-2.0
"""Recipes: what a target is, as data. ``targets/<folder>/recipe.toml`` holds one table a target::

    [x86-cpu]                          the target's name
    runtime = "openvino"               the compiler file in this folder, and the engine's runtime
    precisions = ["fp32", "bf16"]      what may be asked for; "auto" times all of them, or takes
                                       the first that can be built where nothing can be run
    max_batch = 1                      pictures per inference at most
    max_ap_drop = 0.01                 limit of the gate with labels
    max_disagreement = 0.05            limit of the gate without

    [x86-cpu.options]                  optional: the runtime's own keys, listed and checked by its
    machines = ["x86_64"]              compiler file

The folders are the list: a new target is a new table, and no line of code.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from posewire.errors import ExitCode
from posewire.manifest import PRECISIONS

from .errors import TargetError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_FOLDER = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Recipe:
    """One target. Limits in AP and in 1 - OKS-AP; ``where`` names file and table in messages."""

    name: str
    runtime: str
    precisions: tuple[str, ...]
    max_batch: int
    max_ap_drop: float
    max_disagreement: float
    options: Mapping[str, object] = field(default_factory=dict)
    where: str = "recipe"

    @property
    def sha256(self) -> str:
        """Digest of its values: a changed recipe is another cache entry."""
        values = {key: value for key, value in asdict(self).items() if key != "where"}
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def recipes(folder: Path = _FOLDER) -> dict[str, Recipe]:
    """Every target by name. Raises TargetError (CONFIG) naming file and key."""
    found: dict[str, Recipe] = {}
    for path in sorted(folder.glob("*/recipe.toml")):
        try:
            tables = tomllib.loads(path.read_text(encoding="utf-8"))
        except tomllib.TOMLDecodeError as error:
            raise TargetError(f"{path}: {error}", ExitCode.CONFIG) from error
        for name, table in tables.items():
            if name in found:
                raise TargetError(f"{path}: {name}: is defined twice", ExitCode.CONFIG)
            found[name] = _recipe(name, table, f"{path}: {name}")
    return found


def load_recipe(name: str, folder: Path = _FOLDER) -> Recipe:
    """A target by name. Raises TargetError (USAGE) listing the known ones."""
    known = recipes(folder)
    if name not in known:
        raise TargetError(f"unknown target {name!r}; known are {', '.join(known)}", ExitCode.USAGE)
    return known[name]


_FIELDS = ("runtime", "precisions", "max_batch", "max_ap_drop", "max_disagreement")


def _recipe(name: str, table: object, where: str) -> Recipe:
    if not isinstance(table, dict):
        raise TargetError(f"{where}: must be a table", ExitCode.CONFIG)
    for key in (*table, *_FIELDS):
        if key not in (*_FIELDS, "options"):
            raise TargetError(
                f"{where}.{key}: unknown key; known are {', '.join(_FIELDS)}, options",
                ExitCode.CONFIG,
            )
        if key not in table:
            raise TargetError(f"{where}.{key}: is missing", ExitCode.CONFIG)
    if not isinstance(table["runtime"], str):
        raise TargetError(f"{where}.runtime: must be a string", ExitCode.CONFIG)
    if type(table["max_batch"]) is not int or table["max_batch"] < 1:
        raise TargetError(f"{where}.max_batch: must be a positive integer", ExitCode.CONFIG)
    for key in _FIELDS[3:]:
        if not isinstance(table[key], int | float) or not 0.0 < table[key] < 1.0:
            raise TargetError(f"{where}.{key}: must be a number between 0 and 1", ExitCode.CONFIG)
    options = table.get("options", {})
    if not isinstance(options, dict):
        raise TargetError(f"{where}.options: must be a table", ExitCode.CONFIG)
    return Recipe(
        name,
        table["runtime"],
        _precisions(table["precisions"], where),
        table["max_batch"],
        float(table["max_ap_drop"]),
        float(table["max_disagreement"]),
        options,
        where,
    )


def _precisions(listed: object, where: str) -> tuple[str, ...]:
    if not isinstance(listed, list) or not listed:
        raise TargetError(f"{where}.precisions: must be a list of names", ExitCode.CONFIG)
    for index, precision in enumerate(listed):
        if precision not in PRECISIONS or precision in listed[:index]:
            raise TargetError(
                f"{where}.precisions[{index}]: must be one of {', '.join(PRECISIONS)}, and once",
                ExitCode.CONFIG,
            )
    return tuple(listed)
