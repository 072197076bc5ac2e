"""The models of the paper's tables: their runs, and the training of missing ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from facedan_cli.config.fields import check_choice
from facedan_cli.config.methods import METHODS, methods_of
from facedan_cli.config.models import CLASSICAL, LBP, PCANET
from facedan_cli.config.networks import network_entry, network_settings
from facedan_cli.config.protocols import PROTOCOLS
from facedan_cli.config.table import TABLE_ROWS, TableConfig
from facedan_cli.config.training import AdaptConfig, PretrainConfig, of_stage, resolve
from facedan_cli.embedding.published import code_of, find_weights, import_weights
from facedan_cli.errors import UsageError
from facedan_cli.models.checkpoint import batch_norm_of
from facedan_cli.report import Report
from facedan_cli.runs import Run
from facedan_cli.training.adapt import adapt, plan_adapt
from facedan_cli.training.adapt_job import AdaptJob
from facedan_cli.training.datasets import TrainingResult, refuse_same
from facedan_cli.training.pcanet import PCANetJob
from facedan_cli.training.penalty_options import check_batch, resolve_penalty
from facedan_cli.training.pretrain import PretrainJob, plan_pretrain, pretrain
from facedan_cli.training.selection import Selection, plan_selection, select
from facedan_cli.training.target_list import read_target
from facedan_cli.workspace import Workspace

DANS: Mapping[str, tuple[int, bool]] = {
    "ddc": (1, False),
    "s7": (1, False),
    "s67": (1, True),
    "m7": (5, False),
    "m67": (5, True),
}
"""The paper's adaptations: number of kernels, and whether all layers are adapted or only the last.

