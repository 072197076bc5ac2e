"""One frozen configuration a command, of all but the trainings; the command line reads its defaults from here."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from facedan_cli.errors import UsageError, did_you_mean

MODEL_LAYERS: Mapping[str, tuple[str, ...]] = {
    "vggface": ("fc6", "fc7"),
    "vggface-mini": ("fc6", "fc7"),
    "facenet": ("pool", "embedding"),
}
"""The networks, each with the layers that can be adapted, in order."""

POOLED_LAYERS = ("pool",)
"""Those of them that have no weights of their own above the convolutions."""

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


_AS_BEFORE = (("conv_lr", 1.0),)
"""Values of later options that mean what was done without them: runs of earlier versions keep their names."""


def options(config: Any) -> dict[str, Any]:
    """A configuration by option name: what is a Python keyword there carries an underscore here (`lambda_`)."""
    return {field.name.rstrip("_"): getattr(config, field.name) for field in fields(config)}


def determining(config: Any) -> dict[str, Any]:
    """Those options that determine the result of a run."""
    return {
        key: value
        for key, value in options(config).items()
        if key not in _NOT_DETERMINING and (key, value) not in _AS_BEFORE
    }


def as_toml(command: str, values: Mapping[str, Any]) -> str:
    """The section of a command as it may stand in facedan.toml or be given to --config; what is None is left out."""
    lines = [f"[{command}]"]
    for key, value in values.items():
        if value is not None:
            # JSON's strings, numbers, booleans and arrays of them are TOML too.
            plain = str(value) if isinstance(value, Path) else list(value) if isinstance(value, tuple) else value
            lines.append(f"{key} = {json.dumps(plain, ensure_ascii=False)}")
    return "\n".join(lines) + "\n"


def check_choice(option: str, value: str, known: tuple[str, ...]) -> None:
    """Refuse a value that is not among the known ones.

    Raises:
        UsageError: with the nearest known values.
    """
    if value not in known:
        raise UsageError(f"{option} does not know '{value}'", did_you_mean(value, known))
