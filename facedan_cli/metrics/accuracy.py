"""Verification accuracy over folds, the value of LFW's View 2 (Huang et al. 2007, section 4)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from facedan_cli.metrics.roc import as_scores

Array = NDArray[Any]


@dataclass(frozen=True)
class FoldAccuracy:
    """The share of pairs that are classified rightly, with thresholds chosen on other folds.

    Attributes:
        mean: the mean accuracy of the folds.
        standard_error: the standard deviation of the folds' accuracies (n − 1) over the root of their number.
        folds: the accuracy of each fold, in the order of their labels, shape (f,).
        thresholds: scores strictly above a fold's threshold are taken as one subject, shape (f,).
    """

    mean: float
    standard_error: float
    folds: Array
    thresholds: Array


def fold_accuracy(scores: ArrayLike, same: ArrayLike, folds: ArrayLike) -> FoldAccuracy:
    """The accuracy of each fold with the threshold that is best on the other folds.

    The threshold lies halfway between two neighbouring scores of the other folds. Where several are equally good, it is
    the middle one of them.

    Args:
        scores: scores of the pairs, higher is more alike, shape (n,).
        same: whether each pair shows one subject, shape (n,).
        folds: the fold of each pair, labels of any kind, shape (n,).

    Raises:
        ValueError: the shapes differ, a score is NaN, or there are fewer than two folds.
    """
    scores, same, fold = as_scores(scores, "pair").astype(np.float64), np.asarray(same, bool), np.asarray(folds)
    if not scores.shape == same.shape == fold.shape:
        raise ValueError(f"scores, labels and folds differ in shape: {scores.shape}, {same.shape}, {fold.shape}")
    labels = np.unique(fold)
    if labels.size < 2:
        raise ValueError("at least two folds are needed: a threshold is chosen on the folds that it does not judge")
    thresholds = np.array([best_threshold(scores[fold != label], same[fold != label]) for label in labels])
    accuracies = np.array(
        [
            np.mean((scores[fold == label] > threshold) == same[fold == label])
            for label, threshold in zip(labels, thresholds, strict=True)
        ]
    )
    return _over_folds(accuracies, thresholds)


def with_failed_pairs(found: FoldAccuracy, folds: ArrayLike, failed: ArrayLike) -> FoldAccuracy:
    """The accuracy with pairs that could not be compared counted as errors.

    The thresholds stay those of the pairs that were compared. A fold of which no pair was compared has accuracy 0 and
    no threshold (NaN).

    Args:
        found: the accuracy of the pairs that were compared.
        folds: the fold of each of these, shape (n,).
        failed: the fold of each pair that could not be compared, shape (f,).
    """
    fold, lost = np.asarray(folds), np.asarray(failed)
    labels = np.unique(fold)
    every = np.unique(np.concatenate([fold, lost.astype(fold.dtype)]))
    places = np.searchsorted(every, labels)
    told, thresholds = np.zeros(every.size), np.full(every.size, np.nan)
    made = np.array([np.count_nonzero(fold == label) for label in every])
    told[places], thresholds[places] = found.folds * made[places], found.thresholds
    return _over_folds(told / (made + [np.count_nonzero(lost == label) for label in every]), thresholds)


def _over_folds(accuracies: Array, thresholds: Array) -> FoldAccuracy:
    error = float(accuracies.std(ddof=1)) / math.sqrt(accuracies.size)
    return FoldAccuracy(float(accuracies.mean()), error, accuracies, thresholds)


def best_threshold(scores: Array, same: Array) -> float:
    """The threshold that classifies most pairs rightly, as in `fold_accuracy`; -inf accepts every finite score."""
    values = np.unique(np.append(scores, -np.inf))
    genuine, impostor = np.sort(scores[same]), np.sort(scores[~same])
    rejected = np.searchsorted(impostor, values, side="right")
    accepted = genuine.size - np.searchsorted(genuine, values, side="right")
    best = np.flatnonzero(rejected + accepted == (rejected + accepted).max())
    place = best[best.size // 2]
    low, high = values[place], values[min(place + 1, values.size - 1)]
    middle = low / 2 + high / 2 if np.isfinite(low) and np.isfinite(high) else low
    # Between neighbours of the last bit there is no number halfway: the lower one separates them as well.
    return float(middle if middle < high else low)
