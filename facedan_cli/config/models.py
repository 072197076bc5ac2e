"""The table of networks, a row each: the only place that names them. It imports no torch, for the command line's sake.

A new network is one file in `models/` and one row here. `config.networks` also finds networks that no row names.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, NamedTuple

from facedan_cli.config.preprocessing import Channels, parse_normalisation

EMBEDDING = "embedding"
"""The layer that is a backbone's output."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Default training options of a network.

    Args:
        lr: base learning rate; the peak of a one-cycle schedule.
        backbone_lr_mult: the convolutions' learning rate as a multiple of `lr`; 0 freezes them.
        classifier_lr_mult: the classifier's learning rate as a multiple of `lr`.
        schedule: "constant" or "onecycle".
        batch: source images per step over all processes; the target adds as many.
        head: of a classifier that starts afresh.
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
    head: str = "softmax"


@dataclass(frozen=True, kw_only=True)
class AdaptRecipe(Recipe):
    """Default options of an adaptation; those that `Recipe` lacks are the paper's.

    Args:
        lambda_: λ, the weight of the penalty.
        normalise_features: whether the penalty compares L2-normalised features.
    """

    lambda_: float = 0.5
    normalise_features: bool = False


def _adaptation(recipe: Recipe, **changes: Any) -> AdaptRecipe:
    return AdaptRecipe(**{**asdict(recipe), **changes})


class Release(NamedTuple):
    """Published weights: the name of their file, and the number of identities that they were trained on."""

    file_name: str
    identities: int


@dataclass(frozen=True, kw_only=True)
class NetworkEntry:
    """A network: everything but its own file. It has a `constructor` or a `body`.

    Args:
        constructor: "module:function", called with the number of identities, `image_size`, `crop` and the
            classification head; returns a `models.network.FaceNetwork`, which includes the preprocessing.
        body: "module:function", called with `arguments`; returns any module that turns normalised images, float,
            shape (b, 3, crop, width), into embeddings, shape (b, d); `models.backbone.Backbone` does the rest.
        arguments: of the body's function.
        family: its name in tables.
        layers: layers that are adapted by default, in order; the last gives the embedding. Of a body, `embedding` is
            the output, and every other name the dotted path of a module.
        also: other layers that are worth adapting.
        pooled: those among `layers` without weights of their own above the convolutions.
        top: dotted paths of a body's modules above the convolutions; none: its linear layers and what normalises them.
        length: of a body's embedding; 0 where a forward pass has to tell.
        image_size: side of the aligned image from which crops are taken, in pixels.
        crop: side of the network's input, in pixels.
        width: of the input where it is not square: the middle columns of the crop are taken; 0: `crop`.
        mean: subtracted from the channels in 0-255, in a body's order, before the body.
        std: what is then divided by.
        channels: the order in which a body takes them, "rgb" or "bgr".
        template: alignment template that the network expects.
        licence: of the published weights that are known; "" where there are none.
        pretrain: recipe of stage 1.
        adapt: recipe of stage 2.
        releases: published weights that --init accepts, by name.
        fetch: "module:function" that downloads a release and returns its file.
        start: hint about published weights for users who start without; "" if random weights are usual.
    """

    constructor: str = ""
    body: str = ""
    arguments: tuple[str, ...] = ()
    family: str
    layers: tuple[str, ...] = (EMBEDDING,)
    also: tuple[str, ...] = ()
    pooled: tuple[str, ...] = ()
    top: tuple[str, ...] = ()
    length: int = 0
    image_size: int
    crop: int
    width: int = 0
    mean: Channels = (127.5, 127.5, 127.5)
    std: Channels = (127.5, 127.5, 127.5)
    channels: str = "rgb"
    template: str
    licence: str = ""
    pretrain: Recipe
    adapt: AdaptRecipe
    releases: Mapping[str, Release] = field(default_factory=dict)
    fetch: str = ""
    start: str = ""

    def __post_init__(self) -> None:
        if type(self.adapt) is not AdaptRecipe:  # of a package that was written for one kind of recipe
            object.__setattr__(self, "adapt", _adaptation(self.adapt))


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
# ArcFace's for training from random weights. Networks that come trained: small steps and few of them, and the penalty
# on the unit sphere, where they compare, with a λ that brings MMD² near chance.
STRONG = replace(_PAPER, lr=0.02, classifier_lr_mult=1.0, schedule="onecycle", batch=128, head="cosface")
STRONG_ADAPT = _adaptation(
    _PAPER, optimizer="adamw", iterations=150, weight_decay=0.0, head="cosface", lambda_=10.0, normalise_features=True
)

