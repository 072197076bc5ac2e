"""Several processes that train one network: what each sees of the global batch, and how their gradients become one."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, distributed, nn


def rank() -> int:
    """The number of this process among those that train together; 0 where it is alone."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def world_size() -> int:
    """How many processes train together; 1 where this one is alone."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def share(batch: int, part: int, parts: int) -> range:
    """The rows of a global batch that one of several processes takes: neighbours, as evenly as can be."""
    return range(batch * part // parts, batch * (part + 1) // parts)


def gather_rows(rows: Tensor, batch: int) -> Tensor:
    """The rows of all processes in the order of the global batch, with a gradient.

    A loss of the gathered rows is the same in all processes. Its gradient with respect to one process's rows comes back
    multiplied by the number of processes, so that averaging the parameters' gradients, as is usual, gives the loss's.

    Args:
        rows: this process's features, shape (its share of the batch, d).
        batch: rows of the global batch.

    Returns:
        Shape (batch, d).
    """
    if world_size() == 1:
        return rows
    gathered: Tensor = _GatherRows.apply(rows, batch)
    return gathered


class _GatherRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, batch: int) -> Tensor:
        parts = world_size()
        shares = [share(batch, part, parts) for part in range(parts)]
        ctx.own = shares[rank()]
        longest = max(len(part) for part in shares)
        padded = rows.new_zeros((longest, *rows.shape[1:]))
        padded[: len(rows)] = rows
        received = [torch.empty_like(padded) for _ in shares]
        distributed.all_gather(received, padded)
        return torch.cat([part[: len(own)] for part, own in zip(received, shares, strict=True)])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        total = gradients[0].clone()
        distributed.all_reduce(total)
        return total[ctx.own.start : ctx.own.stop], None


def average_gradients(network: nn.Module) -> None:
    """Give every process the mean of all processes' gradients."""
    if world_size() == 1:
        return
    gradients = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    distributed.all_reduce(flat)
    flat /= world_size()
    start = 0
    for gradient in gradients:
        gradient.copy_(flat[start : start + gradient.numel()].view_as(gradient))
        start += gradient.numel()


def sum_over_processes(value: Tensor) -> Tensor:
    """The sum of a number over all processes."""
    if world_size() > 1:
        distributed.all_reduce(value)
    return value
