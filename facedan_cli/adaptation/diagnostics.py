"""Spread of the features of a batch, which falls before the results do if λ is too high."""

from __future__ import annotations

import torch
from torch import Tensor


@torch.no_grad()
def effective_rank(rows: Tensor) -> float:
    """The effective rank: exp of the entropy of the centred features' normalised singular values (Roy, Vetterli 2007).

    It is 1 where all rows lie on a line, n − 1 where they spread evenly over all directions, 0 where all are equal.

    >>> round(effective_rank(torch.eye(4)), 6), round(effective_rank(torch.tensor([[0.0, 0.0], [1.0, 1.0]])), 6)
    (3.0, 1.0)

    Args:
        rows: features, shape (n, d).
    """
    values = _singular_values(rows)
    if not values.sum() > 0:
        return 0.0
    shares = values / values.sum()
    return float(torch.exp(torch.special.entr(shares).sum()))


@torch.no_grad()
def mean_cosine(rows: Tensor) -> float:
    """The mean cosine between different rows; 1 if all have the same direction.

    Args:
        rows: features, shape (n, d), n ≥ 2.
    """
    n = len(rows)
    directions = torch.nn.functional.normalize(rows.float(), dim=1)
    lengths = directions.square().sum()  # n, minus the zero rows
    return float((directions.sum(dim=0).square().sum() - lengths) / (n * (n - 1)))


@torch.no_grad()
def mean_norm(rows: Tensor) -> float:
    """The mean length of the rows, shape (n, d)."""
    return float(rows.float().norm(dim=1).mean())


def _singular_values(rows: Tensor) -> Tensor:
    precise = rows.double()
    centred = precise - precise.mean(dim=0)
    squared = torch.linalg.eigvalsh(centred @ centred.T).clamp(min=0)
    # Centring makes one eigenvalue zero; its rounding error is no direction.
    squared[squared < squared.max() * 1e-12] = 0
    values: Tensor = squared.sqrt()
    return values
