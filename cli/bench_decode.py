# SPDX-License-Identifier: Apache-2.0
"""``posewire bench decode``: one decoder's CPU time a frame, without any network."""

from __future__ import annotations

import json as json_module
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from posewire.errors import ExitCode, PosewireError

from . import out

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from posewire.decode import DecoderBench, Poses
    from posewire.encode import Rendered
    from posewire.skeleton import Skeleton

_SECONDS = 2.0  # of timing, when --rounds does not say
_MOST_ROUNDS, _FEWEST_ROUNDS = 2000, 3
_ROWS = 16  # of the table


@dataclass(frozen=True)
class _Calls:
    """What is decoded: a name a call, and which calls make up each reported frame."""

    bench: DecoderBench
    manifest: Mapping[str, Any]
    kernels: str
    names: Sequence[str]
    frames: Mapping[str, Sequence[int]]
    drawn: Sequence[Rendered] = ()  # only of --people


@dataclass(frozen=True)
class _Drawing:
    """The options of --people; width and height in pixels, None: the mode's."""

    people: int
    frames: int
    skeleton: Skeleton
    width: int | None
    height: int | None
    noise: float
    seed: int


def command(
    algorithm: Annotated[str, typer.Argument(metavar="ALGORITHM", help="The decoder: paf, …")],
    inputs: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Stored outputs: manifest.json and one .npz a frame."),
    ] = None,
    people: Annotated[
        int | None,
        typer.Option(min=0, metavar="N", help="Draw frames of N people instead of --inputs."),
    ] = None,
    frames: Annotated[
        int | None, typer.Option(min=1, max=999, help="Of --people, how many.", show_default="8")
    ] = None,
    skeleton: Annotated[
        str | None,
        typer.Option(help="Of --people: a name or a .json file.", show_default="coco17"),
    ] = None,
    width: Annotated[
        int | None,
        typer.Option(min=16, max=4096, help="Network input, px.", show_default="432; top-down 192"),
    ] = None,
    height: Annotated[
        int | None,
        typer.Option(min=16, max=4096, help="Network input, px.", show_default="368; top-down 256"),
    ] = None,
    noise: Annotated[
        float | None,
        typer.Option(min=0, help="Sigma of the noise on every value.", show_default="0.01"),
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Of --people.", show_default="0")] = None,
    save: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Keep the drawn frames, for --inputs.")
    ] = None,
    rounds: Annotated[
        int, typer.Option(min=0, help="Over all frames; 0: about two seconds of them.")
    ] = 0,
    kernels: Annotated[
        str, typer.Option(help="An instruction set (portable, …) instead of the best.")
    ] = "",
    poses: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the people: a JSON line a frame.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="End with the figures as JSON.")] = False,
) -> None:
    """Measure one decoder alone: microseconds of one thread's CPU time per frame.

    All frames are decoded in turn, many rounds, after one round that does not count: a frame
    repeated at once would flatter the caches.

    --inputs replays stored network outputs: manifest.json needs skeleton, input and outputs, each
    output with its layout (NCHW when absent); every .npz, deflated or not, is one frame with one
    float32 array per output.

    --people draws its own frames, says what a perfect network would, adds noise, and also
    reports how well the people were found (keypoints within one cell). A top-down network sees N
    crops, decoded one after the other: its figure is that of all N together.

    --poses lines are {"frame": name, "people": …} with score and kp (x, y, score of every
    keypoint, pixels of the network's input).

    \b
    posewire bench decode paf --people 5
    posewire bench decode paf --people 5 --save frames
    posewire bench decode paf --inputs frames --poses poses.jsonl --json
    """
    _check_algorithm(algorithm)
    if (inputs is None) == (people is None):
        both = "exclude each other" if people is not None else "are both absent: give one"
        raise PosewireError(f"--inputs and --people {both}", ExitCode.USAGE)
    if people is not None:
        drawing = _Drawing(
            people,
            8 if frames is None else frames,
            _skeleton(skeleton or "coco17"),
            width,
            height,
            0.01 if noise is None else noise,
            seed or 0,
        )
        calls = _drawn(algorithm, drawing, kernels)
        if save is not None:
            _save(save, calls)
    else:
        assert inputs is not None
        _refuse(
            frames=frames,
            skeleton=skeleton,
            width=width,
            height=height,
            noise=noise,
            seed=seed,
            save=save,
        )
        calls = _stored(algorithm, inputs, kernels)
    times = _measure(calls.bench, rounds)
    found = calls.bench.poses()
    figures = _figures(algorithm, calls, times, found)
    if calls.drawn:
        figures |= _agreement(algorithm, calls.drawn, found)
    if poses is not None:
        _write_poses(poses, calls.names, found)
    _tell(figures)
    if json:
        out.figures(figures)


