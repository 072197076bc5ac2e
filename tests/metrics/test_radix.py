from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from facedan_cli.errors import UsageError
from facedan_cli.metrics.radix import Counts, Streamed, conclude, count_high, count_low, deciding_bins
from facedan_cli.metrics.roc import equal_error_rate, roc_curve, verification_rate

FARS = ("1", "0.5", "0.29", "0.1", "0.01")

# Neighbours of the last bit share the high 16 bits; 1.0 and 1.0078125 begin two bins.
NEIGHBOURS = [1.0, np.nextafter(np.float32(1), np.float32(2)), np.nextafter(np.float32(1), np.float32(0)), 1.0078125]
floats = st.one_of(
    st.sampled_from([*map(float, NEIGHBOURS), 0.0, -0.0, float("inf"), float("-inf"), 1e-45, -1e-45, -1.0, 3e38]),
    st.floats(width=32, allow_nan=False),
)
score_lists = st.lists(floats, min_size=1, max_size=40)


def stream(pieces: Sequence[tuple[np.ndarray, np.ndarray]], fars: Sequence[str], failed: int = 0) -> Streamed:
    high = sum((count_high(*piece) for piece in pieces[1:]), count_high(*pieces[0]))
    bins = deciding_bins(high, fars, failed)
    low = sum((count_low(*piece, bins) for piece in pieces[1:]), count_low(*pieces[0], bins))
    return conclude(high, low, bins, fars, failed)


