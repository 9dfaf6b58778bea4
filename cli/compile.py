# SPDX-License-Identifier: Apache-2.0
"""``posewire compile``: a portable bundle becomes one for this machine."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from . import out

Progress = Callable[[str, int, int], None]


def command(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="A portable bundle.")],
    target: Annotated[
        str | None, typer.Option(help="What to compile for; default: this machine's.")
    ] = None,
    precision: Annotated[
        str, typer.Option(help="fp32, fp16, bf16, int8, or auto: the fastest that passes the gate.")
    ] = "auto",
    labels: Annotated[
        Path | None,
        typer.Option(help="COCO-format labels (200 people or more): the gate is the drop in AP."),
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option(help="The labels' pictures; alone: pictures on which the poses must agree."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Also write the compiled bundle here.")
    ] = None,
    max_batch: Annotated[
        int, typer.Option(min=0, help="Pictures per inference; 0: the target's own.")
    ] = 0,
    keep_layers: Annotated[
        str,
        typer.Option(
            help="Layers of an INT8 network that stay in floating point: names with commas, none, "
            "or auto: the heads, and after a refusal by the gate those that spoil the most."
        ),
    ] = "auto",
    int8: Annotated[
        str | None,
        typer.Option(
            help="TensorRT before 11: calibrate makes int8 on the device from the fp32 network, "
            "qdq (the default) takes the bundle's int8 one."
        ),
    ] = None,
    calibration: Annotated[
        Path | None, typer.Option(help="A folder of 32 pictures or more, for --int8 calibrate.")
    ] = None,
    dla_core: Annotated[
        int | None, typer.Option(min=0, help="A Jetson's DLA core to compile for.")
    ] = None,
    cache: Annotated[
        bool, typer.Option("--cache/--no-cache", help="Take what was compiled before.")
    ] = True,
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Compile a portable bundle for one target, through the accuracy gate.

    The result is cached; a compiled bundle at --output is replaced in one step, and only when the
    gate has passed (exit code 1 where it has not).

    \b
    posewire compile models/coco17 --precision auto
    posewire compile models/coco17 --precision int8 --labels val.json --images val/ -o coco17-int8
    posewire compile models/coco17 --target jetson-orin --precision fp16
    """
    from posewire.edge.prepare import default_target
    from posewire.targets import compile_bundle

    options: dict[str, object] = {}
    if int8 is not None:
        options["int8"] = int8
    if calibration is not None:
        options["calibration"] = str(calibration.absolute())
    if dla_core is not None:
        options["dla_core"] = dla_core
    with phases() as progress:
        result = compile_bundle(
            bundle,
            target or default_target(),
            precision,
            out=output,
            labels=labels,
            images=images,
            max_batch=max_batch,
            keep_layers=keep_layers,
            options=options,
            use_cache=cache,
            progress=progress,
        )
    if json:
        gate = None if result.gate is None else result.gate.as_json()
        out.figures(
            {
                "bundle": str(result.path.absolute()),
                "precision": result.precision,
                "gate": gate,
                "pending": result.pending,
                "kept_layers": list(result.kept),
                "cached": result.cached,
                "fps": {name: round(fps, 1) for name, fps in result.fps.items()},
                "rejected": result.rejected,
            }
        )
        return
    for name, fps in sorted(result.fps.items(), key=lambda item: -item[1]):
        out.note(f"{name}: {fps:.1f} pictures a second, inference alone")
    for name, why in result.rejected.items():
        out.note(f"{name} passed over: {why}")
    if result.pending is not None:
        out.note(f"gate pending: {result.pending}; it is judged before a daemon activates it")
    elif result.gate is not None:
        out.note(
            f"gate ({result.gate.kind}, {result.gate.pictures} pictures): {result.gate.value:.4f}, "
            f"limit {result.gate.limit}"
        )
        lost = sorted(result.gate.keypoints.items(), key=lambda item: -item[1])[:3]
        if lost and lost[0][1] > 0.0005:
            worst = ", ".join(f"{name} {drop:.3f}" for name, drop in lost)
            out.note(f"keypoints that lose most: {worst}")
    if result.kept:
        out.note(f"kept in floating point: {', '.join(result.kept)}")
    print(f"{result.path} ({result.precision}{', cached' if result.cached else ''})")


@contextmanager
def phases() -> Iterator[Progress]:
    """A progress bar over compile_bundle's phases; lines where stderr is no terminal."""
    if not sys.stderr.isatty():
        told: set[str] = set()

        def tell(phase: str, done: int, total: int) -> None:
            if phase not in told:
                told.add(phase)
                out.note(f"compile: {phase}")

        yield tell
        return
    with out.progress(unit="") as bar:
        task = bar.add_task("compile", total=None, said="")

        def show(phase: str, done: int, total: int) -> None:
            bar.update(task, description=phase, completed=done, total=total or None)

        yield show
        bar.update(task, description="compiled", completed=1, total=1)
