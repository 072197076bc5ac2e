"""The classification loss of a step, in one or several processes, with a replicated or a sharded classifier.

A sharded classifier is partial FC (An et al. 2021): each process holds the weights of its local classes, gathers the
features of all processes, and computes the scores of the whole batch for its local classes. The sums of the softmax
go over the processes. No process holds all weights or all scores. With very many classes a step may sample some
(An et al. 2022).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, distributed
from torch.nn import functional as F

from facedan_cli.distributed import gather_counted, gather_rows, rank, shard_range, sum_over_processes, world_size
from facedan_cli.models.classifier import Classifier


@dataclass(frozen=True)
class Classification:
    """The share of one call in the classification of a step; the calls of a step sum up to the batch's means.

    Args:
        total: the loss to differentiate. Averaged over the processes, its gradients are those of the mean loss of the
            global batch; the gradients of a sharded classifier are complete without averaging.
        loss: its value over all processes.
        accuracy: share of rows whose own class has the highest score without margin among the sampled classes.
    """

    total: Tensor
    loss: Tensor
    accuracy: Tensor


def classification_loss(
    classifier: Classifier,
    x: Tensor,
    labels: Tensor,
    *,
    batch: int,
    smoothing: float = 0.0,
    step: int = 1,
    sampled: Tensor | None = None,
) -> Classification:
    """The cross-entropy of some rows of a step, as their share in the mean over the global batch.

    All processes must call it equally often in a step, with no rows if none are left.

    Args:
        classifier: the classifier, the same in all processes or a shard of the classes (`Classifier.sharded`).
        x: features of rows of this process, shape (b, features).
        labels: their classes, int64, shape (b,).
        batch: number of labelled rows of the global batch, over all processes and all calls of the step.
        smoothing: label smoothing, a share from 0 to 1, spread evenly over the sampled classes.
        step: step of the training, from 1.
        sampled: the rows of the classifier's weight that take part, from `sample_classes`; None: all.
    """
    norms = norms_of(x) if classifier.adapts_margin else None
    x = classifier.dropout(x)
    if classifier.sharded:
        counts = _counts(len(labels))
        # Each process's classes give a part of the gradient, times the number of processes, since it is averaged later.
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        x, labels = gather_counted(wide, counts, world_size()), gather_counted(labels, counts)
        norms = None if norms is None else gather_counted(norms, counts)
    scores = classifier.scores(x, sampled)
    rows, columns = _local_rows(classifier, labels, sampled)
    correct = _correct(classifier, scores.detach(), labels, sampled).sum() / batch
    scores = classifier.add_margin(scores, rows, columns, x, step, norms)
    if classifier.sharded:
        loss = _sharded_cross_entropy(scores, rows, columns, smoothing).sum() / batch
        return Classification(loss, loss.detach(), correct)
    loss = F.cross_entropy(scores, columns, label_smoothing=smoothing, reduction="sum") / batch
    return Classification(loss * world_size(), sum_over_processes(loss.detach().clone()), sum_over_processes(correct))


@torch.no_grad()
def norms_of(x: Tensor) -> Tensor:
    """Norms of features, shape (b,), at least float32, without a gradient."""
    norms: Tensor = torch.linalg.vector_norm(x.to(torch.promote_types(x.dtype, torch.float32)), dim=1)
    return norms


def observe_norms(classifier: Classifier, x: Tensor, batch: int) -> None:
    """Show a classifier whose margin adapts the norms of a global batch; nothing to the others.

    Args:
        classifier: changed in place, the same in all processes.
        x: features of this process's labelled rows of the step, shape (b, features).
        batch: labelled rows of the global batch.
    """
    if classifier.adapts_margin:
        classifier.observe(gather_rows(norms_of(x), batch))


def sample_classes(classifier: Classifier, labels: Tensor, *, rate: float, seed: int, step: int) -> Tensor | None:
    """The sampled classes of a step: those of the global batch's labels, and each other class with a probability.

    The same step of the same seed samples the same classes with any sharding. A class that is left out has a gradient
    of zero: its weights still decay and follow their momentum.

    Args:
        classifier: the classifier with all classes or a shard of them.
        labels: classes of this process's rows in all calls of the step, int64, shape (b,).
        rate: the probability, in (0, 1].
        seed: seed of the sampling, not negative.
        step: step of the training.

    Returns:
        Rows of the classifier's weight, ascending, int64, shape (c,); None: all, where the rate is 1.

    Raises:
        ValueError: the rate is not in (0, 1].
    """
    if not 0 < rate <= 1:
        raise ValueError(f"the share of classes that take part must be in (0, 1], not {rate}")
    if rate == 1:
        return None
    local = classifier.local_classes
    if world_size() > 1:
        labels = gather_counted(labels, _counts(len(labels)))
    numbers = np.random.PCG64((seed, step)).advance(local.start)  # one number of the stream a class
    takes_part = torch.from_numpy(np.random.Generator(numbers).random(len(local)) < rate).to(labels.device)
    takes_part[labels[(labels >= local.start) & (labels < local.stop)] - local.start] = True
    return takes_part.nonzero().squeeze(1)


def gather_classes(classifier: Classifier, tensor: Tensor) -> Tensor | None:
    """The whole of a tensor with a row for each local class, for checkpoints that any number of processes can read.

    Every process calls it. One process's rows at a time go to the first, on the CPU; their devices hold no more.

    Args:
        classifier: replicated, or sharded by `distributed.shard_range`.
        tensor: a parameter of it, or what an optimiser keeps of one, shape (local classes, …); a number belongs to no
            class and stays as it is.

    Returns:
        In the first process a copy on the CPU, shape (classes, …); None in the others.
    """
    tensor = tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
    if classifier.sharded and tensor.dim() > 0:
        if rank() > 0:
            distributed.send(tensor, 0)
            return None
        whole = tensor.new_empty((classifier.classes, *tensor.shape[1:]))
        whole[: len(tensor)] = tensor
        for part in range(1, world_size()):
            rows = shard_range(classifier.classes, part, world_size())
            distributed.recv(whole[rows.start : rows.stop], part)
        return whole
    return tensor if rank() == 0 else None


def load_shard(classifier: Classifier, file: Any, key: str) -> Tensor:
    """The rows of this process from a file's tensor that `gather_classes` made; no other rows are read.

    Args:
        classifier: with all classes or a shard of them.
        file: the file, opened by `safetensors.safe_open`.
        key: key of the tensor; a scalar is read whole.

    Raises:
        ValueError: the tensor has another number of classes.
    """
    rows = file.get_slice(key)
    if not rows.get_shape():
        number: Tensor = file.get_tensor(key)
        return number
    if rows.get_shape()[0] != classifier.classes:
        raise ValueError(f"{key} is of {rows.get_shape()[0]} classes, not {classifier.classes}")
    shard: Tensor = rows[classifier.local_classes.start : classifier.local_classes.stop]
    return shard


def load_classifier(classifier: Classifier, file: Any) -> None:
    """Load a classifier's state from a file whose tensors `gather_classes` made.

    Args:
        classifier: changed in place.
        file: the file, opened by `safetensors.safe_open`.

    Raises:
        ValueError: the state is of another number of classes.
        RuntimeError: it is of another length of features.
    """
    classifier.load_state_dict(
        {name: load_shard(classifier, file, f"classifier.{name}") for name in classifier.state_dict()}
    )


def _local_rows(classifier: Classifier, labels: Tensor, sampled: Tensor | None) -> tuple[Tensor, Tensor]:
    """The rows whose classes are local, and the columns of these classes in the scores."""
    local = classifier.local_classes
    rows, columns = torch.arange(len(labels), device=labels.device), labels
    if classifier.sharded:
        rows = rows[(labels >= local.start) & (labels < local.stop)]
        columns = labels[rows] - local.start
    return rows, columns if sampled is None else torch.searchsorted(sampled, columns)


def _correct(classifier: Classifier, scores: Tensor, labels: Tensor, sampled: Tensor | None) -> Tensor:
    """Whether each row's own class has the highest score, the first among equals; 0 or 1, shape (b,)."""
    if scores.shape[1] > 0:
        highest, columns = scores.max(1)
        classes = classifier.local_classes.start + (columns if sampled is None else sampled[columns])
    else:  # of this process's classes none is sampled
        highest, classes = scores.new_full(labels.shape, -math.inf), torch.full_like(labels, classifier.classes)
    if classifier.sharded:
        top = highest.clone()
        distributed.all_reduce(top, distributed.ReduceOp.MAX)
        classes = torch.where(highest == top, classes, classifier.classes)
        distributed.all_reduce(classes, distributed.ReduceOp.MIN)
    return (classes == labels).to(scores.dtype)


