# SPDX-License-Identifier: Apache-2.0
"""``posewire import``."""

from __future__ import annotations

import json as json_module
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from posewire.errors import ExitCode, PosewireError

from . import out
from .train import trainer

_USAGE = ExitCode.USAGE


def command(
    network: Annotated[Path, typer.Argument(metavar="NET", help=".onnx, .uff, or frozen .pb.")],
    bundle: Annotated[Path, typer.Option("-o", "--out", help="Where the portable bundle goes.")],
    algorithm: Annotated[
        str, typer.Option(help="paf, heatmap, simcc, center, …, or yolox for a detector.")
    ],
    skeleton: Annotated[
        str | None, typer.Option(help="A shipped skeleton's name or a JSON file; none: a detector.")
    ] = None,
    input_size: Annotated[
        str | None, typer.Option(metavar="WxH", help="Where the file leaves the input's size open.")
    ] = None,
    channels: Annotated[
        Literal["RGB", "BGR"], typer.Option(help="What the network was trained with.")
    ] = "RGB",
    mean: Annotated[
        str, typer.Option(help="One number or three, of 0..255: it wants (x - mean) / std.")
    ] = "0",
    std: Annotated[str, typer.Option(help="One number or three, of 0..255.")] = "1",
    outputs: Annotated[
        list[str] | None,
        typer.Option(help="NAME=TENSOR or NAME=TENSOR[FIRST:LAST]; once for each output."),
    ] = None,
    stride: Annotated[
        int | None, typer.Option(min=1, help="Of the maps, where their shape leaves it open.")
    ] = None,
    padding: Annotated[
        float, typer.Option(min=1.0, max=4.0, help="Top-down: how much a box grows.")
    ] = 1.25,
    decode: Annotated[
        list[str] | None,
        typer.Option(help="KEY=VALUE for the decoder (docs/decoders.md); once for each."),
    ] = None,
    precision: Annotated[
        list[str] | None,
        typer.Option(help="Besides fp32: fp16, int8, int8-u8; once for each."),
    ] = None,
    calibration: Annotated[
        Path | None, typer.Option(help="Folder of pictures for INT8; default: drawn ones.")
    ] = None,
    selftest: Annotated[
        Path | None,
        typer.Option(help="Folder of the gate's pictures (top-down: crops); default: drawn ones."),
    ] = None,
    name: Annotated[str | None, typer.Option(help="Default: the bundle's folder.")] = None,
    version: Annotated[str, typer.Option(help="The bundle's own version.")] = "0.1.0",
    replace: Annotated[
        bool, typer.Option("--replace", help="An existing bundle is replaced, in one step.")
    ] = False,
    json: Annotated[
        bool, typer.Option("--json", help="The last line says what was made, as JSON.")
    ] = False,
) -> None:
    """Turn a third-party network into a verified portable bundle.

    Its input and outputs are put into a bundle's form and compared with the network as it came.
    Outputs and strides are found where only one guess is possible, and what was guessed is said.

    \b
    posewire import pose.onnx -o models/pose --algorithm heatmap --skeleton coco17 \\
        --mean 123.7,116.3,103.5 --std 58.4,57.1,57.4
    posewire import graph.pb -o models/tfpose --algorithm paf --skeleton body18 \\
        --input-size 432x368 --channels BGR
    posewire import yolox_nano.onnx -o models/yolox --algorithm yolox --channels BGR
    """
    said: list[str] = []
    with trainer(), out.progress(unit="") as bar:
        from posewire.trainer.third_party import Plan, import_network
        from posewire.trainer.third_party_outputs import parse_rule

        plan = Plan(
            algorithm=algorithm,
            skeleton=None if skeleton is None else _skeleton(skeleton),
            name=name or bundle.absolute().name,
            version=version,
            size=None if input_size is None else _size(input_size),
            channels=channels,
            mean=_triple("mean", mean),
            std=_triple("std", std),
            outputs=tuple(parse_rule(rule) for rule in outputs or ()),
            stride=stride,
            padding=padding,
            decode=dict(_setting(one) for one in decode or ()),
            precisions=("fp32", *(p for p in precision or () if p != "fp32")),
            calibration=calibration,
            selftest=selftest,
        )
        task = bar.add_task("importing", total=None, said="")

        def say(line: str) -> None:
            said.append(line)
            bar.update(task, description=line, advance=1)

        manifest = import_network(network, bundle, plan, replace=replace, say=say)
        bar.update(task, description="done")
    for line in said:
        if line.startswith(("outputs:", "its batch", "the same")):
            out.note(line)
    out.note(f"{bundle}: {manifest.name} {manifest.version}, {manifest.mode}")
    if json:
        out.figures(out.bundle_facts(bundle, manifest) | {"mode": manifest.mode})


def _skeleton(text: str) -> Any:
    from posewire.skeleton import Skeleton, load_skeleton
    from posewire.strict_json import parse_json

    path = Path(text)
    if path.suffix != ".json":
        return load_skeleton(text)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise PosewireError(f"{path}: {error.strerror}", ExitCode.SOURCE) from error
    return Skeleton.from_dict(parse_json(data, text), f"{text}: ")


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.partition("x")
    if not (width.isdigit() and height.isdigit() and 1 <= int(width) <= 16384 >= int(height) >= 1):
        raise PosewireError(f"--input-size {text}: must be WIDTHxHEIGHT in pixels", _USAGE)
    return int(width), int(height)


def _triple(what: str, text: str) -> tuple[float, float, float]:
    try:
        values = [float(value) for value in text.split(",")]
    except ValueError:
        values = []
    if len(values) not in (1, 3) or not all(abs(value) < 1e6 for value in values):
        raise PosewireError(f"--{what} {text}: must be one number or three (a,b,c)", _USAGE)
    values = values * 3 if len(values) == 1 else values
    return values[0], values[1], values[2]


def _setting(text: str) -> tuple[str, Any]:
    """KEY=VALUE; the value is JSON where it is JSON, else a word."""
    key, equals, value = text.partition("=")
    if not key or not equals or key == "algorithm":
        raise PosewireError(f"--decode {text}: must be KEY=VALUE", _USAGE)
    try:
        return key, json_module.loads(value)
    except ValueError:
        return key, value
