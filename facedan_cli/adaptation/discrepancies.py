"""Discrepancies between two domains: MK-MMD of the paper, and others for comparison under the same loss."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from facedan_cli.adaptation.mmd import Comparisons, compare

COINCIDENT = 1e-12
"""Share of the mean below which squared distances count as zero, since the gradient of a root is unbounded there."""


@dataclass
class LayerBatch:
    """The features of a layer in one step, from both domains.

    Args:
        source: features of the source, shape (n, d).
        target: features of the target, shape (m, d).
        estimator: which pairs of rows are compared, see `mmd.compare`.
        kernel: the mixture of Gaussian kernels at `pairs.distances`, of the same shape; None without kernels.
    """

    source: Tensor
    target: Tensor
    estimator: str = "unbiased"
    kernel: Tensor | None = None

    @cached_property
    def pairs(self) -> Comparisons:
        """The pairs that the estimator compares."""
        return compare(self.source, self.target, estimator=self.estimator)

    @property
    def kernel_values(self) -> Tensor:
        """The values of `kernel`; raises an error if the discrepancy has none."""
        if self.kernel is None:
            raise ValueError("this discrepancy has kernels, and none was given")
        return self.kernel


Measure = Callable[[Mapping[str, LayerBatch]], Mapping[str, Tensor]]
"""A discrepancy: from the batches by layer a scalar by layer; under "" where it measures the layers jointly."""


def layer_mmd(layers: Mapping[str, LayerBatch]) -> dict[str, Tensor]:
    """MK-MMD² of each layer (the paper's eq. 2 and 3)."""
    return {layer: batch.pairs.estimate(batch.kernel_values) for layer, batch in layers.items()}


def joint_mmd(layers: Mapping[str, LayerBatch]) -> dict[str, Tensor]:
    """MMD² of the layers' joint distribution (JMMD; Long et al. 2017, eq. 8), by the product of their kernels."""
    first, *others = layers.values()
    product = first.kernel_values
    for batch in others:
        product = product * batch.kernel_values
    return {"": first.pairs.estimate(product)}


def coral(layers: Mapping[str, LayerBatch]) -> dict[str, Tensor]:
    """Deep CORAL of each layer."""
    return {layer: coral_distance(batch.source, batch.target) for layer, batch in layers.items()}


def energy(layers: Mapping[str, LayerBatch]) -> dict[str, Tensor]:
    """The energy distance of each layer."""
    return {layer: energy_distance(batch.pairs) for layer, batch in layers.items()}


def energy_distance(compared: Comparisons) -> Tensor:
    """2·E‖x−y‖ − E‖x−x'‖ − E‖y−y'‖ (Székely and Rizzo 2004), the MMD² of the kernel −‖x−y‖; it has no bandwidth.

    The gradient is zero where two rows coincide, up to the rounding of their distance.

    >>> source, target = torch.tensor([[0.0], [1.0]]), torch.tensor([[2.0], [3.0]])
    >>> energy_distance(compare(source, target))
    tensor(2.)

    Args:
        compared: the pairs of rows, from `mmd.compare`.

    Returns:
        A scalar.
    """
    squared = compared.distances
    floor = COINCIDENT * squared.detach().mean()
    lengths = torch.where(squared > floor, squared.clamp(min=floor).sqrt(), 0)
    return -compared.estimate(lengths)


def coral_distance(source: Tensor, target: Tensor) -> Tensor:
    """‖C_s − C_t‖² / (4·d²) between the covariances of the features (Deep CORAL; Sun and Saenko 2016, eq. 1).

    The d×d matrices are never formed: for centred X and Y, ‖XᵀX‖ is ‖XXᵀ‖ and ⟨XᵀX, YᵀY⟩ is ‖XYᵀ‖².

    >>> source, target = torch.tensor([[0.0, 0.0], [2.0, 0.0]]), torch.tensor([[0.0, 0.0], [4.0, 0.0]])
    >>> coral_distance(source, target)  # variances 2 and 8: (8 − 2)² / (4·2²)
    tensor(2.2500)

    Args:
        source: features, shape (n, d).
        target: features, shape (m, d).

    Raises:
        ValueError: a batch has fewer than two rows, or the feature sizes differ.
    """
    n, m = len(source), len(target)
    if n < 2 or m < 2:
        raise ValueError(f"a covariance needs at least two rows of each domain, got {n} and {m}")
    if source.shape[1:] != target.shape[1:]:
        raise ValueError(f"features differ in size: {tuple(source.shape[1:])} and {tuple(target.shape[1:])}")
    with torch.autocast(source.device.type, enabled=False):
        x, y = (rows.float() if rows.dtype in (torch.float16, torch.bfloat16) else rows for rows in (source, target))
        # Scaled first: squares of Gram entries overflow float32 where features are large.
        x = (x - x.mean(dim=0)) / (n - 1) ** 0.5
        y = (y - y.mean(dim=0)) / (m - 1) ** 0.5
        joint = torch.cat([x, -y])
        signs = torch.cat([x.new_ones(n), -x.new_ones(m)])
        squares = (joint @ joint.T).square()  # (n + m, n + m)
        return (torch.outer(signs, signs) * squares).sum() / (4 * source.shape[1] ** 2)
