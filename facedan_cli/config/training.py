"""What `pretrain` and `adapt` can be asked. The defaults are the paper's.

Fields that are None by default take the value of the model's recipe (`config.models`): the paper's
for VGG-Face, and what trains well on a CPU for the small network of the same topology.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar, TypeVar

from facedan_cli.config.common import (
    BANDWIDTHS,
    BETAS,
    CACHES,
    CHANNELS,
    ESTIMATORS,
    MEDIANS,
    OPTIMIZERS,
    PRECISIONS,
    SCHEDULES,
    options,
)
from facedan_cli.config.discrepancies import DISCREPANCIES
from facedan_cli.config.fields import (
    check_choice,
    check_choices,
    device_setting,
    seed_setting,
    setting,
    spelling,
    workers_setting,
)
from facedan_cli.config.models import LAYERS, NETWORKS, TRAINED, Recipe
from facedan_cli.errors import UsageError


@dataclass(frozen=True)
class Head:
    """Usual settings of a classification head; None where it has no such setting.

    Args:
        margin: added to the angle in radians (arcface), taken from the cosine (cosface), or what the angle is
            multiplied by, an integer (sphereface).
        scale: what cosines are multiplied by.
    """

    margin: float | None = None
    scale: float | None = None


HEADS: Mapping[str, Head] = {
    "softmax": Head(),
    "arcface": Head(margin=0.5, scale=64.0),
    "cosface": Head(margin=0.35, scale=64.0),
    "sphereface": Head(margin=4),
}
"""The classification heads, `facedan_cli.models.classifier`."""


_HEAD, _SPEED, _FILES = "Classification head", "Speed and memory", "Logs and checkpoints"
_RELEASES = "; ".join(f"{name} {', '.join(entry.releases)}" for name, entry in NETWORKS.items() if entry.releases)
_ALL_LAYERS = ", ".join(f"{name} {','.join(entry.layers)}" for name, entry in NETWORKS.items())
_MARGINS = ", ".join(f"{name} {head.margin:g}" for name, head in HEADS.items() if head.margin)
_SCALES = ", ".join(f"{name} {head.scale:g}" for name, head in HEADS.items() if head.scale)


def _head(default: str) -> Any:
    """--head, whose default differs between the stages."""
    return setting(
        None,
        f"softmax, or with a margin: arcface, cosface, sphereface. Default: {default}.",
        choices=HEADS,
        panel=_HEAD,
    )


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """What `pretrain` and `adapt` share."""

    RECIPES: ClassVar[Mapping[str, Recipe]]

    source: str = setting(help="Labelled faces, one folder a person: a path or a data set's name.", complete="dataset")
    holdout: int = setting(
        128,
        "Images of a domain, a tenth at most, that no training sees: adapt tests on them whether the domains differ.",
        min=0,
        former="hold_aside",
    )
    holdout_identities: int | None = setting(
        None,
        "People of the source, a tenth at most, whom no training sees: adapt --select verifies on them. Default: 0; of "
        "adapt as many as the pretraining held aside.",
        min=0,
        former="hold_people",
    )
    iterations: int | None = setting(None, "Training steps.", recipe=True)
    batch: int | None = setting(None, "Images a step.", recipe=True)
    lr: float | None = setting(None, "Base learning rate.", recipe=True)
    backbone_lr_mult: float | None = setting(
        None, "Convolutions' rate, a multiple of --lr; 0 keeps them as they are.", recipe=True, former="conv_lr"
    )
    classifier_lr_mult: float | None = setting(
        None, "Last layer's rate, a multiple of --lr.", recipe=True, former="classifier_lr"
    )
    optimizer: str | None = setting(None, "sgd or adamw.", choices=OPTIMIZERS, recipe=True)
    schedule: str | None = setting(None, "constant or onecycle.", choices=SCHEDULES, recipe=True)
    momentum: float | None = setting(None, "Momentum of sgd.", recipe=True)
    weight_decay: float | None = setting(None, "Weight decay.", recipe=True)
    label_smoothing: float | None = setting(None, "Share of the label spread over all people.", recipe=True)
    seed: int = seed_setting()
    head: str | None = _head("softmax")
    margin: float | None = setting(None, f"Margin of the head. Default: {_MARGINS}.", panel=_HEAD)
    scale: float | None = setting(None, f"What the head multiplies cosines by. Default: {_SCALES}.", panel=_HEAD)
    sample_rate: float = setting(
        1.0,
        "Share of all people that a step classifies among; its own people are always in it (partial FC).",
        panel=_HEAD,
    )
    shard_classifier: bool = setting(
        False,
        "Each process of torchrun holds only its share of the classifier: for very many people.",
        panel=_HEAD,
    )
    precision: str = setting(
        "auto",
        "Of the network's arithmetic: fp32, bf16, fp16; auto is bf16 on GPUs that have it, else fp32.",
        choices=PRECISIONS,
        panel=_SPEED,
    )
    compile: bool = setting(False, "Compile the network with torch.compile first.", panel=_SPEED)
    grad_accum: int = setting(
        1, "Send each batch through the network in N parts: the same step in less memory.", panel=_SPEED
    )
    cache: str = setting(
        "auto",
        "Decoded faces in memory (ram), in one mapped file in the workspace (disk), or decoded in each epoch (none); "
        "auto is ram where they take up to 2 GiB, else none.",
        choices=CACHES,
        panel=_SPEED,
    )
    checkpoint_every: int = setting(
        500,
        "Every N steps save what an interrupted run goes on from, and measure the loss on images held aside: the best "
        "step's network is kept as best.safetensors.",
        panel=_FILES,
    )
    keep_every: int = setting(
        0,
        "Keep the network of every N-th step too; a multiple of --checkpoint-every. 0: only best and last.",
        panel=_FILES,
    )
    log_every: int = setting(20, "Write a line of metrics.jsonl every N steps.", panel=_FILES)
    tensorboard: bool = setting(False, "Write TensorBoard's events as well.", panel=_FILES)
    workers: int = workers_setting()
    device: str = device_setting()


@dataclass(frozen=True, kw_only=True)
class PretrainConfig(TrainingConfig):
    """Stage 1: a softmax classifier on the labelled source (Section IV-B)."""

    RECIPES: ClassVar = {name: entry.pretrain for name, entry in NETWORKS.items()}

    model: str = setting(
        "vggface",
        f"Network: {', '.join(NETWORKS)}; or pcanet, which needs no labels.",
        choices=TRAINED,
    )
    init: str | None = setting(
        None,
        f"Weights file in any public form, run or checkpoint to start from; or a release by name: {_RELEASES}.",
        complete="run",
    )
    channels: str = setting(
        "auto",
        "Order of the input channels that --init was trained with, where its form does not tell.",
        choices=CHANNELS,
    )
    gallery: str | None = setting(
        None, "Faces from which pcanet learns its whitening. Default: the source's.", complete="dataset"
    )


@dataclass(frozen=True, kw_only=True)
class AdaptConfig(TrainingConfig):
    """Stage 2: source classification plus λ times MK-MMD² between source and target (eq. 4)."""

    RECIPES: ClassVar = {name: entry.adapt for name, entry in NETWORKS.items()}

    target: str = setting(
        help="Unlabelled faces: any tree of images, whose folder names are not read, or a sigset such as a training "
        "set of GBU (protocols/gbu/GBU_Training_Uncontrolledx8.xml: its images in the data set gbu).",
        complete="dataset",
    )
    init: str | None = setting(
        None,
        "Run or checkpoint to start from. Default: the newest finished pretraining on the source.",
        complete="run",
        leading=True,
    )
    layers: str | None = setting(
        None,
        f"Layers whose features are brought together; fc6:0.5,fc7 weighs them. Default: all ({_ALL_LAYERS}).",
        suggest=dict.fromkeys((*(",".join(entry.layers) for entry in NETWORKS.values()), *LAYERS)),
    )
    kernels: int = setting(5, "Gaussian kernels, of bandwidths γ, 2γ, 4γ …: the paper uses 1 and 5.")
    lambda_: float = setting(0.5, "λ, the weight of the penalty; 0 is the control.")
    lambda_ramp: int = setting(0, "Steps over which λ rises from 0; 0: it is constant.", min=0)
    discrepancy: str = setting(
        "mk-mmd",
        "mk-mmd (the paper's); for comparison jmmd (of the layers jointly), coral or energy.",
        choices=DISCREPANCIES,
    )
    estimator: str = setting(
        "unbiased", "unbiased, biased as the paper's eq. 2 stands, or linear (noisy).", choices=ESTIMATORS
    )
    bandwidth: str = setting(
        "frozen",
        "γ: frozen (median before training starts), ema (which then follows the batches' medians), batch (each"
        " batch's own) or a number.",
        suggest=BANDWIDTHS,
    )
    median: str = setting(
        "squared",
        "What a median gives as γ: squared (the median squared distance), or sigma (2σ², σ the median distance: twice "
        "as wide).",
        choices=MEDIANS,
    )
    bandwidth_multipliers: str | None = setting(
        None, "Bandwidths as multiples of γ, as in 0.25,1,4, instead of --kernels.", former="multipliers"
    )
    kernel_weights: str = setting(
        "equal",
        "Kernel weights: equal, or optimal (Gretton et al. 2012, from running means).",
        choices=BETAS,
        former="betas",
    )
    memory_bank: int = setting(
        0, "Compare each batch with so many past rows of each domain as well.", min=0, former="queue"
    )
    select: bool = setting(
        False, "Adapt with each λ of --lambdas, and choose the network, λ and step, without any label of the target."
    )
    lambdas: str = setting("0.5,2,10", "The λ that --select tries.", former="strengths")
    batch: int | None = setting(None, "Source images a step, and as many target images.", recipe=True)
    head: str | None = _head("that of --init's")


_USUAL = {
    name: getattr(AdaptConfig, name)
    for name in (
        *("layers", "kernels", "lambda_", "lambda_ramp", "discrepancy"),
        *("estimator", "bandwidth", "median", "bandwidth_multipliers", "kernel_weights", "memory_bank"),
    )
}
PRESETS: Mapping[str, Mapping[str, Any]] = {
    "paper": _USUAL | {"estimator": "biased"},
    "strong": _USUAL | {"lambda_": 10.0},
}
"""What `adapt --preset` sets: the paper's penalty to the letter, or a strong one for domains that differ much."""


