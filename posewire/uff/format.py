# SPDX-License-Identifier: Apache-2.0
"""UFF files: reader and writer. This is the format's specification as posewire uses it.

UFF ("universal framework format") is what TensorRT's UFF parser reads: TensorRT 5 to 8.6, that is
JetPack 4 and 5, and desktops of that time. A file is one protobuf (proto3) message; the wire format
is read and written here without the protobuf library::

    MetaGraph   1 version = 1   2 descriptor_core_version = 1   3 Descriptor*   4 Graph*
                5 map<string, Data> referenced_data             100 map<string, Data> extra_fields
    Descriptor  1 id   2 version   3 optional      "custom" 1, "tensorflow_extension" 1
    Graph       1 id = "main"   2 Node*   100 map extra_fields
    Node        1 id   2 inputs (ids)*   3 operation   4 map<string, Data> fields   100 extra_fields
    Data        one of: s 1, s_list 2, d 3 (double), d_list 4, b 5, b_list 6, i 7 (int64), i_list 8,
                blob 9, ref 100 (a key of referenced_data), dtype 101, dtype_list 102,
                dim_orders 103, dim_orders_list 104; each *_list is a message {1 val*}
    DimensionOrders  1 map<int32, list of int64>; the only key used is -1
    dtype       INT8 0x10008, INT16 0x10010, INT32 0x10020, INT64 0x10040,
                FLOAT16 0x20010, FLOAT32 0x20020

A node has one result, its id. Weights are Const nodes: fields ``shape`` (i_list), ``dtype`` and
``values``, a ref "weights_<id>" to a blob of little-endian values in C order. ``inputs_orders`` of
Conv, Pool, … is a ref "orders_<left>_<right>" to one order per input. An order lists the canonical
dimension of each of the tensor's: for feature maps N, C, space are 0, 1, 2 …, for weights K (out),
C (in), space; 0x7fffffff after a spatial dimension stands for the rest of them. So NCHW is
[0, 1, 2, INC] (written "NC+"), NHWC [0, 2, INC, 1] ("N+C"), weights HWIO [2, INC, 1, 0] ("+CK").
Axes and shapes count the batch, which the parser takes away again (its networks are
implicit-batch). Outputs are inputs of MarkOutput nodes. An operation "_Name" is a plugin.

Read files are untrusted: every length is checked before it is followed, counts are bounded, and
what is wrong is named in a BundleError.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import BundleError
from .wire import (
    DamagedError,
    Message,
    block,
    bounded_count,
    double,
    doubles,
    fields_of,
    int64,
    name_of,
    number_field,
    numbers,
    packed,
    pair,
    text,
    texts,
    varint,
)

INC = 0x7FFFFFFF
DTYPES: Mapping[int, str] = {
    0x10008: "int8",
    0x10010: "int16",
    0x10020: "int32",
    0x10040: "int64",
    0x20010: "float16",
    0x20020: "float32",
}
ORDERS: Mapping[str, tuple[int, ...]] = {
    "NC+": (0, 1, 2, INC),
    "N+C": (0, 2, INC, 1),
    "KC+": (0, 1, 2, INC),
    "+CK": (2, INC, 1, 0),
    "+KC": (2, INC, 0, 1),
    "NC": (0, 1),
    "CK": (1, 0),
    "KC": (0, 1),
}
# kind -> field number of Data
KINDS: Mapping[str, int] = {
    "s": 1,
    "s_list": 2,
    "d": 3,
    "d_list": 4,
    "b": 5,
    "b_list": 6,
    "i": 7,
    "i_list": 8,
    "blob": 9,
    "ref": 100,
    "dtype": 101,
    "dtype_list": 102,
    "dim_orders": 103,
    "dim_orders_list": 104,
}
_KIND_OF = {number: kind for kind, number in KINDS.items()}

MAX_BYTES = 1 << 30
MAX_NODES = 1 << 16
_MAX_STRUCTURE = 1 << 24  # bytes of everything but the weights
_SPECIAL = -1  # the key of an order
_CORE_VERSION = 1


@dataclass(frozen=True)
class Data:
    """One value and which of Data's kinds it is: lists are tuples, a dim_orders is a tuple of int,
    a dim_orders_list a tuple of those."""

    kind: str
    value: Any


@dataclass(frozen=True)
class Node:
    """One operation; its result is named by ``id``."""

    id: str
    operation: str
    inputs: tuple[str, ...] = ()
    fields: Mapping[str, Data] = field(default_factory=dict)


@dataclass(frozen=True)
class Uff:
    """A file: the nodes of its one graph, what they refer to, and the descriptors' names."""

    nodes: tuple[Node, ...]
    referenced: Mapping[str, Data]
    descriptors: tuple[str, ...] = ()


