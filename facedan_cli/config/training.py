"""The options of `pretrain` and `adapt`. The defaults are the paper's.

A field whose default is None takes its value from the network's recipe (`config.models`): the paper's for VGG-Face, and
one that suits a CPU for the small network of the same topology.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar, TypeVar

from facedan_cli.config.common import (
    BANDWIDTHS,
    BETAS,
    CACHES,
    ESTIMATORS,
    INPUT_NORMALISATIONS,
    MEDIANS,
    OPTIMIZERS,
    PRECISIONS,
    SCHEDULES,
    options,
)
from facedan_cli.config.discrepancies import DISCREPANCIES
from facedan_cli.config.fields import (
    channels_setting,
    check_choices,
    device_setting,
    input_setting,
    layers_setting,
    mean_setting,
    seed_setting,
    setting,
    spelling,
    std_setting,
    strict_setting,
    workers_setting,
)
from facedan_cli.config.heads import HEADS, head_settings
from facedan_cli.config.looks import AUGMENTATIONS, RESTYLINGS, kinds_of
from facedan_cli.config.methods import METHODS, idle_options, trains
from facedan_cli.config.models import LAYERS, NETWORKS, TRAINED, Recipe
from facedan_cli.errors import UsageError

LAMBDAS_ON_DISK = "strengths"
"""The key of the tried values of λ in run identities and checkpoints, as in earlier versions."""

CANDIDATES = ("centre", "whiten", "adabn", "restyle", "mmd")
"""What `adapt --select` tries."""

_HEAD, _SPEED, _FILES = "Classification head", "Speed and memory", "Logs and checkpoints"
_RELEASES = "; ".join(f"{', '.join(entry.releases)} ({name})" for name, entry in NETWORKS.items() if entry.releases)
_MARGINS = ", ".join(f"{name} {head.margin:g}" for name, head in HEADS.items() if head.margin)
_METHODS = ", ".join(f"{name} ({entry.help})" for name, entry in METHODS.items())
_SCALES = ", ".join(f"{name} {head.scale:g}" for name, head in HEADS.items() if head.scale)


def _head(default: str) -> Any:
    """The field of --head, whose default differs between the stages."""
    return setting(
        None,
        f"Classification head: {', '.join(HEADS)}. Default: {default}.",
        choices=HEADS,
        panel=_HEAD,
    )


def _input_normalisation(default: str) -> Any:
    """--input-normalisation, whose default differs between the stages."""
    return setting(
        None,
        "Normalisation of light in each image, a part of the network in training and use: none, clahe (local contrast "
        f"of lightness) or retinex (logarithm less its blur). Default: {default}.",
        choices=INPUT_NORMALISATIONS,
    )


def _batch_norm(default: str, **more: str) -> Any:
    """--batch-norm; its modes and its default differ between the stages."""
    modes = {"frozen": "kept", "source": "of the batch's source images", **more}
    said = ", ".join(f"{mode} ({meaning})" for mode, meaning in modes.items())
    return setting(
        None, f"Statistics by which batch normalisation normalises: {said}. Default: {default}.", choices=modes
    )


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """The options that `pretrain` and `adapt` share."""

    RECIPES: ClassVar[Mapping[str, Recipe]]

    source: str = setting(
        help="Labelled faces, one folder per identity: a path or a data set's name.", complete="dataset"
    )
    holdout: int = setting(
        128,
        "Held-out images per domain, at most a tenth, for validation and the two-sample test.",
        min=0,
        former="hold_aside",
    )
    holdout_identities: int | None = setting(
        None,
        "Held-out source identities, at most a tenth, on which adapt --select verifies. Default: 0; in adapt those of "
        "the pretraining. For published weights at most a fifth, with --select 100.",
        min=0,
        former="hold_people",
    )
    iterations: int | None = setting(None, "Training steps.", recipe=True)
    batch: int | None = setting(None, "Images per step.", recipe=True)
    lr: float | None = setting(None, "Base learning rate.", recipe=True)
    backbone_lr_mult: float | None = setting(
        None, "Learning rate of the convolutions as a multiple of --lr; 0 freezes them.", recipe=True, former="conv_lr"
    )
    classifier_lr_mult: float | None = setting(
        None, "Learning rate of the classifier as a multiple of --lr.", recipe=True, former="classifier_lr"
    )
    optimizer: str | None = setting(None, "Optimiser: sgd or adamw.", choices=OPTIMIZERS, recipe=True)
    schedule: str | None = setting(
        None, "Schedule of the learning rate: constant or onecycle.", choices=SCHEDULES, recipe=True
    )
    momentum: float | None = setting(None, "Momentum of sgd.", recipe=True)
    weight_decay: float | None = setting(None, "Weight decay.", recipe=True)
    label_smoothing: float | None = setting(
        None, "Label smoothing: share of the label spread over all identities.", recipe=True
    )
    input_normalisation: str | None = _input_normalisation("none, or that of the run that --init names")
    batch_norm: str | None = _batch_norm("source; with --init, and for facenet, frozen")
    augment: str = setting(
        "none",
        f"Random changes of source images: none, all, or some of {', '.join(AUGMENTATIONS)}, with commas.",
        suggest=("none", "all", *AUGMENTATIONS),
    )
    train_from: str | None = setting(
        None, "Train this module, a dotted path, and those after it alone. Default: all modules."
    )
    seed: int = seed_setting()
    strict: bool = strict_setting()
    head: str | None = _head("softmax")
    margin: float | None = setting(None, f"Margin of the head. Default: {_MARGINS}.", panel=_HEAD)
    scale: float | None = setting(None, f"Scale of the head's cosines. Default: {_SCALES}.", panel=_HEAD)
    sample_rate: float = setting(
        1.0,
        "Share of the identities that a step classifies among (partial FC).",
        panel=_HEAD,
    )
    shard_classifier: bool = setting(
        False,
        "Divide the classifier among torchrun's processes, for very many identities.",
        panel=_HEAD,
    )
    precision: str = setting(
        "auto",
        "Precision of the network: fp32, bf16 or fp16; auto: bf16 on GPUs that have it, else fp32.",
        choices=PRECISIONS,
        panel=_SPEED,
    )
    compile: bool = setting(False, "Compile the network with torch.compile.", panel=_SPEED)
    grad_accum: int = setting(1, "Compute each batch in N parts: the same step in less memory.", panel=_SPEED)
    cache: str = setting(
        "auto",
        "Cache of decoded faces: ram, disk (one file in the workspace) or none; auto: ram up to 2 GiB, else none.",
        choices=CACHES,
        panel=_SPEED,
    )
    checkpoint_every: int = setting(
        500,
        "Every N steps save the training state and validate on held-out images.",
        panel=_FILES,
    )
    keep_every: int = setting(
        0,
        "Keep the network of every N-th step as well, a multiple of --checkpoint-every; 0: only best and last.",
        panel=_FILES,
    )
    log_every: int = setting(20, "Write a line to metrics.jsonl every N steps.", panel=_FILES)
    tensorboard: bool = setting(False, "Write TensorBoard events as well.", panel=_FILES)
    input: str | None = input_setting()
    mean: str | None = mean_setting()
    std: str | None = std_setting()
    channels: str = channels_setting()
    workers: int = workers_setting()
    device: str = device_setting()


@dataclass(frozen=True, kw_only=True)
class PretrainConfig(TrainingConfig):
    """Stage 1: a softmax classifier on the labelled source (Section IV-B)."""

    RECIPES: ClassVar = {name: entry.pretrain for name, entry in NETWORKS.items()}

    model: str = setting(
        "vggface",
        "Model to train: one that `facedan models` lists, timm:NAME, torchvision:NAME, or package.module:function ("
        "your own code, which facedan runs: a function that returns an nn.Module).",
        suggest=TRAINED,
    )
    init: str | None = setting(
        None,
        f"Start from a weights file, run or checkpoint, or from published weights: {_RELEASES}.",
        complete="run",
    )
    layers: str | None = layers_setting()
    gallery: str | None = setting(None, "Faces for the whitening of pcanet. Default: the source.", complete="dataset")


@dataclass(frozen=True, kw_only=True)
class AdaptConfig(TrainingConfig):
    """Stage 2: source classification plus λ times MK-MMD² between source and target (the loss of the paper)."""

    RECIPES: ClassVar = {name: entry.adapt for name, entry in NETWORKS.items()}
    OF_INPUTS: ClassVar = frozenset({"channels", "input", "mean", "std"})

    target: str = setting(
        help="Unlabelled faces: a path, a data set's name or a sigset of its images.",
        complete="dataset",
    )
    init: str | None = setting(
        None,
        "Start from a run, checkpoint, weights file, published weights or package.module:function. Default: the newest "
        "finished pretraining on the source.",
        complete="run",
        leading=True,
    )
    layers: str | None = setting(
        None,
        "Layers to adapt, with weights as in fc6:0.5,fc7: names of `facedan models`, or dotted paths of modules. "
        "Default: the network's.",
        suggest=dict.fromkeys((*(",".join(entry.layers) for entry in NETWORKS.values()), *LAYERS)),
    )
    method: str = setting(
        "mmd",
        f"Method, or several joined by +, as in mmd+whiten: {_METHODS}.",
        suggest=(*METHODS, "mmd+whiten", "adabn+whiten"),
    )
    adabn_mix: float = setting(1.0, "Share of the target's statistics in those of adabn; the rest are the network's.")
    whiten_power: float = setting(
        0.25, "Power of the inverse covariance by which whiten multiplies: 0 centres only, 0.5 whitens fully."
    )
    whiten_rank: int | None = setting(
        None,
        "Principal directions that whiten scales each by its own variance; the others share one. Default: all.",
        min=1,
    )
    whiten_flip: bool = setting(
        False, "Statistics of whiten for features that --flip of embed and evaluate adds the mirrored image to."
    )
    restyle_share: float = setting(0.7, "Share of the source images that restyle changes.")
    restyle_by: str = setting(
        "histogram",
        f"What restyle takes from a target image: {', '.join(RESTYLINGS)}, with commas, or all.",
        suggest=("all", *RESTYLINGS),
    )
    mask_share: float = setting(0.5, "Share of the source images on which masks draws a mask.")
    kernels: int = setting(5, "Number of Gaussian kernels, with bandwidths γ, 2γ, 4γ …")
    lambda_: float | None = setting(None, "λ, the weight of the penalty; 0: the control.", recipe=True)
    normalise_features: bool | None = setting(
        None, "Compare L2-normalised features in the penalty, as recognition does.", recipe=True
    )
    keep: float = setting(
        0.0,
        "Weight of a term that keeps the embedding of --init: the mean of 1 − cosine between new and old embedding of "
        "the source and target images of a step; 0: none.",
    )
    lambda_ramp: int = setting(0, "Steps over which λ rises from 0; 0: constant λ.", min=0)
    discrepancy: str = setting(
        "mk-mmd",
        f"Discrepancy between the domains: {', '.join(DISCREPANCIES)}.",
        choices=DISCREPANCIES,
    )
    estimator: str = setting(
        "unbiased", "Estimator: unbiased, biased (the paper's eq. 2) or linear (noisy).", choices=ESTIMATORS
    )
    bandwidth: str = setting(
        "frozen",
        "Bandwidth γ: frozen (median before training), ema (running median), batch (median of each batch) or a number.",
        suggest=BANDWIDTHS,
    )
    median: str = setting(
        "squared",
        "γ from a median: squared (of the squared distances) or sigma (2σ², σ the median distance).",
        choices=MEDIANS,
    )
    bandwidth_multipliers: str | None = setting(
        None, "Bandwidths as multiples of γ, such as 0.25,1,4, instead of --kernels.", former="multipliers"
    )
    kernel_weights: str = setting(
        "equal",
        "Kernel weights β: equal or optimal (Gretton et al. 2012).",
        choices=BETAS,
        former="betas",
    )
    memory_bank: int = setting(
        0, "Past features per domain that each batch is compared with as well; 0: none.", min=0, former="queue"
    )
    select: bool = setting(
        False, "Try methods and strengths, and choose one, or the network as it is, without target labels."
    )
    lambdas: str = setting("0.5,2,10", "Values of λ that --select tries.", former=LAMBDAS_ON_DISK)
    candidates: str = setting(
        "all",
        f"What --select tries: {', '.join(CANDIDATES)}, or all that the network can. The network as it is always "
        "competes.",
        suggest=("all", *CANDIDATES),
    )
    budget: str | None = setting(
        None, "What the trainings of --select may take together: steps, as in 600, or minutes, as in 10m. Default: all."
    )
    batch: int | None = setting(None, "Source images per step, and as many target images.", recipe=True)
    input_normalisation: str | None = _input_normalisation("that of --init; another one suits published weights")
    batch_norm: str | None = _batch_norm(
        "frozen", joint="of all its images", target="of the target's images, estimated once before training"
    )
    head: str | None = _head("that of --init")


_USUAL = {
    name: getattr(AdaptConfig, name)
    for name in (
        *("layers", "kernels", "lambda_", "lambda_ramp", "discrepancy"),
        *("estimator", "bandwidth", "median", "bandwidth_multipliers", "kernel_weights", "memory_bank"),
        "normalise_features",
    )
}
PRESETS: Mapping[str, Mapping[str, Any]] = {
    "paper": _USUAL | {"estimator": "biased", "lambda_": 0.5, "normalise_features": False},
    "strong": _USUAL | {"lambda_": 10.0},
}
"""Values of `adapt --preset`: the paper's penalty to the letter, or a strong one for domains that differ much."""


