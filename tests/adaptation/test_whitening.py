"""Whitening by the moments of a domain, and the estimated number of people, on drawn embeddings."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import fractional_matrix_power

from facedan_cli.adaptation.whitening import estimated_people, whitening


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def drawn_people(count: int, images: int, *, seed: int = 0, length: int = 64, spread: float = 0.5) -> np.ndarray:
    """Embeddings of `images` images of each of `count` people, around a mean of their own domain."""
    rng = np.random.default_rng(seed)
    people = unit(rng.normal(size=(count, length))).repeat(images, axis=0)
    noise = rng.normal(size=people.shape) * spread / np.sqrt(length)
    return unit(people + noise + rng.normal(size=length) * 0.1)


def covariance_of(rows: np.ndarray) -> np.ndarray:
    """Ledoit and Wolf (2004), Lemma 3.2 and 3.3, term by term."""
    n, d = rows.shape
    x = rows - sum(rows) / n
    sample = sum(np.outer(one, one) for one in x) / n
    m = np.trace(sample) / d
    distance = ((sample - m * np.eye(d)) ** 2).sum() / d
    error = min(sum(((np.outer(one, one) - sample) ** 2).sum() / d for one in x) / n**2, distance)
    return error / distance * m * np.eye(d) + (distance - error) / distance * sample


@pytest.mark.parametrize("power", [0.0, 0.25, 0.5])
def test_the_matrix_is_a_power_of_the_shrunk_covariance(power: float) -> None:
    rows = drawn_people(12, 3, length=8)
    mean, matrix = whitening(rows, power)
    np.testing.assert_allclose(mean, sum(rows) / len(rows), atol=1e-12)
    np.testing.assert_allclose(matrix, fractional_matrix_power(covariance_of(rows), -power), rtol=1e-6, atol=1e-9)


def test_directions_beyond_the_rank_share_their_mean_variance() -> None:
    rows = drawn_people(12, 3, length=8)
    variances, directions = np.linalg.eigh(covariance_of(rows))
    variances[:5] = variances[:5].mean()
    expected = sum(v**-0.5 * np.outer(e, e) for v, e in zip(variances, directions.T, strict=True))
    np.testing.assert_allclose(whitening(rows, 0.5, 3)[1], expected, rtol=1e-6, atol=1e-9)
    np.testing.assert_array_equal(whitening(rows, 0.5, 8)[1], whitening(rows, 0.5)[1])


def test_rows_that_do_not_differ_have_no_moments() -> None:
    for rows in (np.ones((1, 4)), np.ones((6, 4))):
        with pytest.raises(ValueError, match="two different rows"):
            whitening(rows, 0.25)


@pytest.mark.parametrize(("count", "images"), [(3, 20), (10, 1), (10, 8), (25, 4), (60, 5)])
@pytest.mark.parametrize("seed", [0, 1])
def test_people_are_counted_not_images(count: int, images: int, seed: int) -> None:
    source = drawn_people(100, 1, seed=7)
    found = estimated_people(drawn_people(count, images, seed=seed), source)
    assert found == pytest.approx(count, rel=0.2)


def test_an_odd_image_counts_little_and_few_impostors_tell_nothing() -> None:
    rows = np.concatenate([drawn_people(4, 25), drawn_people(2, 1, seed=9)])
    assert estimated_people(rows, drawn_people(100, 1, seed=7)) == pytest.approx(4, abs=0.5)
    with pytest.raises(ValueError, match="three of the source"):
        estimated_people(rows, rows[:2])
