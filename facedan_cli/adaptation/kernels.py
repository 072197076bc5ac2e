"""Distances, bandwidths and Gaussian kernels: what every MMD estimator is made of."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def squared_distances(rows: Tensor) -> Tensor:
    """Squared Euclidean distances between all rows, by one Gram product.

    ‖x−y‖² = ‖x‖² + ‖y‖² − 2·xᵀy needs O(n²) memory, where the broadcast form needs O(n²·d). The mean of the rows is
    subtracted first: distances do not change, but without it a large common mean costs most of float32's digits.

    Args:
        rows: features, shape (n, d), float32 or float64.

    Returns:
        Distances, shape (n, n), none negative, the diagonal exactly zero.
    """
    centred = rows - rows.detach().mean(dim=0)
    gram = centred @ centred.T  # (n, n)
    norms = gram.diagonal()
    distances = (norms[:, None] + norms[None, :] - 2 * gram).clamp(min=0)
    return distances.masked_fill(torch.eye(len(rows), dtype=torch.bool, device=rows.device), 0)


@torch.no_grad()
def median_bandwidth(source: Tensor, target: Tensor) -> float:
    """γ_m: the median of the squared distances between different rows of both domains pooled (Gretton et al. 2012).

    It is the *squared* distance that the kernel exp(−‖x−y‖²/γ) divides by γ.

    Args:
        source: features, shape (n, d).
        target: features, shape (m, d).

    Raises:
        ValueError: the median is not a positive number: the features have collapsed to a point, or are not finite.
    """
    pooled = torch.cat([source, target]).float()
    above = torch.ones(len(pooled), len(pooled), dtype=torch.bool, device=pooled.device).triu(diagonal=1)
    median = float(squared_distances(pooled)[above].median())
    if not 1e-12 < median < float("inf"):
        raise ValueError(f"the median squared distance of the features is {median:g}, which is no bandwidth")
    return median


def octaves(kernels: int) -> tuple[float, ...]:
    """The bandwidth multipliers 1, 2, 4, … of that many kernels (paper, Section IV-B: five of them)."""
    return tuple(2.0**power for power in range(kernels))


def gaussian_kernel(distances: Tensor, bandwidth: float, weights: Sequence[float]) -> Tensor:
    """k = Σ_u β_u exp(−‖x−y‖² / (γ·2^u)), the multi-kernel of eq. 3.

    One exponential, of the widest kernel, is enough: each narrower one is the square of the one before.

    Args:
        distances: squared distances, any shape.
        bandwidth: γ of the narrowest kernel.
        weights: β, one a kernel from the narrowest to the widest, non-negative, summing to one.

    Returns:
        Kernel values, of the shape of `distances`, between 0 and 1.
    """
    kernel = torch.exp(distances / (-bandwidth * 2 ** (len(weights) - 1)))
    mixture = weights[-1] * kernel
    for weight in reversed(weights[:-1]):
        kernel = kernel.square()
        mixture = mixture + weight * kernel
    return mixture
