from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from facedan_cli.metrics.identification import cmc, rank_1, ranks

PEOPLE = "abcde"


@st.composite
def searches(draw):
    """A matrix of tied scores with the subjects of its probes and gallery entries."""
    probes = draw(st.lists(st.sampled_from(PEOPLE), min_size=1, max_size=6))
    gallery = draw(st.lists(st.sampled_from(PEOPLE), min_size=1, max_size=8))
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
