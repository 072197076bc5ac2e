"""The evaluation of any protocol: embed by each model, score the comparisons, measure, compare models, write."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from facedan_cli.config.common import EvaluateConfig
from facedan_cli.data.dataset import FaceDataset, read_dataset
from facedan_cli.data.levels import check_levels, warn_of_levels
from facedan_cli.data.same_images import contents_of_sets
from facedan_cli.distributed import SINGLE, DistEnv
from facedan_cli.embedding.alignment import alignment_warnings
from facedan_cli.errors import FacedanError
from facedan_cli.evaluation.differences import Measurement, differences
from facedan_cli.evaluation.error_examples import ErrorExample, error_examples
from facedan_cli.evaluation.external_embeddings import ExternalEmbeddings, embed_externally, read_rows
from facedan_cli.evaluation.models import FUSION, EmbeddedSet, Model, embed_faces, find_models, of_common_images
from facedan_cli.evaluation.remarks import remarks
from facedan_cli.evaluation.report import write_evaluation
from facedan_cli.evaluation.result import EvaluateResult, ModelResult
from facedan_cli.evaluation.save_scores import save_scores
from facedan_cli.evaluation.settings import resolve_evaluate
from facedan_cli.evaluation.training_overlap import seen_in_training
from facedan_cli.evaluation.trials import Trials
from facedan_cli.metrics.fusion import fuse
from facedan_cli.report import Report
from facedan_cli.runs import provenance
from facedan_cli.workspace import Dataset, Workspace, digest, write_set_aside

Measure = Callable[[Trials, np.ndarray, EvaluateConfig, str], Measurement]
"""The measure of a protocol: comparisons, their scores, settings and the partition's name → rates."""

Scores = Mapping[str, Mapping[str, np.ndarray]]
"""Scores by model, then by partition: shape (queries, targets) for all pairs, (n,) for a list of pairs."""


@dataclass(frozen=True)
class Protocol:
    """The comparisons of a protocol and their measure.

    Args:
        name: name of the row in `config.protocols`.
        datasets: data sets of its images; queries are in the first, targets in the last.
        trials: makes the comparisons by partition from the features by any model, and adds missing images, with the
            reason, to the mapping.
        measure: turns the scores of a partition into rates.
        lists: digests of the protocol's files.
        average: whether the plain mean of the partitions is reported.
        by_base_name: whether base names alone tell its images apart.
    """

    name: str
    datasets: Sequence[Dataset]
    trials: Callable[[Sequence[EmbeddedSet], dict[str, str]], Mapping[str, Trials]]
    measure: Measure
    lists: Sequence[str] = ()
    average: bool = False
    by_base_name: bool = False


def evaluate(protocol: Protocol, config: EvaluateConfig, workspace: Workspace, report: Report) -> EvaluateResult:
    """Embed the data sets by each model, score, measure, compare and write.

    Raises:
        UsageError: an option has an impossible value.
        FacedanError: models or images are missing so that nothing can be measured.
    """
    # Cheap refusals come first: settings, data sets, models. Nothing is computed yet.
    config = resolve_evaluate(config)
    folders = [read_dataset(dataset.root).remembered_in(workspace.root) for dataset in protocol.datasets]
    check_folders(report, protocol.datasets, folders, labelled=not protocol.lists)
    models = find_models(config, workspace, report)
    external = read_rows(config, protocol.datasets, [model.name for model in models])
    rows: list[Model | ExternalEmbeddings] = [*models, *external]
    by_name = {model.name: model for model in models}
    misaligned = misalignments_of(by_name, protocol.datasets, folders, config, report)
    embedded, lacking = embed_rows(config, protocol, folders, models, external, workspace, report)
    missing: dict[str, str] = {}
    trials, scores = _score(protocol, rows, embedded, folders, missing)
    # The fusion is a row like the others: z-normalised scores of all models, summed, in the shape of each.
    if config.fuse:
        scores |= {FUSION: {name: fuse([by_part[name] for by_part in scores.values()]) for name in trials}}
    # Scores become rates with intervals. Replicates, shape (replicates,), of the same seed draw the same subjects for
    # every model: their differences are paired.
    results = [_measure(protocol, trials, by_part, config, name, by_name.get(name)) for name, by_part in scores.items()]
    # Warnings go with the rates into every output.
    warnings = lacking + remarks(trials) + seen_in_training(models, trials, workspace) + misaligned
    directory = result_directory(protocol.name, config, workspace, rows, folders, protocol.lists)
    if config.save_scores:
        save_scores(directory / "scores", trials, scores)
    result = EvaluateResult(
        protocol=protocol.name,
        directory=directory,
        models=results,
        differences=differences([(model.name, model.partitions) for model in results]),
        config=config,
        warnings=warnings,
        provenance=provenance_of(models, external, protocol.datasets, folders, config),
    )
    return finish(result, report, missing=missing, examples=_examples(trials, scores, results))


