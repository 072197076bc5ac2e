from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from sklearn.metrics import roc_curve

from facedan_cli.config.common import CONVENTIONS
from facedan_cli.metrics.roc import verification_rate

tied_scores = st.lists(st.integers(0, 6), min_size=1, max_size=40)
far_texts = st.sampled_from(["1", "0.5", "0.29", "0.1", "0.07", "0.01", "1e-3"])


def bob_threshold(negatives: list[float], far: Fraction) -> float:
    """The loop of bob.measure.far_threshold, its rates as fractions."""
    falling = sorted(map(float, negatives), reverse=True)
    threshold = math.nextafter(falling[0], math.inf)
    position = 0
    while position < len(falling):
        current = falling[position]
        while position < len(falling) - 1 and falling[position + 1] == current:
            position += 1
        if Fraction(position + 1, len(falling)) > far:
            break
        threshold = current
        position += 1
    return threshold


@given(tied_scores, tied_scores, far_texts)
def test_bob(genuine: list[int], impostor: list[int], far: str) -> None:
    point = verification_rate(genuine, impostor, far, convention="bob")
    assert point.threshold == bob_threshold(impostor, Fraction(far))
    assert point.vr == sum(score >= point.threshold for score in genuine) / len(genuine)
    assert point.false_accepts == sum(score >= point.threshold for score in impostor) <= point.budget


def openbr_points(genuine: list[float], impostor: list[float]) -> list[tuple[float, int, int]]:
    """The operating points of openbr/core/eval.cpp: score, false accepts, true accepts."""
    comparisons = sorted([(score, True) for score in genuine] + [(score, False) for score in impostor], reverse=True)
    points = []
    found = {True: 0, False: 0}
    before = dict(found)
    for place, (score, mate) in enumerate(comparisons):
        found[mate] += 1
        if place + 1 < len(comparisons) and comparisons[place + 1][0] == score:
            continue
        if found[True] > before[True] and found[False] > before[False]:
            points.append((score, found[False], found[True]))
            before = dict(found)
    if len(points) == 1:
        points.insert(0, (0, 0, 0))
    if len(points) > 2:
        points.pop()
    return points


@given(tied_scores, tied_scores, far_texts)
def test_openbr(genuine: list[int], impostor: list[int], far: str) -> None:
    points = openbr_points(genuine, impostor)
    asked = Fraction(far)
    rates = [(score, Fraction(fa, len(impostor)), Fraction(ta, len(genuine))) for score, fa, ta in points]
    reached = [index for index, (_, rate, _) in enumerate(rates) if rate >= asked]
    point = verification_rate(genuine, impostor, far, convention="openbr")
    if not reached:
        assert (point.vr, point.threshold, point.false_accepts) == (1, -math.inf, len(impostor))
        return
    index = reached[0]
    _, x1, y1 = rates[index - 1] if index else (0, Fraction(0), Fraction(0))
    score, x2, y2 = rates[index]
    assert point.vr == pytest.approx(float(y1 + (y2 - y1) / (x2 - x1) * (asked - x1)), abs=1e-12)
    assert (point.threshold, point.false_accepts) == (score, points[index][1])


@given(tied_scores, tied_scores, far_texts)
@example(genuine=[0, 0], impostor=[0], far="0.5")  # as near to the FAR 0 as to 1
def test_nearest(genuine: list[int], impostor: list[int], far: str) -> None:
    same = [1] * len(genuine) + [0] * len(impostor)
    far_of, tar, thresholds = (np.flipud(column) for column in roc_curve(same, [*genuine, *impostor]))
    counts = np.rint(far_of * len(impostor)).astype(int)
    # min() of (distance, index), as InsightFace has it, with distances as fractions.
    _, index = min((abs(Fraction(int(count), len(impostor)) - Fraction(far)), i) for i, count in enumerate(counts))
    point = verification_rate(genuine, impostor, far, convention="nearest")
    assert (point.vr, point.threshold, point.false_accepts) == (tar[index], thresholds[index], counts[index])


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_a_far_of_many_digits_needs_more_than_64_bits(convention: str) -> None:
    point = verification_rate([3, 5], [1, 2, 4], "0.3333333333333333333333333333", convention=convention)
    rounded = verification_rate([3, 5], [1, 2, 4], "0.33333", convention=convention)
    assert point.vr == pytest.approx(rounded.vr, abs=1e-4)


@given(tied_scores, tied_scores, far_texts, st.randoms(use_true_random=False), st.sampled_from(CONVENTIONS))
def test_the_order_of_the_scores_does_not_matter(
    genuine: list[int], impostor: list[int], far: str, random, convention: str
) -> None:
    point = verification_rate(genuine, impostor, far, convention=convention)
    random.shuffle(genuine)
    random.shuffle(impostor)
    assert verification_rate(genuine, impostor, far, convention=convention) == point


@given(tied_scores, tied_scores, st.sampled_from(CONVENTIONS))
def test_vr_rises_with_the_far(genuine: list[int], impostor: list[int], convention: str) -> None:
    fars = ("0.001", "0.01", "0.1", "0.5", "1")
    rates = [verification_rate(genuine, impostor, far, convention=convention).vr for far in fars]
    assert rates == sorted(rates)


def test_conventions_agree_on_many_untied_scores() -> None:
    rng = np.random.default_rng(0)
    genuine, impostor = rng.normal(3, 1, 3297), rng.normal(0, 1, 1_173_928)
    rates = [verification_rate(genuine, impostor, "0.001", convention=name).vr for name in CONVENTIONS]
    assert max(rates) - min(rates) <= 0.0006


def test_conventions_differ_on_a_few_scores() -> None:
    genuine, impostor = [0.9, 0.75, 0.5, 0.3], [0.8, 0.6, 0.4, 0.2, 0.1]
    points = {name: verification_rate(genuine, impostor, "0.3", convention=name) for name in CONVENTIONS}
    assert {name: (point.vr, point.false_accepts) for name, point in points.items()} == {
        "max-tar": (0.5, 1),  # above 0.6
        "bob": (0.25, 1),  # from 0.8 up
        "openbr": (0.375, 2),  # halfway from (0.2, 0.25) to (0.4, 0.5)
        "nearest": (0.75, 2),  # FAR 0.4 is as near as 0.2
    }
    assert {name for name, point in points.items() if point.convention == name} == set(CONVENTIONS)


def test_an_unknown_convention_is_refused() -> None:
    with pytest.raises(ValueError, match="conventions max-tar"):
        verification_rate([0.5], [0.1], "0.1", convention="median")
