"""What an exported file says of itself: its network, and the images that it takes."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from facedan_cli import __version__
from facedan_cli.data.alignments import template_and_size
from facedan_cli.export.raw import RawEmbedder
from facedan_cli.models.backbone import Backbone
from facedan_cli.models.checkpoint import ModelCard
from facedan_cli.models.embedder import Embedder
from facedan_cli.models.input_normalisation import normalisation_of
from facedan_cli.models.network import FaceNetwork
from facedan_cli.runs import read_record
from facedan_cli.workspace import find_manifest


@torch.no_grad()
def describe(embedder: Embedder, card: ModelCard, checkpoint: Path) -> dict[str, str]:
    """The metadata of a file: its network, and the images that it takes."""
    network = embedder.network
    mean, std = normalisation(network)
    raw = isinstance(embedder, RawEmbedder)
    facts = {
        "facedan": __version__,
        "model": card.model,
        "layer": embedder.layer,
        "flip": str(embedder.flip).lower(),
        "length": str(embedder(example_images(embedder, 1)).shape[1]),
        "stage": card.stage,
        "run": card.run,
        "template": template_of(card, checkpoint),
        "image_size": str(network.image_size),
        "crop": str(network.crop),
        "width": str(embedder.sides[1]) if embedder.sides[1] != embedder.sides[0] else "",
        "colours": "RGB, (x - mean) / divisor" if raw else "RGB, 0-255",
        "mean": _numbers(mean),
        "divisor": _numbers(std) if len(set(_numbers(std).split())) > 1 else _numbers(std[:1]),
        "preprocessing": "outside" if raw else "",
        "input_normalisation": normalisation_of(card.config).replace("none", ""),
        "features": "not normalised"
        if raw
        else "whitened"
        if isinstance(embedder, Embedder) and embedder.whitens
        else "",
    }
    return {key: fact for key, fact in facts.items() if fact}


@torch.no_grad()
def normalisation(network: FaceNetwork) -> tuple[list[float], list[float]]:
    """Mean and deviation of R, G and B in 0-255 that the network applies.

    Where it does not say them, they are seen at its first convolution.
    """
    if isinstance(network, Backbone):
        return network.mean.flatten().tolist(), network.std.flatten().tolist()
    seen: list[Tensor] = []
    first = next(module for module in network.modules() if isinstance(module, nn.Conv2d))
    hook = first.register_forward_pre_hook(lambda _, given: seen.append(given[0][0, :, 0, 0].double()))
    for value in (0.0, 255.0):
        network.features(torch.full((1, 3, network.crop, network.crop), value))
    hook.remove()
    black, white = seen
    std = 255 / (white - black)
    return (-black * std).tolist(), std.tolist()


def example_images(embedder: Embedder, count: int) -> Tensor:
    """Random images with light and dark parts, as faces have; to a network all even noise looks the same."""
    coarse = torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(count))
    images = F.interpolate(coarse, size=embedder.sides, mode="bilinear").mul(255).round()
    if isinstance(embedder, RawEmbedder):
        return (images - embedder.network.mean) / embedder.network.std
    return images


def template_of(card: ModelCard, checkpoint: Path) -> str:
    """The template of the faces that the network learnt from, as far as it is known.

    The data set of its run may say the size too; of published weights it is what the network's row says.
    """
    root = read_record(checkpoint.absolute().parent.parent).get("inputs", {}).get("source", {}).get("root")
    manifest = find_manifest(Path(root)) if root else None
    if manifest:
        return template_and_size(manifest)
    return card.entry.template if card.stage == "weights" else card.template or ""


def data_of(checkpoint: Path) -> dict[str, str]:
    """The names of the data sets of a checkpoint's run, by what they were used for, where its run.json is there."""
    inputs = read_record(checkpoint.absolute().parent.parent).get("inputs", {})
    return {use: facts["name"] for use, facts in inputs.items() if facts.get("name")}


def _numbers(values: list[float]) -> str:
    return " ".join(f"{value:.7g}" for value in values)
