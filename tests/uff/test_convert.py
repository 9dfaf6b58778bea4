# SPDX-License-Identifier: Apache-2.0
"""ONNX to UFF and back: every row of the tables computes what ONNX Runtime computes, in NumPy and
as ONNX again; what UFF cannot say is refused by name."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from posewire.errors import BundleError
from posewire.preprocess import letterbox
from posewire.uff.evaluate import evaluate
from posewire.uff.format import ORDERS, Data, Node, Uff, read_uff, write_uff
from posewire.uff.from_onnx import UffNetwork, onnx_to_uff
from posewire.uff.onnx_operators import OPERATORS
from posewire.uff.to_onnx import uff_to_onnx

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

CLOSE = 2e-5
PARITY_LIMIT = 1e-3  # on real pictures, in output units
Array = NDArray[Any]


def run(data: bytes, feed: Array) -> dict[str, Array]:
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_outputs()]
    return dict(zip(names, session.run(names, {session.get_inputs()[0].name: feed}), strict=True))


def network(nodes: Sequence[Any], arrays: dict[str, Array], shape: Any, opset: int = 18) -> bytes:
    """An ONNX file from x to y."""
    helper, kinds = onnx.helper, onnx.TensorProto
    graph = helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info("x", kinds.FLOAT, shape)],
        [helper.make_tensor_value_info("y", kinds.FLOAT, None)],
        [onnx.numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    imports = [helper.make_opsetid("", opset)]
    model = helper.make_model(graph, opset_imports=imports, ir_version=8)
    return bytes(onnx.shape_inference.infer_shapes(model).SerializeToString())


def op(kind: str, *inputs: str, outputs: Sequence[str] = ("y",), **attributes: Any) -> Any:
    """A node that reads x."""
    named = {"name": f"the_{kind}", **attributes}
    return onnx.helper.make_node(kind, ["x", *inputs], list(outputs), **named)


def after(kind: str, *inputs: str, **attributes: Any) -> Any:
    """A node that ends in y."""
    return onnx.helper.make_node(kind, list(inputs), ["y"], **attributes)


def f(*shape: int, seed: int = 3) -> Array:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def i(*values: int) -> Array:
    return np.array(values, np.int64)


# (name, nodes, constants): x is ["batch", 3, 9, 12]
ROWS: list[tuple[str, list[Any], dict[str, Array]]] = [
    ("conv", [op("Conv", "w", "b", pads=[1, 1, 1, 1])], {"w": f(4, 3, 3, 3), "b": f(4)}),
    ("conv_same", [op("Conv", "w", auto_pad="SAME_UPPER", strides=[2, 2])], {"w": f(4, 3, 4, 4)}),
    ("conv_odd", [op("Conv", "w", pads=[2, 0, 1, 3], strides=[2, 1])], {"w": f(4, 3, 3, 3)}),
    ("conv_dilated", [op("Conv", "w", dilations=[2, 3], pads=[2, 3, 2, 3])], {"w": f(4, 3, 3, 3)}),
    ("conv_depthwise", [op("Conv", "w", group=3, pads=[2, 2, 2, 2])], {"w": f(3, 1, 5, 5)}),
    ("conv_multiplied", [op("Conv", "w", group=3)], {"w": f(6, 1, 3, 3)}),
    (
        "conv_groups",
        [op("Concat", "x", outputs=["z"], axis=1),
         onnx.helper.make_node("Conv", ["z", "w"], ["y"], group=2)],
        {"w": f(8, 3, 3, 3)},
    ),
    ("transposed", [op("ConvTranspose", "w", "b", strides=[2, 2], pads=[1, 1, 1, 1])],
     {"w": f(3, 5, 4, 4), "b": f(5)}),
    ("transposed_depthwise", [op("ConvTranspose", "w", strides=[2, 3], group=3)],
     {"w": f(3, 1, 4, 4)}),
    ("resize", [op("Resize", "", "s", mode="nearest", nearest_mode="floor",
                   coordinate_transformation_mode="asymmetric")],
     {"s": np.array([1, 1, 2, 3], np.float32)}),
    ("resize_centres", [op("Resize", "", "s")], {"s": np.array([1, 1, 3, 2], np.float32)}),
    ("max_pool", [op("MaxPool", kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[2, 2])], {}),
    ("max_pool_same", [op("MaxPool", kernel_shape=[2, 2], auto_pad="SAME_UPPER")], {}),
    ("average_pool", [op("AveragePool", kernel_shape=[3, 2], strides=[3, 2])], {}),
    ("global_average", [op("GlobalAveragePool")], {}),
    ("global_max", [op("GlobalMaxPool")], {}),
    ("batch_norm", [op("BatchNormalization", "g", "b", "m", "v", epsilon=1e-3)],
     {"g": f(3), "b": f(3), "m": f(3), "v": np.abs(f(3)) + 0.5}),
    *((f"binary_{k}", [op("Relu", outputs=["z"]), after(k, "z", "c")],
       {"c": np.abs(f(1, 3, 1, 1)) + 0.5})
      for k in ("Add", "Sub", "Mul", "Div", "Min", "Max")),
    ("pow", [op("Abs", outputs=["z"]), onnx.helper.make_node("Pow", ["z", "c"], ["y"])],
     {"c": np.array(1.5, np.float32)}),
    ("add_tensors", [op("Sigmoid", outputs=["z"]), op("Add", "z")], {}),
    *((f"activation_{k}", [op(k)], {})
      for k in ("Relu", "Sigmoid", "Tanh", "Elu", "Selu", "Softsign", "Softplus", "HardSwish")),
    *((f"unary_{k}", [op(k)], {}) for k in ("Neg", "Exp", "Abs", "Ceil", "Floor")),
    ("roots", [op("Abs", outputs=["z"]), onnx.helper.make_node("Sqrt", ["z"], ["w"]),
               onnx.helper.make_node("Log", ["w"], ["y"])], {}),
    ("relu6", [op("Clip", "l", "h")],
     {"l": np.array(0, np.float32), "h": np.array(6, np.float32)}),
    ("clip", [op("Clip", "l", "h")],
     {"l": np.array(-0.3, np.float32), "h": np.array(0.7, np.float32)}),
    ("clip_above", [op("Clip", "", "h")], {"h": np.array(0.7, np.float32)}),
    ("leaky", [op("LeakyRelu", alpha=0.2)], {}),
    ("prelu", [op("PRelu", "s")], {"s": f(3, 1, 1)}),
    ("hard_sigmoid", [op("HardSigmoid", alpha=0.3, beta=0.4)], {}),
    ("identity", [op("Identity", outputs=["z"]), after("Dropout", "z")], {}),
    ("concat", [op("Relu", outputs=["z"]), op("Concat", "z", axis=-3)], {}),
    ("transpose", [op("Transpose", perm=[0, 2, 3, 1])], {}),
    ("reshape", [op("Reshape", "s")], {"s": i(-1, 3, 108)}),
    ("flatten", [op("Flatten")], {}),
    ("squeezes", [op("GlobalAveragePool", outputs=["z"]),
                  onnx.helper.make_node("Squeeze", ["z", "a"], ["w"]),
                  onnx.helper.make_node("Unsqueeze", ["w", "u"], ["y"])],
     {"a": i(2, 3), "u": i(1)}),
    ("pad", [op("Pad", "p")], {"p": i(0, 0, 1, 2, 0, 0, 3, 0)}),
    ("slice", [op("Slice", "b", "e", "a", "t")],
     {"b": i(1, -9), "e": i(1 << 40, 11), "a": i(2, 3), "t": i(2, 3)}),
    ("split", [op("Split", "s", axis=1, outputs=["p", "q"]),
               onnx.helper.make_node("Concat", ["q", "p"], ["y"], axis=1)], {"s": i(1, 2)}),
    *((f"reduce_{k}", [op(f"Reduce{k}", "a")], {"a": i(-1, 2)}) for k in ("Mean", "Max", "Min")),
    ("reduce_sum", [op("ReduceSum", "a")], {"a": i(2)}),
    ("gemm", [op("Flatten", outputs=["z"]),
              onnx.helper.make_node("Gemm", ["z", "w", "b"], ["y"], transB=1)],
     {"w": f(5, 324), "b": f(5)}),
    ("matmul", [op("Flatten", outputs=["z"]), onnx.helper.make_node("MatMul", ["z", "w"], ["y"])],
     {"w": f(324, 5)}),
    ("softmax", [op("Softmax", axis=1)], {}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "nodes", "arrays"), ROWS, ids=[row[0] for row in ROWS])
def test_a_row_computes_what_it_did(name: str, nodes: list[Any], arrays: dict[str, Array]) -> None:
    source = network(nodes, arrays, ["batch", 3, 9, 12])
    feed = f(2, 3, 9, 12, seed=9)
    expected = run(source, feed)["y"]
    assert np.ptp(expected) > 0
    converted = onnx_to_uff(source, name)
    assert (converted.input, converted.outputs, converted.mean) == ("x", ("y",), None)
    found = evaluate(read_uff(converted.data, name), {"x": feed})["y"]
    np.testing.assert_allclose(found, expected, atol=CLOSE, rtol=1e-4)
    again = run(uff_to_onnx(converted.data, name), feed)["y"]
    np.testing.assert_allclose(again, expected, atol=CLOSE, rtol=1e-4)


def test_every_row_of_the_table_was_tried() -> None:
    tried = {node.op_type for _, nodes, _ in ROWS for node in nodes}
    assert set(OPERATORS) - tried == {"Upsample"}  # Resize's name before opset 10


def test_old_opsets_say_things_with_attributes() -> None:
    nodes = [op("Clip", min=0.0, max=6.0, outputs=["a"]),
             onnx.helper.make_node("Upsample", ["a", "s"], ["b"], mode="nearest"),
             after("Slice", "b", axes=[3], starts=[1], ends=[9])]  # fmt: skip
    source = network(nodes, {"s": np.array([1, 1, 2, 2], np.float32)}, [1, 3, 4, 6], opset=9)
    feed = 4 * f(1, 3, 4, 6)
    found = evaluate(read_uff(onnx_to_uff(source, "old").data, "old"), {"x": feed})["y"]
    np.testing.assert_allclose(found, run(source, feed)["y"], atol=CLOSE)


@pytest.mark.parametrize(
    ("nodes", "arrays", "match"),
    [
        ([op("Erf")], {}, r"operator Erf \(the_Erf\): UFF has no such operator"),
        ([op("Resize", "", "s", mode="linear")], {"s": np.array([1, 1, 2, 2], np.float32)},
         r"operator Resize .*UFF has no resizing; linear"),
        ([op("Resize", "", "s")], {"s": np.array([1, 1, 1.5, 2], np.float32)}, "whole factors"),
        ([op("AveragePool", kernel_shape=[3, 3], pads=[1, 1, 1, 1])], {},
         "AveragePool .*divide differently"),
        ([op("MaxPool", kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1)], {}, "ceil_mode"),
        ([op("Conv", "x")], {}, "Conv .*weights must be constant|is no ONNX file"),
        ([op("ReduceMean", "a", keepdims=0)], {"a": i(2)}, "keeps reduced axes"),
        ([op("Concat", "x", axis=0)], {}, "Concat .*works along the batch"),
        ([op("Transpose", perm=[1, 0, 2, 3])], {}, "Transpose .*moves the batch"),
        ([op("Pad", "p", "v")], {"p": i(0, 0, 1, 1, 0, 0, 1, 1), "v": np.array(1, np.float32)},
         "only zeros"),
        ([op("ConvTranspose", "w", strides=[2, 2], output_padding=[1, 1])], {"w": f(3, 2, 3, 3)},
         "output padding"),
    ],
)  # fmt: skip
def test_what_uff_cannot_say_is_refused(nodes: Any, arrays: Any, match: str) -> None:
    with pytest.raises(BundleError, match=match):
        onnx_to_uff(network(nodes, arrays, ["batch", 3, 9, 12]), "net.onnx")


def test_no_onnx_is_refused() -> None:
    with pytest.raises(BundleError, match=r"net\.onnx: is no ONNX file"):
        onnx_to_uff(b"\x08\x07nonsense", "net.onnx")


# --- TensorFlow's graphs: NHWC ----------------------------------------------------------------


def tensorflow_like() -> Uff:
    """What NVIDIA's converter makes of a small Keras network: NHWC, "same", depthwise, a slope."""
    referenced: dict[str, Data] = {}

    def const(name: str, array: Array) -> Node:
        kind = {"f": 0x20020, "i": 0x10020}[array.dtype.kind]
        referenced[f"weights_{name}"] = Data("blob", memoryview(array.tobytes()))
        fields = {"shape": Data("i_list", array.shape), "dtype": Data("dtype", kind)}
        return Node(name, "Const", (), {**fields, "values": Data("ref", f"weights_{name}")})

    def orders(*names: str) -> dict[str, Data]:
        key = "orders_" + "_".join(names)
        referenced[key] = Data("dim_orders_list", tuple(ORDERS[name] for name in names))
        return {"inputs_orders": Data("ref", key)}

    same = {"implicit_padding": Data("s", "same")}
    two = {"strides": Data("i_list", (2, 2))}
    groups = {"number_groups": Data("i", 4)}
    nodes = (
        Node("in", "Input", (), {"shape": Data("i_list", (-1, -1, -1, 3))}),
        const("w1", f(3, 3, 3, 4)),
        Node("c1", "Conv", ("in", "w1"), {**same, **two, **orders("N+C", "+CK")}),
        const("b1", f(4)),
        Node("a1", "Binary", ("c1", "b1"), {"func": Data("s", "add")}),
        Node("r1", "Activation", ("a1",), {"func": Data("s", "relu6")}),
        const("w2", f(5, 5, 4, 2, seed=5)),
        Node("c2", "Conv", ("r1", "w2"), {**same, **groups, **orders("N+C", "+CK")}),
        const("half", np.array(0.5, np.float32)),
        Node("m2", "Binary", ("half", "c2"), {"func": Data("s", "mul")}),
        Node("l2", "Binary", ("m2", "c2"), {"func": Data("s", "max")}),
        const("pads", np.array([[0, 0], [1, 0], [0, 2], [0, 0]], np.int32)),
        Node("p2", "Pad", ("l2", "pads")),
        Node("size", "Shape", ("c2",)),
        const("w3", f(4, 4, 6, 8, seed=6)),
        Node("t3", "ConvTranspose", ("l2", "w3", "size"), {**same, **two, **orders("N+C", "+KC")}),
        Node("mean", "Reduce", ("p2",),
             {"func": Data("s", "mean"), "axes": Data("i_list", (1, 2))}),
        Node("k", "Concat", ("t3", "t3"), {"axis": Data("i", 3)}),
        Node("MarkOutput_0", "MarkOutput", ("k",)),
        Node("MarkOutput_1", "MarkOutput", ("mean",)),
    )  # fmt: skip
    return Uff(nodes, referenced, ("tensorflow_extension",))


