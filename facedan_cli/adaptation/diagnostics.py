"""How the features of a batch lie: what shows that a penalty is too strong before results do."""

from __future__ import annotations

import torch
from torch import Tensor


@torch.no_grad()
def effective_rank(rows: Tensor) -> float:
    """exp of the entropy of the normalised singular values of the centred features (Roy and Vetterli 2007).

    Between 1, all on a line, and n − 1, spread evenly over as many directions as there can be; 0 where all are equal.

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
    """The mean cosine between different rows: 1 where all point the same way.

    Args:
        rows: features, shape (n, d), n ≥ 2.
    """
    n = len(rows)
    directions = torch.nn.functional.normalize(rows.float(), dim=1)
    lengths = directions.square().sum()  # n, less the rows that are zero
    return float((directions.sum(dim=0).square().sum() - lengths) / (n * (n - 1)))


@torch.no_grad()
def mean_norm(rows: Tensor) -> float:
    """The mean length of the rows, shape (n, d)."""
    return float(rows.float().norm(dim=1).mean())


def _singular_values(rows: Tensor) -> Tensor:
    precise = rows.double()
    centred = precise - precise.mean(dim=0)
    squared = torch.linalg.eigvalsh(centred @ centred.T).clamp(min=0)
    # What rounding leaves of the zero that centring makes is no direction.
    squared[squared < squared.max() * 1e-12] = 0
    values: Tensor = squared.sqrt()
    return values
