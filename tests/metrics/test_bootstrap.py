from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from subject_intervals import cross_product, rank1_interval, vr_interval

from facedan_cli.metrics.bootstrap import rank1_replicates, vr_replicates
from facedan_cli.metrics.intervals import binomial_interval, rate_interval
from facedan_cli.metrics.roc import verification_rate


def draws(subjects: list[str], replicates: int, seed: int) -> Iterator[list[str]]:
    """The subjects of each replicate, by name, one entry a copy."""
    rng = np.random.default_rng(seed)
    names = sorted(set(subjects))
    for _ in range(replicates):
        yield [names[i] for i in rng.integers(len(names), size=len(names))]


@st.composite
def comparisons(draw):
    """Tied scores of a few subjects: genuine (score, subject) and impostor (score, subject, subject)."""
    names = draw(st.lists(st.sampled_from("abcdef"), min_size=2, max_size=6, unique=True))
    score, subject = st.integers(0, 5), st.sampled_from(names)
    genuine = draw(st.lists(st.tuples(score, subject), min_size=1, max_size=15))
    pair = st.lists(subject, min_size=2, max_size=2, unique=True)
    impostor = draw(st.lists(st.tuples(score, pair), min_size=1, max_size=60))
    return genuine, [(value, a, b) for value, (a, b) in impostor]


def rates_of_repeated_rows(
    genuine: list, impostor: list, fars: list[str], replicates: int, seed: int = 0
) -> np.ndarray:
    """The replicates the slow way: each comparison is written out as often as its subjects were drawn."""
    subjects = [name for _, name in genuine] + [name for _, *names in impostor for name in names]
    rates = []
    for drawn in draws(subjects, replicates, seed):
        genuine_rows = [score for copy in drawn for score, name in genuine if name == copy]
        impostor_rows = [
            score for score, *names in impostor for copy_a in drawn for copy_b in drawn if [copy_a, copy_b] == names
        ]
        if genuine_rows and impostor_rows:
            rates.append([verification_rate(genuine_rows, impostor_rows, far).vr for far in fars])
        else:
            rates.append([math.nan] * len(fars))
    return np.transpose(rates)


@settings(deadline=None)
@given(comparisons(), st.lists(st.sampled_from(["1", "0.5", "0.1", "0.01"]), min_size=1), st.integers(0, 5))
def test_replicates_agree_with_rows_that_are_really_repeated(data, fars: list[str], seed: int) -> None:
    genuine, impostor = data
    found = vr_replicates(*zip(*genuine, strict=True), *zip(*impostor, strict=True), fars=fars, replicates=8, seed=seed)
    np.testing.assert_array_equal(found, rates_of_repeated_rows(genuine, impostor, fars, 8, seed))


def test_a_draw_without_the_subjects_of_the_highest_scores_looks_further_down() -> None:
    genuine = [(score, name) for name in "abcdef" for score in range(0, 100, 7)]
    others = [pair for pair in itertools.combinations("abcdef", 2) if pair != ("a", "b")]
    impostor = [(99, "a", "b")] * 20 + [(score, *others[score % len(others)]) for score in range(80)]
    found = vr_replicates(*zip(*genuine, strict=True), *zip(*impostor, strict=True), fars=["0.01"], replicates=50)
    np.testing.assert_array_equal(found, rates_of_repeated_rows(genuine, impostor, ["0.01"], 50))


def test_intervals_are_those_of_the_replicates() -> None:
    data = cross_product(20, 2, seed=0)
    rates = vr_replicates(**data, fars=["0.1", "0.01"], replicates=200, seed=3)
    intervals = vr_interval(**data, fars=["0.1", "0.01"], replicates=200, seed=3, level=0.9)
    assert list(intervals) == ["0.1", "0.01"]
    for far, row in zip(intervals, rates, strict=True):
        rate = verification_rate(data["genuine"], data["impostor"], far).vr
        assert intervals[far] == rate_interval(rate, row, subjects=20, trials=80, level=0.9)


