"""The whitening of embeddings by the moments of an unlabelled target, a part of a network that `Embedder` applies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

PREFIX = "whitening."
"""How the names of its tensors begin in a checkpoint."""


class Whitening(nn.Module):
    """normalise((x − mean) · matrix), of rows of length one.

    Args:
        length: of a row.
    """

    mean: Tensor
    matrix: Tensor

    def __init__(self, length: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(length))
        self.register_buffer("matrix", torch.eye(length))

    def forward(self, rows: Tensor) -> Tensor:
        """Rows of length one, (b, d), from rows of length one."""
        return F.normalize((rows - self.mean) @ self.matrix)


def is_whitened(config: Mapping[str, Any]) -> bool:
    """Whether a checkpoint holds a whitening, by the options in its card."""
    return config.get("method") == "whiten"


def left_out(name: str) -> str:
    """The warning of a training that starts from a whitened network.

    Args:
        name: of its run or file.
    """
    return f"the whitening of {name} is left out: the network changes below it; whiten the result again"


def flip_warning(config: Mapping[str, Any], *, flip: bool) -> str:
    """A warning where features are of another kind than those that the whitening's moments are of; "" without one.

    Args:
        config: the options in a checkpoint's card.
        flip: whether the features of mirrored images are added.
    """
    of_flipped = bool(config.get("whiten_flip", False))
    if not is_whitened(config) or flip == of_flipped:
        return ""
    says = {True: "with --flip", False: "without --flip"}
    option = "--whiten-flip" if flip else "no --whiten-flip"
    return (
        f"the whitening has its mean and covariance from features {says[of_flipped]}, and is applied to features "
        f"{says[flip]}: adapt with {option}"
    )
