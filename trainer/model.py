# SPDX-License-Identifier: Apache-2.0
"""The network of a configuration, and the Keras model that trains it in any backend."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
from keras import layers

from posewire.errors import ExitCode
from posewire.skeleton import Skeleton, load_skeleton

from .algorithm import Algorithm, Labels, Stages, TeacherWeights, Tensor
from .algorithms import make_algorithm
from .backbones import make_backbone
from .config import Config, find_path
from .errors import TrainError


def as_stages(outputs: Any) -> list[dict[str, Tensor]]:
    """A network's outputs by stage; Keras unwraps a list of one."""
    return [outputs] if isinstance(outputs, dict) else list(outputs)


@dataclass(frozen=True)
class Network:
    """A built network: float RGB 0..255 [B, H, W, 3] in, every stage's outputs by name out."""

    keras: keras.Model
    algorithm: Algorithm
    skeleton: Skeleton
    backbone_variables: frozenset[str]  # paths of the backbone's variables

    def inference(self) -> keras.Model:
        """The part that is exported: the last stage's outputs, by name, sharing all weights."""
        last = as_stages(self.keras.output)[-1]
        return keras.Model(self.keras.input, last, name=self.keras.name)


def build_network(config: Config, folder: Path, pretrained: bool = True) -> Network:
    """Builds the configuration's network; height and width stay free (multiples of 32) unless the
    algorithm has ``fixed_size``.

    ``folder`` is the configuration's. ``pretrained`` False skips the files that the configuration
    starts from, for a caller that loads trained weights next. Raises TrainError.
    """
    skeleton = load_skeleton(config.skeleton)
    model = config.model
    algorithm = make_algorithm(model.algorithm, skeleton, model.algorithm_options)
    weights = None
    if model.weights is not None and pretrained:
        weights = find_path(model.weights, folder, "model.weights")
    backbone = make_backbone(model.backbone, model.alpha, weights, model.frozen_blocks)
    size = (config.input.height, config.input.width) if algorithm.fixed_size else (None, None)
    image = keras.Input((*size, 3), name="image")
    features = backbone(layers.Rescaling(1 / 127.5, offset=-1.0, name="normalise")(image))
    stages = algorithm.head(features, (config.input.width, config.input.height))
    network = keras.Model(image, stages, name=config.name.replace(".", "_"))
    if model.initial is not None and pretrained:
        load_weights(network, find_path(model.initial, folder, "model.initial"))
    paths = frozenset(variable.path for variable in backbone.network.variables)
    return Network(network, algorithm, skeleton, paths)


def check_size(network: Network, width: int, height: int, verb: str) -> None:
    """Raises TrainError naming the side, where a network takes its training size alone."""
    own_height, own_width = network.keras.input.shape[1:3]
    for side, own, wanted in (("width", own_width, width), ("height", own_height, height)):
        if own not in (None, wanted):
            raise TrainError(
                f"{verb}: {side}: the network was trained for {own} and takes nothing else, "
                f"not {wanted}"
            )


def load_weights(network: keras.Model, path: Path) -> None:
    """Loads a ``.weights.h5``. Raises TrainError (SOURCE) naming the file."""
    try:
        network.load_weights(str(path))
    except (OSError, ValueError, KeyError) as error:
        raise TrainError(f"{path}: does not fit the network: {error}", ExitCode.SOURCE) from error


class PoseModel(keras.Model):  # type: ignore[misc]  # keras has no type for its Model
    """Trains a network on padded labels; targets are rendered inside the step."""

    def __init__(self, network: Network, teacher: TeacherWeights | None) -> None:
        super().__init__(name="pose_model")
        self.network = network.keras
        self._algorithm = network.algorithm
        self._teacher = teacher
        names = [spec.name for spec in network.algorithm.outputs]
        self._parts = {
            name: keras.metrics.Mean(name=name)
            for output in names
            for name in (output, f"{output}_zero")
        }

    def call(self, x: Tensor, training: bool | None = None) -> Stages:
        """All stages' outputs."""
        return as_stages(self.network(x, training=training))

    def compute_loss(
        self,
        x: Tensor = None,
        y: Labels | None = None,
        y_pred: Stages | None = None,
        sample_weight: Tensor = None,
        training: bool = True,
    ) -> Tensor:
        """The algorithm's loss; its parts are reported as metrics of their names."""
        assert y is not None  # Keras' signature allows None; training never passes it
        assert y_pred is not None
        result = self._algorithm.loss(y, y_pred, self._teacher)
        for name, metric in self._parts.items():
            metric.update_state(result[name])
        return result["loss"]


class ScaledAdamW(keras.optimizers.AdamW):  # type: ignore[misc]
    """AdamW whose rate is ``factor`` times smaller or larger for the variables at ``paths``.

    Scaling a gradient would not do: Adam divides it out again.
    """

    def __init__(self, paths: Collection[str], factor: float, **settings: Any) -> None:
        super().__init__(**settings)
        self._paths = frozenset(paths)
        self._factor = factor

    def update_step(self, gradient: Tensor, variable: Any, learning_rate: Tensor) -> None:
        # TensorFlow passes its own variable, which has no path: the optimiser's list has.
        path = self._trainable_variables[self._get_variable_index(variable)].path
        rate = learning_rate * self._factor if path in self._paths else learning_rate
        super().update_step(gradient, variable, rate)


def build_trainer(config: Config, network: Network, teacher: TeacherWeights | None) -> PoseModel:
    """The compiled model with its optimiser built, ready for ``train_on_batch``."""
    training = config.training
    optimizer = ScaledAdamW(
        network.backbone_variables,
        training.backbone_factor,
        learning_rate=training.learning_rate,
        weight_decay=training.weight_decay,
        global_clipnorm=training.clip_norm,
        use_ema=training.ema > 0,
        ema_momentum=training.ema,
        ema_overwrite_frequency=None,
    )
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    model = PoseModel(network, teacher)
    # XLA on a CPU trains about five times slower than TensorFlow's own kernels; JAX has only XLA.
    model.compile(optimizer=optimizer, jit_compile=keras.backend.backend() == "jax")
    optimizer.build(network.keras.trainable_variables)
    return model
