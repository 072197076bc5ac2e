from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from facedan_cli.errors import FacedanError
from facedan_cli.metrics.roc import crossing, equal_error_rate, parse_far, roc_curve, verification_rate
from facedan_cli.metrics.streaming import verification_streamed
from facedan_cli.protocols.gbu import read_gbu

# Few distinct values, so that most scores are tied.
tied_scores = st.lists(st.integers(0, 6), min_size=1, max_size=60)
far_texts = st.sampled_from(["1", "0.5", "0.29", "0.1", "0.07", "0.01", "1e-3"])


def brute_force_vr(genuine: list[float], impostor: list[float], budget: int) -> Fraction:
    """The best true-accept rate over every threshold that there can be, accepting what is above it."""
    best = Fraction(0)
    for threshold in [float("-inf"), *genuine, *impostor]:
        if sum(score > threshold for score in impostor) <= budget:
            best = max(best, Fraction(sum(score > threshold for score in genuine), len(genuine)))
    return best


@given(tied_scores, tied_scores, far_texts)
def test_vr_is_the_best_of_all_thresholds_within_the_budget(genuine: list[int], impostor: list[int], far: str) -> None:
    budget = int(Fraction(far) * len(impostor))
    point = verification_rate(genuine, impostor, far)
    assert point.budget == budget
    assert point.vr == float(brute_force_vr(genuine, impostor, budget))
    assert point.false_accepts == sum(score > point.threshold for score in impostor) <= budget
    assert Fraction(point.false_accepts, len(impostor)) <= Fraction(far)
    assert point.achieved_far == point.false_accepts / len(impostor)
    assert point.resolved == (budget > 0)


@given(tied_scores, tied_scores, far_texts, st.randoms(use_true_random=False))
def test_the_order_of_the_scores_does_not_matter(genuine: list[int], impostor: list[int], far: str, random) -> None:
    point = verification_rate(genuine, impostor, far)
    random.shuffle(genuine)
    random.shuffle(impostor)
    assert verification_rate(genuine, impostor, far) == point


@given(tied_scores, tied_scores)
def test_vr_rises_with_the_far(genuine: list[int], impostor: list[int]) -> None:
    rates = [verification_rate(genuine, impostor, far).vr for far in ("0.001", "0.01", "0.1", "0.5", "1")]
    assert rates == sorted(rates)
    assert rates[-1] == 1


@pytest.mark.parametrize("far", ["0.001", "0.1", "0.99"])
def test_equal_scores_verify_nobody(far: str) -> None:
    point = verification_rate([0.3] * 7, [0.3] * 1000, far)
    assert (point.vr, point.false_accepts) == (0, 0)


def test_the_budget_is_exact_where_binary_floats_are_not() -> None:
    assert int(0.29 * 100) == 28
    assert verification_rate([1.0], np.arange(100.0), "0.29").budget == 29


def test_worked_example() -> None:
    point = verification_rate([0.9, 0.8, 0.6, 0.1], [0.85, 0.7, 0.7, 0.5, 0.4, 0.3, 0.2, 0.1, 0.0, -0.1], "0.2")
    # Two false accepts are allowed, the third largest impostor is tied with the second: one is accepted.
    assert (point.budget, point.threshold, point.false_accepts, point.vr) == (2, 0.7, 1, 0.5)
    assert (point.genuine, point.impostor, point.achieved_far, point.far) == (4, 10, 0.1, "0.2")


def test_too_few_impostors_accept_only_above_them_all_and_say_so() -> None:
    point = verification_rate([0.4, 0.6], [0.5, 0.1], "0.001")
    assert (point.budget, point.resolved, point.threshold, point.vr, point.achieved_far) == (0, False, 0.5, 0.5, 0)


def test_far_1_accepts_everything() -> None:
    point = verification_rate([0.4], [0.5, 0.1], "1")
    assert (point.vr, point.threshold, point.false_accepts) == (1, -np.inf, 2)


def test_scores_of_two_precisions_are_compared_in_the_wider_one() -> None:
    threshold = np.float64(0.1)  # below np.float32(0.1)
    assert verification_rate(np.array([0.1], np.float32), np.array([threshold]), "0.5").vr == 1
    assert verification_rate(np.array([threshold]), np.array([0.1], np.float32), "0.5").vr == 0


@pytest.mark.parametrize("function", [roc_curve, equal_error_rate, lambda g, i: verification_rate(g, i, "0.1")])
@pytest.mark.parametrize(
    ("genuine", "impostor"),
    [([], [0.1]), ([0.1], []), ([np.nan], [0.1]), ([0.1], [0.2, np.nan]), ([[0.1]], [0.2])],
)
def test_unusable_scores_are_refused(function, genuine, impostor) -> None:
    with pytest.raises(ValueError, match="scores"):
        function(genuine, impostor)


@pytest.mark.parametrize(
    ("text", "value"), [("0.001", Fraction(1, 1000)), ("1e-3", Fraction(1, 1000)), ("1", 1), (".5", Fraction(1, 2))]
)
def test_far_is_read_exactly(text: str, value: Fraction) -> None:
    assert parse_far(text) == value


@pytest.mark.parametrize("text", ["0", "1.1", "-0.1", "0,001", "1/1000", "nan", "", " ", "1e-999999999", "0.1%", "٠.١"])
def test_what_is_no_far_is_refused(text: str) -> None:
    with pytest.raises(FacedanError, match="not a false-accept rate"):
        parse_far(text)


