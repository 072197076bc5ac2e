from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from facedan_cli.evaluation.failures import all_pairs_failures, identification_failures
from facedan_cli.evaluation.trials import ImageSet, Trials


def side(subjects: list[str]) -> ImageSet:
    return ImageSet(
        np.arange(len(subjects)), np.array(subjects, str), [Path(f"{row}.png") for row in range(len(subjects))]
    )


SUBJECTS = st.lists(st.sampled_from("abcd"), min_size=1, max_size=8)


@given(query=SUBJECTS, target=SUBJECTS, data=st.data())
def test_what_is_made_and_what_failed_are_all_that_the_protocol_means(
    query: list[str], target: list[str], data: st.DataObject
) -> None:
    q_there, t_there = (
        np.array(data.draw(st.lists(st.booleans(), min_size=len(names), max_size=len(names))), bool)
        for names in (query, target)
    )
    failures = all_pairs_failures(np.array(query), np.array(target), q_there, t_there, 7)
    pairs = [(a, b, x and y) for a, x in zip(query, q_there, strict=True) for b, y in zip(target, t_there, strict=True)]
    assert sorted(failures.genuine) == sorted(a for a, b, made in pairs if a == b and not made)
    assert failures.impostor == sum(a != b and not made for a, b, made in pairs)
    assert failures.images == 7


IMAGES = st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("12345"), st.booleans()), min_size=1, max_size=8)


@given(query=IMAGES, target=IMAGES)
def test_an_image_without_features_on_both_sides_has_not_failed_to_meet_itself(
    query: list[tuple[str, str, bool]], target: list[tuple[str, str, bool]]
) -> None:
    sides = [np.array([row[0] for row in rows]) for rows in (query, target)]
    there = [np.array([row[2] for row in rows]) for rows in (query, target)]
    lost = [name for _, name, is_there in query if not is_there], [name for _, name, made in target if not made]
    failures = all_pairs_failures(*sides, *there, 0, lost=lost)
    pairs = [(a, b) for a in query for b in target if not (a[2] and b[2]) and (a[1] != b[1] or a[2] or b[2])]
    assert sorted(failures.genuine) == sorted(a[0] for a, b in pairs if a[0] == b[0])
    assert failures.impostor == sum(a[0] != b[0] for a, b in pairs)


@given(subjects=SUBJECTS, data=st.data())
def test_of_one_set_each_pair_counts_once(subjects: list[str], data: st.DataObject) -> None:
    there = np.array(data.draw(st.lists(st.booleans(), min_size=len(subjects), max_size=len(subjects))), bool)
    names = np.array(subjects)
    failures = all_pairs_failures(names, names, there, there, 0, symmetric=True)
    lost = [(i, j) for j in range(len(names)) for i in range(j) if not (there[i] and there[j])]
    assert sorted(failures.genuine) == sorted(names[i] for i, j in lost if names[i] == names[j])
    assert failures.impostor == sum(bool(names[i] != names[j]) for i, j in lost)
    trials = Trials(side(subjects), side(subjects), symmetric=True)
    count = len(subjects) * (len(subjects) - 1) // 2
    assert int(trials.genuine.sum() + trials.impostor.sum()) == count


def test_a_probe_without_its_only_mate_has_failed_and_one_without_any_has_not() -> None:
    failures, searched = identification_failures(
        np.array(["a", "b", "c", "d"]),
        np.array(["a", "b", "c"]),
        np.array([True, False, True, True]),
        np.array([True, True, False]),
        2,
    )
    assert list(failures.genuine) == ["b", "c"]  # b was not acquired, nor was c's mate; d is nobody of the gallery
    assert list(searched) == [True, False, True]  # of those that are there, c would pass for a stranger


def test_a_probe_without_features_that_is_its_own_only_mate_has_not_failed() -> None:
    query, target = np.array(["a", "b", "c"]), np.array(["a", "b", "b", "c"])
    there = np.array([False, False, True]), np.array([False, False, True, True])
    failures, searched = identification_failures(query, target, *there, 2, lost=(["1", "2"], ["1", "2"]))
    assert list(failures.genuine) == ["b"]  # which has another mate
    assert list(searched) == [True]
    other, _ = identification_failures(query, target, *there, 3, lost=(["1", "2"], ["3", "2"]))
    assert list(other.genuine) == ["a", "b"]


def test_scores_and_subjects_belong_together() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(5, 4))
    trials = Trials(side(["a", "b", "a"]), ImageSet(np.array([3, 4]), np.array(["b", "a"]), [Path("x"), Path("y")]))
    scores = trials.score(vectors, vectors)
    compared = trials.compare(scores)
    expected = {(i, j): vectors[i] @ vectors[j] for i in range(3) for j in (3, 4)}
    assert list(compared.genuine) == pytest.approx([expected[0, 4], expected[1, 3], expected[2, 4]])
    assert list(compared.impostor) == pytest.approx([expected[0, 3], expected[1, 4], expected[2, 3]])
    assert compared.genuine_subject is not None
    assert list(compared.genuine_subject) == [0, 1, 0]
    assert compared.impostor_subjects is not None
    assert [list(subjects) for subjects in compared.impostor_subjects] == [[0, 1, 0], [1, 0, 1]]


def test_pairs_are_scored_row_by_row_however_many() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(9, 4)).astype(np.float32)
    rows = rng.integers(9, size=(2, (1 << 16) + 3))
    names = np.full(rows.shape[1], "a")
    sides = [ImageSet(row, names, []) for row in rows]
    trials = Trials(*sides, all_pairs=False, same=np.ones(rows.shape[1], bool))
    np.testing.assert_allclose(trials.score(vectors, vectors), (vectors[rows[0]] * vectors[rows[1]]).sum(1), rtol=1e-5)
    assert trials.sides(5) == (5, 5)
