from __future__ import annotations

import pytest

from facedan_cli.errors import FacedanError, Interrupted, UsageError, did_you_mean


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("vggfase", "did you mean vggface?"),
        ("fc6", "did you mean fc6 or fc7?"),
        ("lbp", "models: fc6, fc7, vggface"),
    ],
)
def test_a_misspelt_word_is_answered_with_near_ones_else_with_all(word: str, hint: str) -> None:
    assert did_you_mean(word, {"vggface", "fc7", "fc6"}, of="models") == hint


def test_long_lists_are_cut_and_counted() -> None:
    hint = did_you_mean("x", [f"{number:02d}" for number in range(11)], of="runs")
    assert hint == "runs: 00, 01, 02, 03, 04, 05, 06, 07, 08, 09, … (11 in all)"


def test_where_nothing_is_known_it_says_so() -> None:
    assert did_you_mean("x", [], of="runs") == "there are no runs"


def test_errors_carry_their_exit_code_and_what_to_do() -> None:
    assert [kind.exit_code for kind in (FacedanError, UsageError, Interrupted)] == [1, 2, 130]
    error = UsageError("it broke", "mend it")
    assert (str(error), error.what, error.fix) == ("it broke", "it broke", "mend it")
    assert FacedanError("it broke").fix == ""
