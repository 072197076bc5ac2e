"""Squared maximum mean discrepancy with several Gaussian kernels: what is compared, and the estimators."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from facedan_cli.adaptation.kernels import gaussian_kernel, squared_distances


@dataclass(frozen=True)
class Comparisons:
    """Pairs of rows, and how each counts: for a kernel k the estimate is Σ contrast · k(distances).

    Every estimator is this sum. Only the pairs differ: all of them, (n + m, n + m), or the four of each quadruple.

    Args:
        distances: squared distances, any shape.
        contrast: positive within a domain, negative between the two; of the same shape.
        sizes: rows of the source and of the target.
        quadruples: whether these are the four pairs of each quadruple, (4, pairs), and not all pairs.
    """

    distances: Tensor
    coefficients: Tensor
    sizes: tuple[int, int]
    quadruples: bool = False

    def estimate(self, kernel: Tensor) -> Tensor:
        """Within-domain means less twice the between-domain mean of kernel values; a scalar."""
        return (self.coefficients * kernel).sum()


def compare(
    source: Tensor,
    target: Tensor,
    *,
    estimator: str = "unbiased",
) -> Comparisons:
    """The pairs that an estimator of MMD² compares.

    - `unbiased`, the U-statistic (Gretton et al. 2012, JMLR 13, eq. 3): no row is compared with itself. Zero in
      expectation where the two distributions are the same.
    - `biased`, the V-statistic: eq. 2 of the paper to the letter. The diagonals of its full blocks, always one, give it
      a positive expectation of order 1/n, and its gradient pulls features together.
    - `linear` (Gretton et al. 2012, Section 6; Long et al. 2015): only the four pairs of each quadruple of rows
      x_2i, x_2i+1, y_2i, y_2i+1; O(n·d), and several times as noisy. Rows without a partner are left out.

    Distances are computed in float32 or better, also under autocast: squared norms overflow half precision.

    Args:
        source: features of the source batch, shape (n, d).
        target: features of the target batch, shape (m, d).
        estimator: as above.

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
    return Comparisons(distances, _coefficients(distances, n, m, unbiased=estimator == "unbiased"), (n, m))


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

    Args:
        source: features of the source batch, shape (n, d).
        target: features of the target batch, shape (m, d).
        bandwidth: γ.
        weights: β, one a kernel, non-negative, summing to one.
        multipliers: kernel u has the bandwidth γ·multipliers[u]; by default 1, 2, 4, …
        estimator: "unbiased", "biased" or "linear", see `compare`.

    Returns:
        A scalar. The unbiased and the linear estimate are often slightly negative; they are not clamped.

    Raises:
        ValueError: as `compare`, or there are not as many weights as multipliers.
    """
    compared = compare(source, target, estimator=estimator)
    return compared.estimate(gaussian_kernel(compared.distances, bandwidth, weights, bandwidth_multipliers))


def _coefficients(like: Tensor, n: int, m: int, *, unbiased: bool) -> Tensor:
    coefficients = torch.full_like(like, -1 / (n * m), requires_grad=False)  # (n + m, n + m)
    coefficients[:n, :n] = 1 / (n * (n - 1) if unbiased else n * n)
    coefficients[n:, n:] = 1 / (m * (m - 1) if unbiased else m * m)
    return coefficients.fill_diagonal_(0) if unbiased else coefficients


def _quadruples(source: Tensor, target: Tensor) -> Comparisons:
    """Four distances for each quadruple: within the source, within the target, and two between; shape (4, pairs)."""
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
