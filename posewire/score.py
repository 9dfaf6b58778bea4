# SPDX-License-Identifier: Apache-2.0
"""Runs a compiled bundle over pictures and scores its poses against COCO-format labels.

The networks and decoders run in C++ (posewire._core), the same code as on the device; the figures
are those of pycocotools' COCOeval. Every picture that the labels list counts, also those without
people and those where nobody was found.

Labels of another skeleton: predicted keypoints are converted to the labels' skeleton by meaning
(skeleton.convert_keypoints). Keypoints that the bundle cannot know (a head top from COCO's 17) are
left out of the comparison on both sides, and ``Score.keypoints`` says how many were compared.
"""

from __future__ import annotations

import contextlib
import copy
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from .decode import Poses
from .engine_core import core as engine_core
from .errors import ExitCode, PosewireError
from .skeleton import Skeleton, convert_keypoints, load_skeleton, mapping, skeleton_names

__all__ = [
    "Labels",
    "Score",
    "coco_ap",
    "keypoint_similarity",
    "load_labels",
    "pck",
    "run_pictures",
]

_CHUNK = 16  # pictures between two calls of `progress`
_MAX_PEOPLE = 20  # COCO's keypoint metric looks at the 20 best people of a picture


@dataclass(frozen=True)
class Labels:
    """COCO-format labels of one category of people.

    path      where they were read from, for messages
    skeleton  the labels' own
    category  its id
    data      the file's JSON, annotations of other categories left out
    """

    path: str
    skeleton: Skeleton
    category: int
    data: Mapping[str, Any]

    @property
    def images(self) -> list[dict[str, Any]]:
        """The labelled pictures, by id."""
        return sorted(self.data["images"], key=lambda image: int(image["id"]))

    @property
    def people(self) -> int:
        """Labelled people: not a crowd, and with at least one keypoint."""
        return sum(_counts(annotation) for annotation in self.data["annotations"])

    def only(self, ids: Literal["all", "even", "odd"]) -> Labels:
        """The pictures with such ids: a rule that holds some out of training, as its configuration
        says, names the held-out ones here. Raises PosewireError (SOURCE) when none is left."""
        if ids == "all":
            return self
        rest = ("even", "odd").index(ids)
        images = [image for image in self.data["images"] if int(image["id"]) % 2 == rest]
        if not images:
            raise _bad(self.path, f"images: none has an {ids} id")
        kept = [a for a in self.data["annotations"] if int(a["image_id"]) % 2 == rest]
        return replace(self, data={**self.data, "images": images, "annotations": kept})

    def files(self, folder: Path) -> list[Path]:
        """The pictures' files, by image id. Raises PosewireError (SOURCE) for the first missing."""
        if not folder.is_dir():
            raise PosewireError(f"{folder}: is not a folder", ExitCode.SOURCE)
        paths = [folder / str(image["file_name"]) for image in self.images]
        for path in paths:
            if not path.is_file():
                raise PosewireError(f"{path}: is missing; {self.path} lists it", ExitCode.SOURCE)
        return paths


@dataclass(frozen=True)
class Score:
    """COCO's keypoint figures (0..1) and what they were measured on.

    ap, ap50, ap75, ap_medium, ap_large, ar  as COCOeval defines them, -1 where no label counts
    images, people  labelled pictures, labelled people
    found           poses that the bundle reported
    keypoints       compared keypoints of a person, of the labels' K
    similarity      per keypoint name: mean of exp(-d^2 / (2 area (2 sigma)^2)) over the labelled
                    keypoints of people that were found with OKS >= 0.5
    """

    ap: float
    ap50: float
    ap75: float
    ap_medium: float
    ap_large: float
    ar: float
    images: int
    people: int
    found: int
    keypoints: int
    similarity: Mapping[str, float]


def _counts(annotation: Mapping[str, Any]) -> bool:
    return not annotation.get("iscrowd", 0) and any(annotation["keypoints"][2::3])


def _bad(path: str, what: str) -> PosewireError:
    return PosewireError(f"{path}: {what}", ExitCode.SOURCE)


