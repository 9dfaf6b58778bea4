# SPDX-License-Identifier: Apache-2.0
"""``posewire export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from . import out
from .train import trainer


def command(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a training run.")],
    bundle: Annotated[Path, typer.Option("-o", "--out", help="Where the portable bundle goes.")],
    name: Annotated[str | None, typer.Option(help="Default: the run's.")] = None,
    version: Annotated[str, typer.Option(help="The bundle's own version.")] = "0.1.0",
    width: Annotated[
        int | None, typer.Option(min=1, help="Of the input; default: the run's.")
    ] = None,
    height: Annotated[
        int | None, typer.Option(min=1, help="Of the input; default: the run's.")
    ] = None,
    calibration: Annotated[
        Path | None,
        typer.Option(
            help="Folder of pictures without labels for INT8 (top-down: of crops of one person); "
            "default: drawn ones."
        ),
    ] = None,
    precision: Annotated[
        list[str] | None,
        typer.Option(help="fp32, fp16, int8, int8-u8; once for each; default: all."),
    ] = None,
    tflite: Annotated[
        bool, typer.Option(help="TFLite files too, of fp32 and int8 where these are chosen.")
    ] = True,
    replace: Annotated[
        bool, typer.Option("--replace", help="An existing bundle is replaced, in one step.")
    ] = False,
    json: Annotated[
        bool, typer.Option("--json", help="The last line says what was made, as JSON.")
    ] = False,
) -> None:
    """Turn a training run into a portable bundle: ONNX and TFLite, compared with Keras.

    \b
    posewire export runs/first -o models/mine
    posewire export runs/first -o models/mine --calibration pictures/ --replace
    """
    more: dict[str, Any] = {"precisions": tuple(precision)} if precision else {}
    with trainer(), out.progress(unit="") as bar:
        from posewire.trainer.export import export_run

        task = bar.add_task("exporting", total=None, said="")
        manifest = export_run(
            run,
            bundle,
            name=name,
            version=version,
            width=width,
            height=height,
            calibration=calibration,
            tflite=tflite,
            replace=replace,
            say=lambda line: bar.update(task, description=line, advance=1),
            **more,
        )
        bar.update(task, description="done")
    out.note(f"{bundle}: {manifest.name} {manifest.version}")
    if json:
        out.figures(out.bundle_facts(bundle, manifest))
