# SPDX-License-Identifier: Apache-2.0
"""The frozen float graph as TFLite, for small ARM boards.

    model.tflite       fp32: uint8 [1, H, W, 3] in, cast and normalised inside; float32 out
    model.int8.tflite  full integer, weights per channel: uint8 in, int8 with its scale out

Both have one signature, ``serving_default``, with the manifest's tensor names; outputs are NHWC.
The int8 input's scale is 1 and its zero point 0, so that both take a picture's bytes as they are.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
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

    return _converted(frozen, outputs, (1, height, width, 3), tf.uint8, None)


def int8_tflite(
    frozen: bytes, outputs: Sequence[OutputSpec], width: int, height: int, pictures: Pictures
) -> bytes:
    """The int8 file, calibrated on ``pictures``, uint8 RGB [H, W, 3] of the network's size.

    Raises TrainError (BUG) where the converter gives the input another scale than a picture's.
    """
    import tensorflow as tf

    data = _converted(frozen, outputs, (1, height, width, 3), tf.float32, pictures)
    (image,) = _interpreter(data).get_input_details()
    if tuple(image["quantization"]) != (1.0, 0):
        raise TrainError(f"export: int8: the input means {image['quantization']}", ExitCode.BUG)
    return data


def _converted(
    frozen: bytes,
    outputs: Sequence[OutputSpec],
    shape: tuple[int, ...],
    dtype: Any,
    calibration: Pictures | None,
) -> bytes:
    import tensorflow as tf

    graph = graph_of(frozen)
    names = [spec.name for spec in outputs]

    def run(image: Any) -> dict[str, Any]:
        real = tf.cast(image, tf.float32)
        wanted = [f"{name}:0" for name in names]
        maps = tf.graph_util.import_graph_def(graph, {f"{INPUT}:0": real}, wanted, name="")
        return dict(zip(names, maps, strict=True))

    module = tf.Module()
    module.run = tf.function(run, input_signature=[tf.TensorSpec(shape, dtype, name=INPUT)])
    with quiet(), tempfile.TemporaryDirectory(prefix="posewire-tflite-") as folder:
        # A signature keeps the tensors' names, and only a saved model carries one.
        tf.saved_model.save(module, folder, signatures={"serving_default": module.run})
        converter = tf.lite.TFLiteConverter.from_saved_model(folder)
        if calibration is not None:
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
            converter.representative_dataset = lambda: _feed(calibration)
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
            converter.inference_input_type = tf.uint8
            converter.inference_output_type = tf.int8
        data: bytes = converter.convert()
    return data


def _feed(pictures: Pictures) -> Iterator[list[NDArray[np.float32]]]:
    """Calibration pictures, one by one. In the first a pixel is black and one white, so that the
    input's range is 0..255 whatever the pictures show."""
    for index, picture in enumerate(pictures):
        one = picture.astype(np.float32)[None]
        if index == 0:
            one[0, 0, 0], one[0, 0, 1] = 0.0, 255.0
        yield [one]


def artifact(data: bytes, precision: str, outputs: Sequence[OutputSpec]) -> dict[str, Any]:
    """The manifest's entry for a file made here."""
    tensors = {name: detail for name, detail in _outputs(_interpreter(data)).items()}
    listed = []
    for spec in outputs:
        entry = {"name": spec.name, "layout": "NHWC", "dtype": "float32"}
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
    """Outputs by name, float32 NCHW, for uint8 pictures [B, H, W, 3]."""
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
            found.setdefault(name, []).append(np.transpose(maps[0], (2, 0, 1)))
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
