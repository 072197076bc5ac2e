"""The models of an evaluation with their names in tables, and their features."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from facedan_cli.config.common import EmbedConfig, EvaluateConfig, hashed_options
from facedan_cli.config.models import CLASSICAL
from facedan_cli.config.networks import network_settings
from facedan_cli.config.training import LAMBDAS_ON_DISK, AdaptConfig
from facedan_cli.data.dataset import FaceDataset
from facedan_cli.data.manifest import OddLine
from facedan_cli.data.origins import MissingImage, Origins, missing_images, read_origins
from facedan_cli.data.same_images import NO_CONTENTS, places_of
from facedan_cli.distributed import SINGLE, DistEnv
from facedan_cli.embedding.embed import embed
from facedan_cli.embedding.model import FaceModel, Kind, check_settings, find_model
from facedan_cli.errors import UsageError
from facedan_cli.models.checkpoint import ModelCard
from facedan_cli.protocols.matching import NOT_THERE, Match, base_names_tell_apart, match_images
from facedan_cli.report import SILENT, Report
from facedan_cli.workspace import Dataset, Workspace, read_set_aside

FUSION = "fusion"
"""The row of the fused scores."""


@dataclass(frozen=True)
class EmbeddedSet:
    """A data set's features by one model.

    Args:
        root: the aligned faces' directory.
        vectors: features, shape (n, d).
        paths: paths of the faces, relative to `root`.
        subjects: subject of each face; "" if neither folder nor list names one.
        origins: original file of each face, relative to `root`; "" if no manifest names it.
        failed: images without features (failures to acquire).
        contents: a number for the content of each image, equal for copies in all data sets of the evaluation, int64,
            shape (n,); None if they were not read.
    """

    root: Path
    vectors: np.ndarray
    paths: list[str]
    subjects: list[str]
    origins: Sequence[str]
    failed: Sequence[MissingImage]
    contents: np.ndarray | None = None

    @cached_property
    def files(self) -> list[Path]:
        """The files of the faces."""
        return [self.root / path for path in self.paths]

    def with_contents(self, folder: FaceDataset, contents: np.ndarray) -> EmbeddedSet:
        """The set with the contents of its images.

        Args:
            folder: the data set.
            contents: contents of all its images, from `contents_of_sets`.
        """
        rows = {path: row for row, path in enumerate(folder.paths)}
        own = contents[[rows[path] for path in self.paths]]
        if (absent := np.isin(own, NO_CONTENTS)).any():  # embeddings of others may be of files that are not here
            own[absent] = places_of(self.files[row] for row in np.flatnonzero(absent))
        return replace(self, contents=own)

    def only(self, kept: Collection[str], failed: Sequence[MissingImage]) -> EmbeddedSet:
        """A part of the images.

        Args:
            kept: their paths.
            failed: all images of the data set that are left out.
        """
        rows = [row for row, path in enumerate(self.paths) if path in kept]
        paths, subjects, origins = (
            [values[row] for row in rows] for values in (self.paths, self.subjects, self.origins)
        )
        return EmbeddedSet(self.root, self.vectors[rows], paths, subjects, origins, failed)


@dataclass(frozen=True, kw_only=True)
class Model(FaceModel):
    """A measured model with its name in tables."""

    name: str


def find_models(config: EvaluateConfig, workspace: Workspace, report: Report = SILENT) -> list[Model]:
    """The models of --model, each once, with their names in tables.

    Raises:
        UsageError: there is only one to fuse, or one has no such layer.
        FacedanError: there is no such model.
    """
    names = config.model or (() if config.embeddings else (None,))
    settings = network_settings(config)
    named = [find_model(workspace, name, settings, channels=config.channels, report=report) for name in names]
    found = list({model.checkpoint and model.checkpoint.resolve(): model for model in named}.values())
    if config.fuse and len(found) + len(set(config.embeddings)) < 2:
        raise UsageError("--fuse needs at least two models", "name them: --model A --model B")
    if not found and (config.layer is not None or config.flip):
        raise UsageError("--layer and --flip mean nothing for embeddings", "leave them out")
    check_settings(found, settings)
    for model in found:
        model.layer(config.layer, flip=config.flip)
    return [
        Model(model.card, model.checkpoint, model.settings, name=name)
        for model, name in zip(found, _labels(found), strict=True)
    ]


def embed_faces(
    config: EvaluateConfig,
    dataset: Dataset,
    folder: FaceDataset,
    model: FaceModel,
    workspace: Workspace,
    report: Report,
    ranks: DistEnv = SINGLE,
) -> EmbeddedSet:
    """The features of a data set, from the workspace or computed now, by all processes of the job."""
    how = EmbedConfig(
        dataset=dataset.name,
        layer=config.layer,
        flip=config.flip,
        batch=config.batch,
        workers=config.workers,
        device=config.device,
        force=config.force,
    )
    embedded = embed(how, folder, model, workspace, ranks=ranks, report=report)
    origins = origins_of(dataset, folder, report)
    vectors, paths, subjects = embedded.load()
    failed = missing_images(folder, origins, read_set_aside(embedded.set_aside))
    return EmbeddedSet(folder.root, vectors, paths, subjects, [origins.files.get(path, "") for path in paths], failed)


def origins_of(dataset: Dataset, folder: FaceDataset, report: Report) -> Origins:
    """The origins of a data set's images, with a warning about damaged lines of its manifest."""
    odd: list[OddLine] = []
    origins = read_origins(dataset.root, folder, odd)
    if odd:
        report.warn(
            f"{len(odd)} lines of the manifest of '{dataset.name}' are damaged, the first is line {odd[0].number}: "
            "images that failed there are not counted; the same facedan align again mends it"
        )
    return origins


