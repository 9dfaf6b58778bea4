# SPDX-License-Identifier: Apache-2.0
"""Surgery on a third-party ONNX graph: what a bundle's hub is (uint8 NHWC in, named outputs) around
a network that knows nothing of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from posewire.errors import BundleError, ExitCode
from posewire.onnx_check import refuse_external_data
from posewire.uff.to_onnx import uff_to_onnx

from .errors import TrainError
from .export_onnx import INPUT, OPSET, run_onnx, session
from .from_tensorflow import tensorflow_to_onnx
from .third_party_outputs import Found

_IR_VERSION = 9
_LIMIT = 1e-4  # largest difference between the network and what is made of it, relative
Say = Callable[[str], None]


def load(source: Path, size: tuple[int, int] | None) -> onnx.ModelProto:
    """A network's file as ONNX; ``size`` is (width, height) where the file leaves it open.

    Raises BundleError or TrainError naming the file.
    """
    readers: Mapping[str, Callable[[], bytes]] = {
        ".onnx": source.read_bytes,
        ".uff": lambda: uff_to_onnx(
            source.read_bytes(), str(source), None if size is None else _uff_shape(source, size)
        ),
        ".pb": lambda: tensorflow_to_onnx(source, size),
    }
    if source.suffix not in readers:
        known = ", ".join(readers)
        raise TrainError(f"{source}: is none of {known}", ExitCode.USAGE)
    try:
        data = readers[source.suffix]()
    except OSError as error:
        raise TrainError(f"{source}: {error.strerror}", ExitCode.SOURCE) from error
    refuse_external_data(data, str(source))
    try:
        model = onnx.load_model_from_string(data)
        onnx.checker.check_model(model)
    except Exception as error:  # the package raises several kinds, of its own and protobuf's
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise BundleError(f"{source}: the ONNX checker refuses it: {first}") from error
    held = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in held]
    del model.graph.input[:]  # old files list their weights here too
    model.graph.input.extend(inputs)
    model.ir_version = max(model.ir_version, 4)  # which allows that
    if len(inputs) != 1:
        names = ", ".join(value.name for value in inputs) or "none"
        raise BundleError(f"{source}: one input is needed, the network has: {names}")
    return _current(model)


def _uff_shape(source: Path, size: tuple[int, int]) -> tuple[int, ...]:
    from posewire.uff.format import read_uff, resolved

    uff = read_uff(source.read_bytes(), str(source))
    for node in uff.nodes:
        if node.operation == "Input":
            sides = resolved(uff, node, "shape") or ()
            return (3, size[1], size[0]) if sides[1:2] == (3,) else (size[1], size[0], 3)
    return ()


def _current(model: onnx.ModelProto) -> onnx.ModelProto:
    """In the opset that everything else here speaks, where the converter knows the way."""
    for node in model.graph.node:  # what it stumbles over, and what nobody else ever set
        if node.op_type == "BatchNormalization":
            kept = [a for a in node.attribute if a.name != "spatial"]
            del node.attribute[:]
            node.attribute.extend(kept)
    version = max(i.version for i in model.opset_import if i.domain in ("", "ai.onnx"))
    if version >= OPSET:
        return model
    try:
        converted = onnx.version_converter.convert_version(model, OPSET)
        onnx.checker.check_model(converted, full_check=True)
    except Exception:  # it knows no way; the old opset serves as well, INT8 apart
        return model
    assert isinstance(converted, onnx.ModelProto)
    return converted


def input_shape(
    model: onnx.ModelProto, source: Path, size: tuple[int, int] | None
) -> tuple[str, int, int]:
    """(layout, width, height) of the input. Raises BundleError or TrainError (USAGE)."""
    value = model.graph.input[0]
    tensor = value.type.tensor_type
    dims = [dim.dim_value for dim in tensor.shape.dim]
    if tensor.elem_type != TensorProto.FLOAT or len(dims) != 4:
        kind = TensorProto.DataType.Name(tensor.elem_type)
        raise BundleError(f"{source}: input {value.name} is {kind} {dims}, not float32 pictures")
    if (dims[1] == 3) == (dims[3] == 3):
        raise BundleError(f"{source}: input {value.name} is {dims}: where are the 3 channels?")
    layout = "NCHW" if dims[1] == 3 else "NHWC"
    high, wide = dims[2:] if layout == "NCHW" else dims[1:3]
    given = size or (wide, high)
    if (wide and wide != given[0]) or (high and high != given[1]):
        raise TrainError(
            f"{source}: the network's input is {wide}x{high}, not {given[0]}x{given[1]}",
            ExitCode.USAGE,
        )
    if min(given) < 1:
        raise TrainError(f"{source}: the input's size is open: --input-size WxH", ExitCode.USAGE)
    return layout, int(given[0]), int(given[1])


def output_shapes(
    model: onnx.ModelProto, layout: str, width: int, height: int
) -> dict[str, tuple[int, ...]]:
    """Every output's shape without the batch, by running the network once on grey."""
    data = sized(model, layout, width, height).SerializeToString()
    value = model.graph.input[0].name
    running = session(data)
    grey = np.full(_feed_shape(layout, width, height), 114, np.float32)
    names = [output.name for output in running.get_outputs()]
    results = running.run(names, {value: grey})
    return {name: result.shape[1:] for name, result in zip(names, results, strict=True)}