def _check_algorithm(algorithm: str) -> None:
    from posewire.engine_core import core as engine_core

    known = engine_core().decoders()
    if algorithm not in known:
        raise PosewireError(
            f"unknown algorithm {algorithm!r} (known: {', '.join(known)})", ExitCode.USAGE
        )


def _refuse(**options: object) -> None:
    for name, value in options.items():
        if value is not None:
            raise PosewireError(f"--{name} stands only with --people", ExitCode.USAGE)


def _stored(algorithm: str, folder: Path, kernels: str) -> _Calls:
    from posewire.decode import Decoder, DecoderBench
    from posewire.stored_outputs import MANIFEST, frame_files, read_frame, read_stored_manifest

    manifest = read_stored_manifest(folder, algorithm)
    try:
        decoder = Decoder(manifest, kernels=kernels)
    except PosewireError as error:
        if error.code != ExitCode.BUNDLE:
            raise
        what = str(error).removeprefix("manifest: ")
        raise PosewireError(f"{folder / MANIFEST}: {what}", error.code) from error
    wanted = [output["name"] for output in manifest["outputs"]]
    bench, further = DecoderBench(decoder), set[str]()
    paths = frame_files(folder)
    with out.progress() as bar:
        task = bar.add_task("read", total=len(paths), said="")
        for path in paths:
            outputs, others = read_frame(path, wanted)
            further |= others
            try:
                bench.add(outputs)
            except PosewireError as error:  # the shape; the array is named already
                raise PosewireError(f"{path}: {error}", ExitCode.SOURCE) from error
            bar.update(task, advance=1)
    if further:
        out.note(f"arrays that are no output of the manifest: {', '.join(sorted(further))}")
    names = [path.stem for path in paths]
    return _Calls(bench, manifest, decoder.kernels, names, {n: [i] for i, n in enumerate(names)})


def _skeleton(name: str) -> Skeleton:
    from posewire.skeleton import Skeleton, load_skeleton, skeleton_names

    if name in skeleton_names():
        return load_skeleton(name)
    if not name.endswith(".json"):
        known = ", ".join(skeleton_names())
        raise PosewireError(
            f"--skeleton: {name!r} is no .json file and unknown (known: {known})", ExitCode.USAGE
        )
    from posewire.strict_json import parse_json

    try:
        text = Path(name).read_bytes()
    except OSError as error:
        raise PosewireError(f"{name}: cannot be read: {error.strerror}", ExitCode.SOURCE) from error
    return Skeleton.from_dict(parse_json(text, name), f"{name}: ")


def _drawn(algorithm: str, drawing: _Drawing, kernels: str) -> _Calls:
    import numpy as np

    from posewire.decode import Decoder, DecoderBench
    from posewire.encode import SIZES, encoder, partial_manifest, render_frames

    row = encoder(algorithm)
    crops = row.mode == "top_down"
    people, frames = drawing.people, drawing.frames
    if crops and people == 0:
        raise PosewireError("--people: a top-down network sees one crop a person", ExitCode.USAGE)
    width = drawing.width or SIZES[row.mode][0]
    height = drawing.height or SIZES[row.mode][1]
    manifest = partial_manifest(algorithm, drawing.skeleton, width, height)
    decoder = Decoder(manifest, kernels=kernels)
    bench = DecoderBench(decoder)
    drawn: list[Rendered] = []
    members: dict[str, list[int]] = {}
    rng = np.random.default_rng(drawing.seed)
    rendered = render_frames(
        row, drawing.skeleton, (width, height), people, frames, drawing.noise, rng
    )
    with out.progress(unit="crops" if crops else "frames") as bar:
        task = bar.add_task("draw", total=frames * (people if crops else 1), said="")
        for one in rendered:
            name = f"frame-{one.frame:03d}"
            bench.add(one.outputs, same_frame=name in members)
            members.setdefault(name, []).append(len(drawn))
            drawn.append(one)
            bar.update(task, advance=1)
    there, wanted = sum(len(one.people) for one in drawn), people * frames
    if there < wanted:
        out.note(f"room for {there} of {wanted} people in {frames} frames of {width} x {height}")
    names = [one.name for one in drawn]
    return _Calls(bench, manifest, decoder.kernels, names, members, tuple(drawn))


def _save(folder: Path, calls: _Calls) -> None:
    from posewire.stored_outputs import write_frames

    write_frames(folder, calls.manifest, ((one.name, one.outputs) for one in calls.drawn))
    out.note(f"frames: {folder}")