def test_the_seed_decides_the_draw() -> None:
    data = cross_product(20, 2, seed=0)
    assert vr_interval(**data, fars=["0.01"], seed=1) == vr_interval(**data, fars=["0.01"], seed=1)
    assert vr_interval(**data, fars=["0.01"], seed=1) != vr_interval(**data, fars=["0.01"], seed=2)


def test_labels_may_be_text() -> None:
    data = cross_product(20, 2, seed=0)
    named = {key: np.char.mod("s%03d", value) if "subject" in key else value for key, value in data.items()}
    assert vr_interval(**named, fars=["0.01"]) == vr_interval(**data, fars=["0.01"])


def test_intervals_cover_where_binomial_ones_do_not() -> None:
    truth = np.mean(
        [
            verification_rate(large["genuine"], large["impostor"], "0.01").vr
            for large in (cross_product(500, 2, seed=1000 + i) for i in range(8))
        ]
    )
    covered = binomial_covered = 0
    for seed in range(60, 120):
        data = cross_product(40, 2, seed)
        low, high = vr_interval(**data, fars=["0.01"], replicates=200, seed=seed)["0.01"]
        rate = verification_rate(data["genuine"], data["impostor"], "0.01").vr
        margin = 1.96 * math.sqrt(rate * (1 - rate) / data["genuine"].size)
        covered += low <= truth <= high
        binomial_covered += rate - margin <= truth <= rate + margin
    assert covered >= 54
    assert binomial_covered <= 50


def test_draws_without_a_comparison_are_left_out() -> None:
    one_of_each = {
        "genuine": [0.9, 0.2],
        "genuine_subject": ["a", "b"],
        "impostor": [0.5],
        "impostor_subject_a": ["a"],
        "impostor_subject_b": ["b"],
    }
    rates = vr_replicates(**one_of_each, fars=["0.1"], replicates=50)
    # Half of the draws take one of the two subjects twice, which leaves no impostor comparison.
    assert 10 < np.isnan(rates).sum() < 40
    assert vr_interval(**one_of_each, fars=["0.1"], replicates=50) == {"0.1": binomial_interval(1, 2)}
    undefined = int(np.flatnonzero(np.isnan(rates[0]))[0])
    assert undefined == 0
    with pytest.raises(ValueError, match="too few subjects"):
        vr_interval(**one_of_each, fars=["0.1"], replicates=1)


def test_unusable_comparisons_are_refused() -> None:
    with pytest.raises(ValueError, match="same subject twice"):
        vr_interval([0.9], ["a"], [0.1], ["a"], ["a"], fars=["0.1"])
    with pytest.raises(ValueError, match="differ in shape"):
        vr_interval([0.9], ["a", "b"], [0.1], ["a"], ["b"], fars=["0.1"])
    with pytest.raises(ValueError, match="NaN"):
        vr_interval([math.nan], ["a"], [0.1], ["a"], ["b"], fars=["0.1"])


@given(st.lists(st.tuples(st.booleans(), st.sampled_from("abcd")), min_size=1, max_size=20), st.integers(0, 5))
def test_rank1_replicates_agree_with_probes_that_are_really_repeated(probes, seed: int) -> None:
    correct, subjects = zip(*probes, strict=True)
    rates = []
    for drawn in draws(list(subjects), 20, seed):
        rows = [hit for copy in drawn for hit, name in probes if name == copy]
        rates.append(sum(rows) / len(rows))
    found = rank1_replicates(correct, subjects, replicates=20, seed=seed)
    assert found.tolist() == pytest.approx(rates)
    expected = rate_interval(
        sum(correct) / len(probes), found, subjects=len({*subjects}), trials=len(probes), level=0.8
    )
    assert rank1_interval(correct, subjects, replicates=20, seed=seed, level=0.8) == expected


def test_rank1_interval_of_probes_that_stand_and_fall_together() -> None:
    subjects = np.repeat(np.arange(30), 20)
    low, high = rank1_interval(subjects % 2 == 0, subjects)
    # As wide as 30 coin tosses, not as 600.
    assert high - low == pytest.approx(2 * 1.96 * math.sqrt(0.25 / 30), rel=0.15)
