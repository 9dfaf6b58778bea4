# SPDX-License-Identifier: Apache-2.0
"""Every shipped recipe against its compiler, and every mistake in one with its key."""

from __future__ import annotations

from pathlib import Path

import pytest
from posewire.targets import TargetError, recipes
from posewire.targets.compiler import COMPILERS, compiler_of
from posewire.targets.recipe import load_recipe

from posewire.errors import ExitCode
from posewire.manifest import FORMATS, PRECISIONS

GOOD = """
[box]
runtime = "openvino"
precisions = ["fp32", "int8"]
max_batch = 1
max_ap_drop = 0.01
max_disagreement = 0.05
"""


@pytest.mark.parametrize("name", sorted(recipes()))
def test_a_shipped_recipe_fits_its_compiler(name: str) -> None:
    recipe = load_recipe(name)
    compiler = compiler_of(recipe)
    assert recipe.runtime in COMPILERS
    for precision, (form, kind) in compiler.ARTIFACTS.items():
        assert precision in PRECISIONS
        assert form in FORMATS
        assert kind in PRECISIONS


def written(folder: Path, text: str) -> Path:
    (folder / "one").mkdir(exist_ok=True)
    (folder / "one" / "recipe.toml").write_text(text)
    return folder


def test_a_recipe_written_by_hand(tmp_path: Path) -> None:
    recipe = load_recipe("box", written(tmp_path, GOOD))
    assert recipe.precisions == ("fp32", "int8")
    assert recipe.options == {}
    optional = GOOD + '[box.options]\nmachines = ["riscv64"]\n'
    other = load_recipe("box", written(tmp_path, optional))
    assert other.options == {"machines": ["riscv64"]}
    assert other.sha256 != recipe.sha256
    why = compiler_of(other).missing("fp32", other)
    assert why is not None
    assert "box is for riscv64" in why


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("max_batch = 1", "max_batch = 0", "box.max_batch: must be a positive"),
        ("max_batch = 1", "max_batch = true", "box.max_batch: must be a positive"),
        ("max_batch = 1", "", "box.max_batch: is missing"),
        ("max_batch = 1", "max_batch = 1\nfast = 1", "box.fast: unknown key"),
        ("0.01", "1.5", "box.max_ap_drop: must be a number between 0 and 1"),
        ('["fp32", "int8"]', "[]", "box.precisions: must be a list"),
        ('["fp32", "int8"]', '["fp32", "fp8"]', r"box.precisions\[1\]: must be one of"),
        ('["fp32", "int8"]', '["fp32", "fp32"]', r"box.precisions\[1\]: .* once"),
        ('"openvino"', "7", "box.runtime: must be a string"),
        ("[box]", "[box]\noptions = 3", "box.options: must be a table"),
        ("[box]", "box = 3\n[other]", "box: must be a table"),
    ],
)
def test_mistakes_in_the_file(tmp_path: Path, old: str, new: str, why: str) -> None:
    with pytest.raises(TargetError, match=why) as caught:
        load_recipe("box", written(tmp_path, GOOD.replace(old, new)))
    assert caught.value.code == ExitCode.CONFIG


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (GOOD.replace('"openvino"', '"abacus"'), "box.runtime: no compiler for 'abacus'"),
        (GOOD.replace('"int8"', '"int8-u8"'), "box.precisions: openvino is not compiled for int8"),
        (GOOD + "[box.options]\nspeed = 9\n", "box.options.speed: unknown key; openvino reads"),
        (GOOD + "[box.options]\nmachines = 9\n", "box.options.machines: must be list"),
    ],
)
def test_mistakes_that_the_compiler_sees(tmp_path: Path, text: str, why: str) -> None:
    recipe = load_recipe("box", written(tmp_path, text))
    with pytest.raises(TargetError, match=why) as caught:
        compiler_of(recipe)
    assert caught.value.code == ExitCode.CONFIG
