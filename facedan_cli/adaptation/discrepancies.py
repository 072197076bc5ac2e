"""Other distances between two domains, for comparison with MK-MMD under the same loss."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from facedan_cli.adaptation.mmd import Comparisons

COINCIDENT = 1e-12
"""Squared distances below this share of their mean are taken to be zero: the slope of a root has no bound there."""


def joint_mmd(compared: Sequence[Comparisons], kernels: Sequence[Tensor]) -> Tensor:
    """MMD² of the layers' joint distribution (JMMD; Long et al. 2017, eq. 8): their kernels are multiplied.

    Args:
        compared: the pairs of each layer, of the same rows.
        kernels: kernel values of each layer for these pairs.

    Returns:
        A scalar.
    """
    product = kernels[0]
    for kernel in kernels[1:]:
        product = product * kernel
    return compared[0].mean_difference(product)


def energy_distance(compared: Comparisons) -> Tensor:
    """2·E‖x−y‖ − E‖x−x'‖ − E‖y−y'‖ (Székely and Rizzo 2004): the MMD² of the kernel −‖x−y‖, without any bandwidth.

    The gradient is zero where two rows coincide, up to the rounding of their distance.

    Returns:
        A scalar.
    """
    squared = compared.distances
    floor = COINCIDENT * squared.detach().mean()
    lengths = torch.where(squared > floor, squared.clamp(min=floor).sqrt(), 0)
    return -compared.mean_difference(lengths)


def coral(source: Tensor, target: Tensor) -> Tensor:
    """‖C_s − C_t‖² / (4·d²) between the covariances of the features (Deep CORAL; Sun and Saenko 2016, eq. 1).

    The d×d matrices are never formed: of centred X and Y, ‖XᵀX‖ is ‖XXᵀ‖ and ⟨XᵀX, YᵀY⟩ is ‖XYᵀ‖².

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
        # Scaled first: the squares of a Gram matrix's entries would leave float32 where features are large.
        x = (x - x.mean(dim=0)) / (n - 1) ** 0.5
        y = (y - y.mean(dim=0)) / (m - 1) ** 0.5
        joint = torch.cat([x, -y])
        signs = torch.cat([x.new_ones(n), -x.new_ones(m)])
        squares = (joint @ joint.T).square()  # (n + m, n + m)
        return (torch.outer(signs, signs) * squares).sum() / (4 * source.shape[1] ** 2)
