# SPDX-License-Identifier: Apache-2.0
"""The roof: ``posewire <verb>``, one file per verb, imported only when that verb is called.

The form of a verb, ``cli/<verb>.py``::

    def command(bundle: Annotated[Path, Argument(help="…")], ...) -> None: ...

* its docstring is the help text and ends with examples (a paragraph that starts with ``\\b`` keeps
  its line breaks; square brackets are markup there, so write none);
* it imports other storeys inside the function: ``posewire --help`` must stay fast, and a Jetson
  must never load Keras;
* it raises PosewireError for what can be expected to fail, and returns None, or an ExitCode where
  the answer may be no;
* a verb of two words ("bench decode") wins over the first word's argument of that name;
* figures go through ``out.figures(...)`` (``--json``: the last line of stdout), words to stderr.

A verb that comes later is absent from the table, not stubbed.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from inspect import cleandoc
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

import posewire
from posewire.errors import ExitCode, PosewireError

from . import out

if TYPE_CHECKING:
    from collections.abc import Sequence

_MODEL, _DEVICE = "Models (desktop)", "Poses (device)"


@dataclass(frozen=True)
class Verb:
    """One row: the module in this folder, the line in ``posewire --help``, the panel there."""

    module: str
    line: str
    panel: str


VERBS: dict[str, Verb] = {
    "train": Verb("train", "Train a pose network from a TOML file.", _MODEL),
    "evaluate": Verb("evaluate", "COCO AP of a bundle on labelled pictures.", _MODEL),
    "export": Verb("export", "Turn a training run into a portable bundle.", _MODEL),
    "import": Verb("import_network", "Turn a third-party network into a bundle.", _MODEL),
    "compile": Verb("compile", "Compile a portable bundle for one target.", _MODEL),
    "inspect": Verb("inspect", "Show what a bundle holds.", _MODEL),
    "verify": Verb("verify", "Check a bundle: schema, sizes, checksums.", _MODEL),
    "run": Verb("run", "Poses from a source to files, without a broker.", _DEVICE),
    "serve": Verb("serve", "The daemon: cameras in, poses out over MQTT.", _DEVICE),
    "update": Verb("update", "Give a running node another bundle, or the old one back.", _DEVICE),
    "first-boot": Verb("first_boot", "Make a flashed device a node, once.", _DEVICE),
    "listen": Verb("listen", "Print the poses that a broker carries, a line a frame.", _DEVICE),
    "bench": Verb("bench", "Frames per second against the ceiling of inference alone.", _DEVICE),
    "bench decode": Verb("bench_decode", "Microseconds a frame of one decoder.", _DEVICE),
    "doctor": Verb("doctor", "What this machine can compile and run, what is missing.", _DEVICE),
}


class _Verbs(TyperGroup):
    """Knows every verb's name and line; loads a verb's module when it is called, not before."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if " ".join(args[:2]) in VERBS:
            args = [" ".join(args[:2]), *args[2:]]
        name, _, rest = super().resolve_command(ctx, args)
        return name, None if name is None else load(name), rest


def load(name: str) -> Any:
    """The command of one row of VERBS, with its module imported."""
    verb = VERBS[name]
    single = typer.Typer(add_completion=False, rich_markup_mode="rich")
    command = import_module(f".{verb.module}", __package__).command
    single.command(name, help=_flowing(command.__doc__ or verb.line))(command)
    return typer.main.get_command(single)


_EPILOG = (
    "Every verb explains itself: posewire VERB --help. Exit codes: 0 fine, 1 the answer is no, "
    "64 usage, 65 bundle, 66 source, 69 device or broker unavailable, 70 bug, 73 cannot write, "
    "78 config, 130 Ctrl-C."
)


def _flowing(docstring: str) -> str:
    """A docstring as help: paragraphs without the source's line breaks, but for ``\\b`` ones."""
    paragraphs = cleandoc(docstring).split("\n\n")
    return "\n\n".join(
        text if text.startswith("\b") else " ".join(text.split("\n")) for text in paragraphs
    )


def _version(wanted: bool) -> None:
    if wanted:
        print(f"posewire {posewire.__version__}")
        raise typer.Exit(ExitCode.OK)


def _root(
    ctx: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show tracebacks and debug logs (or POSEWIRE_DEBUG=1).")
    ] = False,
) -> ExitCode | None:
    """Train a human-pose network, compile it for each device, put poses on the wire."""
    if debug:
        os.environ["POSEWIRE_DEBUG"] = "1"  # children (compile, engine) inherit it
    if ctx.invoked_subcommand is None:
        print(ctx.get_help())
        raise typer.Exit(ExitCode.USAGE)
    return None


def _application() -> Any:
    app = typer.Typer(cls=_Verbs, add_completion=False, rich_markup_mode="rich")
    app.callback(invoke_without_command=True, epilog=_EPILOG)(_root)

    def unloaded() -> None:  # only its name and line are ever looked at
        raise AssertionError("a verb was called without being loaded")

    for name, verb in VERBS.items():
        app.command(name, help=verb.line, rich_help_panel=verb.panel)(unloaded)
    return typer.main.get_command(app)


def program(arguments: Sequence[str], application: Callable[[], Any] = _application) -> int:
    """The whole program but for sys.exit: returns the exit code, errors already on stderr."""
    try:
        result = application().main(
            args=list(arguments), prog_name="posewire", standalone_mode=False
        )
        sys.stdout.flush()
        return int(result) if isinstance(result, int) else ExitCode.OK
    except (KeyboardInterrupt, typer.Abort):
        return ExitCode.INTERRUPTED
    except PosewireError as error:
        _trace()
        out.error(str(error))
        return error.code
    except typer.TyperException as error:  # whatever the option parser refuses
        out.error(error.format_message())
        context = getattr(error, "ctx", None)
        if context is not None:
            out.note(f"try: {context.command_path} --help")
        return ExitCode.USAGE
    except (BrokenPipeError, SystemExit):  # our reader left (`… | head`); typer then exits
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - for the flush at interpreter exit
        return ExitCode.OK
    except Exception as error:  # ours to mend
        _trace()
        out.error(f"{type(error).__name__}: {error}")
        out.note(
            "this is a bug in posewire; please report it with the command and the output of "
            "`posewire --debug …`"
        )
        return ExitCode.BUG


def _trace() -> None:
    if os.environ.get("POSEWIRE_DEBUG"):
        traceback.print_exc()


def main() -> None:
    """Entry point of the ``posewire`` program."""
    sys.exit(program(sys.argv[1:]))
