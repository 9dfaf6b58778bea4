# SPDX-License-Identifier: Apache-2.0
"""UFF files: bytes as protobuf has them, Netron's reader as a second opinion, damaged files."""

from __future__ import annotations

import base64
import importlib.util
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from posewire.errors import BundleError, ExitCode
from posewire.uff.evaluate import evaluate
from posewire.uff.format import (
    INC,
    ORDERS,
    Data,
    Node,
    Uff,
    constant,
    looks_like_uff,
    read_uff,
    resolved,
    write_uff,
)

WEIGHTS = np.arange(12, dtype=np.float32).reshape(1, 1, 3, 4)
EVERY_KIND = {
    "s": Data("s", "same"),
    "s_list": Data("s_list", ("a", "ü")),
    "d": Data("d", -0.125),
    "d_list": Data("d_list", (1.5, 2.5)),
    "b": Data("b", True),
    "b_list": Data("b_list", (True, False)),
    "i": Data("i", -7),
    "i_list": Data("i_list", (-1, 0, 1 << 40)),
    "dtype": Data("dtype", 0x20020),
    "dtype_list": Data("dtype_list", (0x10008, 0x20010)),
    "dim_orders": Data("dim_orders", (0, 1, 2, INC)),
    "dim_orders_list": Data("dim_orders_list", (ORDERS["N+C"], ORDERS["+CK"])),
    "ref": Data("ref", "weights_w"),
}


def small() -> Uff:
    """A convolution and a ReLU on NHWC pictures."""
    constants = {
        "shape": Data("i_list", WEIGHTS.shape),
        "dtype": Data("dtype", 0x20020),
        "values": Data("ref", "weights_w"),
    }
    orders = Data("ref", "orders_N+C_+CK")
    shape = {"shape": Data("i_list", (-1, 5, 6, 3)), "dtype": Data("dtype", 0x20020)}
    nodes = (
        Node("image", "Input", (), shape),
        Node("w", "Const", (), constants),
        Node("conv", "Conv", ("image", "w"), {"inputs_orders": orders, **EVERY_KIND}),
        Node("relu", "Activation", ("conv",), {"func": Data("s", "relu")}),
        Node("MarkOutput_0", "MarkOutput", ("relu",)),
    )
    referenced = {
        "weights_w": Data("blob", memoryview(WEIGHTS.tobytes())),
        "orders_N+C_+CK": Data("dim_orders_list", (ORDERS["N+C"], ORDERS["+CK"])),
    }
    return Uff(nodes, referenced, ("tensorflow_extension",))


def test_what_is_written_is_read() -> None:
    data = write_uff(small())
    assert looks_like_uff(data)
    assert read_uff(data, "x.uff") == small()
    assert write_uff(read_uff(data, "x.uff")) == data


def test_the_bytes_are_protobufs() -> None:
    """Against protobuf's own encoder, by its documentation: tag = number << 3 | wire type."""
    uff = Uff((Node("a", "Input", (), {"shape": Data("i_list", (-1, 3))}),), {})
    minus_one = b"\xff" * 9 + b"\x01"
    numbers = b"\x0a\x0b" + minus_one + b"\x03"
    value = b"\x42" + bytes([len(numbers)]) + numbers
    entry = b"\x0a\x05shape\x12" + bytes([len(value)]) + value
    node = b"\x0a\x01a\x1a\x05Input\x22" + bytes([len(entry)]) + entry
    graph = b"\x0a\x04main\x12" + bytes([len(node)]) + node
    assert write_uff(uff) == b"\x08\x01\x10\x01\x22" + bytes([len(graph)]) + graph


def test_a_constant_is_its_array() -> None:
    uff = read_uff(write_uff(small()), "x.uff")
    node = next(node for node in uff.nodes if node.id == "w")
    np.testing.assert_array_equal(constant(uff, node), WEIGHTS)
    wrong = Node("w", "Const", (), {**node.fields, "shape": Data("i_list", (5,))})
    with pytest.raises(BundleError, match=r"w: Const of shape \[5\].*48 bytes"):
        constant(uff, wrong)


def test_nodes_are_sorted_and_rings_are_refused() -> None:
    backwards = Uff(small().nodes[::-1], small().referenced, ())
    order = [node.id for node in read_uff(write_uff(backwards), "x.uff").nodes]
    assert order.index("image") < order.index("conv") < order.index("relu")
    ring = Uff((Node("a", "Identity", ("b",)), Node("b", "Identity", ("a",))), {})
    with pytest.raises(BundleError, match="wait for each other"):
        read_uff(write_uff(ring), "x.uff")
    lost = Uff((Node("a", "Identity", ("b",)),), {})
    with pytest.raises(BundleError, match="a reads b, which there is not"):
        read_uff(write_uff(lost), "x.uff")
    twice = Uff((Node("a", "Input"), Node("a", "Input")), {})
    with pytest.raises(BundleError, match="two nodes of one name"):
        read_uff(write_uff(twice), "x.uff")
    chain = [Node("0", "Input"), *(Node(str(i), "Identity", (str(i - 1),)) for i in range(1, 5000))]
    assert len(read_uff(write_uff(Uff(tuple(chain[::-1]), {})), "x.uff").nodes) == 5000


