from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.stats import binomtest

from facedan_cli.errors import UsageError
from facedan_cli.metrics import identification
from facedan_cli.metrics.identification import cmc, mcnemar, open_set, rank_1, ranks

SUBJECTS = "abcde"


@st.composite
def searches(draw):
    """A matrix of tied scores with the subjects of its probes and gallery entries."""
    probes = draw(st.lists(st.sampled_from(SUBJECTS), min_size=1, max_size=6))
    gallery = draw(st.lists(st.sampled_from(SUBJECTS), min_size=1, max_size=8))
    row = st.lists(st.integers(0, 4), min_size=len(gallery), max_size=len(gallery))
    return draw(st.lists(row, min_size=len(probes), max_size=len(probes))), probes, gallery


@given(searches())
def test_ranks_agree_with_a_list_sorted_against_the_mate(search) -> None:
    scores, probes, gallery = search
    expected = []
    for row, probe in zip(scores, probes, strict=True):
        mates = [score for score, subject in zip(row, gallery, strict=True) if subject == probe]
        others = [score for score, subject in zip(row, gallery, strict=True) if subject != probe]
        # In a tie the others stand first: False sorts before True.
        line = sorted([(-score, False) for score in others] + [(-max(mates, default=0), True)])
        expected.append(line.index((-max(mates), True)) + 1 if mates else 0)
    assert ranks(scores, probes, gallery).tolist() == expected


def test_constant_scores_identify_nobody() -> None:
    found = ranks(np.full((3, 3), 0.7), ["a", "b", "c"], ["a", "b", "c"])
    assert found.tolist() == [3, 3, 3]
    assert rank_1(found) == 0
    assert cmc(found, 3).tolist() == [0, 0, 1]


def test_a_probe_without_a_mate_has_rank_0() -> None:
    assert ranks([[0.9, 0.1], [0.2, 0.3]], ["x", "b"], ["a", "b"]).tolist() == [0, 1]


def test_further_mates_do_not_take_up_ranks() -> None:
    assert ranks([[0.9, 0.8, 0.7, 0.6]], ["a"], ["b", "a", "a", "c"]).tolist() == [2]


@given(st.lists(st.integers(1, 9), min_size=1, max_size=30), st.integers(1, 12))
def test_cmc_counts_the_probes_up_to_each_rank(found: list[int], max_rank: int) -> None:
    curve = cmc(found, max_rank)
    assert curve.shape == (max_rank,)
    assert curve == pytest.approx([sum(rank <= r for rank in found) / len(found) for r in range(1, max_rank + 1)])
    assert curve[0] == rank_1(found)


def test_unusable_input_is_refused() -> None:
    with pytest.raises(ValueError, match="NaN"):
        ranks([[np.nan]], ["a"], ["a"])
    with pytest.raises(ValueError, match="shape"):
        ranks([[0.1, 0.2]], ["a"], ["a"])
    for function in (rank_1, lambda found: cmc(found, 3)):
        with pytest.raises(ValueError, match="no mate"):
            function([1, 0])
        with pytest.raises(ValueError, match="no mate"):
            function([])


@given(searches(), st.integers(1, 9))
def test_the_size_of_the_blocks_does_not_matter(search, block: int) -> None:
    whole = ranks(*search).tolist()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(identification, "_BLOCK", block)
        assert ranks(*search).tolist() == whole


def test_no_probes_have_no_ranks() -> None:
    assert ranks(np.zeros((0, 2)), [], ["a", "b"]).shape == (0,)


@given(searches(), st.sampled_from(["1", "0.5", "0.34", "0.1"]))
def test_open_set_is_the_best_of_all_thresholds_within_the_budget(search, fpir: str) -> None:
    scores, probes, gallery = search
    mated = [probe in gallery for probe in probes]
    assume(any(mated) and not all(mated))
    place = ranks(*search)
    best = [max(row) for row in scores]
    budget = int(Fraction(fpir) * mated.count(False))
    rates = {}
    for threshold in [float("-inf"), *best]:
        alarms = sum(top > threshold for top, mate in zip(best, mated, strict=True) if not mate)
        hits = sum(top > threshold for top, rank in zip(best, place, strict=True) if rank == 1)
        if alarms <= budget:
            rates[hits] = max(rates.get(hits, 0), alarms)
    point = open_set(*search, [fpir])[fpir]
    assert point.dir == max(rates) / sum(mated)
    assert point.false_positives == sum(
        top > point.threshold for top, mate in zip(best, mated, strict=True) if not mate
    )
    assert point.false_positives <= point.budget == budget
    assert (point.mated, point.non_mated) == (mated.count(True), mated.count(False))
    assert point.achieved_fpir == point.false_positives / point.non_mated
    assert point.resolved == (budget > 0)