def _sharded_cross_entropy(scores: Tensor, rows: Tensor, columns: Tensor, smoothing: float) -> Tensor:
    """The cross-entropy of each row, shape (b,), from each process's scores (b, c) of its local classes.

    log Σⱼ exp zⱼ − (1 − ε)·z_y − ε·mean z: three sums over classes, of scores that are shifted so that none overflows.
    """
    top = scores.detach().logsumexp(1)  # as good as the highest, and there is one of no classes too
    distributed.all_reduce(top, distributed.ReduceOp.MAX)
    shifted = scores - top[:, None]
    target = shifted.new_zeros(len(shifted)).index_put((rows,), shifted[rows, columns])
    parts = [shifted.exp().sum(1), target]
    if smoothing > 0:
        classes = sum_over_processes(shifted.new_tensor(float(shifted.shape[1])))
        parts.append(shifted.sum(1) / classes)
    exponentials, target, *mean = _SumParts.apply(torch.stack(parts))
    loss: Tensor = exponentials.log() - (1 - smoothing) * target
    return loss - smoothing * mean[0] if smoothing > 0 else loss


class _SumParts(torch.autograd.Function):
    """The sum over the processes of a value that each computed from its local classes.

    The loss is the same in all: its slope in the sum is its slope in each summand, and needs no exchange.
    """

    @staticmethod
    def forward(ctx: Any, part: Tensor) -> Tensor:
        return sum_over_processes(part.clone())

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0]


def _counts(rows: int) -> list[int]:
    """The number of rows of each process."""
    counts = torch.zeros(world_size(), dtype=torch.int64)
    counts[rank()] = rows
    return [int(count) for count in sum_over_processes(counts)]
