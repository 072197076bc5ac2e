from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from facedan_cli.adaptation.betas import RIDGE, Moments, kernel_moments, optimal_weights
from facedan_cli.adaptation.kernels import gaussian_kernels
from facedan_cli.adaptation.mmd import compare

MULTIPLIERS = (1.0, 2.0, 4.0)


def rows(count: int, *, seed: int, mean: float = 0.0) -> torch.Tensor:
    return mean + torch.randn(count, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def power(weights: np.ndarray, estimates: np.ndarray, covariance: np.ndarray) -> float:
    ridged = covariance + RIDGE * covariance.diagonal().mean() * np.eye(len(estimates))
    return float(weights @ estimates) ** 2 / float(weights @ ridged @ weights)


def best_of_all_active_sets(estimates: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """Every set of kernels that may be the positive ones is tried."""
    count = len(estimates)
    ridged = covariance + RIDGE * covariance.diagonal().mean() * np.eye(count)
    best, highest = np.zeros(count), -1.0
    for size in range(1, count + 1):
        for chosen in map(list, itertools.combinations(range(count), size)):
            weights = np.zeros(count)
            weights[chosen] = np.linalg.solve(ridged[np.ix_(chosen, chosen)], estimates[chosen])
            if (weights[chosen] > 0).all() and (value := power(weights, estimates, covariance)) > highest:
                best, highest = weights, value
    return best / best.sum()


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 6), st.integers(0, 10_000), st.floats(1e-6, 1e3))
def test_weights_are_the_best_of_all_active_sets(count: int, seed: int, scale: float) -> None:
    random = np.random.default_rng(seed)
    factor = random.normal(size=(count, count + 1))
    covariance, estimates = scale * factor @ factor.T, random.normal(size=count)
    estimates[random.integers(count)] = 1.0  # one at least sees a difference
    found = optimal_weights(Moments(torch.from_numpy(estimates), torch.from_numpy(covariance)))
    assert min(found) >= 0
    assert sum(found) == pytest.approx(1)
    np.testing.assert_allclose(found, best_of_all_active_sets(estimates, covariance), atol=1e-6)


def test_where_no_kernel_sees_a_difference_the_best_ratio_gets_all() -> None:
    estimates = torch.tensor([-1.0, -0.3, -0.5], dtype=torch.float64)
    covariance = torch.diag(torch.tensor([1.0, 0.01, 1.0], dtype=torch.float64))
    assert optimal_weights(Moments(estimates, covariance)) == (0, 0, 1)


def test_weights_of_moments_that_are_not_finite_are_nan() -> None:
    for estimates, variance in (([math.nan, 1.0], 1.0), ([1.0, 2.0], math.inf), ([-math.inf, 1.0], 1.0)):
        moments = Moments(torch.tensor(estimates).double(), variance * torch.eye(2).double())
        assert np.isnan(optimal_weights(moments)).all()


@given(st.floats(-300, 100), st.integers(0, 100))
def test_weights_do_not_depend_on_the_unit_of_the_distance(exponent: float, seed: int) -> None:
    random = np.random.default_rng(seed)
    estimates, root = random.normal(size=4), random.normal(size=(4, 9))
    unit = 10.0 ** (exponent / 2)
    found = [
        optimal_weights(Moments(torch.from_numpy(each * estimates), torch.from_numpy(each**2 * root @ root.T)))
        for each in (1.0, unit)
    ]
    np.testing.assert_allclose(found[0], found[1], rtol=1e-6, atol=1e-9)


def test_one_kernel_has_all_the_weight_whatever_it_sees() -> None:
    for value in (-1.0, 0.0, 2.0):
        moments = Moments(torch.tensor([value]).double(), torch.zeros(1, 1).double())
        assert optimal_weights(moments) == (1.0,)


@pytest.mark.parametrize(("n", "m"), [(6, 6), (7, 4), (3, 8)])
def test_moments_are_those_of_a_double_loop(n: int, m: int) -> None:
    source, target = rows(n, seed=1), rows(m, seed=2, mean=0.5)
    compared = compare(source, target)
    moments = kernel_moments(gaussian_kernels(compared.distances, 3.0, MULTIPLIERS), compared)
    q = min(n, m)

    def h(u: int, i: int, j: int) -> float:
        def k(x: torch.Tensor, y: torch.Tensor) -> float:
            return math.exp(-float((x - y).square().sum()) / (3 * MULTIPLIERS[u]))

        x, y = source, target
        return k(x[i], x[j]) + k(y[i], y[j]) - k(x[i], y[j]) - k(x[j], y[i])

    a = np.array([[np.mean([h(u, i, j) for j in range(q) if j != i]) for i in range(q)] for u in range(3)])
    np.testing.assert_allclose(moments.estimates, a.mean(axis=1), rtol=1e-9)
    np.testing.assert_allclose(moments.covariance, 4 * np.cov(a), rtol=1e-9)


def test_the_linear_estimators_moments_are_those_of_its_terms() -> None:
    source, target = rows(8, seed=1), rows(8, seed=2, mean=0.5)
    compared = compare(source, target, estimator="linear")
    kernels = gaussian_kernels(compared.distances, 3.0, MULTIPLIERS)
    moments = kernel_moments(kernels, compared)
    terms = np.array([(k[0] + k[1] - k[2] - k[3]).numpy() for k in kernels])
    np.testing.assert_allclose(moments.estimates, terms.mean(axis=1))
    np.testing.assert_allclose(moments.covariance, np.cov(terms))


def test_smoothing_is_an_exponential_mean() -> None:
    first, second = (Moments(torch.tensor([x]), torch.tensor([[2 * x]])) for x in (1.0, 3.0))
    assert first.smoothed(None, 0.75) is first
    mixed = second.smoothed(first, 0.75)
    assert float(mixed.estimates) == pytest.approx(1.5)
    assert float(mixed.covariance) == pytest.approx(3.0)


def test_weights_go_to_the_kernel_of_the_right_width() -> None:
    """The domains differ at a small scale only: a pattern of points half a unit apart, against smooth noise."""
    random = torch.Generator().manual_seed(0)
    source = torch.randn(200, 1, generator=random, dtype=torch.float64) * 3
    target = (torch.randn(200, 1, generator=random, dtype=torch.float64) * 3).round()
    compared = compare(source, target)
    factors = (0.05, 1.0, 50.0)
    weights = optimal_weights(kernel_moments(gaussian_kernels(compared.distances, 1.0, factors), compared))
    assert weights[0] > 0.9