@given(tied_scores, tied_scores)
def test_the_curve_has_the_vr_of_every_budget(genuine: list[int], impostor: list[int]) -> None:
    curve = roc_curve(genuine, impostor)
    assert curve.far[0] == 0
    assert curve.far[-1] == curve.vr[-1] == 1
    assert (np.diff(curve.far) > 0).all()
    for budget in range(len(impostor)):
        step = np.flatnonzero(np.rint(curve.far * len(impostor)) <= budget)[-1]
        assert curve.vr[step] == float(brute_force_vr(genuine, impostor, budget))


def test_a_long_curve_is_thinned_and_its_points_are_exact() -> None:
    rng = np.random.default_rng(0)
    genuine, impostor = rng.normal(2, 1, 900), rng.normal(0, 1, 200_000)
    curve = roc_curve(genuine, impostor)
    assert 300 < curve.far.size < 450
    assert (curve.genuine, curve.impostor) == (900, 200_000)
    for far, vr, threshold in zip(curve.far, curve.vr, curve.threshold, strict=True):
        assert far == np.mean(impostor > threshold)
        assert vr == np.mean(genuine > threshold)
    for far in ("0.1", "0.01", "0.001", "0.0001", "0.00001"):
        point = verification_rate(genuine, impostor, far)
        assert (point.achieved_far, point.vr) in zip(curve.far, curve.vr, strict=True)


@given(tied_scores, tied_scores)
@example(genuine=[0, 1], impostor=[0, 1, 1, 1, 2, 2])  # both thresholds have the error sum 4/3
def test_eer_is_the_interval_of_the_fingerprint_verification_competition(
    genuine: list[int], impostor: list[int]
) -> None:
    errors = []
    for threshold in [float("-inf"), *sorted({*genuine, *impostor})]:
        frr = Fraction(sum(score <= threshold for score in genuine), len(genuine))
        far = Fraction(sum(score > threshold for score in impostor), len(impostor))
        errors.append((frr, far))
    before = [pair for pair in errors if pair[0] <= pair[1]][-1]
    after = next(pair for pair in errors if pair[0] >= pair[1])
    low, high = sorted(before if sum(before) <= sum(after) else after)
    eer = equal_error_rate(genuine, impostor)
    assert (eer.low, eer.high) == (float(low), float(high))
    assert eer.low <= eer.mid <= eer.high


steps = st.lists(st.tuples(st.integers(0, 2**45), st.integers(0, 2**45)), min_size=2, max_size=12)


@given(steps.filter(lambda found: all(map(any, found)) and all(map(sum, zip(*found, strict=True)))))
@example([(2**40, 0), (0, 3 * 2**42)])
def test_eer_of_more_comparisons_than_64_bits_multiply(found: list[tuple[int, int]]) -> None:
    """What `crossing` finds in counts, from the genuine and impostor scores at each of some rising thresholds."""
    genuine, impostor = (sum(column) for column in zip(*found, strict=True))
    rejects = np.cumsum([0, *(one for one, _ in found)])
    accepts = impostor - np.cumsum([0, *(other for _, other in found)])
    errors = [(Fraction(int(r), genuine), Fraction(int(a), impostor)) for r, a in zip(rejects, accepts, strict=True)]
    before = [pair for pair in errors if pair[0] <= pair[1]][-1]
    after = next(pair for pair in errors if pair[0] >= pair[1])
    low, high = sorted(before if sum(before) <= sum(after) else after)
    eer = crossing(rejects, accepts, genuine, impostor)
    assert (eer.low, eer.high) == (float(low), float(high))
    assert eer.mid == pytest.approx(float(low + high) / 2)


def test_eer_of_scores_that_do_not_overlap() -> None:
    assert equal_error_rate([0.8, 0.9], [0.1, 0.2]) == (0, 0, 0)
    assert equal_error_rate([0.1, 0.2], [0.8, 0.9]) == (1, 1, 1)
    assert equal_error_rate([0.5], [0.5, 0.5]) == (0, 1, 0.5)


@pytest.mark.parametrize("name", ["Good", "Bad", "Ugly"])
def test_the_counts_of_gbu(shared_data: Path, name: str) -> None:
    partition = read_gbu(shared_data / "gbu")[name]
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(437, 24)).astype(np.float32)
    query_people, target_people = partition.subjects()
    query, target = (
        centres[labels] + rng.normal(0, 0.7, (labels.size, 24)).astype(np.float32)
        for labels in (query_people, target_people)
    )
    scores, mates = query @ target.T, partition.genuine_mask()
    point = verification_rate(scores[mates], scores[~mates], "0.001")
    assert (point.genuine, point.impostor, point.budget, point.false_accepts) == (3297, 1_173_928, 1173, 1173)
    assert point.genuine + point.impostor == 1085**2
    streamed = verification_streamed(query, target, query_people, target_people, ["0.001"]).points["0.001"]
    assert (streamed.genuine, streamed.impostor, streamed.false_accepts) == (3297, 1_173_928, 1173)
    assert streamed.vr == pytest.approx(point.vr, abs=1 / 3297)


def test_all_scores_equal_accept_nobody() -> None:
    point = verification_rate([0.5] * 4, [0.5] * 9, "0.5")
    assert (point.vr, point.false_accepts, point.budget) == (0, 0, 4)