Training = TypeVar("Training", bound=TrainingConfig)


def resolve(config: Training, recipe: Recipe, **known: Any) -> Training:
    """The configuration with the model's recipe and the head's margin and scale filled in, and checked.

    Args:
        config: the given configuration.
        recipe: recipe of the model for the stage.
        known: values by field that stand in place of the configuration's.

    Raises:
        UsageError: naming the option that cannot be.
    """
    unset = {key: value for key, value in asdict(recipe).items() if getattr(config, key) is None}
    head = {name: known.get(name, getattr(config, name)) for name in ("head", "margin", "scale")}
    head["head"] = head["head"] or recipe.head
    resolved = replace(config, **(unset | known | head_settings(**head)))
    check_training(resolved)
    return resolved


def of_stage(config: AdaptConfig, stage: str) -> AdaptConfig:
    """The configuration of one stage of its method: the options of other methods have their defaults.

    Args:
        config: the given configuration.
        stage: of `stages_of`, or several that follow one another; a training without mmd has λ = 0.
    """
    idle = {name: getattr(AdaptConfig, name) for name in idle_options(stage)}
    if "lambda_" in idle and trains(stage):
        idle["lambda_"] = 0.0
    return replace(config, method=stage, **idle)


def check_training(config: TrainingConfig) -> None:
    """Raise an error for values with which no training is possible.

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
    kinds_of("--augment", config.augment, AUGMENTATIONS)
    if not 0 < config.sample_rate <= 1:
        raise UsageError(f"--sample-rate must be a share up to 1, not {config.sample_rate}", "1, the default, is all")
