"""Dropout whose masks do not depend on the division of a batch."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn


class BatchDropout(nn.Module):
    """Dropout with a mask for the whole batch, of which a call may get some rows only.

    Several processes, or several passes through a batch that does not fit in memory, start from the same random state:
    each draws the mask of the whole batch and takes its own rows. So together they compute what one pass would.

    Args:
        probability: probability that an element is dropped.
    """

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability
        self.batch: int | None = None
        self.rows: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        """The elements of x scaled by 1/(1 − probability) or set to 0; x itself outside training. Any shape (b, …)."""
        if not self.training or self.probability == 0:
            return x
        shape = (len(x) if self.batch is None else self.batch, *x.shape[1:])
        kept = torch.rand(shape, device=x.device) >= self.probability
        kept = kept[: len(x)] if self.rows is None else kept[self.rows[: len(x)]]
        return x * kept / (1 - self.probability)

    def extra_repr(self) -> str:
        """The settings that `print(network)` shows."""
        return f"p={self.probability}"


def set_batch_rows(modules: Iterable[nn.Module], rows: Tensor | None, batch: int | None) -> None:
    """Set the rows of the whole batch that dropouts get next; None: all rows.

    Args:
        modules: those among them that are dropouts are changed in place.
        rows: their numbers, int64; a layer that sees fewer rows sees the first of these.
        batch: rows of the whole batch.
    """
    for module in modules:
        if isinstance(module, BatchDropout):
            module.rows, module.batch = rows, batch
