# SPDX-License-Identifier: Apache-2.0
"""``posewire verify``: is a bundle whole and consistent?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import out


def command(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE")],
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Check a bundle: schema, names, sizes, checksums, and that its networks are what it says.

    Exit code 65 and one line that names file and key where it is not whole.

    \b
    posewire verify models/coco17
    """
    from posewire.bundle import check_onnx, verify_bundle
    from posewire.engine_core import core as engine_core

    manifest = verify_bundle(bundle)
    check_onnx(manifest, bundle)
    # The engine reads manifests itself: it must agree.
    engine_core().Decoder((bundle / "manifest.json").read_text(encoding="utf-8"), 0)
    size = sum(entry.bytes for entry in manifest.files.values())
    if json:
        out.figures(
            {
                "bundle": str(bundle),
                "name": manifest.name,
                "version": manifest.version,
                "sha256": manifest.sha256,
                "files": len(manifest.files),
                "bytes": size,
            }
        )
        return
    kind = "portable" if manifest.target is None else f"compiled for {manifest.target.name}"
    print(
        f"{bundle}: whole: {manifest.name} {manifest.version}, {kind}, {len(manifest.files)} files"
    )
