# SPDX-License-Identifier: Apache-2.0
"""Which JetPack this machine has and what posewire can do there (jetson/jetpack.toml)."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

from posewire.errors import ExitCode

from .errors import TargetError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Verdict = Literal["whole", "engine", "refused"]
_TABLE = Path(__file__).resolve().parent / "jetson" / "jetpack.toml"
_TEXTS = ("ubuntu", "python", "cuda", "tensorrt", "boards", "verdict", "reason")
_LISTS = ("l4t", "apt", "apt_build")


@dataclass(frozen=True)
class JetPack:
    """One row. ``l4t``: majors of Linux for Tegra; ``reason`` is empty where nothing is missing."""

    name: str
    l4t: tuple[str, ...]
    ubuntu: str
    python: str
    cuda: str
    tensorrt: str
    boards: str
    verdict: Verdict
    reason: str
    apt: tuple[str, ...]
    apt_build: tuple[str, ...]


def jetpacks(path: Path = _TABLE) -> dict[str, JetPack]:
    """Every row by name. Raises TargetError (CONFIG) naming file, table and key."""
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise TargetError(f"{path}: {error}", ExitCode.CONFIG) from error
    return {name: _row(name, table, f"{path}: {name}") for name, table in tables.items()}


def l4t_release(root: Path = Path("/")) -> str | None:
    """ "36.4.3" as /etc/nv_tegra_release says; None on a machine that is no Jetson."""
    try:
        text = (root / "etc/nv_tegra_release").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    found = re.search(r"# R(\d+) \(release\), REVISION: ([\d.]+)", text)
    return f"{found[1]}.{found[2]}" if found else None


def this_jetpack(root: Path = Path("/"), path: Path = _TABLE) -> JetPack | None:
    """The row of this machine; None where it is no Jetson.

    Raises TargetError (UNAVAILABLE) for an L4T release that the table does not know.
    """
    release = l4t_release(root)
    if release is None:
        return None
    known = jetpacks(path)
    for row in known.values():
        if release.split(".")[0] in row.l4t:
            return row
    majors = ", ".join("R" + major for row in known.values() for major in row.l4t)
    raise TargetError(f"L4T R{release} is unknown; known are {majors}")


def _row(name: str, table: object, where: str) -> JetPack:
    if not isinstance(table, dict):
        raise TargetError(f"{where}: must be a table", ExitCode.CONFIG)
    for key in (*table, *_TEXTS, *_LISTS):
        if key not in (*_TEXTS, *_LISTS):
            raise TargetError(f"{where}.{key}: unknown key", ExitCode.CONFIG)
        if key not in table:
            raise TargetError(f"{where}.{key}: is missing", ExitCode.CONFIG)
        value = table[key]
        listed = isinstance(value, list) and all(isinstance(item, str) for item in value)
        if not (listed if key in _LISTS else isinstance(value, str)):
            kind = "a list of strings" if key in _LISTS else "a string"
            raise TargetError(f"{where}.{key}: must be {kind}", ExitCode.CONFIG)
    if table["verdict"] not in ("whole", "engine", "refused"):
        raise TargetError(f"{where}.verdict: must be whole, engine or refused", ExitCode.CONFIG)
    if (table["verdict"] == "whole") == bool(table["reason"]):
        raise TargetError(f"{where}.reason: must say why it is not whole", ExitCode.CONFIG)
    texts = {key: str(table[key]) for key in _TEXTS if key != "verdict"}
    return JetPack(
        name,
        l4t=tuple(table["l4t"]),
        apt=tuple(table["apt"]),
        apt_build=tuple(table["apt_build"]),
        verdict=cast(Verdict, table["verdict"]),
        **texts,
    )
