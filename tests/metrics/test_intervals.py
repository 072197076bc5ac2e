from __future__ import annotations

import json
import math
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, binomtest
from subject_intervals import cross_product, rank1_interval

from facedan_cli.metrics.bootstrap import rank1_replicates, vr_replicates
from facedan_cli.metrics.intervals import (
    binomial_interval,
    difference_interval,
    effective_size,
    rate_interval,
    wilson,
)

BENCHMARK = Path(__file__).resolve().parents[2] / "benchmarks" / "intervals.py"

rates = st.floats(0, 1, allow_subnormal=False)


@given(st.integers(1, 3000), st.data(), st.sampled_from([0.9, 0.95]))
def test_the_binomial_interval_is_that_of_clopper_and_pearson(total: int, data, level: float) -> None:
    successes = data.draw(st.integers(0, total))
    low, high = binomial_interval(successes, total, level)
    expected = binomtest(successes, total).proportion_ci(level, "exact")
    assert (low, high) == (pytest.approx(expected.low, abs=1e-9), pytest.approx(expected.high, abs=1e-9))


@given(rates, st.lists(rates, min_size=1, max_size=30), st.integers(1, 500), st.integers(1, 6))
def test_an_interval_holds_its_rate_and_is_never_a_single_point(
    rate: float, replicates: list[float], subjects: int, images: int
) -> None:
    low, high = rate_interval(rate, replicates, subjects=subjects, trials=images * subjects)
    assert 0 <= low <= rate <= high <= 1
    assert low < high


@pytest.mark.parametrize("rate", [0.0, 1.0])
def test_where_nobody_fails_each_subject_is_one_trial(rate: float) -> None:
    for replicates in ([rate] * 50, [rate] * 49 + [0.5]):
        found = rate_interval(rate, replicates, subjects=194, trials=582)
        assert found == binomial_interval(194 * rate, 194)
    assert rate_interval(rate, [rate], subjects=194, trials=100) == binomial_interval(100 * rate, 100)


def test_all_of_194_found_are_no_proof_of_more_than_98_percent() -> None:
    low, high = rank1_interval(np.ones(194, bool), np.arange(194))
    assert (low, high) == (pytest.approx(0.025 ** (1 / 194)), 1)


def test_the_effective_size_is_the_number_of_what_is_independent() -> None:
    many, images = 300, 4
    random = np.random.default_rng(0)
    together = np.repeat(random.random(many) < 0.7, images)
    apart = random.random(many * images) < 0.7
    subjects = np.repeat(np.arange(many), images)
    for hits, expected in ((together, many), (apart, many * images)):
        drawn = rank1_replicates(hits, subjects)
        size = effective_size(float(hits.mean()), drawn, subjects=many, trials=hits.size)
        assert size == pytest.approx(expected, rel=0.2)


@given(rates, st.lists(rates, min_size=1, max_size=20), st.integers(1, 50), st.integers(1, 9))
def test_the_effective_size_lies_between_one_and_the_trials(
    rate: float, replicates: list[float], subjects: int, images: int
) -> None:
    assert 1 <= effective_size(rate, replicates, subjects=subjects, trials=images * subjects) <= images * subjects


def covered(subjects: int, rate: float, draws: int) -> tuple[float, float]:
    """How often the interval of one probe each, and that of the replicates' percentiles, hold the true rate."""
    of_count, held, percentile = {}, 0.0, 0.0
    for count in range(subjects + 1):
        likelihood = float(binom.pmf(count, subjects, rate))
        if likelihood < 1e-6:
            continue
        hits = np.arange(subjects) < count
        drawn = rank1_replicates(hits, np.arange(subjects), replicates=draws)
        low, high = rate_interval(count / subjects, drawn, subjects=subjects, trials=subjects)
        middle = np.quantile(drawn, [0.025, 0.975])
        of_count[count] = (low, high)
        held += likelihood * (low <= rate <= high)
        percentile += likelihood * (middle[0] <= rate <= middle[1])
    return held, percentile


@pytest.mark.parametrize(("subjects", "rate"), [(20, 0.9), (50, 0.98), (194, 0.995)])
def test_intervals_cover_near_one_where_percentiles_do_not(subjects: int, rate: float) -> None:
    held, percentile = covered(subjects, rate, 300)
    assert held >= 0.93
    assert percentile < 0.9