# --- writing ----------------------------------------------------------------------------------


def _orders(value: Any) -> bytes:
    return block(1, number_field(1, _SPECIAL) + block(2, packed(value)))


def _data(data: Data) -> bytes:
    kind, value, number = data.kind, data.value, KINDS[data.kind]
    if kind in ("s", "ref"):
        return text(number, value)
    if kind in ("i", "b", "dtype"):
        return number_field(number, int(value))
    if kind == "d":
        return varint(number << 3 | 1) + struct.pack("<d", value)
    if kind == "blob":
        return block(number, bytes(value))
    if kind == "s_list":
        return block(number, b"".join(text(1, item) for item in value))
    if kind == "d_list":
        return block(number, block(1, b"".join(struct.pack("<d", item) for item in value)))
    if kind == "dim_orders":
        return block(number, _orders(value))
    if kind == "dim_orders_list":
        return block(number, b"".join(block(1, _orders(item)) for item in value))
    return block(number, packed(value))


def _entries(number: int, entries: Mapping[str, Data]) -> bytes:
    return b"".join(
        block(number, text(1, key) + block(2, _data(data))) for key, data in entries.items()
    )


def write_uff(uff: Uff) -> bytes:
    """The file's bytes."""
    nodes = [
        text(1, node.id)
        + b"".join(text(2, name) for name in node.inputs)
        + text(3, node.operation)
        + _entries(4, node.fields)
        for node in uff.nodes
    ]
    graph = text(1, "main") + b"".join(block(2, node) for node in nodes)
    descriptors = (text(1, name) + number_field(2, 1) for name in uff.descriptors)
    return (
        number_field(1, 1)
        + number_field(2, _CORE_VERSION)
        + b"".join(block(3, descriptor) for descriptor in descriptors)
        + block(4, graph)
        + _entries(5, uff.referenced)
    )


# --- reading ----------------------------------------------------------------------------------


def _order(value: Any) -> tuple[int, ...]:
    for number, entry in fields_of(value):
        if number != 1:
            continue
        parts = pair(entry)
        if int64(parts.get(1, 0)) == _SPECIAL and 2 in parts:
            return numbers(parts[2])
    raise DamagedError("an order of dimensions without its key")


def _order_list(value: Any) -> tuple[tuple[int, ...], ...]:
    found: list[tuple[int, ...]] = []
    for number, item in fields_of(value):
        if number == 1:
            found.append(_order(item))
            bounded_count(found)
    return tuple(found)


_READ: Mapping[str, Any] = {
    "s": name_of,
    "s_list": texts,
    "d": double,
    "d_list": doubles,
    "b": lambda value: bool(int64(value)),
    "b_list": lambda value: tuple(bool(item) for item in numbers(value)),
    "i": int64,
    "i_list": numbers,
    "ref": name_of,
    "dtype": int64,
    "dtype_list": numbers,
    "dim_orders": _order,
    "dim_orders_list": _order_list,
}


def _read_data(value: Any) -> Data | None:
    """The last kind that is set, as protobuf has it; None where none is (an unset value)."""
    result = None
    for number, item in fields_of(value):
        kind = _KIND_OF.get(number)
        if kind == "blob":
            if not isinstance(item, memoryview):
                raise DamagedError("a number where a blob belongs")
            result = Data(kind, item)
        elif kind is not None:
            result = Data(kind, _READ[kind](item))
    return result


def _read_entry(value: Any, into: dict[str, Data]) -> int:
    """Reads an entry of a map; returns its size, a blob's values not counted."""
    parts = pair(value)
    key = name_of(parts[1]) if 1 in parts else ""
    data = _read_data(parts[2]) if 2 in parts else None
    if data is None:
        return len(value)
    into[key] = data
    bounded_count(into)
    return len(value) - (len(data.value) if data.kind == "blob" else 0)


def _read_node(value: Any) -> Node:
    name = operation = ""
    inputs: list[str] = []
    fields: dict[str, Data] = {}
    for number, item in fields_of(value):
        if number == 1:
            name = name_of(item)
        elif number == 2:
            inputs.append(name_of(item))
            bounded_count(inputs)
        elif number == 3:
            operation = name_of(item)
        elif number == 4:
            _read_entry(item, fields)
    if not name or not operation:
        raise DamagedError("a node without a name or an operation")
    return Node(name, operation, tuple(inputs), fields)


