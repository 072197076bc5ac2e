from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from facedan_cli.metrics.accuracy import best_threshold, fold_accuracy

pairs = st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=1, max_size=30)


@given(pairs)
def test_no_threshold_tells_more_pairs_rightly(listed: list[tuple[int, bool]]) -> None:
    scores, same = map(np.array, zip(*listed, strict=True))
    right = [np.sum((scores > cut) == same) for cut in [-np.inf, *scores]]
    assert np.sum((scores > best_threshold(scores, same)) == same) == max(right)


@given(pairs, st.integers(2, 4))
def test_each_fold_is_judged_by_the_threshold_of_the_others(listed: list[tuple[int, bool]], count: int) -> None:
    scores, same = (np.array(list(column) * count) for column in zip(*listed, strict=True))
    scores = scores + np.arange(scores.size) % 3
    folds = np.arange(scores.size) % count
    found = fold_accuracy(scores, same, folds)
    expected = []
    for fold in range(count):
        cut = best_threshold(scores[folds != fold], same[folds != fold])
        expected.append(np.mean([(score > cut) == mate for score, mate in zip(scores, same, strict=True)][fold::count]))
    assert found.folds == pytest.approx(expected)
    assert found.mean == pytest.approx(np.mean(expected))
    assert found.standard_error == pytest.approx(np.std(expected, ddof=1) / np.sqrt(count))


def test_the_threshold_lies_between_the_scores_that_it_tells_apart() -> None:
    assert best_threshold(np.array([0.8, 0.6, 0.2, 0.1]), np.array([True, True, False, False])) == pytest.approx(0.4)
    assert best_threshold(np.array([0.5, 0.5]), np.array([True, True])) == -np.inf
    assert best_threshold(np.array([0.5, 0.5]), np.array([False, False])) == 0.5
    lower, upper = 0.5, np.nextafter(0.5, 1)
    assert best_threshold(np.array([lower, upper]), np.array([False, True])) == lower


def test_infinite_scores_stay_on_their_side() -> None:
    scores, same = np.array([np.inf, 0.9, 0.1, -np.inf]), np.array([True, True, False, False])
    assert best_threshold(scores, same) == pytest.approx(0.5)
    assert best_threshold(np.array([np.inf, -np.inf]), np.array([True, False])) == -np.inf


def test_a_fold_does_not_choose_its_own_threshold() -> None:
    # The second fold is turned upside down: with the first one's threshold all of it is wrong, and the other way round.
    found = fold_accuracy([0.9, 0.1, 0.9, 0.1], [True, False, False, True], [0, 0, 1, 1])
    assert found.folds.tolist() == [0.5, 0.0]
    assert found.mean == 0.25


def test_unusable_pairs_are_refused() -> None:
    with pytest.raises(ValueError, match="two folds"):
        fold_accuracy([0.1, 0.2], [True, False], [1, 1])
    with pytest.raises(ValueError, match="NaN"):
        fold_accuracy([np.nan, 0.2], [True, False], [1, 2])
    with pytest.raises(ValueError, match="differ in shape"):
        fold_accuracy([0.1, 0.2], [True], [1, 2])
