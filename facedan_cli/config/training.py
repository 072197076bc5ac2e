"""What `pretrain` and `adapt` can be asked. The defaults are the paper's.

Fields that are None by default take the value of the model's recipe (`PRETRAIN_RECIPES`, `ADAPT_RECIPES`): the paper's
for VGG-Face, and what trains well on a CPU for the small network of the same topology.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeVar

from facedan_cli.config.common import CACHES, OPTIMIZERS, PRECISIONS, SCHEDULES, check_choice, options
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
    conv_lr: float
    classifier_lr: float
    schedule: str
    batch: int
    iterations: int
    momentum: float
    weight_decay: float
    label_smoothing: float


# Section IV-B. The paper names neither the optimiser, nor momentum, nor weight decay: these are VGG's (Simonyan 2015).
_PAPER = Recipe(
    optimizer="sgd",
    lr=1e-4,
    conv_lr=1.0,
    classifier_lr=10.0,
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
    conv_lr=1.0,
    classifier_lr=1.0,
    schedule="onecycle",
    batch=64,
    iterations=1_200,
    momentum=0.9,
    weight_decay=0.05,
    label_smoothing=0.1,
)
# FaceNet is not of the paper: a rate that is usual where its published weights are trained on.
_FACENET = replace(_PAPER, lr=1e-3)
PRETRAIN_RECIPES: Mapping[str, Recipe] = {"vggface": _PAPER, "vggface-mini": _MINI, "facenet": _FACENET}
ADAPT_RECIPES: Mapping[str, Recipe] = {
    "vggface": replace(_PAPER, classifier_lr=1.0),
    "vggface-mini": replace(_MINI, batch=32, iterations=300),
    "facenet": replace(_FACENET, classifier_lr=1.0),
}


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """What `pretrain` and `adapt` share."""

    source: str
    optimizer: str | None = None
    lr: float | None = None
    conv_lr: float | None = None
    classifier_lr: float | None = None
    schedule: str | None = None
    batch: int | None = None
    iterations: int | None = None
    momentum: float | None = None
    weight_decay: float | None = None
    label_smoothing: float | None = None
    head: str | None = None
    margin: float | None = None
    scale: float | None = None
    sample_rate: float = 1.0
    shard_classifier: bool = False
    seed: int = 0
    hold_aside: int = 128
    hold_people: int | None = None  # of pretrain: none; of adapt: as the pretraining did
    precision: str = "auto"
    compile: bool = False
    grad_accum: int = 1
    cache: str = "auto"
    checkpoint_every: int = 500
    keep_every: int = 0
    log_every: int = 20
    tensorboard: bool = False
    workers: int = 0
    device: str = "auto"


@dataclass(frozen=True, kw_only=True)
class PretrainConfig(TrainingConfig):
    """Stage 1: a softmax classifier on the labelled source (Section IV-B)."""

    model: str = "vggface"
    init: str | None = None
    channels: str = "auto"
    gallery: str | None = None  # of pcanet: the source


@dataclass(frozen=True, kw_only=True)
class AdaptConfig(TrainingConfig):
    """Stage 2: source classification plus λ times MK-MMD² between source and target (eq. 4)."""

    target: str
    init: str | None = None
    layers: str | None = None  # all that the model has
    kernels: int = 5
    lambda_: float = 0.5
    lambda_ramp: int = 0
    discrepancy: str = "mk-mmd"
    estimator: str = "unbiased"
    bandwidth: str = "frozen"
    multipliers: str | None = None
    betas: str = "equal"
    queue: int = 0
    select: bool = False
    strengths: str = "0.5,2,10"  # of select


_USUAL = {
    name: getattr(AdaptConfig, name)
    for name in (
        *("layers", "kernels", "lambda_", "lambda_ramp", "discrepancy"),
        *("estimator", "bandwidth", "multipliers", "betas", "queue"),
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
    check_choice("--optimizer", str(config.optimizer), OPTIMIZERS)
    check_choice("--schedule", str(config.schedule), SCHEDULES)
    check_choice("--precision", config.precision, PRECISIONS)
    check_choice("--cache", config.cache, CACHES)
    values, fix = options(config), "leave it out for the default"
    least_values = {"batch": 2, "iterations": 1, "checkpoint_every": 1, "log_every": 1, "grad_accum": 1}
    for name, least in (least_values | {"hold_aside": 0, "hold_people": 0, "keep_every": 0}).items():
        if values[name] is not None and values[name] < least:
            raise UsageError(f"--{name.replace('_', '-')} must be at least {least}, not {values[name]}", fix)
    for name in ("lr", "conv_lr", "classifier_lr", "momentum", "weight_decay", "label_smoothing"):
        if not 0 <= values[name] < float("inf"):
            raise UsageError(f"--{name.replace('_', '-')} must be a number from 0, not {values[name]}", fix)
    if values["label_smoothing"] > 1:
        raise UsageError(f"--label-smoothing must be a share from 0 to 1, not {values['label_smoothing']}", fix)


def settle_head(config: Training) -> Training:
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