def test_nhwc_graphs_convert_without_a_thicket_of_transposes() -> None:
    data = write_uff(tensorflow_like())
    feed = f(2, 10, 14, 3)
    expected = evaluate(read_uff(data, "tf.uff"), {"in": feed})
    assert expected["k"].shape == (2, 10, 14, 12)
    assert expected["mean"].shape == (2, 1, 1, 8)
    converted = uff_to_onnx(data, "tf.uff", (10, 14, 3))
    found = run(converted, feed)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, atol=CLOSE)
    kinds = [node.op_type for node in onnx.load_model_from_string(converted).graph.node]
    assert kinds.count("Transpose") == 3  # in, and one for each output
    with pytest.raises(BundleError, match="leaves the input's size open"):
        uff_to_onnx(data, "tf.uff")


def test_the_evaluator_is_tensorflows() -> None:
    """ "same" and depthwise kernels as TensorFlow computes them, by hand."""
    graph = tensorflow_like()
    feed = f(1, 10, 14, 3)
    uff = read_uff(write_uff(graph), "tf.uff")
    more = (
        Node(f"MarkOutput_{i}", "MarkOutput", (name,))
        for i, name in enumerate(("c1", "r1", "c2"), 2)
    )
    marked = (*uff.nodes, *more)
    out = evaluate(Uff(marked, uff.referenced, ()), {"in": feed})
    padded = np.pad(feed, ((0, 0), (0, 1), (0, 1), (0, 0)))  # 10 of stride 2, kernel 3: one behind
    first = (padded[0, 2:5, 4:7, :, None] * f(3, 3, 3, 4)).sum(axis=(0, 1, 2))
    np.testing.assert_allclose(out["c1"][0, 1, 2], first, atol=CLOSE)
    kernel = f(5, 5, 4, 2, seed=5)
    around = np.pad(out["r1"], ((0, 0), (2, 2), (2, 2), (0, 0)))[0, 2:7, 3:8]
    second = (around[..., None] * kernel).sum(axis=(0, 1)).ravel()  # channel by channel, two each
    np.testing.assert_allclose(out["c2"][0, 2, 3], second, atol=CLOSE)


