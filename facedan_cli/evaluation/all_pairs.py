"""Verification of whole data sets: every image with every other, in memory or, if there are too many, streamed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from facedan_cli.config.common import EvaluateConfig
from facedan_cli.data.dataset import read_dataset
from facedan_cli.data.same_images import contents_of_sets
from facedan_cli.devices import resolve_device
from facedan_cli.distributed import DistEnv
from facedan_cli.embedding.similarity import COSINE
from facedan_cli.errors import FacedanError, UsageError
from facedan_cli.evaluation.evaluate import (
    Protocol,
    check_folders,
    embed_rows,
    evaluate,
    finish,
    misalignments_of,
    provenance_of,
    result_directory,
)
from facedan_cli.evaluation.external_embeddings import ExternalEmbeddings, read_rows
from facedan_cli.evaluation.failures import all_pairs_failures
from facedan_cli.evaluation.image_sets import labelled_images, measure_verification
from facedan_cli.evaluation.models import EmbeddedSet, Model, find_models
from facedan_cli.evaluation.remarks import remarks
from facedan_cli.evaluation.result import EvaluateResult, ModelResult
from facedan_cli.evaluation.settings import resolve_evaluate, without_bootstrap
from facedan_cli.evaluation.training_overlap import seen_in_training
from facedan_cli.evaluation.trials import Trials, all_pairs_trials
from facedan_cli.evaluation.verification import OURS, Verification, streamed_verification
from facedan_cli.metrics.streaming import verification_streamed
from facedan_cli.report import SILENT, Report
from facedan_cli.workspace import Dataset, Workspace

MOST_IN_MEMORY = 10_000_000
"""Most comparisons in memory, where intervals over subjects, fusion and error examples need them; more are streamed."""


def evaluate_verify(
    config: EvaluateConfig,
    workspace: Workspace,
    query: Dataset,
    target: Dataset | None = None,
    *,
    report: Report = SILENT,
) -> EvaluateResult:
    """Verify every image of one data set with every image of another, or each pair of one data set's images once.

    Folders name the subjects. More than MOST_IN_MEMORY comparisons are streamed, as all are under torchrun, whose
    processes share them: the rates are the same, the intervals Wilson's.

    Args:
        config: the models and the settings of their measurement.
        workspace: workspace of features and results.
        query: one data set.
        target: the other; by default the same.
        report: receives notes and progress.

    Raises:
        UsageError: an option needs all scores in memory.
        FacedanError: there are no genuine or no impostor comparisons.
    """
    config, ranks = resolve_evaluate(config), DistEnv.of(os.environ)
    target = target or query
    symmetric = query.root.resolve() == target.root.resolve()
    datasets = [query] if symmetric else [query, target]
    sizes = [len(read_dataset(dataset.root)) for dataset in datasets]
    comparisons = sizes[0] * (sizes[0] - 1) // 2 if symmetric else sizes[0] * sizes[1]
    protocol = Protocol("verify", datasets, _trials, measure_verification)
    if ranks.count == 1 and comparisons <= MOST_IN_MEMORY:
        return evaluate(protocol, config, workspace, report)
    if config.fuse or config.save_scores or config.convention != OURS:
        raise UsageError(
            f"{comparisons} comparisons are streamed: --fuse, --save-scores and other conventions need all scores",
            f"compare fewer than {MOST_IN_MEMORY}, in one process",
        )
    config = without_bootstrap(config, f"{comparisons} comparisons are streamed", report)
    return _stream(protocol, config, workspace, ranks, report if ranks.first else SILENT)


def _trials(embedded: Sequence[EmbeddedSet], missing: dict[str, str]) -> dict[str, Trials]:
    sides = [labelled_images(one, missing) for one in embedded]
    symmetric = len(sides) == 1
    query, target = sides[0], sides[-1]
    failures = all_pairs_failures(
        query.subjects,
        target.subjects,
        query.acquired,
        target.acquired,
        len(missing),
        symmetric=symmetric,
        lost=(query.lost, target.lost),
    )
    failures = replace(failures, unlabelled=sum(side.unlabelled for side in sides))
    return {"all": all_pairs_trials(query.images, target.images, failures, symmetric=symmetric)}


def _stream(
    protocol: Protocol, config: EvaluateConfig, workspace: Workspace, ranks: DistEnv, report: Report
) -> EvaluateResult:
    datasets = protocol.datasets
    folders = [read_dataset(dataset.root).remembered_in(workspace.root) for dataset in datasets]
    check_folders(report, datasets, folders, labelled=True)
    models = find_models(config, workspace, report)
    external = read_rows(config, datasets, [model.name for model in models])
    rows: list[Model | ExternalEmbeddings] = [*models, *external]
    for row in rows:
        if row.similarity is not COSINE:
            raise UsageError(
                f"so many comparisons are streamed, which needs an inner product; '{row.name}' has none",
                "leave it out, or compare fewer images, in one process",
            )
    missing: dict[str, str] = {}
    results = []
    by_name = {model.name: model for model in models}
    misaligned = misalignments_of(by_name, datasets, folders, config, report)
    with ranks.joined():
        by_row, lacking = embed_rows(config, protocol, folders, models, external, workspace, report, ranks)
        known = zip(next(iter(by_row.values())), folders, contents_of_sets(folders), strict=True)
        trials = protocol.trials([one.with_contents(folder, contents) for one, folder, contents in known], missing)
        for name, embedded in by_row.items():
            measured = _measure(trials["all"], embedded, config, ranks, report)
            model = by_name.get(name)
            run, checkpoint = (model.card.run, model.checkpoint) if model else (None, None)
            results.append(ModelResult(name, run, checkpoint, {"all": measured}))
        ranks.gather([])
    warnings = lacking + remarks(trials) + seen_in_training(models, trials, workspace) + misaligned
    result = EvaluateResult(
        protocol="verify",
        directory=result_directory("verify", config, workspace, rows, folders, []),
        models=results,
        differences=[],
        config=config,
        warnings=warnings,
        provenance=provenance_of(models, external, datasets, folders, config),
    )
    return finish(result, report, missing=missing, write=ranks.first)


def _measure(
    trials: Trials, embedded: Sequence[EmbeddedSet], config: EvaluateConfig, ranks: DistEnv, report: Report
) -> Verification:
    query, target, _ = trials.codes
    pairs = len(query) * (len(query) - 1) // 2 if trials.symmetric else len(query) * len(target)
    # Two passes over the share of this process, which reports it as if it were everything.
    with report.progress("comparing", 2 * pairs // ranks.count, unit="comparisons") as advance:
        try:
            found = verification_streamed(
                _rows(embedded[0].vectors, trials.query.rows),
                _rows(embedded[-1].vectors, trials.target.rows),
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
                f"the data sets cannot be compared: {error}", "check that folders name subjects"
            ) from error
    return streamed_verification(found, trials.failures, trials.left_out, config)


def _contents(trials: Trials) -> tuple[np.ndarray, np.ndarray] | None:
    """The contents of both sides, by which images compared with themselves are found; None if no image is on both."""
    if not trials.left_out or trials.query.contents is None or trials.target.contents is None:
        return None
    return trials.query.contents, trials.target.contents


def _rows(vectors: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """The features of some images; all features are returned without a copy."""
    return vectors if len(rows) == len(vectors) else vectors[rows]
