"""A tiny network with batch normalisation, as a row of the table of networks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
from torch import nn

from facedan_cli.config.models import NETWORKS, NetworkEntry

NAME = "tiny-bn"


def body() -> nn.Module:
    """Eight features of images of 32 pixels; normalised twice over images and once over features."""
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, stride=4),
        nn.BatchNorm2d(6),
        nn.PReLU(),
        nn.Conv2d(6, 6, 3, stride=2),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Flatten(),
        nn.Dropout(0.1),
        nn.Linear(54, 8),
        nn.BatchNorm1d(8),
    )


@contextmanager
def known() -> Iterator[None]:
    """The table of networks with this row."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setitem(NETWORKS, NAME, ENTRY)  # type: ignore[arg-type]
        yield


ENTRY = NetworkEntry(
    body="normalised:body",
    family="tiny",
    also=("0",),
    top=("8", "9"),
    length=8,
    image_size=36,
    crop=32,
    template="vggface",
    pretrain=replace(NETWORKS["vggface-mini"].pretrain, head="cosface"),
    adapt=replace(NETWORKS["iresnet18"].adapt, head="cosface"),
)
