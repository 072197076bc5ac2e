"""Confidence intervals from bootstrap replicates, valid near 0 and 1 and with few subjects, and binomial ones.

The middle 95 % of the replicates (the percentile interval) covers too seldom there: a model that fails on one of many
subjects fails on none in a third of the draws, and where it fails on none all draws agree. So the replicates only tell
how many independent trials the comparisons are worth, n = p(1 − p) / variance, and the interval is the exact binomial
one of that many trials, as Korn and Graubard have it (1998, "Confidence Intervals for Proportions With Small Expected
Number of Positive Counts Estimated From Survey Data"), save that n is not lowered for the number of subjects.
`benchmarks/intervals.py` measures how often it and others cover; docs/evaluation.md has the values.
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import betaincinv, stdtrit

Array = NDArray[Any]
Interval = tuple[float, float]


def rate_interval(rate: float, replicates: ArrayLike, *, subjects: int, trials: int, level: float = 0.95) -> Interval:
    """The exact binomial interval for the effective number of independent trials of the replicates.

    Args:
        rate: the rate itself, not a replicate.
        replicates: its bootstrap replicates, shape (replicates,); NaN ones are left out.
        subjects: number of subjects whose comparisons the rate counts. Each counts as one trial if all replicates
            agree or the rate is 0 or 1, when the dependence of one subject's comparisons is unknown.
        trials: number of comparisons that the rate counts, the largest effective number.
        level: confidence level.

    Raises:
        ValueError: every replicate is NaN.

    Examples:
        Ten subjects with 100 comparisons: the replicates scatter as much as 24 independent comparisons would.

        >>> low, high = rate_interval(0.6, [0.5, 0.7], subjects=10, trials=100)
        >>> round(low, 3), round(high, 3)
        (0.382, 0.792)
    """
    size = effective_size(rate, replicates, subjects=subjects, trials=trials)
    return binomial_interval(rate * size, size, level)


def effective_size(rate: float, replicates: ArrayLike, *, subjects: int, trials: int) -> float:
    """The number of independent trials with the variance of the replicates; arguments as in `rate_interval`."""
    variance = float(_defined(replicates).var())
    spread = rate * (1 - rate)
    if variance <= 0 or spread <= 0:
        return float(min(subjects, trials))
    return min(max(spread / variance, 1.0), float(trials))


def binomial_interval(successes: float, total: float, level: float = 0.95) -> Interval:
    """The interval of Clopper and Pearson (1934), also for fractional numbers of trials."""
    tail, failures = (1 - level) / 2, total - successes
    low = float(betaincinv(successes, failures + 1, tail)) if successes > 0 else 0.0
    high = float(betaincinv(successes + 1, failures, 1 - tail)) if failures > 0 else 1.0
    return low, high


def difference_interval(
    difference: float, replicates_a: ArrayLike, replicates_b: ArrayLike, *, subjects: int, level: float = 0.95
) -> Interval:
    """The interval of the difference a − b of two models' rates, from replicates with the same subjects.

    A draw that is hard for one model is hard for both, and cancels in the difference. So this interval is narrower than
    those of the two rates suggest; the models differ where it excludes 0. It is the difference plus and minus the
    replicates' standard deviation times Student's t.

    Args:
        difference: difference of the rates themselves.
        replicates_a: a row of `vr_replicates`, or `rank1_replicates`, of one model, shape (replicates,).
        replicates_b: row of the other model, on the same comparisons with the same seed, shape (replicates,).
        subjects: number of subjects whose comparisons the rates count. Where all replicates agree, the margin is the
            upper bound of the binomial interval of none among them: the models differ on no subject that was drawn.
        level: confidence level.

    Raises:
        ValueError: the shapes differ, or no replicate is defined for both.
    """
    a, b = np.asarray(replicates_a, np.float64), np.asarray(replicates_b, np.float64)
    if a.shape != b.shape:
        raise ValueError(f"replicates of shapes {a.shape} and {b.shape} are not paired")
    deviation = float(_defined(a - b).std())
    margin = float(stdtrit(max(subjects - 1, 1), (1 + level) / 2)) * deviation
    if deviation == 0:
        margin = binomial_interval(0, subjects, level)[1]
    return max(-1.0, difference - margin), min(1.0, difference + margin)


def wilson(successes: int, total: int, level: float = 0.95) -> Interval:
    """The score interval of a binomial proportion (Wilson 1927).

    It takes the comparisons to be independent. Those of one subject are not, so on face protocols it is too narrow.

    Args:
        successes: genuine comparisons accepted, or probes identified.
        total: genuine comparisons, or probes.
        level: confidence level.

    Raises:
        ValueError: `total` is not positive, or `successes` is not between 0 and `total`.
    """
    if not 0 <= successes <= total or total == 0:
        raise ValueError(f"{successes} of {total} is not a proportion")
    z = NormalDist().inv_cdf((1 + level) / 2)
    share = successes / total
    centre = share + z * z / (2 * total)
    margin = z * math.sqrt(share * (1 - share) / total + (z / (2 * total)) ** 2)
    scale = 1 + z * z / total
    # The bounds of 0 of n and of n of n are exactly 0 and 1; rounding must not move them past.
    low = 0.0 if successes == 0 else (centre - margin) / scale
    high = 1.0 if successes == total else (centre + margin) / scale
    return low, high


def _defined(replicates: ArrayLike) -> Array:
    array = np.asarray(replicates, np.float64)
    defined = array[~np.isnan(array)]
    if defined.size == 0:
        raise ValueError("no replicate has both genuine and impostor comparisons: there are too few subjects")
    return defined
