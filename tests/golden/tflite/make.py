# SPDX-License-Identifier: Apache-2.0
"""Makes the networks of the C++ tests of the TFLite runtime row, beside this file:

    python tests/golden/tflite/make.py        (needs the extra [train])

From uint8 pictures of 64 x 48: "mean", the mean of R, G and B over cells of 8 x 8 pixels, and
"twice", the double of it. mean.tflite gives float32, mean.int8.tflite int8.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from posewire.trainer.export_tflite import float_tflite, int8_tflite

WIDTH, HEIGHT, CELL = 64, 48, 8


class Output(NamedTuple):
    name: str


def main() -> None:
    outputs = [Output("mean"), Output("twice")]

    def run(image: tf.Tensor) -> list[tf.Tensor]:
        mean = tf.nn.avg_pool2d(image, CELL, CELL, "VALID")
        return [tf.identity(mean, name="mean"), tf.multiply(mean, 2.0, name="twice")]

    spec = tf.TensorSpec((None, HEIGHT, WIDTH, 3), tf.float32, name="image")
    graph = tf.function(run).get_concrete_function(spec).graph.as_graph_def().SerializeToString()
    pictures = [np.full((HEIGHT, WIDTH, 3), value, np.uint8) for value in (0, 255)]
    folder = Path(__file__).parent
    (folder / "mean.tflite").write_bytes(float_tflite(graph, outputs, WIDTH, HEIGHT))
    (folder / "mean.int8.tflite").write_bytes(int8_tflite(graph, outputs, WIDTH, HEIGHT, pictures))


if __name__ == "__main__":
    main()
