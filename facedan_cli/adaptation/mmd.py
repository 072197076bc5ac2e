"""Squared maximum mean discrepancy with several Gaussian kernels, and the penalty that adaptation adds to the loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from facedan_cli.adaptation.kernels import gaussian_kernel, median_bandwidth, squared_distances


def mk_mmd(
    source: Tensor, target: Tensor, *, bandwidth: float, weights: Sequence[float] = (1.0,), estimator: str = "unbiased"
) -> Tensor:
    """MMD² between two feature batches (paper eq. 2 and 3; Gretton et al. 2012, JMLR 13, eq. 3 and 5).

    `biased` is eq. 2 to the letter: means of the full kernel blocks. Their diagonals, always one, give it a positive
    expectation of order 1/n even where the two distributions are the same, and its gradient pulls features together.
    `unbiased` leaves the diagonals of the two within-domain blocks out: zero in expectation where they are the same.

    Always computed in float32 or better, also under autocast: squared norms overflow half precision.

    Args:
        source: features of the source batch, shape (n, d).
        target: features of the target batch, shape (m, d).
        bandwidth: γ of the narrowest kernel; kernel u has γ·2^u.
        weights: β, one a kernel, non-negative, summing to one.
        estimator: "unbiased" or "biased".

    Returns:
        A scalar. The unbiased estimate is often slightly negative; it is not clamped.

    Raises:
        ValueError: a batch has fewer than two rows, the feature sizes differ, or the estimator is unknown.
    """
    n, m = len(source), len(target)
    if n < 2 or m < 2:
        raise ValueError(f"MMD needs at least two rows of each domain, got {n} and {m}")
    if source.shape[1:] != target.shape[1:]:
        raise ValueError(f"features differ in size: {tuple(source.shape[1:])} and {tuple(target.shape[1:])}")
    if estimator not in ("unbiased", "biased"):
        raise ValueError(f"unknown estimator {estimator!r}")
    with torch.autocast(source.device.type, enabled=False):
        rows = torch.cat([source, target])
        if rows.dtype in (torch.float16, torch.bfloat16):
            rows = rows.float()
        kernel = gaussian_kernel(squared_distances(rows), bandwidth, weights)  # (n + m, n + m)
        within_source, within_target, between = kernel[:n, :n], kernel[n:, n:], kernel[:n, n:]
        if estimator == "biased":
            return within_source.mean() + within_target.mean() - 2 * between.mean()
        return _off_diagonal_mean(within_source) + _off_diagonal_mean(within_target) - 2 * between.mean()


def _off_diagonal_mean(kernel: Tensor) -> Tensor:
    n = len(kernel)
    return (kernel.sum() - kernel.diagonal().sum()) / (n * (n - 1))


@dataclass(frozen=True)
class Penalty:
    """λ Σ_l MMD²(source features of layer l, target features of layer l): what eq. 4 adds to the classification loss.

    Args:
        strength: λ.
        layers: the layers that are adapted.
        weights: β, one a kernel.
        estimator: "unbiased" or "biased".
        bandwidths: γ of each layer, or None: the median of each batch.
    """

    strength: float
    layers: tuple[str, ...]
    weights: tuple[float, ...]
    estimator: str = "unbiased"
    bandwidths: Mapping[str, float] | None = None

    def __call__(self, source: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """The penalty, and the MMD² of each layer.

        Args:
            source: features of the source batch by layer, each (n, d).
            target: features of the target batch by layer, each (m, d).
        """
        discrepancies = {}
        for layer in self.layers:
            bandwidth = self.bandwidths[layer] if self.bandwidths else median_bandwidth(source[layer], target[layer])
            discrepancies[layer] = mk_mmd(
                source[layer], target[layer], bandwidth=bandwidth, weights=self.weights, estimator=self.estimator
            )
        return self.strength * torch.stack(list(discrepancies.values())).sum(), discrepancies
