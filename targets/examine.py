# SPDX-License-Identifier: Apache-2.0
"""Which targets this machine can compile for and run, and what to install for the rest."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib import import_module, metadata
from importlib.util import find_spec

from .compiler import compiler_of
from .errors import TargetError
from .machine import Machine
from .recipe import Recipe, recipes

# Packages that matter here: the distributions that bring them, for their versions.
PACKAGES = {
    "openvino": ("openvino",),
    "tensorrt": ("tensorrt", "tensorrt-cu13", "tensorrt-cu12"),
    "tensorrt_rtx": ("tensorrt-rtx-cu13", "tensorrt-rtx-cu12", "tensorrt-rtx"),
    "ai_edge_litert": ("ai-edge-litert",),
    "onnxruntime": ("onnxruntime", "onnxruntime-gpu"),
}


@dataclass(frozen=True)
class Verdict:
    """One target.

    state     "runs": compiled and run here; "builds": compiled here, run elsewhere (the gate is
              pending); "no": neither, though the machine is of the kind; "other": the target is for
              another kind of machine
    compiles  the precisions that can be built here
    reasons   why not, by precision
    why       the line to show: why it is not "runs"; "" where it is
    install   what would change that, a command or a sentence each; empty where nothing would
    """

    name: str
    runtime: str
    state: str
    compiles: tuple[str, ...]
    reasons: dict[str, str] = field(default_factory=dict)
    why: str = ""
    install: tuple[str, ...] = ()


def examine(machine: Machine) -> list[Verdict]:
    """A verdict per target, in the order of the recipes' folders."""
    return [_examined(recipe, machine) for recipe in recipes().values()]


def _examined(recipe: Recipe, machine: Machine) -> Verdict:
    other = _other_machine(recipe, machine)
    if other:
        return Verdict(recipe.name, recipe.runtime, "other", (), why=other)
    compiles: list[str] = []
    reasons: dict[str, str] = {}
    why = ""
    try:
        compiler = compiler_of(recipe)
        for precision in recipe.precisions:
            missing = compiler.missing(precision, recipe)
            if missing is None:
                compiles.append(precision)
            else:
                reasons[precision] = missing
        if compiles:
            compiler.version(recipe)  # raises where the engine's runtime is another than Python's
            why = compiler.runs_here(recipe) or ""
    except TargetError as error:
        compiles, why = [], str(error)
    except Exception as error:  # another's library, broken in its own way: doctor goes on
        compiles, why = [], f"{recipe.runtime} is broken: {type(error).__name__}: {error}"
    if not compiles:
        why = why or next(iter(reasons.values()), "")
        state = "no"
    else:
        state = "builds" if why else "runs"
    install = _install(recipe, machine, state) if why else ()
    return Verdict(recipe.name, recipe.runtime, state, tuple(compiles), reasons, why, install)


def _install(recipe: Recipe, machine: Machine, state: str) -> tuple[str, ...]:
    """What is not there and could be."""
    if recipe.options.get("refused"):
        return ()
    wanted: list[str] = []
    nvidia = machine.cuda.gpus or machine.nvidia_without_driver
    if recipe.runtime in ("tensorrt", "tensorrt_rtx") and not nvidia:
        return ()  # no GPU of theirs, so nothing to install
    module, command = _PYTHON.get(recipe.runtime, ("", ""))
    if recipe.runtime == "tensorrt" and machine.jetson is not None:
        command = (
            "sudo apt install tensorrt python3-libnvinfer, and make the virtual environment with "
            "--system-site-packages"
        )
    if module and find_spec(module) is None:
        wanted.append(command)
    row = next((row for row in engine_rows() if row["name"] == recipe.runtime), None)
    if state != "no" and not wanted and (row is None or not row["available"]):
        wanted.append(f"an engine with {recipe.runtime}: see docs/targets.md")
    return tuple(wanted)


# runtime -> the module that its compiler imports, and what brings it
_PYTHON = {
    "openvino": ("openvino", "pip install openvino"),
    "tensorrt": ("tensorrt", "pip install tensorrt"),
    "tensorrt_rtx": ("tensorrt_rtx", "pip install tensorrt-rtx-cu13"),
    "tflite": ("ai_edge_litert", "pip install ai-edge-litert"),
}


def _other_machine(recipe: Recipe, machine: Machine) -> str:
    """Which machine the target is for, where it is not this kind; else ""."""
    machines = recipe.options.get("machines")
    if isinstance(machines, list) and machine.architecture not in machines:
        return ", ".join(machines)
    wanted = recipe.options.get("compute_capabilities")
    kinds = [gpu.compute_capability for gpu in machine.cuda.gpus]
    if isinstance(wanted, list) and kinds and not set(kinds) & set(wanted):
        return "GPUs of " + ", ".join(f"sm_{number}" for number in wanted)
    return ""


def engine_rows() -> list[dict[str, object]]:
    """The engine's runtimes: name, version, available, why. Empty where it was not built."""
    try:
        core = import_module("posewire._core")
    except ImportError:
        return []
    return [dict(row) for row in core.runtimes()]


def packages() -> dict[str, str]:
    """Module -> version, "" where it is not installed. Imports nothing."""
    found = {}
    for module, distributions in PACKAGES.items():
        found[module] = ""
        if find_spec(module) is None:
            continue
        found[module] = "unknown"
        for name in distributions:
            try:
                found[module] = metadata.version(name)
                break
            except metadata.PackageNotFoundError:
                continue
    return found
