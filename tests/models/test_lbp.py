from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from facedan_cli.models import lbp

WHOLE_CIRCLE = 0b11111111
ON_THE_AXES = 0b01010101


def random_images(count: int, height: int, width: int, *, greys: int = 256, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, greys, (count, height, width), generator=generator, dtype=torch.uint8)


def slow_pattern(image: np.ndarray, row: int, column: int) -> int:
    """Ojala's definition by floating point, in which 1e-9 is a tie."""
    pattern = 0
    for bit in range(8):
        y, x = row - 2 * math.sin(2 * math.pi * bit / 8), column + 2 * math.cos(2 * math.pi * bit / 8)
        top, left = math.floor(y + 1e-9), math.floor(x + 1e-9)
        value = 0.0
        for pixel_y in (top, top + 1):
            for pixel_x in (left, left + 1):
                weight = max(0.0, 1 - abs(y - pixel_y)) * max(0.0, 1 - abs(x - pixel_x))
                value += weight * float(image[pixel_y, pixel_x]) if weight > 1e-9 else 0.0
        if value >= image[row, column] - 1e-9:
            pattern |= 1 << bit
    return pattern


def slow_patterns(image: np.ndarray) -> list[list[int]]:
    height, width = image.shape
    return [[slow_pattern(image, row, column) for column in range(2, width - 2)] for row in range(2, height - 2)]


def circular_changes(pattern: int) -> int:
    bits = f"{pattern:08b}"
    return sum(a != b for a, b in zip(bits, bits[1:] + bits[:1], strict=True))


def slow_chi_square(a: np.ndarray, b: np.ndarray) -> float:
    return sum((x - y) ** 2 / (x + y) for x, y in zip(a.tolist(), b.tolist(), strict=True) if x + y > 0)


@pytest.mark.parametrize("greys", [2, 3, 9, 256])  # few greys: many ties
def test_patterns_are_those_of_a_double_loop(greys: int) -> None:
    some = random_images(2, 13, 17, greys=greys)
    expected = [slow_patterns(image) for image in some.numpy()]
    assert lbp.binary_patterns(some).tolist() == expected


def test_a_tie_counts_as_lighter_and_one_grey_less_does_not() -> None:
    flat = torch.full((1, 5, 5), 137, dtype=torch.uint8)
    assert lbp.binary_patterns(flat).item() == WHOLE_CIRCLE
    for bit, (row, column) in {0: (2, 4), 2: (0, 2), 4: (2, 0), 6: (4, 2)}.items():
        darker = flat.clone()
        darker[0, row, column] -= 1
        assert lbp.binary_patterns(darker).item() == WHOLE_CIRCLE - (1 << bit)
    # The upper right diagonal: the nearest pixel one lighter and the farthest two darker are a tie in whole numbers,
    # though the weights are irrational.
    balanced = flat.clone()
    balanced[0, 1, 3] += 1
    balanced[0, 0, 4] -= 2
    assert lbp.binary_patterns(balanced).item() == WHOLE_CIRCLE
    balanced[0, 0, 4] -= 1
    assert lbp.binary_patterns(balanced).item() == WHOLE_CIRCLE - (1 << 1)


@settings(max_examples=30, deadline=None)
@given(arrays(np.uint8, (1, 9, 8), elements=st.integers(0, 84)), st.integers(1, 3), st.integers(0, 3))
def test_gain_and_offset_change_no_pattern(image: np.ndarray, gain: int, offset: int) -> None:
    before = torch.from_numpy(image)
    assert torch.equal(lbp.binary_patterns(before * gain + offset), lbp.binary_patterns(before))


@settings(max_examples=30, deadline=None)
@given(arrays(np.uint8, (1, 9, 8), elements=st.integers(0, 20)), st.sets(st.integers(0, 255), min_size=21, max_size=21))
def test_no_rising_curve_of_greys_changes_bits_on_the_axes(image: np.ndarray, curve: set[int]) -> None:
    """Off the axes a curve changes what lies between pixels."""
    curved = torch.tensor(sorted(curve), dtype=torch.uint8)[torch.from_numpy(image).long()]
    before, after = lbp.binary_patterns(torch.from_numpy(image)), lbp.binary_patterns(curved)
    assert torch.equal(before & ON_THE_AXES, after & ON_THE_AXES)


def test_a_quarter_turn_moves_the_bits_by_two_places() -> None:
    some = random_images(3, 12, 12)
    straight = lbp.binary_patterns(some).int()
    turned = lbp.binary_patterns(torch.rot90(some, 1, (1, 2))).int()  # counter-clockwise
    assert torch.equal(turned, torch.rot90((straight << 2 | straight >> 6) & 255, 1, (1, 2)))


def test_uniform_patterns_have_labels_of_their_own_and_others_share_one() -> None:
    labels = lbp.uniform_labels(torch.arange(256)).tolist()
    uniform = [pattern for pattern in range(256) if circular_changes(pattern) <= 2]
    assert [labels[pattern] for pattern in uniform] == list(range(58))
    assert {labels[pattern] for pattern in set(range(256)) - set(uniform)} == {58}


