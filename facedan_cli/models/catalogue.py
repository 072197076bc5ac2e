"""The catalogue of networks: layers, input, size, and licence of the published weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from facedan_cli.config.models import NETWORKS, NetworkEntry
from facedan_cli.config.networks import brought_networks, is_own, network_entry
from facedan_cli.models.networks import build


@dataclass(frozen=True)
class NetworkFacts:
    """A network as `facedan models` shows it.

    Args:
        name: name for --model.
        layers: layers adapted by default; the last gives the embedding.
        also: other layers that are worth adapting.
        input: height and width of the input, pixels.
        image_size: side of the aligned image that the input is cut from, pixels.
        template: template of the aligned images.
        parameters: number of parameters without the classifier.
        licence: licence of known published weights; "" without any.
    """

    name: str
    layers: tuple[str, ...]
    also: tuple[str, ...]
    input: tuple[int, int]
    image_size: int
    template: str
    parameters: int
    licence: str


def known_networks() -> list[NetworkFacts]:
    """The networks of the table and of installed packages."""
    return [facts_of(name) for name in (*NETWORKS, *brought_networks())]


def facts_of(name: str, settings: Mapping[str, str] | None = None) -> NetworkFacts:
    """The facts of one network; a user's function must have been allowed before.

    Raises:
        FacedanError: there is no such network, or its code does not give one.
    """
    entry = network_entry(name, settings)
    with torch.random.fork_rng(devices=[]), torch.device("meta" if entry.length or entry.constructor else "cpu"):
        network = build(name, 1, settings)
    own = sum(one.numel() for key, one in network.named_parameters() if not key.startswith("classifier."))
    return NetworkFacts(
        name, entry.layers, entry.also, _input(entry), entry.image_size, entry.template, own, entry.licence
    )


@torch.no_grad()
def layer_lengths(name: str, settings: Mapping[str, str] | None = None) -> dict[str, tuple[int, ...]]:
    """The output shape of each module of a network for one image, without the batch, by dotted path, in order.

    Modules whose output is not a single tensor are left out.
    """
    entry = network_entry(name, settings)
    with torch.random.fork_rng(devices=[]), torch.device("cpu" if is_own(name) else "meta"):
        network = build(name, 1, settings).eval()
        shapes: dict[str, tuple[int, ...]] = {}

        def keep(path: str) -> None:
            def hook(module: nn.Module, given: object, output: object) -> None:
                if isinstance(output, Tensor):
                    shapes[path] = tuple(output.shape[1:])

            network.paths()[path].register_forward_hook(hook)

        for path in network.paths():
            keep(path)
        network(torch.zeros(1, 3, entry.crop, entry.crop))
    return {path: shapes[path] for path in network.paths() if path in shapes}


def _input(entry: NetworkEntry) -> tuple[int, int]:
    return entry.crop, entry.width or entry.crop
