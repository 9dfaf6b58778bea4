# SPDX-License-Identifier: Apache-2.0
"""Who may know whom (docs/design.md 1): Python by its syntax tree, C++ by its #include lines."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# storey -> posewire.<storeys> it may import besides its own and the ground floor
STOREYS = {"posewire": set(), "trainer": set(), "targets": set(), "edge": set()}
STOREYS["cli"] = {"trainer", "targets", "edge"}

# library -> libraries whose headers it may include besides its own
FLOORS = {
    "core": set(),
    "flow": {"core"},
    "io": {"core"},
    "bundle": {"core"},
    "decode": {"core", "bundle"},
    "infer": {"core", "bundle"},
    "track": {"core", "bundle"},
    "pipeline": {"core", "flow", "io", "bundle", "decode", "infer", "track"},
}
FLOORS["app"] = FLOORS["pipeline"] | {"pipeline"}


def imported_storeys(source: str, storey: str, depth: int) -> set[str]:
    """Storeys that a module reaches; `depth`: folders between it and the storey's root."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            base = node.module or ""
            names = [f"{base}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and storey != "posewire" and node.level > depth + 1:
            found.add("a relative import out of the storey")
        for name in names:
            words = name.split(".")
            if words[0] in STOREYS and words[0] != "posewire":
                found.add(f"bare import of {words[0]}")  # a second identity of the same module
            elif words[0] == "posewire":
                found.add(words[1] if len(words) > 1 and words[1] in STOREYS else "posewire")
    return found - {storey, "posewire"}


def python_violations(storey: str, path: Path, source: str) -> set[str]:
    depth = len(path.relative_to(ROOT / storey).parts) - 1
    return imported_storeys(source, storey, depth) - STOREYS[storey]


def cpp_violations(floor: str, source: str) -> set[str]:
    included = set(re.findall(r'#include "([a-z]+)/', source))
    foreign = set(re.findall(r"#include <(opencv2|openvino|thread|mutex)", source))
    if floor != "decode":
        foreign = set()  # only the decoders must know no thread, no OpenCV and no device
    return (included & set(FLOORS)) - FLOORS[floor] - {floor} | foreign


@pytest.mark.parametrize("storey", STOREYS)
def test_python_storeys(storey: str) -> None:
    files = sorted((ROOT / storey).rglob("*.py"))
    assert files, f"{storey}/ holds no Python"
    wrong = {str(f.relative_to(ROOT)): python_violations(storey, f, f.read_text()) for f in files}
    assert {name: names for name, names in wrong.items() if names} == {}


@pytest.mark.parametrize("floor", [floor for floor in FLOORS if (ROOT / "cpp" / floor).is_dir()])
def test_cpp_floors(floor: str) -> None:
    files = sorted((ROOT / "cpp" / floor).rglob("*.[ch]*"))
    assert files, f"cpp/{floor}/ holds no C++"
    wrong = {str(f.relative_to(ROOT)): cpp_violations(floor, f.read_text()) for f in files}
    assert {name: names for name, names in wrong.items() if names} == {}


@pytest.mark.parametrize(
    ("storey", "source"),
    [
        ("posewire", "import posewire.trainer.train"),
        ("trainer", "from posewire import edge"),
        ("targets", "from ..edge import daemon"),
        ("edge", "import targets"),
        ("edge", "def f():\n    from posewire.cli import main"),
    ],
)
def test_planted_python_violation_is_found(storey: str, source: str) -> None:
    assert python_violations(storey, ROOT / storey / "x.py", source)


@pytest.mark.parametrize(
    ("floor", "source"),
    [
        ("core", '#include "flow/channel.h"'),
        ("infer", '#include "decode/decoder.h"'),
        ("decode", "#include <thread>"),
        ("flow", '#include "pipeline/pipeline.h"'),
    ],
)
def test_planted_cpp_violation_is_found(floor: str, source: str) -> None:
    assert cpp_violations(floor, source)
