"""Initial rows of a classifier on a trained network: the mean embedding of each identity."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from facedan_cli.data.batches import FaceStore
from facedan_cli.distributed import gather_counted, rank, shard_range, world_size
from facedan_cli.models.network import FaceNetwork
from facedan_cli.training.held_out import centre_crops, evaluating

IMAGES_OF_EACH = 10
"""Most images of an identity whose embeddings are averaged."""

FROM_MEANS = "the classifier starts from the mean embedding of each identity"

_BATCH = 64


def starts_from_means(network: FaceNetwork, head: str | None) -> bool:
    """Whether the rows of a fresh classifier are class means: of heads that compare by cosine.

    The networks of the paper and FaceNet keep random rows, with which their results were measured.
    """
    return head not in (None, "softmax") and network.means_for_rows


@torch.no_grad()
def set_class_means(network: FaceNetwork, images: FaceStore, labels: np.ndarray) -> None:
    """Set the rows of a network's classifier to the means of the L2-normalised embeddings of each identity, normalised.

    Each process embeds the images of its share of the identities: at most `IMAGES_OF_EACH`, their centre crops. An
    identity without a readable image keeps its row.

    Args:
        network: changed in place; its classifier is replicated or sharded.
        images: training images of the source.
        labels: their identities, int64, shape (images,).
    """
    classifier = network.classifier
    shares = [shard_range(classifier.classes, part, world_size()) for part in range(world_size())]
    own = classifier.local_classes if classifier.sharded else shares[rank()]
    weight = classifier.weight.detach()
    rows = weight[own.start - classifier.local_classes.start : own.stop - classifier.local_classes.start].clone()
    sums = _sums(network, images, labels, own).to(rows.dtype)
    there = sums.square().sum(1) > 0
    rows[there] = F.normalize(sums[there])
    if not classifier.sharded and world_size() > 1:
        rows = gather_counted(rows, [len(share) for share in shares])
    weight.copy_(rows)


def _sums(network: FaceNetwork, images: FaceStore, labels: np.ndarray, own: range) -> Tensor:
    """Sums of normalised embeddings of the first images of each of some identities, float64, (identities, features)."""
    order = np.argsort(labels, kind="stable")
    place = np.arange(len(labels)) - np.searchsorted(labels[order], labels[order])
    chosen = np.sort(order[(place < IMAGES_OF_EACH) & np.isin(labels[order], np.arange(own.start, own.stop))])
    weight = network.classifier.weight
    sums = torch.zeros(len(own), weight.shape[1], dtype=torch.float64, device=weight.device)
    with evaluating(network):
        for start in range(0, len(chosen), _BATCH):
            asked = chosen[start : start + _BATCH].tolist()
            for crops in centre_crops(network, images, [asked]):
                read = [row for row in asked if images.folder.paths[row] not in images.unreadable]
                embeddings = F.normalize(network(crops)[network.layers[-1]].double())
                sums.index_add_(0, torch.from_numpy(labels[read] - own.start).to(weight.device), embeddings)
    return sums
