# SPDX-License-Identifier: Apache-2.0
"""A frozen TensorFlow graph (.pb) as ONNX, by tf2onnx, compared with TensorFlow on a drawn picture.

Run as a program, in a process of its own: TensorFlow is large, and its messages are many.

    python -m posewire.trainer.from_tensorflow NET.pb OUT.onnx [WIDTH HEIGHT]
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from posewire.errors import ExitCode, PosewireError

from .data.synthetic import SELFTEST_SEED, render_many
from .errors import TrainError

_LIMIT = 1e-3  # largest difference to TensorFlow, relative to the largest output
_OPSET = 18
_SEED = SELFTEST_SEED + 2


def tensorflow_to_onnx(source: Path, size: tuple[int, int] | None) -> bytes:
    """The ONNX bytes of a frozen graph. ``size`` is (width, height) where the graph leaves it open.

    Raises TrainError: UNAVAILABLE without TensorFlow or tf2onnx, SOURCE for a graph that cannot be
    converted.
    """
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
    environment["PYTHONSAFEPATH"] = "1"  # a checkout in the working directory shadows the package
    with tempfile.TemporaryDirectory(prefix="posewire-import-") as folder:
        out = Path(folder) / "network.onnx"
        command = [sys.executable, "-m", __name__, str(source), str(out)]
        command += [str(side) for side in size or ()]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode == 0 and out.is_file():
            return out.read_bytes()
        lines = done.stderr.strip().splitlines() or ["no message"]
        said = lines[-1].removeprefix("posewire: ")
        known = {int(code) for code in ExitCode}
        code = ExitCode(done.returncode) if done.returncode in known else ExitCode.SOURCE
        raise TrainError(said if source.name in said else f"{source}: {said}", code)


def _convert(source: Path, out: Path, size: tuple[int, int] | None) -> None:
    try:
        import tensorflow as tf
        import tf2onnx
    except ImportError as error:
        raise TrainError(
            f"{source}: reading a TensorFlow graph needs tensorflow and tf2onnx "
            f"(pip install posewire[train]): {error}",
            ExitCode.UNAVAILABLE,
        ) from error
    graph = tf.compat.v1.GraphDef()
    try:
        graph.ParseFromString(source.read_bytes())
    except OSError as error:
        raise TrainError(f"{source}: {error.strerror}", ExitCode.SOURCE) from error
    except Exception as error:  # protobuf's DecodeError, by any of its implementations
        raise TrainError(f"{source}: is no frozen TensorFlow graph", ExitCode.SOURCE) from error
    inputs, outputs = _ends(source, graph)
    shape = _shape(source, graph, inputs[0], size)
    try:
        model, _ = tf2onnx.convert.from_graph_def(
            graph,
            input_names=inputs,
            output_names=outputs,
            opset=_OPSET,
            shape_override={inputs[0]: [1, *shape[1:]]},  # the batch is freed by the importer
            inputs_as_nchw=inputs,
            outputs_as_nchw=_of_rank_four(tf, graph, outputs),
        )
    except Exception as error:  # tf2onnx raises many kinds
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise TrainError(
            f"{source}: tf2onnx cannot convert it: {first}", ExitCode.SOURCE
        ) from error
    data = model.SerializeToString()
    _compare(tf, source, graph, inputs[0], outputs, shape, data)
    out.write_bytes(data)


def _ends(source: Path, graph: Any) -> tuple[list[str], list[str]]:
    """The graph's one placeholder, and the nodes that nobody reads."""
    read = {name.split(":")[0].lstrip("^") for node in graph.node for name in node.input}
    inputs = [f"{node.name}:0" for node in graph.node if node.op == "Placeholder"]
    idle = ("Placeholder", "Const", "NoOp", "Assert")
    outputs = [f"{n.name}:0" for n in graph.node if n.name not in read and n.op not in idle]
    if len(inputs) != 1 or not outputs:
        raise TrainError(
            f"{source}: one placeholder and an output are needed; there are: "
            f"{', '.join(inputs) or 'no placeholder'}; {', '.join(outputs) or 'no output'}",
            ExitCode.SOURCE,
        )
    return inputs, outputs


def _shape(source: Path, graph: Any, name: str, size: tuple[int, int] | None) -> list[int]:
    node = next(node for node in graph.node if f"{node.name}:0" == name)
    sides = [int(dim.size) for dim in node.attr["shape"].shape.dim]
    sides = sides if len(sides) == 4 else [-1, -1, -1, 3]
    if size is not None:
        sides[1:3] = [size[1], size[0]]
    if sides[3] != 3 or min(sides[1:3]) < 1:
        raise TrainError(
            f"{source}: {name} is {sides}; pictures [N, height, width, 3] are read, and "
            "--input-size WxH says an open size",
            ExitCode.USAGE,
        )
    return [-1, *sides[1:]]


def _of_rank_four(tf: Any, graph: Any, outputs: Sequence[str]) -> list[str]:
    with tf.Graph().as_default() as made:
        tf.import_graph_def(graph, name="")
        return [n for n in outputs if made.get_tensor_by_name(n).shape.rank in (None, 4)]


def _compare(
    tf: Any,
    source: Path,
    graph: Any,
    name: str,
    outputs: Sequence[str],
    shape: Sequence[int],
    data: bytes,
) -> None:
    import onnxruntime

    ((picture, _),) = render_many(1, _SEED, shape[2], shape[1])  # noise would magnify roundings
    feed = picture[None].astype(np.float32)
    with tf.Graph().as_default() as made, tf.compat.v1.Session(graph=made) as running:
        tf.import_graph_def(graph, name="")
        expected = running.run(list(outputs), {name: feed})
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    found = session.run(list(outputs), {name: feed.transpose(0, 3, 1, 2)})
    for output, mine, theirs in zip(outputs, found, expected, strict=True):
        wanted = theirs.transpose(0, 3, 1, 2) if theirs.ndim == 4 else theirs
        scale = max(1.0, float(np.abs(wanted).max()))
        if mine.shape != wanted.shape:
            raise TrainError(f"{source}: {output} has another shape converted", ExitCode.BUG)
        difference = float(np.abs(mine - wanted).max())
        if not difference <= _LIMIT * scale:
            raise TrainError(
                f"{source}: {output} differs from TensorFlow's by {difference:.2g} after the "
                "conversion",
                ExitCode.BUG,
            )


def main(arguments: Sequence[str]) -> int:
    """The program: see the top of this file."""
    source, out, *size = arguments
    try:
        _convert(Path(source), Path(out), (int(size[0]), int(size[1])) if size else None)
    except PosewireError as error:
        print(f"posewire: {error}", file=sys.stderr)
        return int(error.code)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