Training = TypeVar("Training", bound=TrainingConfig)


def resolve(config: Training, recipe: Recipe) -> Training:
    """Fill what is not set with the model's recipe."""
    unset = {key: value for key, value in asdict(recipe).items() if getattr(config, key) is None}
    return replace(config, **unset)


def check_training(config: TrainingConfig) -> None:
    """Refuse what cannot be trained.

    Raises:
        UsageError: naming the option.
    """
    check_choices(config)
    values, fix = options(config), "leave it out for the default"
    least_values = {"batch": 2, "iterations": 1, "checkpoint_every": 1, "log_every": 1, "grad_accum": 1}
    for name, least in (least_values | {"holdout": 0, "holdout_identities": 0, "keep_every": 0}).items():
        if values[name] is not None and values[name] < least:
            raise UsageError(f"{spelling(name)} must be at least {least}, not {values[name]}", fix)
    for name in ("lr", "backbone_lr_mult", "classifier_lr_mult", "momentum", "weight_decay", "label_smoothing"):
        if not 0 <= values[name] < float("inf"):
            raise UsageError(f"{spelling(name)} must be a number from 0, not {values[name]}", fix)
    if values["label_smoothing"] > 1:
        raise UsageError(f"--label-smoothing must be a share from 0 to 1, not {values['label_smoothing']}", fix)


def resolve_head(config: Training) -> Training:
    """The configuration with the usual margin and scale of its head where they are not set.

    Raises:
        UsageError: the head is unknown, or has no such setting.
    """
    head = config.head or "softmax"
    check_choice("--head", head, tuple(HEADS))
    usual = HEADS[head]
    for name in ("margin", "scale"):
        value = getattr(config, name)
        if value is not None and getattr(usual, name) is None:
            raise UsageError(f"--{name} means nothing for --head {head}", f"leave --{name} out")
        if value is not None and not 0 < value < float("inf"):
            raise UsageError(f"--{name} must be a positive number, not {value}", "leave it out for the default")
    if not 0 < config.sample_rate <= 1:
        raise UsageError(f"--sample-rate must be a share up to 1, not {config.sample_rate}", "1, the default, is all")
    return replace(
        config,
        head=head,
        margin=usual.margin if config.margin is None else config.margin,
        scale=usual.scale if config.scale is None else config.scale,
    )