def test_the_simulation_runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", [str(BENCHMARK), "--smoke", "--json"])
    runpy.run_path(str(BENCHMARK), run_name="__main__")
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert {row["what"].split()[0] for row in rows} == {"vr", "rank1", "difference"}
    for row in rows:
        assert all(0 <= one["coverage"] <= 1 and one["width"] >= 0 for one in row["methods"].values())


def test_a_difference_of_paired_models_is_narrower_than_of_two_draws() -> None:
    data = cross_product(40, 2, seed=0)
    random = np.random.default_rng(1)
    other = {
        **data,
        "genuine": data["genuine"] + 0.1 + 0.2 * random.normal(size=data["genuine"].size),
        "impostor": data["impostor"] + 0.2 * random.normal(size=data["impostor"].size),
    }
    first, second, unpaired = (
        vr_replicates(**scores, fars=["0.01"], replicates=400, seed=seed)[0]
        for scores, seed in ((other, 0), (data, 0), (data, 1))
    )
    low, high = difference_interval(0.03, first, second, subjects=40)
    assert (low + high) / 2 == pytest.approx(0.03)
    assert high - low == pytest.approx(2 * 2.0227 * (first - second).std(), rel=1e-4)  # Student's t of 39
    assert difference_interval(-0.03, second, first, subjects=40) == (pytest.approx(-high), pytest.approx(-low))
    low_unpaired, high_unpaired = difference_interval(0.03, first, unpaired, subjects=40)
    assert high - low < 0.8 * (high_unpaired - low_unpaired)


def test_models_that_agree_on_every_subject_may_differ_on_others() -> None:
    drawn = rank1_replicates(np.arange(30) % 3 > 0, np.arange(30) // 2)
    low, high = difference_interval(0, drawn, drawn, subjects=15)
    assert high == -low == pytest.approx(1 - 0.025 ** (1 / 15))


@given(st.lists(st.tuples(rates, rates), min_size=1, max_size=20), st.integers(1, 40))
def test_a_difference_lies_in_its_interval_and_that_within_one(pairs: list[tuple[float, float]], subjects: int) -> None:
    a, b = (np.array(column) for column in zip(*pairs, strict=True))
    between = float(a[0] - b[0])
    low, high = difference_interval(between, a, b, subjects=subjects)
    assert -1 <= low <= between <= high <= 1
    assert low < high


def test_replicates_without_a_comparison_are_left_out() -> None:
    nan = math.nan
    assert rate_interval(0.5, [nan, 0.25, 0.75], subjects=4, trials=4) == rate_interval(
        0.5, [0.25, 0.75], subjects=4, trials=4
    )
    assert difference_interval(0.1, [nan, 0.5, 0.4], [0.1, nan, 0.25], subjects=4) == difference_interval(
        0.1, [0.4], [0.25], subjects=4
    )
    with pytest.raises(ValueError, match="too few subjects"):
        rate_interval(0.5, [nan], subjects=4, trials=4)
    with pytest.raises(ValueError, match="not paired"):
        difference_interval(0.1, [0.1, 0.2], [0.1], subjects=4)


@given(st.integers(1, 3000), st.data(), st.sampled_from([0.9, 0.95]))
def test_wilson_bounds_are_where_the_score_test_just_rejects(total: int, data, level: float) -> None:
    successes = data.draw(st.integers(0, total))
    low, high = wilson(successes, total, level)
    assert 0 <= low <= successes / total <= high <= 1
    z = {0.9: 1.6448536, 0.95: 1.9599640}[level]
    for bound, open_end in ((low, successes == 0), (high, successes == total)):
        if not open_end:
            assert abs(successes / total - bound) == pytest.approx(
                z * math.sqrt(bound * (1 - bound) / total), rel=1e-5, abs=1e-12
            )


def test_wilson_of_the_textbook() -> None:
    assert wilson(0, 10) == pytest.approx((0, 0.27753), abs=1e-5)  # Newcombe 1998, table I
    assert wilson(15, 148) == pytest.approx((0.0624, 0.1605), abs=1e-4)
    for successes, total in ((1, 0), (3, 2), (-1, 2)):
        with pytest.raises(ValueError, match="not a proportion"):
            wilson(successes, total)
