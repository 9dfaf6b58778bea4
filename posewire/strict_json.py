# SPDX-License-Identifier: Apache-2.0
"""Strict JSON, and a cursor over it whose every check ends in a typed value or a BundleError."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NoReturn, TypeVar

from .errors import BundleError

_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}")
_T = TypeVar("_T")


def parse_json(text: bytes, file: str) -> Any:
    """Strict JSON: UTF-8, no key twice in one object, no NaN or Infinity. Raises BundleError."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key, value in pairs:
            if key in result:
                raise BundleError(f"{file}: {brief(key)} appears twice in one object")
            result[key] = value
        return result

    def refuse(word: str) -> NoReturn:
        raise BundleError(f"{file}: {word} is not JSON")

    try:
        return json.loads(text.decode("utf-8"), object_pairs_hook=once, parse_constant=refuse)
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError is a ValueError
        raise BundleError(f"{file}: not JSON: {error}") from error


class At:
    """A JSON value and where it stands; every check ends in a typed value or a BundleError."""

    def __init__(self, value: Any, file: str, path: str = "") -> None:
        self.value, self._file, self.path = value, file, path

    def fail(self, what: str) -> NoReturn:
        raise BundleError(f"{self._file}: {self.path + ': ' if self.path else ''}{what}")

    def has(self, key: str) -> bool:
        return key in self.value

    def __getitem__(self, key: str) -> At:
        path = f"{self.path}.{key}" if self.path else key
        return At(self.value[key], self._file, path)

    def object(self, required: tuple[str, ...], optional: tuple[str, ...] = ()) -> At:
        self.mapping()
        for key in self.value:
            if key not in required and key not in optional:
                shown = key if _PLAIN.fullmatch(key) else ascii(key)
                known = ", ".join(required + optional)
                At(0, self._file, f"{self.path}.{shown}" if self.path else shown).fail(
                    f"unknown key; known are {known}"
                )
        for key in required:
            if key not in self.value:
                path = f"{self.path}.{key}" if self.path else key
                At(0, self._file, path).fail("is missing")
        return self

    def mapping(self) -> Mapping[str, Any]:
        if not isinstance(self.value, dict):
            self.fail("must be an object")
        return self.value

    def items(self, least: int = 0) -> Iterator[At]:
        if not isinstance(self.value, list):
            self.fail("must be a list")
        if len(self.value) < least:
            self.fail("must not be empty" if least == 1 else f"must have {least} entries")
        for i, value in enumerate(self.value):
            yield At(value, self._file, f"{self.path}[{i}]")

    def text(self, pattern: re.Pattern[str] | None = None, what: str = "") -> str:
        if not isinstance(self.value, str):
            self.fail("must be a string")
        if pattern is not None and not pattern.fullmatch(self.value):
            self.fail(what)
        return self.value

    def word(self) -> str:
        return self.text(_WORD, "must be 1 to 64 of A-Z, a-z, 0-9, . _ + -, no leading sign")

    def choice(self, known: tuple[str, ...]) -> str:
        if not isinstance(self.value, str) or self.value not in known:
            self.fail(f"must be one of {', '.join(known)}, not {brief(self.value)}")
        return self.value

    def integer(self, least: int, most: int, what: str) -> int:
        if not isinstance(self.value, int) or isinstance(self.value, bool):
            self.fail(f"must be {what}")
        if not least <= self.value <= most:
            self.fail(f"must be {what}" + (f" up to {most}" if self.value > most else ""))
        return self.value

    def positive(self, most: int) -> int:
        return self.integer(1, most, "a positive integer")

    def number(self) -> float:
        value = self.value
        if not isinstance(value, int | float) or isinstance(value, bool):
            self.fail("must be a number")
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if not math.isfinite(number):
            self.fail("must be a finite number")
        return number

    def above_zero(self) -> float:
        number = self.number()
        if number <= 0:
            self.fail("must be above 0")
        return number

    def optional(self, key: str, read: Callable[[At], _T]) -> _T | None:
        return read(self[key]) if self.has(key) else None

    def or_null(self, read: Callable[[At], _T]) -> _T | None:
        return None if self.value is None else read(self)


def brief(value: object) -> str:
    shown = ascii(value)
    return shown if len(shown) <= 40 else shown[:37] + "..."
