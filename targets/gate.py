# SPDX-License-Identifier: Apache-2.0
"""The accuracy gate (docs/design.md 3.2): a compiled bundle must do what the portable one does.

The reference is the portable fp32 ONNX run by ONNX Runtime, with the engine's own preprocessing and
decoder: neither the compiler nor its runtime judges itself. Two kinds: with labels the drop in COCO
AP; without, the disagreement 1 - OKS-AP of the compiled poses against the reference's poses.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from posewire.decode import Decoder, Poses
from posewire.engine_core import core as engine_core
from posewire.errors import ExitCode
from posewire.manifest import Artifact, Manifest
from posewire.score import Labels, coco_ap, keypoint_similarity, load_labels, run_pictures
from posewire.skeleton import Skeleton
from posewire.top_down import BOX

from .errors import TargetError
from .recipe import Recipe

MIN_PEOPLE = 200  # fewer labelled people say too little about a drop of 0.01
_AREA = 0.53  # a person's silhouette as a share of the box around its keypoints, as COCO's labels
SURE = 0.5  # mean keypoint score of a reference person that must be found again
_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp"}

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Verdict:
    """What stands in the manifest's ``gate``; passed where value <= limit. A pending one has
    judged nothing, so it has not passed. ``keypoints``: the drop in similarity of each keypoint
    that the truth has (score.keypoint_similarity), the reference's minus the compiled one's."""

    kind: str
    value: float
    limit: float
    pictures: int
    keypoints: Mapping[str, float] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        return self.kind != "pending" and self.value <= self.limit

    def as_json(self) -> dict[str, Any]:
        """The manifest's object."""
        values = {"kind": self.kind, "value": self.value, "limit": self.limit}
        drops = {"keypoints": dict(self.keypoints)} if self.keypoints else {}
        return {**values, "pictures": self.pictures, **drops}


def portable_fp32(manifest: Manifest, folder: Path) -> tuple[int, Artifact]:
    """The artifact that everything is compared with. Raises TargetError (BUNDLE)."""
    for index, artifact in enumerate(manifest.artifacts):
        if artifact.format == "onnx" and artifact.precision == "fp32":
            return index, artifact
    raise TargetError(f"{folder}: has no fp32 ONNX artifact", ExitCode.BUNDLE)


def reference_poses(
    folder: Path, manifest: Manifest, paths: Sequence[Path], progress: Progress
) -> list[Poses]:
    """The portable bundle's poses of the pictures, in frame pixels."""
    onnxruntime: Any = import_module("onnxruntime")
    index, artifact = portable_fp32(manifest, folder)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    file = str(folder / artifact.files[0])
    try:
        session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the package's exceptions have no class of their own to catch
        line = " ".join(str(error).split())
        raise TargetError(f"{file}: ONNX Runtime refuses it: {line}", ExitCode.BUNDLE) from error
    raw = dict(manifest.raw)
    decoder = Decoder(raw, index)
    names = [output.name for output in manifest.outputs]
    results = []
    for done, path in enumerate(paths):
        progress("reference", done, len(paths))
        picture = engine_core().read_picture(str(path))
        fitted, box = engine_core().letterbox(picture, manifest.input.width, manifest.input.height)
        feed = {manifest.input.name: input_tensor(fitted, manifest, artifact)}
        outputs = dict(zip(names, session.run(names, feed), strict=True))
        poses = decoder.decode(outputs)
        keypoints = poses.keypoints.copy()
        flat = np.ascontiguousarray(keypoints[..., :2].reshape(-1, 2))
        mapped = box.to_frame(flat).reshape((*keypoints.shape[:2], 2))
        present = keypoints[..., 2] > 0
        keypoints[present, :2] = mapped[present]
        results.append(Poses(poses.scores, keypoints))
    progress("reference", len(paths), len(paths))
    return results


def input_tensor(fitted: Any, manifest: Manifest, artifact: Artifact) -> Any:
    """BGR uint8 [H, W, 3] -> the artifact's own input tensor, batch of one."""
    tensor = fitted[..., ::-1] if manifest.input.channels == "RGB" else fitted
    if artifact.input.dtype == "float32":
        tensor = tensor.astype(np.float32)
        if artifact.input.mean is not None and artifact.input.std is not None:
            tensor = (tensor - np.array(artifact.input.mean, np.float32)) / np.array(
                artifact.input.std, np.float32
            )
    if artifact.input.layout == "NCHW":
        tensor = tensor.transpose(2, 0, 1)
    return np.ascontiguousarray(tensor[None])


def as_labels(reference: Sequence[Poses], skeleton: Skeleton) -> Labels:
    """The reference's poses as the truth; image ids are their positions.

    People below the score ``SURE`` are ignored as COCO ignores crowds: whether a compiled network
    finds them too counts neither for nor against it, because a rounding error decides.
    """
    annotations = []
    for image, one in enumerate(reference):
        for score, points in zip(one.scores, one.keypoints, strict=True):
            present = points[:, 2] > 0
            if not present.any():
                continue
            low, high = points[present, :2].min(axis=0), points[present, :2].max(axis=0)
            width, height = (float(side) for side in high - low)
            labelled = np.where(present[:, None], points, 0.0).astype(np.float64)
            labelled[:, 2] = 2.0 * present
            annotations.append(
                {
                    "image_id": image,
                    "category_id": 1,
                    "keypoints": labelled.ravel().tolist(),
                    "bbox": [float(low[0]), float(low[1]), width, height],
                    "area": max(width * height * _AREA, 1.0),
                    "iscrowd": int(score < SURE),
                }
            )
    data = {
        "images": [{"id": image, "file_name": str(image)} for image in range(len(reference))],
        "categories": [{"id": 1, "name": "person", "keypoints": list(skeleton.keypoints)}],
        "annotations": annotations,
    }
    return Labels("reference", skeleton, 1, data)


