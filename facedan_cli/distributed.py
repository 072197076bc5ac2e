"""Several processes that do one job: who is who, and how what each has becomes one.

torchrun starts them. Each takes its share of the data; of a training, its share of every batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed, nn

from facedan_cli.errors import FacedanError, UsageError

PATIENCE = timedelta(days=7)
"""How long processes wait for each other: at the end of a job some have the slower disk."""

PATIENCE_ON_GPUS = timedelta(hours=2)
"""The same for GPUs, which do not notice that another process has died: NCCL gives up after that time."""

ENDED = ("another process of this job has ended", "its own message says why; the same command goes on from there")

Item = TypeVar("Item")


@dataclass(frozen=True)
class DistEnv:
    """Which of several processes this one is, as torchrun says it; one that works alone is the first of one.

    Args:
        rank: its number among all.
        count: all processes, on all machines.
        local_rank: its number on this machine.
        local_count: the processes on this machine.
    """

    rank: int = 0
    count: int = 1
    local_rank: int = 0
    local_count: int = 1

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> DistEnv:
        """The ranks that the environment names."""
        names = {"rank": "RANK", "count": "WORLD_SIZE", "local_rank": "LOCAL_RANK", "local_count": "LOCAL_WORLD_SIZE"}
        return cls(**{field: int(environment[name]) for field, name in names.items() if name in environment})

    @property
    def first(self) -> bool:
        """Whether this process does what is done once."""
        return self.rank == 0

    def device(self, device: torch.device) -> torch.device:
        """This process's own GPU.

        Raises:
            UsageError: there are fewer GPUs than processes, or all would use the same one.
        """
        if device.type != "cuda" or self.count == 1:
            return device
        if device.index is not None and self.local_count > 1:
            raise UsageError(f"several processes cannot share {device}", "give --device cuda: each takes its own")
        if self.local_rank >= torch.cuda.device_count():
            raise UsageError(
                f"there are {self.local_count} processes here and {torch.cuda.device_count()} GPUs",
                "start one process a GPU: --nproc-per-node gpu",
            )
        return torch.device("cuda", self.local_rank if device.index is None else device.index)

    @contextmanager
    def joined(self, device: torch.device | None = None) -> Iterator[None]:
        """Meet the other processes, and part from them at the end.

        Args:
            device: where tensors lie that they will exchange, besides those on the CPU.
        """
        if self.count == 1:
            yield
            return
        backend = "gloo"
        if device is not None and device.type == "cuda":
            torch.cuda.set_device(device)
            backend = "cpu:gloo,cuda:nccl"
        distributed.init_process_group(backend, timeout=PATIENCE if backend == "gloo" else PATIENCE_ON_GPUS)
        try:
            yield
        finally:
            distributed.destroy_process_group()

    def gather(self, items: Sequence[Item]) -> list[Item]:
        """The items of all processes, for the first; it is also where they wait for each other.

        Raises:
            FacedanError: another process has ended too early.
        """
        if self.count == 1:
            return list(items)
        gathered: list[Sequence[Item]] | None = [()] * self.count if self.first else None
        try:
            distributed.gather_object(items, gathered)
            distributed.barrier()
        except RuntimeError as error:
            raise FacedanError(*ENDED) from error
        return [item for part in gathered or () for item in part]


SINGLE = DistEnv()


def rank() -> int:
    """The number of this process among those that train together; 0 where it is alone."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def world_size() -> int:
    """How many processes train together; 1 where this one is alone."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def shard_range(batch: int, part: int, parts: int) -> range:
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
        shares = [shard_range(batch, part, parts) for part in range(parts)]
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


def average_gradients(parameters: Sequence[nn.Parameter]) -> None:
    """Give every process the mean of all processes' gradients.

    DistributedDataParallel would do it while the backward pass goes on, but for one backward pass a step: here the loss
    reaches the network through gathered features, in as many passes as there are parts of a batch.
    """
    if world_size() == 1:
        return
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
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


def begin_alike(tensors: Iterable[Tensor], step: int) -> None:
    """See to it that all processes begin at the same step, with the first one's weights.

    Args:
        tensors: parameters and buffers that all processes have; changed in place.
        step: steps that are done.

    Raises:
        FacedanError: the processes found different states.
    """
    if world_size() == 1:
        return
    steps = [torch.tensor(0) for _ in range(world_size())]
    distributed.all_gather(steps, torch.tensor(step))
    if len({int(found) for found in steps}) > 1:
        raise FacedanError(
            f"the processes do not find the same state (steps {', '.join(str(int(found)) for found in steps)})",
            "the workspace must be a directory that all of them see",
        )
    for tensor in tensors:
        copy = tensor.detach().clone(memory_format=torch.contiguous_format)
        distributed.broadcast(copy, 0)
        tensor.detach().copy_(copy)
