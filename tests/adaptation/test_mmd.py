from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from facedan_cli.adaptation.mmd import compare, mk_mmd

ESTIMATORS = ("unbiased", "biased")
ALL = (*ESTIMATORS, "linear")
ONE, FIVE = (1.0,), (0.2,) * 5


def rows(count: int, size: int = 6, *, seed: int = 0, mean: float = 0.0) -> Tensor:
    return mean + torch.randn(count, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def slow_mmd(source: Tensor, target: Tensor, bandwidth: float, weights: Sequence[float], estimator: str) -> float:
    """Eq. 2 and 3 of the paper, its unbiased and its linear form, term by term."""

    def k(x: Tensor, y: Tensor) -> float:
        squared = sum((float(a) - float(b)) ** 2 for a, b in zip(x, y, strict=True))
        return sum(beta * math.exp(-squared / (bandwidth * 2**u)) for u, beta in enumerate(weights))

    if estimator == "linear":
        quadruples = [
            (source[2 * i], source[2 * i + 1], target[2 * i], target[2 * i + 1])
            for i in range(min(len(source), len(target)) // 2)
        ]
        terms = [k(x1, x2) + k(y1, y2) - k(x1, y2) - k(x2, y1) for x1, x2, y1, y2 in quadruples]
        return sum(terms) / len(terms)

    def within(x: Tensor) -> float:
        n, biased = len(x), estimator == "biased"
        total = sum(k(x[i], x[j]) for i in range(n) for j in range(n) if biased or i != j)
        return total / (n * n if biased else n * (n - 1))

    between = sum(k(x, y) for x in source for y in target) / (len(source) * len(target))
    return within(source) + within(target) - 2 * between


@pytest.mark.parametrize("estimator", ALL)
@pytest.mark.parametrize("weights", [ONE, FIVE, (0.5, 0.0, 0.5)])
@pytest.mark.parametrize(("n", "m"), [(2, 2), (5, 5), (3, 8), (9, 2)])
def test_the_estimators_are_those_of_a_double_loop(n: int, m: int, weights: tuple[float, ...], estimator: str) -> None:
    source, target = rows(n, seed=1), rows(m, seed=2, mean=0.5)
    found = mk_mmd(source, target, bandwidth=7.0, weights=weights, estimator=estimator)
    assert float(found) == pytest.approx(slow_mmd(source, target, 7.0, weights, estimator), rel=1e-10, abs=1e-12)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_rows_have_no_order_and_domains_no_rank(estimator: str) -> None:
    source, target = rows(7, seed=1), rows(5, seed=2, mean=1)
    value = mk_mmd(source, target, bandwidth=9.0, weights=FIVE, estimator=estimator)
    swapped = mk_mmd(target, source, bandwidth=9.0, weights=FIVE, estimator=estimator)
    shuffled = mk_mmd(source[[3, 0, 6, 1, 5, 2, 4]], target.flip(0), bandwidth=9.0, weights=FIVE, estimator=estimator)
    torch.testing.assert_close(swapped, value, rtol=1e-12, atol=0)
    torch.testing.assert_close(shuffled, value, rtol=1e-12, atol=0)


@pytest.mark.parametrize("estimator", ALL)
def test_features_and_bandwidth_scale_together(estimator: str) -> None:
    source, target = rows(6, seed=1), rows(4, seed=2)
    value = mk_mmd(source, target, bandwidth=5.0, weights=FIVE, estimator=estimator)
    scaled = mk_mmd(3 * source, 3 * target, bandwidth=45.0, weights=FIVE, estimator=estimator)
    torch.testing.assert_close(scaled, value, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_duplicate_rows_count_as_rows_and_have_a_gradient(estimator: str) -> None:
    source, target = rows(4, seed=1)[[0, 1, 1, 3]].requires_grad_(), rows(3, seed=2)[[2, 2, 2]]
    value = mk_mmd(source, target, bandwidth=5.0, weights=FIVE, estimator=estimator)
    assert value.item() == pytest.approx(slow_mmd(source.detach(), target, 5.0, FIVE, estimator), rel=1e-10)
    value.backward()
    assert source.grad is not None
    assert bool(source.grad.isfinite().all())
    torch.testing.assert_close(source.grad[1], source.grad[2])


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_two_points_far_apart_differ_by_two(estimator: str) -> None:
    value = mk_mmd(torch.zeros(3, 4), torch.full((5, 4), 1e3), bandwidth=1.0, weights=FIVE, estimator=estimator)
    assert float(value) == pytest.approx(2.0)


def test_kernels_are_averaged_not_summed() -> None:
    source, target = rows(6, seed=1), rows(6, seed=2, mean=1)
    single = [float(mk_mmd(source, target, bandwidth=3.0 * 2**u)) for u in range(5)]
    assert float(mk_mmd(source, target, bandwidth=3.0, weights=FIVE)) == pytest.approx(sum(single) / 5)


def test_on_equal_distributions_only_the_unbiased_estimate_is_zero_on_average() -> None:
    """E[biased] − E[unbiased] = (1/n + 1/m)(1 − E k): the bias of the diagonals."""
    n, m, draws, size, bandwidth = 6, 9, 400, 4, 8.0
    values: dict[str, list[float]] = {estimator: [] for estimator in ESTIMATORS}
    for draw in range(draws):
        source, target = rows(n, size, seed=2 * draw), rows(m, size, seed=2 * draw + 1)
        for estimator in ESTIMATORS:
            values[estimator].append(float(mk_mmd(source, target, bandwidth=bandwidth, estimator=estimator)))
    means = {estimator: sum(found) / draws for estimator, found in values.items()}
    errors = {e: torch.tensor(found).std().item() / math.sqrt(draws) for e, found in values.items()}
    # Differences of such rows are normal with variance 2: E exp(−‖x−y‖²/γ) = (1 + 4/γ)^(−d/2).
    bias = (1 / n + 1 / m) * (1 - (1 + 4 / bandwidth) ** (-size / 2))
    assert abs(means["unbiased"]) < 3 * errors["unbiased"]
    assert abs(means["biased"] - bias) < 3 * errors["biased"]
    assert bias > 20 * errors["biased"]  # so the two could not be mistaken for each other
    assert min(values["unbiased"]) < 0  # signed: neither clamped nor shifted


@pytest.mark.parametrize("estimator", ALL)
def test_gradients_are_right(estimator: str) -> None:
    source, target = rows(4, 3, seed=1).requires_grad_(), rows(3, 3, seed=2).requires_grad_()

    def loss(x: Tensor, y: Tensor) -> Tensor:
        return mk_mmd(x, y, bandwidth=4.0, weights=FIVE, estimator=estimator)

    assert torch.autograd.gradcheck(loss, (source, target))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_it_is_computed_in_single_precision_also_under_autocast(dtype: torch.dtype) -> None:
    source, target = rows(16, 64, seed=1).float(), rows(16, 64, seed=2, mean=0.2).float()
    expected = mk_mmd(source, target, bandwidth=100.0, weights=FIVE)
    with torch.autocast("cpu", dtype=dtype):
        assert torch.equal(mk_mmd(source, target, bandwidth=100.0, weights=FIVE), expected)
    half = mk_mmd(source.to(dtype), target.to(dtype), bandwidth=100.0, weights=FIVE)
    rounded = mk_mmd(source.to(dtype).float(), target.to(dtype).float(), bandwidth=100.0, weights=FIVE)
    assert half.dtype == torch.float32
    assert torch.equal(half, rounded)


def test_squared_norms_beyond_half_precision_do_not_overflow() -> None:
    source = torch.full((4, 4096), 8.0, dtype=torch.float16) * torch.arange(4)[:, None]
    value = mk_mmd(source, source + 1, bandwidth=6000.0, weights=FIVE)
    assert bool(value.isfinite())


@pytest.mark.parametrize(("n", "m"), [(1, 4), (4, 1), (0, 4)])
def test_fewer_than_two_rows_are_refused(n: int, m: int) -> None:
    with pytest.raises(ValueError, match=f"got {n} and {m}"):
        mk_mmd(rows(n), rows(m), bandwidth=1.0)


def test_features_that_do_not_belong_together_and_unknown_estimators_are_refused() -> None:
    with pytest.raises(ValueError, match=r"features differ in size: \(6,\) and \(5,\)"):
        mk_mmd(rows(3), rows(3, 5), bandwidth=1.0)
    with pytest.raises(ValueError, match="unknown estimator 'median'"):
        mk_mmd(rows(3), rows(3), bandwidth=1.0, estimator="median")
    with pytest.raises(ValueError, match=r"zip\(\)"):
        mk_mmd(rows(3), rows(3), bandwidth=1.0, weights=FIVE, bandwidth_multipliers=(1.0, 2.0))


@pytest.mark.parametrize("bandwidth_multipliers", [(1.0,), (0.5, 3.0), (8.0, 0.25, 2.0, 1.0)])
def test_any_multipliers_will_do(bandwidth_multipliers: tuple[float, ...]) -> None:
    source, target = rows(5, seed=1), rows(4, seed=2, mean=0.5)
    weights = [1 / len(bandwidth_multipliers)] * len(bandwidth_multipliers)
    found = mk_mmd(source, target, bandwidth=6.0, weights=weights, bandwidth_multipliers=bandwidth_multipliers)
    each = [slow_mmd(source, target, 6.0 * factor, ONE, "unbiased") for factor in bandwidth_multipliers]
    assert float(found) == pytest.approx(sum(each) / len(each), rel=1e-10)


def test_the_linear_estimate_compares_four_pairs_a_quadruple_and_no_others() -> None:
    source, target = rows(9, seed=1), rows(6, seed=2)
    compared = compare(source, target, estimator="linear")
    assert compared.distances.shape == (4, 3)
    far = source.clone()
    far[6:] += 1e3  # rows without a partner
    assert torch.equal(compare(far, target, estimator="linear").distances, compared.distances)


def test_the_linear_estimate_is_unbiased_and_noisier() -> None:
    draws, n, size = 300, 32, 4
    values: dict[str, list[float]] = {"unbiased": [], "linear": []}
    for draw in range(draws):
        source, target = rows(n, size, seed=2 * draw), rows(n, size, seed=2 * draw + 1)
        for estimator, found in values.items():
            found.append(float(mk_mmd(source, target, bandwidth=8.0, estimator=estimator)))
    spread = {estimator: torch.tensor(found).std().item() for estimator, found in values.items()}
    assert abs(sum(values["linear"]) / draws) < 3 * spread["linear"] / math.sqrt(draws)
    assert spread["linear"] > 2.5 * spread["unbiased"]
