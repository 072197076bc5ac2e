"""Optimal kernel weights β, which maximise the ratio of MMD² to its standard deviation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.linalg import solve_triangular
from scipy.optimize import nnls
from torch import Tensor

from facedan_cli.adaptation.mmd import Comparisons

LEAST_ROWS = {"unbiased": 3, "biased": 3, "linear": 4}
"""Smallest batch of each domain for a covariance, by estimator: three rows, or two quadruples."""

RIDGE = 1e-4
"""Ridge on the covariance, as a share of the mean of its diagonal: neighbouring bandwidths are nearly collinear."""


@dataclass(frozen=True)
class Moments:
    """Mean and covariance of the estimates of K kernels; β is computed from them.

    Args:
        estimates: η, the unbiased estimate of MMD² by each kernel alone, shape (K,).
        covariance: Q, the covariance of these estimates up to a common factor, shape (K, K).
    """

    estimates: Tensor
    covariance: Tensor

    def smoothed(self, before: Moments | None, momentum: float) -> Moments:
        """The exponential moving average with the moments of earlier batches."""
        if before is None:
            return self
        return Moments(
            momentum * before.estimates + (1 - momentum) * self.estimates,
            momentum * before.covariance + (1 - momentum) * self.covariance,
        )


@torch.no_grad()
def kernel_moments(kernels: Sequence[Tensor], compared: Comparisons) -> Moments:
    """The moments of a batch: mean η and covariance Q.

    With H^u_ij = k_u(x_i, x_j) + k_u(y_i, y_j) − k_u(x_i, y_j) − k_u(x_j, y_i) over the first min(n, m) rows of both
    domains, a^u_i is the mean of H^u_ij over j ≠ i, η_u the mean of a^u_i, and Q_uv = 4·Cov_i(a^u, a^v): the leading
    term of the U-statistic's covariance, less noisy than that of the linear estimate in Gretton et al. (NIPS 2012).
    For the linear estimator itself, η_u and Q are mean and covariance of its terms, as there.

    Args:
        kernels: values of each kernel for the compared pairs.
        compared: the pairs: all, or those of the linear estimator.

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
    """The β ≥ 0 with Σβ = 1 that maximises (βᵀη)² / (βᵀQβ) (Gretton et al., NIPS 2012, eq. 11; Long et al. 2015).

    Up to scale it is the β ≥ 0 that minimises ½·βᵀQβ − ηᵀβ: non-negative least squares (Lawson and Hanson 1974). Where
    no η is positive the kernel with the best ratio gets all weight. β is NaN where a moment is not finite.
    """
    estimates, covariance = moments.estimates.numpy(), moments.covariance.numpy()
    if not (np.isfinite(estimates).all() and np.isfinite(covariance).all()):
        return (math.nan,) * len(estimates)  # the loss is then not finite either, which the training reports
    scale = float(covariance.diagonal().mean())
    ridged = covariance + (RIDGE * scale if scale > 0 else 1.0) * np.eye(len(estimates))
    # With Q = LLᵀ, ½·βᵀQβ − ηᵀβ is ½·‖Lᵀβ − L⁻¹η‖² less a constant. The scale of η does not matter but to the solver.
    root = np.linalg.cholesky(ridged / ridged.diagonal().mean())
    weights, _ = nnls(root.T, solve_triangular(root, estimates / (np.abs(estimates).max() or 1.0), lower=True))
    if not weights.any():
        weights[np.argmax(estimates / np.sqrt(ridged.diagonal()))] = 1
    return tuple((weights / weights.sum()).tolist())
