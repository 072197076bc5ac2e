"""The losses of a step and their gradients, in one pass or, for less memory, in parts of the batch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from facedan_cli.adaptation.penalty import Penalty
from facedan_cli.devices import seed_random
from facedan_cli.distributed import gather_rows, rank, shard_range, world_size
from facedan_cli.errors import FacedanError
from facedan_cli.models.dropout import BatchDropout, set_batch_rows
from facedan_cli.models.network import FaceNetwork
from facedan_cli.training.classification import Classification, classification_loss, observe_norms, sample_classes
from facedan_cli.training.keep import Keep, Kept
from facedan_cli.training.plan import Plan

TOO_LARGE = "lower --lr (or --lambda): NaNs and collapsed features almost always come from too large steps"

_AS_WITHOUT: dict[str, Any] = {"fallback_random": True}
"""Options with which a compiled network draws the same random numbers, so that a run may resume without --compile."""

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

Features = dict[str, Tensor]


@dataclass(frozen=True)
class Batch:
    """This process's shard of a global batch.

    Args:
        source: source images, uint8, (n, 3, crop, crop).
        labels: their identities, int64, (n,).
        target: target images, (n, 3, crop, crop); None in stage 1.
    """

    source: Tensor
    labels: Tensor
    target: Tensor | None = None

    def part(self, rows: slice) -> Batch:
        """A batch of some rows of each domain."""
        return Batch(self.source[rows], self.labels[rows], None if self.target is None else self.target[rows])


@dataclass(frozen=True)
class Losses:
    """The losses and features of a step; the parameters hold its gradients.

    Args:
        classification: mean over the source rows of the global batch.
        accuracy: share of these rows that are classified correctly.
        penalty: penalty of the global batch; None in stage 1.
        discrepancies: discrepancies by their names in the log.
        source: source features by layer, (n, d); with a penalty those of the global batch, (B, d).
        target: target features by layer; empty in stage 1.
        kept: the term that keeps the initial embedding, W times `drift`; None without it.
        drift: mean of 1 − cosine between new and initial embedding.
    """

    classification: Tensor
    accuracy: Tensor
    penalty: Tensor | None
    discrepancies: dict[str, Tensor]
    source: Features
    target: Features
    kept: Tensor | None = None
    drift: Tensor | None = None

    @property
    def total(self) -> Tensor:
        """The loss that is minimised."""
        total = self.classification if self.penalty is None else self.classification + self.penalty
        return total if self.kept is None else total + self.kept


class Step:
    """The losses of a network: classification of the source rows, and the penalty between the domains.

    Args:
        network: trained in place.
        penalty: between source and target features; None in stage 1.
        plan: precision, seed, and the number of parts of a batch.
        scaler: scales the loss where gradients have half precision.
        keep: keeps the initial embedding; None: it is free.
    """

    def __init__(
        self,
        network: FaceNetwork,
        penalty: Penalty | None,
        plan: Plan,
        scaler: torch.amp.GradScaler,
        keep: Keep | None = None,
    ) -> None:
        self.network = network
        self.penalty = penalty
        self.plan = plan
        self.scaler = scaler
        self.keep = keep
        self.device = next(network.parameters()).device
        self._dropouts = [module for module in network.modules() if isinstance(module, BatchDropout)]
        self._forward = torch.compile(network, options=_AS_WITHOUT) if plan.compile else network

    def __call__(self, batch: Batch, step: int) -> Losses:
        """The losses of a step, whose gradients are added to those of the parameters.

        Args:
            batch: this process's shard.
            step: number of the step, from 1.

        Raises:
            FacedanError: the features of the batch have no bandwidth.
        """
        rate, seed = self.plan.sample_rate, self.plan.seed
        sampled = sample_classes(self.network.classifier, batch.labels, rate=rate, seed=seed, step=step)
        if self.plan.grad_accum == 1:
            return self._whole(batch, step, sampled)
        return self._in_parts(batch, step, sampled)

    def _whole(self, batch: Batch, step: int, sampled: Tensor | None) -> Losses:
        # One forward pass of both domains: features by layer, (b, d) of source and target, b rows of this process.
        with self._pass(batch, step, slice(None)):
            source, target = self._features(batch)
            observe_norms(self.network.classifier, source[self.network.layers[-1]], self.plan.batch)
            classified = self._classify(source, batch.labels, step, sampled)
            kept = self._kept(batch, source, target)
        total, penalty = _with(classified.total, kept), None
        discrepancies = Features()
        if self.penalty is not None:
            # The penalty compares the rows of all processes: (B, d), the global batch.
            source, target = self._gathered(source), self._gathered(target)
            penalty, discrepancies = self._penalty(source, target, step)
            total = total + penalty
        self.scaler.scale(total).backward()  # type: ignore[no-untyped-call]
        return _losses([classified], penalty, discrepancies, source, target, [kept])

    def _in_parts(self, batch: Batch, step: int, sampled: Tensor | None) -> Losses:
        """The same step as `_whole`, in parts that need less memory.

        The penalty needs all features at once. A first pass without graph gives the features and the gradient of the
        penalty with respect to them; a second pass per part takes that gradient into the network (Gao et al. 2021,
        "Scaling deep contrastive learning batch size under memory limited setup"). Both draw the same dropout.
        """
        size, count = len(batch.labels), self.plan.grad_accum
        parts = [slice(rows.start, rows.stop) for rows in (shard_range(size, part, count) for part in range(count))]
        local: list[Features] = [{}, {}]  # of source and target, by layer, (b, d)
        gradients: list[Features] = [{}, {}]  # of the penalty with respect to them
        penalty, discrepancies = None, Features()
        source, target = local
        if self.penalty is not None or self.network.classifier.adapts_margin:
            # First pass: the features of all parts, (b, d).
            local = self._joined(batch, step, parts)
            observe_norms(self.network.classifier, local[0][self.network.layers[-1]], self.plan.batch)
        if self.penalty is not None:
            # The penalty of the global batch, (B, d).
            source, target = (self._gathered(features) for features in local)
            penalty, discrepancies = self._penalty(source, target, step)
            leaves = [rows for features in local for rows in features.values()]
            found = iter(torch.autograd.grad(penalty, leaves, allow_unused=True, materialize_grads=True))
            gradients = [{layer: next(found) for layer in features} for features in local]
        # Second pass: each part with its graph; Σ features · gradient has the gradient of the penalty.
        classified, kept, seen = [], [], []
        for rows in parts:
            part = batch.part(rows)
            with self._pass(batch, step, rows):
                features = self._features(part)
                classified.append(self._classify(features[0], part.labels, step, sampled))
                kept.append(self._kept(part, *features))
            total = _with(classified[-1].total, kept[-1])
            for of_domain, by_layer in zip(features, gradients, strict=True):
                for layer, gradient in by_layer.items():
                    total = total + (of_domain[layer] * gradient[rows]).sum()
            self.scaler.scale(total).backward()  # type: ignore[no-untyped-call]
            seen.append({layer: found.detach() for layer, found in features[0].items()})
        if self.penalty is None:
            source = {layer: torch.cat([features[layer] for features in seen]) for layer in self.network.layers}
        return _losses(classified, penalty, discrepancies, source, target, kept)

    def _joined(self, batch: Batch, step: int, parts: list[slice]) -> list[Features]:
        """The features of source and target of all parts, (b, d) by layer, as leaves that require a gradient."""
        found = []
        with torch.no_grad():
            for rows in parts:
                with self._pass(batch, step, rows):
                    found.append(self._features(batch.part(rows)))
        return [
            {layer: torch.cat([part[domain][layer] for part in found]).requires_grad_() for layer in found[0][domain]}
            for domain in (0, 1)
        ]

    @contextmanager
    def _pass(self, batch: Batch, step: int, rows: slice) -> Iterator[None]:
        """Set random numbers, dropout masks (those of the global batch) and precision for a pass of some rows."""
        seed_random((self.plan.seed * 1_000_003 + step) % (1 << 63), self.device)
        local = shard_range(self.plan.batch, rank(), world_size())[rows]
        domains = 1 if batch.target is None else 2
        numbers = None
        if len(local) < self.plan.batch:
            of_domains = [row + domain * self.plan.batch for domain in range(domains) for row in local]
            numbers = torch.tensor(of_domains, device=self.device)
        set_batch_rows(self._dropouts, numbers, domains * self.plan.batch)
        dtype = DTYPES[self.plan.precision]
        with torch.autocast(self.device.type, dtype, enabled=dtype != torch.float32):
            yield
        set_batch_rows(self._dropouts, None, None)

    def _features(self, batch: Batch) -> tuple[Features, Features]:
        """The features of source and target by layer, (n, d) float32, from one pass of both domains."""
        images = batch.source if batch.target is None else torch.cat([batch.source, batch.target])
        labelled = len(batch.labels)
        with self.network.batch_statistics(labelled, len(images)):
            features = {layer: rows.float() for layer, rows in self._forward(images).items()}
        if batch.target is None:
            return features, {}
        # One split, whose gradient is one concatenation.
        domains = {layer: rows.split([labelled, len(images) - labelled]) for layer, rows in features.items()}
        return {layer: rows[0] for layer, rows in domains.items()}, {layer: rows[1] for layer, rows in domains.items()}

    def _classify(self, source: Features, labels: Tensor, step: int, sampled: Tensor | None) -> Classification:
        return classification_loss(
            self.network.classifier,
            source[self.network.layers[-1]],
            labels,
            batch=self.plan.batch,
            smoothing=self.plan.label_smoothing,
            step=step,
            sampled=sampled,
        )

    def _kept(self, batch: Batch, source: Features, target: Features) -> Kept | None:
        if self.keep is None:
            return None
        images = [batch.source] if batch.target is None else [batch.source, batch.target]
        layer = self.network.layers[-1]
        embeddings = [features[layer] for features in (source, target) if features]
        return self.keep(torch.cat(images), torch.cat(embeddings), len(images) * self.plan.batch)

    def _gathered(self, rows: Features) -> Features:
        return {layer: gather_rows(local, self.plan.batch) for layer, local in rows.items()}

    def _penalty(self, source: Features, target: Features, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        assert self.penalty is not None
        try:
            return self.penalty(source, target, step)
        except ValueError as error:  # the median of a batch is no bandwidth
            raise FacedanError(f"step {step} has no bandwidth: {error}", TOO_LARGE) from error


def _losses(
    classified: list[Classification],
    penalty: Tensor | None,
    discrepancies: dict[str, Tensor],
    source: Features,
    target: Features,
    kept: list[Kept | None],
) -> Losses:
    """The losses of a step, detached from their graph."""
    terms = [part for part in kept if part is not None]
    return Losses(
        _sum([part.loss for part in classified]),
        _sum([part.accuracy for part in classified]),
        None if penalty is None else penalty.detach(),
        {name: value.detach() for name, value in discrepancies.items()},
        {layer: rows.detach() for layer, rows in source.items()},
        {layer: rows.detach() for layer, rows in target.items()},
        *((_sum([part.weighted for part in terms]), _sum([part.drift for part in terms])) if terms else ()),
    )


def _with(total: Tensor, kept: Kept | None) -> Tensor:
    return total if kept is None else total + kept.loss


def _sum(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.stack(parts).sum()
