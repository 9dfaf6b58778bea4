# SPDX-License-Identifier: Apache-2.0
"""Layers that the heads of all algorithms are built from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from .algorithm import Tensor


@keras.saving.register_keras_serializable("posewire")
class Values(keras.initializers.Initializer):  # type: ignore[misc]  # keras is untyped
    """Starts a bias at given values."""

    def __init__(self, values: Sequence[float]) -> None:
        self.values = list(values)

    def __call__(self, shape: Any, dtype: Any = None) -> Tensor:
        return ops.convert_to_tensor(np.array(self.values, np.float32), dtype=dtype)

    def get_config(self) -> dict[str, Any]:
        return {"values": self.values}


@dataclass(frozen=True)
class Builder:
    """Layers ``width`` channels wide. With normalisation the convolutions have no bias."""

    width: int
    normalise: bool = True

    def _finish(self, x: Tensor, name: str, activate: bool, normalise: bool) -> Tensor:
        if normalise:
            x = layers.BatchNormalization(momentum=0.98, name=f"{name}_bn")(x)
        return layers.ReLU(6.0, name=f"{name}_relu")(x) if activate else x

    def lateral(self, x: Tensor, name: str, activate: bool) -> Tensor:
        """A backbone's features, always normalised, as ``width`` channels."""
        x = layers.Conv2D(self.width, 1, use_bias=False, name=name)(x)
        return self._finish(x, name, activate, True)

    def pointwise(self, x: Tensor, name: str) -> Tensor:
        """A 1x1 convolution to ``width`` channels."""
        x = layers.Conv2D(
            self.width,
            1,
            use_bias=not self.normalise,
            kernel_initializer="he_normal",
            name=name,
        )(x)
        return self._finish(x, name, True, self.normalise)

    def separable(self, x: Tensor, kernel: int, name: str) -> Tensor:
        """A depthwise and a 1x1 convolution."""
        x = layers.DepthwiseConv2D(
            kernel, padding="same", use_bias=not self.normalise, name=f"{name}_dw"
        )(x)
        x = self._finish(x, f"{name}_dw", True, self.normalise)
        return self.pointwise(x, f"{name}_pw")

    def residual(self, x: Tensor, kernel: int, name: str) -> Tensor:
        """Two separable convolutions beside a shortcut."""
        y = self.separable(x, kernel, f"{name}_a")
        y = self.separable(y, kernel, f"{name}_b")
        return layers.Add(name=f"{name}_add")([x, y])

    def pyramid(self, features: Mapping[int, Tensor], stride: int) -> Tensor:
        """The features of stride 32, grown and joined with the finer ones down to ``stride`` (Lin
        et al., "Feature Pyramid Networks", CVPR 2017, figure 3; separable convolutions)."""
        merged = self.lateral(features[32], "merge_32", True)
        at = 32
        while at > stride:
            at //= 2
            merged = layers.UpSampling2D(2, name=f"merge_{at}_up")(merged)
            lateral = self.lateral(features[at], f"merge_{at}", False)
            merged = layers.Add(name=f"merge_{at}_add")([merged, lateral])
            merged = self.separable(merged, 3, f"merge_{at}_smooth")
        return merged


def output(x: Tensor, bias: Sequence[float], name: str) -> Tensor:
    """A 1x1 convolution to one channel per value of ``bias``, where it begins.

    Large first outputs would drown the cells that matter for hundreds of steps.
    """
    return layers.Conv2D(
        len(bias),
        1,
        kernel_initializer=keras.initializers.RandomNormal(stddev=0.002),
        bias_initializer=Values(bias),
        name=name,
    )(x)
