# SPDX-License-Identifier: Apache-2.0
"""Writes the corpus beside this file: python tests/golden/bundles/generate.py

Each *.json is {"manifest": …, "error": …}: "" for a manifest that every reader must accept
(posewire/manifest.py and cpp/bundle), else a fragment that the reader's message must contain, the
key's path. Only the manifest matters here: the files it lists exist nowhere.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ZEROS = "0" * 64


def portable() -> dict[str, Any]:
    skeleton = json.loads(
        (HERE.parents[2] / "posewire" / "skeletons" / "body18.json").read_text(encoding="utf-8")
    )

    def artifact(file: str, precision: str) -> dict[str, Any]:
        return {
            "files": [file],
            "format": "onnx",
            "precision": precision,
            "input": {"layout": "NHWC", "dtype": "uint8"},
            "outputs": [
                {"name": "heatmaps", "layout": "NCHW", "dtype": "float32"},
                {"name": "pafs", "layout": "NCHW", "dtype": "float32"},
            ],
        }

    files = {
        "fp32": "model.onnx",
        "fp16": "model.fp16.onnx",
        "int8": "model.int8.onnx",
        "int8-u8": "model.int8-u8.onnx",
    }
    return {
        "schema": 1,
        "name": "body18-paf-mobilenetv2",
        "version": "2026.11.0",
        "mode": "bottom_up",
        "skeleton": skeleton,
        "input": {
            "name": "image",
            "width": 432,
            "height": 368,
            "channels": "RGB",
            "resize": "letterbox",
        },
        "outputs": [
            {"name": "heatmaps", "channels": 19, "stride": 8},
            {"name": "pafs", "channels": 38, "stride": 8},
        ],
        "decode": {"algorithm": "paf", "background": True},
        "artifacts": [artifact(file, precision) for precision, file in files.items()],
        "target": None,
        "gate": None,
        "accuracy": [{"data": "val", "metric": "AP", "value": 0.1, "artifact": "fp32"}],
        "training": {"seed": 1},
        "derived_from": None,
        "files": {file: {"sha256": ZEROS, "bytes": 1} for file in files.values()},
    }


def compiled() -> dict[str, Any]:
    data = portable()
    data["artifacts"] = [
        {
            **data["artifacts"][0],
            "files": ["model.xml", "model.bin"],
            "format": "openvino",
            "precision": "bf16",
        }
    ]
    data["files"] = {name: {"sha256": ZEROS, "bytes": 1} for name in ("model.xml", "model.bin")}
    data["target"] = {
        "name": "x86-cpu",
        "runtime": "openvino",
        "runtime_version": "2026.4.1",
        "device": "CPU",
        "precision": "bf16",
        "max_batch": 8,
    }
    data["gate"] = {"kind": "agreement", "value": 0.01, "limit": 0.05, "pictures": 32}
    data["derived_from"] = {"name": data["name"], "version": data["version"], "sha256": ZEROS}
    return data


def kept() -> dict[str, Any]:
    """Compiled with layers in floating point, and what each keypoint lost."""
    data = compiled()
    data["target"]["kept_layers"] = ["stage 1/conv", "head/last"]
    data["gate"]["keypoints"] = {"nose": 0.003, "right_wrist": -0.01}
    return data


def float_input() -> dict[str, Any]:
    data = portable()
    data["artifacts"][0]["input"] = {
        "layout": "NCHW",
        "dtype": "float32",
        "mean": [123.7, 116.3, 103.5],
        "std": [58.4, 57.1, 57.4],
    }
    return data


def quantised() -> dict[str, Any]:
    data = portable()
    for output in data["artifacts"][2]["outputs"]:
        output.update(dtype="int8", scale=0.02, zero_point=-3)
    return data


def top_down() -> dict[str, Any]:
    return {**portable(), "mode": "top_down", "crop": {"padding": 1.25, "fit": "letterbox"}}


def sequences() -> dict[str, Any]:
    """A top-down network whose outputs are sequences of bins."""
    data = top_down()
    data["outputs"] = [
        {"name": "simcc_x", "channels": 18, "length": 384},
        {"name": "simcc_y", "channels": 18, "length": 512},
    ]
    for artifact in data["artifacts"]:
        artifact["outputs"] = [
            {"name": "simcc_x", "layout": "NCW", "dtype": "float32"},
            {"name": "simcc_y", "layout": "NWC", "dtype": "float32"},
        ]
    return data


def detector() -> dict[str, Any]:
    return {**portable(), "mode": "detector", "skeleton": None}


REMOVE = object()


def edited(data: dict[str, Any], *steps: Any) -> dict[str, Any]:
    """A copy with the value at a path replaced (the last two of ``steps`` are key and value)."""
    result = copy.deepcopy(data)
    *way, key, value = steps
    place: Any = result
    for step in way:
        place = place[step]
    if value is REMOVE:
        del place[key]
    else:
        place[key] = value
    return result


def bad() -> dict[str, tuple[dict[str, Any], str]]:
    p, c, k = portable(), compiled(), kept()
    first = ("artifacts", 0)
    return {
        "schema_future": (edited(p, "schema", 2), "schema"),
        "schema_zero": (edited(p, "schema", 0), "schema"),
        "schema_text": (edited(p, "schema", "1"), "schema"),
        "schema_missing": (edited(p, "schema", REMOVE), "schema"),
        "unknown_key": (edited(p, "colour", 1), "colour"),
        "unknown_input_key": (edited(p, "input", "depth", 1), "depth"),
        "unknown_output_key": (edited(p, "outputs", 1, "size", 1), "size"),
        "unknown_artifact_key": (edited(p, *first, "speed", 1), "speed"),
        "unknown_skeleton_key": (edited(p, "skeleton", "colors", []), "colors"),
        "unknown_target_key": (edited(c, "target", "host", "x"), "host"),
        "unknown_file_key": (edited(p, "files", "model.onnx", "mtime", 1), "mtime"),
        "name_missing": (edited(p, "name", REMOVE), "name"),
        "name_number": (edited(p, "name", 5), "name"),
        "mode_unknown": (edited(p, "mode", "sideways"), "mode"),
        "skeleton_null": (edited(p, "skeleton", None), "skeleton"),
        "skeleton_limb_range": (edited(p, "skeleton", "limbs", 3, [0, 18]), "skeleton.limbs[3]"),
        "skeleton_limb_self": (edited(p, "skeleton", "limbs", 0, [4, 4]), "skeleton.limbs[0]"),
        "skeleton_flips_not_involution": (
            edited(p, "skeleton", "flips", 0, 1),
            "skeleton.flips",
        ),
        "skeleton_flips_short": (
            edited(p, "skeleton", "flips", p["skeleton"]["flips"][:-1]),
            "skeleton.flips",
        ),
        "skeleton_sigma_zero": (edited(p, "skeleton", "sigmas", 2, 0), "skeleton.sigmas[2]"),
        "skeleton_keypoint_twice": (
            edited(p, "skeleton", "keypoints", 1, "nose"),
            "skeleton.keypoints[1]",
        ),
        "input_width_zero": (edited(p, "input", "width", 0), "input.width"),
        "input_width_float": (edited(p, "input", "width", 431.5), "input.width"),
        "input_width_huge": (edited(p, "input", "width", 2**40), "input.width"),
        "input_channels": (edited(p, "input", "channels", "GRAY"), "input.channels"),
        "input_resize": (edited(p, "input", "resize", "stretch"), "input.resize"),
        "outputs_empty": (edited(p, "outputs", []), "outputs"),
        "output_stride_zero": (edited(p, "outputs", 1, "stride", 0), "outputs[1].stride"),
        "output_stride_bool": (edited(p, "outputs", 1, "stride", True), "outputs[1].stride"),
        "output_channels_negative": (
            edited(p, "outputs", 0, "channels", -1),
            "outputs[0].channels",
        ),
        "output_stride_and_length": (edited(p, "outputs", 1, "length", 5), "outputs[1].stride"),
        "output_length_zero": (
            edited(sequences(), "outputs", 1, "length", 0),
            "outputs[1].length",
        ),
        "output_sequence_layout": (
            edited(sequences(), *first, "outputs", 0, "layout", "NCHW"),
            "artifacts[0].outputs[0].layout",
        ),
        "output_map_layout": (
            edited(p, *first, "outputs", 0, "layout", "NCW"),
            "artifacts[0].outputs[0].layout",
        ),
        "output_twice": (edited(p, "outputs", 1, "name", "heatmaps"), "outputs[1].name"),
        "decode_without_algorithm": (edited(p, "decode", {}), "algorithm"),
        "artifacts_empty": (edited(p, "artifacts", []), "artifacts"),
        "artifact_format": (edited(p, *first, "format", "caffe"), "artifacts[0].format"),
        "artifact_precision": (edited(p, *first, "precision", "fp8"), "artifacts[0].precision"),
        "artifact_layout": (
            edited(p, *first, "input", "layout", "HW"),
            "artifacts[0].input.layout",
        ),
        "artifact_dtype": (
            edited(p, *first, "outputs", 0, "dtype", "int64"),
            "artifacts[0].outputs[0].dtype",
        ),
        "artifact_output_unknown": (
            edited(p, *first, "outputs", 0, "name", "depths"),
            "artifacts[0].outputs",
        ),
        "artifact_output_missing": (
            edited(p, *first, "outputs", p["artifacts"][0]["outputs"][:1]),
            "artifacts[0].outputs",
        ),
        "artifact_file_unlisted": (edited(p, *first, "files", ["other.onnx"]), "other.onnx"),
        "artifact_file_folder": (edited(p, *first, "files", ["../model.onnx"]), "files"),
        "mean_with_uint8": (
            edited(
                p,
                *first,
                "input",
                {**p["artifacts"][0]["input"], "mean": [0, 0, 0], "std": [1, 1, 1]},
            ),
            "artifacts[0].input",
        ),
        "std_zero": (
            edited(float_input(), *first, "input", "std", [1, 0, 1]),
            "artifacts[0].input.std",
        ),
        "scale_without_zero_point": (
            edited(quantised(), "artifacts", 2, "outputs", 0, "zero_point", REMOVE),
            "artifacts[2].outputs[0]",
        ),
        "target_runtime_missing": (edited(c, "target", "runtime", REMOVE), "runtime"),
        "target_max_batch": (edited(c, "target", "max_batch", 0), "target.max_batch"),
        "compiled_with_two_artifacts": (
            edited(c, "artifacts", [c["artifacts"][0], c["artifacts"][0]]),
            "artifacts",
        ),
        "target_kept_layers_empty": (edited(k, "target", "kept_layers", []), "kept_layers"),
        "target_kept_layers_number": (
            edited(k, "target", "kept_layers", [1]),
            "target.kept_layers[0]",
        ),
        "gate_keypoints_list": (edited(k, "gate", "keypoints", []), "gate.keypoints"),
        "gate_keypoints_unknown": (edited(k, "gate", "keypoints", "tail", 0.1), "gate.keypoints"),
        "gate_keypoints_large": (edited(k, "gate", "keypoints", "nose", 1.5), "keypoints.nose"),
        "gate_keypoints_text": (edited(k, "gate", "keypoints", "nose", "1"), "keypoints.nose"),
        "gate_kind": (edited(c, "gate", "kind", "mood"), "gate.kind"),
        "crop_in_bottom_up": (edited(p, "crop", {"padding": 1.25, "fit": "letterbox"}), "crop"),
        "file_name_parent": (edited(p, "files", "..", {"sha256": ZEROS, "bytes": 1}), "files"),
        "file_name_folder": (edited(p, "files", "a/b", {"sha256": ZEROS, "bytes": 1}), "files"),
        "file_name_empty": (edited(p, "files", "", {"sha256": ZEROS, "bytes": 1}), "files"),
        "file_sha256_short": (edited(p, "files", "model.onnx", "sha256", "00"), "sha256"),
        "file_bytes_negative": (edited(p, "files", "model.onnx", "bytes", -1), "bytes"),
    }


def main() -> None:
    for old in HERE.glob("*.json"):
        old.unlink()
    good = {
        "good": portable(),
        "good_compiled": compiled(),
        "good_kept_layers": kept(),
        "good_float_input": float_input(),
        "good_quantised": quantised(),
        "good_top_down": top_down(),
        "good_detector": detector(),
        "good_sequences": sequences(),
    }
    cases = {**{name: (data, "") for name, data in good.items()}, **bad()}
    for name, (manifest, error) in cases.items():
        text = json.dumps({"error": error, "manifest": manifest}, separators=(",", ":"))
        (HERE / f"{name}.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
