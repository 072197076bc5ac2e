"""One of several processes that adapt tiny networks together, one after the other; started by test_distributed.py."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import normalised
import torch
from processes import joined
from safetensors.torch import save_file
from torch import Tensor

from facedan_cli.adaptation.penalty import Penalty
from facedan_cli.data.batches import BatchStream
from facedan_cli.distributed import gather_rows, shard_range
from facedan_cli.models.backbone import Backbone
from facedan_cli.models.checkpoint import ModelCard
from facedan_cli.models.network import FaceNetwork
from facedan_cli.models.vggface import Spec, VGGFace
from facedan_cli.training.changes import Restyling
from facedan_cli.training.keep import Keep
from facedan_cli.training.loop import DomainBatches, train
from facedan_cli.training.plan import Plan
from facedan_cli.training.state import Checkpoints

SPEC = Spec(widths=(4, 4, 8, 8, 8), hidden=16, image_size=36, crop=32, scale=64.0, dropout=0.3)
IDENTITIES, BATCH, STEPS = 5, 7, 10  # seven rows are four and three
PLAN = Plan(
    optimizer="sgd",
    lr=2e-3,
    backbone_lr_mult=1.0,
    classifier_lr_mult=10.0,
    schedule="constant",
    batch=BATCH,
    iterations=STEPS,
    momentum=0.9,
    weight_decay=5e-4,
    label_smoothing=0.1,
    seed=3,
    checkpoint_every=4,
    log_every=3,
)

CARD = ModelCard("vggface-mini", tuple("abcde"), "adapt", "adapt-a-b-00000000", {})


class Gone(Exception):
    """A process has come to its end."""


@dataclass
class Drawn:
    """A process's share of random batches that depend on their number alone."""

    seed: int
    part: int
    parts: int
    die_after: int | None = None

    def batches(self, start: int, stop: int, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
        own = list(shard_range(BATCH, self.part, self.parts))
        for step in range(start, stop):
            if step == self.die_after:
                raise Gone
            generator = torch.Generator().manual_seed(1000 * self.seed + step)
            images = torch.randint(0, 256, (BATCH, 3, 32, 32), generator=generator, dtype=torch.uint8)
            labels = torch.randint(0, IDENTITIES, (BATCH,), generator=generator)
            yield images[own], labels[own]


def measure(part: int, parts: int, **options: Any) -> dict[str, Tensor]:
    """Value and gradient of the penalty of one global batch, as this process has them."""
    random = torch.Generator().manual_seed(5)
    batches = [torch.randn(BATCH, 6, generator=random, dtype=torch.float64) + shift for shift in (0.0, 0.7)]
    own = list(shard_range(BATCH, part, parts))
    leaves = [batch[own].requires_grad_() for batch in batches]
    source, target = ({"fc7": gather_rows(leaf, BATCH)} for leaf in leaves)
    value, _ = Penalty(lambda_=0.5, layers={"fc7": 1.0}, bandwidths={"fc7": 8.0}, **options)(source, target)
    value.backward()
    gradients = [leaf.grad / parts for leaf in leaves if leaf.grad is not None]
    return {"value": value.detach(), "source": gradients[0], "target": gradients[1]}


def normalised_network(mode: str, **head: Any) -> FaceNetwork:
    """A network with batch normalisation, in a mode of --batch-norm."""
    network = Backbone(normalised.body(), normalised.NAME, normalised.ENTRY, IDENTITIES, **head)
    network.body[7].p = 0.0  # the layer's own dropout knows nothing of several processes
    network.offer(["8"])
    network.normalise_by(mode)
    return network


def adapt_in(part: int, parts: int, directory: Path, options: dict[str, Any]) -> None:
    options = dict(options)
    mode = options.pop("batch_norm", None)
    die_after = options.pop("die_after", None)
    rows = shard_range(BATCH, part, parts)
    restyling = Restyling(options.pop("restyle"), 0.5, PLAN.seed, rows) if "restyle" in options else None
    sharded = bool(options.pop("sharded", 0)) and parts > 1
    plan = replace(PLAN, grad_accum=options.pop("grad_accum", 1), sample_rate=options.pop("sample_rate", 1.0))
    keep = options.pop("keep", 0.0)
    head = {"head": options.pop("head", "softmax"), "scale": options.pop("scale", None)}
    head["local_classes"] = shard_range(IDENTITIES, part, parts) if sharded else None
    save_file(measure(part, parts, **options), directory / f"measured{part}.safetensors")
    torch.manual_seed(0)
    network = VGGFace(SPEC, IDENTITIES, **head) if mode is None else normalised_network(mode, **head)
    layers = {layer: 1.0 for layer in ("fc6", "fc7") if mode is None} or {"8": 1.0, "embedding": 1.0}
    bandwidths = dict(zip(layers, (20.0, 5.0), strict=True))
    penalty = Penalty(lambda_=0.5, layers=layers, bandwidths=bandwidths, **options)
    source, target = (cast(BatchStream, Drawn(seed, part, parts, die_after)) for seed in (1, 2))
    with suppress(Gone), Checkpoints(directory, CARD) as checkpoints:
        train(
            network,
            DomainBatches(source, target, penalty, restyling, Keep(keep, VGGFace(SPEC, IDENTITIES)) if keep else None),
            plan,
            checkpoints=checkpoints,
            log=directory / "metrics.jsonl",
        )


def adapt_together(part: int, _: int, root: Path, jobs: Sequence[tuple[str, int, dict[str, Any]]]) -> None:
    """Trainings by two and by three processes, one after the other, each with a directory of its own."""
    for name, parts, options in jobs:
        if part < parts:
            with joined(part, parts, root / name):
                adapt_in(part, parts, root / name, options)