def test_open_set_rises_with_the_fpir_up_to_rank_1() -> None:
    rng = np.random.default_rng(0)
    gallery, probes = np.arange(50), np.arange(100)
    scores = rng.normal(size=(100, 50))
    scores[gallery, gallery] += 2.5
    points = open_set(scores, probes, gallery, ["0.01", "0.1", "0.3", "1"])
    rates = [point.dir for point in points.values()]
    assert rates == sorted(rates)
    assert rates[0] < rates[-1] == rank_1(ranks(scores, probes, gallery)[:50])
    assert [point.resolved for point in points.values()] == [False, True, True, True]


def test_constant_scores_detect_nobody() -> None:
    point = open_set(np.full((3, 2), 0.7), ["a", "b", "x"], ["a", "b"], ["1"])["1"]
    assert (point.dir, point.false_positives) == (0, 1)


def test_open_set_needs_probes_of_both_kinds() -> None:
    for probes in (["a"], ["x"]):
        with pytest.raises(ValueError, match="probes without"):
            open_set([[0.5, 0.1]], probes, ["a", "b"], ["0.1"])
    with pytest.raises(ValueError, match="no probes"):
        open_set(np.zeros((0, 1)), [], ["a"], ["0.1"])
    with pytest.raises(ValueError, match="NaN"):
        open_set([[np.nan], [0.1]], ["a", "x"], ["a"], ["0.1"])
    with pytest.raises(UsageError, match="false-accept rate"):
        open_set([[0.2], [0.1]], ["a", "x"], ["a"], ["0"])


@given(st.lists(st.tuples(st.booleans(), st.booleans()), max_size=60))
def test_mcnemar_is_the_binomial_test_of_the_disagreements(probes: list[tuple[bool, bool]]) -> None:
    a, b = [one for one, _ in probes], [other for _, other in probes]
    found = mcnemar(a, b)
    only_a, only_b = probes.count((True, False)), probes.count((False, True))
    assert (found.only_a, found.only_b) == (only_a, only_b)
    expected = binomtest(only_a, only_a + only_b).pvalue if only_a + only_b else 1
    assert found.p == pytest.approx(expected)
    assert mcnemar(b, a) == (only_b, only_a, found.p)


def test_mcnemar_of_very_many_disagreements_does_not_overflow() -> None:
    a = np.arange(5000) < 2400
    assert mcnemar(a, ~a).p == pytest.approx(binomtest(2400, 5000).pvalue)
    assert mcnemar(np.ones(5000, bool), np.zeros(5000, bool)).p == 0
    with pytest.raises(ValueError, match="different probes"):
        mcnemar([True], [True, False])


def test_the_average_of_table_ii_is_the_plain_mean_of_the_four_rates() -> None:
    """DAN_m67 on FERET: 1191 of 1195, 193 of 194, 703 of 722 and 230 of 234 give the paper's 98.70 %."""
    sizes, right = np.array([1195, 194, 722, 234]), np.array([1191, 193, 703, 230])
    rates = []
    for size, hits in zip(sizes, right, strict=True):
        scores = np.zeros((size, 1196))
        scores[np.arange(hits), np.arange(hits)] = 1  # the others tie with everybody, which identifies nobody
        rates.append(rank_1(ranks(scores, np.arange(size), np.arange(1196))))
    assert [round(100 * rate, 2) for rate in rates] == [99.67, 99.48, 97.37, 98.29]
    assert round(100 * np.mean(rates), 2) == 98.70
    assert round(100 * right.sum() / sizes.sum(), 2) != 98.70


@pytest.mark.parametrize(
    ("rates", "average"),
    [
        ((99.58, 100, 95.43, 94.02), 97.26),  # PCANet
        ((99.67, 98.45, 95.15, 95.72), 97.25),  # VGG-CASIA
        ((99.74, 98.96, 97.09, 97.43), 98.31),
        ((99.75, 98.97, 96.40, 97.00), 98.03),
        ((99.58, 99.48, 96.54, 97.01), 98.15),
    ],
)
def test_the_other_averages_of_table_ii(rates: tuple[float, ...], average: float) -> None:
    sizes = (1195, 194, 722, 234)
    assert np.mean(rates) == pytest.approx(average, abs=0.0051)
    assert np.average(rates, weights=sizes) != pytest.approx(average, abs=0.0051)
