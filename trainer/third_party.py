# SPDX-License-Identifier: Apache-2.0
"""A third-party network (ONNX, UFF, frozen TensorFlow graph) as a portable, verified bundle.

The network itself is not changed: what is put around it takes uint8 pictures, normalises them and
names the outputs, and is compared with the network as it came on drawn pictures. Weights are merged
and the batch is freed where that changes nothing.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
from numpy.typing import NDArray

from posewire import __version__
from posewire.bundle import check_onnx, write_bundle
from posewire.decode import Decoder
from posewire.errors import ExitCode, PosewireError
from posewire.manifest import Manifest
from posewire.preprocess import letterbox
from posewire.skeleton import Skeleton

from . import third_party_graph as surgery
from .data.synthetic import SELFTEST_SEED, render_many, selftest_pictures
from .data.synthetic_crops import drawn_crops, selftest_crops
from .errors import TrainError
from .export_onnx import INPUT
from .quantise import Quantiser, half, spread
from .third_party_outputs import Found, Rule, decoder_of, find, guess, mode_of

Pictures = NDArray[np.uint8]
Say = Callable[[str], None]

# Not export.py's, which loads Keras.
FILES = {
    "fp32": "model.onnx",
    "fp16": "model.fp16.onnx",
    "int8": "model.int8.onnx",
    "int8-u8": "model.int8-u8.onnx",
}
CALIBRATION_SEED, PARITY_SEED = SELFTEST_SEED + 1, SELFTEST_SEED + 2
_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")


@dataclass(frozen=True)
class Plan:
    """What a network is told to be.

    algorithm  third_party_outputs.OUTPUTS
    skeleton   of the poses; None for a detector
    size       (width, height) of the input, needed where the file leaves it open
    channels   RGB or BGR: what the network was trained with
    mean, std  per channel in that order, of 0..255: the network wants (x - mean) / std
    outputs    rules; empty: guessed
    stride     of the maps, where their shape leaves it open
    padding    top-down: how much a box grows before it is cut out
    decode     parameters of the decoder's row (docs/decoders.md)
    selftest   a folder of the gate's pictures instead of drawn ones; top-down: of crops
    """

    algorithm: str
    skeleton: Skeleton | None
    name: str
    version: str = "0.1.0"
    size: tuple[int, int] | None = None
    channels: str = "RGB"
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    outputs: tuple[Rule, ...] = ()
    stride: int | None = None
    padding: float = 1.25
    decode: Mapping[str, Any] = field(default_factory=dict)
    precisions: tuple[str, ...] = ("fp32",)
    calibration: Path | None = None
    calibration_pictures: int = 64
    selftest: Path | None = None
    selftest_count: int = 32

    def check(self) -> None:
        """Raises TrainError (USAGE) naming what is wrong."""
        decoder_of(self.algorithm)
        detector = mode_of(self.algorithm) == "detector"
        if detector != (self.skeleton is None):
            said = "has no skeleton" if detector else "needs a skeleton"
            raise TrainError(f"import: {self.algorithm} {said}", ExitCode.USAGE)
        unknown = set(self.precisions) - set(FILES)
        if unknown or "fp32" not in self.precisions:
            known = ", ".join(FILES)
            raise TrainError(
                f"import: precisions are some of {known}, fp32 always among them", ExitCode.USAGE
            )
        if not all(value > 0 for value in self.std):
            raise TrainError(f"import: std must be above 0, not {list(self.std)}", ExitCode.USAGE)


def import_network(
    source: Path,
    out: str | os.PathLike[str],
    plan: Plan,
    *,
    replace: bool = False,
    say: Say = lambda line: None,
) -> Manifest:
    """Writes the bundle at ``out``. ``say`` gets a line per step of work and per guess.

    Raises BundleError, TrainError or PosewireError naming file and tensor; ``out`` is left as it
    was then.
    """
    plan.check()
    say(f"reading {source.name}")
    network = surgery.load(source, plan.size)
    layout, width, height = surgery.input_shape(network, source, plan.size)
    say("running it once")
    network, outputs = _outputs(network, plan, layout, (width, height), say)
    say("putting a bundle's input and outputs around it")
    pictures = _crops_or_scenes(PARITY_SEED, 2, plan, width, height)
    model = surgery.wrapped(network, layout, (width, height), plan.mean, plan.std, outputs)
    model = surgery.slimmed(model)
    free = surgery.batched(model, pictures)
    if free is None:
        say("its batch stays 1: two pictures together come out otherwise than alone")
    model = free or model
    data: bytes = model.SerializeToString()
    worst = surgery.check_same(network, data, layout, pictures, plan.mean, plan.std, outputs)
    say(f"the same as the network as it came: largest difference {worst:.2g}")
    files: dict[str, Path | bytes] = {FILES["fp32"]: data}
    quantiser = Quantiser(data, lambda: _calibration(plan, width, height))
    for precision in plan.precisions:
        if precision != "fp32":
            say(f"making {precision}")
            files[FILES[precision]] = _typed(data, precision, quantiser)
    say("drawing the gate's pictures" if plan.selftest is None else "reading the gate's pictures")
    files |= dict(_selftest(plan, width, height))
    manifest = _manifest(source, plan, (width, height), outputs, worst)
    _try_decoder(manifest)
    files["README.md"] = _card(manifest, source).encode()
    with tempfile.TemporaryDirectory(prefix="posewire-import-") as folder:
        trial = Path(folder) / "bundle"
        check_onnx(write_bundle(trial, manifest, files), trial)
    return write_bundle(out, manifest, files, replace=replace)


def _outputs(
    network: onnx.ModelProto, plan: Plan, layout: str, size: tuple[int, int], say: Say
) -> tuple[onnx.ModelProto, list[Found]]:
    """The network, with boxes where it has raw rows, and the manifest's outputs."""
    tensors = surgery.output_shapes(network, layout, *size)
    rules = plan.outputs
    if not rules:
        rules = guess(plan.algorithm, plan.skeleton, tensors)
        say("outputs: " + ", ".join(_shown(rule) for rule in rules))
    if plan.algorithm == "yolox":
        if len(rules) != 1 or len(tensors.get(rules[0].tensor, ())) != 2:
            raise TrainError("yolox: one output [batch, rows, values] is needed", ExitCode.USAGE)
        rows = tensors[rules[0].tensor][0]
        network, boxes = surgery.with_yolox_boxes(network, rules[0].tensor, *size, rows)
        tensors = {boxes: (rows, 5)}
        rules = (Rule("boxes", boxes),)
    return network, [find(rule, tensors, *size, plan.stride) for rule in rules]


