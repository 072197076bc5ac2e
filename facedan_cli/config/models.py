"""The table of networks, a row each: the only place that names them. It imports no torch, for the command line's sake.

A new network is one file in `models/` and one row here.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Default training options of a network.

    Args:
        lr: base learning rate; the peak of a one-cycle schedule.
        backbone_lr_mult: the convolutions' learning rate as a multiple of `lr`; 0 freezes them.
        classifier_lr_mult: the classifier's learning rate as a multiple of `lr`.
        schedule: "constant" or "onecycle".
        batch: source images per step over all processes; the target adds as many.
    """

    optimizer: str
    lr: float
    backbone_lr_mult: float
    classifier_lr_mult: float
    schedule: str
    batch: int
    iterations: int
    momentum: float
    weight_decay: float
    label_smoothing: float


class Release(NamedTuple):
    """Published weights: the name of their file, and the number of identities that they were trained on."""

    file_name: str
    identities: int


@dataclass(frozen=True, kw_only=True)
class NetworkEntry:
    """A network: everything but its own file.

    Args:
        constructor: "module:function", called with the number of identities, `image_size`, `crop` and the
            classification head; returns a `models.network.FaceNetwork`, which includes the preprocessing.
        family: its name in tables.
        layers: layers that can be adapted, in order; all are adapted by default, and the last gives the embedding.
        pooled: those among them without weights of their own above the convolutions.
        image_size: side of the aligned image from which crops are taken, in pixels.
        crop: side of the network's input, in pixels.
        template: alignment template that the network expects.
        pretrain: recipe of stage 1.
        adapt: recipe of stage 2.
        releases: published weights that --init accepts, by name.
        fetch: "module:function" that downloads a release and returns its file.
        start: hint about published weights for users who start without; "" if random weights are usual.
    """

    constructor: str
    family: str
    layers: tuple[str, ...]
    pooled: tuple[str, ...] = ()
    image_size: int
    crop: int
    template: str = "vggface"
    pretrain: Recipe
    adapt: Recipe
    releases: Mapping[str, Release] = field(default_factory=dict)
    fetch: str = ""
    start: str = ""


# Section IV-B. The paper names neither the optimiser, nor momentum, nor weight decay: these are VGG's (Simonyan 2015).
_PAPER = Recipe(
    optimizer="sgd",
    lr=1e-4,
    backbone_lr_mult=1.0,
    classifier_lr_mult=10.0,
    schedule="constant",
    batch=32,
    iterations=20_000,
    momentum=0.9,
    weight_decay=5e-4,
    label_smoothing=0.0,
)
_MINI = Recipe(
    optimizer="adamw",
    lr=1e-3,
    backbone_lr_mult=1.0,
    classifier_lr_mult=1.0,
    schedule="onecycle",
    batch=64,
    iterations=1_200,
    momentum=0.9,
    weight_decay=0.05,
    label_smoothing=0.1,
)
# FaceNet is not in the paper; this is a usual rate for fine-tuning its published weights.
_FACENET = replace(_PAPER, lr=1e-3)

NETWORKS: Mapping[str, NetworkEntry] = {
    "vggface": NetworkEntry(
        constructor="facedan_cli.models.vggface:vggface",
        family="VGG",
        layers=("fc6", "fc7"),
        image_size=250,
        crop=224,
        pretrain=_PAPER,
        adapt=replace(_PAPER, classifier_lr_mult=1.0),
        start="the paper starts from VGG-Face's: --init PATH",
    ),
    "vggface-mini": NetworkEntry(
        constructor="facedan_cli.models.vggface:vggface_mini",
        family="VGG-mini",
        layers=("fc6", "fc7"),
        image_size=72,
        crop=64,
        pretrain=_MINI,
        adapt=replace(_MINI, batch=32, iterations=300),
    ),
    "facenet": NetworkEntry(
        constructor="facedan_cli.models.facenet:Facenet",
        family="FaceNet",
        layers=("pool", "embedding"),
        pooled=("pool",),
        image_size=182,
        crop=160,
        template="arcface",
        pretrain=_FACENET,
        adapt=replace(_FACENET, classifier_lr_mult=1.0),
        releases={
            "vggface2": Release("20180402-114759-vggface2.pt", 8631),
            "casia-webface": Release("20180408-102900-casia-webface.pt", 10575),
        },
        fetch="facedan_cli.models.facenet:fetch_release",
        start="its published ones are --init vggface2 and --init casia-webface",
    ),
}
"""The networks by name."""

CLASSICAL: Mapping[str, str] = {"lbp": "LBP", "pcanet": "PCANet"}
"""Models that are not networks, with their names in tables. LBP needs no training."""

TRAINED = (*NETWORKS, "pcanet")
"""The models that `pretrain` trains."""

LAYERS = tuple(dict.fromkeys(layer for entry in NETWORKS.values() for layer in entry.layers))
"""All layers of all networks."""


def imported(name: str) -> Any:
    """The object that "module:name" in a table's row names."""
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)