IMAGENET = {"mean": "0.485,0.456,0.406", "std": "0.229,0.224,0.225"}
"""The normalisation of networks that learnt from ImageNet, as options have it."""

_IMAGENET_MEAN, _IMAGENET_STD = parse_normalisation(**IMAGENET)
_INSIGHTFACE = "non-commercial research (InsightFace's model zoo)"
_ADAFACE = "MIT (AdaFace, CVLFace); see the licences of their training sets"


def _recogniser(family: str, body: str, length: int, *, side: int = 112, **facts: Any) -> NetworkEntry:
    """A row of a published recogniser, which takes whole aligned faces."""
    usual = {"template": "arcface5", "pretrain": STRONG, "adapt": STRONG_ADAPT}
    return NetworkEntry(
        family=family,
        body=f"facedan_cli.models.{body}",
        length=length,
        image_size=side,
        crop=side,
        **{**usual, **facts},
    )


NETWORKS: Mapping[str, NetworkEntry] = {
    "vggface": NetworkEntry(
        constructor="facedan_cli.models.vggface:vggface",
        family="VGG",
        layers=("fc6", "fc7"),
        image_size=250,
        crop=224,
        template="vggface",
        licence="CC BY-NC 4.0 (VGG-Face)",
        pretrain=_PAPER,
        adapt=_adaptation(_PAPER, classifier_lr_mult=1.0),
        start="the paper starts from VGG-Face's: --init PATH",
    ),
    "vggface-mini": NetworkEntry(
        constructor="facedan_cli.models.vggface:vggface_mini",
        family="VGG-mini",
        layers=("fc6", "fc7"),
        image_size=72,
        crop=64,
        template="vggface",
        pretrain=_MINI,
        adapt=_adaptation(_MINI, batch=32, iterations=300),
    ),
    "facenet": NetworkEntry(
        constructor="facedan_cli.models.facenet:Facenet",
        family="FaceNet",
        layers=("pool", "embedding"),
        pooled=("pool",),
        image_size=182,
        crop=160,
        template="arcface",
        licence="MIT (facenet-pytorch)",
        pretrain=_FACENET,
        adapt=_adaptation(_FACENET, classifier_lr_mult=1.0),
        releases={
            "vggface2": Release("20180402-114759-vggface2.pt", 8631),
            "casia-webface": Release("20180408-102900-casia-webface.pt", 10575),
        },
        fetch="facedan_cli.models.facenet:fetch_release",
        start="its published ones are --init vggface2 and --init casia-webface",
    ),
    **{
        f"iresnet{depth}": _recogniser(
            "IResNet", f"iresnet:iresnet{depth}", 512, also=("fc",), top=("fc", "features"), licence=_INSIGHTFACE
        )
        for depth in (18, 34, 50, 100, 200)
    },
    **{
        f"adaface-ir{depth}": _recogniser(
            "AdaFace", f"adaface_ir:ir{depth}", 512, also=("output_layer.3",), top=("output_layer",), licence=_ADAFACE
        )
        for depth in (18, 34, 50, 101)
    },
    "mobilefacenet": _recogniser(
        "MobileFaceNet",
        "mobilefacenet:mobilefacenet",
        128,
        also=("gdconv",),
        top=("gdconv", "conv3", "bn"),
        mean=_IMAGENET_MEAN,
        std=_IMAGENET_STD,
        licence="Apache-2.0 (foamliu/MobileFaceNet)",
    ),
    "mbf": _recogniser("MobileFaceNet", "mobilefacenet:mbf", 512, top=("features",), licence=_INSIGHTFACE),
    "dlib-resnet": _recogniser(
        "dlib",
        "dlib_resnet:dlib_resnet",
        128,
        side=150,
        mean=(122.782, 117.001, 104.298),
        std=(256.0, 256.0, 256.0),
        template="dlib",
        licence="CC0 (face_recognition_models)",
    ),
}
"""The networks by name."""

LBP, PCANET, ONNX = "lbp", "pcanet", "onnx"

CLASSICAL: Mapping[str, str] = {LBP: "LBP", PCANET: "PCANet"}
"""Models that are not networks, with their names in tables. LBP needs no training."""

TRAINED = (*NETWORKS, PCANET)
"""The models of these tables that `pretrain` trains."""

LAYERS = tuple(dict.fromkeys(layer for entry in NETWORKS.values() for layer in entry.layers))
"""All layers of all networks."""


def imported(name: str) -> Any:
    """The object that "module:name" in a table's row names."""
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)
