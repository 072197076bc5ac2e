"""A network as a file for other programs: aligned faces in, features out, compared with the network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import torch

from facedan_cli.config.common import EXPORT_FORMATS, EXPORT_SUFFIXES, ExportConfig
from facedan_cli.config.fields import check_choice
from facedan_cli.errors import FacedanError, UsageError
from facedan_cli.export import graphs, weights
from facedan_cli.export.graphs import Features
from facedan_cli.export.hub import check_folder, replacing_folder, write_folder
from facedan_cli.export.measured import Measured, measured_of
from facedan_cli.export.metadata import data_of, describe, example_images
from facedan_cli.export.raw import RawEmbedder
from facedan_cli.models.checkpoint import ModelCard, load_checkpoint
from facedan_cli.models.embedder import Embedder
from facedan_cli.models.whitening import flip_warning
from facedan_cli.report import SILENT, Report
from facedan_cli.workspace import replacing, sha256_file

BATCHES = (1, 2, 5)
"""Batch sizes at which the exported file is compared with the network."""

TOLERANCE = 1e-5
"""The most by which an element may differ, for rows of length one: float32 sums in another order stay well below."""

_NEEDED = {"onnx": ("onnx", "onnxscript", "onnxruntime")}

_INSIGHTFACE = "127.5"
"""Mean and divisor that InsightFace's programs apply."""


@dataclass(frozen=True)
class ExportResult:
    """A written export.

    Args:
        path: the file.
        format: one of `EXPORT_FORMATS`.
        difference: the largest difference between its features and the network's that was seen in the check.
        metadata: what the file says of itself.
    """

    path: Path
    format: str
    difference: float
    metadata: Mapping[str, str]


def choose_format(config: ExportConfig) -> str:
    """The format that is asked for, else the one that the file's suffix says.

    Raises:
        UsageError: neither says one, or it does not go with --raw.
        FacedanError: packages that it needs are not installed.
    """
    chosen = config.format
    if chosen is None:
        suffix = config.out.suffix.lower()
        if suffix not in EXPORT_SUFFIXES:
            raise UsageError(
                f"the suffix of {config.out.name} says no format",
                f"end it in {', '.join(EXPORT_SUFFIXES)}, or give --format",
            )
        chosen = EXPORT_SUFFIXES[suffix]
    check_choice("--format", chosen, EXPORT_FORMATS)
    if config.raw and chosen not in ("onnx", "torchscript"):
        raise UsageError(f"--raw means nothing for {chosen}, which holds no preprocessing", "leave --raw out")
    if chosen == "original" and (config.layer is not None or config.flip):
        raise UsageError(
            "--layer and --flip mean nothing for original, which holds the weights alone", "leave them out"
        )
    missing = [package for package in _NEEDED.get(chosen, ()) if find_spec(package) is None]
    if missing:
        raise FacedanError(f"--format {chosen} needs {', '.join(missing)}", "pip install 'facedan[export]'")
    return chosen


def export(
    config: ExportConfig, checkpoint: Path, *, results: Path | None = None, report: Report = SILENT
) -> ExportResult:
    """Write a network without its classifier, and read it back: where its features differ, no file is left.

    Args:
        config: layer, flip, format and the file to write.
        checkpoint: the model.
        results: directory of evaluations, whose rates of this model a model card has.
        report: told of what the check found.

    Raises:
        UsageError: the network has no such layer, or cannot be written in this format.
        FacedanError: the file is there already and not to be replaced, or what was written is not the network.
    """
    chosen = choose_format(config)
    if chosen == "hub":
        check_folder(config.out, force=config.force)
    elif config.out.is_dir():
        raise UsageError(f"{config.out} is a directory", "name the file to write")
    elif config.out.exists() and not config.force:
        raise FacedanError(f"{config.out} exists already", "--force replaces it; or name another file")
    embedder, card = _embedder(config, checkpoint)
    if isinstance(embedder, Embedder) and embedder.whitens and (said := flip_warning(card.config, flip=config.flip)):
        report.warn(said)
    if chosen == "original":
        weights.refuse_original(card, config.out.suffix)
    metadata = describe(embedder, card, checkpoint)
    with (replacing_folder if chosen == "hub" else replacing)(config.out) as temporary:
        if chosen == "hub":
            measured = _measured(results, checkpoint, card, report)
            written = write_folder(embedder, temporary, metadata, card, data_of(checkpoint), measured)
        else:
            written = _write(chosen, embedder, temporary, metadata, card)
        difference = largest_difference(written, embedder)
        if not difference <= TOLERANCE:
            raise FacedanError(
                f"the {chosen} file gives features that differ by {difference:.2g} from the network's; it was not kept",
                "try another --format, and report it with the versions of torch and onnxruntime",
            )
    report.note(f"checked on batches of {', '.join(map(str, BATCHES))}: features differ by {difference:.1e} at most")
    if config.raw:
        _note_preprocessing(metadata, report)
    return ExportResult(config.out, chosen, difference, metadata)


@torch.no_grad()
def largest_difference(written: Features, embedder: Embedder) -> float:
    """The largest difference between features of the same images, as a share of their length; NaN where one is NaN."""
    differences = []
    for count in BATCHES:
        images = example_images(embedder, count)
        own = embedder(images)
        differences.append(((written(images) - own) / own.norm(dim=1, keepdim=True)).abs().max())
    return float(torch.stack(differences).max())


def _embedder(config: ExportConfig, checkpoint: Path) -> tuple[Embedder, ModelCard]:
    """The network of a checkpoint without its classifier, which is of no use elsewhere, and its card."""
    network, card = load_checkpoint(checkpoint)
    layer = config.layer or network.layers[-1]
    if layer not in network.layers:
        check_choice("--layer", layer, (*network.layers, *network.paths()))
    if config.raw and network.whitening is not None and layer == network.layers[-1]:
        raise UsageError(
            "--raw leaves features unnormalised, and the whitening of this model is of rows of length one",
            "leave --raw out, or export the model that it was adapted from",
        )
    made = (RawEmbedder if config.raw else Embedder)(network, layer, flip=config.flip)
    del network.classifier
    return made.requires_grad_(False).eval(), card


def _write(chosen: str, embedder: Embedder, path: Path, metadata: Mapping[str, str], card: ModelCard) -> Features:
    match chosen:
        case "onnx":
            return graphs.write_onnx(embedder, path, metadata)
        case "torchscript":
            return graphs.write_torchscript(embedder, path, metadata)
        case "original":
            return weights.write_original(embedder, path, card)
        case _:
            return weights.write_safetensors(embedder, path, metadata, card)


def _measured(results: Path | None, checkpoint: Path, card: ModelCard, report: Report) -> Measured:
    """The model's rates; results that are damaged are told of."""
    if results is None:
        return Measured((), {}, ())
    found = measured_of(results, sha256_file(checkpoint), card.entry.layers[-1])
    for path in found.damaged:
        report.warn(f"{path} is damaged: its rates are not in the model card")
    return found


def _note_preprocessing(metadata: Mapping[str, str], report: Report) -> None:
    """Say what has to happen outside, and where InsightFace's programs do another thing."""
    mean, divisor = metadata["mean"], metadata["divisor"]
    report.note(f"preprocessing is outside: feed RGB, (x - mean) / divisor, with mean {mean} and divisor {divisor}")
    if {*mean.split(), *divisor.split()} != {_INSIGHTFACE}:
        report.warn("InsightFace's programs feed (x - 127.5) / 127.5, which this network does not expect")
