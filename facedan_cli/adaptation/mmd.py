"""Estimators of the squared maximum mean discrepancy with several Gaussian kernels, and the pairs they compare.

`mk_mmd` is the function to call with two batches of features. Training (`adaptation.discrepancies`, `penalty`) takes
the same two steps, `compare` and `Comparisons.estimate`, and computes the kernel between them itself: its bandwidths
and weights follow the batches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from facedan_cli.adaptation.kernels import gaussian_kernel, squared_distances


@dataclass(frozen=True)
class Comparisons:
    """The pairs of rows that an estimator compares, and their coefficients in the estimate.

    Every estimator of MMD² is Σ coefficients · k(distances). The pairs are all, (n + m, n + m), or the four of each
    quadruple.

    Args:
        distances: squared distances, any shape.
        coefficients: positive within a domain, negative between the two; of the same shape.
        sizes: rows of the source and of the target.
        quadruples: whether the pairs are those of quadruples, (4, pairs), and not all.
    """

    distances: Tensor
    coefficients: Tensor
    sizes: tuple[int, int]
    quadruples: bool = False

    def estimate(self, kernel: Tensor) -> Tensor:
        """MMD² of kernel values: within-domain means minus twice the between-domain mean; a scalar."""
        return (self.coefficients * kernel).sum()


def compare(source: Tensor, target: Tensor, *, estimator: str = "unbiased") -> Comparisons:
    """The pairs that an estimator of MMD² compares.

    - `unbiased`, the U-statistic (Gretton et al. 2012, JMLR 13, eq. 3): no row is compared with itself. Its
      expectation is zero where the two distributions are the same.
    - `biased`, the V-statistic: eq. 2 of the paper to the letter. The diagonals of its full blocks are one, which gives
      it a positive expectation of order 1/n; its gradient pulls features together.
    - `linear` (Gretton et al. 2012, Section 6; Long et al. 2015): the four pairs of each quadruple of rows x_2i,
      x_2i+1, y_2i, y_2i+1; O(n·d), and several times as noisy. Rows without a partner are left out.

    Distances are computed in float32 or better, also under autocast: squared norms overflow half precision.

    Args:
        source: features of the source batch, shape (n, d).
        target: features of the target batch, shape (m, d).
        estimator: name of the estimator, as above.

    Raises:
        ValueError: a batch has fewer than two rows, the feature sizes differ, or the estimator is unknown.
    """
    n, m = len(source), len(target)
    if n < 2 or m < 2:
        raise ValueError(f"MMD needs at least two rows of each domain, got {n} and {m}")
    if source.shape[1:] != target.shape[1:]:
        raise ValueError(f"features differ in size: {tuple(source.shape[1:])} and {tuple(target.shape[1:])}")
    if estimator == "linear":
        return _quadruples(source, target)
    if estimator not in ("unbiased", "biased"):
        raise ValueError(f"unknown estimator {estimator!r}")
    distances = squared_distances(source, target)
    coefficients = _coefficients(n, m, distances.dtype, distances.device, unbiased=estimator == "unbiased")
    return Comparisons(distances, coefficients, (n, m))


def mk_mmd(
    source: Tensor,
    target: Tensor,
    *,
    bandwidth: float,
    weights: Sequence[float] = (1.0,),
    bandwidth_multipliers: Sequence[float] | None = None,
    estimator: str = "unbiased",
) -> Tensor:
    """MMD² between two feature batches (paper eq. 2 and 3; Gretton et al. 2012).

    >>> from facedan_cli.adaptation.kernels import median_bandwidth
    >>> random = torch.Generator().manual_seed(0)
    >>> source, target = torch.randn(2, 40, 8, generator=random)
    >>> five = [1 / 5] * 5  # kernels of bandwidths γ, 2γ, 4γ, 8γ, 16γ
    >>> gamma = median_bandwidth(source, target + 1)
    >>> mk_mmd(source, target + 1, bandwidth=gamma, weights=five) > 0.1
    tensor(True)
    >>> abs(mk_mmd(source, target, bandwidth=gamma, weights=five)) < 0.01
    tensor(True)

    Args:
        source: features of the source batch, shape (n, d).
        target: features of the target batch, shape (m, d).
        bandwidth: γ.
        weights: β, one a kernel, non-negative, summing to one.
        bandwidth_multipliers: kernel u has the bandwidth γ·bandwidth_multipliers[u]; by default 1, 2, 4, …
        estimator: "unbiased", "biased" or "linear", see `compare`.

    Returns:
        A scalar. The unbiased and the linear estimate can be slightly negative; they are not clamped.

    Raises:
        ValueError: as `compare`, or the numbers of weights and multipliers differ.
    """
    compared = compare(source, target, estimator=estimator)
    return compared.estimate(gaussian_kernel(compared.distances, bandwidth, weights, bandwidth_multipliers))


@lru_cache(maxsize=4)  # all layers and steps of a training have the same
def _coefficients(n: int, m: int, dtype: torch.dtype, device: torch.device, *, unbiased: bool) -> Tensor:
    coefficients = torch.full((n + m, n + m), -1 / (n * m), dtype=dtype, device=device)
    coefficients[:n, :n] = 1 / (n * (n - 1) if unbiased else n * n)
    coefficients[n:, n:] = 1 / (m * (m - 1) if unbiased else m * m)
    return coefficients.fill_diagonal_(0) if unbiased else coefficients


def _quadruples(source: Tensor, target: Tensor) -> Comparisons:
    """The four distances of each quadruple: within the source, within the target, and two between; shape (4, pairs)."""
    pairs = min(len(source), len(target)) // 2
    with torch.autocast(source.device.type, enabled=False):
        x, y = (
            rows[: 2 * pairs].to(torch.float64 if rows.dtype == torch.float64 else torch.float32)
            for rows in (source, target)
        )
        (x1, x2), (y1, y2) = (x[0::2], x[1::2]), (y[0::2], y[1::2])
        differences = (x1 - x2, y1 - y2, x1 - y2, x2 - y1)
        distances = torch.stack([difference.square().sum(dim=1) for difference in differences])
    signs = distances.new_tensor([1.0, 1.0, -1.0, -1.0]) / pairs
    return Comparisons(distances, signs[:, None].expand_as(distances), (len(source), len(target)), quadruples=True)
