"""Filling of the paper's tables: train missing models, measure every model, collect the rates."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from facedan_cli.config.common import EvaluateConfig
from facedan_cli.config.networks import network_entry
from facedan_cli.config.table import TableConfig
from facedan_cli.data.dataset import read_dataset
from facedan_cli.embedding.alignment import alignment_warnings, template_name
from facedan_cli.embedding.model import FaceModel
from facedan_cli.errors import FacedanError
from facedan_cli.evaluation.differences import Difference, Measurement, differences
from facedan_cli.evaluation.external_embeddings import read_rows
from facedan_cli.evaluation.models import find_models
from facedan_cli.evaluation.result import EvaluateResult, ModelResult
from facedan_cli.evaluation.settings import resolve_evaluate
from facedan_cli.evaluation.verification import Verification
from facedan_cli.models.checkpoint import ModelCard
from facedan_cli.report import SILENT, Report
from facedan_cli.runs import provenance
from facedan_cli.table.formats import write_table
from facedan_cli.table.reported import Reported
from facedan_cli.table.result import Key, PairedDifference, SeedSummary, TableResult, TableRow
from facedan_cli.table.runs import DANS, OF_NO_SEED, TableModel, is_adapted, train_table
from facedan_cli.training.target_list import read_target
from facedan_cli.workspace import Dataset, Workspace, digest, read_set_aside, sha256_file, write_set_aside

REFERENCES = ("source", "control", "augmented")
"""The reference rows, with which the others are compared."""


@dataclass(frozen=True)
class TableProtocol:
    """The protocol that measures the models of a table.

    Args:
        name: name of the row in `config.protocols`.
        measure: measures the models of a configuration.
        reported: the paper's table of this protocol; None without one.
        datasets: data sets of its images.
    """

    name: str
    measure: Callable[[EvaluateConfig, Report], EvaluateResult]
    reported: Reported | None = None
    datasets: Sequence[Dataset] = ()


@dataclass(frozen=True)
class _SeedResult:
    """The results of one seed's models.

    Args:
        rows: results by row.
        differences: references, rows and their differences.
        results: directories of the evaluations.
        verifies: whether the protocol is verification; else it is identification.
        set_aside: images of the protocol that could not be used.
        warnings: warnings about the rates.
    """

    rows: Mapping[str, ModelResult]
    differences: Sequence[tuple[str, str, Difference]]
    results: Sequence[Path]
    verifies: bool
    set_aside: Mapping[str, str]
    warnings: Sequence[str]


def fill_table(
    config: TableConfig, workspace: Workspace, protocol: TableProtocol, *, report: Report = SILENT
) -> TableResult:
    """Train missing models, measure all, and write the table.

    Each row's models are ordinary runs of the workspace: those that are finished are taken as they are, an interrupted
    one goes on, and the table can be asked for again at any time.

    Args:
        config: rows and seeds; how models are trained and measured.
        workspace: workspace of runs, features and results.
        protocol: protocol of the measurement.
        report: receives notes and progress.

    Raises:
        UsageError: an option has an impossible value.
        FacedanError: something is missing, or a training was interrupted.
    """
    config = replace(config, evaluate=resolve_evaluate(config.evaluate))
    _check_alignment(config, workspace, protocol)
    if _further(config):  # what is missing is said before any training
        models_alone = find_models(replace(config.evaluate, fuse=False), workspace)
        read_rows(config.evaluate, protocol.datasets, [model.name for model in models_alone])
    models = train_table(config, workspace, report)
    measured = {seed: _measure(config, protocol, of_seed, report) for seed, of_seed in models.items()}
    identity = {
        "rows": config.rows,
        "seeds": config.seeds,
        "models": {seed: [_digest(model) for model in of_seed.values()] for seed, of_seed in models.items()},
        "results": {seed: [path.name for path in found.results] for seed, found in measured.items()},
    }
    directory = workspace.result_directory(f"table-{protocol.name}", digest(identity))
    set_aside = {path: why for found in measured.values() for path, why in found.set_aside.items()}
    for model in (model for of_seed in models.values() for model in of_seed.values()):
        set_aside |= read_set_aside(model.set_aside)
    result = TableResult(
        protocol=protocol.name,
        directory=directory,
        config=config,
        verifies=next(iter(measured.values())).verifies,
        rows=[_row(row, config, protocol.reported, models, measured) for row in (*config.rows, *_further(config))],
        differences=list(_differences(config, measured)),
        reported=protocol.reported,
        evaluations={seed: list(found.results) for seed, found in measured.items()},
        provenance=provenance(),
        set_aside=write_set_aside(directory / "set-aside.tsv", sorted(set_aside.items())),
        warnings=list(dict.fromkeys(warning for found in measured.values() for warning in found.warnings)),
    )
    write_table(result)
    return result


def _check_alignment(config: TableConfig, workspace: Workspace, protocol: TableProtocol) -> None:
    """Raise errors of --strict before any training, instead of hours later.

    Raises:
        FacedanError: naming the command that mends it.
    """
    if not config.evaluate.strict:
        return
    learnt = template_name(workspace.dataset(config.pretrain.source).root) or ""
    cards = {
        row: ModelCard(config.pretrain.model, (), stage, row, {}, template=template)
        for row, stage, template in (("vgg", "weights", None), ("source", "pretrain", learnt))
        if row in config.rows or (row == "source" and {*config.rows} - {*OF_NO_SEED})
    }
    models = {row: FaceModel(card, Path(config.pretrain.model)) for row, card in cards.items()}
    trained_on = [read_target(config.adapt.target, workspace).dataset] if "source" in cards else []
    sets = {dataset.name: read_dataset(dataset.root) for dataset in (*protocol.datasets, *trained_on)}
    if models:
        alignment_warnings(models, sets, strict=True)


def _further(config: TableConfig) -> tuple[str, ...]:
    """The keys of the rows of --also and --embeddings, as they are given."""
    return (*config.evaluate.model, *config.evaluate.embeddings)


def _digest(model: TableModel) -> str:
    path = Path(model.name)
    return sha256_file(path) if path.is_file() else model.name


def _measure(
    config: TableConfig, protocol: TableProtocol, models: Mapping[str, TableModel], report: Report
) -> _SeedResult:
    """Measure one seed's models in one evaluation, and the fusion of the adapted ones in a second."""
    names = {row: model.name for row, model in models.items()}
    every = (*names.values(), *config.evaluate.model)
    whole = protocol.measure(replace(config.evaluate, model=every, fuse=False), report)
    keys = [*names, *_further(config)]
    if len(keys) != len(whole.models):
        raise FacedanError("a further row of --also or --embeddings is in the table already", "leave it out")
    rows = dict(zip(keys, whole.models, strict=True))
    results, set_aside = [whole.directory], read_set_aside(whole.set_aside)
    if "fusion" in config.rows:
        adapted = tuple(name for row, name in names.items() if row in DANS)
        fused = protocol.measure(replace(config.evaluate, model=adapted, embeddings=(), fuse=True), SILENT)
        rows["fusion"] = fused.models[-1]
        results.append(fused.directory)
    compared = [
        (reference, row, found)
        for reference in REFERENCES
        for row in rows
        if reference in rows and (is_adapted(row) or row in ("fusion", *_further(config))) and row != reference
        for found in differences([(reference, rows[reference].partitions), (row, rows[row].partitions)])
    ]
    return _SeedResult(rows, compared, results, whole.verifies, set_aside, whole.warnings)


