# SPDX-License-Identifier: Apache-2.0
"""``posewire inspect``: what a bundle holds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import out

if TYPE_CHECKING:
    from collections.abc import Iterator

    from posewire.manifest import Manifest


def command(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE")],
    json: Annotated[bool, typer.Option("--json", help="Print the manifest as JSON.")] = False,
) -> None:
    """Show what a bundle holds: network, skeleton, artifacts, target, accuracy, provenance.

    Reads the manifest alone; `posewire verify` checks the files too.

    \b
    posewire inspect models/coco17
    """
    from posewire.bundle import read_manifest

    manifest = read_manifest(bundle)
    if json:
        out.figures({**manifest.raw, "sha256": manifest.sha256})
        return
    for name, value in _rows(manifest):
        print(f"{name:<10} {value}")


def _rows(manifest: Manifest) -> Iterator[tuple[str, str]]:
    yield "bundle", f"{manifest.name} {manifest.version}"
    yield "sha256", manifest.sha256
    yield "mode", manifest.mode
    skeleton = manifest.skeleton
    if skeleton is not None:
        size = f"{skeleton.count} keypoints, {len(skeleton.limbs)} limbs"
        yield "skeleton", f"{skeleton.name} ({size})"
    size = f"{manifest.input.width} x {manifest.input.height}"
    yield "input", f"{size} {manifest.input.channels}, {manifest.input.resize}"
    for output in manifest.outputs:
        yield "output", f"{output.name}: {output.channels} channels, stride {output.stride}"
    parameters = {name: value for name, value in manifest.decode.items() if name != "algorithm"}
    yield "decode", f"{manifest.decode['algorithm']} {parameters or ''}".strip()
    for artifact in manifest.artifacts:
        kilobytes = sum(manifest.files[name].bytes for name in artifact.files) / 1e3
        names = ", ".join(artifact.files)
        yield "artifact", f"{artifact.precision} {artifact.format}: {names} ({kilobytes:.0f} kB)"
    if manifest.target is not None:
        target = manifest.target
        machine = target.device or "any device"
        yield "target", f"{target.name}, {target.runtime} {target.runtime_version}, {machine}"
        yield "precision", f"{target.precision}, batches of up to {target.max_batch}"
    if manifest.gate is not None:
        gate = manifest.gate
        said = f"{gate.value:.4f}, limit {gate.limit}, {gate.pictures} pictures"
        yield "gate", f"{gate.kind}: {said}"
    if manifest.derived_from is not None:
        source = manifest.derived_from
        yield "from", f"{source.name} {source.version}, sha256 {source.sha256}"
    for measured in manifest.accuracy:
        where = f"{measured.data} ({measured.artifact})"
        yield "accuracy", f"{measured.metric} {measured.value:.4f} on {where}"
    for name, fact in manifest.training.items():
        yield "training", f"{name}: {fact}"
