"""The penalty that adaptation adds to the loss: the discrepancies of the layers, with λ and their running state."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from facedan_cli.adaptation.betas import Moments, kernel_moments, optimal_weights
from facedan_cli.adaptation.discrepancies import LayerBatch, Measure
from facedan_cli.adaptation.kernels import (
    MEDIANS,
    doubling_multipliers,
    gaussian_kernels,
    median_bandwidth,
    median_distance,
    mixture,
)
from facedan_cli.adaptation.mmd import Comparisons
from facedan_cli.config.discrepancies import DISCREPANCIES
from facedan_cli.config.models import imported

MOMENTUM = 0.9
"""Decay of moving averages over batches; each batch has a tenth of the weight."""


@dataclass(kw_only=True)
class Penalty:
    """λ Σ_l w_l · discrepancy(source features of layer l, target features of layer l): the second term of the loss.

    Args:
        lambda_: λ.
        layers: adapted layers with their weights w_l (1 in the paper).
        discrepancy: one of `config.discrepancies.DISCREPANCIES`; "mk-mmd" is the paper's.
        bandwidth_multipliers: bandwidths of the kernels as multiples of γ.
        kernel_weights: "equal", or "optimal" from moving averages of each kernel's estimate and covariance.
        estimator: "unbiased", "biased" or "linear".
        bandwidths: γ of each layer; None: the median of each batch.
        running: whether γ then follows the medians of the batches, as a moving average.
        median: reading of the median as γ, "squared" or "sigma" (`kernels.MEDIANS`).
        memory_bank: past rows of each domain, without gradient, that each batch is compared with; not with the linear
            estimator, which would compare them with each other only.
        ramp: steps over which λ rises from 0 to `lambda_`; 0: constant λ.
        normalise: whether features are L2-normalised first; bandwidths are then those of normalised features.
    """

    lambda_: float
    layers: Mapping[str, float]
    discrepancy: str = "mk-mmd"
    bandwidth_multipliers: tuple[float, ...] = doubling_multipliers(5)
    kernel_weights: str = "equal"
    estimator: str = "unbiased"
    bandwidths: Mapping[str, float] | None = None
    running: bool = False
    median: str = "squared"
    memory_bank: int = 0
    ramp: int = 0
    normalise: bool = False
    gamma: dict[str, float] = field(default_factory=dict, init=False)
    weights: dict[str, tuple[float, ...]] = field(default_factory=dict, init=False)
    _moments: dict[str, Moments] = field(default_factory=dict, init=False)
    _past: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        if self.memory_bank and self.estimator == "linear":
            raise ValueError("the linear estimator compares no row of a batch with the memory bank")
        self.gamma = dict(self.bandwidths or {})
        equal = (1 / len(self.bandwidth_multipliers),) * len(self.bandwidth_multipliers)
        self.weights = dict.fromkeys(self.layers, equal)

    def __call__(
        self, source: Mapping[str, Tensor], target: Mapping[str, Tensor], step: int = 1
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The penalty, and each discrepancy by its name in the log.

        With a memory bank the value is that of batch and past rows together. Past rows have no gradient; that of the
        batch is scaled up for them (`_with_memory_bank`).

        Args:
            source: features of the source batch by layer, each (n, d).
            target: features of the target batch by layer, each (m, d).
            step: number of the training step, from 1.

        Raises:
            ValueError: a batch has fewer than two rows of a domain, or its features have no bandwidth.
        """
        if self.normalise:
            source, target = on_sphere(source), on_sphere(target)
        batches = {
            layer: LayerBatch(*self._rows(layer, source[layer], target[layer]), self.estimator) for layer in self.layers
        }
        entry = DISCREPANCIES[self.discrepancy]
        if entry.kernels:
            for layer, batch in batches.items():
                self._choose_bandwidth(layer, batch)
                batch.kernel = self._kernel(layer, batch.pairs)
        measure: Measure = imported(entry.measure)
        found = measure(batches)
        # A joint discrepancy has no layer and no weight.
        weighted = torch.stack([self.layers.get(layer, 1.0) * value for layer, value in found.items()])
        log = {"_".join(filter(None, (entry.log, layer))): value for layer, value in found.items()}
        return self.lambda_at(step) * weighted.sum(), log  # eq. 4: λ Σ_l w_l · MMD²(S_l, T_l)

    def lambda_at(self, step: int) -> float:
        """λ at a step; over the ramp it rises as 2/(1 + exp(−10·p)) − 1 (Ganin and Lempitsky 2015), p = step/ramp."""
        if step >= self.ramp:
            return self.lambda_
        return self.lambda_ * (2 / (1 + math.exp(-10 * step / self.ramp)) - 1)

    def frozen(self) -> Penalty:
        """A copy of the penalty with the present bandwidths and kernel weights, full λ and no running state."""
        fixed = replace(
            self, bandwidths=dict(self.gamma) or None, running=False, kernel_weights="equal", memory_bank=0, ramp=0
        )
        fixed.weights = dict(self.weights)
        return fixed

    def update_memory_bank(self, source: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> None:
        """Put the rows of a finished step into the memory bank."""
        if not self.memory_bank:
            return
        if self.normalise:
            source, target = on_sphere(source), on_sphere(target)
        for layer in self.layers:
            now = (source[layer].detach(), target[layer].detach())
            before = self._past.get(layer, tuple(rows[:0] for rows in now))
            first, second = (
                torch.cat([old.to(new), new])[-self.memory_bank :] for old, new in zip(before, now, strict=True)
            )
            self._past[layer] = (first, second)

    def settings(self) -> dict[str, float | list[float]]:
        """The present γ and β of each layer, for the log."""
        entry: dict[str, float | list[float]] = {f"gamma_{layer}": gamma for layer, gamma in self.gamma.items()}
        if DISCREPANCIES[self.discrepancy].kernels:
            entry |= {f"beta_{layer}": list(weights) for layer, weights in self.weights.items()}
        return entry

    def state(self) -> dict[str, Tensor]:
        """The running state that the next step depends on, by name."""
        tensors = {f"gamma.{layer}": torch.tensor(gamma, dtype=torch.float64) for layer, gamma in self.gamma.items()}
        for layer, moments in self._moments.items():
            tensors[f"estimates.{layer}"] = moments.estimates
            tensors[f"covariance.{layer}"] = moments.covariance
        for layer, (source, target) in self._past.items():
            tensors[f"source.{layer}"], tensors[f"target.{layer}"] = source, target
        return tensors

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore a state of `state`."""
        for layer in self.layers:
            if f"gamma.{layer}" in tensors:
                self.gamma[layer] = float(tensors[f"gamma.{layer}"])
            if f"estimates.{layer}" in tensors:
                self._moments[layer] = Moments(tensors[f"estimates.{layer}"], tensors[f"covariance.{layer}"])
            if f"source.{layer}" in tensors:
                self._past[layer] = (tensors[f"source.{layer}"], tensors[f"target.{layer}"])

    def _rows(self, layer: str, source: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        if layer not in self._past:
            return source, target
        past_source, past_target = self._past[layer]
        return _with_memory_bank(source, past_source), _with_memory_bank(target, past_target)

    def _choose_bandwidth(self, layer: str, batch: LayerBatch) -> None:
        if self.bandwidths is not None and not self.running:
            return
        if batch.pairs.quadruples:
            median = median_bandwidth(batch.source, batch.target, self.median)
        else:
            median = MEDIANS[self.median] * median_distance(batch.pairs.distances)
        if self.bandwidths is not None:
            median = MOMENTUM * self.gamma[layer] + (1 - MOMENTUM) * median
        self.gamma[layer] = median

    def _kernel(self, layer: str, pairs: Comparisons) -> Tensor:
        kernels = gaussian_kernels(pairs.distances, self.gamma[layer], self.bandwidth_multipliers)
        if self.kernel_weights == "optimal":
            moments = kernel_moments(kernels, pairs).smoothed(self._moments.get(layer), MOMENTUM)
            self._moments[layer] = moments
            self.weights[layer] = optimal_weights(moments)
        return mixture(kernels, self.weights[layer])


def on_sphere(features: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """L2-normalised features by layer, (n, d)."""
    return {layer: F.normalize(rows) for layer, rows in features.items()}


def _with_memory_bank(rows: Tensor, past: Tensor) -> Tensor:
    """The n rows of a batch, with gradients scaled by (n + q)/n, and q past rows.

    A mean over n + q rows moves with each of them by 1/(n + q). The factor gives a row of the batch the gradient that
    it would have, in expectation over the memory bank, without one; else the bank would weaken λ by n/(n + q).
    """
    share = (len(rows) + len(past)) / len(rows)
    value = rows.detach()
    return torch.cat([value + share * (rows - value), past.to(rows)])