def _feed_shape(layout: str, width: int, height: int) -> tuple[int, ...]:
    return (1, 3, height, width) if layout == "NCHW" else (1, height, width, 3)


def sized(model: onnx.ModelProto, layout: str, width: int, height: int) -> onnx.ModelProto:
    """The network with a batch of one and a size; shapes that no longer hold are dropped."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    shape = _feed_shape(layout, width, height)
    for dim, side in zip(copy.graph.input[0].type.tensor_type.shape.dim, shape, strict=True):
        dim.dim_value = side
    _forget_shapes(copy)
    return copy


def _forget_shapes(model: onnx.ModelProto) -> None:
    del model.graph.value_info[:]
    for output in model.graph.output:
        output.type.tensor_type.ClearField("shape")


# --- the wrapper ------------------------------------------------------------------------------


def wrapped(
    model: onnx.ModelProto,
    layout: str,
    size: tuple[int, int],
    mean: Sequence[float],
    std: Sequence[float],
    outputs: Sequence[Found],
) -> onnx.ModelProto:
    """uint8 NHWC in, cast, (x - mean) / std, the network, its outputs by the rules' names: maps
    NCHW, sequences as they are. The batch is 1."""
    inner = sized(model, layout, *size)
    graph = inner.graph
    (old,) = graph.input
    _rename_clashes(graph, {INPUT, *(found.rule.name for found in outputs)} - {old.name})
    front, arrays = _front(old.name, layout, mean, std)
    back: list[Any] = []
    values: list[Any] = []
    taken = {old.name: f"{INPUT}_network"}
    for found in outputs:
        tensor = _renamed(found.rule.tensor, taken)
        nodes, more, shape = _named(found, tensor)
        back += nodes
        arrays += more
        name = found.rule.name
        values.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, *shape]))
    for node in graph.node:
        for i, tensor in enumerate(node.input):
            node.input[i] = _renamed(tensor, taken)
    image = helper.make_tensor_value_info(INPUT, TensorProto.UINT8, [1, size[1], size[0], 3])
    made = helper.make_graph(
        [*front, *graph.node, *back], "posewire", [image], values, [*graph.initializer, *arrays]
    )
    return helper.make_model(
        made,
        opset_imports=list(inner.opset_import),
        producer_name="posewire",
        ir_version=min(max(inner.ir_version, 8), _IR_VERSION),
        functions=list(inner.functions),
    )


def _renamed(tensor: str, names: Mapping[str, str]) -> str:
    return names.get(tensor, tensor)


def _rename_clashes(graph: Any, reserved: set[str]) -> None:
    """Inner tensors that have the name of something that is put around them."""
    names = {name: f"{name}_inner" for name in reserved}
    for node in graph.node:
        for tensors in (node.input, node.output):
            for i, tensor in enumerate(tensors):
                tensors[i] = names.get(tensor, tensor)
    for tensor in graph.initializer:
        tensor.name = names.get(tensor.name, tensor.name)
    for value in graph.output:
        value.name = names.get(value.name, value.name)


def _front(
    name: str, layout: str, mean: Sequence[float], std: Sequence[float]
) -> tuple[list[Any], list[Any]]:
    """Nodes from the uint8 input to the network's own, and their constants."""
    scale = 1.0 / np.array(std, np.float64)
    offset = -np.array(mean, np.float64) * scale
    across = (1, 3, 1, 1) if layout == "NCHW" else (3,)
    steps: list[tuple[str, dict[str, Any], NDArray[np.float32] | None]] = [
        ("Cast", {"to": TensorProto.FLOAT}, None)
    ]
    if layout == "NCHW":
        steps.append(("Transpose", {"perm": [0, 3, 1, 2]}, None))
    if (scale != 1).any():
        steps.append(("Mul", {}, scale.astype(np.float32).reshape(across)))
    if (offset != 0).any():
        steps.append(("Add", {}, offset.astype(np.float32).reshape(across)))
    nodes, arrays, tensor = [], [], INPUT
    for i, (kind, attributes, constant) in enumerate(steps):
        result = f"{INPUT}_network" if i == len(steps) - 1 else f"{INPUT}_{kind.lower()}"
        inputs = [tensor]
        if constant is not None:
            arrays.append(numpy_helper.from_array(constant, f"{INPUT}_{kind.lower()}_by"))
            inputs.append(arrays[-1].name)
        name = f"input_{kind.lower()}"
        nodes.append(helper.make_node(kind, inputs, [result], name, **attributes))
        tensor = result
    return nodes, arrays