@pytest.mark.parametrize(("rows", "columns"), [(7, 7), (2, 3), (1, 1), (9, 4)])
def test_histograms_are_shares_of_each_region(rows: int, columns: int) -> None:
    some = random_images(2, 27, 22)
    found = lbp.histograms(some, rows, columns)
    assert (found.shape, found.dtype) == ((2, rows * columns, 59), torch.float32)
    labels = lbp.uniform_labels(lbp.binary_patterns(some)).numpy()
    expected = np.zeros((2, rows, columns, 59))
    for image, row, column in np.ndindex(2, 23, 18):
        expected[image, row * rows // 23, column * columns // 18, labels[image, row, column]] += 1
    expected /= expected.sum(-1, keepdims=True)
    np.testing.assert_allclose(found.numpy(), expected.reshape(2, -1, 59), rtol=1e-6)
    torch.testing.assert_close(found.sum(-1), torch.ones(2, rows * columns))
    assert torch.equal(lbp.histograms(some[1:], rows, columns), found[1:])


def test_regions_of_the_published_window_are_18_by_21() -> None:
    some = random_images(1, lbp.FRAME.height, lbp.FRAME.width)
    labels = lbp.uniform_labels(lbp.binary_patterns(some))[0]
    first = torch.bincount(labels[:21, :18].flatten(), minlength=59) / (18 * 21)
    assert torch.equal(lbp.histograms(some, 7, 7)[0, 0], first)


def test_weights_are_the_published_ones() -> None:
    rows = ["".join(map(str, row)) for row in lbp.WEIGHTS]
    assert rows == ["2111112", "2441442", "1110111", "0110110", "0111110", "0112110", "0111110"]


def test_weighted_features_have_the_weighted_chi_square(monkeypatch: pytest.MonkeyPatch) -> None:
    some = random_images(2, 40, 36)
    weight = np.array(lbp.WEIGHTS).flatten()
    regions = lbp.histograms(some, 7, 7).double().numpy()
    expected = sum(w * slow_chi_square(a, b) for w, a, b in zip(weight, *regions, strict=True))
    features = lbp.features(some)
    assert features.shape == (2, 59 * int((weight > 0).sum()))
    assert lbp.chi_square(*features).item() == pytest.approx(expected, rel=1e-5)
    monkeypatch.setattr(lbp, "WEIGHTS", np.ones((7, 7)).tolist())
    assert torch.equal(lbp.features(some), lbp.histograms(some, 7, 7).flatten(1))


def test_chi_square_is_symmetric_bounded_and_zero_to_oneself() -> None:
    features = lbp.histograms(random_images(6, 30, 30), 2, 2).flatten(1)
    scores = lbp.similarities(features, features)
    assert torch.equal(scores, scores.T)
    assert torch.equal(scores.diagonal(), torch.zeros(6))
    assert scores.max() <= 0
    assert scores.min() >= -2 * 4
    apart = torch.eye(2)  # nothing in common
    assert lbp.chi_square(*apart).item() == 2


@pytest.mark.parametrize("held", [1, 100, 1000, 1 << 18])
@pytest.mark.parametrize(("queries", "targets"), [(5, 9), (9, 2), (1, 1), (0, 3), (3, 0)])
def test_similarities_are_those_of_a_double_loop_and_few_are_held(
    held: int, queries: int, targets: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lbp, "_IN_CACHE", held)
    at_once = []

    def counted(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        found = chi_square(a, b)
        at_once.append(found.numel() * a.shape[-1])
        return found

    chi_square = lbp.chi_square
    monkeypatch.setattr(lbp, "chi_square", counted)
    a = lbp.histograms(random_images(queries, 12, 12, seed=1), 1, 2).flatten(1)
    b = lbp.histograms(random_images(targets, 12, 12, seed=2), 1, 2).flatten(1)
    expected = [[-slow_chi_square(x, y) for y in b.numpy()] for x in a.numpy()]
    np.testing.assert_allclose(lbp.similarities(a, b), np.reshape(expected, (queries, targets)), rtol=1e-5)
    assert max(at_once, default=0) <= max(held, a.shape[1])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_gives_the_same() -> None:
    some = random_images(4, 150, 130)
    features = lbp.features(some.cuda())
    assert torch.equal(features.cpu(), lbp.features(some))
    torch.testing.assert_close(lbp.similarities(features, features).cpu(), lbp.similarities(*[features.cpu()] * 2))


@pytest.mark.parametrize("wrong", [torch.zeros(1, 9, 9), torch.zeros(9, 9, dtype=torch.uint8), random_images(1, 4, 9)])
def test_images_that_have_no_patterns_are_refused(wrong: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="grey uint8 images"):
        lbp.binary_patterns(wrong)


def test_images_too_small_for_the_grid_are_refused() -> None:
    with pytest.raises(ValueError, match="7×7 regions"):
        lbp.features(random_images(1, 9, 10))