def _shown(rule: Rule) -> str:
    cut = "" if rule.first is None else f"[{rule.first}:{rule.last}]"
    return f"{rule.name}={rule.tensor}{cut}"


# --- pictures ---------------------------------------------------------------------------------


def _crops_or_scenes(seed: int, count: int, plan: Plan, width: int, height: int) -> Pictures:
    """Drawn pictures of the network's size and channel order, uint8 [count, height, width, 3]."""
    if mode_of(plan.algorithm) == "top_down":
        crops = drawn_crops(seed, (width, height), plan.padding)
        made = [letterbox(next(crops), width, height)[0] for _ in range(count)]
    else:
        made = [image for image, _ in render_many(count, seed, width, height)]
    pictures = np.stack(made)
    return np.ascontiguousarray(pictures[..., ::-1]) if plan.channels == "BGR" else pictures


def _pictures_in(folder: Path) -> list[Path]:
    """By name. Raises TrainError (SOURCE) where there are none."""
    if not folder.is_dir():
        raise TrainError(f"{folder}: is not a folder of pictures", ExitCode.SOURCE)
    found = sorted(path for path in folder.iterdir() if path.suffix.lower() in _SUFFIXES)
    if not found:
        raise TrainError(f"{folder}: holds no pictures", ExitCode.SOURCE)
    return found


def _calibration(plan: Plan, width: int, height: int) -> Iterator[Pictures]:
    if plan.calibration is None:
        count = plan.calibration_pictures
        yield from _crops_or_scenes(CALIBRATION_SEED, count, plan, width, height)
        return
    for path in spread(_pictures_in(plan.calibration), plan.calibration_pictures):
        image = cv2.imread(str(path), cv2.IMREAD_COLOR)
        if image is None:
            raise TrainError(f"{path}: cannot be read as a picture", ExitCode.SOURCE)
        ordered = image[..., ::-1] if plan.channels == "RGB" else image
        yield letterbox(np.ascontiguousarray(ordered, np.uint8), width, height)[0]


