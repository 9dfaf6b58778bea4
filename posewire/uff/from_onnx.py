# SPDX-License-Identifier: Apache-2.0
"""ONNX -> UFF: the float graph of a bundle as what TensorRT up to 8.6 parses.

The front of a bundle's graph (uint8 NHWC, cast, transpose, scale and offset per channel) is taken
off: UFF's input is float32 NCHW, and what the front computed is returned as mean and std. What UFF
lacks is written with what it has where that is exact: nearest up-sampling is a transposed
convolution of ones with a group per channel; HardSigmoid, HardSwish, PRelu are minima, maxima and
products; padding that is neither symmetric nor TensorFlow's "same" is a Pad node. Everything else
is refused with the operator's name. Feature maps are NCHW ("NC+"), weights HWIO ("+CK", transposed
"+KC") as NVIDIA's converter writes them; a depthwise convolution's are [h, w, channels, 1].
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from ..errors import BundleError, ExitCode, PosewireError
from .format import DTYPES, INC, ORDERS, Data, Node, Uff, write_uff

_DTYPE_OF = {name: number for number, name in DTYPES.items()}
_EXTENSION = "tensorflow_extension"  # the descriptor that knows implicit_padding


@dataclass(frozen=True)
class UffNetwork:
    """A converted network.

    data       the UFF file
    input      its input's name; float32 [3, height, width], implicit batch
    outputs    its outputs' node names, as in the ONNX file
    mean, std  of the input: the network wants (x - mean) / std of x in 0..255; None: x itself
    """

    data: bytes
    input: str
    outputs: tuple[str, ...]
    mean: tuple[float, float, float] | None
    std: tuple[float, float, float] | None


def onnx_to_uff(data: bytes, shown: str) -> UffNetwork:
    """Converts an ONNX file's bytes; ``shown`` names it in messages.

    Raises BundleError naming the operator and node that UFF cannot express, PosewireError
    (UNAVAILABLE) without the onnx package.
    """
    from . import onnx_operators

    try:
        onnx: Any = import_module("onnx")
    except ImportError as error:
        raise PosewireError(f"converting ONNX needs onnx: {error}", ExitCode.UNAVAILABLE) from error
    try:
        model = onnx.load_model_from_string(data)
        inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    except Exception as error:  # several kinds, the package's own and protobuf's
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise BundleError(f"{shown}: is no ONNX file that can be converted: {first}") from error
    graph = Graph(onnx, inferred, shown)
    name, tensor, mean, std = _front(graph)
    graph.begin(name, tensor)
    for node in graph.nodes:
        if node.op_type not in onnx_operators.OPERATORS:
            graph.refuse(node, "UFF has no such operator")
        onnx_operators.OPERATORS[node.op_type](graph, node)
    outputs = tuple(value.name for value in inferred.graph.output)
    return UffNetwork(graph.finish(outputs), name, outputs, mean, std)


class Graph:
    """The ONNX graph being read and the UFF graph being written."""

    def __init__(self, onnx: Any, model: Any, shown: str) -> None:
        self._onnx, self._shown = onnx, shown
        graph = model.graph
        self.opset = max(i.version for i in model.opset_import if i.domain in ("", "ai.onnx"))
        self.arrays: dict[str, NDArray[Any]] = {
            tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer
        }
        self.inputs = [value for value in graph.input if value.name not in self.arrays]
        self.nodes: list[Any] = []
        for node in graph.node:
            if node.op_type == "Constant":
                self.arrays[node.output[0]] = self._constant(node)
            else:
                self.nodes.append(node)
        self._shapes: dict[str, list[Any]] = {
            value.name: [
                dim.dim_value if dim.HasField("dim_value") else dim.dim_param
                for dim in value.type.tensor_type.shape.dim
            ]
            for value in (*graph.value_info, *graph.input, *graph.output)
        }
        self._written: list[Node] = []
        self._names: set[str] = set()
        self._referenced: dict[str, Data] = {}
        self._same: dict[str, str] = {}  # ONNX tensor -> the UFF node that is it
        self._extended = False

    def _constant(self, node: Any) -> NDArray[Any]:
        values = self.attributes(node)
        if "value" in values:
            return np.asarray(self._onnx.numpy_helper.to_array(values["value"]))
        for key in ("value_float", "value_int", "value_floats", "value_ints"):
            if key in values:
                return np.asarray(values[key])
        self.refuse(node, "a constant of this kind is not read")

    # --- reading

    def refuse(self, node: Any, why: str) -> NoReturn:
        name = node.name or (node.output[0] if node.output else "without a name")
        raise BundleError(f"{self._shown}: UFF: operator {node.op_type} ({name}): {why}")

    def attributes(self, node: Any) -> dict[str, Any]:
        values = {a.name: self._onnx.helper.get_attribute_value(a) for a in node.attribute}
        return {k: v.decode() if isinstance(v, bytes) else v for k, v in values.items()}

    def shape(self, node: Any, tensor: str) -> list[Any]:
        """Dimensions; all but the first are numbers."""
        shape = list(self.arrays[tensor].shape) if tensor in self.arrays else None
        shape = self._shapes.get(tensor) if shape is None else shape
        if shape is None or any(not isinstance(side, int) or side < 1 for side in shape[1:]):
            self.refuse(node, f"the shape of {tensor} is not known: {shape}")
        return shape

    def array(self, node: Any, index: int, what: str) -> NDArray[Any]:
        """A constant input. Refuses a computed one."""
        found = self.optional(node, index)
        if found is None:
            self.refuse(node, f"its {what} must be constant")
        return found

    def optional(self, node: Any, index: int) -> NDArray[Any] | None:
        """A constant input; None where it is absent or computed."""
        if index >= len(node.input):
            return None
        return self.arrays.get(node.input[index])

    # --- writing

    def node(self, name: str, operation: str, inputs: Sequence[str], **fields: Data) -> str:
        """Writes one node; returns its id, which is ``name`` unless that is taken."""
        unique, count = name, 0
        while unique in self._names:
            unique, count = f"{name}_{count}", count + 1
        self._names.add(unique)
        self._written.append(Node(unique, operation, tuple(inputs), fields))
        self._extended |= "implicit_padding" in fields
        return unique

    def result(self, node: Any, operation: str, inputs: Sequence[str], **fields: Data) -> str:
        """Writes the UFF node that is an ONNX node's first output."""
        written = self.node(node.output[0], operation, inputs, **fields)
        self._same[node.output[0]] = written
        return written

    def alias(self, tensor: str, written: str) -> None:
        """Says that an ONNX tensor is the result of a UFF node."""
        self._same[tensor] = written

    def constant(self, name: str, array: NDArray[Any]) -> str:
        """Writes a Const node."""
        kind = {"f": "float32", "i": "int32"}[array.dtype.kind]
        stored = np.ascontiguousarray(array, np.dtype(kind).newbyteorder("<"))
        unique = self.node(
            name,
            "Const",
            (),
            shape=ints(array.shape),
            dtype=Data("dtype", _DTYPE_OF[kind]),
            values=Data("ref", f"weights_{name}"),
        )
        if unique != name:
            self._written[-1] = Node(
                unique,
                "Const",
                (),
                {**self._written[-1].fields, "values": Data("ref", f"weights_{unique}")},
            )
        self._referenced[f"weights_{unique}"] = Data("blob", stored.tobytes())
        return unique

    def value(self, tensor: str, node: Any) -> str:
        """The UFF node of a computed ONNX tensor."""
        if tensor not in self._same:
            self.refuse(node, f"reads {tensor or 'an absent input'}, which is not computed")
        return self._same[tensor]

    def orders(self, *names: str) -> Data:
        key = "orders_" + "_".join(names)
        self._referenced[key] = Data("dim_orders_list", tuple(ORDERS[name] for name in names))
        return Data("ref", key)

    def begin(self, name: str, tensor: str) -> None:
        """Writes the Input node, which stands for an ONNX tensor."""
        shape = self._shapes[tensor]
        fields = {"dtype": Data("dtype", _DTYPE_OF["float32"]), "shape": ints([-1, *shape[1:]])}
        self.alias(tensor, self.node(name, "Input", (), **fields))

    def finish(self, outputs: Sequence[str]) -> bytes:
        for i, name in enumerate(outputs):
            if name not in self._same:
                raise BundleError(f"{self._shown}: UFF: output {name} is not computed")
            if self._same[name] != name:
                self.node(name, "Identity", (self._same[name],))
            self.node(f"MarkOutput_{i}", "MarkOutput", (name,))
        descriptors = (_EXTENSION,) if self._extended else ()
        return write_uff(Uff(tuple(self._written), self._referenced, descriptors))