def test_plugins_are_refused_by_name() -> None:
    nodes = (
        Node("x", "Input", (), {"shape": Data("i_list", (-1, 3, 4, 4))}),
        Node("up", "_ResizeNearest_TRT", ("x",)),
        Node("MarkOutput_0", "MarkOutput", ("up",)),
    )
    with pytest.raises(BundleError, match=r"old.uff: up: operation _ResizeNearest_TRT is a plugin"):
        uff_to_onnx(write_uff(Uff(nodes, {}, ("custom",))), "old.uff")


# --- the shipped network ----------------------------------------------------------------------


def parity(data: bytes, net: UffNetwork, picture: Array) -> float:
    """Largest difference to ONNX Runtime for a uint8 picture [H, W, 3]."""
    expected = run(data, picture[None])
    feed = picture.transpose(2, 0, 1)[None].astype(np.float32)
    assert net.mean is not None
    assert net.std is not None
    feed = (feed - np.array(net.mean, np.float32)[:, None, None]) / np.array(net.std, np.float32)[
        :, None, None
    ]
    found = evaluate(read_uff(net.data, "x"), {net.input: feed})
    assert all(np.abs(value).max() > 0.1 for value in expected.values())
    return max(float(np.abs(found[name] - expected[name]).max()) for name in expected)


