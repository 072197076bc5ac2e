"""The options of every command except the trainings: one frozen configuration for each command."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from facedan_cli.config.fields import (
    COMMON,
    channels_setting,
    device_setting,
    flip_setting,
    former_names,
    input_setting,
    layer_setting,
    layers_setting,
    mean_setting,
    seed_setting,
    setting,
    std_setting,
    strict_setting,
    workers_setting,
)
from facedan_cli.config.models import NETWORKS
from facedan_cli.config.templates import POINT_COUNTS, TEMPLATES

PCANET_OPTIONS = ("source", "model", "gallery", "seed", "strict", "workers", "device")
"""The options of `pretrain` that `pcanet` uses."""

UNTRAINED_OPTIONS = (
    *("source", "target", "init", "method", "holdout", "seed", "strict"),
    *("channels", "input", "mean", "std", "cache", "workers", "device"),
)
"""The options of `adapt` that the methods without training use, beside their own."""

REFERENCE_OFFSET = "reference"
"""The offset of facenet-pytorch, and of aligned trees whose settings name none."""

LANDMARK_OFFSETS = ("corrected", REFERENCE_OFFSET)
ESTIMATORS = ("unbiased", "biased", "linear")
BANDWIDTHS = ("frozen", "ema", "batch")
MEDIANS = ("squared", "sigma")
BETAS = ("equal", "optimal")
OPTIMIZERS = ("sgd", "adamw")
INPUT_NORMALISATIONS = ("none", "clahe", "retinex")
SCHEDULES = ("constant", "onecycle")
CONVENTIONS = ("max-tar", "bob", "openbr", "nearest")
INTERVALS = ("bootstrap", "wilson", "none")
DISTANCES = ("cosine", "euclidean")
PLOT_FORMATS = ("png", "svg", "pdf")
PRECISIONS = ("auto", "fp32", "bf16", "fp16")
CACHES = ("auto", "ram", "disk", "none")

_SIZES = ", ".join(f"{entry.size} ({name})" for name, entry in TEMPLATES.items())
_FIVE = ", ".join(name for name, entry in TEMPLATES.items() if entry.fitted == 5)


@dataclass(frozen=True, kw_only=True)
class AlignConfig:
    """Alignment of raw images."""

    raw: Path = setting(
        help="Images: a directory, a .rec or tar archive, or a list of paths (- for stdin).",
        argument=True,
    )
    out: Path = setting(help="Directory of the aligned faces, which mirrors the tree of RAW.", argument=True)
    root: Path = setting(Path(), "Directory whose tree is mirrored, where RAW is a list.")
    for_: str | None = setting(
        None,
        "Align as a network expects it: its name, a run or a checkpoint; sets --template, --size and --points.",
        suggest=NETWORKS,
    )
    input: str | None = setting(None, "Input of a network of your own in --for, such as 112x96.")
    size: int | None = setting(None, f"Side of an aligned face in pixels. Default: {_SIZES}.", min=32)
    template: str | None = setting(
        None, f"Positions of eyes, nose and mouth: {', '.join(TEMPLATES)}. Default: vggface.", choices=TEMPLATES
    )
    points: int | None = setting(
        None,
        f"Points that are fitted: 3 (eyes, mouth) or 5 (also the nose). Default: 5 of {_FIVE}, else 3.",
        suggest=map(str, POINT_COUNTS),
    )
    min_face: int = setting(40, "Smallest face to detect, in pixels.", min=20)
    second_pass: bool = setting(True, "Search again, more thoroughly, where no face was found.")
    landmark_offset: str = setting(
        "corrected",
        "Landmark positions: corrected, or reference (one pixel to the lower right, as in facenet-pytorch).",
        choices=LANDMARK_OFFSETS,
    )
    detector_batch: int = setting(32, "Images per batch of the detector.", min=1)
    landmarks: Path | None = setting(None, "CSV of eye or five-point coordinates, used instead of detected ones.")
    no_align: bool = setting(
        False, "Copy faces that are aligned already, by --template or --for on that template; scale other sizes."
    )
    contact_sheet: Path | None = setting(None, "File for a sheet of the 100 least certain faces with their landmarks.")
    workers: int = setting(0, "Worker processes (threads with a GPU); 0: one per core.", min=0, panel=COMMON)
    device: str = device_setting()
    force: bool = False


@dataclass(frozen=True, kw_only=True)
class EmbedConfig:
    """Features of a data set by one model."""

    dataset: str = setting(
        help="Aligned faces: a path, a data set's name, or - for a list of paths on stdin.",
        argument=True,
        complete="dataset",
    )
    model: str | None = setting(
        None,
        "Run, checkpoint, weights or ONNX file, hf:OWNER/NAME, package.module:function or lbp. Default: the newest "
        "finished adaptation, else the newest pretraining.",
        complete="model",
    )
    layer: str | None = layer_setting()
    flip: bool = flip_setting()
    input: str | None = input_setting()
    mean: str | None = mean_setting()
    std: str | None = std_setting()
    channels: str = channels_setting()
    strict: bool = strict_setting()
    batch: int = setting(64, "Images per batch.", min=1)
    workers: int = workers_setting()
    device: str = device_setting()
    force: bool = False


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """How models are measured; the subcommand names the protocol."""

    model: tuple[str, ...] = setting(
        (),
        "Run, checkpoint, weights or ONNX file, hf:OWNER/NAME, package.module:function or lbp; repeatable, one row "
        "each. Default: the newest finished adaptation, else pretraining.",
        complete="model",
        leading=True,
    )
    embeddings: tuple[str, ...] = setting(
        (),
        "Embeddings by any system, one row each; repeatable: vectors.npy beside images.csv, .npz or .parquet.",
        leading=True,
    )
    far: tuple[str, ...] = setting(("0.001",), "False-accept rate; repeatable.", leading=True)
    fpir: tuple[str, ...] = setting(
        ("0.01",),
        "False-positive identification rate of open-set identification; repeatable.",
        leading=True,
    )
    convention: str = setting(
        "max-tar",
        f"Rule for the threshold at a FAR: {', '.join(CONVENTIONS)}.",
        choices=CONVENTIONS,
    )
    ci: str = setting(
        "bootstrap",
        "95 % intervals: bootstrap over subjects, wilson (binomial, too narrow) or none.",
        choices=INTERVALS,
    )
    embeddings_distance: str = setting("cosine", "Comparison of --embeddings: cosine or euclidean.", choices=DISTANCES)
    replicates: int = setting(1000, "Bootstrap replicates; 0: no intervals.", min=0)
    seed: int = seed_setting()
    fuse: bool = setting(False, "Add a row for the sum of the models' z-normalised scores.")
    save_scores: bool = setting(False, "Write the scores as well: BEE matrices, or Bob's columns for lists of pairs.")
    plot: str = setting("png", "Format of the figures: png, svg or pdf.", choices=PLOT_FORMATS)
    layer: str | None = layer_setting()
    flip: bool = flip_setting()
    input: str | None = input_setting()
    mean: str | None = mean_setting()
    std: str | None = std_setting()
    channels: str = channels_setting()
    strict: bool = strict_setting()
    batch: int = setting(64, "Images per batch.", min=1)
    workers: int = workers_setting()
    device: str = device_setting()
    force: bool = False


EXPORT_SUFFIXES = {
    ".onnx": "onnx",
    ".pt": "torchscript",
    ".ts": "torchscript",
    ".safetensors": "safetensors",
}
"""Export formats by file suffix."""
EXPORT_FORMATS = (*dict.fromkeys(EXPORT_SUFFIXES.values()), "original", "hub")


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """Export of a model for other programs."""

    model: str = setting(
        help="Run, checkpoint, weights file, hf:OWNER/NAME or package.module:function.",
        argument=True,
        complete="model",
    )
    out: Path = setting(help="File to write; of hub a directory.", argument=True)
    format: str | None = setting(
        None,
        "onnx, torchscript, safetensors, original (as the weights were published) or hub (a folder for the Hugging "
        f"Face Hub). Default: by the suffix of OUT ({', '.join(EXPORT_SUFFIXES)}).",
        choices=EXPORT_FORMATS,
    )
    raw: bool = setting(
        False, "Leave the preprocessing outside, and the features unnormalised, as InsightFace's models have it."
    )
    layer: str | None = layer_setting()
    flip: bool = flip_setting()
    input: str | None = input_setting()
    mean: str | None = mean_setting()
    std: str | None = std_setting()
    channels: str = channels_setting()
    force: bool = False


@dataclass(frozen=True, kw_only=True)
class ModelsConfig:
    """What `models` lists."""

    name: str | None = setting(
        None, "A network: its layers are listed. Default: all networks.", argument=True, suggest=NETWORKS
    )
    input: str | None = input_setting()
    mean: str | None = mean_setting()
    std: str | None = std_setting()
    layers: str | None = layers_setting()


@dataclass(frozen=True, kw_only=True)
class DemoConfig:
    """The data that `demo` draws: numbers of identities, and of images of each."""

    source_people: int = 240
    source_images: int = 10
    target_people: int = 150
    target_images: int = 5
    test_people: int = 90
    size: int = 160
    seed: int = seed_setting()
    workers: int = workers_setting()


# Options of speed and logging, which change no result; and the inputs, of which the run keeps digests.
_NOT_DETERMINING = frozenset(
    {"workers", "device", "cache", "compile", "grad_accum", "shard_classifier", "strict"}
    | {"log_every", "checkpoint_every", "keep_every", "tensorboard"}
    | {"source", "target", "init", "gallery"}
    | {"select", "lambdas", "candidates", "budget"}  # each λ is a run of its own
)


_AS_BEFORE = (
    *(("backbone_lr_mult", 1.0), ("input", None), ("mean", None), ("std", None), ("layers", None)),
    *(("batch_norm", None), ("method", "mmd"), ("adabn_mix", 1.0), ("train_from", None)),
    *(("input_normalisation", None), ("input_normalisation", "none")),
    *(("whiten_power", 0.25), ("whiten_rank", None), ("whiten_flip", False), ("augment", "none")),
    *(("restyle_share", 0.7), ("restyle_by", "histogram"), ("mask_share", 0.5)),
    *(("normalise_features", False), ("keep", 0.0)),
)
"""Options that earlier versions did not have, with the value they implied; runs with it keep their names."""

_UNKNOWN_TO_0_1 = (("median", "squared"), ("method", None))
"""Options added since version 0.1.0, with the value with which a run keeps its name of that version; None: any."""


def options(config: Any) -> dict[str, Any]:
    """A configuration by option name; a field whose option is a Python keyword ends in an underscore (`lambda_`)."""
    return {field.name.rstrip("_"): getattr(config, field.name) for field in fields(config)}


def hashed_options(config: Any) -> dict[str, Any]:
    """The options that determine the result of a run, under their names on disk.

    A renamed field keeps its former name here, so that runs keep their names and checkpoints their keys.
    """
    on_disk = {new.rstrip("_"): old for old, new in former_names(config).items()}
    of_inputs = getattr(config, "OF_INPUTS", ())  # settings of reading an input, whose digest the run has
    return {
        on_disk.get(key, key): value
        for key, value in options(config).items()
        if key not in _NOT_DETERMINING and key not in of_inputs and (key, value) not in _AS_BEFORE
    }


def hashed_in_0_1(hashed: Mapping[str, Any]) -> dict[str, Any]:
    """The part of `hashed_options`, and of the training's method, that named a run in version 0.1.0."""
    later = dict(_UNKNOWN_TO_0_1)
    return {key: value for key, value in hashed.items() if key not in later or later[key] not in (None, value)}


def as_toml(command: str, values: Mapping[str, Any]) -> str:
    """The section of a command in facedan.toml or a file for --config; options that are None are left out."""
    lines = [f"[{command}]"]
    for key, value in values.items():
        if value is not None:
            # JSON's strings, numbers, booleans and arrays of them are TOML too.
            plain = str(value) if isinstance(value, Path) else list(value) if isinstance(value, tuple) else value
            lines.append(f"{key} = {json.dumps(plain, ensure_ascii=False)}".replace("\x7f", "\\u007f"))
    return "\n".join(lines) + "\n"