def ints(values: Sequence[int]) -> Data:
    return Data("i_list", tuple(int(value) for value in values))


# --- the input's front ------------------------------------------------------------------------

Triple = tuple[float, float, float]


def _front(graph: Graph) -> tuple[str, str, Triple | None, Triple | None]:
    """(input's name, the tensor that UFF's input stands for, mean, std); the front's nodes go."""
    if len(graph.inputs) != 1:
        names = ", ".join(value.name for value in graph.inputs) or "none"
        raise BundleError(f"{graph._shown}: UFF: one input is needed, there are: {names}")
    name = tensor = str(graph.inputs[0].name)
    for operator in ("Cast", "Transpose"):
        node = _only_reader(graph, tensor)
        if node is None or node.op_type != operator:
            break
        if operator == "Transpose" and graph.attributes(node).get("perm") != [0, 3, 1, 2]:
            graph.refuse(node, "the input's must be from NHWC to NCHW")
        tensor = _step_over(graph, node)
    scale, offset = np.ones(3), np.zeros(3)
    while (step := _scaling(graph, tensor)) is not None:
        node, a, b = step
        scale, offset = scale * a, offset * a + b
        tensor = _step_over(graph, node)
    shape = graph._shapes.get(tensor, [])
    if len(shape) != 4 or shape[1] != 3 or any(not isinstance(n, int) or n < 1 for n in shape[1:]):
        raise BundleError(
            f"{graph._shown}: UFF: the input must be pictures of three channels and a fixed size, "
            f"NCHW behind its cast and transpose; {tensor} is {shape}"
        )
    if (scale == 1).all() and (offset == 0).all():
        return name, tensor, None, None
    if not (scale > 0).all():
        raise BundleError(f"{graph._shown}: UFF: the input is scaled by {scale.tolist()}")
    mean, std = (-offset / scale).tolist(), (1.0 / scale).tolist()
    return name, tensor, (mean[0], mean[1], mean[2]), (std[0], std[1], std[2])


