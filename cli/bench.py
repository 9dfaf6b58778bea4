# SPDX-License-Identifier: Apache-2.0
"""``posewire bench``: frames per second end to end against the ceiling of inference alone."""

from __future__ import annotations

import json as json_module
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from posewire.errors import ExitCode, PosewireError

from . import out
from .compile import phases

_PICTURES = 32  # of the source, for the ceiling: not one frame again and again


def command(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="Portable or compiled.")],
    source: Annotated[str, typer.Option(help="A video, a folder, or any address of `run`.")],
    seconds: Annotated[
        float, typer.Option(min=0, help="End to end for so long at most; 0: to the source's end.")
    ] = 0.0,
    ceiling_seconds: Annotated[
        float, typer.Option(min=0.1, help="Inference alone, before and again after each run.")
    ] = 3.0,
    rounds: Annotated[int, typer.Option(min=1, help="Runs, each between two ceilings.")] = 1,
    precision: Annotated[
        str, typer.Option(help="What a portable bundle is compiled to (cached).")
    ] = "auto",
    target: Annotated[str | None, typer.Option(help="Default: this machine's.")] = None,
    requests: Annotated[int, typer.Option(min=0, help="In flight; 0: the runtime's choice.")] = 0,
    threads: Annotated[int, typer.Option(min=0, help="0: the runtime's choice.")] = 0,
    json: Annotated[bool, typer.Option("--json", help="End with the figures as JSON.")] = False,
) -> None:
    """Measure the pipeline against its ceiling: the same network alone, on the same cores.

    The ceiling is measured before and after each run, with frames of the source, and every request
    in flight. End to end is everything from reading the source to the finished message, without
    sinks. Several rounds: the figures are those of the round whose ratio is the median.

    A decoder alone is another verb, posewire bench decode (a bundle in a folder of that name is
    ./decode).

    \b
    posewire bench models/coco17 --source vtest.avi --json
    posewire bench decode paf --people 5
    """
    from posewire.bundle import verify_bundle
    from posewire.engine_core import core as engine_core

    compiled = bundle
    if verify_bundle(bundle).target is None:
        from posewire.edge.prepare import default_target
        from posewire.targets import compile_bundle

        with phases() as progress:
            made = compile_bundle(bundle, target or default_target(), precision, progress=progress)
        compiled = made.path
    ran = verify_bundle(compiled).target
    assert ran is not None
    pictures = engine_core().read_frames(source, _PICTURES)
    if not pictures:
        raise PosewireError(f"{source}: has no frames", ExitCode.SOURCE)

    def ceiling() -> Any:
        return engine_core().bench_inference(
            str(compiled), ceiling_seconds, requests, threads, pictures
        )

    results = []
    with out.progress(unit="frames") as bar:
        for turn in range(rounds):
            task = bar.add_task(f"round {turn + 1}", total=None, said="ceiling")
            before = ceiling()
            bar.update(task, said="end to end")
            run = _end_to_end(
                compiled,
                source,
                seconds,
                requests,
                threads,
                lambda frames, task=task: bar.update(task, completed=frames),  # type: ignore[misc]
            )
            bar.update(task, said="ceiling")
            results.append(_round(run, before, ceiling()))
            bar.update(task, said="", total=results[-1]["frames_out"])
    figures = sorted(results, key=lambda one: one["ratio"])[(len(results) - 1) // 2]
    figures |= {
        "ratios": [one["ratio"] for one in results],
        "bundle": str(compiled),
        "precision": ran.precision,
        "runtime": f"{ran.runtime} {ran.runtime_version}",
        "device": ran.device,
        "source": source,
    }
    _tell(figures)
    if json:
        out.figures(figures)


def _end_to_end(
    bundle: Path,
    source: str,
    seconds: float,
    requests: int,
    threads: int,
    progress: Callable[[int], None],
) -> dict[str, Any]:
    """The whole run's stats event, and how many frames came out."""
    from posewire.engine_core import core as engine_core

    config = {
        "schema": 1,
        "node": "bench",
        "bundle": str(bundle.absolute()),
        "requests": requests,
        "threads": threads,
        "sources": [{"camera": "bench", "uri": source}],
        "sinks": [],
        "stats_interval_ms": 500,
        "retry": False,
    }
    stats: dict[str, Any] = {}
    pipeline = engine_core().Pipeline(json_module.dumps(config))
    end = 0.0
    while (event := pipeline.next_event()) is not None:
        if event["event"] == "ready":
            end = time.monotonic() + seconds if seconds > 0 else float("inf")
            ready = event
        elif event["event"] == "stats":
            stats = event
            progress(sum(camera["published"] for camera in event["cameras"]))
            if time.monotonic() > end:
                pipeline.stop()
        elif event["event"] == "warning":
            out.note(f"{event['where']}: {event['what']}")
        elif event["event"] == "stopped":
            if event["code"] != ExitCode.OK:
                raise PosewireError(event["why"], ExitCode(event["code"]))
            return {**stats, "ready": ready, "frames": event["frames"]}
    raise PosewireError("the pipeline ended without saying so", ExitCode.BUG)


def _round(run: dict[str, Any], before: Any, after: Any) -> dict[str, Any]:
    ceiling = (before["fps"] + after["fps"]) / 2
    captured = sum(camera["captured"] for camera in run["cameras"])
    return {
        "fps": round(run["fps"], 2),
        "ceiling_fps": round(ceiling, 2),
        "ratio": round(run["fps"] / ceiling, 4),
        "latency_ms": run["latency_ms"],
        "frames_in": captured,
        "frames_out": run["frames"],
        "dropped": sum(camera["dropped"] for camera in run["cameras"]),
        "ceilings_fps": [round(one["fps"], 2) for one in (before, after)],
        "requests": run["ready"]["requests"],
        "max_batch": run["ready"]["max_batch"],
        "operators": run["operators"],
    }


def _tell(figures: dict[str, Any]) -> None:
    out.note(
        f"{figures['precision']}: {figures['fps']:.1f} frames a second end to end, "
        f"{figures['ceiling_fps']:.1f} inference alone: ratio {figures['ratio']:.3f}"
    )
    latency = figures["latency_ms"]
    out.note(
        f"latency p50 {latency['p50']:.1f} ms, p99 {latency['p99']:.1f} ms; "
        f"{figures['frames_in']} frames in, {figures['frames_out']} out, "
        f"{figures['dropped']} dropped"
    )
    for row in figures["operators"]:
        busy = row["busy_ms"] / max(1, row["frames"])
        out.note(f"  {row['name']}: {busy:.2f} ms a frame")
