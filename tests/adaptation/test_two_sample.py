from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from facedan_cli.adaptation.kernels import median_bandwidth
from facedan_cli.adaptation.mmd import mk_mmd
from facedan_cli.adaptation.two_sample import two_sample_test

FIVE = (0.2,) * 5


def rows(count: int, *, seed: int, mean: float = 0.0, size: int = 6) -> torch.Tensor:
    return mean + torch.randn(count, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_it_measures_the_unbiased_estimate_and_counts_divisions() -> None:
    source, target = rows(4, seed=1), rows(3, seed=2, mean=1.5)
    gamma = median_bandwidth(source, target)
    found = two_sample_test(source, target, weights=FIVE, permutations=4000)
    assert found.mmd2 == pytest.approx(float(mk_mmd(source, target, bandwidth=gamma, weights=FIVE)), rel=1e-9)
    pooled = torch.cat([source, target])
    everything = []
    for chosen in itertools.combinations(range(7), 4):  # all 35 divisions
        rest = [row for row in range(7) if row not in chosen]
        everything.append(float(mk_mmd(pooled[list(chosen)], pooled[rest], bandwidth=gamma, weights=FIVE)))
    exact = np.mean(np.array(everything) >= found.mmd2 - 1e-12)
    assert found.p_value == pytest.approx(exact, abs=0.02)
    assert found.chance == pytest.approx(np.quantile(everything, 0.95), abs=0.05)


def test_under_the_null_it_rejects_as_often_as_its_level_says() -> None:
    tests = [
        two_sample_test(rows(20, seed=2 * i), rows(25, seed=2 * i + 1), weights=FIVE, permutations=99, seed=i)
        for i in range(300)
    ]
    share = np.mean([test.beyond_chance for test in tests])
    assert share == pytest.approx(0.05, abs=0.04)
    assert min(test.p_value for test in tests) > 0


def of_identities(identities: int, images: int, *, seed: int) -> tuple[torch.Tensor, list[int]]:
    """Rows in no order of identities, several near each other of each."""
    centres, noise = rows(identities, seed=2 * seed), rows(identities * images, seed=2 * seed + 1)
    owners = [row % identities for row in range(identities * images)]
    return centres[owners] + 0.5 * noise, owners


def test_images_of_one_identity_make_it_reject_too_often_unless_identities_are_divided() -> None:
    by_images, by_identities = [], []
    for draw in range(200):
        (source, of_source), (target, of_target) = (of_identities(10, 5, seed=2 * draw + side) for side in (0, 1))
        names = {"source_identities": of_source, "target_identities": [f"t{identity}" for identity in of_target]}
        settings = {"weights": FIVE, "permutations": 99, "seed": draw}
        by_images.append(two_sample_test(source, target, **settings).beyond_chance)
        by_identities.append(two_sample_test(source, target, **settings, **names).beyond_chance)
    assert np.mean(by_images) > 0.5
    assert np.mean(by_identities) == pytest.approx(0.05, abs=0.04)


def test_identities_are_compared_by_the_mean_kernel_of_their_images() -> None:
    source, target = rows(5, seed=1), rows(4, seed=2, mean=1)
    identities = (
        ["a", "b", "a", "c", "b"],
        ["a", "a", "b", "c"],
    )  # names are of their domain
    found = two_sample_test(
        source, target, permutations=20, source_identities=identities[0], target_identities=identities[1]
    )

    gamma = median_bandwidth(source, target)

    def mean(one: torch.Tensor, other: torch.Tensor) -> float:
        return float((torch.cdist(one, other).square() / -gamma).exp().mean())

    units = [
        [features[[row for row, owner in enumerate(owners) if owner == name]] for name in dict.fromkeys(owners)]
        for features, owners in zip((source, target), identities, strict=True)
    ]
    within = [np.mean([mean(a, b) for a, b in itertools.permutations(domain, 2)]) for domain in units]
    between = np.mean([mean(a, b) for a, b in itertools.product(*units)])
    assert found.mmd2 == pytest.approx(within[0] + within[1] - 2 * between, rel=1e-6)
    alone = two_sample_test(source, target, permutations=20, source_identities=range(5), target_identities=range(4))
    assert alone == two_sample_test(source, target, permutations=20)
    with pytest.raises(ValueError, match="got 1 and 4"):
        two_sample_test(source, target, source_identities=["a"] * 5)


def test_a_real_difference_is_found() -> None:
    found = two_sample_test(rows(40, seed=1), rows(40, seed=2, mean=0.7), weights=FIVE)
    assert found.beyond_chance
    assert found.p_value == pytest.approx(1 / 1001)
    assert found.mmd2 > 2 * found.chance


def test_the_seed_decides() -> None:
    source, target = rows(10, seed=1), rows(10, seed=2, mean=0.3)
    one, same, other = (two_sample_test(source, target, permutations=99, seed=seed) for seed in (1, 1, 2))
    assert one == same
    assert one.mmd2 == other.mmd2
    assert one.chance != other.chance


def test_what_cannot_be_tested_is_refused() -> None:
    with pytest.raises(ValueError, match="at least two rows"):
        two_sample_test(rows(1, seed=1), rows(5, seed=2))
    with pytest.raises(ValueError, match="no bandwidth"):
        two_sample_test(torch.ones(4, 3), torch.ones(4, 3))
