"""The term that keeps the embedding of the initial network (`adapt --keep`)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from facedan_cli.distributed import sum_over_processes, world_size
from facedan_cli.models.network import FaceNetwork


@dataclass(frozen=True)
class Kept:
    """The term of some rows of a step.

    Args:
        loss: W times their share in the mean over the global batch, with the gradient.
        weighted: the same over all processes, without one.
        drift: their share in the mean of 1 − cosine itself, over all processes.
    """

    loss: Tensor
    weighted: Tensor
    drift: Tensor


class Keep:
    """W · mean(1 − cos(new, old)) over source and target images: distillation from the initial network.

    It costs a forward pass without gradient. Nothing of it has to be saved: the initial network does not change.

    Args:
        weight: W.
        initial: the initial network, whose embedding is that of its last layer; put into evaluation mode for good.
    """

    def __init__(self, weight: float, initial: FaceNetwork) -> None:
        self.weight = weight
        self._initial = initial.eval().requires_grad_(False)

    def __call__(self, images: Tensor, embeddings: Tensor, batch: int) -> Kept:
        """The term of some rows of a step; all processes must call it equally often.

        Args:
            images: what the network saw, uint8, (n, 3, crop, crop).
            embeddings: what it gave, (n, d).
            batch: number of rows of both domains in the global batch, over all processes and all calls of the step.
        """
        with torch.no_grad():
            old = self._initial(images)[self._initial.layers[-1]].to(embeddings.dtype)
        mean = (1 - F.cosine_similarity(embeddings, old)).sum() / batch
        # A process has its own rows' part of the gradient, times the number of processes, since it is averaged later.
        drift = sum_over_processes(mean.detach().clone())
        return Kept(self.weight * mean * world_size(), self.weight * drift, drift)
