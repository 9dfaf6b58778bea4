# SPDX-License-Identifier: Apache-2.0
"""The frozen float graph as TFLite, for small ARM boards.

    model.tflite       fp32: uint8 [1, H, W, 3] in, cast and normalised inside; float32 out
    model.int8.tflite  full integer, weights per channel: uint8 in, int8 with its scale out

Both have one signature, ``serving_default``, with the manifest's tensor names; maps are NHWC,
sequences NCW.
Both take a picture's bytes as they are: the int8 file's input has a grey level as its step, and the
normalisation as its scale and zero point (x / 127.5 - 1 is scale 2 / 255, zero point 127; half a
grey level is lost). As operators on integers, scale and offset would cost a third of the levels.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from posewire.errors import ExitCode

from .errors import TrainError
from .export_onnx import INPUT, graph_of, quiet

if TYPE_CHECKING:
    from .algorithm import OutputSpec

Pictures = Iterable[NDArray[np.uint8]]

FILES = {"fp32": "model.tflite", "int8": "model.int8.tflite"}


def float_tflite(frozen: bytes, outputs: Sequence[OutputSpec], width: int, height: int) -> bytes:
    """The fp32 file. ``frozen`` is what export_onnx.frozen_graph gives."""
    import tensorflow as tf

    image = tf.TensorSpec((1, height, width, 3), tf.uint8, name=INPUT)
    return _converted(frozen, outputs, image, INPUT, None)


def int8_tflite(
    frozen: bytes, outputs: Sequence[OutputSpec], width: int, height: int, pictures: Pictures
) -> bytes:
    """The int8 file, calibrated on ``pictures``, uint8 RGB [H, W, 3] of the network's size.

    Raises TrainError (BUG) where the converter gives the input another step than a grey level.
    """
    import tensorflow as tf

    entry, scale, offset = _normalisation(graph_of(frozen))
    image = tf.TensorSpec((1, height, width, 3), tf.float32, name=INPUT)
    feed = lambda: _feed(pictures, scale, offset)  # noqa: E731
    data = _converted(frozen, outputs, image, entry, feed)
    found, zero = _interpreter(data).get_input_details()[0]["quantization"]
    if abs(found - scale) > 1e-4 * scale or abs(zero * scale + offset) > 0.51 * scale:
        what = f"scale {found}, zero point {zero}; a grey level is {scale}, black {offset}"
        raise TrainError(f"export: int8: the input has {what}", ExitCode.BUG)
    return data


def _normalisation(graph: Any) -> tuple[str, float, float]:
    """(node, scale, offset): what the graph makes of a grey level x before its first other
    operator, x * scale + offset, and the node that holds it."""
    from tensorflow import make_ndarray

    constants = {
        n.name: make_ndarray(n.attr["value"].tensor) for n in graph.node if n.op == "Const"
    }
    at, scale, offset = INPUT, 1.0, 0.0
    while True:
        users = [node for node in graph.node if at in node.input]
        if len(users) != 1 or users[0].op not in ("Mul", "Add", "AddV2", "Sub"):
            return at, scale, offset
        (other,) = (name for name in users[0].input if name != at)
        value = constants.get(other)
        if value is None or value.size != 1 or users[0].input[0] != at:
            return at, scale, offset
        step = float(value.reshape(()))
        if users[0].op == "Mul":
            scale, offset = scale * step, offset * step
        else:
            offset += -step if users[0].op == "Sub" else step
        at = users[0].name


def _converted(
    frozen: bytes,
    outputs: Sequence[OutputSpec],
    image: Any,
    entry: str,
    feed: Callable[[], Iterator[list[NDArray[np.float32]]]] | None,
) -> bytes:
    """The graph from the node ``entry`` on, which ``image`` (a TensorSpec) takes the place of; as
    int8 where there is a feed of calibration pictures."""
    import tensorflow as tf

    graph = graph_of(frozen)
    names = [spec.name for spec in outputs]

    def run(image: Any) -> dict[str, Any]:
        real = tf.cast(image, tf.float32)
        wanted = [f"{name}:0" for name in names]
        maps = tf.graph_util.import_graph_def(graph, {f"{entry}:0": real}, wanted, name="")
        return dict(zip(names, maps, strict=True))

    module = tf.Module()
    module.run = tf.function(run, input_signature=[image])
    with quiet(), tempfile.TemporaryDirectory(prefix="posewire-tflite-") as folder:
        # A signature keeps the tensors' names, and only a saved model carries one.
        tf.saved_model.save(module, folder, signatures={"serving_default": module.run})
        converter = tf.lite.TFLiteConverter.from_saved_model(folder)
        if feed is not None:
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
            converter.representative_dataset = feed
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
            converter.inference_input_type = tf.uint8
            converter.inference_output_type = tf.int8
        data: bytes = converter.convert()
    return data


def _feed(pictures: Pictures, scale: float, offset: float) -> Iterator[list[NDArray[np.float32]]]:
    """Calibration pictures, normalised, one by one. In the first a pixel is black and one white, so
    that the input's range is that of all grey levels whatever the pictures show."""
    for index, picture in enumerate(pictures):
        one = picture.astype(np.float32)[None]
        if index == 0:
            one[0, 0, 0], one[0, 0, 1] = 0.0, 255.0
        yield [one * np.float32(scale) + np.float32(offset)]


def artifact(data: bytes, precision: str, outputs: Sequence[OutputSpec]) -> dict[str, Any]:
    """The manifest's entry for a file made here."""
    tensors = {name: detail for name, detail in _outputs(_interpreter(data)).items()}
    listed = []
    for spec in outputs:
        layout = "NHWC" if spec.stride else "NCW"
        entry: dict[str, Any] = {"name": spec.name, "layout": layout, "dtype": "float32"}
        if precision == "int8":
            scale, zero_point = tensors[spec.name]["quantization"]
            entry |= {"dtype": "int8", "scale": float(scale), "zero_point": int(zero_point)}
        listed.append(entry)
    return {
        "files": [FILES[precision]],
        "format": "tflite",
        "precision": precision,
        "input": {"layout": "NHWC", "dtype": "uint8"},
        "outputs": listed,
    }


def run_tflite(data: bytes, pictures: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
    """Outputs by name, float32 NCHW or NCW, for uint8 pictures [B, H, W, 3]."""
    running = _interpreter(data)
    running.allocate_tensors()
    image = running.get_input_details()[0]["index"]
    found: dict[str, list[NDArray[np.float32]]] = {}
    for picture in pictures:
        running.set_tensor(image, picture[None])
        running.invoke()
        for name, detail in _outputs(running).items():
            maps = running.get_tensor(detail["index"])
            scale, zero_point = detail["quantization"]
            if maps.dtype != np.float32:
                maps = (maps.astype(np.float32) - zero_point) * np.float32(scale)
            first = np.moveaxis(maps[0], -1, 0) if maps.ndim == 4 else maps[0]
            found.setdefault(name, []).append(first)
    return {name: np.stack(maps) for name, maps in found.items()}


def _interpreter(data: bytes) -> Any:
    """LiteRT's own kernels, without XNNPACK: slower, but they take every network."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    plain = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    return Interpreter(model_content=data, num_threads=2, experimental_op_resolver_type=plain)


def _outputs(running: Any) -> Mapping[str, Mapping[str, Any]]:
    """Tensor details by the signature's output names."""
    (key,) = running.get_signature_list()
    found: Mapping[str, Mapping[str, Any]] = running.get_signature_runner(key).get_output_details()
    return found