def misalignments_of(
    models: Mapping[str, Model],
    datasets: Sequence[Dataset],
    folders: Sequence[FaceDataset],
    config: EvaluateConfig,
    report: Report,
) -> list[str]:
    """Warnings about faces that are not aligned as the models expect them.

    Raises:
        FacedanError: with --strict in the place of a warning.
    """
    named = {dataset.name: folder for dataset, folder in zip(datasets, folders, strict=True)}
    return alignment_warnings(models, named, report, strict=config.strict) if models else []


def _score(
    protocol: Protocol,
    rows: Sequence[Model | ExternalEmbeddings],
    embedded: Mapping[str, Sequence[EmbeddedSet]],
    folders: Sequence[FaceDataset],
    missing: dict[str, str],
) -> tuple[Mapping[str, Trials], dict[str, dict[str, np.ndarray]]]:
    """The comparisons by partition, and their scores by row and partition; adds to `missing` as the protocol does."""
    # The comparisons depend on which images have features, never on the features: they are the same for every row.
    known = zip(embedded[rows[0].name], folders, contents_of_sets(folders), strict=True)
    trials = protocol.trials([one.with_contents(folder, contents) for one, folder, contents in known], missing)
    return trials, {
        row.name: {  # of shape (queries, targets), or (n,)
            name: part.score(embedded[row.name][0].vectors, embedded[row.name][-1].vectors, row.similarity)
            for name, part in trials.items()
        }
        for row in rows
    }


def embed_rows(
    config: EvaluateConfig,
    protocol: Protocol,
    folders: Sequence[FaceDataset],
    models: Sequence[Model],
    external: Sequence[ExternalEmbeddings],
    workspace: Workspace,
    report: Report,
    ranks: DistEnv = SINGLE,
) -> tuple[dict[str, list[EmbeddedSet]], list[str]]:
    """The features of each row by its name, all of the same images; features that the workspace has are taken.

    Args:
        config: settings of the features.
        protocol: names the data sets, one or two.
        folders: their images.
        models: the rows of models.
        external: the rows of embeddings.
        workspace: workspace of the features.
        report: receives notes and progress.
        ranks: the processes, which share the images without features.

    Returns:
        The features, and warnings about them and about images that some rows alone have features of.
    """
    rows: dict[str, list[EmbeddedSet]] = {}
    odd = [f"{one.name}: {warning}" for one in models for warning in one.warnings(config.layer, flip=config.flip)]
    for model in models:
        report.note(f"measuring {model.card.run} as '{model.name}' ({model})")
        rows[model.name] = [  # vectors of shape (images, d), memory-mapped
            embed_faces(config, dataset, folder, model, workspace, report, ranks)
            for dataset, folder in zip(protocol.datasets, folders, strict=True)
        ]
        if [one.paths for one in rows[model.name]] != [one.paths for one in rows[models[0].name]]:
            raise FacedanError(
                f"'{model.name}' has features of other images than '{models[0].name}'", "repeat it with --force"
            )
    for row in external:
        report.note(f"measuring the embeddings {row.path} as '{row.name}'")
        rows[row.name] = embed_externally(row, protocol.datasets, folders, report, by_base_name=protocol.by_base_name)
    common, lacking = of_common_images(rows)
    return common, odd + lacking