def _read_nodes(value: Any) -> list[Node]:
    nodes: list[Node] = []
    for number, item in fields_of(value):
        if number == 2:
            nodes.append(_read_node(item))
            if len(nodes) > MAX_NODES:
                raise DamagedError(f"more than {MAX_NODES} nodes")
    return nodes


def read_uff(data: bytes, shown: str) -> Uff:
    """Reads a file's bytes; ``shown`` names it in messages. Blobs stay views of ``data``.

    The nodes come sorted: each after those that it reads. Raises BundleError.
    """
    if len(data) > MAX_BYTES:
        raise BundleError(f"{shown}: is larger than {MAX_BYTES} bytes")
    nodes: list[Node] = []
    referenced: dict[str, Data] = {}
    descriptors: list[str] = []
    graphs = structure = 0
    try:
        for number, value in Message(memoryview(data)):
            # Python's objects are many times larger than the bytes that they are read from.
            structure += len(value) if number == 4 and isinstance(value, memoryview) else 0
            if structure > _MAX_STRUCTURE:
                raise DamagedError(f"more than {_MAX_STRUCTURE} bytes besides the weights")
            if number == 2 and int64(value) > _CORE_VERSION:
                raise DamagedError(
                    f"a core descriptor of version {value}, known is {_CORE_VERSION}"
                )
            if number == 3:
                descriptors.append(name_of(pair(value).get(1, memoryview(b""))))
                bounded_count(descriptors)
            elif number == 4:
                nodes, graphs = _read_nodes(value), graphs + 1
            elif number == 5:
                structure += _read_entry(value, referenced)
        if graphs != 1:
            raise DamagedError(f"{graphs} graphs instead of one")
        if not nodes:
            raise DamagedError("its graph is empty")
        nodes = _sorted(nodes)
    except DamagedError as error:
        raise BundleError(f"{shown}: is no UFF file that can be read: {error}") from error
    return Uff(tuple(nodes), referenced, tuple(descriptors))


def _sorted(nodes: list[Node]) -> list[Node]:
    """In an order of computation; without recursion, as files may be deep."""
    by_id = {node.id: node for node in nodes}
    if len(by_id) != len(nodes):
        raise DamagedError("two nodes of one name")
    done: dict[str, bool] = {}  # False: its inputs are being looked at
    order: list[Node] = []
    for first in nodes:
        waiting = [first.id]
        while waiting:
            node = by_id[waiting[-1]]
            if node.id in done:
                waiting.pop()
                if not done[node.id]:
                    done[node.id] = True
                    order.append(node)
                continue
            done[node.id] = False
            for name in node.inputs:
                if name not in by_id:
                    raise DamagedError(f"{node.id} reads {name}, which there is not")
                if done.get(name) is False:
                    raise DamagedError(f"{node.id} and {name} wait for each other")
                if name not in done:
                    waiting.append(name)
    return order


def looks_like_uff(data: bytes) -> bool:
    """Whether the first bytes are a UFF file's: version 1 and core descriptor version 1 as numbers,
    then messages. (A frozen TensorFlow graph starts with a message.)"""
    return data[:4] == b"\x08\x01\x10\x01" and data[4:5] in (b"\x1a", b"\x22", b"\x2a")


# --- what nodes hold --------------------------------------------------------------------------


def resolved(uff: Uff, node: Node, key: str) -> Any:
    """A field's value, refs followed once; None where it is not set. Raises BundleError."""
    data = node.fields.get(key)
    if data is not None and data.kind == "ref":
        if data.value not in uff.referenced:
            raise BundleError(f"{node.id}: {key} refers to {data.value}, which there is not")
        data = uff.referenced[data.value]
    return None if data is None else data.value


def constant(uff: Uff, node: Node) -> NDArray[Any]:
    """A Const node's array, read-only. Raises BundleError where shape, type and blob disagree."""
    shape, dtype = resolved(uff, node, "shape") or (), resolved(uff, node, "dtype")
    values = resolved(uff, node, "values")
    if dtype not in DTYPES or not isinstance(values, memoryview | bytes):
        raise BundleError(f"{node.id}: Const without a known dtype and values")
    if not isinstance(shape, tuple) or any(not isinstance(n, int) or n < 0 for n in shape):
        raise BundleError(f"{node.id}: Const of shape {shape}")
    kind = np.dtype(DTYPES[dtype]).newbyteorder("<")
    count = 1
    for side in shape:
        count *= side
    if count * kind.itemsize != len(values):
        raise BundleError(
            f"{node.id}: Const of shape {list(shape)} and type {kind.name} has {len(values)} bytes"
        )
    return np.frombuffer(values, kind).reshape(shape)