def test_every_cut_is_named() -> None:
    data = write_uff(small())
    for length in range(len(data)):
        if data[length : length + 1] == b"\x2a" and b"relu" in data[:length]:
            continue  # perhaps between two entries of referenced_data: whole messages
        with pytest.raises(BundleError, match=r"cut\.uff: is no UFF file") as caught:
            read_uff(data[:length], "cut.uff")
        assert caught.value.code == ExitCode.BUNDLE


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_damaged_files_end_in_a_bundle_error(data: Any) -> None:
    """Any bytes changed: read, computed and converted, or refused by name; nothing else."""
    content = bytearray(write_uff(small()))
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        uff = read_uff(bytes(content), "x.uff")
        inputs = {
            node.id: np.ones((1, 5, 6, 3), np.float32)
            for node in uff.nodes
            if node.operation == "Input"
        }
        evaluate(uff, inputs)
    except BundleError:
        pass


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_noise_is_no_uff(noise: bytes) -> None:
    with pytest.raises(BundleError, match=r"x\.uff: is no UFF file that can be read"):
        read_uff(noise, "x.uff")


def test_a_field_cannot_ask_for_memory() -> None:
    """A few bytes that speak of much."""
    ones = Data("i_list", (0, 0, 1 << 30, 1 << 30, 1 << 30, 0, 0, 0))
    nodes = list(small().nodes)
    table = {"shape": Data("i_list", (4, 2)), "dtype": Data("dtype", 0x10040)}
    pads = np.array(ones.value, np.int64).tobytes()
    nodes.insert(2, Node("p", "Const", (), {**table, "values": Data("ref", "weights_p")}))
    nodes.insert(3, Node("pad", "Pad", ("image", "p")))
    nodes.append(Node("MarkOutput_1", "MarkOutput", ("pad",)))
    uff = Uff(tuple(nodes), {**small().referenced, "weights_p": Data("blob", pads)}, ())
    with pytest.raises(BundleError, match="pad: Pad: a result of shape"):
        evaluate(read_uff(write_uff(uff), "x"), {"image": np.ones((1, 5, 6, 3), np.float32)})


# --- Netron -----------------------------------------------------------------------------------

SCRIPTS = ("uff.js", "uff-proto.js", "uff-metadata.json", "protobuf.js", "text.js", "base.js")


@pytest.fixture(scope="module")
def netron(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What Netron's reader says of a file's bytes."""
    spec = importlib.util.find_spec("netron")
    if spec is None or spec.origin is None:
        pytest.skip("netron is not installed (pip install netron==9.3.3)")
    if shutil.which("node") is None:
        pytest.skip("node is not installed (apt-get install nodejs)")
    folder = tmp_path_factory.mktemp("netron")
    for name in SCRIPTS:
        shutil.copy(Path(spec.origin).parent / name, folder / name)
    (folder / "package.json").write_text('{"type": "module"}')

    def read(data: bytes) -> Any:
        (folder / "x.uff").write_bytes(data)
        script = Path(__file__).with_name("netron_read.mjs")
        command = ["node", str(script), str(folder), str(folder / "x.uff")]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return read


def test_netron_reads_what_was_meant(netron: Any) -> None:
    uff = small()  # Netron's reader of lists of types is broken
    fields = {k: v for k, v in uff.nodes[2].fields.items() if k != "dtype_list"}
    conv = Node("conv", "Conv", uff.nodes[2].inputs, fields)
    changed = Uff((*uff.nodes[:2], conv, *uff.nodes[3:]), uff.referenced, uff.descriptors)
    found = netron(write_uff(changed))
    assert found["format"] == "UFF v1"
    assert found["imports"] == ["tensorflow_extension v1"]
    assert (found["inputs"], found["outputs"]) == (["image"], ["relu"])
    conv = next(node for node in found["nodes"] if node["name"] == "conv")
    assert conv["operation"] == "Conv"
    assert conv["inputs"] == ["image", "w"]
    (weights,) = conv["constants"]
    assert weights["type"] == "float32[1,1,3,4]"
    assert base64.b64decode(weights["bytes"]) == WEIGHTS.tobytes()
    for kind in ("s", "d", "b", "i", "i_list"):
        expected = EVERY_KIND[kind].value
        assert conv["fields"][kind] == (list(expected) if kind == "i_list" else expected), kind


def test_netron_reads_the_shipped_network(netron: Any, shipped: Any) -> None:
    """Node by node and weight by weight what our own reader finds."""
    uff = read_uff(shipped[1].data, "shipped.uff")
    found = netron(shipped[1].data)
    arrays = {node.id: node for node in uff.nodes if node.operation == "Const"}
    ours = {n.id: n for n in uff.nodes if n.operation not in ("Const", "Input", "MarkOutput")}
    theirs = {node["name"]: node for node in found["nodes"]}
    assert found["inputs"] == [shipped[1].input]
    assert found["outputs"] == list(shipped[1].outputs)
    assert set(ours) == set(theirs)
    assert len(ours) > 100
    checked = 0
    for name, node in ours.items():
        assert theirs[name]["operation"] == node.operation
        assert tuple(theirs[name]["inputs"]) == node.inputs
        for value in theirs[name]["constants"]:
            stored = constant(uff, arrays[value["name"]])
            assert value["type"] == f"{stored.dtype.name}[{','.join(map(str, stored.shape))}]"
            assert base64.b64decode(value["bytes"]) == stored.tobytes()
            checked += 1
        for key, data in node.fields.items():
            if data.kind in ("s", "i", "b", "d"):
                assert theirs[name]["fields"][key] == data.value
            elif data.kind == "i_list":
                assert theirs[name]["fields"][key] == list(resolved(uff, node, key))
    assert checked == len(arrays)
