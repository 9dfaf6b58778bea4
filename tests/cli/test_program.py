# SPDX-License-Identifier: Apache-2.0
"""The program's manners: fast help, lazy verbs, one line per error, the right exit code."""

from __future__ import annotations

import importlib
import inspect
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

import posewire
from posewire import cli
from posewire.errors import ExitCode, PosewireError

HEAVY = (
    "keras",
    "tensorflow",
    "jax",
    "torch",
    "openvino",
    "onnx",
    "cv2",
    "numpy",
    "paho",
    "pydantic",
)


def run_posewire(*arguments: str, **more: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-m", "posewire.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, **more)


def test_help_names_every_verb_and_imports_nothing_heavy() -> None:
    code = (
        "import sys; from posewire import cli; cli.program(['--help']);"
        "print('loaded:', *sorted({name.split('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True
    )
    text, _, loaded = done.stdout.rpartition("loaded:")
    for verb in cli.VERBS:
        assert f" {verb} " in text
    assert not set(HEAVY) & set(loaded.split())


def test_help_takes_little_processor_time() -> None:
    before = os.times()
    assert run_posewire("--help").returncode == 0
    after = os.times()
    spent = after.children_user + after.children_system
    spent -= before.children_user + before.children_system
    assert spent < 1.0  # 0.3 s on an idle machine


@pytest.mark.parametrize("verb", cli.VERBS)
def test_every_verb_of_the_table_explains_itself_with_examples(verb: str) -> None:
    command = importlib.import_module(f"posewire.cli.{cli.VERBS[verb].module}").command
    assert f"posewire {verb}" in inspect.getdoc(command).split("\b", 1)[1]
    for name in inspect.signature(command).parameters:
        option = inspect.get_annotations(command, eval_str=True)[name].__metadata__[0]
        assert option.help or option.metavar, f"{verb}: {name} has no help"
    assert cli.load(verb).name == verb


@pytest.mark.parametrize("verb", [verb for verb in cli.VERBS if verb not in ("train", "export")])
def test_no_verb_for_devices_loads_keras(verb: str) -> None:
    code = (
        f"import sys; from posewire import cli; cli.program(['{verb}', '--help']);"
        "sys.exit(any(name in sys.modules for name in ('keras', 'tensorflow', 'openvino')))"
    )
    subprocess.run([sys.executable, "-P", "-c", code], stdout=subprocess.DEVNULL, check=True)


def test_version() -> None:
    done = run_posewire("--version")
    assert done.stdout == f"posewire {posewire.__version__}\n"
    assert done.returncode == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["sreve"], "No such command 'sreve'. Did you mean 'serve'?"),
        (["serve"], "Missing argument 'CONFIG.toml'."),
        (["serve", "--nonsense", "x"], "No such option: --nonsense"),
        (["listen", "mqtt://h", "--count", "0"], "Invalid value for '--count'"),
        (["listen", "http://h"], "url: must be mqtt://host[:port]"),
        (["run", "--model", "x"], "Missing option '--source'"),
    ],
)
def test_a_wrong_call_is_64(arguments: Sequence[str], said: str) -> None:
    done = run_posewire(*arguments)
    assert done.returncode == 64
    assert done.stdout == ""
    assert done.stderr.startswith("posewire: error: ")
    assert said in done.stderr


def test_no_verb_at_all_prints_the_help() -> None:
    done = run_posewire()
    assert done.returncode == 64
    assert "serve" in done.stdout


def _raising(error: BaseException) -> Callable[[], Any]:
    class Application:
        def main(self, **_: Any) -> None:
            raise error

    return Application


@pytest.mark.parametrize("code", ExitCode)
def test_an_expected_error_is_one_line_and_its_code(
    code: ExitCode, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("POSEWIRE_DEBUG", raising=False)
    assert cli.program([], _raising(PosewireError("door: gone\nfor good", code))) == code
    assert capsys.readouterr().err == "posewire: error: door: gone for good\n"


def test_an_unexpected_error_is_a_bug_and_says_so(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("POSEWIRE_DEBUG", raising=False)
    assert cli.program([], _raising(KeyError("x"))) == ExitCode.BUG
    said = capsys.readouterr().err
    assert said.startswith("posewire: error: KeyError: 'x'\n")
    assert "report" in said
    assert "Traceback" not in said
    monkeypatch.setenv("POSEWIRE_DEBUG", "1")
    assert cli.program([], _raising(KeyError("x"))) == ExitCode.BUG
    assert "Traceback" in capsys.readouterr().err


def test_ctrl_c_is_130() -> None:
    assert cli.program([], _raising(KeyboardInterrupt())) == 130


def test_a_reader_that_leaves_is_no_error(tmp_path: Path) -> None:
    command = f"{sys.executable} -P -m posewire.cli --help | head -c 1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert done.returncode == 0
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["serve", "absent.toml"], 78, "absent.toml: cannot read the config: No such file"),
        (["run", "--model", "m", "--source", "absent.mp4"], 66, "absent.mp4: no such file"),
        (["run", "--model", "absent", "--source", "synthetic:"], 65, "absent: does not exist"),
        (["listen", "mqtt://127.0.0.1:1"], 69, "mqtt://127.0.0.1:1: Connection refused"),
    ],
)
def test_what_is_missing_is_named(
    arguments: Sequence[str], code: int, said: str, tmp_path: Path
) -> None:
    done = run_posewire(*arguments, cwd=tmp_path)
    assert done.returncode == code
    assert said in done.stderr.splitlines()[-1]
    assert done.stdout == ""
