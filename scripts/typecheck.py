# SPDX-License-Identifier: Apache-2.0
"""mypy --strict over the package as it is installed.

The folders are mapped into one package only by the build (pyproject.toml, wheel.packages), and mypy
sees few files of an editable install. So the mapping is laid out with links in build/typecheck and
that is checked.
"""

import os
import subprocess
import sys
from pathlib import Path

import tomllib

ROOT = Path(__file__).resolve().parent.parent


def lay_out(stage: Path) -> None:
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["scikit-build"]["wheel"]
    for name, folder in packages["packages"].items():
        for source in sorted((ROOT / folder).rglob("*")):
            if source.suffix not in {".py", ".pyi", ".typed"}:
                continue
            link = stage / name / source.relative_to(ROOT / folder)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(source)


def main() -> int:
    stage = ROOT / "build" / "typecheck"
    for old in sorted(stage.rglob("*"), reverse=True):
        old.rmdir() if old.is_dir() and not old.is_symlink() else old.unlink()
    lay_out(stage)
    command = [sys.executable, "-m", "mypy", "--config-file", str(ROOT / "pyproject.toml")]
    # From another folder: from the root, ./posewire would be found first, without its storeys.
    return subprocess.run(
        [*command, "-p", "posewire"],
        cwd=stage.parent,
        env={**os.environ, "MYPYPATH": str(stage)},
        check=False,
    ).returncode


if __name__ == "__main__":
    sys.exit(main())
