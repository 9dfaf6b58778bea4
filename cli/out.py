# SPDX-License-Identifier: Apache-2.0
"""How verbs speak: figures and results on stdout, everything said to a person on stderr."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

    from posewire.manifest import Manifest


def error(text: str) -> None:
    """The one line that a failing program ends with."""
    print(f"posewire: error: {text}", file=sys.stderr, flush=True)


def note(text: str) -> None:
    """A line for the person who watches; never part of the result."""
    print(f"posewire: {text}", file=sys.stderr, flush=True)


def figures(values: Mapping[str, Any]) -> None:
    """``--json``: one object, the last line of stdout."""
    print(json.dumps(values, allow_nan=False), flush=True)


def bundle_facts(bundle: Path, manifest: Manifest) -> dict[str, Any]:
    """What the verbs that make a bundle say of it as JSON."""
    return {
        "bundle": str(bundle.absolute()),
        "name": manifest.name,
        "version": manifest.version,
        "sha256": manifest.sha256,
        "files": {file: entry.bytes for file, entry in manifest.files.items()},
    }


def write_file(path: Path, data: bytes) -> None:
    """Written aside and renamed: a reader sees the old file or the new one. Raises OSError."""
    aside = path.with_name(f".{path.name}.partial")
    aside.write_bytes(data)
    os.replace(aside, path)


def console() -> Console:
    """A rich console on stderr, for tables and progress bars."""
    from rich.console import Console

    return Console(stderr=True, highlight=False)


def progress(*, unit: str = "frames") -> Progress:
    """A progress bar on stderr; without a terminal it writes its last state once.

    Tasks carry the field ``said`` (free text at the right): ``add_task(name, total=n, said="")``;
    ``total=None`` where the end is not known.
    """
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        SpinnerColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn(unit + " {task.fields[said]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console(),
    )


_PRIORITY = {"DEBUG": 7, "INFO": 6, "WARNING": 4, "ERROR": 3, "CRITICAL": 2}


class _Lines(logging.Formatter):
    """posewire: warning: mqtt: …; under systemd with the journal's priorities."""

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        if "JOURNAL_STREAM" in os.environ:
            return f"<{_PRIORITY[record.levelname]}>{record.name}: {text}"
        level = "" if record.levelno == logging.INFO else f"{record.levelname.lower()}: "
        return f"posewire: {level}{record.name}: {text}"


def logs(*, quiet: bool = False) -> None:
    """Sends log records to stderr; ``quiet``: only warnings, where a progress bar tells more."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Lines())
    level = logging.DEBUG if os.environ.get("POSEWIRE_DEBUG") else logging.INFO
    level = logging.WARNING if quiet and level == logging.INFO else level
    logging.basicConfig(handlers=[handler], level=level)
