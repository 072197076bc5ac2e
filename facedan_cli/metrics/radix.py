"""Radix selection: exact verification rates from counts of scores, in memory independent of the number of scores.

The bits of a float32, negative numbers with all bits but the sign turned over, are integers in the order of the scores.
A first pass counts their high 16 bits. That tells in which bin of 2^16 scores each threshold lies, and a second pass
counts the low 16 bits in those bins only. From it come the very threshold and counts that `metrics.roc` finds in all
scores at once, ties included. Counts take 1 MB, and 1 MB more for each false-accept rate. Those of parts add up.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from facedan_cli.metrics.roc import (
    Curve,
    EqualErrorRate,
    OperatingPoint,
    crossing,
    curve_budgets,
    far_budget,
    parse_far,
)

Array = NDArray[Any]

BINS = 1 << 16
_HALF, _LOW = BINS // 2, BINS - 1
# The bins of −inf and +inf hold no other values; NaN lies beyond them, since arithmetic makes every NaN quiet.
_MINUS_INF, _PLUS_INF = 0x007F, 0xFF80


@dataclass(frozen=True)
class Counts:
    """The numbers of scores in each bin; counts of disjoint comparisons add up.

    Attributes:
        genuine: int64, shape (65536,) by the high bits of the score, or (b, 65536) by the low bits in each of b bins.
        impostor: the same for impostor comparisons.
    """

    genuine: Array
    impostor: Array

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.genuine + other.genuine, self.impostor + other.impostor)


@dataclass(frozen=True)
class Streamed:
    """Rates from two passes over all comparisons.

    Attributes:
        points: the operating point of each false-accept rate, equal to that of `metrics.roc.verification_rate`.
        curve: a ROC curve. Each point is exact, but the points are only as dense as the high 16 bits of the scores: 128
            thresholds from one power of two to the next. Between two of them the VR may rise earlier than shown.
        eer: equal to that of `metrics.roc.equal_error_rate`.
        eer_with_failures: equal error rate with genuine comparisons without a score rejected at every threshold.
    """

    points: dict[str, OperatingPoint]
    curve: Curve
    eer: EqualErrorRate
    eer_with_failures: EqualErrorRate


def count_high(scores: ArrayLike, genuine: ArrayLike) -> Counts:
    """The first pass over some comparisons: scores by their high 16 bits.

    Args:
        scores: float32, any shape. NaN is counted as well, for `deciding_bins` to refuse it.
        genuine: which of them are genuine, bool, the same shape.

    Raises:
        ValueError: the scores are not float32, or the shapes differ.
    """
    values, mates = _checked(scores, genuine)
    high = _bits(values) >> 16
    in_all, of_mates = (np.bincount(part, minlength=BINS)[_RAW] for part in (high, high[mates]))
    return Counts(of_mates, in_all - of_mates)


def count_low(scores: ArrayLike, genuine: ArrayLike, bins: Sequence[int]) -> Counts:
    """The second pass over some comparisons: those in `bins` of the first, by their low 16 bits.

    Args:
        scores: float32, any shape.
        genuine: which of them are genuine, bool, the same shape.
        bins: high 16 bits, as `deciding_bins` gives them.

    Raises:
        ValueError: the scores are not float32, or the shapes differ.
    """
    values, mates = _checked(scores, genuine)
    counts = Counts(*np.zeros((2, len(bins), BINS), np.int64))
    for row, number in enumerate(bins):
        lowest, highest = _ends(number)
        inside = (values >= lowest) & (values <= highest)
        low, of_mates = _keys(_bits(values[inside])) & _LOW, mates[inside]
        counts.genuine[row] = np.bincount(low[of_mates], minlength=BINS)
        counts.impostor[row] = np.bincount(low[~of_mates], minlength=BINS)
    return counts


def deciding_bins(high: Counts, fars: Sequence[str], failed: int = 0) -> list[int]:
    """The bins that hold the thresholds of the false-accept rates and the equal error rates, rising.

    `failed` is the number of genuine comparisons without a score, rejected at every threshold.

    Raises:
        ValueError: a score is NaN, or there is no genuine or no impostor score.
        UsageError: one of `fars` is not a false-accept rate.
    """
    genuine, impostor = high.genuine, high.impostor
    either = genuine + impostor
    if either[:_MINUS_INF].any() or either[_PLUS_INF + 1 :].any():
        raise ValueError("scores contain NaN")
    for kind, counts in (("genuine", genuine), ("impostor", impostor)):
        if not counts.any():
            raise ValueError(f"there are no {kind} scores")
    budgets = (far_budget(parse_far(far), int(impostor.sum())) for far in fars)
    bins = {int(_place(_above(impostor), budget)) for budget in budgets if budget < impostor.sum()}
    return sorted(bins | {_crossing_bin(genuine, impostor, count) for count in (0, failed)})


def conclude(high: Counts, low: Counts, bins: Sequence[int], fars: Sequence[str], failed: int = 0) -> Streamed:
    """The rates of all comparisons from the counts of both passes.

    Args:
        high: the sum of `count_high` over all comparisons.
        low: the sum of `count_low` over all comparisons.
        bins: the result of `deciding_bins`.
        fars: false-accept rates as decimal strings, the same as for `deciding_bins`.
        failed: number of genuine comparisons without a score, the same as for `deciding_bins`.

    Raises:
        ValueError: the two passes did not count the same scores.
    """
    genuine, impostor = high.genuine, high.impostor
    fine = {number: (low.genuine[row], low.impostor[row]) for row, number in enumerate(bins)}
    for number, (g, i) in fine.items():
        if (g.sum(), i.sum()) != (genuine[number], impostor[number]):
            raise ValueError("the second pass did not see the scores of the first: they must be the same bit for bit")
    genuine_above, impostor_above = _above(genuine), _above(impostor)
    comparisons = int(genuine.sum()), int(impostor.sum())

    def point(far: str) -> OperatingPoint:
        budget = far_budget(parse_far(far), comparisons[1])
        if budget < comparisons[1]:
            number = int(_place(impostor_above, budget))
            g, i = fine[number]
            place = int(_place(_above(i), budget - impostor_above[number]))
            threshold = _value(number, place)
            accepted = genuine_above[number] + _above(g)[place], impostor_above[number] + _above(i)[place]
        else:
            threshold, accepted = -np.inf, (genuine_above[_MINUS_INF], impostor_above[_MINUS_INF])
        return OperatingPoint(
            far=far,
            vr=int(accepted[0]) / comparisons[0],
            achieved_far=int(accepted[1]) / comparisons[1],
            threshold=threshold,
            false_accepts=int(accepted[1]),
            budget=budget,
            genuine=comparisons[0],
            impostor=comparisons[1],
        )

    points = {far: point(far) for far in fars}
    curve = _curve(genuine_above, impostor_above, list(points.values()), comparisons)
    eer, eer_failed = (_equal_error_rate(genuine, impostor, fine, count) for count in (0, failed))
    return Streamed(points, curve, eer, eer_failed)


def _equal_error_rate(
    genuine: Array, impostor: Array, fine: Mapping[int, tuple[Array, Array]], failed: int
) -> EqualErrorRate:
    number = _crossing_bin(genuine, impostor, failed)
    g, i = fine[number]
    # The counts below the bin, then those at each score in it.
    occupied = np.flatnonzero(g + i)
    return crossing(
        failed + genuine[:number].sum() + np.append(0, np.cumsum(g)[occupied]),
        impostor[number:].sum() - np.append(0, np.cumsum(i)[occupied]),
        int(genuine.sum()) + failed,
        int(impostor.sum()),
    )


def _curve(
    genuine_above: Array, impostor_above: Array, points: Sequence[OperatingPoint], comparisons: tuple[int, int]
) -> Curve:
    """The ROC curve of the requested points, the upper ends of bins, and (1, 1)."""
    genuine, impostor = comparisons
    bins = np.unique([*_place(impostor_above, curve_budgets(impostor)), _MINUS_INF])
    ends = [(int(impostor_above[number]), int(genuine_above[number]), _ends(number)[1]) for number in bins]
    asked = [(point.false_accepts, round(point.vr * genuine), point.threshold) for point in points]
    best: dict[int, tuple[int, float]] = {}
    for false_accepts, true_accepts, threshold in ends + asked:
        # Among thresholds with the same false accepts, the lowest accepts most genuine comparisons.
        best[false_accepts] = max(best.get(false_accepts, (-1, 0.0)), (true_accepts, threshold))
    far = np.array(sorted(best))
    rates = np.array([best[count][0] for count in far]) / genuine
    return Curve(far / impostor, rates, np.array([best[count][1] for count in far]), genuine, impostor)


def _checked(scores: ArrayLike, genuine: ArrayLike) -> tuple[Array, Array]:
    values, mates = np.asarray(scores), np.asarray(genuine)
    if values.dtype.newbyteorder("=") != np.float32:
        raise ValueError(f"scores must be float32, not {values.dtype}")
    if values.shape != mates.shape or mates.dtype != bool:
        raise ValueError("each score needs to be told genuine or not: one bool a score")
    return values.ravel(), mates.ravel()


def _bits(scores: Array) -> Array:
    """The bits of float32 scores, uint32; adding 0 turns −0 into 0, makes NaNs quiet and the byte order native."""
    with np.errstate(invalid="ignore"):
        return np.asarray(scores + np.float32(0)).view(np.uint32)


def _keys(bits: Array) -> Array:
    """Keys, uint32, in the order of the scores; `_value` is the inverse."""
    return np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31))


def _value(high: int, low: int) -> float:
    """The score with this key."""
    key = high * BINS + low
    return float(np.uint32(key ^ (1 << 31) if high >= _HALF else key ^ 0xFFFFFFFF).view(np.float32))


def _ends(number: int) -> tuple[float, float]:
    """The lowest and the highest score of a bin, without −0, which counts as 0 in the next bin."""
    lowest = _LOW if number == _MINUS_INF else 0
    highest = {_PLUS_INF: 0, _HALF - 1: _LOW - 1}.get(number, _LOW)
    return _value(number, lowest), _value(number, highest)


_RAW = np.append(np.arange(BINS - 1, _HALF - 1, -1), np.arange(_HALF))
"""The high bits as they are in a float32, in the order of the scores: negative numbers turned over, then the others."""


def _above(counts: Array) -> Array:
    """The number of scores in higher bins, for each bin."""
    return np.asarray(counts.sum() - np.cumsum(counts))


def _place(above: Array, budget: ArrayLike) -> Any:
    """The bin of the (budget + 1)-th largest score for each budget: the lowest with at most `budget` scores above."""
    return np.searchsorted(-above, np.negative(budget), side="left")


def _crossing_bin(genuine: Array, impostor: Array, failed: int) -> int:
    """The lowest bin at whose upper end the false-reject rate has reached the false-accept rate."""
    false_rejects, false_accepts = failed + np.cumsum(genuine), _above(impostor)
    mates, others = int(genuine.sum()) + failed, int(impostor.sum())

    def reached(number: int) -> bool:  # in Python's integers, as in `metrics.roc.crossing`
        return int(false_rejects[number]) * others >= int(false_accepts[number]) * mates

    return bisect_left(range(BINS), True, key=reached)