def of_common_images(rows: Mapping[str, Sequence[EmbeddedSet]]) -> tuple[dict[str, list[EmbeddedSet]], list[str]]:
    """The features of the images that every row has features of, so that rates are paired.

    Args:
        rows: for each row by name, the features of each data set.

    Returns:
        The rows; of images that some have and others have not, warnings.
    """
    common: dict[str, list[EmbeddedSet]] = {name: [] for name in rows}
    lacking = Counter[str]()
    for of_set in zip(*rows.values(), strict=True):
        kept = set.intersection(*(set(one.paths) for one in of_set))
        failed = list({image.path: image for one in of_set for image in one.failed}.values())
        there = set.union(*(set(one.paths) for one in of_set))
        for name, one in zip(rows, of_set, strict=True):
            lacking[name] += len(there.difference(one.paths))
            common[name].append(one if len(kept) == len(one.paths) else one.only(kept, failed))
    named = [f"'{name}' has no features of {count} images" for name, count in lacking.items() if count]
    if not named:
        return common, []
    return common, [
        f"{', '.join(named)} that other rows have: no row is measured on them, and they are failures of each; "
        "a command of its own measures a row on all its images"
    ]


def find_images(
    names: Sequence[str], embedded: EmbeddedSet, *, by_base_name: bool = False
) -> tuple[Match, Mapping[str, MissingImage]]:
    """Match the names of a protocol to the images of a data set, those without features included.

    Args:
        names: names in the protocol, of the faces or of their original files.
        embedded: the data set's features.
        by_base_name: see `match_images`.

    Returns:
        The rows of the names that have features, and why each other name has none; and the failed images by name.
    """
    made = [tuple(dict.fromkeys((path, file))) for path, file in zip(embedded.paths, embedded.origins, strict=True)]
    failed = [tuple(dict.fromkeys((image.path, image.face))) for image in embedded.failed]
    match = match_images(names, [*made, *failed])
    rows = dict(match.rows)
    missing = dict(match.missing)
    if by_base_name and base_names_tell_apart(names):
        # An image that is there is the one meant, whatever failed elsewhere under its base name.
        for images, first in ((made, 0), (failed, len(made))):
            nowhere = [name for name, reason in missing.items() if reason == NOT_THERE]
            taken = set(rows.values())
            free = [() if row in taken else image for row, image in enumerate(images, start=first)]
            more = match_images(nowhere, free, by_base_name=True)
            rows |= {name: row + first for name, row in more.rows.items()}
            missing = {name: why for name, why in missing.items() if name not in more.rows}
            missing.update(more.missing)
    failed_by_name = {name: embedded.failed[row - len(made)] for name, row in rows.items() if row >= len(made)}
    missing.update({name: image.reason for name, image in failed_by_name.items()})
    ordered = {name: missing[name] for name in dict.fromkeys(names) if name in missing}
    return Match({name: row for name, row in rows.items() if row < len(made)}, ordered), failed_by_name


def _labels(models: Sequence[FaceModel]) -> list[str]:
    """Names for a table, as in the paper; equal names get their run's hash, then a number."""
    names = [
        model.file.stem if model.kind is Kind.ONNX else label_of(model.card) + _step_of(model.checkpoint)
        for model in models
    ]
    counts = Counter(names)
    names = [
        name if counts[name] == 1 or model.kind is Kind.ONNX else f"{name} {model.card.run.rpartition('-')[2]}"
        for name, model in zip(names, models, strict=True)
    ]
    return [
        name if names.count(name) == 1 else f"{name} #{names[:row].count(name) + 1}" for row, name in enumerate(names)
    ]


