# SPDX-License-Identifier: Apache-2.0
"""A training run as a portable bundle: ONNX in four precisions, TFLite in two and UFF, checked
against Keras.

    model.onnx          fp32, the hub            model.int8.onnx     Q/DQ, s8, for TensorRT
    model.fp16.onnx     FP16 inside              model.int8-u8.onnx  Q/DQ, u8, for x86
    model.tflite        fp32, small ARM boards   model.int8.tflite   full integer
    model.uff           fp32, for TensorRT up to 8.6, where UFF has all of its operators
    selftest-NN.jpg     drawn pictures for the agreement gate        README.md  the model card

Calibration uses the pictures of a directory or, without one, drawn pictures of a seed of their own;
never the gate's. Of a top-down network all of these are crops of one person.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import keras
import numpy as np
from numpy.typing import NDArray

from posewire import __version__
from posewire.bundle import check_onnx, write_bundle
from posewire.errors import BundleError, ExitCode
from posewire.manifest import Manifest
from posewire.preprocess import letterbox

from . import export_onnx, export_tflite
from .algorithm import CROP_PADDING, OutputSpec
from .checkpoint import CONFIG_NAME, load_run
from .data.synthetic import SELFTEST_SEED, render_many, selftest_pictures
from .data.synthetic_crops import drawn_crops, selftest_crops
from .errors import TrainError
from .export_uff import FILE as UFF_FILE
from .export_uff import uff_artifact
from .model import Network, check_size
from .quantise import Quantiser, half, spread

Say = Callable[[str], None]
Pictures = NDArray[np.uint8]

PRECISIONS = ("fp32", "fp16", "int8", "int8-u8")
FILES = {
    "fp32": "model.onnx",
    "fp16": "model.fp16.onnx",
    "int8": "model.int8.onnx",
    "int8-u8": "model.int8-u8.onnx",
}
CALIBRATION_SEED = SELFTEST_SEED + 1
PARITY_SEED = SELFTEST_SEED + 2
PARITY_LIMIT = 1e-3  # largest difference between Keras and ONNX Runtime, in output units
PICTURE_FILES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")


@dataclass(frozen=True)
class Plan:
    """What to export and how.

    Sizes are the network input's in pixels, multiples of 32. ``crops``: the network is
    top-down (export_network sets it), ``calibration`` a folder of crops. ``accuracy`` are measured
    figures for the manifest ({data, metric, value, artifact}), ``card`` the text of README.md.
    ``tflite`` asks for the TFLite files of the precisions that TFLite has.
    """

    name: str
    version: str
    width: int
    height: int
    precisions: tuple[str, ...] = PRECISIONS
    tflite: bool = True
    uff: bool = True
    crops: bool = False
    calibration: Path | None = None
    calibration_pictures: int = 64
    parity_pictures: int = 8
    selftest_pictures: int = 32
    accuracy: tuple[Mapping[str, Any], ...] = ()
    training: Mapping[str, Any] | None = None
    card: str | None = None

    @property
    def tflite_precisions(self) -> tuple[str, ...]:
        return tuple(p for p in self.precisions if self.tflite and p in export_tflite.FILES)

    def check(self) -> None:
        """Raises TrainError naming what is wrong."""
        for side, size in (("width", self.width), ("height", self.height)):
            if size <= 0 or size % 32:
                raise TrainError(f"export: {side} must be a multiple of 32, not {size}")
        unknown = set(self.precisions) - set(PRECISIONS)
        if unknown or "fp32" not in self.precisions:
            known = ", ".join(PRECISIONS)
            raise TrainError(f"export: precisions are some of {known}, fp32 always among them")


def export_run(
    run: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    name: str | None = None,
    version: str = "0.1.0",
    width: int | None = None,
    height: int | None = None,
    calibration: Path | None = None,
    accuracy: Sequence[Mapping[str, Any]] = (),
    card: str | None = None,
    precisions: Sequence[str] = PRECISIONS,
    tflite: bool = True,
    replace: bool = False,
    say: Say = lambda line: None,
) -> Manifest:
    """Exports a run directory's averaged weights as a portable bundle at ``out``.

    ``name`` and sizes default to the run's configuration. ``say`` gets a line per step of work.
    Raises TrainError (a directory that is no run, calibration pictures that cannot be read, a
    conversion that does not agree with Keras) or BundleError; ``out`` is left as it was then.
    """
    config, network = load_run(Path(run))
    plan = Plan(
        name=name or config.name,
        version=version,
        width=width or config.input.width,
        height=height or config.input.height,
        precisions=tuple(precisions),
        tflite=tflite,
        calibration=calibration,
        accuracy=tuple(accuracy),
        training=_provenance(Path(run), config),
        card=card,
    )
    plan.check()
    check_size(network, plan.width, plan.height, "export")
    if keras.backend.backend() == "tensorflow":
        graphs = None
    else:
        say("converting with TensorFlow in a process of its own")
        graphs = _convert_elsewhere(Path(run), plan)
    return export_network(network, out, plan, graphs=graphs, replace=replace, say=say)


def export_network(
    network: Network,
    out: str | os.PathLike[str],
    plan: Plan,
    *,
    graphs: Graphs | None = None,
    replace: bool = False,
    say: Say = lambda line: None,
) -> Manifest:
    """Exports a network in memory; see export_run. ``graphs`` are its, if converted already."""
    plan = dataclasses.replace(plan, crops=network.algorithm.mode == "top_down")
    plan.check()
    check_size(network, plan.width, plan.height, "export")
    model, outputs = network.inference(), network.algorithm.outputs
    say("converting to ONNX")
    graphs = graphs or _convert(network, plan)
    data = graphs.onnx
    say(f"comparing Keras and ONNX Runtime on {plan.parity_pictures} pictures")
    pictures = _drawn(PARITY_SEED, plan.parity_pictures, plan)
    reference = export_onnx.run_onnx(export_onnx.session(data), pictures)
    difference = _parity(model, pictures, reference)
    measured = [_figure("max_abs_diff to Keras", difference, "fp32", len(pictures))]
    files: dict[str, Path | bytes] = {FILES["fp32"]: data}
    quantiser = Quantiser(data, lambda: _calibration(plan))
    for precision in plan.precisions:
        if precision == "fp32":
            continue
        say(f"making {precision}")
        typed = half(data) if precision == "fp16" else quantiser.graph(precision)
        files[FILES[precision]] = typed
        found = export_onnx.run_onnx(export_onnx.session(typed), pictures)
        measured += _compare(found, reference, precision, "ONNX Runtime")
    artifacts = [_onnx_artifact(precision, outputs) for precision in plan.precisions]
    for precision in plan.tflite_precisions:
        say(f"making TFLite {precision}")
        lite = _tflite(graphs.frozen, network, plan, precision)
        files[export_tflite.FILES[precision]] = lite
        found = export_tflite.run_tflite(lite, pictures)
        measured += _compare(found, reference, precision, "TFLite")
        artifacts.append(export_tflite.artifact(lite, precision, outputs))
    if plan.uff:
        say("making UFF")
        try:
            names = [spec.name for spec in outputs]
            content, entry, figure = uff_artifact(data, names, pictures, reference)
        except BundleError as error:
            say(f"no {UFF_FILE}: {error}")
        else:
            files[UFF_FILE] = content
            artifacts.append(entry)
            measured.append(figure)
    say("drawing the gate's pictures")
    files |= dict(_selftest(plan))
    manifest = _manifest(network, plan, measured, artifacts)
    files["README.md"] = (plan.card or _card(manifest)).encode()
    with tempfile.TemporaryDirectory(prefix="posewire-export-") as folder:
        trial = Path(folder) / "bundle"
        check_onnx(write_bundle(trial, manifest, files), trial)
    return write_bundle(out, manifest, files, replace=replace)


@dataclass(frozen=True)
class Graphs:
    """The float graph: its ONNX, and the frozen TensorFlow function that that was made from."""

    onnx: bytes
    frozen: bytes


def _convert(network: Network, plan: Plan) -> Graphs:
    outputs = network.algorithm.outputs
    frozen = export_onnx.frozen_graph(network.inference(), outputs, plan.width, plan.height)
    return Graphs(export_onnx.float_onnx(frozen, outputs, plan.width, plan.height), frozen)


def _convert_elsewhere(run: Path, plan: Plan) -> Graphs:
    """The same, made by TensorFlow whatever backend this process has."""
    environment = {**os.environ, "KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3"}
    environment["PYTHONSAFEPATH"] = "1"  # a checkout in the working directory shadows the package
    with tempfile.TemporaryDirectory(prefix="posewire-convert-") as folder:
        out, frozen = Path(folder) / "float.onnx", Path(folder) / "frozen.pb"
        command = [sys.executable, "-m", export_onnx.__name__, str(run)]
        command += [str(plan.width), str(plan.height), str(out), str(frozen)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode != 0 or not frozen.is_file():
            lines = done.stderr.strip().splitlines() or ["no message"]
            raise TrainError(f"{run}: conversion to ONNX failed: {lines[-1]}", ExitCode.BUG)
        return Graphs(out.read_bytes(), frozen.read_bytes())


# --- pictures ---------------------------------------------------------------------------------


def _drawn(seed: int, count: int, plan: Plan) -> Pictures:
    """Drawn pictures of the network's size, uint8 RGB [count, H, W, 3]; crops for a network of
    crops."""
    if plan.crops:
        crops = drawn_crops(seed, (plan.width, plan.height), CROP_PADDING)
        return np.stack([letterbox(next(crops), plan.width, plan.height)[0] for _ in range(count)])
    return np.stack([image for image, _ in render_many(count, seed, plan.width, plan.height)])


def _selftest(plan: Plan) -> Iterator[tuple[str, bytes]]:
    if plan.crops:
        size = (plan.width, plan.height)
        return selftest_crops(plan.selftest_pictures, size, CROP_PADDING)
    return selftest_pictures(plan.selftest_pictures)


def _calibration(plan: Plan) -> Iterator[Pictures]:
    if plan.calibration is None:
        yield from _drawn(CALIBRATION_SEED, plan.calibration_pictures, plan)
        return
    for path in spread(calibration_files(plan.calibration), plan.calibration_pictures):
        image = cv2.imread(str(path), cv2.IMREAD_COLOR)
        if image is None:
            raise TrainError(f"{path}: cannot be read as a picture", ExitCode.SOURCE)
        rgb = np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)
        yield letterbox(rgb, plan.width, plan.height)[0]


def calibration_files(folder: Path) -> list[Path]:
    """The pictures in a directory, by name. Raises TrainError (SOURCE) where there are none."""
    if not folder.is_dir():
        raise TrainError(f"{folder}: not a directory of pictures", ExitCode.SOURCE)
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in PICTURE_FILES)
    if not files:
        known = ", ".join(PICTURE_FILES)
        raise TrainError(f"{folder}: holds no pictures ({known})", ExitCode.SOURCE)
    return files


def _tflite(frozen: bytes, network: Network, plan: Plan, precision: str) -> bytes:
    outputs, size = network.algorithm.outputs, (plan.width, plan.height)
    if precision == "fp32":
        return export_tflite.float_tflite(frozen, outputs, *size)
    return export_tflite.int8_tflite(frozen, outputs, *size, _calibration(plan))


# --- checks -----------------------------------------------------------------------------------


def _parity(model: Any, pictures: Pictures, reference: Mapping[str, NDArray[np.float32]]) -> float:
    """The largest difference to Keras. Raises TrainError (BUG) over PARITY_LIMIT."""
    worst = 0.0
    for name, maps in model.predict_on_batch(pictures.astype(np.float32)).items():
        expected = np.moveaxis(np.asarray(maps), -1, 1)
        difference = float(np.abs(expected - reference[name]).max())
        if not difference <= PARITY_LIMIT:
            raise TrainError(
                f"export: {name} differs from Keras by {difference:.2g}, limit {PARITY_LIMIT}",
                ExitCode.BUG,
            )
        worst = max(worst, difference)
    return worst


def _compare(
    outputs: Mapping[str, NDArray[np.float32]],
    reference: Mapping[str, NDArray[np.float32]],
    precision: str,
    runtime: str,
) -> list[dict[str, Any]]:
    """How far another file's outputs are from the fp32 ONNX file's. Raises TrainError (BUG) where
    they are not finite, or where fp32 differs by more than PARITY_LIMIT."""
    difference = np.concatenate([(outputs[n] - reference[n]).ravel() for n in reference])
    if not np.isfinite(difference).all():
        raise TrainError(f"export: {runtime} {precision} computes infinities", ExitCode.BUG)
    worst, mean = float(np.abs(difference).max()), float(np.abs(difference).mean())
    if precision == "fp32" and worst > PARITY_LIMIT:
        what = f"{runtime} differs from ONNX by {worst:.2g}, limit {PARITY_LIMIT}"
        raise TrainError(f"export: {what}", ExitCode.BUG)
    count = len(next(iter(reference.values())))
    return [
        _figure("max_abs_diff to fp32", worst, precision, count, runtime),
        _figure("mean_abs_diff to fp32", mean, precision, count, runtime),
    ]


def _figure(
    metric: str, value: float, artifact: str, pictures: int, runtime: str = "ONNX Runtime"
) -> dict[str, Any]:
    data = f"{pictures} drawn pictures, {runtime}"
    return {"data": data, "metric": metric, "value": float(f"{value:.4g}"), "artifact": artifact}


# --- manifest ---------------------------------------------------------------------------------


def _onnx_artifact(precision: str, outputs: Sequence[OutputSpec]) -> dict[str, Any]:
    return {
        "files": [FILES[precision]],
        "format": "onnx",
        "precision": precision,
        "input": {"layout": "NHWC", "dtype": "uint8"},
        "outputs": [
            {"name": spec.name, "layout": spec.layout(), "dtype": "float32"} for spec in outputs
        ],
    }


def _manifest(
    network: Network,
    plan: Plan,
    measured: Sequence[Mapping[str, Any]],
    artifacts: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    drawn = "drawn crops" if plan.crops else "drawn pictures"
    calibration = (
        str(plan.calibration.name)
        if plan.calibration is not None
        else f"{plan.calibration_pictures} {drawn}, seed {CALIBRATION_SEED}"
    )
    return {
        "schema": 1,
        "name": plan.name,
        "version": plan.version,
        "mode": network.algorithm.mode,
        "skeleton": network.skeleton.to_dict(),
        "input": {
            "name": export_onnx.INPUT,
            "width": plan.width,
            "height": plan.height,
            "channels": "RGB",
            "resize": "letterbox",
        },
        **network.algorithm.crop,
        "outputs": [spec.entry(plan.width, plan.height) for spec in network.algorithm.outputs],
        "decode": network.algorithm.decode_parameters(),
        "artifacts": list(artifacts),
        "target": None,
        "gate": None,
        "accuracy": [*plan.accuracy, *measured],
        "training": {**(plan.training or {}), "posewire": __version__, "calibration": calibration},
        "derived_from": None,
    }


def _provenance(run: Path, config: Any) -> dict[str, Any]:
    """What is known of how a run was trained."""
    facts: dict[str, Any] = {
        "config_sha256": hashlib.sha256((run / CONFIG_NAME).read_bytes()).hexdigest(),
        "seed": config.seed,
        "backbone": config.model.backbone,
        "algorithm": config.model.algorithm,
        "data": [{"name": data.name, "weight": data.weight} for data in config.dataset],
    }
    try:
        started = json.loads((run / "run.json").read_text(encoding="utf-8"))
        facts |= {key: started[key] for key in ("keras", "backend") if key in started}
    except (OSError, ValueError):
        pass  # a run that was put together by hand has none; nothing is claimed then
    return facts


def _card(manifest: Mapping[str, Any]) -> str:
    """A model card of what the manifest knows."""
    shape = f"{manifest['input']['width']} x {manifest['input']['height']}"
    lines = [
        f"# {manifest['name']} {manifest['version']}",
        "",
        f"Skeleton {manifest['skeleton']['name']}, {manifest['decode']['algorithm']}, "
        f"input {shape} RGB.",
        "",
        "| data | metric | artifact | value |",
        "|---|---|---|---|",
    ]
    for figure in manifest["accuracy"]:
        row = (figure["data"], figure["metric"], figure["artifact"], f"{figure['value']:g}")
        lines.append("| " + " | ".join(row) + " |")
    lines += ["", "Training:", "", "```json", json.dumps(manifest["training"], indent=1), "```", ""]
    return "\n".join(lines)
