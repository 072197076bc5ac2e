"""The networks by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch

from facedan_cli.models.facenet import Facenet
from facedan_cli.models.network import FaceNetwork
from facedan_cli.models.vggface import SPECS, VGGFace

NETWORKS: Mapping[str, Callable[..., FaceNetwork]] = {
    "vggface": partial(VGGFace, SPECS["vggface"]),
    "vggface-mini": partial(VGGFace, SPECS["vggface-mini"]),
    "facenet": Facenet,
}


def build(model: str, classes: int, **head: Any) -> FaceNetwork:
    """A network with random weights, in the memory layout in which convolutions are fast.

    Args:
        model: its name.
        classes: people.
        head: of the classifier, as `Classifier` takes them.
    """
    return NETWORKS[model](classes, **head).to(memory_format=torch.channels_last)