def finish(
    result: EvaluateResult,
    report: Report,
    *,
    missing: Mapping[str, str] | None = None,
    examples: Sequence[ErrorExample] = (),
    write: bool = True,
) -> EvaluateResult:
    """Finish an evaluation: report warnings, and write the list of images set aside, the page and the files.

    Args:
        result: the result of the evaluation.
        report: gets the warnings.
        missing: images of the protocol that could not be used, with the reasons.
        examples: errors to show on the page.
        write: false of all processes but the first.

    Returns:
        The result with its list of images set aside, and with a warning more where the curves could not be drawn.
    """
    for warning in result.warnings:
        report.warn(warning)
    list_of_missing = result.directory / "set-aside.tsv"
    result = replace(result, set_aside=list_of_missing if missing else None)
    if write:
        write_set_aside(list_of_missing, sorted((missing or {}).items()))
        result = write_evaluation(result, examples)
    return result


def check_folders(
    report: Report, datasets: Sequence[Dataset], folders: Sequence[FaceDataset], *, labelled: bool
) -> None:
    """Report other files in data sets.

    Args:
        report: receives these notes.
        datasets: the data sets of the evaluation.
        folders: their images.
        labelled: whether their folders name the subjects.

    Raises:
        FacedanError: folders should name the subjects but lie a level deeper.
    """
    for dataset, folder in zip(datasets, folders, strict=True):
        if folder.remark:
            report.note(folder.remark)
        if labelled:
            check_levels(dataset, folder)
            warn_of_levels(report, dataset, folder)


def result_directory(
    protocol: str,
    config: EvaluateConfig,
    workspace: Workspace,
    rows: Sequence[Model | ExternalEmbeddings],
    folders: Sequence[FaceDataset],
    lists: Sequence[str],
) -> Path:
    """The directory of the results, which is the same for the same evaluation."""
    settings = [
        *(config.far, config.fpir, config.convention, config.ci, config.replicates, config.seed),
        *(config.fuse, config.plot, config.layer, config.flip),
    ]
    inputs = [row.seen for row in rows if isinstance(row, Model) and row.seen]
    identity = digest(
        {
            "models": [row.sha256 for row in rows],
            "images": [folder.fingerprint for folder in folders],
            "lists": list(lists),
            "config": settings,
            **({"inputs": inputs} if inputs else {}),
        }
    )
    return workspace.result_directory(protocol, identity)


def provenance_of(
    models: Sequence[Model],
    external: Sequence[ExternalEmbeddings],
    datasets: Sequence[Dataset],
    folders: Sequence[FaceDataset],
    config: EvaluateConfig,
) -> dict[str, Any]:
    """Models, images and options of an evaluation, for its summary."""
    made = provenance() | {
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
    embeddings = {row.name: row.provenance() for row in external}
    inputs = {model.name: model.seen[0] for model in models if model.seen}
    return made | {key: value for key, value in (("embeddings", embeddings), ("inputs", inputs)) if value}


def _examples(trials: Mapping[str, Trials], scores: Scores, results: Sequence[ModelResult]) -> list[ErrorExample]:
    """Error examples of every model in every partition."""
    return [
        example
        for model in results
        for name, part in trials.items()
        for example in error_examples(model.name, name, part, scores[model.name][name], model.partitions[name])
    ]


def _measure(
    protocol: Protocol,
    trials: Mapping[str, Trials],
    scores: Mapping[str, np.ndarray],
    config: EvaluateConfig,
    name: str,
    model: Model | None,
) -> ModelResult:
    """The rates of one row; embeddings and the fusion have no model."""
    measured = {part: protocol.measure(trials[part], scores[part], config, part) for part in trials}
    means: tuple[float, ...] = ()
    if protocol.average:
        both = ([one.rates for one in measured.values()], [one.with_failures for one in measured.values()])
        means = tuple(float(np.mean([rate for one in rates for rate in one.values.values()])) for rates in both)
    run, checkpoint = (model.card.run, model.checkpoint) if model else (None, None)
    return ModelResult(name, run, checkpoint, measured, *means)