def test_the_shipped_network_agrees_on_a_drawn_picture(shipped: Any) -> None:
    path = Path(__file__).resolve().parents[2] / "models/coco17-paf-mobilenetv2/selftest-00.jpg"
    picture = letterbox(cv2.imread(str(path))[..., ::-1], 480, 416)[0]
    assert parity(*shipped, picture) <= PARITY_LIMIT


def test_the_shipped_network_agrees_on_real_pictures(shipped: Any) -> None:
    folder = os.environ.get("POSEWIRE_DATA", "")
    if not folder:
        pytest.skip("POSEWIRE_DATA is not set")
    files = sorted((Path(folder) / "coco" / "images").iterdir())[::64][:2]
    worst = max(
        parity(*shipped, letterbox(cv2.imread(str(file))[..., ::-1], 480, 416)[0]) for file in files
    )
    print(f"\nmax abs difference on {len(files)} real pictures: {worst:.2g}")
    assert worst <= PARITY_LIMIT


def test_the_shipped_networks_mean_and_std_are_the_fronts(shipped: Any) -> None:
    np.testing.assert_allclose(shipped[1].mean, 127.5, rtol=1e-6)
    np.testing.assert_allclose(shipped[1].std, 127.5, rtol=1e-6)
    uff = read_uff(shipped[1].data, "x")
    assert {node.operation for node in uff.nodes} == {
        *("Input", "Const", "Conv", "Binary", "Activation", "ConvTranspose", "Concat", "MarkOutput")
    }