def _selftest(plan: Plan, width: int, height: int) -> Iterator[tuple[str, bytes | Path]]:
    if plan.selftest is not None:
        for i, path in enumerate(_pictures_in(plan.selftest)[: plan.selftest_count]):
            yield f"selftest-{i:02d}{path.suffix.lower()}", path
    elif mode_of(plan.algorithm) == "top_down":
        yield from selftest_crops(plan.selftest_count, (width, height), plan.padding)
    else:
        yield from selftest_pictures(plan.selftest_count)


def _typed(data: bytes, precision: str, quantiser: Quantiser) -> bytes:
    try:
        return half(data) if precision == "fp16" else quantiser.graph(precision)
    except PosewireError:
        raise
    except Exception as error:  # the converters were written for other networks than this one
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise TrainError(f"import: {precision} cannot be made: {first}", ExitCode.BUNDLE) from error


# --- manifest ---------------------------------------------------------------------------------


def _manifest(
    source: Path, plan: Plan, size: tuple[int, int], outputs: Sequence[Found], worst: float
) -> dict[str, Any]:
    mode = mode_of(plan.algorithm)
    specs, tensors = [], []
    for found in outputs:
        spec: dict[str, Any] = {"name": found.rule.name, "channels": found.count}
        if found.stride is not None:
            spec["stride"], kind = found.stride, "NCHW"
        else:
            spec["length"] = found.shape[1 - found.channels]
            kind = "NCW" if found.channels == 0 else "NWC"
        specs.append(spec)
        tensors.append({"name": found.rule.name, "layout": kind, "dtype": "float32"})
    artifacts = [
        {
            "files": [FILES[precision]],
            "format": "onnx",
            "precision": precision,
            "input": {"layout": "NHWC", "dtype": "uint8"},
            "outputs": tensors,
        }
        for precision in plan.precisions
    ]
    manifest: dict[str, Any] = {
        "schema": 1,
        "name": plan.name,
        "version": plan.version,
        "mode": mode,
        "skeleton": None if plan.skeleton is None else plan.skeleton.to_dict(),
        "input": {
            "name": INPUT,
            "width": size[0],
            "height": size[1],
            "channels": plan.channels,
            "resize": "letterbox",
        },
    }
    if mode == "top_down":
        manifest["crop"] = {"padding": plan.padding, "fit": "letterbox"}
    imported = {"file": source.name, "sha256": hashlib.sha256(source.read_bytes()).hexdigest()}
    return {
        **manifest,
        "outputs": specs,
        "decode": {"algorithm": decoder_of(plan.algorithm), **plan.decode},
        "artifacts": artifacts,
        "target": None,
        "gate": None,
        "accuracy": [
            {
                "data": "2 drawn pictures, ONNX Runtime",
                "metric": "max_abs_diff to the imported network",
                "value": float(f"{worst:.4g}"),
                "artifact": "fp32",
            }
        ],
        "training": {"imported": imported, "posewire": __version__},
        "derived_from": None,
    }


def _try_decoder(manifest: Mapping[str, Any]) -> None:
    """The engine's own opinion of outputs and parameters, before anything is written."""
    partial = ("mode", "skeleton", "input", "outputs", "decode")
    outputs = [
        {**spec, "layout": tensor["layout"]}
        for spec, tensor in zip(
            manifest["outputs"], manifest["artifacts"][0]["outputs"], strict=True
        )
    ]
    Decoder({**{key: manifest[key] for key in partial}, "outputs": outputs})


def _card(manifest: Mapping[str, Any], source: Path) -> str:
    skeleton = manifest["skeleton"]
    what = "a detector" if skeleton is None else f"skeleton {skeleton['name']}"
    shape = f"{manifest['input']['width']} x {manifest['input']['height']}"
    return "\n".join(
        (
            f"# {manifest['name']} {manifest['version']}",
            "",
            f"Imported from {source.name} (sha256 {manifest['training']['imported']['sha256']}): "
            f"{what}, {manifest['decode']['algorithm']}, input {shape} "
            f"{manifest['input']['channels']}.",
            "",
            "posewire knows nothing of its training data and its licence.",
            "",
        )
    )