def _only_reader(graph: Graph, tensor: str) -> Any | None:
    readers = [node for node in graph.nodes if tensor in node.input]
    return readers[0] if len(readers) == 1 else None


def _step_over(graph: Graph, node: Any) -> str:
    graph.nodes.remove(node)
    return str(node.output[0])


def _scaling(graph: Graph, tensor: str) -> tuple[Any, NDArray[Any], NDArray[Any]] | None:
    """(node, a, b) where the tensor's only reader computes a x + b per channel."""
    node = _only_reader(graph, tensor)
    if node is None or node.op_type not in ("Mul", "Add", "Sub", "Div"):
        return None
    other = next((graph.arrays[n] for n in node.input if n in graph.arrays), None)
    if other is None or (node.input[0] != tensor and node.op_type in ("Sub", "Div")):
        return None
    if other.size not in (1, 3) or (other.size == 3 and other.shape[-3:] != (3, 1, 1)):
        return None
    value = np.broadcast_to(other.astype(np.float64).ravel(), (3,))
    one, zero = np.ones(3), np.zeros(3)
    rows: Mapping[str, Any] = {
        "Mul": (value, zero),
        "Add": (one, value),
        "Sub": (one, -value),
        "Div": (one / np.where(value == 0, np.nan, value), zero),
    }
    return (node, *rows[node.op_type])


__all__ = ["INC", "Graph", "UffNetwork", "ints", "onnx_to_uff"]