def disagreement(reference: Sequence[Poses], poses: Sequence[Poses], skeleton: Skeleton) -> float:
    """1 - OKS-AP of ``poses`` with ``reference`` as the truth, over the pictures of both.

    NaN where the reference finds nobody for sure: then nothing can be said.
    """
    labels = as_labels(reference, skeleton)
    if labels.people == 0:
        return math.nan
    return 1.0 - coco_ap(labels, dict(enumerate(poses)), skeleton).ap


class Gate:
    """The gate of one portable bundle; the reference is run once, for however many precisions."""

    def __init__(
        self,
        folder: Path,
        manifest: Manifest,
        recipe: Recipe,
        *,
        labels: Path | None,
        images: Path | None,
        progress: Progress,
    ) -> None:
        """Raises TargetError (USAGE) for labels without images or too few people, PosewireError
        (SOURCE) for what cannot be read."""
        self._folder, self._manifest, self._recipe = folder, manifest, recipe
        # A detector's boxes are judged as poses of two keypoints, a top-down network on crops.
        self._skeleton, self._progress = manifest.skeleton or BOX, progress
        if labels is not None and manifest.mode != "bottom_up":
            raise TargetError(
                f"{folder}: {manifest.mode} bundles are judged by agreement: give --images without "
                "--labels",
                ExitCode.USAGE,
            )
        self._labels: Labels | None = None
        if labels is not None:
            if images is None:
                raise TargetError("--labels needs --images, their pictures", ExitCode.USAGE)
            self._labels = load_labels(labels, manifest.skeleton)
            if self._labels.people < MIN_PEOPLE:
                raise TargetError(
                    f"{labels}: labels {self._labels.people} people, the AP gate needs "
                    f"{MIN_PEOPLE}; with --images alone the gate is agreement",
                    ExitCode.USAGE,
                )
            self._paths = self._labels.files(images)
        elif images is not None:
            self._paths = _pictures(images)
        else:
            self._paths = [folder / name for name in manifest.selftest]

    @property
    def pictures(self) -> list[Path]:
        """What it looks at; empty where neither the caller nor the bundle has any."""
        return list(self._paths)

    @cached_property
    def _reference(self) -> list[Poses]:
        return reference_poses(self._folder, self._manifest, self._paths, self._progress)

    def pending(self) -> Verdict:
        """No verdict yet: the limit that will hold, and the pictures that are there for it."""
        limit = self._recipe.max_disagreement if self._labels is None else self._recipe.max_ap_drop
        return Verdict("pending", 0.0, limit, len(self._paths))

    def judge(self, compiled: Path, precision: str) -> Verdict:
        """Runs the compiled bundle over the gate's pictures. Raises TargetError (NO) where the
        pictures say nothing."""
        total = len(self._paths)
        done = 0

        def more(pictures: int) -> None:
            nonlocal done
            done += pictures
            self._progress(f"gate {precision}", done, total)

        reference = self._reference
        poses = run_pictures(compiled, self._paths, more)
        if self._labels is None:
            value = disagreement(reference, poses, self._skeleton)
            if math.isnan(value):
                value = self._nobody(poses, precision)
            limit = self._recipe.max_disagreement
            labels = as_labels(reference, self._skeleton)
            drops = self._drops(labels, dict(enumerate(reference)), dict(enumerate(poses)))
            return Verdict("agreement", value, limit, total, drops)
        ids = [int(image["id"]) for image in self._labels.images]
        before, after = (dict(zip(ids, one, strict=True)) for one in (reference, poses))
        value = (
            coco_ap(self._labels, before, self._skeleton).ap
            - coco_ap(self._labels, after, self._skeleton).ap
        )
        drops = self._drops(self._labels, before, after)
        return Verdict("ap", value, self._recipe.max_ap_drop, total, drops)

    def _drops(
        self, labels: Labels, before: Mapping[int, Poses], after: Mapping[int, Poses]
    ) -> dict[str, float]:
        """By the bundle's names, whichever skeleton the labels have."""
        was = keypoint_similarity(labels, before, self._skeleton)
        now = keypoint_similarity(labels, after, self._skeleton)
        known = self._skeleton.keypoints
        return {name: round(was[name] - now[name], 4) + 0.0 for name in was if name in known}

    def _nobody(self, poses: Sequence[Poses], precision: str) -> float:
        """fp32 agrees when it finds nobody for sure either; no lower precision passes on that."""
        if precision == "fp32":
            return 0.0 if all((one.scores < SURE).all() for one in poses) else 1.0
        raise TargetError(
            f"{self._folder}: gate: the portable fp32 network finds nobody in "
            f"{len(self._paths)} pictures, so {precision} cannot be judged; give other pictures "
            "(--images) or labels (--labels)",
            ExitCode.NO,
        )


def _pictures(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise TargetError(f"{folder}: is not a folder", ExitCode.SOURCE)
    found = sorted(p for p in folder.iterdir() if p.suffix.lower() in _SUFFIXES and p.is_file())
    if not found:
        raise TargetError(f"{folder}: holds no pictures", ExitCode.SOURCE)
    return found
