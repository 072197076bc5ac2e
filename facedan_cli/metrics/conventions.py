"""The rules by which other tools choose the threshold for a false-accept rate, for comparison with their rates.

Each function is that tool's rule on the same scores, with its comparisons of rates done in whole numbers.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


class Accepted(NamedTuple):
    """The result of a rule: verification rate, threshold, and number of accepted impostor scores."""

    vr: float
    threshold: float
    false_accepts: int


def bob(genuine: Array, impostor: Array, far: Fraction) -> Accepted:
    """Bob's rule: accept scores at or above the lowest impostor score whose FAR does not exceed the requested one.

    `bob.measure.far_threshold` and `farfrr` (since version 4). Where not even the highest impostor score will do, the
    threshold is the next double above it. Unlike in max-tar, genuine scores between that impostor score and the next
    lower one are rejected.
    """
    rising = np.sort(impostor.astype(np.float64))
    place = rising.size - _budget(far, rising.size)
    if 0 < place < rising.size and rising[place - 1] == rising[place]:
        place = int(np.searchsorted(rising, rising[place], side="right"))
    threshold = rising[place] if place < rising.size else np.nextafter(rising[-1], np.inf)
    return Accepted(
        int(np.count_nonzero(genuine >= threshold)) / genuine.size,
        float(threshold),
        int(np.count_nonzero(rising >= threshold)),
    )


def openbr(genuine: Array, impostor: Array, far: Fraction) -> Accepted:
    """OpenBR's rule: interpolate linearly between two operating points.

    `getTAR` in openbr/core/eval.cpp. Going down through the scores, a point is kept when both genuine and impostor
    scores have been accepted since the last one that was kept; of more than two points the last is dropped. The rate
    is that of the line to the first point whose FAR is at least the one asked for, from the point before or from
    (0, 0). It is 1 where no point reaches that FAR.

    Returns:
        The interpolated rate; threshold (accepted are scores at or above it) and false accepts are those of the upper
        end of the line, -inf and all impostors where no point reaches the FAR.
    """
    genuine, impostor = np.sort(genuine), np.sort(impostor)
    values = np.unique(np.concatenate([genuine, impostor]))[::-1]
    true_accepts = genuine.size - np.searchsorted(genuine, values, side="left")
    false_accepts = impostor.size - np.searchsorted(impostor, values, side="left")
    kept: list[int] = []
    place = int(max(np.searchsorted(true_accepts, 1), np.searchsorted(false_accepts, 1)))
    while place < values.size:
        kept.append(place)
        place = int(
            max(
                np.searchsorted(true_accepts, true_accepts[place], side="right"),
                np.searchsorted(false_accepts, false_accepts[place], side="right"),
            )
        )
    if len(kept) > 2:
        kept.pop()
    left = (0, 0)
    for place in kept:
        right = (int(false_accepts[place]), int(true_accepts[place]))
        if Fraction(right[0], impostor.size) >= far:
            slope = Fraction(right[1] - left[1], right[0] - left[0])
            vr = (left[1] + slope * (far * impostor.size - left[0])) / genuine.size
            return Accepted(float(vr), float(values[place]), right[0])
        left = right
    return Accepted(1.0, -np.inf, impostor.size)


def nearest(genuine: Array, impostor: Array, far: Fraction) -> Accepted:
    """InsightFace's rule: take the point of scikit-learn's ROC curve with the nearest FAR, which may be higher.

    recognition/_evaluation_/ijb/ijb_11.py of InsightFace, on `sklearn.metrics.roc_curve` with its `drop_intermediate`:
    where the curve continues in equal steps, only the ends of that run are points. If two points are equally near, the
    higher FAR is taken, and among points with one FAR the highest TAR. Scores at or above the threshold are accepted.
    """
    genuine, impostor = np.sort(genuine), np.sort(impostor)
    values = np.unique(np.concatenate([genuine, impostor]))[::-1]
    true_accepts = np.append(0, genuine.size - np.searchsorted(genuine, values, side="left"))
    false_accepts = np.append(0, impostor.size - np.searchsorted(impostor, values, side="left"))
    corner = np.ones(values.size + 1, bool)
    corner[2:-1] = (np.diff(true_accepts[1:], 2) != 0) | (np.diff(false_accepts[1:], 2) != 0)
    kept = np.flatnonzero(corner)
    counts, budget = false_accepts[kept], _budget(far, impostor.size)
    # The last point at or below the FAR, and the last of those with the next higher count; there is one at FAR 0.
    above = int(np.searchsorted(counts, budget, side="right"))
    beside = [above - 1]
    if above < counts.size:
        beside.append(int(np.searchsorted(counts, counts[above], side="right")) - 1)

    def distance(point: int) -> int:
        # In Python's integers: many false accepts times the denominator of a small FAR pass 64 bits.
        return abs(int(counts[point]) * far.denominator - far.numerator * impostor.size)

    place = kept[min(reversed(beside), key=distance)]
    threshold = np.append(np.inf, values.astype(np.float64))[place]
    return Accepted(int(true_accepts[place]) / genuine.size, float(threshold), int(false_accepts[place]))


def _budget(far: Fraction, impostors: int) -> int:
    return far.numerator * impostors // far.denominator
