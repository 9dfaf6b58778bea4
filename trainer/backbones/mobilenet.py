# SPDX-License-Identifier: Apache-2.0
"""MobileNetV1 and V2 (keras.applications) as feature extractors at strides 4, 8, 16 and 32.

The batch normalisations are folded into the convolutions' kernels and biases when the network is
built. Pretrained files whose statistics are already folded (mean 0, variance 1) would compute
another function with batch statistics, and on a CPU a convolution with a bias trains about twice as
fast. The biases stay trainable.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from posewire.errors import ExitCode

from ..errors import TrainError

CONVOLUTIONS = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D)


@dataclass(frozen=True)
class Backbone:
    """A network from pictures in -1..1, RGB, NHWC, to features by stride."""

    network: keras.Model
    strides: tuple[int, ...]

    def __call__(self, image: Any) -> dict[int, Any]:
        """The features of a symbolic picture [B, H, W, 3]; H and W are multiples of 32."""
        return dict(zip(self.strides, self.network(image), strict=True))


def mobilenet_v1(alpha: float, weights: Path | None, frozen_blocks: int) -> Backbone:
    """MobileNetV1; block i is depthwise-separable pair i (block 0 the first convolution)."""
    full = keras.applications.MobileNet(
        input_shape=(None, None, 3), alpha=alpha, include_top=False, weights=None
    )
    taps = {4: "conv_pw_3_relu", 8: "conv_pw_5_relu", 16: "conv_pw_11_relu", 32: "conv_pw_13_relu"}
    return _backbone(full, weights, taps, f"conv_dw_{frozen_blocks}", frozen_blocks)


def mobilenet_v2(alpha: float, weights: Path | None, frozen_blocks: int) -> Backbone:
    """MobileNetV2 up to block 15; block i is inverted residual i (block 0 starts with the stem).

    The taps at 4, 8 and 16 are the wide activations just before the stride; block 16 and the last
    convolution hold 0.9 M of 2.2 M weights and are left out.
    """
    full = keras.applications.MobileNetV2(
        input_shape=(None, None, 3), alpha=alpha, include_top=False, weights=None
    )
    taps = {
        4: "block_3_expand_relu",
        8: "block_6_expand_relu",
        16: "block_13_expand_relu",
        32: "block_15_add",
    }
    return _backbone(full, weights, taps, f"block_{frozen_blocks}_", frozen_blocks)


def _backbone(
    full: keras.Model,
    weights: Path | None,
    taps: Mapping[int, str],
    first_trained: str,
    frozen_blocks: int,
) -> Backbone:
    if weights is not None:
        try:
            full.load_weights(str(weights))
        except (OSError, ValueError, KeyError) as error:
            raise TrainError(f"{weights}: does not fit {full.name}: {error}") from error
    folded = fold_batch_norm(full)
    network = keras.Model(
        folded.input, [folded.get_layer(tap).output for tap in taps.values()], name="backbone"
    )
    if frozen_blocks:
        names = [layer.name for layer in network.layers]
        starts = [i for i, name in enumerate(names) if name.startswith(first_trained)]
        if not starts:
            raise TrainError(
                f"model.frozen_blocks: {frozen_blocks}: {full.name} has fewer blocks",
                ExitCode.CONFIG,
            )
        for layer in network.layers[: starts[0]]:
            layer.trainable = False
    return Backbone(network, tuple(taps))


def fold_batch_norm(model: keras.Model) -> keras.Model:
    """The same function without batch normalisations, each folded into the convolution before it.

    A normalisation that does not follow a convolution directly is a TrainError.
    """

    def clone(layer: Any) -> Any:
        config = layer.get_config()
        if isinstance(layer, CONVOLUTIONS):
            config["use_bias"] = True
            return type(layer).from_config(config)
        if isinstance(layer, keras.layers.BatchNormalization):
            return keras.layers.Identity(name=layer.name)
        return type(layer).from_config(config)

    def call(layer: Any, *inputs: Any, **options: Any) -> Any:
        return layer(*inputs)  # the options are the normalisations': training, mask

    folded = keras.models.clone_model(model, clone_function=clone, call_function=call)
    norms = {
        layer.input._keras_history.operation.name: layer
        for layer in model.layers
        if isinstance(layer, keras.layers.BatchNormalization)
    }
    for layer in model.layers:
        if isinstance(layer, CONVOLUTIONS):
            kernel, bias = _folded(layer, norms.pop(layer.name, None))
            folded.get_layer(layer.name).set_weights([kernel, bias])
    if norms:
        raise TrainError(f"cannot fold the normalisation after {', '.join(norms)}", ExitCode.BUG)
    return folded


def _folded(layer: Any, norm: Any) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    kernel, *rest = layer.get_weights()
    depthwise = isinstance(layer, keras.layers.DepthwiseConv2D)
    channels = kernel.shape[2] * kernel.shape[3] if depthwise else kernel.shape[3]
    bias = rest[0] if rest else np.zeros(channels, np.float32)
    if norm is None:
        return kernel, bias
    mean, variance = (np.asarray(v) for v in (norm.moving_mean, norm.moving_variance))
    gamma = np.asarray(norm.gamma) if norm.scale else np.ones_like(mean)
    beta = np.asarray(norm.beta) if norm.center else np.zeros_like(mean)
    factor = gamma / np.sqrt(variance + norm.epsilon)
    shaped = factor.reshape(kernel.shape[2:]) if depthwise else factor
    return kernel * shaped, (bias - mean) * factor + beta
