# SPDX-License-Identifier: Apache-2.0
"""``posewire evaluate``: COCO AP of a bundle on labelled pictures, through the engine's decoder."""

from __future__ import annotations

import json as json_module
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from posewire.errors import ExitCode, PosewireError

from . import out
from .against import difference, poses_of, runnable

if TYPE_CHECKING:
    from posewire.decode import Poses
    from posewire.manifest import Manifest
    from posewire.score import Labels, Score
    from posewire.skeleton import Skeleton
    from posewire.top_down import Boxes, BoxScore


def command(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="Portable or compiled.")],
    annotations: Annotated[
        Path, typer.Argument(metavar="ANNOTATIONS.json", help="COCO-format person keypoints.")
    ],
    images: Annotated[Path, typer.Option(help="The folder of the labelled pictures.")],
    precision: Annotated[
        str, typer.Option(help="What a portable bundle is compiled to (cached).")
    ] = "fp32",
    target: Annotated[str | None, typer.Option(help="Default: this machine's.")] = None,
    boxes: Annotated[
        Literal["annotated"] | None, typer.Option(help="Top-down: crop by the labels' own boxes.")
    ] = None,
    detector: Annotated[
        Path | None, typer.Option(help="Top-down: crop by the boxes of this detector bundle.")
    ] = None,
    ids: Annotated[
        Literal["all", "even", "odd"],
        typer.Option(help="Only pictures with such ids: what training held out."),
    ] = "all",
    output: Annotated[
        Path, typer.Option("-o", "--output", help="Folder for figures, poses and pictures.")
    ] = Path("evaluate-out"),
    pictures: Annotated[
        int, typer.Option(min=0, help="How many pictures to draw the poses into.")
    ] = 16,
    against: Annotated[
        Path | None,
        typer.Option(metavar="BUNDLE", help="Compare with this one, on the same pictures."),
    ] = None,
    against_precision: Annotated[
        str, typer.Option(help="What that one is compiled to, if portable.")
    ] = "fp32",
    against_target: Annotated[
        str | None, typer.Option(help="Its target; default: the same as the bundle's.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="End with the figures as JSON.")] = False,
) -> None:
    """Measure COCO AP: every labelled picture counts, also those without people or poses.

    Labels of another skeleton are compared by the keypoints' meaning; keypoints that the bundle
    does not know are left out and counted. Writes figures.json, poses.json (COCO results) and
    pictures/ into the output folder. A top-down bundle needs boxes: the labels' or a detector's.
    Of a detector bundle the AP of boxes is measured. --against adds the difference in AP to another
    bundle, or to another precision of the same, with a 95 % interval (paired bootstrap over
    pictures).

    \b
    posewire evaluate models/coco17 person_keypoints_val2017.json --images val2017 --json
    posewire evaluate models/simplepose val.json --images val2017 --detector models/yolox
    posewire evaluate models/coco17 labels.json --images pictures --precision int8 \
        --against models/coco17 --json
    """
    import tempfile

    from posewire.bundle import read_manifest, verify_bundle
    from posewire.score import load_labels

    manifest = verify_bundle(bundle)
    _check_boxes(bundle, manifest, boxes, detector)
    labels = load_labels(annotations, manifest.skeleton).only(ids)
    paths = labels.files(images)
    other = None
    with tempfile.TemporaryDirectory(prefix="posewire-evaluate-") as scratch:
        compiled = runnable(bundle, target, precision, Path(scratch, "one"))
        crops = _crops(manifest, detector, target, precision, labels, images, Path(scratch, "two"))
        by_image = poses_of(compiled, labels, images, crops)
        target_of = read_manifest(compiled).target
        if against is not None:
            verify_bundle(against)
            wanted = against_target or target
            compared = runnable(against, wanted, against_precision, Path(scratch, "other"))
            other = difference(labels, by_image, manifest, compared, images, crops)
    assert target_of is not None
    facts = {
        "bundle": manifest.name,
        "version": manifest.version,
        "precision": target_of.precision,
        "runtime": f"{target_of.runtime} {target_of.runtime_version}",
        "annotations": str(annotations),
        "ids": ids,
    }
    if manifest.mode == "top_down":
        facts["boxes"] = "annotated" if detector is None else str(detector)
    figures = _scored(manifest, labels, by_image) | facts
    if other is not None:
        figures["against"] = other
    _write(output, figures, labels, by_image, _skeleton(manifest))
    poses = list(by_image.values())
    _draw(output / "pictures", paths, poses, _skeleton(manifest), pictures)
    _table(figures)
    out.note(f"figures, poses and pictures: {output}")
    if json:
        out.figures(figures)


def _check_boxes(
    bundle: Path, manifest: Manifest, boxes: str | None, detector: Path | None
) -> None:
    given = (boxes is not None) + (detector is not None)
    if manifest.mode == "top_down" and given != 1:
        raise PosewireError(
            f"{bundle}: is top_down: give --boxes annotated or --detector BUNDLE", ExitCode.USAGE
        )
    if manifest.mode != "top_down" and given:
        raise PosewireError(f"{bundle}: is {manifest.mode} and takes no boxes", ExitCode.USAGE)


def _crops(
    manifest: Manifest,
    detector: Path | None,
    target: str | None,
    precision: str,
    labels: Labels,
    images: Path,
    scratch: Path,
) -> Mapping[int, Boxes] | None:
    """Boxes by image id for a top-down bundle, the labels' or the detector's; None for others."""
    from posewire.bundle import verify_bundle
    from posewire.top_down import annotated_boxes, boxes_of

    if manifest.mode != "top_down":
        return None
    if detector is None:
        return annotated_boxes(labels)
    mode = verify_bundle(detector).mode
    if mode != "detector":
        raise PosewireError(f"{detector}: is {mode}, no detector", ExitCode.BUNDLE)
    found = poses_of(runnable(detector, target, precision, scratch), labels, images, task="detect")
    return {image: boxes_of(poses) for image, poses in found.items()}


def _skeleton(manifest: Manifest) -> Skeleton:
    from posewire.top_down import BOX

    return manifest.skeleton or BOX


def _scored(manifest: Manifest, labels: Labels, poses: Mapping[int, Poses]) -> dict[str, Any]:
    from posewire.score import coco_ap, pck
    from posewire.top_down import box_ap, boxes_of

    if manifest.skeleton is None:
        score = box_ap(labels, {image: boxes_of(one) for image, one in poses.items()})
        return _boxes_figures(score)
    return _figures(
        coco_ap(labels, poses, manifest.skeleton), pck(labels, poses, manifest.skeleton)
    )


def _boxes_figures(score: BoxScore) -> dict[str, Any]:
    values = {
        "box AP": score.ap,
        "box AP50": score.ap50,
        "box AP75": score.ap75,
        "box APmedium": score.ap_medium,
        "box APlarge": score.ap_large,
        "box AR": score.ar,
    }
    shown: dict[str, Any] = {k: None if v < 0 else round(v, 5) for k, v in values.items()}
    return shown | {"images": score.images, "people": score.people, "found": score.found}


def _figures(score: Score, torso: float) -> dict[str, Any]:
    """COCO's -1, "no label counts", becomes null."""
    values = {
        "AP": score.ap,
        "AP50": score.ap50,
        "AP75": score.ap75,
        "APmedium": score.ap_medium,
        "APlarge": score.ap_large,
        "AR": score.ar,
        "PCK@0.2": torso,
    }
    shown: dict[str, Any] = {k: None if v < 0 else round(v, 5) for k, v in values.items()}
    return shown | {
        "images": score.images,
        "people": score.people,
        "found": score.found,
        "keypoints": score.keypoints,
        "similarity": {name: round(value, 4) for name, value in score.similarity.items()},
    }


def _write(
    output: Path,
    figures: Mapping[str, Any],
    labels: Labels,
    poses: Mapping[int, Poses],
    skeleton: Skeleton,
) -> None:
    results = [
        {
            "image_id": image,
            "category_id": labels.category,
            "keypoints": [round(float(value), 3) for value in points.ravel()],
            "score": float(score),
        }
        for image, one in poses.items()
        for score, points in zip(one.scores, one.keypoints, strict=True)
    ]
    try:
        (output / "pictures").mkdir(parents=True, exist_ok=True)
        out.write_file(output / "figures.json", json_module.dumps(figures, indent=1).encode())
        poses_file = {"skeleton": skeleton.to_dict(), "results": results}
        out.write_file(output / "poses.json", json_module.dumps(poses_file).encode())
    except OSError as error:
        raise PosewireError(f"{output}: {error.strerror}", ExitCode.CANNOT_WRITE) from error


def _draw(
    folder: Path, paths: Sequence[Path], poses: Sequence[Poses], skeleton: Skeleton, count: int
) -> None:
    """The pictures with the most labels are not better: evenly spaced ones are drawn."""
    import cv2

    from posewire.draw import draw_poses
    from posewire.engine_core import core as engine_core

    step = max(1, len(paths) // count) if count else len(paths) + 1
    for path, one in list(zip(paths, poses, strict=True))[::step][:count]:
        picture = engine_core().read_picture(str(path))
        done, data = cv2.imencode(".jpg", draw_poses(picture, one, skeleton))
        if not done:
            raise PosewireError(f"{path}: cannot be drawn", ExitCode.BUG)
        try:
            out.write_file(folder / f"{path.stem}.jpg", data.tobytes())
        except OSError as error:
            raise PosewireError(f"{folder}: {error.strerror}", ExitCode.CANNOT_WRITE) from error


def _table(figures: Mapping[str, Any]) -> None:
    from rich.table import Table

    title = (
        f"{figures['bundle']} {figures['version']} ({figures['precision']}): "
        f"{figures['images']} pictures, {figures['people']} people, {figures['found']} found"
    )
    if "keypoints" in figures:
        title += f", {figures['keypoints']} keypoints compared"
    table = Table(title=title)
    names = ("AP", "AP50", "AP75", "APmedium", "APlarge", "AR", "PCK@0.2")
    boxes = tuple(f"box {name}" for name in names[:-1])
    for name in boxes if "box AP" in figures else names:
        table.add_column(name, justify="right")
    values = [figures[str(column.header)] for column in table.columns]
    table.add_row(*("-" if value is None else f"{value:.3f}" for value in values))
    out.console().print(table)
