# SPDX-License-Identifier: Apache-2.0
"""What `posewire evaluate` runs, and how it compares two: the difference in AP and its interval."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from posewire.errors import ExitCode, PosewireError

from . import out
from .compile import phases

if TYPE_CHECKING:
    from posewire.decode import Poses
    from posewire.manifest import Manifest
    from posewire.score import Labels
    from posewire.top_down import Boxes


def runnable(bundle: Path, target: str | None, precision: str, scratch: Path) -> Path:
    """The bundle itself where it is compiled, else its compiled form from the cache. One that the
    gate refuses is measured all the same, built into ``scratch``, and said so."""
    from posewire.bundle import read_manifest

    if read_manifest(bundle).target is not None:
        return bundle
    from posewire.edge.prepare import default_target
    from posewire.targets import TargetError, compile_bundle
    from posewire.targets.unjudged import build_unjudged

    wanted = target or default_target()
    with phases() as progress:
        try:
            return compile_bundle(bundle, wanted, precision, progress=progress).path
        except TargetError as error:
            if error.code != ExitCode.NO or precision == "auto":
                raise
            out.note(f"{error}; it is measured all the same")
            scratch.mkdir()
            return build_unjudged(bundle, wanted, precision, scratch, progress=progress)


def poses_of(
    compiled: Path,
    labels: Labels,
    images: Path,
    boxes: Mapping[int, Boxes] | None = None,
    task: str = "evaluate",
) -> dict[int, Poses]:
    """Image id -> poses, in the order of the ids. A top-down bundle needs ``boxes`` by image id."""
    from posewire.bundle import read_manifest
    from posewire.score import run_pictures
    from posewire.top_down import run_crops

    paths = labels.files(images)
    ids = [int(image["id"]) for image in labels.images]
    with out.progress(unit="pictures") as bar:
        number = bar.add_task(task, total=len(paths), said="")

        def more(count: int) -> None:
            bar.update(number, advance=count)

        if boxes is None:
            poses = run_pictures(compiled, paths, more)
        else:
            manifest = read_manifest(compiled)
            poses = run_crops(compiled, manifest, paths, [boxes[i] for i in ids], more)
    return dict(zip(ids, poses, strict=True))


def difference(
    labels: Labels,
    poses: Mapping[int, Poses],
    manifest: Manifest,
    other: Path,
    images: Path,
    boxes: Mapping[int, Boxes] | None = None,
) -> dict[str, Any]:
    """The figures of AP less the AP of the compiled bundle ``other`` on the same pictures, and
    boxes where they are top-down."""
    from posewire.bootstrap import ap_difference
    from posewire.bundle import read_manifest

    against = read_manifest(other)
    if against.skeleton != manifest.skeleton or manifest.skeleton is None:
        raise PosewireError(f"{other}: has another skeleton than the bundle", ExitCode.BUNDLE)
    if (against.mode == "top_down") != (boxes is not None):
        what = f"is {against.mode}, the bundle {manifest.mode}"
        raise PosewireError(f"{other}: {what}: they are not fed alike", ExitCode.BUNDLE)
    assert against.target is not None
    theirs = poses_of(other, labels, images, boxes)
    found = ap_difference(labels, poses, theirs, manifest.skeleton)
    low, high = round(found.low, 5), round(found.high, 5)
    shown = f"{against.name} {against.version}, {against.target.runtime} {against.target.precision}"
    out.note(
        f"AP less that of {shown}: {found.value:+.4f}, "
        f"{found.level:.0%} interval {low:+.4f} .. {high:+.4f} ({found.resamples} resamples)"
    )
    return {
        "bundle": against.name,
        "version": against.version,
        "runtime": f"{against.target.runtime} {against.target.runtime_version}",
        "precision": against.target.precision,
        "AP_difference": round(found.value, 5),
        "interval": [low, high],
        "level": found.level,
        "resamples": found.resamples,
    }
