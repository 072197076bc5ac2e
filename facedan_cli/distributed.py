"""The processes of a torchrun job: their ranks, and the exchange of tensors and objects.

Each process takes a shard of the data; in training, a shard of every batch.
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
"""Timeout of processes that wait for each other, long enough for slower disks at the end of a job."""

PATIENCE_ON_GPUS = timedelta(hours=2)
"""Timeout with NCCL, which notices the end of another process only by its timeout."""

ENDED = ("another process of this job has ended", "its own message says why; the same command resumes")

Item = TypeVar("Item")


@dataclass(frozen=True)
class DistEnv:
    """The rank of this process and the world size, by torchrun; a single process is rank 0 of 1.

    Args:
        rank: number among all processes.
        count: processes on all machines.
        local_rank: number on this machine.
        local_count: processes on this machine.
    """

    rank: int = 0
    count: int = 1
    local_rank: int = 0
    local_count: int = 1

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> DistEnv:
        """The ranks in the environment variables of torchrun."""
        names = {"rank": "RANK", "count": "WORLD_SIZE", "local_rank": "LOCAL_RANK", "local_count": "LOCAL_WORLD_SIZE"}
        return cls(**{field: int(environment[name]) for field, name in names.items() if name in environment})

    @property
    def first(self) -> bool:
        """Whether this process is rank 0, which does the work that is done once."""
        return self.rank == 0

    def device(self, device: torch.device) -> torch.device:
        """The GPU of this process.

        Raises:
            UsageError: there are fewer GPUs than processes, or all would use one.
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
        """Join the process group, and leave it at the end.

        Args:
            device: of the tensors that the processes exchange, besides those on the CPU.
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
        """The items of all processes in the first process, and none in the others; also a barrier.

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
    """The number of this process in the process group; 0 without one."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def world_size() -> int:
    """The number of processes in the process group; 1 without one."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def shard_range(batch: int, part: int, parts: int) -> range:
    """The contiguous rows of one part of a global batch, which is divided as evenly as possible."""
    return range(batch * part // parts, batch * (part + 1) // parts)


def gather_rows(rows: Tensor, batch: int) -> Tensor:
    """The rows of all processes in the order of the global batch, with gradients.

    A loss of the gathered rows is the same in all processes. Its gradient with respect to the rows of one process is
    multiplied by the number of processes, so that averaging the gradients of the parameters gives that of the loss.

    Args:
        rows: features of this process, shape (rows of its shard, d).
        batch: rows of the global batch.

    Returns:
        Shape (batch, d).
    """
    if world_size() == 1:
        return rows
    parts = world_size()
    return gather_counted(rows, [len(shard_range(batch, part, parts)) for part in range(parts)])


def gather_counted(rows: Tensor, counts: Sequence[int], factor: int = 1) -> Tensor:
    """The rows of all processes in the order of the processes; rows with gradients keep them.

    Args:
        rows: rows of this process, shape (counts[rank], …).
        counts: rows of each process.
        factor: the gradient of a row is this times the sum of the gradients that the processes have for it.

    Returns:
        Shape (sum of counts, …).
    """
    gathered: Tensor = _GatherRows.apply(rows, counts, factor)
    return gathered


class _GatherRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, counts: Sequence[int], factor: int) -> Tensor:
        ctx.start, ctx.count, ctx.factor = sum(counts[: rank()]), counts[rank()], factor
        padded = rows.new_zeros((max(counts), *rows.shape[1:]))
        padded[: len(rows)] = rows
        received = [torch.empty_like(padded) for _ in counts]
        distributed.all_gather(received, padded)
        return torch.cat([part[:count] for part, count in zip(received, counts, strict=True)])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        total = sum_over_processes(gradients[0].clone())
        return total[ctx.start : ctx.start + ctx.count] * ctx.factor, None, None


def average_gradients(parameters: Sequence[nn.Parameter]) -> None:
    """Average the gradients over all processes.

    DistributedDataParallel expects one backward pass a step. Here the loss reaches the network through gathered
    features, in one backward pass for each part of a batch.
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


def add_over_processes(part: Tensor) -> Tensor:
    """The sum of tensors over all processes; the gradient of each part is the sum of the processes' gradients."""
    summed: Tensor = _AddParts.apply(part)
    return summed


class _AddParts(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, part: Tensor) -> Tensor:
        return sum_over_processes(part.clone())

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return sum_over_processes(gradients[0].contiguous().clone())


def begin_alike(tensors: Iterable[Tensor], step: int) -> None:
    """Start all processes at the same step with the weights of the first one.

    Args:
        tensors: replicated parameters and buffers; changed in place.
        step: finished steps.

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
