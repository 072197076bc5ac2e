from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from facedan_cli.evaluation.save_scores import file_names


def test_names_that_are_unlike_enough_are_kept() -> None:
    names = ["DAN_m67", "λ = 0", "source only"]
    assert list(file_names(names, taken=("mask",)).values()) == ["DAN_m67", "lambda-0", "source-only"]


@given(
    st.sets(st.sampled_from(["a b", "a-b", "A b", "a/b", "mask", "Mask", "模型", "型", "", "-", "λ", "lambda", "m67"]))
)
def test_no_two_names_share_a_file(names: set[str]) -> None:
    found = file_names(sorted(names), taken=("mask",))
    assert found.keys() == names
    assert len({part.casefold() for part in found.values()} | {"mask"}) == len(names) + 1
    assert all(part and "/" not in part for part in found.values())
