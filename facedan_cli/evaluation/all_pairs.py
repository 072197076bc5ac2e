"""Verification of whole data sets: every image with every other, in memory or, where they are too many, in a stream."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from facedan_cli.config.common import EvaluateConfig
from facedan_cli.data.dataset import FaceDataset, read_dataset
from facedan_cli.data.same_images import contents_of_images
from facedan_cli.devices import resolve_device
from facedan_cli.distributed import DistEnv
from facedan_cli.embedding.alignment import alignment_warnings
from facedan_cli.embedding.similarity import COSINE
from facedan_cli.errors import FacedanError, UsageError
from facedan_cli.evaluation.evaluate import Protocol, describe, evaluate, result_directory, settled, tell_of_folders
from facedan_cli.evaluation.models import Faces, Model, embed_faces, find_models
from facedan_cli.evaluation.protocols import measure_partition, of_people
from facedan_cli.evaluation.remarks import remarks
from facedan_cli.evaluation.report import write_evaluation
from facedan_cli.evaluation.result import EvaluateResult, Measured
from facedan_cli.evaluation.training_overlap import seen_in_training
from facedan_cli.evaluation.trials import Trials, all_pairs_trials, crossing_failures
from facedan_cli.evaluation.verification import OURS, Verification, streamed_figures
from facedan_cli.metrics.streaming import verification_streamed
from facedan_cli.report import SILENT, Report
from facedan_cli.workspace import Dataset, Workspace, write_set_aside

MOST_IN_MEMORY = 10_000_000
"""More comparisons are streamed; fewer are kept, for intervals over people, fusion and pictures of the worst errors."""


def evaluate_verify(
    config: EvaluateConfig,
    workspace: Workspace,
    query: Dataset,
    target: Dataset,
    *,
    most: int = MOST_IN_MEMORY,
    report: Report = SILENT,
) -> EvaluateResult:
    """Every image of one data set with every image of another, or each pair of one data set's images once.

    Folders of people tell who is who. More than `most` comparisons are streamed, as all are under torchrun, whose
    processes share them: the rates are the same, the intervals Wilson's.

    Args:
        config: the models and how they are measured.
        workspace: where features and results lie.
        query: one data set.
        target: the other, or the same.
        most: comparisons that are kept in memory.
        report: told of the progress.

    Raises:
        UsageError: what is asked for needs all scores in memory.
        FacedanError: there are no genuine or no impostor comparisons.
    """
    config, ranks = settled(config), DistEnv.of(os.environ)
    symmetric = query.root.resolve() == target.root.resolve()
    datasets = [query] if symmetric else [query, target]
    sizes = [len(read_dataset(dataset.root)) for dataset in datasets]
    comparisons = sizes[0] * (sizes[0] - 1) // 2 if symmetric else sizes[0] * sizes[1]
    if ranks.count == 1 and comparisons <= most:

        def trials(faces: Sequence[Faces], absent: dict[str, str]) -> dict[str, Trials]:
            return {"all": _trials(faces, absent)}

        return evaluate(Protocol("verify", datasets, trials, measure_partition), config, workspace, report)
    if config.fuse or config.save_scores or config.convention != OURS:
        raise UsageError(
            f"{comparisons} comparisons are streamed: --fuse, --save-scores and other conventions need all scores",
            f"compare fewer than {most}, in one process",
        )
    if config.ci == "bootstrap":
        report.note(
            f"{comparisons} comparisons are streamed: the intervals are Wilson's, which take comparisons of one person "
            "to be independent and are too narrow"
        )
        config = replace(config, ci="wilson")
    return _stream(config, workspace, datasets, ranks, report if ranks.first else SILENT)


def _trials(faces: Sequence[Faces], absent: dict[str, str]) -> Trials:
    sides = [of_people(side, absent) for side in faces]
    symmetric = len(sides) == 1
    query, target = sides[0], sides[-1]
    failures = crossing_failures(
        query.people, target.people, query.there, target.there, len(absent), symmetric=symmetric
    )
    failures = replace(failures, nobodys=sum(side.nobodys for side in sides))
    return all_pairs_trials(query.side, target.side, failures, symmetric=symmetric)


def _stream(
    config: EvaluateConfig, workspace: Workspace, datasets: Sequence[Dataset], ranks: DistEnv, report: Report
) -> EvaluateResult:
    folders = [read_dataset(dataset.root).remembered_in(workspace.root) for dataset in datasets]
    tell_of_folders(report, datasets, folders, people=True)
    models = find_models(config, workspace)
    for model in models:
        if model.similarity is not COSINE:
            raise UsageError(
                f"so many comparisons are streamed, which '{model.name}' cannot be: its similarity is no inner product",
                "leave it out, or compare fewer images, in one process",
            )
    absent: dict[str, str] = {}
    measured = []
    trials: dict[str, Trials] = {}
    known = [(folder, contents_of_images(folder)) for folder in folders]
    with ranks.joined():
        for model in models:
            report.note(f"measuring {model.card.run} as '{model.name}' ({model})")
            faces = _embedded(config, datasets, folders, model, workspace, ranks, report)
            trials = {"all": _trials([side.knowing(*of) for side, of in zip(faces, known, strict=True)], absent)}
            figure = _measure(trials["all"], faces, config, ranks, report)
            measured.append(Measured(model.name, model.card.run, model.checkpoint, {"all": figure}))
        ranks.gather([])
    directory = result_directory("verify", config, workspace, models, folders, [])
    named = {dataset.name: folder for dataset, folder in zip(datasets, folders, strict=True)}
    warnings = remarks(trials) + seen_in_training(models, trials, workspace)
    warnings += alignment_warnings({model.name: model for model in models}, named)
    set_aside = directory / "set-aside.tsv" if absent else None
    result = EvaluateResult(
        protocol="verify",
        directory=directory,
        models=measured,
        differences=[],
        config=config,
        warnings=warnings,
        provenance=describe(models, datasets, folders, config),
        set_aside=set_aside,
    )
    if ranks.first:
        for warning in warnings:
            report.warn(warning)
        write_set_aside(directory / "set-aside.tsv", sorted(absent.items()))
        result = write_evaluation(result)
    return result


def _embedded(
    config: EvaluateConfig,
    datasets: Sequence[Dataset],
    folders: Sequence[FaceDataset],
    model: Model,
    workspace: Workspace,
    ranks: DistEnv,
    report: Report,
) -> list[Faces]:
    """The features of the data sets; the processes share the images that have none yet."""
    return [
        embed_faces(config, dataset, folder, model, workspace, report, ranks)
        for dataset, folder in zip(datasets, folders, strict=True)
    ]


def _measure(
    trials: Trials, faces: Sequence[Faces], config: EvaluateConfig, ranks: DistEnv, report: Report
) -> Verification:
    query, target, _ = trials.codes
    pairs = len(query) * (len(query) - 1) // 2 if trials.symmetric else len(query) * len(target)
    # Both passes of all processes: this one tells of its share as if it were everything.
    with report.progress("comparing", 2 * pairs // ranks.count, unit="comparisons") as advance:
        try:
            found = verification_streamed(
                _rows(faces[0].vectors, trials.query.rows),
                _rows(faces[-1].vectors, trials.target.rows),
                query,
                target,
                config.far,
                contents=_contents(trials),
                failed=len(trials.failures.genuine),
                once=trials.symmetric,
                device=ranks.device(resolve_device(config.device)),
                advance=lambda count: advance(count, ""),
            )
        except ValueError as error:
            raise FacedanError(
                f"the data sets cannot be compared: {error}", "check that folders name people"
            ) from error
    return streamed_figures(found, trials.failures, trials.left_out, config)


def _contents(trials: Trials) -> tuple[np.ndarray, np.ndarray] | None:
    """By what images that would meet themselves are known; None where there are none, which costs less."""
    if not trials.left_out or trials.query.contents is None or trials.target.contents is None:
        return None
    return trials.query.contents, trials.target.contents


def _rows(vectors: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """The features of some images; of all of them, as they lie in their file."""
    return vectors if len(rows) == len(vectors) else vectors[rows]
