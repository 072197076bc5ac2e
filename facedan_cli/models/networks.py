"""Networks are built here, by the rows of `config.models`."""

from __future__ import annotations

from typing import Any

import torch

from facedan_cli.config.models import NETWORKS, imported
from facedan_cli.models.network import FaceNetwork


def build(model: str, classes: int, **head: Any) -> FaceNetwork:
    """A network with random weights, in the memory layout in which convolutions are fast.

    Args:
        model: its name.
        classes: identities of the source.
        head: of the classifier, as `Classifier` takes them.
    """
    entry = NETWORKS[model]
    made = imported(entry.constructor)(classes, image_size=entry.image_size, crop=entry.crop, **head)
    network: FaceNetwork = made.to(memory_format=torch.channels_last)
    return network
