"""Kernel weights β that make a difference between the domains most visible beside its own noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from facedan_cli.adaptation.mmd import Comparisons

LEAST_ROWS = {"unbiased": 3, "biased": 3, "linear": 4}
"""Rows of each domain from which on an estimator's terms, two quadruples or three rows, vary and have a covariance."""

RIDGE = 1e-4
"""What is added to the covariance's diagonal, as a share of its mean: neighbouring octaves are nearly collinear."""


@dataclass(frozen=True)
class Moments:
    """What the choice of β rests on, for K kernels.

    Args:
        estimates: η, the unbiased estimate of MMD² by each kernel alone, shape (K,).
        covariance: Q, the covariance of these estimates up to a common factor, shape (K, K).
    """

    estimates: Tensor
    covariance: Tensor

    def smoothed(self, before: Moments | None, momentum: float = 0.9) -> Moments:
        """The exponential mean of these moments and those of earlier batches."""
        if before is None:
            return self
        return Moments(
            momentum * before.estimates + (1 - momentum) * self.estimates,
            momentum * before.covariance + (1 - momentum) * self.covariance,
        )


@torch.no_grad()
def kernel_moments(kernels: Sequence[Tensor], compared: Comparisons) -> Moments:
    """η and Q of a batch.

    With H^u_ij = k_u(x_i, x_j) + k_u(y_i, y_j) − k_u(x_i, y_j) − k_u(x_j, y_i) over the first min(n, m) rows of both
    domains, a^u_i is the mean of H^u_ij over j ≠ i, η_u the mean of a^u_i, and Q_uv = 4·Cov_i(a^u, a^v): the leading
    term of the U-statistic's covariance, less noisy than that of the linear estimate in Gretton et al. (NIPS 2012).
    For the linear estimator itself, η_u and Q are mean and covariance of its terms, as there.

    Args:
        kernels: values of each kernel for the compared pairs.
        compared: the pairs, all of them or the linear estimator's.

    Returns:
        Moments in float64, on the CPU.
    """
    values = torch.stack([kernel.detach() for kernel in kernels]).double()
    if compared.quadruples:
        terms = values[:, 0] + values[:, 1] - values[:, 2] - values[:, 3]  # (K, pairs)
        factor = 1.0
    else:
        n, q = compared.sizes[0], min(compared.sizes)
        x, y = slice(0, q), slice(n, n + q)
        between = values[:, x, y]
        h = values[:, x, x] + values[:, y, y] - between - between.transpose(1, 2)  # (K, q, q)
        terms = (h.sum(dim=2) - h.diagonal(dim1=1, dim2=2)) / (q - 1)
        factor = 4.0
    spread = terms - terms.mean(dim=1, keepdim=True)
    covariance = factor * spread @ spread.T / max(1, terms.shape[1] - 1)
    return Moments(terms.mean(dim=1).cpu(), covariance.cpu())


def optimal_weights(moments: Moments) -> tuple[float, ...]:
    """β that maximises (βᵀη)² / (βᵀQβ) with β ≥ 0 and Σβ = 1 (Gretton et al., NIPS 2012, eq. 11; Long et al. 2015).

    Up to scale that is the β ≥ 0 which minimises ½·βᵀQβ − ηᵀβ. It is found exactly, by the active sets of Lawson and
    Hanson (1974). Where no kernel sees a difference (no η above zero), the one with the best ratio gets all weight.
    """
    estimates, covariance = moments.estimates.numpy(), moments.covariance.numpy()
    scale = float(covariance.diagonal().mean())
    ridged = covariance + (RIDGE * scale if scale > 0 else 1.0) * np.eye(len(estimates))
    if (estimates <= 0).all():
        best = int(np.argmax(estimates / np.sqrt(ridged.diagonal())))
        return tuple(float(u == best) for u in range(len(estimates)))
    weights = _minimise(ridged, estimates)
    return tuple((weights / weights.sum()).tolist())


def _minimise(quadratic: np.ndarray, linear: np.ndarray) -> np.ndarray:
    """The β ≥ 0 that minimises ½·βᵀAβ − bᵀβ, A positive definite."""
    weights = np.zeros_like(linear)
    free = np.zeros(len(linear), bool)
    tolerance = 1e-12 * np.abs(linear).max()
    while True:
        slope = np.where(free, -np.inf, linear - quadratic @ weights)
        if slope.max() <= tolerance:
            return weights
        free[np.argmax(slope)] = True
        while True:
            solution = np.zeros_like(linear)
            solution[free] = np.linalg.solve(quadratic[np.ix_(free, free)], linear[free])
            if (solution[free] > 0).all():
                break
            # Go only so far towards it that the first weight reaches zero, and hold that one there.
            leaving = free & (solution <= 0)
            step = (weights[leaving] / (weights[leaving] - solution[leaving])).min()
            weights = weights + step * (solution - weights)
            free &= weights > tolerance * np.abs(weights).max()
            weights[~free] = 0
        weights = solution