def load_labels(path: Path, bundle_skeleton: Skeleton | None = None) -> Labels:
    """Reads COCO-format person keypoints. Raises PosewireError (SOURCE) naming file and key.

    The skeleton is the shipped one whose keypoint names the category lists, or the bundle's.
    """
    shown = str(path)
    try:
        data = json.loads(path.read_bytes())
    except OSError as error:
        raise _bad(shown, f"cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise _bad(shown, f"is not JSON: {error}") from error
    for key in ("images", "annotations", "categories"):
        if not isinstance(data, dict) or not isinstance(data.get(key), list):
            raise _bad(shown, f"{key}: must be a list (COCO's format)")
    try:
        category = next(c for c in data["categories"] if c.get("keypoints"))
        names = tuple(category["keypoints"])
        skeleton = _skeleton_of(names, bundle_skeleton)
        if skeleton is None:
            raise _bad(shown, f"categories: no known skeleton has the keypoints {', '.join(names)}")
        images = {int(image["id"]): str(image["file_name"]) for image in data["images"]}
        if not images:
            raise _bad(shown, "images: is empty")
        chosen = [a for a in data["annotations"] if a["category_id"] == category["id"]]
        for i, annotation in enumerate(chosen):
            _check_annotation(annotation, len(names), images, f"annotations[{i}]", shown)
    except StopIteration:
        raise _bad(shown, "categories: none has keypoints") from None
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _bad(shown, f"is not in COCO's format: {type(error).__name__} {error}") from error
    return Labels(shown, skeleton, int(category["id"]), {**data, "annotations": chosen})


def _check_annotation(
    annotation: Mapping[str, Any], count: int, images: Mapping[int, str], key: str, shown: str
) -> None:
    where = f"{key} (id {annotation.get('id')})"
    if annotation["image_id"] not in images:
        raise _bad(shown, f"{where}.image_id: {annotation['image_id']} is not among the images")
    if len(annotation["keypoints"]) != 3 * count:
        raise _bad(shown, f"{where}.keypoints: must have {3 * count} numbers")
    if not float(annotation["area"]) > 0.0 and _counts(annotation):
        raise _bad(shown, f"{where}.area: must be above 0")
    if len(annotation["bbox"]) != 4:
        raise _bad(shown, f"{where}.bbox: must have 4 numbers")


def _skeleton_of(names: Sequence[str], bundle: Skeleton | None) -> Skeleton | None:
    if bundle is not None and bundle.keypoints == names:
        return bundle
    known = (load_skeleton(name) for name in skeleton_names())
    return next((skeleton for skeleton in known if skeleton.keypoints == names), None)


def run_pictures(
    bundle_dir: str | Path,
    paths: Sequence[Path],
    progress: Callable[[int], None] | None = None,
    *,
    requests: int = 0,
    threads: int = 0,
) -> list[Poses]:
    """Poses of each picture in frame pixels, in order, by the compiled bundle's own runtime.

    ``progress(n)`` is called as n more pictures are done. Deterministic: the result does not depend
    on how many pictures are in flight. Raises PosewireError (SOURCE) for an unreadable picture.
    """
    results: list[Poses] = []
    estimator = engine_core().Estimator(str(bundle_dir), requests, threads)
    for start in range(0, len(paths), _CHUNK):
        chunk = [str(path) for path in paths[start : start + _CHUNK]]
        found = estimator.estimate_files(chunk)
        results += [Poses(np.asarray(scores), np.asarray(points)) for scores, points in found]
        if progress is not None:
            progress(len(chunk))
    return results


def coco_ap(labels: Labels, poses: Mapping[int, Poses], skeleton: Skeleton) -> Score:
    """COCO AP of ``poses`` (image id -> poses of ``skeleton``, frame pixels) against the labels.

    A labelled picture that ``poses`` lacks counts as one where nobody was found.
    """
    evaluation = matched(labels, poses, skeleton)
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation.accumulate()
        evaluation.summarize()
    ap, ap50, ap75, medium, large, ar = (float(value) for value in evaluation.stats[:6])
    return Score(
        ap=ap,
        ap50=ap50,
        ap75=ap75,
        ap_medium=medium,
        ap_large=large,
        ar=ar,
        images=len(labels.images),
        people=labels.people,
        found=sum(len(one.scores) for one in poses.values()),
        keypoints=sum(bool(rule) for rule in mapping(skeleton, labels.skeleton)),
        similarity=_similarity(evaluation, labels.skeleton),
    )


def matched(labels: Labels, poses: Mapping[int, Poses], skeleton: Skeleton) -> Any:
    """pycocotools' COCOeval after evaluate(): poses matched with the labels picture by picture,
    in the order of the pictures' ids, nothing added up yet."""
    compared = [bool(rule) for rule in mapping(skeleton, labels.skeleton)]
    truth = _coco(_masked(labels, compared))
    found = _coco({**truth.dataset, "annotations": _detections(labels, poses, skeleton)})
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = import_module("pycocotools.cocoeval").COCOeval(truth, found, "keypoints")
        evaluation.params.kpt_oks_sigmas = np.array(labels.skeleton.sigmas)
        evaluation.params.imgIds = sorted(int(image["id"]) for image in labels.images)
        evaluation.params.catIds = [labels.category]
        evaluation.params.maxDets = [_MAX_PEOPLE]
        evaluation.evaluate()
    return evaluation


def _coco(data: Mapping[str, Any]) -> Any:
    with contextlib.redirect_stdout(io.StringIO()):
        coco = import_module("pycocotools.coco").COCO()
        coco.dataset = dict(data)
        coco.createIndex()
    return coco


def _masked(labels: Labels, compared: Sequence[bool]) -> dict[str, Any]:
    """The labels, with keypoints that are not compared unlabelled, and COCO's counts filled in."""
    annotations = []
    for index, annotation in enumerate(labels.data["annotations"]):
        points = np.array(annotation["keypoints"], np.float64).reshape(-1, 3)
        points[~np.array(compared)] = 0.0
        changed = {**annotation, "id": index + 1, "iscrowd": int(annotation.get("iscrowd", 0))}
        changed["keypoints"] = points.ravel().tolist()
        changed["num_keypoints"] = int((points[:, 2] > 0).sum())
        annotations.append(changed)
    return {
        "images": copy.deepcopy(list(labels.data["images"])),
        "categories": list(labels.data["categories"]),
        "annotations": annotations,
    }


def _detections(
    labels: Labels, poses: Mapping[int, Poses], skeleton: Skeleton
) -> list[dict[str, Any]]:
    detections: list[dict[str, Any]] = []
    for image in sorted(poses):
        one = poses[image]
        converted = convert_keypoints(one.keypoints, skeleton, labels.skeleton)
        for score, points in zip(one.scores, converted, strict=True):
            box = _extent(points)
            detections.append(
                {
                    "id": len(detections) + 1,
                    "image_id": image,
                    "category_id": labels.category,
                    "keypoints": points.astype(np.float64).ravel().tolist(),
                    "num_keypoints": int((points[:, 2] > 0).sum()),
                    "score": float(score),
                    "bbox": box,
                    "area": box[2] * box[3],
                    "iscrowd": 0,
                }
            )
    return detections


def _extent(points: NDArray[np.float32]) -> list[float]:
    """[left, top, width, height] of the present keypoints."""
    present = points[points[:, 2] > 0, :2].astype(np.float64)
    if len(present) == 0:
        return [0.0, 0.0, 0.0, 0.0]
    low, high = present.min(axis=0), present.max(axis=0)
    return [float(low[0]), float(low[1]), *(float(side) for side in high - low)]


def _similarity(evaluation: Any, skeleton: Skeleton) -> dict[str, float]:
    truth, found = evaluation.cocoGt, evaluation.cocoDt
    total, count = np.zeros(skeleton.count), np.zeros(skeleton.count)
    variances = (2.0 * np.array(skeleton.sigmas)) ** 2
    whole = evaluation.params.areaRng[0]
    for picture in evaluation.evalImgs:
        if picture is None or picture["aRng"] != whole:
            continue
        matches = zip(picture["gtIds"], picture["gtMatches"][0], picture["gtIgnore"], strict=True)
        for person, match, ignored in matches:
            if ignored or match <= 0:
                continue
            label, pose = truth.anns[int(person)], found.anns[int(match)]
            wanted = np.array(label["keypoints"]).reshape(-1, 3)
            given = np.array(pose["keypoints"]).reshape(-1, 3)
            squared = ((wanted[:, :2] - given[:, :2]) ** 2).sum(axis=1)
            value = np.exp(-squared / (2.0 * float(label["area"]) * variances))
            labelled = wanted[:, 2] > 0
            total[labelled] += value[labelled]
            count[labelled] += 1
    return {
        name: float(total[k] / count[k])
        for k, name in enumerate(skeleton.keypoints)
        if count[k] > 0
    }


def pck(
    labels: Labels, poses: Mapping[int, Poses], skeleton: Skeleton, threshold: float = 0.2
) -> float:
    """PCK@``threshold``: the share of labelled keypoints found within ``threshold`` torsos.

    The torso is the distance from left shoulder to right hip (or right to left, where only that is
    labelled); people without either are left out. Each labelled person is compared with the pose of
    the picture that has the highest OKS with it; a person without any pose, and a keypoint that the
    pose lacks, count as not found. -1 where no label counts.
    """
    known = {name: k for k, name in enumerate(labels.skeleton.keypoints)}
    diagonals = [
        (known[f"{one}_shoulder"], known[f"{other}_hip"])
        for one, other in (("left", "right"), ("right", "left"))
        if f"{one}_shoulder" in known and f"{other}_hip" in known
    ]
    compared = np.array([bool(rule) for rule in mapping(skeleton, labels.skeleton)])
    variances = (2.0 * np.array(labels.skeleton.sigmas)) ** 2
    right = wrong = 0
    for annotation in labels.data["annotations"]:
        wanted = np.array(annotation["keypoints"], np.float64).reshape(-1, 3)
        labelled = (wanted[:, 2] > 0) & compared
        torsos = [
            float(np.hypot(*(wanted[a, :2] - wanted[b, :2])))
            for a, b in diagonals
            if wanted[a, 2] > 0 and wanted[b, 2] > 0
        ]
        if annotation.get("iscrowd", 0) or not torsos or torsos[0] <= 0.0 or not labelled.any():
            continue
        one = poses.get(int(annotation["image_id"]))
        near = np.zeros(len(wanted), bool)
        if one is not None and len(one.scores):
            given = convert_keypoints(one.keypoints, skeleton, labels.skeleton).astype(np.float64)
            squared = ((given[..., :2] - wanted[:, :2]) ** 2).sum(axis=2)
            oks = np.exp(-squared / (2.0 * float(annotation["area"]) * variances))
            best = int(oks[:, labelled].mean(axis=1).argmax())
            near = (given[best, :, 2] > 0) & (squared[best] <= (threshold * torsos[0]) ** 2)
        right += int((near & labelled).sum())
        wrong += int((~near & labelled).sum())
    return right / (right + wrong) if right + wrong else -1.0


def keypoint_similarity(
    labels: Labels, poses: Mapping[int, Poses], skeleton: Skeleton
) -> dict[str, float]:
    """Per keypoint name: its OKS term exp(-d^2 / (2 area (2 sigma)^2)) averaged over all the
    labelled people who have it, 0..1.

    Unlike ``Score.similarity`` a person that is not found counts, with 0: each labelled person is
    compared with the pose of the picture that has the highest OKS with it, and a keypoint that the
    pose lacks is 0. Keypoints that nobody has, or that the bundle cannot know, are left out.
    """
    compared = np.array([bool(rule) for rule in mapping(skeleton, labels.skeleton)])
    variances = (2.0 * np.array(labels.skeleton.sigmas)) ** 2
    total, count = np.zeros(labels.skeleton.count), np.zeros(labels.skeleton.count)
    for annotation in labels.data["annotations"]:
        wanted = np.array(annotation["keypoints"], np.float64).reshape(-1, 3)
        labelled = (wanted[:, 2] > 0) & compared
        if annotation.get("iscrowd", 0) or not labelled.any():
            continue
        count[labelled] += 1
        one = poses.get(int(annotation["image_id"]))
        if one is None or len(one.scores) == 0:
            continue
        given = convert_keypoints(one.keypoints, skeleton, labels.skeleton).astype(np.float64)
        squared = ((given[..., :2] - wanted[:, :2]) ** 2).sum(axis=2)
        terms = np.exp(-squared / (2.0 * float(annotation["area"]) * variances))
        terms = np.where(given[..., 2] > 0, terms, 0.0)
        best = int(terms[:, labelled].mean(axis=1).argmax())
        total[labelled] += terms[best, labelled]
    names = enumerate(labels.skeleton.keypoints)
    return {name: float(total[k] / count[k]) for k, name in names if count[k] > 0}