def _measure(bench: DecoderBench, rounds: int) -> NDArray[np.float64]:
    """Microseconds [rounds, frames]."""
    import numpy as np

    bench.run(1)
    if rounds == 0:
        start = time.monotonic()
        bench.run(1)
        fit = int(_SECONDS / max(time.monotonic() - start, 1e-6))
        rounds = min(max(fit, _FEWEST_ROUNDS), _MOST_ROUNDS)
    pieces: list[NDArray[np.float64]] = []
    with out.progress(unit="rounds") as bar:
        task = bar.add_task("decode", total=rounds, said="")
        while (left := rounds - sum(len(piece) for piece in pieces)) > 0:
            pieces.append(bench.run(min(left, max(1, rounds // 32))))
            bar.update(task, advance=len(pieces[-1]))
    return np.concatenate(pieces)


def _figures(
    algorithm: str, calls: _Calls, times: NDArray[np.float64], found: Sequence[Poses]
) -> dict[str, Any]:
    import numpy as np

    def of(values: NDArray[np.float64]) -> dict[str, float]:
        median, p99 = np.percentile(values, (50, 99))
        return {"median_us": round(float(median), 2), "p99_us": round(float(p99), 2)}

    per_frame = []
    for taken, (name, members) in zip(times.T, calls.frames.items(), strict=True):
        people = sum(len(found[i].scores) for i in members)
        per_frame.append({"frame": name, **of(taken), "people": people})
    size = calls.manifest["input"]
    return {
        "algorithm": algorithm,
        "mode": calls.manifest.get("mode", "bottom_up"),
        "frames": len(per_frame),
        "calls_per_frame": len(calls.names) / len(per_frame),
        "rounds": len(times),
        **of(times),
        "people": sum(frame["people"] for frame in per_frame),
        "kernels": calls.kernels,
        "width": size["width"],
        "height": size["height"],
        "per_frame": per_frame,
    }


def _agreement(algorithm: str, drawn: Sequence[Rendered], found: Sequence[Poses]) -> dict[str, Any]:
    from posewire.encode import agreement, encoder

    agreed = agreement([one.people for one in drawn], found, encoder(algorithm).cell_px)
    return {
        "people_drawn": sum(len(one.people) for one in drawn),
        "recall": round(agreed.recall, 5),
        "precision": round(agreed.precision, 5),
        "error_cells": round(agreed.error_cells, 5),
    }


def _write_poses(path: Path, names: Sequence[str], found: Sequence[Poses]) -> None:
    lines = []
    for name, poses in zip(names, found, strict=True):
        people = [
            {
                "score": round(float(score), 6),
                "kp": [
                    [round(float(x), 4), round(float(y), 4), round(float(s), 6)] for x, y, s in kp
                ],
            }
            for score, kp in zip(poses.scores, poses.keypoints, strict=True)
        ]
        lines.append(json_module.dumps({"frame": name, "people": people}, allow_nan=False) + "\n")
    try:
        out.write_file(path, "".join(lines).encode())
    except OSError as error:
        raise PosewireError(f"{path}: {error.strerror}", ExitCode.CANNOT_WRITE) from error


def _tell(figures: Mapping[str, Any]) -> None:
    from rich.table import Table

    title = (
        f"{figures['algorithm']} at {figures['width']} x {figures['height']}, "
        f"{figures['kernels']}: one thread's CPU time, {figures['rounds']} rounds"
    )
    table = Table(title=title)
    table.add_column("frame")
    for name in ("median, µs", "p99, µs", "people"):
        table.add_column(name, justify="right")
    rows = figures["per_frame"]
    for row in rows[:_ROWS]:
        table.add_row(
            row["frame"], f"{row['median_us']:.1f}", f"{row['p99_us']:.1f}", str(row["people"])
        )
    if len(rows) > _ROWS:
        table.add_row(f"… {len(rows) - _ROWS} more", "", "", "")
    table.add_section()
    table.add_row(
        f"{figures['frames']} frames",
        f"{figures['median_us']:.1f}",
        f"{figures['p99_us']:.1f}",
        str(figures["people"]),
    )
    out.console().print(table)
    if figures["calls_per_frame"] != 1:
        crops = figures["calls_per_frame"]
        out.note(f"a frame is {crops:.0f} crops, one after the other, timed together")
    elif figures["mode"] == "top_down":
        out.note("a frame is one crop of a top-down network")
    if "recall" in figures:
        out.note(
            f"{figures['people_drawn']} people drawn: keypoint recall {figures['recall']:.4f}, "
            f"precision {figures['precision']:.4f}, error {figures['error_cells']:.4f} cells"
        )