def _step_of(checkpoint: Path | None) -> str:
    """The step of a run's checkpoint, such as " step 50"; "" for the last one and for files elsewhere."""
    if checkpoint is None or checkpoint.parent.name != "checkpoints" or checkpoint.stem == "model":
        return ""
    return " " + checkpoint.stem.replace("-", " ")


def label_of(card: ModelCard) -> str:
    """The name of a model in the paper's tables."""
    return _label(card) + (" chosen" if LAMBDAS_ON_DISK in card.config else "")


def _label(card: ModelCard) -> str:
    if card.model in CLASSICAL:
        return CLASSICAL[card.model]
    if card.stage == "weights":
        return "as loaded"
    config = card.config
    if card.stage == "pretrain":
        normalised = _changes({"input_normalisation": config.get("input_normalisation")})
        return "source only" + normalised + _changed_source(config)
    if config.get("method") in _UNTRAINED:
        before = f"{label_of(replace(card, config=config['after']))} + " if "after" in config else ""
        return before + _UNTRAINED[config["method"]](config)
    return _penalised(config) + _changed_source(config)


def _penalised(config: Mapping[str, Any]) -> str:
    """The name of a training by its penalty."""
    if config["lambda"] == 0:
        return "λ = 0" + _changes({key: config.get(key) for key in ("batch_norm", "input_normalisation", "keep")})
    kernels = {1: "s", 5: "m"}.get(config["kernels"], f"{config['kernels']}k")
    weighed = dict(sorted(layer.partition(":")[::2] for layer in config["layers"].split(",")))
    of_paper = all(name.startswith("fc") for name in weighed)
    layers = "".join(name.removeprefix("fc") for name in weighed) if of_paper else " " + "+".join(weighed)
    lambda_ = "" if config["lambda"] == 0.5 else f" λ={config['lambda']:g}"  # 0.5 is the paper's
    other = config.get("discrepancy", AdaptConfig.discrepancy)
    name = f"DAN_{kernels}{layers}" if other == AdaptConfig.discrepancy else f"{other} {layers.strip()}"
    weights = "".join(f" {layer}:{weight}" for layer, weight in weighed.items() if weight and float(weight) != 1)
    unit = " L2" if config.get("normalise_features") else ""
    return name + weights + lambda_ + unit + _changes(config)


def _changed_source(config: Mapping[str, Any]) -> str:
    """What a training did to its source images, for the name of a row."""
    methods = str(config.get("method", "")).split("+")
    kinds = config.get("restyle_by", AdaptConfig.restyle_by)
    share = config.get("restyle_share", AdaptConfig.restyle_share)
    said = {
        "restyled": "restyle" in methods,
        f"by {kinds}": "restyle" in methods and kinds != AdaptConfig.restyle_by,
        f"{share:g}": "restyle" in methods and share != AdaptConfig.restyle_share,
        "masks": "masks" in methods,
        f"augmented{'' if config.get('augment') == 'all' else ' ' + str(config.get('augment'))}": "augment" in config,
    }
    return "".join(f" {what}" for what, so in said.items() if so)


def _adabn(config: Mapping[str, Any]) -> str:
    mix = config.get("adabn_mix", AdaptConfig.adabn_mix)
    return "AdaBN" if mix == AdaptConfig.adabn_mix else f"AdaBN mix={mix:g}"


def _whitened(config: Mapping[str, Any]) -> str:
    power, rank = config.get("whiten_power", AdaptConfig.whiten_power), config.get("whiten_rank")
    name = "centred" if power == 0 else "whitened" if power == AdaptConfig.whiten_power else f"whitened {power:g}"
    return name if rank is None or power == 0 else f"{name} rank={rank}"


_UNTRAINED = {"adabn": _adabn, "whiten": _whitened}
"""The names of rows, by the method without training."""


def _changes(config: Mapping[str, Any]) -> str:
    """The penalty's settings that are not defaults, for the name of a row."""
    said = {  # by the names on disk
        "estimator": "{}",
        "multipliers": "γ×{}",
        "bandwidth": "γ={}",
        "median": "median={}",
        "betas": "β={}",
        "queue": "bank={}",
        "lambda_ramp": "ramp={}",
        "batch_norm": "BN={}",
        "input_normalisation": "{}",
        "keep": "keep={:g}",
    }
    values = {key: config.get(key) for key in said}
    usual = hashed_options(AdaptConfig(source="", target=""))
    return "".join(
        " " + said[key].format(value) for key, value in values.items() if value is not None and value != usual.get(key)
    )
