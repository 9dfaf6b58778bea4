# SPDX-License-Identifier: Apache-2.0
"""A wrong configuration is refused with file, line and key."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from posewire.trainer.algorithms import make_algorithm
from posewire.trainer.config import find_path, load_config, parse_config
from posewire.trainer.errors import TrainError

from posewire.errors import ExitCode
from posewire.skeleton import load_skeleton

Edit = Callable[[str, str], Path]
REFERENCE = Path(__file__).parents[2] / "trainer" / "configs" / "coco17_paf.toml"


def test_the_reference_configuration_is_valid() -> None:
    config = load_config(REFERENCE)
    assert config.skeleton == "coco17"
    assert config.training.schedule.minutes is not None
    make_algorithm("paf", load_skeleton("coco17"), config.model.algorithm_options)


@pytest.mark.parametrize(
    ("old", "new", "key", "line_text"),
    [
        ("batch = 2", "batch = 2\nbatsh = 3", "training.batsh: unknown key", "batsh"),
        ("batch = 2", "batch = 0", "training.batch: ", "batch"),
        ("batch = 2", 'batch = "2"', "training.batch: ", "batch"),
        ("steps = 4", "steps = -4", "training.schedule.steps: ", "steps = -4"),
        ("width = 64", "width = 65", "input.width: ", "width = 65"),
        ('images = "images"', 'images = "images"\nweigth = 2', "dataset[0].weigth", "weigth"),
        ("seed = 7", "seed = 7\nsead = 1", "sead: unknown key", "sead"),
        ('name = "dots"\n', "", "dataset[0].name: ", "[[dataset]]"),
    ],
)
def test_errors_name_file_line_and_key(
    edit: Edit, old: str, new: str, key: str, line_text: str
) -> None:
    path = edit(old, new)
    with pytest.raises(TrainError) as caught:
        load_config(path)
    message = str(caught.value)
    lines = path.read_text(encoding="utf-8").splitlines()
    number = next(i for i, text in enumerate(lines, 1) if line_text in text)
    assert message.startswith(f"{path}:{number}: ")
    assert key in message
    assert caught.value.code == ExitCode.CONFIG


def test_second_table_of_an_array_is_found(tiny: Path) -> None:
    text = (tiny / "config.toml").read_text(encoding="utf-8")
    text += '[[dataset]]\nname = "b"\nannotations = "a"\nimages = "i"\nids = "prime"\n'
    with pytest.raises(TrainError, match=r"here.toml:31: dataset\[1\]\.ids: "):
        parse_config(text, "here.toml")


def test_broken_toml_names_its_line() -> None:
    with pytest.raises(TrainError, match=r"x\.toml:2: not TOML"):
        parse_config('name = "a"\nseed = = 3\n', "x.toml")


def test_unknown_algorithm_lists_the_known() -> None:
    with pytest.raises(TrainError, match=r"unknown algorithm 'pifpif'; known are .*\bpaf\b"):
        make_algorithm("pifpif", load_skeleton("coco17"), {})
    with pytest.raises(TrainError, match=r"model\.algorithm_options\.sigma: unknown key"):
        make_algorithm("paf", load_skeleton("coco17"), {"sigma": 2})


def test_paths_are_found_beside_the_file_then_in_the_data_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data" / "x").mkdir(parents=True)
    (tmp_path / "config").mkdir()
    monkeypatch.setenv("POSEWIRE_DATA", str(tmp_path / "data"))
    assert find_path("x", tmp_path / "config", "k") == tmp_path / "data" / "x"
    (tmp_path / "config" / "x").mkdir()
    assert find_path("x", tmp_path / "config", "k") == tmp_path / "config" / "x"
    monkeypatch.delenv("POSEWIRE_DATA")
    with pytest.raises(TrainError, match=r"k: y not found.*POSEWIRE_DATA is not set") as caught:
        find_path("y", tmp_path / "config", "k")
    assert caught.value.code == ExitCode.SOURCE
