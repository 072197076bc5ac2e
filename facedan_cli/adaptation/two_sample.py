"""A permutation test of MMD², for whether two domains differ by more than chance."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from facedan_cli.adaptation.kernels import gaussian_kernel, median_distance, squared_distances


@dataclass(frozen=True)
class TwoSampleTest:
    """The result of the test.

    Args:
        mmd2: the unbiased estimate between the two samples.
        chance: the 95 % quantile over random divisions of the pooled samples.
        p_value: share of divisions, with the actual one, whose estimate is as large.
    """

    mmd2: float
    chance: float
    p_value: float

    @property
    def beyond_chance(self) -> bool:
        """Whether the samples differ at the 5 % level."""
        return self.p_value <= 0.05


@torch.no_grad()
def two_sample_test(
    source: Tensor,
    target: Tensor,
    *,
    weights: Sequence[float] = (1.0,),
    bandwidth_multipliers: Sequence[float] | None = None,
    permutations: int = 1000,
    seed: int = 0,
    source_identities: Sequence[Hashable] | None = None,
    target_identities: Sequence[Hashable] | None = None,
) -> TwoSampleTest:
    """Test by permutation whether two samples come from one distribution (Gretton et al. 2012, JMLR 13, Section 5).

    The pooled rows are divided at random, and MMD² of all divisions is computed from one kernel matrix by one product.
    The level is exact where rows are exchangeable. Images of one identity are not: the test then rejects too often.
    Where identities are known the test divides identities, each with the mean kernel of its images; it is exact where
    all have equally many images.

    >>> random = torch.Generator().manual_seed(0)
    >>> source, target = torch.randn(2, 40, 8, generator=random)
    >>> two_sample_test(source, target).beyond_chance, two_sample_test(source, target + 0.5).beyond_chance
    (False, True)

    Args:
        source: features, shape (n, d), n ≥ 2.
        target: features, shape (m, d), m ≥ 2.
        weights: β, one a kernel.
        bandwidth_multipliers: bandwidth of each kernel as a multiple of γ, which is the median of the pooled squared
            distances; by default 1, 2, 4, …
        permutations: number of random divisions.
        seed: seed of the permutations.
        source_identities: the identity of each source row; None: unknown, or all different.
        target_identities: the identity of each target row.

    Raises:
        ValueError: a sample has fewer than two rows or identities, or the pooled features have no bandwidth.
    """
    n, m = len(source), len(target)
    if n < 2 or m < 2:
        raise ValueError(f"the test needs at least two rows of each domain, got {n} and {m}")
    distances = squared_distances(source.double(), target.double())
    kernel = gaussian_kernel(distances, median_distance(distances), weights, bandwidth_multipliers)
    if source_identities is not None or target_identities is not None:
        owners = [*_identities("source", source_identities, n), *_identities("target", target_identities, m)]
        kernel, n, m = _by_identity(kernel, owners)
    kernel = kernel.fill_diagonal_(0)
    random = np.random.default_rng(seed)
    actual = np.arange(n + m) < n
    divisions = np.stack([actual, *(random.permutation(actual) for _ in range(permutations))])
    estimates = _estimates(kernel, torch.from_numpy(divisions).to(kernel)).cpu().numpy()
    observed, by_chance = float(estimates[0]), estimates[1:]
    # A division that equals the actual one up to rounding is as large as it.
    as_large = int((by_chance >= observed - 1e-12).sum())
    return TwoSampleTest(observed, float(np.quantile(by_chance, 0.95)), (1 + as_large) / (1 + permutations))


def _identities(domain: str, identities: Sequence[Hashable] | None, count: int) -> list[tuple[str, Hashable]]:
    """The identity of each row of a domain; equal names in the two domains are different identities."""
    named = range(count) if identities is None else identities
    if len(named) != count:
        raise ValueError(f"the {domain} has {count} rows, and identities of {len(named)} are given")
    return [(domain, identity) for identity in named]


def _by_identity(kernel: Tensor, owners: Sequence[tuple[str, Hashable]]) -> tuple[Tensor, int, int]:
    """The mean kernel between the rows of each two identities, (n + m, n + m); n and m, how many each domain has."""
    numbers = {owner: number for number, owner in enumerate(dict.fromkeys(owners))}
    n = sum(domain == "source" for domain, _ in numbers)
    m = len(numbers) - n
    if n < 2 or m < 2:
        raise ValueError(f"the test needs at least two identities of each domain, got {n} and {m}")
    shares = torch.zeros(len(numbers), len(owners)).to(kernel)
    shares[[numbers[owner] for owner in owners], list(range(len(owners)))] = 1
    shares /= shares.sum(dim=1, keepdim=True)
    return shares @ kernel @ shares.T, n, m


def _estimates(kernel: Tensor, divisions: Tensor) -> Tensor:
    """Unbiased MMD² of divisions (b, n + m), 1 for source rows, from the kernel matrix with a zero diagonal."""
    n = divisions[0].sum()
    m = len(kernel) - n
    to_all = divisions @ kernel.sum(dim=1)  # (b,)
    within_source = (divisions @ kernel * divisions).sum(dim=1)
    between = to_all - within_source
    within_target = kernel.sum() - within_source - 2 * between
    return within_source / (n * (n - 1)) + within_target / (m * (m - 1)) - 2 * between / (n * m)
