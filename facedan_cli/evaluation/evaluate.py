"""What all protocols have in common: embed by each model, score the comparisons, measure, compare models, write."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from facedan_cli.config.common import EvaluateConfig
from facedan_cli.config.fields import check_choices
from facedan_cli.data.dataset import FaceDataset, read_dataset
from facedan_cli.data.levels import check_levels, warn_of_levels
from facedan_cli.embedding.alignment import alignment_warnings
from facedan_cli.errors import FacedanError, UsageError
from facedan_cli.evaluation.differences import Figure, differences
from facedan_cli.evaluation.error_examples import ErrorExample, error_examples
from facedan_cli.evaluation.models import Faces, Model, embed_faces, find_models
from facedan_cli.evaluation.remarks import remarks
from facedan_cli.evaluation.report import write_evaluation
from facedan_cli.evaluation.result import EvaluateResult, Measured
from facedan_cli.evaluation.save_scores import save_scores
from facedan_cli.evaluation.training_overlap import seen_in_training
from facedan_cli.evaluation.trials import Trials
from facedan_cli.metrics.fusion import fuse
from facedan_cli.metrics.roc import parse_far
from facedan_cli.report import Report
from facedan_cli.runs import provenance
from facedan_cli.workspace import Dataset, Workspace, digest, write_set_aside

FUSION = "fusion"
"""The row of the fused scores."""

Measure = Callable[[Trials, np.ndarray, EvaluateConfig, str], Figure]
"""Comparisons, their scores, how to measure and the partition's name → figures."""


@dataclass(frozen=True)
class Protocol:
    """What a protocol compares and how it is measured.

    Args:
        name: the subcommand.
        datasets: where its images lie; the queries are in the first, the targets in the last.
        trials: from the features by any model, the comparisons by partition; it adds what it misses, with the
            reason, to the mapping.
        measure: scores of a partition turned into figures.
        lists: digests of the protocol's files.
        average: whether the plain mean of the partitions is a figure of its own.
    """

    name: str
    datasets: Sequence[Dataset]
    trials: Callable[[Sequence[Faces], dict[str, str]], Mapping[str, Trials]]
    measure: Measure
    lists: Sequence[str] = ()
    average: bool = False


def evaluate(protocol: Protocol, config: EvaluateConfig, workspace: Workspace, report: Report) -> EvaluateResult:
    """Embed the data sets by each model, score, measure, compare and write.

    Raises:
        UsageError: an option has an impossible value.
        FacedanError: models or images are missing so that nothing can be measured.
    """
    config = settled(config)
    folders = [read_dataset(dataset.root).remembered_in(workspace.root) for dataset in protocol.datasets]
    tell_of_folders(report, protocol.datasets, folders, people=not protocol.lists)
    models = find_models(config, workspace)
    absent: dict[str, str] = {}
    trials: Mapping[str, Trials] = {}
    paths: list[list[str]] = []
    scores: dict[str, dict[str, np.ndarray]] = {}
    for model in models:
        report.note(f"measuring {model.card.run} as '{model.name}' ({model})")
        faces = [
            embed_faces(config, dataset, folder, model, workspace, report)
            for dataset, folder in zip(protocol.datasets, folders, strict=True)
        ]
        if not trials:
            known = [side.knowing(folder) for side, folder in zip(faces, folders, strict=True)]
            trials, paths = protocol.trials(known, absent), [side.paths for side in faces]
        elif paths != [side.paths for side in faces]:
            raise FacedanError(
                f"'{model.name}' has features of other images than '{models[0].name}'", "repeat it with --force"
            )
        scores[model.name] = {
            name: part.score(faces[0].vectors, faces[-1].vectors, model.similarity) for name, part in trials.items()
        }
    if config.fuse:
        scores |= {FUSION: {name: fuse([by_part[name] for by_part in scores.values()]) for name in trials}}
    measured = [
        _measured(protocol, name, by_part, trials, config, next((m for m in models if m.name == name), None))
        for name, by_part in scores.items()
    ]
    named = {dataset.name: folder for dataset, folder in zip(protocol.datasets, folders, strict=True)}
    warnings = remarks(trials) + seen_in_training(models, trials, workspace)
    warnings += alignment_warnings({model.name: model for model in models}, named)
    for warning in warnings:
        report.warn(warning)
    directory = result_directory(protocol.name, config, workspace, models, folders, protocol.lists)
    result = EvaluateResult(
        protocol=protocol.name,
        directory=directory,
        models=measured,
        differences=differences([(model.name, model.partitions) for model in measured]),
        config=config,
        warnings=warnings,
        provenance=describe(models, protocol.datasets, folders, config),
        set_aside=write_set_aside(directory / "set-aside.tsv", sorted(absent.items())),
    )
    if config.save_scores:
        save_scores(directory / "scores", trials, scores)
    return write_evaluation(result, worst_of(trials, scores, measured))


