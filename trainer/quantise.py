# SPDX-License-Identifier: Apache-2.0
"""The float ONNX graph in FP16, and quantised as two explicit Q/DQ graphs (DESIGN 3.1).

FP16: all tensors inside are typed FLOAT16, the outputs stay float32. INT8: Conv, Clip and Add get
QuantizeLinear/DequantizeLinear pairs; the input's cast, scale and offset and the last convolution
before each output stay float, or TensorRT's parser refuses the graph.

    int8     symmetric s8 activations, s8 weights per channel, biases float: TensorRT takes no other
    int8-u8  asymmetric u8 activations, s8 weights per channel: faster on x86

Ranges are the least and largest values of the calibration pictures; weights are rounded as
rounding.py says.
"""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from posewire.errors import ExitCode

from .errors import TrainError
from .export_onnx import INPUT
from .rounding import Moments, convolution_moments, rounded

MOMENT_STEP = 3  # every third picture: means differ less from picture to picture than extremes
QUANTISED_OPERATORS = ("Conv", "Clip", "Add")


def half(data: bytes) -> bytes:
    """The float graph with FLOAT16 tensors inside; inputs and outputs keep their types."""
    from onnxconverter_common import float16

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # one line per weight that is too small for FP16
        model = float16.convert_float_to_float16(
            onnx.load_model_from_string(data), keep_io_types=True, disable_shape_infer=False
        )
    # The converter overlooks the input's own cast, and keeps types from before it changed them.
    for node in model.graph.node:
        if list(node.input) == [INPUT] and node.op_type == "Cast":
            node.attribute[0].i = onnx.TensorProto.FLOAT16
    del model.graph.value_info[:]
    onnx.checker.check_model(model, full_check=True)
    converted: bytes = model.SerializeToString()
    return converted


def stays_float(model: onnx.ModelProto) -> list[str]:
    """Names of the nodes that are never quantised: all up to the first convolution, and the last
    convolution before each output."""
    producers = {tensor: node for node in model.graph.node for tensor in node.output}
    front: list[str] = []
    reached = {INPUT}
    for node in model.graph.node:
        if node.op_type != "Conv" and any(tensor in reached for tensor in node.input):
            front.append(node.name)
            reached.update(node.output)
    last: list[str] = []
    for output in model.graph.output:
        node = producers[output.name]
        while node.op_type != "Conv":
            last.append(node.name)
            behind = [producers[tensor] for tensor in node.input if tensor in producers]
            if not behind:
                raise TrainError(f"{output.name}: no convolution before it", ExitCode.BUG)
            node = behind[0]
        last.append(node.name)
    # What follows the first convolution is reached through it, not in front of it.
    return [*front, *last]


class _Pictures:
    """Feeds calibration pictures, uint8 [H, W, 3], one by one."""

    def __init__(self, pictures: Iterable[NDArray[np.uint8]]) -> None:
        self._pictures = iter(pictures)

    def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
        picture = next(self._pictures, None)
        return None if picture is None else {INPUT: picture[None]}


def spread(files: Sequence[Path], count: int) -> list[Path]:
    """At most ``count`` of them, evenly: neighbours by name are often alike."""
    count = min(count, len(files))
    return [files[i * len(files) // count] for i in range(count)]


@dataclass(frozen=True)
class Quantiser:
    """Makes the Q/DQ graphs of one float graph ``data``. ``pictures`` gives the calibration
    pictures, uint8 RGB [H, W, 3] of the network's size, each time it is called."""

    data: bytes
    pictures: Callable[[], Iterable[NDArray[np.uint8]]]

    @cached_property
    def _moments(self) -> Mapping[str, Moments]:
        return convolution_moments(self.data, islice(self.pictures(), 0, None, MOMENT_STEP))

    def graph(self, precision: str) -> bytes:
        """The graph of "int8" or "int8-u8"."""
        nearest = to_nearest(self.data, self.pictures(), precision)
        return rounded(nearest, self.data, self._moments)


def to_nearest(data: bytes, pictures: Iterable[NDArray[np.uint8]], precision: str) -> bytes:
    """A Q/DQ graph of that precision whose ranges are those of ``pictures`` and whose weights are
    rounded to the nearest step."""
    from onnxruntime.quantization import (
        CalibrationMethod,
        QuantFormat,
        QuantType,
        quantize_static,
    )

    symmetric = {"int8": True, "int8-u8": False}[precision]
    with tempfile.TemporaryDirectory(prefix="posewire-quantise-") as folder:
        source, target = Path(folder, "float.onnx"), Path(folder, "int8.onnx")
        model = onnx.shape_inference.infer_shapes(onnx.load_model_from_string(data))
        onnx.save_model(model, source)
        logger = logging.getLogger()
        level = logger.level
        logger.setLevel(logging.ERROR)  # it advises on a preprocessing that slimming has done
        try:
            quantize_static(
                source,
                target,
                _reader(pictures),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=list(QUANTISED_OPERATORS),
                nodes_to_exclude=stays_float(model),
                per_channel=True,
                activation_type=QuantType.QInt8 if symmetric else QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                calibrate_method=CalibrationMethod.MinMax,
                extra_options={
                    "ActivationSymmetric": symmetric,
                    "WeightSymmetric": True,
                    "QuantizeBias": False,
                },
            )
        finally:
            logger.setLevel(level)
        result = onnx.load_model(target)
    for output, before in zip(result.graph.output, model.graph.output, strict=True):
        output.CopyFrom(before)
    onnx.checker.check_model(result)
    content: bytes = result.SerializeToString()
    return content


def _reader(pictures: Iterable[NDArray[np.uint8]]) -> Any:
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(_Pictures, CalibrationDataReader):  # type: ignore[misc]
        pass

    return Reader(pictures)
