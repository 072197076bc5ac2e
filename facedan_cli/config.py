"""One frozen configuration a command. Its defaults are the paper's; the command line reads them from here.

Fields that are None by default take the value of the model's recipe (`PRETRAIN_RECIPES`, `ADAPT_RECIPES`): the paper's
for VGG-Face, and what trains well on a CPU for the small network of the same topology.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, TypeVar

from facedan_cli.errors import UsageError, did_you_mean

MODEL_LAYERS: Mapping[str, tuple[str, ...]] = {
    "vggface": ("fc6", "fc7"),
    "vggface-mini": ("fc6", "fc7"),
    "facenet": ("pool", "embedding"),
}
"""The networks, each with the layers that can be adapted, in order."""

MODEL_NAMES = (*MODEL_LAYERS, "pcanet")
"""What `pretrain` trains."""

CLASSICAL = ("lbp", "pcanet")
"""The models that are no networks: what came before them, to compare with. Only `pcanet` is trained."""

PCANET_OPTIONS = ("source", "model", "gallery", "seed", "workers", "device")
"""The options of `pretrain` that mean something for `pcanet`."""

TEMPLATE_NAMES = ("vggface", "lfw", "arcface")
ESTIMATORS = ("unbiased", "biased", "linear")
DISCREPANCIES = ("mk-mmd", "jmmd", "coral", "energy")
BANDWIDTHS = ("frozen", "ema", "batch")
BETAS = ("equal", "optimal")
OPTIMIZERS = ("sgd", "adamw")
SCHEDULES = ("constant", "onecycle")
CONVENTIONS = ("max-tar", "bob", "openbr", "nearest")
INTERVALS = ("bootstrap", "wilson", "none")
PLOT_FORMATS = ("png", "svg", "pdf")
PRECISIONS = ("auto", "fp32", "bf16", "fp16")
CACHES = ("auto", "ram", "disk", "none")
CHANNELS = ("auto", "rgb", "bgr")


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
class AlignConfig:
    """What `align` does to photographs."""

    raw: Path
    out: Path
    root: Path = Path()  # of the photographs that a list names
    size: int = 250
    template: str = "vggface"
    min_face: int = 40
    second_pass: bool = True
    detector_batch: int = 32
    landmarks: Path | None = None
    no_align: bool = False
    contact_sheet: Path | None = None
    workers: int = 0  # 0: as many as there are processors
    device: str = "auto"
    force: bool = False


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a network is trained where the command line does not say otherwise.

    Args:
        lr: base learning rate; the peak where the schedule is one-cycle.
        classifier_lr: the last layer's learning rate as a multiple of `lr`.
        batch: images a step from the source, and from the target as many again.
    """

    optimizer: str
    lr: float
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
"""What `adapt --preset` sets: the penalty of the paper to the letter, and the better one by docs/results.md."""


@dataclass(frozen=True, kw_only=True)
class EmbedConfig:
    """Features of a data set by one model."""

    dataset: str
    model: str | None = None
    layer: str | None = None  # the last one of the model
    flip: bool = False
    batch: int = 64
    workers: int = 0
    device: str = "auto"
    force: bool = False


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """How models are measured; the protocol itself is named by the subcommand."""

    model: tuple[str, ...] = ()
    far: tuple[str, ...] = ("0.001",)
    fpir: tuple[str, ...] = ("0.01",)
    convention: str = "max-tar"
    ci: str = "bootstrap"
    replicates: int = 1000
    fuse: bool = False
    save_scores: bool = False
    plot: str = "png"
    layer: str | None = None
    flip: bool = False
    seed: int = 0
    batch: int = 64
    workers: int = 0
    device: str = "auto"
    force: bool = False


EXPORT_SUFFIXES = {
    ".onnx": "onnx",
    ".pt": "torchscript",
    ".ts": "torchscript",
    ".safetensors": "safetensors",
}
"""The formats that a model is exported in, by the suffixes that mean them."""


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """A model as a file for other programs."""

    model: str
    out: Path
    format: str | None = None  # that of the suffix of `out`
    layer: str | None = None  # the last one of the model
    flip: bool = False
    force: bool = False


TABLE_PROTOCOLS = ("gbu", "feret", "identify", "pairs")
TABLE_FORMATS = ("text", "markdown", "latex", "csv")
TABLE_ROWS = ("lbp", "pcanet", "vgg", "source", "control", "s7", "s67", "m7", "m67", "fusion")
"""The rows of `table` in order: the paper's, the control λ = 0 and the fusion of the adapted models."""


@dataclass(frozen=True, kw_only=True)
class TableConfig:
    """The paper's table: every row is what `pretrain` and `adapt` train and `evaluate` measures.

    Args:
        rows: of `TABLE_ROWS`.
        seeds: each seed has models of its own.
        pretrain: stage 1; its seed is replaced.
        adapt: stage 2; its seed, λ, kernels and layers are those of seed and row.
        evaluate: how models are measured.
    """

    rows: tuple[str, ...]
    seeds: tuple[int, ...] = (0,)
    pretrain: PretrainConfig
    adapt: AdaptConfig
    evaluate: EvaluateConfig


@dataclass(frozen=True, kw_only=True)
class DemoConfig:
    """The world that `demo` draws: how many people, and pictures of each."""

    source_people: int = 240
    source_images: int = 10
    target_people: int = 150
    target_images: int = 5
    test_people: int = 90
    size: int = 160
    seed: int = 0
    workers: int = 0


# How fast or how chattily a run goes, never what it computes; and the inputs, of which the run keeps digests.
_NOT_DETERMINING = frozenset(
    {"workers", "device", "cache", "compile", "grad_accum", "shard_classifier"}
    | {"log_every", "checkpoint_every", "keep_every", "tensorboard"}
    | {"source", "target", "init", "gallery"}
    | {"select", "strengths"}  # they determine which runs there are
)

Training = TypeVar("Training", bound=TrainingConfig)


def resolve(config: Training, recipe: Recipe) -> Training:
    """Fill what is not set with the model's recipe."""
    unset = {key: value for key, value in asdict(recipe).items() if getattr(config, key) is None}
    return replace(config, **unset)


def options(config: Any) -> dict[str, Any]:
    """A configuration by option name: what is a Python keyword there carries an underscore here (`lambda_`)."""
    return {field.name.rstrip("_"): getattr(config, field.name) for field in fields(config)}


def determining(config: Any) -> dict[str, Any]:
    """Those options that determine the result of a run."""
    return {key: value for key, value in options(config).items() if key not in _NOT_DETERMINING}


def as_toml(command: str, values: Mapping[str, Any]) -> str:
    """The section of a command as it may stand in facedan.toml or be given to --config; what is None is left out."""
    lines = [f"[{command}]"]
    for key, value in values.items():
        if value is not None:
            # JSON's strings, numbers, booleans and arrays of them are TOML too.
            plain = str(value) if isinstance(value, Path) else list(value) if isinstance(value, tuple) else value
            lines.append(f"{key} = {json.dumps(plain, ensure_ascii=False)}")
    return "\n".join(lines) + "\n"


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
    for name in ("lr", "classifier_lr", "momentum", "weight_decay", "label_smoothing"):
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


def check_choice(option: str, value: str, known: tuple[str, ...]) -> None:
    """Refuse a value that is not among the known ones.

    Raises:
        UsageError: with the nearest known values.
    """
    if value not in known:
        raise UsageError(f"{option} does not know '{value}'", did_you_mean(value, known))
