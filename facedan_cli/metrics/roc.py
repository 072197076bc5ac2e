"""Verification rate at a fixed false-accept rate, the ROC curve and the equal error rate, by exact counting.

The convention is `max-tar` unless another is asked for: the verification rate at a FAR f over N impostor comparisons is
the largest true-accept rate of any threshold with at most floor(f·N) false accepts. That is to accept the scores
strictly above the (k+1)-th largest impostor score, k = floor(f·N). Tied scores never push the achieved FAR above the
one that was asked for. The conventions of other tools are in `metrics.conventions`.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from facedan_cli.errors import UsageError
from facedan_cli.metrics.conventions import Accepted, bob, nearest, openbr

Array = NDArray[Any]

# Bounded, because an exponent of a few more digits would be a number that fills the memory.
_DECIMAL = re.compile(r"(\d{1,3}\.?\d{0,30}|\.\d{1,30})(e[+-]?\d{1,2})?", re.ASCII | re.IGNORECASE)
_EXACT_BUDGETS = 100
_LOG_BUDGETS = 320


@dataclass(frozen=True)
class OperatingPoint:
    """The operating point at a false-accept rate, on one set of scores.

    Attributes:
        far: the requested false-accept rate.
        vr: verification rate, the share of genuine scores that are accepted.
        achieved_far: share of accepted impostor scores; above `far` only with the conventions openbr and nearest.
        threshold: scores strictly above it are accepted, with other conventions also scores equal to it; -inf if the
            budget covers every impostor.
        false_accepts: number of accepted impostor scores.
        budget: k, the number of false accepts that `far` allows.
        genuine: number of genuine comparisons.
        impostor: number of impostor comparisons.
        convention: rule by which the threshold was chosen.
    """

    far: str
    vr: float
    achieved_far: float
    threshold: float
    false_accepts: int
    budget: int
    genuine: int
    impostor: int
    convention: str = "max-tar"

    @property
    def resolved(self) -> bool:
        """Whether there are enough impostors for this FAR to allow one false accept."""
        return self.budget > 0


@dataclass(frozen=True)
class Curve:
    """Points of a ROC curve in the order of rising FAR, each of them exact.

    Attributes:
        far: achieved false-accept rates, strictly rising from 0 to 1, shape (p,).
        vr: verification rates, shape (p,).
        threshold: scores strictly above it are accepted, shape (p,); the last is -inf.
        genuine: number of genuine comparisons.
        impostor: number of impostor comparisons; the curve says nothing about a FAR below its inverse.
    """

    far: Array
    vr: Array
    threshold: Array
    genuine: int
    impostor: int


class EqualErrorRate(NamedTuple):
    """The interval in which false-accept and false-reject rate cross, and its midpoint."""

    low: float
    high: float
    mid: float


def parse_far(text: str) -> Fraction:
    """The exact value of a false-accept rate: "0.001" and "1e-3" are 1/1000, unlike binary floats.

    Raises:
        UsageError: the text is not a decimal number in (0, 1].
    """
    far = Fraction(text) if _DECIMAL.fullmatch(text) else Fraction(0)
    if not 0 < far <= 1:
        raise UsageError(
            f"'{text}' is not a false-accept rate", "Give a decimal number above 0 and up to 1, such as 0.001."
        )
    return far


def verification_rate(
    genuine: ArrayLike, impostor: ArrayLike, far: str, *, convention: str = "max-tar"
) -> OperatingPoint:
    """The verification rate (TAR) at a false-accept rate.

    Args:
        genuine: scores of genuine comparisons, higher is more alike, shape (g,).
        impostor: scores of impostor comparisons, shape (n,).
        far: the false-accept rate as a decimal string.
        convention: rule for the threshold. "max-tar": scores strictly above the (k+1)-th largest impostor score
            are accepted, as this module has it. "bob": those at or above the lowest impostor score that keeps the FAR.
            "openbr": the rate is interpolated between two operating points. "nearest": InsightFace's, the point of the
            ROC curve whose FAR is nearest, which may exceed the one asked for. `metrics.conventions` defines them.

    Raises:
        ValueError: there is no genuine or no impostor score, a score is NaN, or there is no such convention.
        UsageError: `far` is not a false-accept rate.

    Example:
        At FAR 0.2 one of five impostors may be accepted: the threshold is the second largest impostor score.

        >>> point = verification_rate([0.9, 0.8, 0.4, 0.3], [0.5, 0.35, 0.2, 0.1, 0.0], "0.2")
        >>> point.vr, point.threshold, point.false_accepts
        (0.75, 0.35, 1)
        >>> verification_rate([0.9, 0.8, 0.4, 0.3], [0.5, 0.35, 0.2, 0.1, 0.0], "0.1").resolved
        False
    """
    genuine, impostor = as_scores(genuine, "genuine"), as_scores(impostor, "impostor")
    if convention not in _CONVENTIONS:
        raise ValueError(f"'{convention}' is none of the conventions {', '.join(_CONVENTIONS)}")
    exact = parse_far(far)
    accepted = _CONVENTIONS[convention](genuine, impostor, exact)
    return OperatingPoint(
        far=far,
        vr=accepted.vr,
        achieved_far=accepted.false_accepts / impostor.size,
        threshold=accepted.threshold,
        false_accepts=accepted.false_accepts,
        budget=far_budget(exact, impostor.size),
        genuine=genuine.size,
        impostor=impostor.size,
        convention=convention,
    )


def max_tar(genuine: Array, impostor: Array, far: Fraction) -> Accepted:
    """The rule of this module, max-tar; `metrics.conventions` has those of other tools."""
    budget = far_budget(far, impostor.size)
    threshold = -np.inf
    if budget < impostor.size:
        place = impostor.size - 1 - budget
        # Kept as an element, not a Python float: NumPy then compares scores of two precisions in the wider one.
        threshold = np.partition(impostor, place)[place]
    vr = int(np.count_nonzero(genuine > threshold)) / genuine.size
    return Accepted(vr, float(threshold), int(np.count_nonzero(impostor > threshold)))


_CONVENTIONS = {"max-tar": max_tar, "bob": bob, "openbr": openbr, "nearest": nearest}


def roc_curve(genuine: ArrayLike, impostor: ArrayLike) -> Curve:
    """The ROC curve, thinned for a logarithmic FAR axis to at most about 450 points.

    The points are those of `verification_rate` for every budget below 100 false accepts, for budgets at even steps of
    the logarithm beyond, and for the powers of ten of the FAR. From one point to the next the curve is a step: it keeps
    the VR of the left one.

    Args:
        genuine: scores of genuine comparisons, shape (g,).
        impostor: scores of impostor comparisons, shape (n,).

    Raises:
        ValueError: there is no genuine or no impostor score, or a score is NaN.
    """
    genuine, impostor = np.sort(as_scores(genuine, "genuine")), np.sort(as_scores(impostor, "impostor"))
    count = impostor.size
    budgets = curve_budgets(count)
    # Tied impostors turn several budgets into one threshold; [::-1] restores the order of rising FAR.
    thresholds = np.unique(np.append(impostor[count - 1 - budgets], -np.inf))[::-1]
    false_accepts = count - np.searchsorted(impostor, thresholds, side="right")
    true_accepts = genuine.size - np.searchsorted(genuine, thresholds, side="right")
    return Curve(
        far=false_accepts / count,
        vr=true_accepts / genuine.size,
        threshold=thresholds,
        genuine=genuine.size,
        impostor=count,
    )


def equal_error_rate(genuine: ArrayLike, impostor: ArrayLike, *, failed: int = 0) -> EqualErrorRate:
    """The equal error rate as the interval of the Fingerprint Verification Competition (Maio et al. 2002, section 3).

    The two error rates are steps and may cross without meeting. Of the last threshold with FRR ≤ FAR and the first with
    FRR ≥ FAR, the one with the smaller sum of errors gives the interval.

    Args:
        genuine: scores of genuine comparisons, shape (g,).
        impostor: scores of impostor comparisons, shape (n,).
        failed: genuine comparisons without a score, which are rejected at every threshold.

    Raises:
        ValueError: there is no genuine or no impostor score, or a score is NaN.
    """
    genuine, impostor = np.sort(as_scores(genuine, "genuine")), np.sort(as_scores(impostor, "impostor"))
    thresholds = np.unique(np.concatenate([genuine, impostor]))
    # First of all, every score is accepted, -inf too.
    return crossing(
        failed + np.append(0, np.searchsorted(genuine, thresholds, side="right")),
        impostor.size - np.append(0, np.searchsorted(impostor, thresholds, side="right")),
        genuine.size + failed,
        impostor.size,
    )


def crossing(false_rejects: Array, false_accepts: Array, genuine: int, impostor: int) -> EqualErrorRate:
    """The equal error rate from counts at neighbouring rising thresholds, between which the two error rates cross.

    Args:
        false_rejects: genuine scores at or below each threshold, shape (t,).
        false_accepts: impostor scores above each threshold, shape (t,); each threshold changes one count at least.
        genuine: number of genuine comparisons.
        impostor: number of impostor comparisons.
    """

    def excess(place: int) -> int:
        # FRR − FAR over their common denominator, rising strictly. In Python's integers: 64 bits overflow where genuine
        # times impostor comparisons pass 9·10^18, as those of a million images do.
        return int(false_rejects[place]) * impostor - int(false_accepts[place]) * genuine

    places = range(len(false_rejects))
    around = bisect_right(places, 0, key=excess) - 1, bisect_left(places, 0, key=excess)
    rejects, accepts = min(
        ((int(false_rejects[place]), int(false_accepts[place])) for place in around),
        key=lambda counts: counts[0] * impostor + counts[1] * genuine,
    )
    low, high = sorted((rejects / genuine, accepts / impostor))
    return EqualErrorRate(low, high, (low + high) / 2)


def curve_budgets(impostors: int) -> Array:
    """The numbers of false accepts at the points of a curve, rising, as `roc_curve` describes them."""
    dense = min(_EXACT_BUDGETS, impostors)
    budgets = np.concatenate(
        [
            np.arange(dense),
            np.geomspace(dense, impostors, _LOG_BUDGETS).astype(np.int64),
            [impostors // 10**decade for decade in range(len(str(impostors)))],
        ]
    )
    return np.unique(budgets[budgets < impostors])


def far_budget(far: Fraction, impostors: int) -> int:
    """The number of false accepts that a false-accept rate allows: floor(far · impostors), in integers."""
    return far.numerator * impostors // far.denominator


def as_scores(scores: ArrayLike, kind: str) -> Array:
    """The scores as an array, shape (n,).

    Raises:
        ValueError: they are not a list of at least one number, or one is NaN.
    """
    array = np.asarray(scores)
    if array.ndim != 1 or array.size == 0:
        raise ValueError(f"{kind} scores must be a non-empty array of one dimension, not of shape {array.shape}")
    if np.isnan(array).any():
        raise ValueError(f"{kind} scores contain NaN")
    return array
