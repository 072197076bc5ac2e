"""Networks are built here, by the rows of `config.models`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from facedan_cli.config.models import NetworkEntry, imported
from facedan_cli.config.networks import is_own, network_entry
from facedan_cli.errors import FacedanError
from facedan_cli.models.backbone import Backbone
from facedan_cli.models.network import FaceNetwork
from facedan_cli.own_networks import load_own, others_code


def build(model: str, classes: int, settings: Mapping[str, str] | None = None, **head: Any) -> FaceNetwork:
    """A network with random weights, in the memory layout in which convolutions are fast.

    Args:
        model: its name, as `network_entry` takes it.
        classes: identities of the source.
        settings: of a network without a row.
        head: of the classifier, as `Classifier` takes them.

    Raises:
        FacedanError: there is no such network, or another package's code does not give one.
    """
    entry = network_entry(model, settings)
    if entry.constructor:
        made = imported(entry.constructor)(classes, image_size=entry.image_size, crop=entry.crop, **head)
    else:
        made = Backbone(_body(model, entry), model, entry, classes, **head)
    network: FaceNetwork = made.to(memory_format=torch.channels_last)
    return network


def _body(model: str, entry: NetworkEntry) -> nn.Module:
    """What the function of an entry returns: installed packages bring theirs, other code needs the user's word."""
    with others_code(f"{entry.body}() raised", "mend that function"):
        function = load_own(model) if is_own(model) else imported(entry.body)
        made = function(*entry.arguments)
    if not isinstance(made, nn.Module):
        raise FacedanError(f"{entry.body}() returns {type(made).__name__}, no nn.Module", "mend that function")
    return made
