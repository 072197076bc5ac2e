"""The held-out images, which no training sees: their features, and the training loss on them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from facedan_cli.adaptation.penalty import Penalty
from facedan_cli.data.batches import FaceStore
from facedan_cli.distributed import rank, shard_range, world_size
from facedan_cli.models.network import FaceNetwork
from facedan_cli.training.classification import classification_loss

_BATCH = 64


@dataclass(frozen=True)
class HeldOut:
    """The held-out images of both domains, and the network that is measured on them.

    Args:
        network: measured in its state at the call.
        source: images of the source, one an identity.
        labels: their identities, int64, shape (images,).
        target: images of the target, unlabelled; None where there is no target.
    """

    network: FaceNetwork
    source: FaceStore
    labels: np.ndarray
    target: FaceStore | None = None

    def loss(self, penalty: Penalty | None = None) -> float | None:
        """The training loss of these images, with the penalty; None without images.

        It compares steps by labels of the source alone. Labels are not smoothed, and the margin of sphereface is that
        of the first step, so that steps can be compared.
        """
        if not readable(self.source):
            return None
        source = features_of(self.network, self.source)
        rows = readable(self.source)  # known only now: reading finds unreadable images
        own = shard_range(len(rows), rank(), world_size())
        x = source[self.network.layers[-1]][own.start : own.stop]
        labels = torch.from_numpy(self.labels[rows][own.start : own.stop]).to(x.device)
        with torch.no_grad(), evaluating(self.network):
            loss = classification_loss(self.network.classifier, x, labels, batch=len(rows)).loss
        if penalty is not None and self.target is not None and min(len(rows), len(readable(self.target))) > 1:
            try:
                loss = loss + penalty.frozen()(source, features_of(self.network, self.target))[0]
            except ValueError:  # collapsed features have no bandwidth
                return None
        return float(loss)


def readable(images: FaceStore) -> list[int]:
    """The rows of the images that could be read."""
    return [row for row, path in enumerate(images.folder.paths) if path not in images.unreadable]


@torch.no_grad()
def features_of(network: FaceNetwork, images: FaceStore) -> Mapping[str, Tensor]:
    """The features of the centre crops of all readable images, by layer, (n, length) float32."""
    rows = readable(images)
    with evaluating(network):
        asked = [rows[start : start + _BATCH] for start in range(0, len(rows), _BATCH)]
        found = [network(crops) for crops in centre_crops(network, images, asked)]
    return {layer: torch.cat([features[layer] for features in found]) for layer in network.layers}


def centre_crops(network: FaceNetwork, images: FaceStore, batches: Iterable[Sequence[int]]) -> Iterator[Tensor]:
    """Yield the centre crops of batches of rows on a network's device, uint8, (b, 3, crop, crop).

    Images that cannot be read are left out, and a batch of none but these.
    """
    device = next(network.parameters()).device
    margin = (images.size - network.crop) // 2
    for asked in batches:
        loaded = zip(asked, images.load(asked), strict=True)
        # An unreadable image is replaced by another one, which has its own row.
        own = [face for row, (actual, face) in loaded if actual == row]
        if own:
            faces = torch.from_numpy(np.stack(own)).permute(0, 3, 1, 2)
            yield faces[:, :, margin : margin + network.crop, margin : margin + network.crop].to(device)


@contextmanager
def evaluating(network: FaceNetwork) -> Iterator[None]:
    """Set the network to evaluation mode, and afterwards to its earlier mode."""
    training = network.training
    network.eval()
    try:
        yield
    finally:
        network.train(training)
