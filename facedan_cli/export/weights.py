"""Exports that hold tensors alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor, nn

from facedan_cli.export.graphs import Features
from facedan_cli.export.metadata import AnyEmbedder
from facedan_cli.models.checkpoint import ModelCard
from facedan_cli.models.embedder import Embedder
from facedan_cli.models.network import FaceNetwork
from facedan_cli.models.networks import build
from facedan_cli.models.pretrained.state_dict import METADATA_KEY, load_tensors


def write_safetensors(embedder: AnyEmbedder, path: Path, metadata: Mapping[str, str], card: ModelCard) -> Features:
    """The weights by name without the classifier's, and what a new network with them gives."""
    tensors = {key: value.contiguous() for key, value in without_classifier(embedder.network.state_dict()).items()}
    save_file(tensors, path, metadata={METADATA_KEY: json.dumps(metadata)})
    return Embedder(rebuilt(card, load_tensors(path)), embedder.layer, flip=embedder.flip).eval()


def without_classifier(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a network but its classifier's, whose size grows with the source's identities."""
    return {key: value for key, value in tensors.items() if not key.startswith("classifier.")}


def rebuilt(card: ModelCard, tensors: Mapping[str, Tensor]) -> FaceNetwork:
    """A new network of a card's kind with other tensors; a classifier of one identity, all zeros, is with it.

    Raises:
        RuntimeError: tensors are missing, or have other shapes.
    """
    network = build(card.model, 1, card.network, **card.head)
    for parameter in network.classifier.parameters():
        nn.init.zeros_(parameter)
    network.load_state_dict({**network.classifier.state_dict(prefix="classifier."), **tensors})
    return network.requires_grad_(False).eval()