def _row(
    row: str,
    config: TableConfig,
    reported: Reported | None,
    models: Mapping[int, Mapping[str, TableModel]],
    measured: Mapping[int, _SeedResult],
) -> TableRow:
    trained = {seed: of_seed[row].run for seed, of_seed in models.items() if row in of_seed}
    runs = {seed: run for seed, run in trained.items() if run is not None}
    by_seed = [found.rows[row] for found in measured.values()]
    alone = row in (*OF_NO_SEED, *_further(config)) and len(config.seeds) > 1
    if alone:  # an interval over subjects would pass for the range of seeds of the other rows
        by_seed = by_seed[:1]
    keys = [(name, at) for name, measured in by_seed[0].partitions.items() for at in measured.rates.values]
    summaries: dict[Key, SeedSummary] = {}
    for name, at in keys:
        rates = [model.partitions[name].rates for model in by_seed]
        summaries[name, at] = SeedSummary(
            tuple(rate.values[at] for rate in rates),
            tuple(None if alone else rate.intervals.get(at) for rate in rates),
            all(_resolved(model.partitions[name], at) for model in by_seed),
        )
    means = [model.mean for model in by_seed if model.mean is not None]
    if means:
        summaries["mean", "1"] = SeedSummary(tuple(means), (None,) * len(means))
    family = network_entry(config.pretrain.model).family
    names = {"vgg": family, "source": f"{family}-source", "fusion": "fusion", "ddc": "DDC"}
    name = names.get(row, by_seed[0].name)
    return TableRow(row, name, runs, summaries, reported.rates(row) if reported else {})


def _resolved(measured: Measurement, at: str) -> bool:
    return not isinstance(measured, Verification) or measured.points[at].resolved


def _differences(config: TableConfig, measured: Mapping[int, _SeedResult]) -> Iterator[PairedDifference]:
    """The differences of the rows to the references, over the seeds."""
    by_seed = [{(ref, row, d.partition, d.at): d for ref, row, d in m.differences} for m in measured.values()]
    for place, first in by_seed[0].items():
        reference, row, partition, at = place
        found = [of_seed[place] for of_seed in by_seed]
        spread = SeedSummary(tuple(d.value for d in found), tuple(d.interval for d in found))
        yield PairedDifference(
            row, reference, partition, at, first.measure, spread, tuple(d.distinguishable for d in found)
        )
