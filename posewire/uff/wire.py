# SPDX-License-Identifier: Apache-2.0
"""The parts of protobuf's wire format that UFF files are made of. What is read is untrusted: every
length is checked before it is followed, and counts are bounded."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

MAX_ENTRIES = 1 << 17  # of a list or a map
MAX_NAME = 4096  # bytes

# --- writing ----------------------------------------------------------------------------------


def varint(value: int) -> bytes:
    value &= (1 << 64) - 1  # a negative number takes ten bytes
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def number_field(number: int, value: int) -> bytes:
    return varint(number << 3) + varint(value)


def block(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content


def text(number: int, value: str) -> bytes:
    return block(number, value.encode("utf-8"))


def packed(values: Any) -> bytes:
    return block(1, b"".join(varint(int(value)) for value in values))


# --- reading ----------------------------------------------------------------------------------


class DamagedError(Exception):
    """What is wrong, without the file's name."""


class Message:
    """The fields of one message, a slice of the file. Numbers are int, the rest memoryviews."""

    def __init__(self, data: memoryview) -> None:
        self._data, self._at = data, 0

    def __iter__(self) -> Iterator[tuple[int, Any]]:
        while self._at < len(self._data):
            tag = self.varint()
            number, wire = tag >> 3, tag & 7
            if number == 0:
                raise DamagedError("a field without a number")
            if wire == 0:
                yield number, self.varint()
                continue
            size = {1: 8, 5: 4}.get(wire)
            if wire == 2:
                size = self.varint()
            if size is None:
                raise DamagedError(f"wire type {wire}")
            if size > len(self._data) - self._at:
                raise DamagedError("a field runs past its message")
            yield number, self._data[self._at : self._at + size]
            self._at += size

    def left(self) -> int:
        """Bytes that were not read yet."""
        return len(self._data) - self._at

    def varint(self) -> int:
        value = shift = 0
        while self._at < len(self._data) and shift < 70:
            byte = self._data[self._at]
            self._at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value & ((1 << 64) - 1)
            shift += 7
        raise DamagedError("a number runs past its end")


def fields_of(value: Any) -> Iterator[tuple[int, Any]]:
    if not isinstance(value, memoryview):
        raise DamagedError("a number where a message belongs")
    return iter(Message(value))


def name_of(value: Any) -> str:
    if not isinstance(value, memoryview) or len(value) > MAX_NAME:
        raise DamagedError("a name is no text or too long")
    try:
        return bytes(value).decode("utf-8")
    except UnicodeDecodeError as error:
        raise DamagedError("a name is not UTF-8") from error


def int64(value: Any) -> int:
    if not isinstance(value, int):
        raise DamagedError("text where a number belongs")
    return value - (1 << 64) if value >= 1 << 63 else value


def double(value: Any) -> float:
    if not isinstance(value, memoryview) or len(value) != 8:
        raise DamagedError("a floating-point number of another size")
    return float(struct.unpack("<d", value)[0])


def numbers(value: Any) -> tuple[int, ...]:
    """{1 val*}: packed, or one field for each."""
    found: list[int] = []
    for number, item in fields_of(value):
        if number != 1:
            continue
        if isinstance(item, int):
            found.append(int64(item))
        else:
            packed = Message(item)
            while packed.left():
                found.append(int64(packed.varint()))
                bounded_count(found)
        bounded_count(found)
    return tuple(found)


def bounded_count(items: Any) -> None:
    if len(items) > MAX_ENTRIES:
        raise DamagedError(f"more than {MAX_ENTRIES} entries")


def doubles(value: Any) -> tuple[float, ...]:
    found: list[float] = []
    for number, item in fields_of(value):
        if number != 1 or not isinstance(item, memoryview) or len(item) % 8:
            raise DamagedError("a list of floating-point numbers of another size")
        found += struct.unpack(f"<{len(item) // 8}d", item)
        bounded_count(found)
    return tuple(found)


def texts(value: Any) -> tuple[str, ...]:
    found: list[str] = []
    for number, item in fields_of(value):
        if number == 1:
            found.append(name_of(item))
            bounded_count(found)
    return tuple(found)


def pair(value: Any) -> dict[int, Any]:
    """The fields 1 and 2, what an entry of a map consists of."""
    return {number: item for number, item in fields_of(value) if number in (1, 2)}