def _named(found: Found, tensor: str) -> tuple[list[Any], list[Any], list[int]]:
    """Nodes that make an output of a tensor: its channels, NCHW for maps, its name."""
    rule, shape = found.rule, list(found.shape)
    nodes: list[Any] = []
    arrays: list[Any] = []
    if rule.first is not None and (rule.first, rule.last) != (0, shape[found.channels]):
        ends = (("first", rule.first), ("last", rule.last), ("axis", found.channels + 1))
        for key, value in ends:
            constant = np.array([value], np.int64)
            arrays.append(numpy_helper.from_array(constant, f"{rule.name}_{key}"))
        shape[found.channels] = found.count
        cut = f"{rule.name}_cut"
        inputs = [tensor, *(array.name for array in arrays)]
        nodes.append(helper.make_node("Slice", inputs, [cut], f"{rule.name}_slice"))
        tensor = cut
    if found.stride is not None and found.channels == 2:
        shape = [shape[2], *shape[:2]]
        turned = f"{rule.name}_turned"
        name = f"{rule.name}_transpose"
        nodes.append(helper.make_node("Transpose", [tensor], [turned], name, perm=[0, 3, 1, 2]))
        tensor = turned
    if nodes:
        nodes[-1].output[0] = rule.name
    else:
        nodes.append(helper.make_node("Identity", [tensor], [rule.name], f"{rule.name}_identity"))
    return nodes, arrays, shape


# --- afterwards -------------------------------------------------------------------------------


def slimmed(model: onnx.ModelProto) -> onnx.ModelProto:
    """Constants folded and normalisations merged, where onnxslim is installed and can."""
    try:
        import onnxruntime
        import onnxslim

        onnxruntime.set_default_logger_severity(3)  # it folds constants with warnings
        slim = onnxslim.slim(model)
        onnx.checker.check_model(slim)
    except Exception:  # a convenience; what it cannot do stays as it was
        return model
    assert isinstance(slim, onnx.ModelProto)
    return slim


