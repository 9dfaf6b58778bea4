# SPDX-License-Identifier: Apache-2.0
"""Recipes: what a target is, as data. ``targets/<folder>/recipe.toml`` holds one table a target::

    [x86-cpu]                          the target's name
    runtime = "openvino"               the compiler file in this folder, and the engine's runtime
    precisions = ["fp32", "bf16"]      what may be asked for; "auto" tries all of them
    max_batch = 1                      pictures per inference at most
    max_ap_drop = 0.01                 limit of the gate with labels
    max_disagreement = 0.05            limit of the gate without

The folders are the list: a new target is a new table, and no line of code.
"""

from __future__ import annotations

import hashlib
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from posewire.errors import ExitCode

from .errors import TargetError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_FOLDER = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Recipe:
    """One target. Limits in AP and in 1 - OKS-AP."""

    name: str
    runtime: str
    precisions: tuple[str, ...]
    max_batch: int
    max_ap_drop: float
    max_disagreement: float

    @property
    def sha256(self) -> str:
        """Digest of its values: a changed recipe is another cache entry."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()


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


def _recipe(name: str, table: object, where: str) -> Recipe:
    fields = ("runtime", "precisions", "max_batch", "max_ap_drop", "max_disagreement")
    if not isinstance(table, dict):
        raise TargetError(f"{where}: must be a table", ExitCode.CONFIG)
    for key in (*table, *fields):
        if key not in fields:
            raise TargetError(
                f"{where}.{key}: unknown key; known are {', '.join(fields)}", ExitCode.CONFIG
            )
        if key not in table:
            raise TargetError(f"{where}.{key}: is missing", ExitCode.CONFIG)
    precisions = table["precisions"]
    if not isinstance(precisions, list) or "fp32" not in precisions:
        raise TargetError(f"{where}.precisions: must be a list with fp32", ExitCode.CONFIG)
    if not isinstance(table["max_batch"], int) or table["max_batch"] < 1:
        raise TargetError(f"{where}.max_batch: must be a positive integer", ExitCode.CONFIG)
    for key in fields[3:]:
        if not isinstance(table[key], int | float) or not 0.0 < table[key] < 1.0:
            raise TargetError(f"{where}.{key}: must be a number between 0 and 1", ExitCode.CONFIG)
    return Recipe(
        name,
        str(table["runtime"]),
        tuple(map(str, precisions)),
        table["max_batch"],
        float(table["max_ap_drop"]),
        float(table["max_disagreement"]),
    )
