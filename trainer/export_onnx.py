# SPDX-License-Identifier: Apache-2.0
"""Keras -> ONNX: the float graph that every artifact of a bundle is made from.

The path is: a frozen TensorFlow function, tf2onnx with NCHW inside (no transposes between
convolutions), onnxslim, and a wrapper that takes what the engine has: uint8 NHWC pictures. A
network that was trained with another backend is loaded into TensorFlow for this; its weights are
portable. Run as a program it does that for a run directory:

    KERAS_BACKEND=tensorflow python -m posewire.trainer.export_onnx RUN WIDTH HEIGHT OUT.onnx OUT.pb

OUT.pb is the frozen TensorFlow function, which the TFLite files are made from.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from posewire.errors import ExitCode, PosewireError

from .errors import TrainError

if TYPE_CHECKING:
    from .algorithm import OutputSpec

OPSET = 18
INPUT = "image"


def float_onnx(frozen: bytes, outputs: Sequence[OutputSpec], width: int, height: int) -> bytes:
    """An ONNX model, serialised: uint8 NHWC ["batch", height, width, 3] in, the outputs by name,
    float32 NCHW ["batch", channels, height / stride, width / stride] or, of sequences, NCW
    ["batch", channels, length] out, batch free.

    ``frozen`` is what frozen_graph gives. Raises TrainError (BUG) where the conversion leaves
    something that a target would trip over: a transpose between convolutions, a missing output, a
    wrong shape.
    """
    names = [spec.name for spec in outputs]
    with quiet():
        maps = [spec.name for spec in outputs if spec.stride]
        converted = _converted(graph_of(frozen), names, maps)
    slim = _slimmed(converted)
    _rename_outputs(slim, {f"{name}:0": name for name in names})
    _refuse_strays(slim)
    wrapped = _wrapped(slim, width, height)
    _set_outputs(wrapped, outputs, width, height)
    onnx.checker.check_model(wrapped, full_check=True)
    data: bytes = wrapped.SerializeToString()
    return data


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without the deprecation notices of what TensorFlow and tf2onnx call inside themselves."""
    loggers = [logging.getLogger(name) for name in ("tensorflow", "tf2onnx")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def frozen_graph(model: Any, outputs: Sequence[OutputSpec], width: int, height: int) -> bytes:
    """The model as a TensorFlow GraphDef of constants, serialised: placeholder ``image``, float32
    [batch, height, width, 3], and one node of each output's name: maps NHWC, sequences NCW, which
    no runtime's convolution asks for channels last.

    ``model`` is a Keras model of the TensorFlow backend from float32 RGB 0..255 NHWC to a dict of
    outputs, channels last.
    """
    import keras

    if keras.backend.backend() != "tensorflow":
        raise TrainError("exporting needs KERAS_BACKEND=tensorflow", ExitCode.BUG)
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import (
        convert_variables_to_constants_v2,
    )

    resizing = _with_resize(model)

    def run(image: Any) -> list[Any]:
        result = resizing(image, training=False)
        return [
            tf.identity(
                result[spec.name] if spec.stride else tf.transpose(result[spec.name], (0, 2, 1)),
                name=spec.name,
            )
            for spec in outputs
        ]

    image = tf.TensorSpec((None, height, width, 3), tf.float32, name=INPUT)
    with quiet():
        concrete = tf.function(run).get_concrete_function(image)
        frozen = convert_variables_to_constants_v2(concrete)
    data: bytes = frozen.graph.as_graph_def().SerializeToString()
    return data


def graph_of(frozen: bytes) -> Any:
    """The GraphDef of frozen_graph's bytes."""
    import tensorflow as tf

    return tf.compat.v1.GraphDef.FromString(frozen)


def _with_resize(model: Any) -> Any:
    """The same network with nearest up-sampling as one operator.

    Keras writes it as repeats, which become a chain of reshapes in ONNX; a Resize is what every
    runtime has a kernel for.
    """
    import keras
    import tensorflow as tf

    class Nearest(keras.layers.Layer):  # type: ignore[misc]
        def __init__(self, size: tuple[int, int], **settings: Any) -> None:
            super().__init__(**settings)
            self.size = size

        def call(self, x: Any) -> Any:
            height, width = x.shape[1], x.shape[2]
            shape = (
                (height * self.size[0], width * self.size[1])
                if height is not None and width is not None
                else tf.shape(x)[1:3] * self.size
            )
            return tf.raw_ops.ResizeNearestNeighbor(images=x, size=shape)

        def compute_output_shape(self, shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
            sides = (
                None if side is None else side * factor
                for side, factor in zip(shape[1:3], self.size, strict=True)
            )
            return (shape[0], *sides, shape[3])

    def swap(layer: Any) -> Any:
        if isinstance(layer, keras.layers.UpSampling2D):
            if layer.interpolation != "nearest":
                raise TrainError(f"{layer.name}: only nearest up-sampling can be exported")
            return Nearest(tuple(layer.size), name=layer.name)
        return layer  # the very layer: its weights are shared

    return keras.models.clone_model(model, clone_function=swap)


def _converted(graph_def: Any, names: Sequence[str], maps: Sequence[str]) -> onnx.ModelProto:
    import tf2onnx

    model, _ = tf2onnx.convert.from_graph_def(
        graph_def,
        name="posewire",
        input_names=[f"{INPUT}:0"],
        output_names=[f"{name}:0" for name in names],
        opset=OPSET,
        inputs_as_nchw=[f"{INPUT}:0"],
        outputs_as_nchw=[f"{name}:0" for name in maps],
    )
    assert isinstance(model, onnx.ModelProto)
    return model


def _slimmed(model: onnx.ModelProto) -> onnx.ModelProto:
    """Constants folded, normalisations merged into convolutions."""
    import onnxslim

    slim = onnxslim.slim(model)
    assert isinstance(slim, onnx.ModelProto)
    return slim


def _rename_outputs(model: onnx.ModelProto, names: dict[str, str]) -> None:
    found = {value.name for value in model.graph.output}
    if found != set(names):
        raise TrainError(f"export: outputs are {sorted(found)}, not {sorted(names)}", ExitCode.BUG)
    for node in model.graph.node:
        for tensors in (node.input, node.output):
            for i, tensor in enumerate(tensors):
                tensors[i] = names.get(tensor, tensor)
    for value in model.graph.output:
        value.name = names[value.name]


def _refuse_strays(model: onnx.ModelProto) -> None:
    strays = [node.name for node in model.graph.node if node.op_type == "Transpose"]
    if strays:
        raise TrainError(f"export: stray transposes: {', '.join(strays[:4])}", ExitCode.BUG)


def _wrapped(model: onnx.ModelProto, width: int, height: int) -> onnx.ModelProto:
    """Puts Cast and Transpose before the float NCHW graph and renames its input."""
    (old,) = model.graph.input
    inner = f"{INPUT}_nchw"
    for node in model.graph.node:
        for i, tensor in enumerate(node.input):
            if tensor == old.name:
                node.input[i] = inner
    front = [
        helper.make_node("Cast", [INPUT], [f"{INPUT}_float"], "input_cast", to=TensorProto.FLOAT),
        helper.make_node(
            "Transpose", [f"{INPUT}_float"], [inner], "input_transpose", perm=[0, 3, 1, 2]
        ),
    ]
    nodes = [*front, *model.graph.node]
    shape: list[str | int | None] = ["batch", height, width, 3]
    image = helper.make_tensor_value_info(INPUT, TensorProto.UINT8, shape)
    graph = helper.make_graph(
        nodes, "posewire", [image], list(model.graph.output), list(model.graph.initializer)
    )
    result = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", OPSET)],
        producer_name="posewire",
        ir_version=min(model.ir_version, 9),  # what runtimes of the last years read
    )
    return result


def _set_outputs(
    model: onnx.ModelProto, outputs: Sequence[OutputSpec], width: int, height: int
) -> None:
    """Gives the outputs their shapes, in the algorithm's order."""
    shapes: dict[str, list[str | int | None]] = {
        spec.name: ["batch", *spec.shape(width, height)] for spec in outputs
    }
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    del model.graph.output[:]
    for value in inferred.graph.output:
        dims = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        wanted = shapes[value.name]
        if any(dim and dim != want for dim, want in zip(dims[1:], wanted[1:], strict=True)):
            raise TrainError(f"export: {value.name} is {dims}, not {wanted}", ExitCode.BUG)
    for name, shape in shapes.items():
        model.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))


def session(data: bytes) -> Any:
    """An ONNX Runtime session on the CPU, one thread: exports are checked, not raced."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 2
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def run_onnx(running: Any, pictures: np.ndarray[Any, Any]) -> dict[str, np.ndarray[Any, Any]]:
    """Outputs by name for uint8 pictures [B, H, W, 3]."""
    names = [value.name for value in running.get_outputs()]
    return dict(zip(names, running.run(names, {INPUT: pictures}), strict=True))


def main(arguments: Sequence[str]) -> int:
    """The program: see the top of this file."""
    from .checkpoint import load_run

    run, width, height, out_onnx, out_frozen = arguments
    try:
        _, network = load_run(Path(run))
        size = (int(width), int(height))
        frozen = frozen_graph(network.inference(), network.algorithm.outputs, *size)
        Path(out_onnx).write_bytes(float_onnx(frozen, network.algorithm.outputs, *size))
        Path(out_frozen).write_bytes(frozen)
    except PosewireError as error:
        print(f"posewire: {error}", file=sys.stderr)
        return int(error.code)
    return 0


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.exit(main(sys.argv[1:]))
