from __future__ import annotations

import itertools
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from facedan_cli.adaptation.discrepancies import coral_distance, energy_distance
from facedan_cli.adaptation.kernels import median_bandwidth
from facedan_cli.adaptation.mmd import compare, mk_mmd
from facedan_cli.adaptation.penalty import MOMENTUM, Penalty

FIVE = (0.2,) * 5
BOTH = {"fc6": 1.0, "fc7": 1.0}
BANDWIDTHS = {"fc6": 11.0, "fc7": 4.0}


def rows(count: int, size: int, *, seed: int, mean: float = 0.0) -> Tensor:
    return mean + torch.randn(count, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def features(seed: int) -> dict[str, Tensor]:
    return {"fc6": rows(6, 7, seed=seed), "fc7": rows(6, 3, seed=seed + 1, mean=0.1 * seed)}


def penalty(**options: Any) -> Penalty:
    settings = {"lambda_": 0.5, "layers": BOTH, "bandwidths": BANDWIDTHS, **options}
    return Penalty(**settings)


@pytest.mark.parametrize("estimator", ["unbiased", "biased", "linear"])
def test_it_is_lambda_times_the_weighted_sum_over_layers(estimator: str) -> None:
    source, target = features(10), features(20)
    value, found = penalty(layers={"fc6": 0.25, "fc7": 1.0}, estimator=estimator)(source, target)
    expected = {
        layer: float(mk_mmd(source[layer], target[layer], bandwidth=gamma, weights=FIVE, estimator=estimator))
        for layer, gamma in BANDWIDTHS.items()
    }
    assert {name: float(each) for name, each in found.items()} == pytest.approx(
        {f"mmd2_{layer}": each for layer, each in expected.items()}
    )
    assert float(value) == pytest.approx(0.5 * (0.25 * expected["fc6"] + expected["fc7"]))
    only, found = penalty(layers={"fc7": 1.0}, estimator=estimator)(source, target)
    assert float(only) == pytest.approx(0.5 * expected["fc7"])
    assert found.keys() == {"mmd2_fc7"}


def test_without_bandwidths_each_batch_has_its_own_and_it_is_a_constant_to_the_gradient() -> None:
    source, target = features(10), features(20)
    leaf = source["fc7"].requires_grad_()
    own, _ = penalty(layers={"fc7": 1.0}, bandwidths=None)(source, target)
    median = median_bandwidth(source["fc7"], target["fc7"])
    fixed, _ = penalty(layers={"fc7": 1.0}, bandwidths={"fc7": median})(source, target)
    assert torch.equal(own, fixed)
    gradients = [torch.autograd.grad(value, leaf, retain_graph=True)[0] for value in (own, fixed)]
    assert torch.equal(*gradients)


@pytest.mark.parametrize("estimator", ["unbiased", "linear"])
def test_the_median_distance_as_sigma_makes_kernels_twice_as_wide(estimator: str) -> None:
    source, target = features(10), features(20)
    measure = penalty(bandwidths=None, median="sigma", estimator=estimator)
    measure(source, target)
    pooled = torch.cat([source["fc7"], target["fc7"]])
    sigma = float(torch.pdist(pooled).sort().values[(12 * 11 // 2 - 1) // 2])  # exp(−d²/(2σ²))
    assert measure.gamma["fc7"] == pytest.approx(2 * sigma**2, rel=1e-9)
    assert median_bandwidth(source["fc7"], target["fc7"], "sigma") == measure.gamma["fc7"]
    running = penalty(median="sigma", running=True, estimator=estimator)
    running(source, target)
    assert running.gamma["fc7"] == pytest.approx(MOMENTUM * 4.0 + (1 - MOMENTUM) * measure.gamma["fc7"])


def test_a_running_bandwidth_follows_the_medians() -> None:
    measure = penalty(running=True)
    gamma = BANDWIDTHS["fc7"]
    for seed in (10, 30, 50):
        source, target = features(seed), features(seed + 5)
        measure(source, target)
        gamma = MOMENTUM * gamma + (1 - MOMENTUM) * median_bandwidth(source["fc7"], target["fc7"])
        assert measure.settings()["gamma_fc7"] == pytest.approx(gamma)
    fixed = penalty()
    fixed(features(10), features(15))
    assert fixed.settings()["gamma_fc7"] == 4.0


@pytest.mark.parametrize(
    "options",
    [
        {"estimator": "unbiased"},
        {"estimator": "biased"},
        {"estimator": "linear"},
        {"discrepancy": "jmmd"},
        {"discrepancy": "coral"},
        {"discrepancy": "energy"},
        {"bandwidth_multipliers": (0.3, 5.0)},
    ],
    ids=str,
)
def test_gradients_are_right(options: dict[str, Any]) -> None:
    measure = penalty(**options)

    def loss(source6: Tensor, source7: Tensor, target6: Tensor, target7: Tensor) -> Tensor:
        return measure({"fc6": source6, "fc7": source7}, {"fc6": target6, "fc7": target7})[0]

    leaves = [value.requires_grad_() for part in (features(10), features(20)) for value in part.values()]
    assert torch.autograd.gradcheck(loss, leaves)


def test_optimal_weights_are_used_and_carry_no_gradient() -> None:
    source, target = features(10), features(20)
    leaf = source["fc7"].requires_grad_()
    measure = penalty(kernel_weights="optimal", layers={"fc7": 1.0}, bandwidths={"fc7": 4.0})
    value, _ = measure(source, target)
    weights = measure.settings()["beta_fc7"]
    assert isinstance(weights, list)
    assert sum(weights) == pytest.approx(1)
    assert weights != pytest.approx(list(FIVE))
    again = 0.5 * mk_mmd(source["fc7"], target["fc7"], bandwidth=4.0, weights=weights)
    torch.testing.assert_close(value, again)
    gradients = [torch.autograd.grad(each, leaf, retain_graph=True)[0] for each in (value, again)]
    torch.testing.assert_close(*gradients)


def with_queue(measure: Penalty, pool: list[dict[str, Tensor]], batch: int) -> tuple[Tensor, list[Tensor]]:
    """The penalty of a batch, the first rows of each domain, whose others lie in the memory bank; and its gradients."""
    past = [{layer: rows[batch:] for layer, rows in domain.items()} for domain in pool]
    if measure.memory_bank:
        measure.update_memory_bank(*past)
    now = [{layer: rows[:batch].clone().requires_grad_() for layer, rows in domain.items()} for domain in pool]
    value, _ = measure(*now)
    return value, list(torch.autograd.grad(value, [rows for domain in now for rows in domain.values()]))


@pytest.mark.parametrize("discrepancy", ["mk-mmd", "jmmd", "energy"])
def test_a_queue_leaves_the_expected_gradient_as_it_is(discrepancy: str) -> None:
    pool = [
        {"fc6": rows(5, 7, seed=1), "fc7": rows(5, 3, seed=2)},
        {"fc6": rows(6, 7, seed=3, mean=0.5), "fc7": rows(6, 3, seed=4, mean=0.5)},
    ]
    for source, target in (pool, pool[::-1]):  # what it is to the one domain it is to the other
        _, found = with_queue(penalty(memory_bank=8, discrepancy=discrepancy), [source, target], 3)
        # Without a memory bank, over all batches of 3 of these rows that the first row of the source is in.
        companions = itertools.combinations(range(1, len(source["fc7"])), 2)
        batches = itertools.product(companions, itertools.combinations(range(len(target["fc7"])), 3))
        gradients = []
        for others, chosen in batches:
            batch = [{k: v[[0, *others]] for k, v in source.items()}, {k: v[list(chosen)] for k, v in target.items()}]
            gradients.append(with_queue(penalty(discrepancy=discrepancy), batch, 3)[1])
        for one, *each in list(zip(found, *gradients, strict=True))[:2]:  # of fc6 and fc7 of the source
            expected = torch.stack([gradient[0] for gradient in each]).mean(dim=0)
            torch.testing.assert_close(one[0], expected, rtol=1e-9, atol=1e-12)


def test_a_queue_does_not_weaken_coral() -> None:
    found: dict[int, list[Tensor]] = {0: [], 24: []}
    for draw in range(300):
        source, target = rows(32, 4, seed=2 * draw), 3 * rows(32, 4, seed=2 * draw + 1)
        source[0] = 1.0
        pool = [{"fc7": source}, {"fc7": target}]
        for memory_bank, gradients in found.items():
            measure = penalty(memory_bank=memory_bank, layers={"fc7": 1.0}, discrepancy="coral")
            gradients.append(with_queue(measure, pool, 8)[1][0][0])
    plain, queued = (torch.stack(gradients).mean(dim=0) for gradients in found.values())
    assert float(queued @ plain / plain.square().sum()) == pytest.approx(1, abs=0.1)  # its own bias is of order 1/n


def test_the_linear_estimator_has_no_memory_bank() -> None:
    with pytest.raises(ValueError, match="compares no row"):
        penalty(memory_bank=8, estimator="linear")


def test_the_memory_bank_compares_with_past_rows_that_have_no_gradient() -> None:
    measure = penalty(memory_bank=8, layers={"fc7": 1.0})
    steps = [(features(seed), features(seed + 5)) for seed in (10, 30, 50)]
    for source, target in steps[:2]:
        measure(source, target)
        measure.update_memory_bank(source, target)
    source, target = steps[2]
    leaf = source["fc7"].requires_grad_()
    value, _ = measure(source, target)
    past = [torch.cat([step[domain]["fc7"] for step in steps[:2]])[-8:] for domain in (0, 1)]
    slow = 0.5 * mk_mmd(torch.cat([leaf, past[0]]), torch.cat([target["fc7"], past[1]]), bandwidth=4.0, weights=FIVE)
    torch.testing.assert_close(value, slow)
    found, of_all = (torch.autograd.grad(each, leaf, retain_graph=True)[0] for each in (value, slow))
    torch.testing.assert_close(found, (6 + 8) / 6 * of_all)


@pytest.mark.parametrize("options", [{"running": True}, {"kernel_weights": "optimal"}, {"memory_bank": 9}], ids=str)
def test_it_goes_on_from_its_state(options: dict[str, Any]) -> None:
    first, second = penalty(**options), penalty(**options)
    for seed in (10, 30):
        first(features(seed), features(seed + 5))
        first.update_memory_bank(features(seed), features(seed + 5))
    second.load(first.state())
    values = [measure(features(70), features(80))[0] for measure in (first, second)]
    assert torch.equal(*values)
    assert first.settings() == second.settings()
    fresh = penalty(**options)(features(70), features(80))[0]
    assert not torch.equal(fresh, values[0])


@pytest.mark.parametrize("options", [{}, {"memory_bank": 6}, {"bandwidths": None}, {"discrepancy": "coral"}], ids=str)
def test_the_norm_of_normalised_features_does_not_matter(options: dict[str, Any]) -> None:
    """The penalty is that of rows on the unit sphere, and its gradient leaves their norms alone."""
    on_sphere, of_any_norm = penalty(**options), penalty(normalise=True, **options)
    for seed in (1, 3):
        source, target = features(seed), features(seed + 1)
        unit = [{layer: rows / rows.norm(dim=1, keepdim=True) for layer, rows in of.items()} for of in (source, target)]
        leaves = {layer: rows.requires_grad_() for layer, rows in source.items()}
        expected, _ = on_sphere(*unit)
        value, _ = of_any_norm(leaves, {layer: 3 * rows for layer, rows in target.items()})
        torch.testing.assert_close(value, expected, rtol=1e-6, atol=1e-9)
        for rows, gradient in zip(leaves.values(), torch.autograd.grad(value, [*leaves.values()]), strict=True):
            torch.testing.assert_close(
                (rows * gradient).sum(1), torch.zeros(len(rows), dtype=rows.dtype), atol=1e-6, rtol=0
            )
        on_sphere.update_memory_bank(*unit)
        of_any_norm.update_memory_bank(source, target)
    assert of_any_norm.frozen().normalise


def test_the_ramp_rises_to_lambda_and_stays() -> None:
    measure = penalty(ramp=100)
    lambdas = [measure.lambda_at(step) for step in range(1, 201)]
    assert lambdas[0] == pytest.approx(0.5 * math.tanh(0.05))  # 2/(1+exp(−x)) − 1 is tanh(x/2)
    assert lambdas == sorted(lambdas)
    assert set(lambdas[99:]) == {0.5}
    assert penalty().lambda_at(1) == 0.5
    value, _ = measure(features(10), features(20), 50)
    whole, _ = penalty()(features(10), features(20))
    assert float(value) == pytest.approx(math.tanh(2.5) * float(whole))


def test_joint_mmd_multiplies_the_layers_kernels() -> None:
    source, target = features(10), features(20)
    value, found = penalty(discrepancy="jmmd")(source, target)

    def k(one: int, other: int) -> float:
        product = 1.0
        for layer, gamma in BANDWIDTHS.items():
            pooled = torch.cat([source[layer], target[layer]])
            squared = float((pooled[one] - pooled[other]).square().sum())
            product *= sum(math.exp(-squared / (gamma * 2**u)) for u in range(5)) / 5
        return product

    within = sum(k(i, j) + k(6 + i, 6 + j) for i in range(6) for j in range(6) if i != j) / 30
    between = sum(k(i, 6 + j) for i in range(6) for j in range(6)) / 36
    assert found.keys() == {"jmmd"}
    assert float(found["jmmd"]) == pytest.approx(within - 2 * between, rel=1e-9)
    assert float(value) == pytest.approx(0.5 * float(found["jmmd"]))


@pytest.mark.parametrize(("n", "m", "size"), [(5, 5, 3), (4, 9, 20)])
def test_coral_is_the_distance_of_the_covariances(n: int, m: int, size: int) -> None:
    source, target = rows(n, size, seed=1), 2 * rows(m, size, seed=2, mean=3)
    difference = torch.cov(source.T) - torch.cov(target.T)
    expected = float(difference.square().sum()) / (4 * size**2)
    assert float(coral_distance(source, target)) == pytest.approx(expected, rel=1e-10)
    assert float(coral_distance(source, source + 7)) == pytest.approx(0, abs=1e-12)


def test_coral_refuses_what_has_no_covariance() -> None:
    with pytest.raises(ValueError, match="at least two rows"):
        coral_distance(rows(1, 3, seed=1), rows(4, 3, seed=2))
    with pytest.raises(ValueError, match="differ in size"):
        coral_distance(rows(4, 3, seed=1), rows(4, 2, seed=2))


@pytest.mark.parametrize("estimator", ["unbiased", "biased"])
def test_energy_distance_is_that_of_its_definition(estimator: str) -> None:
    source, target = rows(5, 4, seed=1), rows(7, 4, seed=2, mean=1)

    def mean(x: Tensor, y: Tensor, *, same: bool) -> float:
        lengths = [float((a - b).norm()) for i, a in enumerate(x) for j, b in enumerate(y) if not same or i != j]
        return sum(lengths) / (len(lengths) if estimator == "unbiased" or not same else len(x) ** 2)

    expected = 2 * mean(source, target, same=False) - mean(source, source, same=True) - mean(target, target, same=True)
    found = energy_distance(compare(source, target, estimator=estimator))
    assert float(found) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("apart", [1e2, 1e5])
def test_the_energy_distance_sees_near_rows_though_the_domains_lie_far_apart(apart: float) -> None:
    source, target = rows(5, 4, seed=1).float().requires_grad_(), rows(7, 4, seed=2, mean=apart).float()
    exact = source.detach().double().requires_grad_()
    values = [energy_distance(compare(x, target.to(x))) for x in (source, exact)]
    assert values[0].item() == pytest.approx(values[1].item(), rel=1e-6)
    slopes = [torch.autograd.grad(value, x)[0] for value, x in zip(values, (source, exact), strict=True)]
    assert (slopes[0] - slopes[1]).norm() < 1e-7 * apart * slopes[1].norm()


def test_rows_that_coincide_have_a_finite_gradient_in_the_energy_distance() -> None:
    source = (100 + rows(6, 300, seed=1)).float()[[0, 1, 1, 2, 2, 2]].requires_grad_()
    target = (100 + rows(6, 300, seed=2)).float()
    energy_distance(compare(source, target)).backward()
    assert source.grad is not None
    assert bool(source.grad.isfinite().all())
    assert source.grad.norm(dim=1).max() < 1


def test_half_precision_features_are_measured_in_single() -> None:
    source, target = ({k: v.half() for k, v in features(seed).items()} for seed in (10, 20))
    for discrepancy in ("mk-mmd", "jmmd", "coral", "energy"):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            value, _ = replace(penalty(), discrepancy=discrepancy)(source, target)
        exact, _ = replace(penalty(), discrepancy=discrepancy)(
            {k: v.double() for k, v in source.items()}, {k: v.double() for k, v in target.items()}
        )
        assert value.dtype == torch.float32
        assert float(value) == pytest.approx(float(exact), rel=1e-4, abs=1e-6)
