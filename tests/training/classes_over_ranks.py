"""One of several processes that classify one batch, the classes sharded among them; see test_classification.py."""

from __future__ import annotations

from pathlib import Path

import torch
from processes import joined
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn, optim

from facedan_cli.config.heads import HEADS
from facedan_cli.distributed import average_gradients, shard_range
from facedan_cli.models.classifier import Classifier
from facedan_cli.models.dropout import set_batch_rows
from facedan_cli.training.classification import (
    classification_loss,
    gather_classes,
    load_classifier,
    load_shard,
    observe_norms,
    sample_classes,
)

CLASSES, BATCH, STEP = 10, 7, 300  # of three processes: 3, 3 and 4 classes, 2, 2 and 3 rows
RATES = (0.5, 1e-9)  # with the second the labels' classes alone: of three processes one has none
SMOOTHING = dict(zip(HEADS, (0.1, 0.0, 0.1, 0.0, 0.1), strict=True))


def batch() -> dict[str, Tensor]:
    """Inputs and labels of a global batch, the network (a matrix) and the classifier."""
    random = torch.Generator().manual_seed(5)
    shapes = {"inputs": (BATCH, 5), "network": (5, 6), "weight": (CLASSES, 6), "bias": (CLASSES,)}
    drawn = {key: torch.randn(*shape, generator=random, dtype=torch.float64) for key, shape in shapes.items()}
    return drawn | {"labels": torch.tensor([9, 2, 2, 0, 1, 2, 9])}


class Rank:
    """What one process has of it, with its own classes or all."""

    def __init__(self, part: int, parts: int, *, head: str = "softmax", sharded: bool = True, dropout: float = 0.0):
        drawn = batch()
        self.rows = shard_range(BATCH, part, parts)
        self.inputs, self.labels = drawn["inputs"][list(self.rows)], drawn["labels"][list(self.rows)]
        self.network = nn.Parameter(drawn["network"])
        own = shard_range(CLASSES, part, parts) if sharded else None
        self.classifier = Classifier(6, CLASSES, head=head, local_classes=own, dropout=dropout).double()
        held = slice(self.classifier.local_classes.start, self.classifier.local_classes.stop)
        own_rows = {key: drawn[key][held] for key, _ in self.classifier.named_parameters()}
        self.classifier.load_state_dict(self.classifier.state_dict() | own_rows)

    def step(self, *, smoothing: float = 0.0, calls: int = 1, sampled: Tensor | None = None) -> dict[str, Tensor]:
        """Value and gradients of a step, as the training loop has them."""
        parameters = [self.network, *self.classifier.parameters()]
        for parameter in parameters:
            parameter.grad = None
        observe_norms(self.classifier, self.inputs @ self.network, BATCH)
        value, accuracy = torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
        for call in range(calls):
            own = shard_range(len(self.labels), call, calls)
            x = self.inputs[own.start : own.stop] @ self.network
            labels = self.labels[own.start : own.stop]
            found = classification_loss(
                self.classifier, x, labels, batch=BATCH, smoothing=smoothing, step=STEP, sampled=sampled
            )
            found.total.backward()
            value += found.loss
            accuracy += found.accuracy
        average_gradients(parameters[:1] if self.classifier.sharded else parameters)
        named = {"network": self.network, **dict(self.classifier.named_parameters())}
        gradients = {name: parameter.grad for name, parameter in named.items() if parameter.grad is not None}
        seen = {name: buffer.clone() for name, buffer in self.classifier.named_buffers()}
        return {"value": value, "accuracy": accuracy, **gradients, **seen}


def sampled_step(rank: Rank, rate: float) -> dict[str, Tensor]:
    sampled = sample_classes(rank.classifier, rank.labels, rate=rate, seed=1, step=STEP)
    assert sampled is not None
    return {"classes": rank.classifier.local_classes.start + sampled, **rank.step(smoothing=0.1, sampled=sampled)}


def dropped_step(rank: Rank) -> dict[str, Tensor]:
    torch.manual_seed(1)
    set_batch_rows(rank.classifier.modules(), torch.tensor(rank.rows), BATCH)
    return rank.step()


def trained(rank: Rank) -> dict[str, Tensor]:
    """What the first process would save after three steps."""
    parameters = [rank.network, *rank.classifier.parameters()]
    optimizer = optim.SGD(parameters, lr=0.1, momentum=0.9, weight_decay=0.1)
    for _ in range(3):
        rank.step()
        optimizer.step()
    weight = rank.classifier.weight
    held = {"weight": weight, "momentum": optimizer.state[weight]["momentum_buffer"], "count": torch.tensor(3.0)}
    whole = {name: gather_classes(rank.classifier, value) for name, value in held.items()}
    return {name: value for name, value in whole.items() if value is not None}


def classify_in(part: int, parts: int, directory: Path) -> None:
    found: dict[str, dict[str, Tensor]] = {}
    for head, smoothing in SMOOTHING.items():
        for sharded in (True, False):
            rank = Rank(part, parts, head=head, sharded=sharded)
            found[f"{head}-{sharded}"] = rank.step(smoothing=smoothing)
            again = Rank(part, parts, head=head, sharded=sharded)
            found[f"{head}-{sharded}-calls"] = again.step(smoothing=smoothing, calls=3)
    for sharded in (True, False):
        for rate in RATES:
            for head in ("arcface", "adaface"):
                rank = Rank(part, parts, head=head, sharded=sharded)
                found[f"sampled{rate}-{sharded}-{head}"] = sampled_step(rank, rate)
        found[f"dropped-{sharded}"] = dropped_step(Rank(part, parts, sharded=sharded, dropout=0.5))
        found[f"trained-{sharded}"] = trained(Rank(part, parts, head="cosface", sharded=sharded))
    with safe_open(directory / "whole.safetensors", framework="pt") as file:
        rank = Rank(part, parts)
        load_classifier(rank.classifier, file)
        found["read"] = {**rank.classifier.state_dict(), "momentum": load_shard(rank.classifier, file, "momentum")}
    tensors = {f"{name}.{key}": value.clone() for name, case in found.items() for key, value in case.items()}
    save_file(tensors, directory / f"found{part}.safetensors")


def classify_together(part: int, _: int, root: Path) -> None:
    """Once as one of two processes, once as one of three."""
    for parts in (2, 3):
        if part < parts:
            with joined(part, parts, root / str(parts)):
                classify_in(part, parts, root / str(parts))
