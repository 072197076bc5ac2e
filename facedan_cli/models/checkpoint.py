"""Checkpoints of networks: files ↔ models."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from facedan_cli.config.common import INPUT_NORMALISATIONS
from facedan_cli.config.heads import HEADS
from facedan_cli.config.models import NETWORKS, ONNX, PCANET, NetworkEntry
from facedan_cli.config.networks import ONNX_NETWORK, is_network, is_own, network_entry
from facedan_cli.config.templates import TEMPLATES
from facedan_cli.errors import FacedanError, did_you_mean
from facedan_cli.json_files import parse_object
from facedan_cli.models.batch_norm import batch_norms
from facedan_cli.models.input_normalisation import normalisation_of
from facedan_cli.models.network import FaceNetwork
from facedan_cli.models.networks import build
from facedan_cli.models.pcanet import PCANet, Spec
from facedan_cli.models.pretrained.state_dict import METADATA_KEY, load_tensors, open_safetensors
from facedan_cli.models.whitening import Whitening, is_whitened
from facedan_cli.onnx_graph import Graph, preprocessing_of
from facedan_cli.workspace import replacing

_CLASSIFIER = "classifier."
_KINDS = {"F64", "F32", "F16", "BF16", "I64"}  # I64: how many batches a batch normalisation has seen


@dataclass(frozen=True)
class ModelCard:
    """The description of a checkpoint's network, in the file's metadata.

    Args:
        model: the name of its specification; `pcanet`, which is no network.
        identities: of the classifier's outputs, in order.
        stage: "pretrain" or "adapt"; "weights" of published weights as they are.
        run: the name of the run that made it.
        config: those of that run's options that determine the result.
        init: the published weights that the run started from: their format (`form`), sha256 and channels; None without.
        template: that of the aligned faces it learnt from; "" of images that no manifest speaks of; None in checkpoints
            that do not say.
        network: the settings of a network without a row in the table (`config.networks.SETTINGS`); None of the others.
    """

    model: str
    identities: tuple[str, ...]
    stage: str
    run: str
    config: Mapping[str, Any]
    init: Mapping[str, str] | None = None
    template: str | None = None
    network: Mapping[str, str] | None = None

    @property
    def entry(self) -> NetworkEntry:
        """The row of its network."""
        return network_entry(self.model, self.network)

    @property
    def head(self) -> dict[str, Any]:
        """The classifier's head, as `build` takes it."""
        return {key: self.config[key] for key in ("head", "margin", "scale") if key in self.config}


def card_of_graph(graph: Graph, settings: Mapping[str, str] | None = None) -> ModelCard:
    """The card of the model that a graph is; the export of a run names the run and its template.

    Args:
        graph: the graph.
        settings: as of `preprocessing_of`.
    """
    run, template = graph.path.stem, ""
    if "facedan" in graph.metadata:
        run, template = graph.metadata.get("run", run), graph.metadata.get("template", "").partition(" at ")[0]
        if template not in TEMPLATES and graph.metadata.get("model") in NETWORKS:
            template = NETWORKS[graph.metadata["model"]].template
    height, width = preprocessing_of(graph, settings).size
    return ModelCard(ONNX, (), "none", run, {}, template=template, network={"input": f"{height}x{width}"})


class _OddCard(ValueError):
    """A card that says what cannot be."""


def _card(fields: Any) -> ModelCard:
    """The card of a checkpoint's metadata.

    Raises:
        _OddCard: a field is of another kind than it should be.
        KeyError, TypeError: a field is missing, or unknown.
    """
    if not isinstance(fields, dict):
        raise _OddCard("its card is no table")
    identities = fields["identities"]
    right = {
        "model": isinstance(fields["model"], str),
        "identities": isinstance(identities, list) and all(isinstance(name, str) for name in identities),
        "stage": isinstance(fields["stage"], str),
        "run": isinstance(fields["run"], str),
        "config": isinstance(fields["config"], dict) and _is_head(fields["config"]) and _is_known(fields["config"]),
        "init": fields.get("init") is None or isinstance(fields["init"], dict),
        "template": fields.get("template") is None or isinstance(fields["template"], str),
        "network": _is_settings(fields.get("network")),
    }
    if wrong := [name for name, is_right in right.items() if not is_right]:
        raise _OddCard(f"the card's {', '.join(wrong)} cannot be so")
    return ModelCard(**{**fields, "identities": tuple(identities)})


