# SPDX-License-Identifier: Apache-2.0
"""``posewire run``: poses from a source to files or a window, without a broker."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Annotated, Any

import typer

from posewire.errors import ExitCode

from . import out


def command(
    model: Annotated[Path, typer.Option(help="A bundle; a portable one is compiled (cached).")],
    source: Annotated[
        str, typer.Option(help="file, folder, v4l2:/dev/video0, rtsp://…, http://…, synthetic:…")
    ],
    save: Annotated[
        Path | None, typer.Option(help="Video with the poses drawn in, for instance out.mp4.")
    ] = None,
    json: Annotated[
        Path | None, typer.Option(help="The messages, one per line, for instance out.jsonl.")
    ] = None,
    show: Annotated[bool, typer.Option("--show", help="Show a window.")] = False,
    realtime: Annotated[
        bool, typer.Option("--realtime", help="Files at their own pace, not as fast as possible.")
    ] = False,
    loop: Annotated[bool, typer.Option("--loop", help="Files again and again.")] = False,
    min_score: Annotated[
        float, typer.Option(min=0, max=1, help="People below are not reported.")
    ] = 0.0,
    precision: Annotated[
        str, typer.Option(help="fp32, fp16, bf16, int8 or auto; for a portable bundle.")
    ] = "auto",
    target: Annotated[
        str | None, typer.Option(help="Compile for this target; default: this machine's.")
    ] = None,
    requests: Annotated[int, typer.Option(min=0, help="In flight; 0: the runtime's choice.")] = 0,
    threads: Annotated[int, typer.Option(min=0, help="0: the runtime's choice.")] = 0,
) -> ExitCode:
    """Find poses in a video, a folder of pictures or a camera, without a broker.

    Ctrl-C drains and finishes the outputs; a second one does not wait. A half-written output never
    replaces a good one.

    \b
    posewire run --model models/coco17 --source clip.mp4 --save out.mp4 --json out.jsonl
    posewire run --model models/coco17 --source v4l2:/dev/video0 --show
    """
    from posewire.edge.config import Camera, SinkFile
    from posewire.edge.config import Engine as EngineKeys
    from posewire.edge.errors import EdgeError
    from posewire.edge.oneshot import run_once
    from posewire.edge.prepare import compiled_bundle
    from posewire.edge.sources import frames_in, path_of

    out.logs(quiet=True)
    if precision not in ("fp32", "fp16", "bf16", "int8", "auto"):
        raise typer.BadParameter(f"{precision!r}: fp32, fp16, bf16, int8 or auto")
    sinks = [SinkFile(kind="video", path=save.absolute())] if save else []
    sinks += [SinkFile(kind="ndjson", path=json.absolute())] if json else []
    path = path_of(source)
    if path is not None and not path.exists():
        raise EdgeError(f"{source}: no such file or folder", ExitCode.SOURCE)
    camera = Camera(uri=source, realtime=realtime, loop=loop)
    keys = EngineKeys(requests=requests, threads=threads, min_score=min_score)
    total = None if loop else frames_in(source)
    with _Interrupt() as interrupt, out.progress() as bar:
        task = bar.add_task("compiling", total=None, said="")
        bundle = compiled_bundle(
            model,
            target=target,
            precision=precision,
            stopping=lambda: interrupt.count > 0,
            say=lambda line: bar.update(task, said=line[:60]),
        )
        bar.update(task, description="loading", total=total, said="")

        def tell(progress: Any) -> None:
            said = f"{progress.fps:6.1f} fps  {progress.people:2d} people"
            doing = "loading" if progress.ready_s is None else "running"
            doing = "finishing" if interrupt.count else doing
            bar.update(task, description=doing, completed=progress.frames, said=said)

        done = run_once(
            bundle,
            camera,
            keys=keys,
            sinks=sinks,
            show=show,
            on_progress=tell,
            stopping=lambda: interrupt.count,
        )
        if interrupt.count == 0:
            bar.update(task, description="done", total=done.frames)
    people = done.people_in_all / done.frames if done.frames else 0.0
    out.note(f"{done.frames} frames, {people:.2f} people a frame, {done.fps:.1f} fps")
    for sink in sinks:
        out.note(f"{sink.kind}: {sink.path}")
    return ExitCode.INTERRUPTED if interrupt.count else ExitCode.OK


class _Interrupt:
    """Counts Ctrl-C and SIGTERM instead of being torn out of the middle of something."""

    def __init__(self) -> None:
        self.count = 0

    def __enter__(self) -> _Interrupt:
        self._old = {number: signal.signal(number, self._on_signal) for number in (2, 15)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)

    def _on_signal(self, *_: object) -> None:
        self.count += 1
