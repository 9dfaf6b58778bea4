# SPDX-License-Identifier: Apache-2.0
"""How sure a difference in COCO AP is: a paired bootstrap over pictures.

Two networks' poses of the same pictures are scored on the same resamples of these pictures (drawn
with replacement, as many as there are), so that what is hard about a picture is hard for both and
cancels. The interval is the percentile interval of the differences (Efron & Tibshirani, "An
Introduction to the Bootstrap", 1993, chapter 13).

A picture's matches with its labels do not depend on the other pictures: pycocotools makes them
once, and a resample only counts them again, each picture as often as it was drawn.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .decode import Poses
from .errors import ExitCode, PosewireError
from .score import Labels, matched
from .skeleton import Skeleton

__all__ = ["Difference", "ap_difference"]

RESAMPLES = 1000
_TOGETHER = 64  # resamples in one array: some megabytes for thousands of poses


@dataclass(frozen=True)
class Difference:
    """AP of one network less AP of another, over the same pictures.

    value      of all pictures
    low, high  bounds of the interval that holds ``level`` of the resamples' differences
    resamples  that had a labelled person
    """

    value: float
    low: float
    high: float
    level: float
    resamples: int
    seed: int
    images: int


@dataclass(frozen=True)
class _Matches:
    """Poses of all pictures, best score first.

    picture  index of each pose's picture [D]
    right    whether it matches a label, per OKS threshold [T, D]
    wrong    whether it counts as a false one [T, D]; neither where it is ignored
    people   labelled people of each picture [I]
    recalls  where precision is read [R]
    """

    picture: NDArray[np.intp]
    right: NDArray[np.bool_]
    wrong: NDArray[np.bool_]
    people: NDArray[np.intp]
    recalls: NDArray[np.float64]

    def ap(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """COCO AP where picture i counts weights[b, i] times, [B]; NaN where nobody is labelled."""
        people = weights @ self.people
        counts = weights[:, self.picture]
        result = np.zeros(len(weights))
        for right, wrong in zip(self.right, self.wrong, strict=True):
            hits = np.cumsum(counts * right, axis=1)
            misses = np.cumsum(counts * wrong, axis=1)
            precision = hits / np.maximum(hits + misses, np.finfo(float).tiny)
            best = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
            for b, (reached, envelope) in enumerate(zip(hits, best, strict=True)):
                if people[b] > 0:
                    at = np.searchsorted(reached / people[b], self.recalls, side="left")
                    result[b] += envelope[at[at < len(envelope)]].sum()
        result /= len(self.recalls) * len(self.right)
        return np.where(people > 0, result, np.nan)


def _matches(evaluation: Any) -> _Matches:
    """From COCOeval's pictures, all sizes of people."""
    images = len(evaluation.params.imgIds)
    pictures = evaluation.evalImgs[:images]  # one category; the first area range is "all"
    thresholds = len(evaluation.params.iouThrs)
    people = np.zeros(images, np.intp)
    scores, picture, right, wrong = [], [], [], []
    for index, one in enumerate(pictures):
        if one is None:  # neither labels nor poses
            continue
        people[index] = int((np.asarray(one["gtIgnore"]) == 0).sum())
        scores.append(np.asarray(one["dtScores"], np.float64))
        match, ignored = np.asarray(one["dtMatches"]) > 0, np.asarray(one["dtIgnore"]) > 0
        shape = (thresholds, len(one["dtScores"]))
        right.append((match & ~ignored).reshape(shape))
        wrong.append((~match & ~ignored).reshape(shape))
        picture.append(np.full(len(one["dtScores"]), index, np.intp))
    if not scores:
        empty = np.zeros((thresholds, 0), bool)
        nowhere = np.zeros(0, np.intp)
        return _Matches(nowhere, empty, empty, people, evaluation.params.recThrs)
    order = np.argsort(-np.concatenate(scores), kind="mergesort")
    return _Matches(
        np.concatenate(picture)[order],
        np.concatenate(right, axis=1)[:, order],
        np.concatenate(wrong, axis=1)[:, order],
        people,
        np.asarray(evaluation.params.recThrs),
    )


def ap_difference(
    labels: Labels,
    poses: Mapping[int, Poses],
    against: Mapping[int, Poses],
    skeleton: Skeleton,
    *,
    resamples: int = RESAMPLES,
    seed: int = 1,
    level: float = 0.95,
) -> Difference:
    """AP of ``poses`` less AP of ``against`` (image id -> poses of ``skeleton``, frame pixels).

    Raises PosewireError (SOURCE) where no person is labelled.
    """
    one, other = (_matches(matched(labels, p, skeleton)) for p in (poses, against))
    images = len(one.people)
    if not one.people.any():
        raise PosewireError(f"{labels.path}: labels nobody: there is no AP", ExitCode.SOURCE)
    whole = np.ones((1, images))
    random = np.random.default_rng(seed)
    found: list[NDArray[np.float64]] = []
    for start in range(0, resamples, _TOGETHER):
        count = min(_TOGETHER, resamples - start)
        drawn = random.multinomial(images, np.full(images, 1 / images), size=count)
        weights = drawn.astype(np.float64)
        found.append(one.ap(weights) - other.ap(weights))
    differences = np.concatenate(found)
    differences = differences[~np.isnan(differences)]
    low, high = np.quantile(differences, [(1 - level) / 2, (1 + level) / 2])
    value = float(one.ap(whole)[0] - other.ap(whole)[0])
    return Difference(value, float(low), float(high), level, len(differences), seed, images)
