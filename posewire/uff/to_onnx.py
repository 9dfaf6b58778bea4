# SPDX-License-Identifier: Apache-2.0
"""UFF -> ONNX, for those who come from old Jetsons and have lost the network that it was made of.

Feature maps of NHWC graphs (TensorFlow's) are kept NCHW between convolutions: a value remembers
that it is moved, and is moved back only where an operation needs the file's own order. Names of
inputs and outputs stay; the input keeps the file's layout, the batch becomes free. Plugins are
refused by name.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from ..errors import BundleError, ExitCode, PosewireError
from .evaluate import outputs_of, probe, unfolded
from .format import Node, Uff, read_uff, resolved
from .uff_operators import OPERATIONS, TO_FRONT

OPSET = 18
_TO_BACK = [0, 2, 3, 1]  # NCHW -> NHWC
_IR_VERSION = 8


def uff_to_onnx(data: bytes, shown: str, shape: Sequence[int] | None = None) -> bytes:
    """An ONNX file's bytes for a UFF file's; ``shown`` names it in messages.

    ``shape`` is the input's without the batch, needed where the file leaves sides open. Raises
    BundleError naming node and operation, PosewireError (UNAVAILABLE) without the onnx package.
    """
    try:
        onnx: Any = import_module("onnx")
    except ImportError as error:
        raise PosewireError(f"converting UFF needs onnx: {error}", ExitCode.UNAVAILABLE) from error
    uff = read_uff(data, shown)
    try:
        writer = Writer(onnx, uff, shape)
        for node in uff.nodes:
            writer.write(node)
        return writer.finish()
    except BundleError as error:
        raise BundleError(f"{shown}: {error}") from error


class Writer:
    def __init__(self, onnx: Any, uff: Uff, shape: Sequence[int] | None) -> None:
        self._onnx, self.uff = onnx, uff
        self._inputs = [_sized(uff, n, shape) for n in uff.nodes if n.operation == "Input"]
        zeros = {name: np.zeros((1, *sides), np.float32) for name, sides in self._inputs}
        self.shapes, self.fixed = probe(uff, zeros)
        self._moved: set[str] = set()  # values whose tensor is NCHW though the file's is NHWC
        self._alias: dict[str, str] = {}
        self._done: dict[tuple[str, bool], str] = {}
        self._nodes: list[Any] = []
        self._arrays: list[Any] = []
        self._count = 0

    def write(self, node: Node) -> None:
        if node.operation in ("Const", "Input", "MarkOutput") or node.id in self.fixed:
            return
        row = OPERATIONS.get(node.operation)
        if row is None:
            what = "a plugin" if node.operation.startswith("_") else "not known"
            raise BundleError(f"{node.id}: operation {node.operation} is {what}")
        try:
            row(self, node)
        except (ValueError, IndexError, TypeError, KeyError) as error:
            first = (str(error).splitlines() or [type(error).__name__])[0]
            raise BundleError(f"{node.id}: {node.operation}: {first}") from error

    def finish(self) -> bytes:
        helper, proto = self._onnx.helper, self._onnx.TensorProto
        inputs = [
            helper.make_tensor_value_info(name, proto.FLOAT, ["batch", *sides])
            for name, sides in self._inputs
        ]
        outputs = []
        for name in dict.fromkeys(outputs_of(self.uff)):
            tensor = self.plain(name)
            if tensor != name:
                self._nodes.append(helper.make_node("Identity", [tensor], [name], name=name))
            shape = ["batch", *self.shapes[name][1:]]
            outputs.append(helper.make_tensor_value_info(name, proto.FLOAT, shape))
        if not outputs or not inputs:
            raise BundleError("the graph has no input or marks no output")
        graph = helper.make_graph(self._nodes, "uff", inputs, outputs, self._arrays)
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", OPSET)],
            producer_name="posewire",
            ir_version=_IR_VERSION,
        )
        try:
            self._onnx.checker.check_model(model, full_check=True)
        except Exception as error:
            first = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise BundleError(f"what it says makes no ONNX graph: {first}") from error
        return bytes(model.SerializeToString())

    # --- what operations use

    def field(self, node: Node, key: str, default: Any = None) -> Any:
        value = resolved(self.uff, node, key)
        return default if value is None else value

    def fail(self, node: Node, why: str) -> NoReturn:
        raise BundleError(f"{node.id}: {node.operation}: {why}")

    def array(self, values: NDArray[Any]) -> str:
        name = f"array_{len(self._arrays)}"
        self._arrays.append(self._onnx.numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def operator(self, kind: str, inputs: Sequence[str], name: str, **attributes: Any) -> str:
        made = self._onnx.helper.make_node(kind, list(inputs), [name], name=name, **attributes)
        self._nodes.append(made)
        return name

    def result(self, node: Node, tensor: str, *, moved: bool) -> None:
        self._alias[node.id] = tensor
        if moved:
            self._moved.add(node.id)

    def own(self, node: Node, *, moved: bool) -> str:
        """The name of a node's result: its own, unless that is what will be moved back to it."""
        return f"{node.id}/nchw" if moved else node.id

    def is_moved(self, name: str) -> bool:
        return name in self._moved

    def plain(self, name: str) -> str:
        """The tensor in the file's own order."""
        return self._tensor(name, front=False)

    def front(self, name: str) -> str:
        """The tensor of a feature map that the file has as NHWC, as NCHW."""
        return self._tensor(name, front=True)

    def _tensor(self, name: str, *, front: bool) -> str:
        if name in self.fixed:
            values = self.fixed[name]
            kind = np.float32 if values.dtype.kind == "f" else np.int64
            return self.array((values.transpose(TO_FRONT) if front else values).astype(kind))
        tensor = self._alias.get(name, name)
        if (name in self._moved) == front:
            return tensor
        key = (name, front)
        if key not in self._done:
            order = TO_FRONT if front else _TO_BACK
            made = f"{name}/nchw" if front else (name if tensor != name else f"{name}/nhwc")
            self._done[key] = self.operator("Transpose", [tensor], made, perm=order)
        return self._done[key]

    def order(self, node: Node, index: int, rank: int) -> list[int]:
        orders = self.field(node, "inputs_orders", ())
        if index >= len(orders):
            return list(range(rank))
        return unfolded(orders[index], rank, node.id)

    def maps(self, node: Node) -> tuple[str, bool]:
        """(the first input as NCHW, whether the file has it as NHWC)."""
        name = node.inputs[0]
        rank = len(self.shapes[name])
        if rank != 4:
            self.fail(node, f"its input has {rank} dimensions, not 4")
        order = self.order(node, 0, 4)
        if order == [0, 1, 2, 3]:
            return self.plain(name), False
        if order == [0, 2, 3, 1]:
            return self.front(name), True
        self.fail(node, f"maps in the order {order}")

    def weights(self, node: Node, index: int) -> NDArray[Any]:
        """A constant input in canonical order."""
        values = self.constant(node, index)
        return values.transpose(np.argsort(self.order(node, index, values.ndim)))

    def constant(self, node: Node, index: int) -> NDArray[Any]:
        if node.inputs[index] not in self.fixed:
            self.fail(node, f"its input {index} must be constant")
        return self.fixed[node.inputs[index]]

    def channels(self, name: str, moved: bool) -> int:
        return self.shapes[name][3 if moved else 1]


def _sized(uff: Uff, node: Node, shape: Sequence[int] | None) -> tuple[str, list[int]]:
    sides = list(resolved(uff, node, "shape") or ())[1:]
    if shape is not None and len(shape) == len(sides):
        for i, (said, given) in enumerate(zip(sides, shape, strict=True)):
            if said not in (-1, given):
                raise BundleError(f"{node.id}: the file says {sides}, asked for is {list(shape)}")
            sides[i] = int(given)
    if not sides or any(not 1 <= side <= 65536 for side in sides):
        raise BundleError(f"{node.id}: the file leaves the input's size open: {sides}")
    return node.id, sides
