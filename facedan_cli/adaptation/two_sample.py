"""Is the discrepancy between two domains larger than chance? A permutation test of MMD²."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from facedan_cli.adaptation.kernels import gaussian_kernel, median_distance, squared_distances


@dataclass(frozen=True)
class TwoSampleTest:
    """What the test found.

    Args:
        mmd2: the unbiased estimate between the two samples.
        chance: what 95 % of the random divisions of the pooled samples stay below.
        p_value: the share of divisions, the actual one among them, whose estimate is as large.
    """

    mmd2: float
    chance: float
    p_value: float

    @property
    def beyond_chance(self) -> bool:
        """Whether the samples differ at the level of 5 %."""
        return self.p_value <= 0.05


@torch.no_grad()
def two_sample_test(
    source: Tensor,
    target: Tensor,
    *,
    weights: Sequence[float] = (1.0,),
    bandwidth_multipliers: Sequence[float] | None = None,
    bandwidth: float | None = None,
    permutations: int = 1000,
    seed: int = 0,
    source_people: Sequence[Hashable] | None = None,
    target_people: Sequence[Hashable] | None = None,
) -> TwoSampleTest:
    """Test whether two samples of features come from one distribution (Gretton et al. 2012, JMLR 13, Section 5).

    The rows are divided anew at random, as if they had no domain, and MMD² is measured of each division: from one
    kernel matrix, by one product for all. The level is exact where rows are exchangeable. Several images of one person
    are not: divided by images they make differences look more certain than they are. Where people are known they are
    what is divided, each by the mean kernel of its images: that is exact where all have equally many.

    Args:
        source: features, shape (n, d), n ≥ 2.
        target: features, shape (m, d), m ≥ 2.
        weights: β, one a kernel.
        multipliers: bandwidth of each kernel as a multiple of `bandwidth`; by default 1, 2, 4, …
        bandwidth: γ; by default the median of the pooled squared distances.
        permutations: number of random divisions.
        seed: the same seed draws the same divisions.
        source_people: whose image each source row is; None: each of another person, or nobody knows.
        target_people: whose image each target row is.

    Raises:
        ValueError: a sample has fewer than two rows or people, or the pooled features have no bandwidth.
    """
    n, m = len(source), len(target)
    if n < 2 or m < 2:
        raise ValueError(f"the test needs at least two rows of each domain, got {n} and {m}")
    distances = squared_distances(source.double(), target.double())
    gamma = median_distance(distances) if bandwidth is None else bandwidth
    kernel = gaussian_kernel(distances, gamma, weights, bandwidth_multipliers)
    if source_people is not None or target_people is not None:
        owners = [*_owners("source", source_people, n), *_owners("target", target_people, m)]
        numbers = {owner: number for number, owner in enumerate(dict.fromkeys(owners))}
        n = sum(domain == "source" for domain, _ in numbers)
        m = len(numbers) - n
        if n < 2 or m < 2:
            raise ValueError(f"the test needs at least two people of each domain, got {n} and {m}")
        kernel = _of_people(kernel, [numbers[owner] for owner in owners])
    kernel = kernel.fill_diagonal_(0)
    random = np.random.default_rng(seed)
    actual = np.arange(n + m) < n
    divisions = np.stack([actual, *(random.permutation(actual) for _ in range(permutations))])
    estimates = _estimates(kernel, torch.from_numpy(divisions).to(kernel)).cpu().numpy()
    observed, by_chance = float(estimates[0]), estimates[1:]
    # A division that equals the actual one up to rounding is as large as it.
    as_large = int((by_chance >= observed - 1e-12).sum())
    return TwoSampleTest(observed, float(np.quantile(by_chance, 0.95)), (1 + as_large) / (1 + permutations))


def _owners(domain: str, people: Sequence[Hashable] | None, count: int) -> list[tuple[str, Hashable]]:
    """Whose each of a domain's rows is; a name in the other domain is another person."""
    named = range(count) if people is None else people
    if len(named) != count:
        raise ValueError(f"the {domain} has {count} rows, and people of {len(named)} are given")
    return [(domain, person) for person in named]


def _of_people(kernel: Tensor, numbers: Sequence[int]) -> Tensor:
    """The mean kernel between the rows of each two people, shape (people, people), from that of the rows."""
    shares = torch.zeros(max(numbers) + 1, len(numbers)).to(kernel)
    shares[list(numbers), list(range(len(numbers)))] = 1
    shares /= shares.sum(dim=1, keepdim=True)
    return shares @ kernel @ shares.T


def _estimates(kernel: Tensor, divisions: Tensor) -> Tensor:
    """Unbiased MMD² of each division (b, n + m), ones for source rows, from the kernel matrix without its diagonal."""
    n = divisions[0].sum()
    m = len(kernel) - n
    to_all = divisions @ kernel.sum(dim=1)  # (b,)
    within_source = (divisions @ kernel * divisions).sum(dim=1)
    between = to_all - within_source
    within_target = kernel.sum() - within_source - 2 * between
    return within_source / (n * (n - 1)) + within_target / (m * (m - 1)) - 2 * between / (n * m)