def _is_head(config: Mapping[str, Any]) -> bool:
    """Whether a run's options describe a valid classification head."""
    numbers = (config.get("margin"), config.get("scale"))
    usual = all(value is None or (isinstance(value, int | float) and math.isfinite(value)) for value in numbers)
    return usual and config.get("head") in (None, *HEADS)


def _is_known(config: Mapping[str, Any]) -> bool:
    """Whether this version knows the normalisation of the input."""
    return normalisation_of(config) in INPUT_NORMALISATIONS


def _is_settings(given: Any) -> bool:
    """Whether a card's `network` has settings by name, or is None."""
    return given is None or (isinstance(given, dict) and all(isinstance(value, str) for value in given.values()))


def save_checkpoint(path: Path, network: FaceNetwork, card: ModelCard) -> None:
    """Write a network and its card as safetensors, whole or not at all."""
    save_tensors(path, {key: value.detach().cpu().contiguous() for key, value in network.state_dict().items()}, card)


def save_tensors(path: Path, tensors: Mapping[str, Tensor], card: ModelCard) -> None:
    """Write the tensors of a network (`state_dict`, contiguous and on the CPU) and its card."""
    with replacing(path) as temporary:
        fields = {key: value for key, value in asdict(card).items() if key != "network" or value is not None}
        save_file(dict(tensors), temporary, metadata={METADATA_KEY: json.dumps(fields)})


def is_checkpoint(path: Path) -> bool:
    """Whether a file is a checkpoint of facedan."""
    try:
        read_card(path)
    except FacedanError:
        return False
    return True


def has_card(path: Path) -> bool:
    """Whether a file is safetensors with a card of facedan, be it damaged or of another version."""
    try:
        with open_safetensors(path) as file:
            return METADATA_KEY in (file.metadata() or {})
    except (SafetensorError, OSError):
        return False


def read_card(path: Path) -> ModelCard:
    """The card of a checkpoint, without reading its weights.

    Raises:
        FacedanError: the file is no checkpoint of facedan, or names a model that this version does not know.
    """
    try:
        with open_safetensors(path) as file:
            metadata = file.metadata() or {}
        card = _card(parse_object(metadata[METADATA_KEY]))
    except FileNotFoundError as error:
        raise FacedanError(
            f"there is no checkpoint {path}", "give a run's name, its directory or a checkpoint"
        ) from error
    except (SafetensorError, KeyError, TypeError, ValueError, RecursionError, OSError) as error:
        reason = f": {error}" if isinstance(error, _OddCard) else ""
        raise FacedanError(
            f"{path} is not a facedan checkpoint{reason}",
            "give a run's name, its directory or its checkpoints/model.safetensors",
        ) from error
    if card.model != PCANET and not is_network(card.model):
        known = (*NETWORKS, PCANET)
        raise FacedanError(f"{path} holds an unknown model '{card.model}'", did_you_mean(card.model, known))
    return card


def load_checkpoint(path: Path) -> tuple[FaceNetwork, ModelCard]:
    """The network of a checkpoint, in evaluation mode, and its card.

    Raises:
        FacedanError: as `read_card`, or the tensors are not those of its model, or it is no network.
    """
    card = read_card(path)
    if card.model == PCANET:
        raise FacedanError(f"{path} holds a PCANet, which is no network", "name the run of a network")
    try:
        _check_shapes(path, card)
        network = build_for(card, len(card.identities))
        network.load_state_dict(load_tensors(path))
    except (ValueError, TypeError) as error:
        raise FacedanError(
            f"the card of {path} is damaged: {error}", "copy the checkpoint again, or train it again"
        ) from error
    except (RuntimeError, SafetensorError) as error:
        raise FacedanError(
            f"{path} holds other tensors than {card.model} of this version has", "train it again with this version"
        ) from error
    return network.eval(), card


