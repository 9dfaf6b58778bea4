# SPDX-License-Identifier: Apache-2.0
"""Makes the networks of the tests of the TFLite runtime, beside this file:

    python tests/golden/tflite/make.py        (needs the extra [train])

mean.tflite, mean.int8.tflite: from pictures of 64 x 48, "mean", the mean of R, G and B over cells
of 8 x 8 pixels, and "twice", the double of it; for the C++ tests.

dots.tflite, dots.int8.tflite: the network of tests/targets/conftest.py, which finds people that are
three coloured dots, in pictures of 128 x 96.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from posewire.trainer.export_tflite import float_tflite, int8_tflite

CELL = 8


class Output(NamedTuple):
    name: str


def mean(image: tf.Tensor) -> dict[str, tf.Tensor]:
    cells = tf.nn.avg_pool2d(image, CELL, CELL, "VALID")
    return {"mean": cells, "twice": tf.multiply(cells, 2.0)}


def dots(image: tf.Tensor) -> dict[str, tf.Tensor]:
    weights = np.full((CELL, CELL, 3, 3), -1.0, np.float32)
    for k in range(3):
        weights[:, :, k, k] = 1.0
    unit = image * np.float32(1 / 255)
    found = tf.nn.conv2d(unit, weights / CELL**2, CELL, "VALID")
    # The field points down everywhere. The weights are too small to matter and not zero, so that
    # it is computed.
    field = tf.nn.conv2d(unit, np.full((CELL, CELL, 3, 4), 1e-7, np.float32), CELL, "VALID")
    down = np.array([0.0, 1.0, 0.0, 1.0], np.float32)
    return {"heatmaps": tf.clip_by_value(found, 0.0, 1.0), "pafs": field + down}


def colours(width: int, height: int) -> list[np.ndarray]:
    """Plain pictures, and one whose cells have every pure colour."""
    pictures = [np.full((height, width, 3), value, np.uint8) for value in (0, 255)]
    pure = np.zeros((height, width, 3), np.uint8)
    for k in range(3):
        pure[:, k * width // 3 : (k + 1) * width // 3, k] = 255
    return [*pictures, pure]


def write(name: str, network, width: int, height: int) -> None:
    names = list(network(tf.zeros((1, height, width, 3))))
    outputs = [Output(output) for output in names]

    def run(image: tf.Tensor) -> list[tf.Tensor]:
        made = network(image)
        return [tf.identity(made[output], name=output) for output in names]

    spec = tf.TensorSpec((None, height, width, 3), tf.float32, name="image")
    graph = tf.function(run).get_concrete_function(spec).graph.as_graph_def().SerializeToString()
    folder = Path(__file__).parent
    (folder / f"{name}.tflite").write_bytes(float_tflite(graph, outputs, width, height))
    data = int8_tflite(graph, outputs, width, height, colours(width, height))
    (folder / f"{name}.int8.tflite").write_bytes(data)


if __name__ == "__main__":
    write("mean", mean, 64, 48)
    write("dots", dots, 128, 96)
