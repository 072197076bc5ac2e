"""The table of networks: a row each, and nothing else names one. Free of torch, so that the command line can read it.

A new network is a file of its own and a row here.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a network is trained where the command line does not say otherwise.

    Args:
        lr: base learning rate; the peak where the schedule is one-cycle.
        conv_lr: the convolutions' learning rate as a multiple of `lr`; with 0 they stay as they are.
        classifier_lr: the last layer's, likewise.
        schedule: "constant" or "onecycle".
        batch: images a step from the source, of all processes together, and from the target as many again.
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


@dataclass(frozen=True, kw_only=True)
class NetworkEntry:
    """What the package knows of a network beside its own file.

    Args:
        constructor: "module:function", called with the number of identities, `image_size`, `crop` and the classifier's
            head; it gives a `models.network.FaceNetwork`, whose preprocessing is part of it.
        family: its name in tables.
        layers: those that can be adapted, in order; all are by default, and the last gives the embedding.
        pooled: those of them that have no weights of their own above the convolutions.
        image_size: side of the aligned image from which crops are taken, pixels.
        crop: side of the crop that the network sees, pixels.
        template: the alignment that it is meant for.
        pretrain: recipe of stage 1.
        adapt: recipe of stage 2.
        releases: names that --init knows beside files.
        fetch: "module:function", which gives the file of a release.
        start: where usual weights come from, said to who starts without; "" where random weights are usual.
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
    releases: tuple[str, ...] = ()
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
# FaceNet is not of the paper: a rate that is usual where its published weights are trained on.
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
        releases=("vggface2", "casia-webface"),
        fetch="facedan_cli.models.facenet:fetch_release",
        start="its published ones are --init vggface2 and --init casia-webface",
    ),
}
"""The networks by name."""

CLASSICAL: Mapping[str, str] = {"lbp": "LBP", "pcanet": "PCANet"}
"""The models that are no networks, by their names in tables. LBP needs no training."""

TRAINED = (*NETWORKS, "pcanet")
"""What `pretrain` trains."""

LAYERS = tuple(dict.fromkeys(layer for entry in NETWORKS.values() for layer in entry.layers))
"""All layers of all networks."""


def imported(name: str) -> Any:
    """What "module:name" in a row of a table means."""
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)
