# SPDX-License-Identifier: Apache-2.0
"""``posewire doctor``: what this machine is, what it can compile and run, what to install."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from posewire.errors import ExitCode

from . import out

if TYPE_CHECKING:
    from posewire.edge.surroundings import BrokerState, CameraDevice
    from posewire.targets.examine import Verdict
    from posewire.targets.machine import Machine

_MARKS = {"runs": ("✓", "green"), "builds": ("◐", "yellow"), "no": ("✗", "red")}
_TITLES = {
    "fake": "fake",
    "openvino": "OpenVINO",
    "tensorrt": "TensorRT",
    "tensorrt_rtx": "TensorRT-RTX",
    "tflite": "TFLite",
}


def command(
    config: Annotated[
        Path | None,
        typer.Option(help="The daemon's config, for its broker; else the broker of this machine."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> ExitCode:
    """What this machine is, which targets it can compile for and run, and what to install.

    A target that is compiled here and runs elsewhere has a pending gate: the device judges it. Exit
    code 1 where no target can be run here.

    \b
    posewire doctor
    posewire doctor --config /etc/posewire/posewire.toml
    posewire doctor --json | jq '.targets[] | select(.state == "runs").name'
    """
    from posewire.edge.surroundings import broker_state, cameras
    from posewire.targets.examine import engine_rows, examine, packages
    from posewire.targets.machine import this_machine

    machine = this_machine()
    rows, installed = engine_rows(), packages()
    verdicts = examine(machine)
    devices = cameras()
    broker = broker_state(config)
    advice = list(_advice(machine, verdicts, devices, broker, rows))
    if json:
        out.figures(report(machine, rows, installed, verdicts, devices, broker, advice))
    else:
        _print(machine, rows, installed, verdicts, devices, broker, advice)
    return ExitCode.OK if any(one.state == "runs" for one in verdicts) else ExitCode.NO


def report(
    machine: Machine,
    rows: list[dict[str, Any]],
    installed: dict[str, str],
    verdicts: list[Verdict],
    devices: list[CameraDevice],
    broker: BrokerState,
    advice: list[str],
) -> dict[str, Any]:
    """What ``--json`` prints; posewire/schemas/doctor.json says what the keys mean."""
    from posewire import __version__

    facts = asdict(machine)
    cuda = facts.pop("cuda")
    return {
        "schema": "posewire.doctor/1",
        "posewire": __version__,
        "machine": {key: value for key, value in facts.items() if key != "jetson"},
        "jetson": facts["jetson"],
        "cuda": cuda,
        "engine": rows,
        "packages": {module: version or None for module, version in installed.items()},
        "targets": [asdict(one) for one in verdicts],
        "cameras": [asdict(one) for one in devices],
        "broker": asdict(broker),
        "advice": advice,
    }


def _advice(
    machine: Machine,
    verdicts: list[Verdict],
    devices: list[CameraDevice],
    broker: BrokerState,
    rows: list[dict[str, Any]],
) -> Iterator[str]:
    """What a person could do, the most important first."""
    if machine.jetson is not None and machine.jetson.reason:
        yield machine.jetson.reason
    if not rows:
        yield "the engine is not built: bash scripts/setup.sh"
    if machine.nvidia_without_driver:
        yield "for the NVIDIA GPU: its driver, from your distribution"
    for one in verdicts:
        for step in one.install:
            yield f"for {one.name}: {step}"
    for device in devices:
        if device.why:
            yield f"for {device.uri}: {device.why}"
    if broker.answers:
        return
    if broker.configured:
        yield f"for the broker {broker.url}: {broker.why}"
    elif broker.installed:
        yield "for a broker on this machine: sudo systemctl start mosquitto"
    else:
        yield f"for a broker on this machine: {_install_command(machine)} mosquitto"


def _install_command(machine: Machine) -> str:
    debian = any(word in machine.system for word in ("Debian", "Ubuntu", "Raspbian"))
    return "sudo apt install" if debian or machine.jetson is not None else "install"


def _facts(
    machine: Machine,
    rows: list[dict[str, Any]],
    installed: dict[str, str],
    devices: list[CameraDevice],
    broker: BrokerState,
) -> Iterator[tuple[str, str]]:
    if machine.model:
        yield "machine", machine.model
    if machine.jetson is not None:
        known = machine.jetson.jetpack or "of another JetPack than posewire knows"
        yield "Jetson", f"{known} (L4T {machine.jetson.l4t})"
    system = [machine.system or "unknown system", f"Linux {machine.kernel}".strip()]
    yield "system", ", ".join([*system, f"Python {machine.python}"])
    size = f"{machine.cores} cores, {machine.memory_mb / 1000:.0f} GB"
    named = machine.processor != machine.architecture
    processor = f"{machine.processor} ({machine.architecture})" if named else machine.processor
    yield "processor", f"{processor}, {size}"
    cuda = machine.cuda
    for gpu in cuda.gpus:
        driver = f"driver {cuda.driver}, " if cuda.driver else ""
        yield "GPU", f"{gpu}, {gpu.memory_mb / 1000:.0f} GB, {driver}CUDA {cuda.cuda}"
    if not cuda.gpus:
        found = "an NVIDIA GPU is there, but " if machine.nvidia_without_driver else ""
        yield "GPU", f"{found}{cuda.why}"
    ready = [
        f"{_title(row)} {str(row['version']).split('-')[0]}"
        for row in rows
        if row["available"] and row["name"] != "fake"
    ]
    yield "engine", f"runs {', '.join(ready)}" if ready else "runs no network yet"
    hidden = {"tensorrt_rtx"} if machine.jetson is not None else set()
    if not cuda.gpus and not machine.nvidia_without_driver:
        hidden = {"tensorrt", "tensorrt_rtx"}  # the GPU's own line says why
    for row in rows:
        if not row["available"] and row["name"] not in hidden:
            yield "", f"not {_title(row)}: {_short(row)}"
    packaged = [f"{module} {version}" for module, version in installed.items() if version]
    yield "packages", ", ".join(packaged) or "none of its compilers"
    yield from _around(devices, broker)


def _around(devices: list[CameraDevice], broker: BrokerState) -> Iterator[tuple[str, str]]:
    label = "cameras"
    for device in devices:
        yield label, f"{device.uri}  {device.name}{' (' + device.why + ')' if device.why else ''}"
        label = ""
    if not devices:
        yield label, "none attached; RTSP, files and synthetic:?people=5 work without one"
    state = "answers" if broker.answers else f"does not answer: {broker.why}"
    yield "broker", f"{broker.url} {state}"


def _short(row: dict[str, Any]) -> str:
    """Why a runtime is not there, without the folders that were searched."""
    why = str(row["why"]).removeprefix(f"{row['name']}: ")
    return re.sub(r" \([^)]*/[^)]*\)", "", why)


def _title(row: dict[str, Any]) -> str:
    return _TITLES.get(str(row["name"]), str(row["name"]))


def _print(
    machine: Machine,
    rows: list[dict[str, Any]],
    installed: dict[str, str],
    verdicts: list[Verdict],
    devices: list[CameraDevice],
    broker: BrokerState,
    advice: list[str],
) -> None:
    """The report for a person, on stdout."""
    from rich.console import Console
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="dim", no_wrap=True)
    facts.add_column(overflow="fold")
    for label, text in _facts(machine, rows, installed, devices, broker):
        facts.add_row(label, Text(text))
    console.print(Padding(facts, (1, 1)))

    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    here = [one for one in verdicts if one.state in _MARKS]
    for one in sorted(here, key=lambda verdict: list(_MARKS).index(verdict.state)):
        mark, colour = _MARKS[one.state]
        what = Text()
        if one.compiles:
            what.append(f"{_TITLES.get(one.runtime, one.runtime)} {' '.join(one.compiles)}")
        if one.state == "builds":
            what.append(f"; to be judged where it runs ({one.why})", "dim")
        elif one.state == "no":
            what.append(one.why, "dim")
        table.add_row(Text(mark, colour), Text(one.name, "bold" if one.compiles else ""), what)
    elsewhere = ", ".join(one.name for one in verdicts if one.state == "other")
    if elsewhere:
        table.add_row("", Text("elsewhere", "dim"), Text(elsewhere, "dim"))
    console.print(Padding(Text("Targets", "bold"), (0, 1)))
    console.print(Padding(table, (0, 1)))
    if advice:
        console.print(Padding(Text("To get further", "bold"), (1, 1, 0, 1)))
        steps = Table.grid(padding=(0, 1))
        for line in advice:
            steps.add_row("•", Text(line))
        console.print(Padding(steps, (0, 1, 1, 1)))
    else:
        console.print(Padding(Text("Nothing is missing.", "green"), (1, 1)))
