"""One frozen configuration a command, of all but the trainings; the command line reads its defaults from here."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from facedan_cli.config.fields import (
    COMMON,
    device_setting,
    flip_setting,
    former_names,
    layer_setting,
    seed_setting,
    setting,
    workers_setting,
)

PCANET_OPTIONS = ("source", "model", "gallery", "seed", "workers", "device")
"""The options of `pretrain` that mean something for `pcanet`."""

TEMPLATE_NAMES = ("vggface", "lfw", "arcface")
REFERENCE_OFFSET = "reference"
"""That of facenet-pytorch, and of aligned trees that do not name theirs."""

LANDMARK_OFFSETS = ("corrected", REFERENCE_OFFSET)
ESTIMATORS = ("unbiased", "biased", "linear")
BANDWIDTHS = ("frozen", "ema", "batch")
MEDIANS = ("squared", "sigma")
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

    raw: Path = setting(
        help="Photographs: a directory, a .rec or tar archive, or a list of paths; - reads the list from stdin.",
        argument=True,
    )
    out: Path = setting(help="Directory for the aligned faces; the tree of RAW is mirrored in it.", argument=True)
    root: Path = setting(Path(), "The directory whose tree is mirrored where RAW is a list.")
    size: int = setting(250, "Side of an aligned face, pixels.", min=32)
    template: str = setting("vggface", f"Where eyes and mouth go: {', '.join(TEMPLATE_NAMES)}.", choices=TEMPLATE_NAMES)
    min_face: int = setting(40, "Smallest face to look for, pixels.", min=20)
    second_pass: bool = setting(True, "Search again, more patiently, where no face was found.")
    landmark_offset: str = setting(
        "corrected",
        "Where found landmarks lie: corrected, or reference: a pixel right and below, as facenet-pytorch has them.",
        choices=LANDMARK_OFFSETS,
    )
    detector_batch: int = setting(32, "Photographs that are searched together.", min=1)
    landmarks: Path | None = setting(
        None, "CSV of eye or five-point coordinates to use where it has them (GBU's eyes.csv)."
    )
    no_align: bool = setting(False, "The faces are aligned already: copy them, and scale those of another size.")
    contact_sheet: Path | None = setting(None, "Draw the 100 least certain faces with their points into this picture.")
    workers: int = setting(0, "Processes that align, threads with a GPU; 0: one a processor.", min=0, panel=COMMON)
    device: str = device_setting()
    force: bool = False


@dataclass(frozen=True, kw_only=True)
class EmbedConfig:
    """Features of a data set by one model."""

    dataset: str = setting(
        help="Aligned faces: a path or a data set's name; - reads a list of image paths from stdin.",
        argument=True,
        complete="dataset",
    )
    model: str | None = setting(
        None, "Run, checkpoint or lbp. Default: the newest finished adaptation, else pretraining.", complete="model"
    )
    layer: str | None = layer_setting()
    flip: bool = flip_setting()
    batch: int = setting(64, "Images at a time.", min=1)
    workers: int = workers_setting()
    device: str = device_setting()
    force: bool = False


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """How models are measured; the protocol itself is named by the subcommand."""

    model: tuple[str, ...] = setting(
        (),
        "Run, checkpoint or lbp; repeat it for a row each. Default: the newest finished adaptation, else pretraining.",
        complete="model",
        leading=True,
    )
    far: tuple[str, ...] = setting(("0.001",), "False-accept rate; may be repeated.", leading=True)
    fpir: tuple[str, ...] = setting(
        ("0.01",),
        "False-positive identification rate, where some probes have no mate; may be repeated.",
        leading=True,
    )
    convention: str = setting(
        "max-tar",
        f"Rule for the threshold at a FAR: {', '.join(CONVENTIONS)}; the first is ours, the others are other tools'.",
        choices=CONVENTIONS,
    )
    ci: str = setting(
        "bootstrap",
        "95 % intervals: bootstrap over people, wilson (binomial: too narrow) or none.",
        choices=INTERVALS,
    )
    replicates: int = setting(1000, "Bootstrap replicates; 0: no intervals.", min=0)
    seed: int = seed_setting()
    fuse: bool = setting(False, "Add a row that sums the z-normalised scores of the models.")
    save_scores: bool = setting(False, "Write the scores too: BEE matrices, or Bob's columns of lists of pairs.")
    plot: str = setting("png", "Format of the pictures: png, svg or pdf.", choices=PLOT_FORMATS)
    layer: str | None = layer_setting()
    flip: bool = flip_setting()
    batch: int = setting(64, "Images at a time.", min=1)
    workers: int = workers_setting()
    device: str = device_setting()
    force: bool = False


EXPORT_SUFFIXES = {
    ".onnx": "onnx",
    ".pt": "torchscript",
    ".ts": "torchscript",
    ".safetensors": "safetensors",
}
"""The formats that a model is exported in, by the suffixes that mean them."""
EXPORT_FORMATS = tuple(dict.fromkeys(EXPORT_SUFFIXES.values()))


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """A model as a file for other programs."""

    model: str = setting(help="Run or checkpoint.", argument=True, complete="run")
    out: Path = setting(help="File to write.", argument=True)
    format: str | None = setting(
        None,
        f"{', '.join(EXPORT_FORMATS)}. Default: what the file's suffix says ({', '.join(EXPORT_SUFFIXES)}).",
        choices=EXPORT_FORMATS,
    )
    layer: str | None = layer_setting()
    flip: bool = flip_setting()
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
    seed: int = seed_setting()
    workers: int = workers_setting()


# How fast or how chattily a run goes, never what it computes; and the inputs, of which the run keeps digests.
_NOT_DETERMINING = frozenset(
    {"workers", "device", "cache", "compile", "grad_accum", "shard_classifier"}
    | {"log_every", "checkpoint_every", "keep_every", "tensorboard"}
    | {"source", "target", "init", "gallery"}
    | {"select", "lambdas"}  # they determine which runs there are
)


_AS_BEFORE = (("backbone_lr_mult", 1.0),)
"""Values of later options that mean what was done without them: runs of earlier versions keep their names."""

_UNKNOWN_TO_0_1 = (("median", "squared"), ("method", None))
"""What names runs since, and did not in version 0.1.0; None: whatever its value."""


def options(config: Any) -> dict[str, Any]:
    """A configuration by option name: what is a Python keyword there carries an underscore here (`lambda_`)."""
    return {field.name.rstrip("_"): getattr(config, field.name) for field in fields(config)}


def hashed_options(config: Any) -> dict[str, Any]:
    """Those options that determine the result of a run, under the names that they keep on disk.

    A field that has a new name stands here by its former one: runs keep their names, and checkpoints their keys.
    """
    on_disk = {new.rstrip("_"): old for old, new in former_names(config).items()}
    return {
        on_disk.get(key, key): value
        for key, value in options(config).items()
        if key not in _NOT_DETERMINING and (key, value) not in _AS_BEFORE
    }


def hashed_in_0_1(hashed: Mapping[str, Any]) -> dict[str, Any]:
    """What of `hashed_options`, and of the training's method, named a run in version 0.1.0."""
    later = dict(_UNKNOWN_TO_0_1)
    return {key: value for key, value in hashed.items() if key not in later or later[key] not in (None, value)}


def as_toml(command: str, values: Mapping[str, Any]) -> str:
    """The section of a command as it may stand in facedan.toml or be given to --config; what is None is left out."""
    lines = [f"[{command}]"]
    for key, value in values.items():
        if value is not None:
            # JSON's strings, numbers, booleans and arrays of them are TOML too.
            plain = str(value) if isinstance(value, Path) else list(value) if isinstance(value, tuple) else value
            lines.append(f"{key} = {json.dumps(plain, ensure_ascii=False)}".replace("\x7f", "\\u007f"))
    return "\n".join(lines) + "\n"
