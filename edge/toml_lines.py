# SPDX-License-Identifier: Apache-2.0
"""Where in a TOML text a key stands. The standard library's reader keeps no positions.

A scanner over lines, for texts that the real reader has already accepted. It knows table headers
(``[a.b]``, ``[[a]]``), dotted and quoted keys, multi-line strings and arrays. Its limits: keys
inside an inline table or an array are found at the line where that value begins, and backslash
escapes inside quoted keys are not decoded (such a key is then found at its table's line). A path
that it does not know gets the line of its longest known beginning.
"""

from __future__ import annotations

import re

Path = tuple[str | int, ...]

_PART = r"""(?:[A-Za-z0-9_-]+|"[^"\n]*"|'[^'\n]*')"""
_DOTTED = rf"{_PART}(?:\s*\.\s*{_PART})*"
_HEADER = re.compile(rf"\s*(\[\[?)\s*({_DOTTED})\s*\]")
_KEY = re.compile(rf"\s*({_DOTTED})\s*=")
_TOKEN = re.compile(
    r'''"""|\'\'\'|"(?:\\.|[^"\\\n])*"|'[^'\n]*'|\#.*|[\[\]{}]''',
)


def lines_of(text: str) -> dict[Path, int]:
    """Key paths to 1-based line numbers; an element of an array of tables has its index in it."""
    found: dict[Path, int] = {(): 1}
    table: Path = ()
    elements: dict[Path, int] = {}  # arrays of tables: how many so far
    depth, quote = 0, ""
    for number, line in enumerate(text.splitlines(), start=1):
        if depth == 0 and not quote:
            header, key = _HEADER.match(line), _KEY.match(line)
            if header and not key:
                table = _with_indices(_split(header[2]), elements)
                if header[1] == "[[":
                    elements[table] = elements.get(table, -1) + 1
                    table = (*table, elements[table])
                for length in range(1, len(table) + 1):
                    found.setdefault(table[:length], number)
                continue
            if key:
                path = (*table, *_split(key[1]))
                for length in range(len(table) + 1, len(path) + 1):
                    found.setdefault(path[:length], number)
                line = line[key.end() :]
        depth, quote = _open_after(line, depth, quote)
    return found


def line_of(found: dict[Path, int], path: Path) -> int:
    """The line of a path, else of the longest beginning of it that stands in the text."""
    for length in range(len(path), 0, -1):
        if path[:length] in found:
            return found[path[:length]]
    return 1


def _split(dotted: str) -> Path:
    return tuple(part.strip("\"'") for part in re.findall(_PART, dotted))


def _with_indices(path: Path, elements: dict[Path, int]) -> Path:
    """``[a.b]`` below ``[[a]]`` means the last element of a."""
    full: Path = ()
    for position, name in enumerate(path):
        full = (*full, name)
        if full in elements and position < len(path) - 1:
            full = (*full, elements[full])
    return full


def _open_after(line: str, depth: int, quote: str) -> tuple[int, str]:
    """Bracket depth and the open multi-line quote after this line."""
    position = 0
    while position < len(line):
        if quote:
            end = line.find(quote, position)
            if end < 0:
                return depth, quote
            position, quote = end + 3, ""
            continue
        token = _TOKEN.search(line, position)
        if token is None:
            break
        position = token.end()
        if token[0] in ('"""', "'''"):
            quote = token[0]
        elif token[0] in "[{":
            depth += 1
        elif token[0] in "]}":
            depth -= 1
    return depth, quote
