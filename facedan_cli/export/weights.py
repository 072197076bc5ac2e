"""Exports that hold tensors alone: by facedan's names, or in the layout in which the weights were published."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from facedan_cli.errors import UsageError
from facedan_cli.export.graphs import Features
from facedan_cli.models.checkpoint import ModelCard, build_for
from facedan_cli.models.embedder import Embedder
from facedan_cli.models.input_normalisation import normalisation_of
from facedan_cli.models.network import FaceNetwork
from facedan_cli.models.pretrained.layout import is_count, publisher_names
from facedan_cli.models.pretrained.state_dict import METADATA_KEY, load_tensors
from facedan_cli.models.whitening import is_whitened

_SUFFIXES = (".pth", ".pt", ".ckpt", ".bin", ".safetensors")


def write_safetensors(embedder: Embedder, path: Path, metadata: Mapping[str, str], card: ModelCard) -> Features:
    """The weights by name without the classifier's, and what a new network with them gives."""
    tensors = {key: value.contiguous() for key, value in without_classifier(embedder.network.state_dict()).items()}
    save_file(tensors, path, metadata={METADATA_KEY: json.dumps(metadata)})
    return Embedder(rebuilt(card, load_tensors(path)), embedder.layer, flip=embedder.flip).eval()


def refuse_original(card: ModelCard, suffix: str) -> None:
    """Refuse a network or a file that cannot be written as it was published.

    Raises:
        UsageError: saying which.
    """
    other = "give --format onnx, torchscript or safetensors"
    form = _form(card)
    if is_whitened(card.config):
        raise UsageError("--format original has no place for the whitening of this model", other)
    if (normalisation := normalisation_of(card.config)) != "none":
        raise UsageError(f"--format original has no place for the --input-normalisation {normalisation}", other)
    if form == "dlib" or card.model == "dlib-resnet":
        raise UsageError("--format original does not write dlib's .dat", other)
    if form.startswith("onnx"):
        raise UsageError("--format original does not write the graph that the weights came in", other)
    if suffix not in _SUFFIXES:
        raise UsageError(
            f"--format original writes {', '.join(_SUFFIXES)}, not '{suffix}'", "give OUT one of these suffixes"
        )


def write_original(embedder: Embedder, path: Path, card: ModelCard) -> Features:
    """The weights in their publisher's layout, and what a new network with them gives.

    VGG-Face of any framework is written as vgg_face_dag, in RGB. A classification head is left out.
    """
    layout, network = card.init or {}, embedder.network
    flipped = _first_convolution(network) if layout.get("channels") == "bgr" and _keeps_channels(card) else ""
    dtype = getattr(torch, layout.get("dtype", "float32"))
    names = publisher_names(network)
    if layout.get("counts") == "none":
        names = {ours: theirs for ours, theirs in names.items() if not is_count(ours)}
    state = network.state_dict()
    written = {theirs: _published(state[ours], dtype, flip=ours == flipped) for ours, theirs in names.items()}
    prefix, within = layout.get("prefix", ""), layout.get("within", "")
    prefixed = {prefix + name: value for name, value in written.items()}
    if path.suffix == ".safetensors":
        save_file(prefixed, path)
        read = load_tensors(path)
    else:
        torch.save({within: prefixed} if within else prefixed, path)
        loaded = torch.load(path, map_location="cpu", weights_only=True)
        read = loaded[within] if within else loaded
    ours = {
        name: read[prefix + theirs].flip(1) if name == flipped else read[prefix + theirs]
        for name, theirs in names.items()
    }
    counts = {name: value for name, value in state.items() if is_count(name)}
    return Embedder(rebuilt(card, counts | ours), embedder.layer, flip=embedder.flip).eval()


def _published(value: Tensor, dtype: torch.dtype, *, flip: bool) -> Tensor:
    """A tensor in the type in which it came, where that loses nothing, and with its input channels turned round."""
    value = value.flip(1) if flip else value
    cast = value.to(dtype) if value.is_floating_point() else value
    return (cast if torch.equal(cast.to(value.dtype), value) else value).clone(memory_format=torch.contiguous_format)


def _first_convolution(network: nn.Module) -> str:
    return next(f"{name}.weight" for name, module in network.named_modules() if isinstance(module, nn.Conv2d))


def _keeps_channels(card: ModelCard) -> bool:
    """Whether the layout that is written is the one that the weights came in, and so their order of channels."""
    return card.model != "vggface" or "vgg_face_dag" in _form(card)


def _form(card: ModelCard) -> str:
    return (card.init or {}).get("form", "")


def without_classifier(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a network but its classifier's, whose size grows with the source's identities."""
    return {key: value for key, value in tensors.items() if not key.startswith("classifier.")}


def rebuilt(card: ModelCard, tensors: Mapping[str, Tensor]) -> FaceNetwork:
    """A new network of a card's kind with other tensors; a classifier of one identity, all zeros, is with it.

    Raises:
        RuntimeError: tensors are missing, or have other shapes.
    """
    network = build_for(card, 1)
    for parameter in network.classifier.parameters():
        nn.init.zeros_(parameter)
    network.load_state_dict({**network.classifier.state_dict(prefix="classifier."), **tensors})
    return network.requires_grad_(False).eval()
