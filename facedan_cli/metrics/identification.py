"""Identification, closed set (ranks, CMC, rank-1 rate) and open set (DIR at FPIR), ties counted against the mate."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from facedan_cli.metrics.roc import far_budget, parse_far

Array = NDArray[Any]

_BLOCK = 1 << 22
"""Number of scores in a block; its temporary arrays stay below 100 MB."""


@dataclass(frozen=True)
class OpenSetPoint:
    """Open-set identification at a false-positive identification rate (ISO/IEC 19795-1).

    Attributes:
        fpir: the rate as it was asked for.
        dir: detection and identification rate at rank 1, also called TPIR: the share of mated probes whose best mate
            beats every gallery entry of other subjects and scores above the threshold.
        achieved_fpir: the share of non-mated probes with any candidate above the threshold, at most `fpir`.
        threshold: scores strictly above it are candidates; -inf where the budget covers every non-mated probe.
        false_positives: non-mated probes with any candidate above the threshold, at most `budget`.
        budget: the false positives that `fpir` allows, floor(fpir · non-mated probes) in whole numbers.
        mated: number of probes whose subject is in the gallery.
        non_mated: number of probes whose subject is not.
    """

    fpir: str
    dir: float
    achieved_fpir: float
    threshold: float
    false_positives: int
    budget: int
    mated: int
    non_mated: int

    @property
    def resolved(self) -> bool:
        """Whether there are enough non-mated probes for this FPIR to allow one false positive."""
        return self.budget > 0


class McNemar(NamedTuple):
    """Numbers of probes that only one of two models identifies, and the two-sided p-value of equal models."""

    only_a: int
    only_b: int
    p: float


def ranks(scores: ArrayLike, probe_labels: ArrayLike, gallery_labels: ArrayLike) -> Array:
    """The rank of each probe's best mate among the gallery entries of other subjects.

    The rank is one more than the number of gallery entries of other subjects that score as high as the best mate or
    higher. A tie counts against the mate, so that constant scores never look like recognition. Further mates of the
    probe do not take up ranks; several entries of one other subject do.

    Args:
        scores: similarity of each probe to each gallery entry, shape (p, g).
        probe_labels: subjects of the probes, shape (p,).
        gallery_labels: subjects of the gallery entries, shape (g,).

    Returns:
        Integers, shape (p,): from 1 up, or 0 for a probe that has no mate in the gallery (not a rank: leave it out).

    Raises:
        ValueError: the shapes do not belong together, or a score is NaN.

    Examples:
        The second probe's mate ties with another subject; the third probe has no mate.

        >>> scores = [[0.9, 0.2, 0.1], [0.3, 0.7, 0.7], [0.4, 0.5, 0.6]]
        >>> ranks(scores, ["ann", "bob", "eve"], ["ann", "bob", "cat"])
        array([1, 2, 0])
    """
    found = [np.where(mated, rivals + 1, 0) for mated, _, rivals, _ in _search(scores, probe_labels, gallery_labels)]
    return np.concatenate([np.zeros(0, np.int64), *found])


def cmc(ranks: ArrayLike, max_rank: int) -> Array:
    """The cumulative match characteristic: entry r-1 is the share of probes whose mate is at rank r or better.

    Args:
        ranks: ranks from 1 up, shape (p,), of probes that have a mate.
        max_rank: the last rank, at least 1.

    Returns:
        Shares, shape (max_rank,), rising.

    Raises:
        ValueError: there are no ranks, or one is below 1.

    Examples:
        >>> cmc([1, 3, 1, 2], max_rank=3)
        array([0.5 , 0.75, 1.  ])
    """
    counted = _checked(ranks)
    hits = np.bincount(counted[counted <= max_rank], minlength=max_rank + 1)[1:]
    return np.cumsum(hits) / counted.size


def rank_1(ranks: ArrayLike) -> float:
    """The share of probes whose mate scores higher than all gallery entries of other subjects.

    Args:
        ranks: ranks from 1 up, shape (p,), of probes that have a mate.

    Raises:
        ValueError: there are no ranks, or one is below 1.
    """
    return float(np.mean(_checked(ranks) == 1))


def open_set(
    scores: ArrayLike, probe_labels: ArrayLike, gallery_labels: ArrayLike, fpirs: Sequence[str]
) -> dict[str, OpenSetPoint]:
    """Detection and identification rates at false-positive identification rates.

    The threshold is the (k+1)-th largest of the non-mated probes' best scores, k being the budget, as `metrics.roc` has
    it for verification.

    Args:
        scores: similarity of each probe to each gallery entry, shape (p, g).
        probe_labels: subjects of the probes, shape (p,).
        gallery_labels: subjects of the gallery entries, shape (g,).
        fpirs: false-positive identification rates as decimal strings.

    Raises:
        ValueError: the shapes do not belong together, a score is NaN, or there are no mated or no non-mated probes.
        UsageError: one of `fpirs` is not a rate.

    Examples:
        >>> scores = [[0.9, 0.2], [0.3, 0.6], [0.4, 0.5], [0.7, 0.1]]
        >>> point = open_set(scores, ["ann", "bob", "cat", "dan"], ["ann", "bob"], ["0.5"])["0.5"]
        >>> point.dir, point.threshold, point.false_positives
        (1.0, 0.5, 1)
    """
    blocks = list(_search(scores, probe_labels, gallery_labels))
    if not blocks:
        raise ValueError("there are no probes")
    mated, best_mate, rivals, best = (np.concatenate(parts) for parts in zip(*blocks, strict=True))
    if mated.all() or not mated.any():
        raise ValueError("open-set identification needs probes with a mate in the gallery and probes without")
    found, alarms = best_mate[mated & (rivals == 0)], np.sort(best[~mated])[::-1]
    points = {}
    for fpir in fpirs:
        budget = far_budget(parse_far(fpir), alarms.size)
        threshold = alarms[budget] if budget < alarms.size else -np.inf
        false_positives = int(np.count_nonzero(alarms > threshold))
        points[fpir] = OpenSetPoint(
            fpir=fpir,
            dir=int(np.count_nonzero(found > threshold)) / int(mated.sum()),
            achieved_fpir=false_positives / alarms.size,
            threshold=float(threshold),
            false_positives=false_positives,
            budget=budget,
            mated=int(mated.sum()),
            non_mated=alarms.size,
        )
    return points


def mcnemar(correct_a: ArrayLike, correct_b: ArrayLike) -> McNemar:
    """McNemar's exact test of two models on the same probes, which counts the probes where they disagree.

    Args:
        correct_a: whether the first model identifies each probe, shape (p,).
        correct_b: whether the second does, shape (p,).

    Returns:
        The counts and the two-sided p-value of the binomial test, 1 where they never disagree. The test takes the
        probes to be independent.

    Raises:
        ValueError: the shapes differ.

    Examples:
        >>> mcnemar([True] * 8 + [False] * 2, [False] * 7 + [True] * 3)
        McNemar(only_a=7, only_b=2, p=0.1796875)
    """
    from scipy.stats import binomtest

    a, b = np.asarray(correct_a, bool), np.asarray(correct_b, bool)
    if a.shape != b.shape:
        raise ValueError(f"the models judge different probes: shapes {a.shape} and {b.shape}")
    only_a, only_b = int(np.count_nonzero(a & ~b)), int(np.count_nonzero(b & ~a))
    if only_a == only_b:  # also where they never disagree
        return McNemar(only_a, only_b, 1.0)
    return McNemar(only_a, only_b, float(binomtest(only_a, only_a + only_b).pvalue))


def _search(
    scores: ArrayLike, probe_labels: ArrayLike, gallery_labels: ArrayLike
) -> Iterator[tuple[Array, Array, Array, Array]]:
    """Yield for each block of probes: whether it has a mate, its best mate's score, rivals not below that, best score.

    The labels are compared block by block, so that the memory does not grow with the number of probes.
    """
    scores, probe, gallery = np.asarray(scores), np.asarray(probe_labels), np.asarray(gallery_labels)
    if scores.shape != (probe.size, gallery.size):
        raise ValueError(f"scores have shape {scores.shape}, labels ask for {(probe.size, gallery.size)}")
    step = max(1, _BLOCK // max(1, gallery.size))
    for start in range(0, probe.size, step):
        part = scores[start : start + step]
        part = part.astype(np.result_type(part, np.float32), copy=False)  # -inf is no integer
        if np.isnan(part).any():
            raise ValueError("scores contain NaN")
        mates = probe[start : start + step, None] == gallery[None, :]  # (b, g)
        best_mate = np.where(mates, part, -np.inf).max(axis=1, initial=-np.inf)  # (b,)
        rivals = np.count_nonzero(~mates & (part >= best_mate[:, None]), axis=1)
        yield mates.any(axis=1), best_mate, rivals, part.max(axis=1, initial=-np.inf)


def _checked(ranks: ArrayLike) -> Array:
    array = np.asarray(ranks)
    if array.size == 0 or array.min() < 1:
        raise ValueError("ranks must be one or more numbers from 1 up; leave out probes that have no mate (rank 0)")
    return array