def build_for(card: ModelCard, classes: int) -> FaceNetwork:
    """A network of a card's kind with random weights, and with its normalisation of the input and its whitening."""
    network = build(card.model, classes, card.network, **card.head)
    network.normalise_input(normalisation_of(card.config))
    if is_whitened(card.config):
        network.whitening = Whitening(network.classifier.weight.shape[1])
    return network


def embedding_length(card: ModelCard) -> int:
    """The length of a network's embedding, that of its last layer."""
    return _without_weights(card).classifier.weight.shape[1]


def _without_weights(card: ModelCard) -> FaceNetwork:
    """A card's network for one identity, on the device that holds no numbers.

    Somebody's own function and onnx2torch may not know that device: they make the network on the CPU.
    """
    with torch.random.fork_rng(devices=[]), torch.device("cpu" if _made_on_cpu(card.model) else "meta"):
        return build_for(card, 1)


def _made_on_cpu(model: str) -> bool:
    return is_own(model) or model == ONNX_NETWORK


def _check_shapes(path: Path, card: ModelCard) -> None:
    """Hold a card against the tensors before there is a network by it: a card may claim any number of identities.

    Raises:
        RuntimeError: the file has other tensors, of other shapes, or numbers that are no weights.
        ValueError: the card's identities are not those of the classifier.
    """
    expected = {key: tuple(value.shape) for key, value in _without_weights(card).state_dict().items()}
    with open_safetensors(path) as file:
        slices = {key: file.get_slice(key) for key in file.keys()}  # noqa: SIM118  # it is no dict
        shapes = {key: tuple(found.get_shape()) for key, found in slices.items()}
        kinds = {found.get_dtype() for found in slices.values()}
    counts = {shape[:1] for key, shape in shapes.items() if key.startswith(_CLASSIFIER) and shape}
    if shapes.keys() == expected.keys() and counts != {(len(card.identities),)}:
        claimed = ", ".join(str(*count) for count in sorted(counts))
        raise ValueError(f"it names {len(card.identities)} identities, and the classifier has {claimed}")
    rows = {
        key: (len(card.identities),) if key.startswith(_CLASSIFIER) and shape else shape[:1]
        for key, shape in expected.items()
    }
    if shapes != {key: rows[key] + shape[1:] for key, shape in expected.items()} or not kinds <= _KINDS:
        raise RuntimeError("other tensors")


def batch_norm_of(model: str, settings: Mapping[str, str] | None) -> tuple[int, bool]:
    """The number of batch normalisations of a network, and whether it always keeps their statistics."""
    network = _without_weights(_bare(model, settings))
    return len(batch_norms(network)), network.frozen_statistics


def module_paths(model: str, settings: Mapping[str, str] | None) -> list[str]:
    """The dotted paths of a network's modules, in order."""
    return layer_paths(_bare(model, settings))


def _bare(model: str, settings: Mapping[str, str] | None) -> ModelCard:
    return ModelCard(model, ("",), "", "", {}, network=settings)


def layer_paths(card: ModelCard) -> list[str]:
    """The dotted paths of the modules of a card's network, in order."""
    return list(_without_weights(card).paths())


def load_pcanet(path: Path) -> PCANet:
    """The PCANet of a checkpoint.

    Raises:
        FacedanError: the tensors are not those of a PCANet.
    """
    try:
        tensors = load_tensors(path)
        length, histogram = tensors["projection"].shape
        if histogram != Spec().histogram_length:
            raise RuntimeError("other histograms")
        network = PCANet(Spec(dimensions=length))
        network.load_state_dict(tensors)
    except (KeyError, ValueError, RuntimeError, SafetensorError) as error:
        raise FacedanError(
            f"{path} holds other tensors than pcanet of this version has", "train it again with this version"
        ) from error
    return network.eval()