def batched(model: onnx.ModelProto, pictures: NDArray[np.uint8]) -> onnx.ModelProto | None:
    """The same network for any batch, or None where two pictures together come out otherwise than
    alone: a batch frozen into the graph, or normalisation over the batch."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for value in (*copy.graph.input, *copy.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    del copy.graph.value_info[:]
    arrays = {tensor.name: tensor for tensor in copy.graph.initializer}
    for node in copy.graph.node:
        if node.op_type == "Reshape" and node.input[1] in arrays:
            shape = numpy_helper.to_array(arrays[node.input[1]]).copy()
            if len(shape) > 1 and shape[0] == 1:
                shape[0] = 0  # the batch, as it comes
                freed = numpy_helper.from_array(shape, f"{node.input[1]}_free")
                if freed.name not in arrays:
                    copy.graph.initializer.append(freed)
                    arrays[freed.name] = freed
                node.input[1] = freed.name
    try:
        onnx.checker.check_model(copy, full_check=True)
        both = run_onnx(session(copy.SerializeToString()), pictures[:2])
        alone = session(model.SerializeToString())
        for i in range(2):
            found = run_onnx(alone, pictures[i : i + 1])
            for name, values in found.items():
                if not close(both[name][i], values[0]):
                    return None
    except Exception:  # ONNX Runtime's own words do not matter: this network has a batch of one
        return None
    return copy


def close(found: NDArray[Any], wanted: NDArray[Any]) -> bool:
    """Equal but for the order in which sums were taken."""
    scale = max(1.0, float(np.abs(wanted).max()))
    return found.shape == wanted.shape and float(np.abs(found - wanted).max()) <= _LIMIT * scale


def check_same(
    original: onnx.ModelProto,
    made: bytes,
    layout: str,
    pictures: NDArray[np.uint8],
    mean: Sequence[float],
    std: Sequence[float],
    outputs: Sequence[Found],
) -> float:
    """The largest difference between the bundle's graph and the network as it came, fed by hand.

    Raises TrainError (BUG) where they are not the same.
    """
    size = (pictures.shape[2], pictures.shape[1])
    theirs = session(sized(original, layout, *size).SerializeToString())
    ours = session(made)
    worst = 0.0
    for picture in pictures:
        feed = ((picture - np.array(mean)) / np.array(std)).astype(np.float32)[None]
        feed = feed.transpose(0, 3, 1, 2) if layout == "NCHW" else feed
        names = [found.rule.tensor for found in outputs]
        expected = theirs.run(names, {original.graph.input[0].name: np.ascontiguousarray(feed)})
        given = run_onnx(ours, picture[None])
        for found, values in zip(outputs, expected, strict=True):
            axis = found.channels + 1
            cut = np.arange(found.rule.first or 0, found.rule.last or values.shape[axis])
            wanted = values.take(cut, axis)
            if found.stride is not None and found.channels == 2:
                wanted = wanted.transpose(0, 3, 1, 2)
            mine = given[found.rule.name]
            if not close(mine, wanted):
                raise TrainError(
                    f"output {found.rule.name} is no longer the network's own", ExitCode.BUG
                )
            worst = max(worst, float(np.abs(mine - wanted).max()))
    return worst


# --- YOLOX ------------------------------------------------------------------------------------


def with_yolox_boxes(
    model: onnx.ModelProto, tensor: str, width: int, height: int, rows: int
) -> tuple[onnx.ModelProto, str]:
    """The network with one more output: boxes [batch, rows, 5], corners in network pixels and the
    score of class 0, of YOLOX's raw rows (x, y, log width, log height, object, classes).

    Ge et al., "YOLOX", arXiv 2107.08430; cells of strides 8, 16, 32 (64), row by row. Raises
    TrainError (USAGE) where the rows are not those of such cells.
    """
    cells: list[NDArray[np.float32]] = []
    for stride in (8, 16, 32, 64):
        if sum(map(len, cells)) == rows:
            break
        y, x = np.mgrid[0 : height // stride, 0 : width // stride]
        cells.append(
            np.stack([x, y, np.full_like(x, stride)], -1).reshape(-1, 3).astype(np.float32)
        )
    if sum(map(len, cells)) != rows:
        raise TrainError(
            f"{tensor}: {rows} rows are not YOLOX's cells of {width}x{height}", ExitCode.USAGE
        )
    table = np.concatenate(cells)[None]
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    graph = copy.graph

    def array(name: str, values: NDArray[Any]) -> str:
        graph.initializer.append(numpy_helper.from_array(values, f"yolox_{name}"))
        return f"yolox_{name}"

    def node(kind: str, inputs: Sequence[str], name: str, **attributes: Any) -> str:
        made = helper.make_node(
            kind, list(inputs), [f"yolox_{name}"], f"yolox_{name}", **attributes
        )
        graph.node.append(made)
        return f"yolox_{name}"

    def columns(first: int, last: int, name: str) -> str:
        ends = [array(f"{name}_{k}", np.array([v], np.int64)) for k, v in
                (("first", first), ("last", last), ("axis", 2))]  # fmt: skip
        return node("Slice", [tensor, *ends], name)

    strides = array("strides", table[..., 2:])
    moved = node("Add", [columns(0, 2, "xy"), array("cells", table[..., :2])], "moved")
    centres = node("Mul", [moved, strides], "centres")
    grown = node("Exp", [columns(2, 4, "log_sides")], "grown")
    half = array("half_strides", table[..., 2:] / 2)
    halves = node("Mul", [grown, half], "halves")
    low, high = node("Sub", [centres, halves], "low"), node("Add", [centres, halves], "high")
    score = node("Mul", [columns(4, 5, "object"), columns(5, 6, "class")], "score")
    boxes = node("Concat", [low, high, score], "boxes", axis=2)
    graph.output.append(helper.make_tensor_value_info(boxes, TensorProto.FLOAT, None))
    return copy, boxes