One kernel on one layer is DDC (Tzeng et al. 2014), which the paper calls DAN_s7.
"""

Job = PretrainJob | PCANetJob | AdaptJob | Selection

ON_REQUEST = ("augmented", "adabn", "whiten", "ddc", "chosen")
"""Rows that are made only where they are asked for."""

OF_NO_SEED = (*CLASSICAL, "vgg")
"""Rows whose model is the same for every seed."""


@dataclass(frozen=True)
class Cell:
    """A run that the table needs.

    Args:
        row: key in `TABLE_ROWS`, or methods.
        seed: seed of its training.
        run: the run; None until the run that it starts from is finished.
    """

    row: str
    seed: int
    run: Run | None

    @property
    def state(self) -> str:
        """The state of the run: finished, to be resumed or to be run."""
        if self.run is None:
            return "to be run"
        return "finished" if self.run.finished else "to be resumed" if self.run.state.exists() else "to be run"


@dataclass(frozen=True)
class TableModel:
    """A trained or loaded model.

    Args:
        name: value for `evaluate --model`.
        run: run of the model; None for a model without training.
        set_aside: list of training images that could not be used; None if there are none.
    """

    name: str
    run: str | None = None
    set_aside: Path | None = None


def resolve_rows(asked: str | None, protocol: str, init: str | None, methods: str | None = None) -> tuple[str, ...]:
    """The rows of a table: the paper's in its order, then methods.

    Args:
        asked: a text such as "source,m67,mmd+whiten"; None: all possible rows of the paper.
        protocol: protocol of the table.
        init: the weights that stage 1 starts from, if any.
        methods: further rows, a text such as "whiten,mmd+whiten".

    Raises:
        UsageError: a row is unknown, or needs what is not there.
    """
    if asked is None:
        without = {*ON_REQUEST} | ({"vgg"} if init is None else set())
        without |= set() if PROTOCOLS[protocol].classical else set(CLASSICAL)
        named = [row for row in TABLE_ROWS if row not in without]
    else:
        named = [name.strip() for name in asked.split(",")]
    for name in named:
        if "+" not in name and name not in METHODS:
            check_choice("--rows", name, TABLE_ROWS)
    named += [] if methods is None else methods.split(",")
    named = [name if name in TABLE_ROWS else "+".join(methods_of(name)) for name in named]
    named = ["m67" if name == "mmd" else name for name in named]
    if {"ddc", "s7"} <= {*named}:
        raise UsageError("the rows ddc and s7 are one model", "leave one of them out")
    if "vgg" in named and init is None:
        raise UsageError("the row vgg is of the weights that --init names", "give --init, or leave the row out")
    if "fusion" in named and len(set(named) & set(DANS)) < 2:
        raise UsageError("the row fusion needs two adapted models at least", f"add some of {', '.join(DANS)}")
    joined = dict.fromkeys(name for name in named if name not in TABLE_ROWS)
    return (*(row for row in TABLE_ROWS if row in named), *joined)


def is_adapted(row: str) -> bool:
    """Whether a row is of a network that `adapt` makes."""
    return row in ("control", "augmented", "chosen", *DANS) or "+" in row or row in METHODS


def plan_table(config: TableConfig, workspace: Workspace) -> list[Cell]:
    """Plan the runs of a table, in the order of their training, without writing anything.

    Raises:
        UsageError: λ is 0, which the row control is already.
        FacedanError: an input of a run is missing, or an option is impossible.
    """
    _check(config, workspace)
    cells = []
    if PCANET in config.rows:
        cells.append(Cell(PCANET, config.seeds[0], plan_pretrain(_pcanet(config), workspace).run))
    for seed in config.seeds:
        for row, job in _jobs(config, seed, workspace):
            cells.append(Cell(row, seed, job.run))
            if row == "source" and not job.run.finished:
                cells += [Cell(later, seed, None) for later in _adapted(config)]
                break
    return cells


def train_table(config: TableConfig, workspace: Workspace, report: Report) -> dict[int, dict[str, TableModel]]:
    """Train the missing models.

    Returns:
        By seed the models of the rows, in order, but for the fusion, which is no model.

    Raises:
        FacedanError: something that a run needs is missing or cannot be, or the training was interrupted; what is
            finished until then is kept, and the same table goes on from there.
    """
    total = sum(cell.row != PCANET for cell in plan_table(config, workspace))
    fixed = dict(_of_no_seed(config, workspace, report))
    found: dict[int, dict[str, TableModel]] = {}
    done = 0
    for seed in config.seeds:
        models = dict(fixed)
        for row, job in _jobs(config, seed, workspace):
            done += 1
            report.note(f"{done} of {total}, {row}, seed {seed}: {_state(job.run)}")
            result = _carried_out(job, report)
            models[row] = TableModel(str(result.run.checkpoint), result.run.name, result.set_aside)
        found[seed] = {row: models[row] for row in config.rows if row in models}
    return found


def _jobs(config: TableConfig, seed: int, workspace: Workspace) -> Iterator[tuple[str, Job]]:
    """Yield the trainings of a seed in order; those after the first can be planned only when it is finished."""
    if not any(row == "source" or is_adapted(row) for row in config.rows):
        return
    first = plan_pretrain(replace(config.pretrain, seed=seed), workspace)
    yield "source", first
    for row in _adapted(config):
        stage_2 = replace(_stage_2(config, row), seed=seed, init=first.run.name)
        yield row, plan_selection(stage_2, workspace) if stage_2.select else plan_adapt(stage_2, workspace)


def _carried_out(job: Job, report: Report) -> TrainingResult:
    if isinstance(job, Selection):
        return select(job, report=report)
    return adapt(job, report=report) if isinstance(job, AdaptJob) else pretrain(job, report=report)


def _of_no_seed(config: TableConfig, workspace: Workspace, report: Report) -> Iterator[tuple[str, TableModel]]:
    if LBP in config.rows:
        yield LBP, TableModel(LBP)
    if PCANET in config.rows:
        job = plan_pretrain(_pcanet(config), workspace)
        report.note(f"{PCANET}: {_state(job.run)}")
        learnt = pretrain(job, report=report)
        yield PCANET, TableModel(str(learnt.run.checkpoint), learnt.run.name, learnt.set_aside)
    if "vgg" in config.rows:
        yield "vgg", TableModel(str(as_loaded(config.pretrain, workspace, report)))


def _state(run: Run) -> str:
    return f"{run.name} is finished already" if run.finished else f"{run.name} is trained"


def _adapted(config: TableConfig) -> list[str]:
    return [row for row in config.rows if is_adapted(row)]


def _pcanet(config: TableConfig) -> PretrainConfig:
    """The configuration of PCANet, learnt from target faces without labels, as its authors do with FERET."""
    like = config.pretrain
    return PretrainConfig(
        source=config.adapt.target, model=PCANET, seed=config.seeds[0], workers=like.workers, device=like.device
    )


def _stage_2(config: TableConfig, row: str) -> AdaptConfig:
    if row in METHODS or row not in TABLE_ROWS:
        return of_stage(config.adapt, row)
    adapt = of_stage(config.adapt, AdaptConfig.method)
    if row in ("control", "augmented"):
        return replace(adapt, lambda_=0.0, augment="all" if row == "augmented" else adapt.augment)
    if row == "chosen":
        return replace(adapt, select=True)
    (kernels, all_layers), layers = DANS[row], network_entry(config.pretrain.model).layers
    named = ",".join(layers if all_layers else layers[-1:])
    return replace(adapt, kernels=kernels, bandwidth_multipliers=None, layers=named)


def _check(config: TableConfig, workspace: Workspace) -> None:
    """Raise an error at once for settings that would fail after stage 1, hours later."""
    if config.adapt.lambda_ == 0:
        raise UsageError("with --lambda 0 every row would be the control", "give a positive λ; the paper's is 0.5")
    if (config.evaluate.flip or config.evaluate.layer) and set(CLASSICAL) & set(config.rows):
        raise UsageError(
            "flip and layer in [evaluate] mean nothing for lbp and pcanet", "leave the rows out with --rows"
        )
    network_entry(config.pretrain.model)
    if any("adabn" in row.split("+") for row in config.rows):
        code_of(config.pretrain.model)
        if not batch_norm_of(config.pretrain.model, network_settings(config.pretrain))[0]:
            raise UsageError(
                f"adabn needs batch normalisation, and {config.pretrain.model} has none", "leave its row out"
            )
    target = read_target(config.adapt.target, workspace)
    if _adapted(config):
        refuse_same(workspace.dataset(config.pretrain.source), target.dataset)
    for row in _adapted(config):
        adapted, network = _stage_2(config, row), network_entry(config.pretrain.model)
        resolve_penalty(adapted, network)
        check_batch(resolve(adapted, network.adapt, head=adapted.head or config.pretrain.head))


def as_loaded(config: PretrainConfig, workspace: Workspace, report: Report) -> Path:
    """The checkpoint of a network with its published weights.

    Raises:
        FacedanError: there are no such weights, or they do not fit the network.
    """
    assert config.init is not None
    path = find_weights(config.init, network_entry(config.model), workspace)
    return import_weights(path, config.model, workspace, channels=config.channels, report=report)
