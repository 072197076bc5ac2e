"""Checkpoints of networks, and weights that others published: files ↔ models."""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from facedan_cli.errors import FacedanError, did_you_mean
from facedan_cli.models.vggface import CONVOLUTIONS_PER_BLOCK, SPECS, VGGFace
from facedan_cli.workspace import replacing

_METADATA_KEY = "facedan"


@dataclass(frozen=True)
class Card:
    """What a checkpoint says of its network, kept in the file's own metadata.

    Args:
        model: the name of its specification.
        identities: the people of the classifier's outputs, in order.
        stage: "pretrain" or "adapt".
        run: the name of the run that made it.
        config: those of that run's options that determine the result.
    """

    model: str
    identities: tuple[str, ...]
    stage: str
    run: str
    config: Mapping[str, Any]


def build(model: str, classes: int) -> VGGFace:
    """A network with random weights, in the memory layout in which convolutions are fast."""
    return VGGFace(SPECS[model], classes).to(memory_format=torch.channels_last)


def save_checkpoint(path: Path, network: VGGFace, card: Card) -> None:
    """Write a network and its card as safetensors, whole or not at all."""
    tensors = {key: value.detach().cpu().contiguous() for key, value in network.state_dict().items()}
    with replacing(path) as temporary:
        save_file(tensors, temporary, metadata={_METADATA_KEY: json.dumps(asdict(card))})


def read_card(path: Path) -> Card:
    """The card of a checkpoint, without reading its weights.

    Raises:
        FacedanError: the file is no checkpoint of facedan, or names a model that this version does not know.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
        fields = json.loads(metadata[_METADATA_KEY])
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
    if card.model not in SPECS:
        raise FacedanError(f"{path} holds an unknown model '{card.model}'", did_you_mean(card.model, SPECS))
    return card


def load_checkpoint(path: Path) -> tuple[VGGFace, Card]:
    """The network of a checkpoint, in evaluation mode, and its card.

    Raises:
        FacedanError: as `read_card`.
    """
    card = read_card(path)
    network = build(card.model, len(card.identities))
    network.load_state_dict(load_file(path))
    return network.eval(), card


def load_public_weights(path: Path, network: VGGFace) -> str:
    """Start a network from weights with our own or torchvision's key names; the classifier is left as it is.

    Args:
        path: .safetensors, or a .pth or .pt state dict, which is opened without running any code in it.
        network: changed in place.

    Returns:
        The form that was recognised: "facedan" or "torchvision".

    Raises:
        FacedanError: the file cannot be read, or its tensors do not fit the network; the message names them.
    """
    tensors = _read_tensors(path)
    ours = {key for key in network.state_dict() if not key.startswith("fc8.")}
    if "features.0.weight" in tensors:
        form, renamed = "torchvision", _from_torchvision(tensors)
    else:
        form, renamed = "facedan", tensors
    missing = sorted(ours - renamed.keys())
    if missing:
        raise FacedanError(
            f"{path} does not fit: it lacks {_some(missing)} and has {_some(sorted(tensors))}",
            "give weights of the same network, keys conv1_1.weight … fc7.bias or features.0.weight … classifier.3.bias",
        )
    shapes = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    wrong = [
        f"{key} {tuple(renamed[key].shape)}, not {shapes[key]}"
        for key in sorted(ours)
        if renamed[key].shape != shapes[key]
    ]
    if wrong:
        raise FacedanError(
            f"{path} does not fit: {_some(wrong)}", "choose the --model that these weights were made for"
        )
    network.load_state_dict({key: renamed[key] for key in ours}, strict=False)
    return form


def _read_tensors(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise FacedanError(f"there are no weights at {path}", "check the path") from error
    except Exception as error:  # torch.load raises errors of every type on what is no state dict
        if isinstance(error, pickle.UnpicklingError) and "GLOBAL" in str(error):
            raise FacedanError(
                f"{path} is not a plain state dict: opening it would run code that is stored in it",
                "save it again as torch.save(model.state_dict(), …) or as safetensors, where you trust it",
            ) from error
        raise FacedanError(f"{path} cannot be read as weights", "give a .safetensors or .pth state dict") from error
    if isinstance(loaded, dict) and isinstance(loaded.get("state_dict"), dict):
        loaded = loaded["state_dict"]
    if not isinstance(loaded, dict) or not all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in loaded.items()
    ):
        raise FacedanError(f"{path} is not a state dict", "give a dict of tensors by name")
    return {key.removeprefix("module."): value for key, value in loaded.items()}


def _from_torchvision(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """features.0 … features.28 and classifier.0, classifier.3 under our names; the flattening of fc6 is the same."""
    names = {"classifier.0": "fc6", "classifier.3": "fc7"}
    position = 0
    for block, depth in enumerate(CONVOLUTIONS_PER_BLOCK, start=1):
        for index in range(1, depth + 1):
            names[f"features.{position}"] = f"conv{block}_{index}"
            position += 2  # the convolution and its ReLU
        position += 1  # the pooling that ends the block
    return {
        f"{names[layer]}.{kind}": value
        for (layer, _, kind), value in ((key.rpartition("."), value) for key, value in tensors.items())
        if layer in names
    }


def _some(items: list[str]) -> str:
    return ", ".join(items[:3]) + (f" and {len(items) - 3} more" if len(items) > 3 else "")