def tell_of_folders(
    report: Report, datasets: Sequence[Dataset], folders: Sequence[FaceDataset], *, people: bool
) -> None:
    """Say what else lies in data sets.

    Args:
        report: told of it.
        datasets: what is measured.
        folders: their images.
        people: whether their folders tell who is who.

    Raises:
        FacedanError: they do, but people's folders lie a level deeper.
    """
    for dataset, folder in zip(datasets, folders, strict=True):
        if folder.remark:
            report.note(folder.remark)
        if people:
            check_levels(dataset, folder)
            warn_of_levels(report, dataset, folder)


def settled(config: EvaluateConfig) -> EvaluateConfig:
    """The configuration as it is meant, checked before any work: without replicates there are no intervals.

    Raises:
        UsageError: naming the option.
    """
    for rate in config.far:
        parse_far(rate)
    for rate in config.fpir:
        try:
            parse_far(rate)
        except UsageError as error:
            raise UsageError(f"'{rate}' is not a false-positive identification rate", error.fix) from error
    check_choices(config)
    if config.replicates < 0:
        raise UsageError(f"--replicates must be at least 0, not {config.replicates}", "0 gives no intervals")
    return replace(config, ci="none") if config.ci == "bootstrap" and not config.replicates else config


def result_directory(
    protocol: str,
    config: EvaluateConfig,
    workspace: Workspace,
    models: Sequence[Model],
    folders: Sequence[FaceDataset],
    lists: Sequence[str],
) -> Path:
    """Where the results lie: the same evaluation lies in the same place."""
    settings = [
        *(config.far, config.fpir, config.convention, config.ci, config.replicates, config.seed),
        *(config.fuse, config.plot, config.layer, config.flip),
    ]
    identity = digest(
        {
            "models": [model.sha256 for model in models],
            "images": [folder.fingerprint for folder in folders],
            "lists": list(lists),
            "config": settings,
        }
    )
    return workspace.result_directory(protocol, identity)


def describe(
    models: Sequence[Model], datasets: Sequence[Dataset], folders: Sequence[FaceDataset], config: EvaluateConfig
) -> dict[str, Any]:
    """With what an evaluation was made."""
    return provenance() | {
        "models": {model.name: model.sha256 for model in models},
        "images": {
            dataset.name: {
                "root": str(dataset.root.resolve()),
                "images": len(folder),
                "contents": folder.fingerprint,
            }
            for dataset, folder in zip(datasets, folders, strict=True)
        },
        "layer": config.layer,
        "flip": config.flip,
    }


def worst_of(
    trials: Mapping[str, Trials],
    scores: Mapping[str, Mapping[str, np.ndarray]],
    measured: Sequence[Measured],
) -> list[ErrorExample]:
    """The worst errors of every model in every partition."""
    return [
        worst
        for model in measured
        for name, part in trials.items()
        for worst in error_examples(model.name, name, part, scores[model.name][name], model.partitions[name])
    ]


def _measured(
    protocol: Protocol,
    name: str,
    scores: Mapping[str, np.ndarray],
    trials: Mapping[str, Trials],
    config: EvaluateConfig,
    model: Model | None,
) -> Measured:
    figures = {part: protocol.measure(trials[part], scores[part], config, part) for part in trials}
    means: tuple[float, ...] = ()
    if protocol.average:
        both = ([figure.rates for figure in figures.values()], [figure.with_failures for figure in figures.values()])
        means = tuple(float(np.mean([rate for one in rates for rate in one.values.values()])) for rates in both)
    if model is None:
        return Measured(name, None, None, figures, *means)
    return Measured(name, model.card.run, model.checkpoint, figures, *means)
