"""Distances, bandwidths and Gaussian kernels, shared by all estimators of MMD."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

COLUMNS_AT_ONCE = 1024
"""Number of feature columns centred at a time; the copy stays small beside the (n, n) matrices."""

MIN_BANDWIDTH = 1e-12

MEDIANS = {"squared": 1.0, "sigma": 2.0}
"""The two readings of "the median" as bandwidth: γ as a multiple of the median squared distance.

`squared`: γ is that median itself. `sigma`: the Gaussian exp(−‖x−y‖²/(2σ²)) has the median distance as its σ, which
makes γ = 2σ² twice as large: the square of the median distance is the median of the squared ones.
"""


def squared_distances(*parts: Tensor) -> Tensor:
    """The squared Euclidean distances between all rows of one or more feature batches, by one Gram product.

    ‖x−y‖² = ‖x‖² + ‖y‖² − 2·xᵀy needs O(n²) memory, the broadcast form O(n²·d). The three terms cancel where rows lie
    near each other and far from the mean of all, as in a domain that lies far from the other. They are summed in
    float64, which leaves enough digits for float32.

    The gradient is one product too: 2·(diag(S·1) − S)·X with S = G + Gᵀ of the incoming gradient G. It squares nothing,
    so float32 is enough once the mean is subtracted.

    Args:
        parts: features, shapes (n_i, d), of any precision, also under autocast.

    Returns:
        Distances between the rows of all parts in their order, shape (Σ n_i, Σ n_i), at least float32, none negative,
        the diagonal exactly zero.
    """
    distances: Tensor = _SquaredDistances.apply(*parts)
    return distances


class _SquaredDistances(torch.autograd.Function):
    """Squared distances with a backward pass of their own; autograd's needs two products and copies of all rows."""

    @staticmethod
    def forward(ctx: Any, *parts: Tensor) -> Tensor:
        ctx.save_for_backward(*parts)
        rows = sum(len(part) for part in parts)
        gram = parts[0].new_zeros((rows, rows), dtype=torch.float64)
        with torch.autocast(gram.device.type, enabled=False):
            for columns in _column_blocks(parts):
                block = _centred(parts, columns, torch.float64)
                gram.addmm_(block, block.T)
            norms = gram.diagonal().clone()
            # A Gram product is not exactly symmetric in its last bits; its sum with the transpose is.
            distances = (norms[:, None] + norms[None, :]).sub_(gram + gram.T)
            return distances.clamp_(min=0).fill_diagonal_(0).to(_precise(parts[0].dtype))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        parts: tuple[Tensor, ...] = ctx.saved_tensors
        (gradient,) = gradients
        with torch.autocast(gradient.device.type, enabled=False):
            laplacian = (gradient + gradient.T).mul_(-2).fill_diagonal_(0)
            laplacian.diagonal().copy_(-laplacian.sum(dim=1))
            found = [
                torch.empty_like(part) if needed else None
                for part, needed in zip(parts, ctx.needs_input_grad, strict=True)
            ]
            for columns in _column_blocks(parts):
                block, start = _centred(parts, columns, gradient.dtype), 0
                for part, result in zip(parts, found, strict=True):
                    if result is not None:
                        result[:, columns] = laplacian[start : start + len(part)] @ block
                    start += len(part)
        return tuple(found)


def _precise(dtype: torch.dtype) -> torch.dtype:
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype


def _column_blocks(parts: Sequence[Tensor]) -> list[slice]:
    width = max(COLUMNS_AT_ONCE, sum(len(part) for part in parts))
    return [slice(start, start + width) for start in range(0, parts[0].shape[1], width)]


def _centred(parts: Sequence[Tensor], columns: slice, dtype: torch.dtype) -> Tensor:
    block = torch.cat([part[:, columns] for part in parts]).to(dtype)
    return block - block.mean(dim=0)


@torch.no_grad()
def median_bandwidth(source: Tensor, target: Tensor, reading: str = "squared") -> float:
    """γ_m, the median of the squared distances between different rows of both domains (Gretton et al. 2012).

    The distance is *squared* because the kernel exp(−‖x−y‖²/γ) divides the squared distance by γ.

    >>> median_bandwidth(torch.tensor([[0.0], [1.0]]), torch.tensor([[3.0]]))  # of 1, 4 and 9
    4.0

    Args:
        source: features, shape (n, d).
        target: features, shape (m, d).
        reading: "squared" or "sigma", see `MEDIANS`.

    Raises:
        ValueError: the median is not a positive number: the features have collapsed to a point, or are not finite.
    """
    return MEDIANS[reading] * median_distance(squared_distances(source, target))


@torch.no_grad()
def median_distance(distances: Tensor) -> float:
    """The median of the squared distances between different rows, given as a matrix, shape (n, n).

    Raises:
        ValueError: it is not a positive number.
    """
    above = torch.triu_indices(len(distances), len(distances), offset=1, device=distances.device)
    median = float(distances[above[0], above[1]].median())
    if not MIN_BANDWIDTH < median < float("inf"):
        raise ValueError(f"the median squared distance of the features is {median:g}, which is no bandwidth")
    return median


def doubling_multipliers(kernels: int) -> tuple[float, ...]:
    """The bandwidth multipliers 1, 2, 4, … for a number of kernels (paper, Section IV-B: five)."""
    return tuple(2.0**power for power in range(kernels))


def gaussian_kernels(distances: Tensor, bandwidth: float, bandwidth_multipliers: Sequence[float]) -> list[Tensor]:
    """The kernels k_u = exp(−‖x−y‖² / (γ·f_u)), one for each multiplier f_u.

    A kernel of half the bandwidth is the square of the wider one: of doubling multipliers only the widest costs an
    exponential.

    Args:
        distances: squared distances, any shape.
        bandwidth: γ.
        bandwidth_multipliers: f, positive, in any order.

    Returns:
        In the order of `bandwidth_multipliers`, kernel values of the shape of `distances`, between 0 and 1.
    """
    kernels: dict[float, Tensor] = {}
    for factor in sorted(set(bandwidth_multipliers), reverse=True):
        wider = kernels.get(2 * factor)
        kernels[factor] = torch.exp(distances / (-bandwidth * factor)) if wider is None else wider.square()
    return [kernels[factor] for factor in bandwidth_multipliers]


def gaussian_kernel(
    distances: Tensor, bandwidth: float, weights: Sequence[float], bandwidth_multipliers: Sequence[float] | None = None
) -> Tensor:
    """The multi-kernel of eq. 3, k = Σ_u β_u exp(−‖x−y‖² / (γ·f_u)).

    Args:
        distances: squared distances, any shape.
        bandwidth: γ.
        weights: β, one a kernel, non-negative, summing to one.
        bandwidth_multipliers: f, one a kernel; by default 1, 2, 4, …

    Returns:
        Kernel values, of the shape of `distances`, between 0 and 1.

    Raises:
        ValueError: the numbers of weights and multipliers differ.
    """
    factors = doubling_multipliers(len(weights)) if bandwidth_multipliers is None else bandwidth_multipliers
    return mixture(gaussian_kernels(distances, bandwidth, factors), weights)


def mixture(kernels: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """The mixture Σ_u β_u k_u of kernels.

    Raises:
        ValueError: the numbers of weights and kernels differ.
    """
    total = torch.zeros_like(kernels[0])
    for kernel, weight in zip(kernels, weights, strict=True):
        total = torch.add(total, kernel, alpha=weight)
    return total