def one_piece(genuine: Sequence[float], impostor: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    scores = np.array([*genuine, *impostor], np.float32)
    return scores, np.arange(scores.size) < len(genuine)


@settings(max_examples=50)
@given(score_lists, score_lists)
@example(genuine=[0.0], impostor=[-0.0, 0.0])
@example(genuine=[0.7], impostor=[0.7] * 5)  # one genuine comparison, all scores equal
def test_figures_are_those_of_all_scores_at_once(genuine: list[float], impostor: list[float]) -> None:
    found = stream([one_piece(genuine, impostor)], FARS)
    g, i = np.array(genuine, np.float32), np.array(impostor, np.float32)
    assert found.points == {far: verification_rate(g, i, far) for far in FARS}
    assert found.eer == equal_error_rate(g, i)


@settings(max_examples=25)
@given(score_lists, score_lists, st.integers(1, 2**38), st.integers(1, 2**44))
@example(genuine=[0.0, 1.0], impostor=[0.5, 0.25], often=2**38, others=2**44)
def test_the_equal_error_rate_of_counts_whose_product_passes_64_bits(
    genuine: list[float], impostor: list[float], often: int, others: int
) -> None:
    high = count_high(*one_piece(genuine, impostor))
    many = Counts(high.genuine * often, high.impostor * others)
    bins = deciding_bins(many, FARS)
    low = count_low(*one_piece(genuine, impostor), bins)
    found = conclude(many, Counts(low.genuine * often, low.impostor * others), bins, FARS)
    # The rates are those of each score once.
    assert found.eer == pytest.approx(equal_error_rate(np.array(genuine, np.float32), np.array(impostor, np.float32)))


@settings(max_examples=50)
@given(score_lists, score_lists, st.integers(0, 50))
def test_the_eer_with_failures_is_that_of_all_scores_at_once(
    genuine: list[float], impostor: list[float], failed: int
) -> None:
    found = stream([one_piece(genuine, impostor)], FARS, failed)
    g, i = np.array(genuine, np.float32), np.array(impostor, np.float32)
    assert found.eer_with_failures == equal_error_rate(g, i, failed=failed)
    assert found.eer == equal_error_rate(g, i)


@settings(max_examples=50)
@given(score_lists, score_lists)
def test_the_curve_has_exact_points_only(genuine: list[float], impostor: list[float]) -> None:
    found = stream([one_piece(genuine, impostor)], FARS)
    curve, whole = found.curve, roc_curve(np.array(genuine, np.float32), np.array(impostor, np.float32))
    assert (np.diff(curve.far) > 0).all()
    assert (np.diff(curve.vr) >= 0).all()
    assert (curve.far[0], curve.far[-1], curve.vr[-1]) == (0, whole.far[-1], whole.vr[-1])
    for far, vr, threshold in zip(curve.far, curve.vr, curve.threshold, strict=True):
        assert far == np.mean(np.array(impostor, np.float32) > threshold)
        assert vr == np.mean(np.array(genuine, np.float32) > threshold)
    asked = {(point.achieved_far, point.vr) for point in found.points.values()}
    assert asked <= set(zip(curve.far, curve.vr, strict=True))


def test_the_curve_of_many_scores_is_thin_and_close() -> None:
    rng = np.random.default_rng(0)
    genuine, impostor = (rng.normal(mean, 0.1, 50_000).astype(np.float32) for mean in (0.4, 0.1))
    curve, whole = stream([one_piece(genuine, impostor)], ["0.001"]).curve, roc_curve(genuine, impostor)
    assert 50 < curve.far.size < 450
    step = np.searchsorted(curve.far, whole.far, side="right") - 1
    assert (curve.vr[step] <= whole.vr).all()
    assert (whole.vr - curve.vr[step])[whole.far >= 0.001].max() < 0.03


@settings(max_examples=50)
@given(st.lists(st.tuples(floats, st.booleans()), min_size=2, max_size=60), st.lists(st.integers(0, 60), max_size=8))
def test_pieces_add_up(comparisons: list[tuple[float, bool]], cuts: list[int]) -> None:
    scores = np.array([score for score, _ in comparisons], np.float32)
    mates = np.array([mate for _, mate in comparisons])
    if mates.all() or not mates.any():
        mates[0] = not mates[0]
    pieces = list(zip(np.split(scores, sorted(cuts)), np.split(mates, sorted(cuts)), strict=True))
    assert stream(pieces, FARS).points == stream([(scores[::-1], mates[::-1])], FARS).points


@pytest.mark.filterwarnings("error")
def test_arrays_as_files_give_them() -> None:
    scores, mates = one_piece([0.3, 0.1, -2.0], [0.2, -0.5])
    expected = stream([(scores, mates)], FARS)
    other = scores.astype(">f4")
    other.flags.writeable = False
    assert stream([(other, mates)], FARS).points == expected.points
    assert stream([(scores[::-1].reshape(1, -1), mates[::-1].reshape(1, -1))], FARS).points == expected.points


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("bits", [0x7FC00000, 0xFFC00000, 0x7F800001, 0xFF800001, 0x7FFFFFFF, 0xFFFFFFFF])
def test_nan_of_every_kind_is_refused(bits: int) -> None:
    nan = np.array([bits], np.uint32).view(np.float32)
    scores = np.concatenate([np.array([0.5, np.inf, -np.inf], np.float32), nan])
    assert np.isnan(scores[3])
    with pytest.raises(ValueError, match="NaN"):
        stream([(scores, np.array([True, False, False, False]))], FARS)


def test_missing_comparisons_are_refused() -> None:
    with pytest.raises(ValueError, match="no impostor scores"):
        stream([one_piece([0.5], [])], FARS)
    with pytest.raises(ValueError, match="no genuine scores"):
        stream([one_piece([], [0.5])], FARS)


def test_unusable_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="float32"):
        count_high(np.array([0.5]), np.array([True]))
    with pytest.raises(ValueError, match="one bool a score"):
        count_high(np.float32([0.5, 0.1]), np.array([True]))
    with pytest.raises(ValueError, match="one bool a score"):
        count_low(np.float32([0.5]), np.array([1]), [0])
    with pytest.raises(UsageError, match="not a false-accept rate"):
        stream([one_piece([0.5], [0.1])], ["2"])


def test_a_second_pass_over_other_scores_is_noticed() -> None:
    high = count_high(*one_piece([0.5], [0.1]))
    bins = deciding_bins(high, ["0.1"])
    with pytest.raises(ValueError, match="bit for bit"):
        conclude(high, count_low(*one_piece([0.5], [0.2]), bins), bins, ["0.1"])


def test_counts_are_of_constant_size() -> None:
    rng = np.random.default_rng(0)
    counts = [count_high(rng.random(n, np.float32), rng.random(n) < 0.5) for n in (10, 100_000)]
    assert [piece.genuine.shape for piece in counts] == [(65536,), (65536,)]
    total = counts[0] + counts[1]
    assert isinstance(total, Counts)
    assert int(total.genuine.sum() + total.impostor.sum()) == 100_010
