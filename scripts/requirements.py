# SPDX-License-Identifier: Apache-2.0
"""Prints pyproject.toml's build requirements, dependencies and the named extras, one a line.

pip cannot install a project's dependencies without the project itself, and the project is built
without isolation against the OpenVINO that these requirements bring.
"""

import sys
from pathlib import Path

import tomllib


def requirements(extras: list[str]) -> list[str]:
    project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())
    lines = [*project["build-system"]["requires"], *project["project"]["dependencies"]]
    for extra in extras:
        lines += project["project"]["optional-dependencies"][extra]
    return list(dict.fromkeys(lines))


if __name__ == "__main__":
    print("\n".join(requirements([extra for extra in sys.argv[1].split(",") if extra])))
