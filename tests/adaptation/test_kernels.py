from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from facedan_cli.adaptation import kernels
from facedan_cli.adaptation.kernels import (
    doubling_multipliers,
    gaussian_kernel,
    gaussian_kernels,
    median_bandwidth,
    squared_distances,
)


def rows(count: int, size: int, *, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(count, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def distance(x: Tensor, y: Tensor) -> float:
    return sum((float(a) - float(b)) ** 2 for a, b in zip(x, y, strict=True))


def slow_distances(features: Tensor) -> Tensor:
    return torch.tensor([[distance(x, y) for y in features] for x in features], dtype=torch.float64)


@pytest.mark.parametrize(("count", "size"), [(1, 3), (2, 1), (7, 5), (12, 33)])
def test_distances_are_those_of_a_double_loop(count: int, size: int) -> None:
    features = rows(count, size)
    torch.testing.assert_close(squared_distances(features), slow_distances(features), rtol=1e-12, atol=1e-12)


def test_distances_are_symmetric_not_negative_and_zero_to_oneself() -> None:
    features = rows(40, 300, dtype=torch.float32) + 5
    features[7] = features[3]
    features[20:] = features[:20] + 1e-5 * features[20:]  # so near that rounding alone may tell them apart
    distances = squared_distances(features)
    assert torch.equal(distances, distances.T)
    assert torch.equal(distances.diagonal(), torch.zeros(40))
    assert distances.min() >= 0
    assert distances[3, 7] < 1e-3


def test_a_large_common_mean_costs_no_digits() -> None:
    features = (rows(64, 512) + 100).float()
    exact = (features.double()[:, None] - features.double()).square().sum(dim=2)
    median = exact.median()
    gram = features @ features.T
    plain = gram.diagonal()[:, None] + gram.diagonal() - 2 * gram
    assert (squared_distances(features) - exact).abs().max() / median < 1e-6
    assert (plain - exact).abs().max() / median > 1e-4  # what the centring saves


def scattered(apart: float, layout: str) -> tuple[Tensor, Tensor]:
    """Two domains in float32 of deviation 1, their means or the means of clusters within them so far apart."""
    source, target = rows(12, 64, seed=1), rows(10, 64, seed=2)
    if layout == "domains":
        target += apart
    elif layout == "clusters":
        for domain in (source, target):
            domain[::2] += apart * rows(1, 64, seed=3)
    else:  # one row far from all others
        source[5] += apart
    return source.float(), target.float()


@pytest.mark.parametrize("layout", ["domains", "clusters", "outlier"])
@pytest.mark.parametrize("apart", [0.0, 100.0, 10_000.0])
def test_what_lies_far_apart_costs_what_lies_near_no_digits(apart: float, layout: str) -> None:
    parts = [part.requires_grad_() for part in scattered(apart, layout)]
    slow = [part.detach().double().requires_grad_() for part in parts]
    joined = torch.cat(slow)
    exact = (joined[:, None] - joined).square().sum(dim=2)
    found = squared_distances(*parts)
    torch.testing.assert_close(found.double(), exact, rtol=1e-6, atol=0)
    for distances in (found, exact):  # of the near ones the kernel's slope is large
        gaussian_kernel(distances, 128.0, (0.2,) * 5).sum().backward()
    for part, of in zip(parts, slow, strict=True):
        assert (part.grad - of.grad).norm() < 1e-6 * max(1.0, apart) * of.grad.norm()


@pytest.mark.parametrize("width", [3, 4, 1024])
def test_parts_are_compared_as_one_and_blocks_of_columns_add_up(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "COLUMNS_AT_ONCE", width)
    one, two = rows(2, 11, seed=1).requires_grad_(), rows(1, 11, seed=2).requires_grad_()
    features = torch.cat([one, two]).detach()
    torch.testing.assert_close(squared_distances(one, two).detach(), slow_distances(features), rtol=1e-12, atol=1e-12)
    assert torch.autograd.gradcheck(squared_distances, (one, two))
    assert torch.autograd.gradcheck(lambda x: squared_distances(x, two.detach()), one)


def test_distances_have_the_right_gradient_and_none_at_distance_zero() -> None:
    features = rows(5, 4).requires_grad_()
    assert torch.autograd.gradcheck(squared_distances, features)
    twins = torch.ones(2, 4, requires_grad=True)
    squared_distances(twins).sum().backward()
    assert torch.equal(twins.grad, torch.zeros(2, 4))


@pytest.mark.parametrize(("n", "m"), [(2, 2), (3, 2), (5, 8)])
def test_the_bandwidth_is_the_median_squared_distance_of_both_domains_pooled(n: int, m: int) -> None:
    source, target = rows(n, 6, seed=1), rows(m, 6, seed=2) + 1
    pooled = torch.cat([source, target])
    distances = sorted(distance(pooled[i], pooled[j]) for i in range(n + m) for j in range(i))
    expected = distances[(len(distances) - 1) // 2]  # the lower of the two middle ones where their number is even
    assert median_bandwidth(source, target) == pytest.approx(expected, rel=1e-6)


def test_the_bandwidth_scales_with_the_square_and_carries_no_gradient() -> None:
    source, target = rows(6, 9, seed=1).requires_grad_(), rows(4, 9, seed=2)
    bandwidth = median_bandwidth(source, target)
    assert isinstance(bandwidth, float)
    assert median_bandwidth(3 * source, 3 * target) == pytest.approx(9 * bandwidth, rel=1e-6)
    assert median_bandwidth(target, source) == pytest.approx(bandwidth, rel=1e-6)


@pytest.mark.parametrize("value", [0.0, 1.0, math.nan, math.inf])
def test_collapsed_or_broken_features_have_no_bandwidth(value: float) -> None:
    features = torch.full((4, 3), value)
    with pytest.raises(ValueError, match="no bandwidth"):
        median_bandwidth(features, features)


def test_five_kernels_have_the_papers_bandwidths() -> None:
    assert doubling_multipliers(5) == (1, 2, 4, 8, 16)
    assert doubling_multipliers(1) == (1,)


def test_of_octaves_only_the_widest_costs_an_exponential(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    exp = torch.exp
    monkeypatch.setattr(torch, "exp", lambda values: calls.append(1) or exp(values))
    gaussian_kernels(torch.ones(3), 2.0, (1, 2, 4, 8, 16))
    assert len(calls) == 1
    gaussian_kernels(torch.ones(3), 2.0, (1, 3, 9))
    assert len(calls) == 4


@pytest.mark.parametrize("weights", [(1.0,), (0.2,) * 5, (0.7, 0.0, 0.3), (0.0, 1.0)])
def test_the_kernel_is_the_weighted_mean_of_gaussians(weights: tuple[float, ...]) -> None:
    distances, bandwidth = torch.linspace(0, 40, 9, dtype=torch.float64), 2.5
    expected = [
        sum(
            b * math.exp(-d / (bandwidth * f)) for b, f in zip(weights, doubling_multipliers(len(weights)), strict=True)
        )
        for d in distances.tolist()
    ]
    kernel = gaussian_kernel(distances, bandwidth, weights)
    np.testing.assert_allclose(kernel, expected, rtol=1e-12)
    assert kernel[0] == pytest.approx(1.0)  # averaged, not summed
    assert bool((kernel.diff() < 0).all())
