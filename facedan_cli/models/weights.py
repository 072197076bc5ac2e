"""Checkpoints of networks: files ↔ models."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from facedan_cli.config.models import NETWORKS
from facedan_cli.errors import FacedanError, did_you_mean
from facedan_cli.models.network import FaceNetwork
from facedan_cli.models.networks import build
from facedan_cli.models.pcanet import PCANet, Spec
from facedan_cli.models.state_dict import METADATA_KEY
from facedan_cli.workspace import replacing

PCANET = "pcanet"


@dataclass(frozen=True)
class Card:
    """What a checkpoint says of its network, kept in the file's own metadata.

    Args:
        model: the name of its specification; `pcanet`, which is no network.
        identities: the people of the classifier's outputs, in order.
        stage: "pretrain" or "adapt"; "weights" of published weights as they are.
        run: the name of the run that made it.
        config: those of that run's options that determine the result.
        init: the published weights that the run started from: form, sha256 and channels; None where there were none.
    """

    model: str
    identities: tuple[str, ...]
    stage: str
    run: str
    config: Mapping[str, Any]
    init: Mapping[str, str] | None = None

    @property
    def head(self) -> dict[str, Any]:
        """The classifier's head, as `build` takes it."""
        return {key: self.config[key] for key in ("head", "margin", "scale") if key in self.config}


def save_checkpoint(path: Path, network: FaceNetwork, card: Card) -> None:
    """Write a network and its card as safetensors, whole or not at all."""
    save_tensors(path, {key: value.detach().cpu().contiguous() for key, value in network.state_dict().items()}, card)


def save_tensors(path: Path, tensors: Mapping[str, Tensor], card: Card) -> None:
    """Write the tensors of a network (`state_dict`, contiguous and on the CPU) and its card."""
    with replacing(path) as temporary:
        save_file(dict(tensors), temporary, metadata={METADATA_KEY: json.dumps(asdict(card))})


def is_checkpoint(path: Path) -> bool:
    """Whether a file is a checkpoint of facedan."""
    try:
        read_card(path)
    except FacedanError:
        return False
    return True


def read_card(path: Path) -> Card:
    """The card of a checkpoint, without reading its weights.

    Raises:
        FacedanError: the file is no checkpoint of facedan, or names a model that this version does not know.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
        fields = json.loads(metadata[METADATA_KEY])
        card = Card(**{**fields, "identities": tuple(fields["identities"])})
    except FileNotFoundError as error:
        raise FacedanError(
            f"there is no checkpoint {path}", "give a run's name, its directory or a checkpoint"
        ) from error
    except (SafetensorError, KeyError, TypeError, ValueError, OSError) as error:
        raise FacedanError(
            f"{path} is not a facedan checkpoint",
            "give a run's name, its directory or its checkpoints/model.safetensors",
        ) from error
    known = (*NETWORKS, PCANET)
    if card.model not in known:
        raise FacedanError(f"{path} holds an unknown model '{card.model}'", did_you_mean(card.model, known))
    return card


def load_checkpoint(path: Path) -> tuple[FaceNetwork, Card]:
    """The network of a checkpoint, in evaluation mode, and its card.

    Raises:
        FacedanError: as `read_card`, or the tensors are not those of its model, or it is no network.
    """
    card = read_card(path)
    if card.model == PCANET:
        raise FacedanError(f"{path} holds a PCANet, which is no network", "name the run of a network")
    network = build(card.model, len(card.identities), **card.head)
    try:
        network.load_state_dict(load_file(path))
    except RuntimeError as error:
        raise FacedanError(
            f"{path} holds other tensors than {card.model} of this version has", "train it again with this version"
        ) from error
    return network.eval(), card


def load_pcanet(path: Path) -> PCANet:
    """The PCANet of a checkpoint.

    Raises:
        FacedanError: the tensors are not those of a PCANet.
    """
    tensors = load_file(path)
    try:
        network = PCANet(Spec(dimensions=len(tensors["projection"])))
        network.load_state_dict(tensors)
    except (KeyError, RuntimeError) as error:
        raise FacedanError(
            f"{path} holds other tensors than pcanet of this version has", "train it again with this version"
        ) from error
    return network.eval()
