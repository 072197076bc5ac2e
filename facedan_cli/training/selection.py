"""Selection among methods of adaptation and their strengths, without labels of the target (`adapt --select`).

Each training is an ordinary run of `adapt`. `criterion` measures the networks, with and without whitening, and
`candidates` chooses. The network as it is always competes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from facedan_cli.config.common import hashed_options, options
from facedan_cli.config.training import CANDIDATES, LAMBDAS_ON_DISK, AdaptConfig
from facedan_cli.devices import resolve_device, worker_count
from facedan_cli.errors import FacedanError, UsageError, did_you_mean
from facedan_cli.models.checkpoint import batch_norm_of, load_checkpoint, save_checkpoint
from facedan_cli.report import SILENT, Report
from facedan_cli.run_plan import plan_run
from facedan_cli.runs import Run, running
from facedan_cli.training.adapt import adapt, plan_adapt
from facedan_cli.training.adapt_job import AdaptJob
from facedan_cli.training.budget import Budget
from facedan_cli.training.candidates import KEEP, Candidate, Choice, checked, choose, interval
from facedan_cli.training.criterion import Criterion, images_to_verify
from facedan_cli.training.datasets import METHOD, TrainingResult, found_finished
from facedan_cli.training.whiten import ENOUGH_PEOPLE
from facedan_cli.workspace import Workspace, write_csv, write_text

CRITERION = 2
"""Version of the choice, part of the name of its run; the first chose λ and step by agreement."""

ADABN_MIX, WHITEN_POWER = 0.5, AdaptConfig.whiten_power
"""Strengths of the methods without training."""


@dataclass(frozen=True)
class Selection:
    """A checked and planned selection.

    Args:
        config: as given.
        methods: names of `CANDIDATES` that compete.
        keep: the adaptation whose initial network is the one to keep.
        jobs: the trainings, by the candidate's name, in the order in which they are made.
        run: run of the chosen network.
    """

    config: AdaptConfig
    methods: tuple[str, ...]
    keep: AdaptJob
    jobs: Mapping[str, AdaptJob]
    run: Run


def plan_selection(config: AdaptConfig, workspace: Workspace, report: Report = SILENT) -> Selection:
    """Plan a selection: check all candidates' configurations without writing anything.

    Raises:
        FacedanError: an input is missing, or an option cannot be.
    """
    if config.method != AdaptConfig.method:  # it would be part of every training, under the name of another
        raise UsageError(f"--select means nothing for --method {config.method}", "name methods by --candidates")
    lambdas = parse_lambdas(config.lambdas)
    keep = plan_adapt(config, workspace, report)
    held_out = keep.config.holdout_identities
    methods = parse_candidates(config.candidates, batch_norm=bool(batch_norm_of(keep.card.model, keep.card.network)[0]))
    Budget(config.budget)
    images_to_verify(keep.source, keep.config.holdout)
    asked = {"restyle": replace(config, method="restyle")} if "restyle" in methods else {}
    if "mmd" in methods:
        asked |= {f"mmd λ={lambda_:g}": replace(config, lambda_=lambda_) for lambda_ in lambdas}
    jobs = {
        name: plan_adapt(replace(one, holdout_identities=held_out), workspace, report) for name, one in asked.items()
    }
    tried = {LAMBDAS_ON_DISK: config.lambdas, "candidates": ",".join(methods), "budget": config.budget or ""}

    def of_all(values: Mapping[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in values.items() if key != "lambda"} | {"select": True}

    run = plan_run(
        workspace,
        "adapt",
        [keep.source.dataset.name, keep.target.dataset.name],
        config=of_all(options(keep.config)) | {"lambdas": config.lambdas, "candidates": tried["candidates"]},
        hashed_options=of_all(hashed_options(keep.config)) | tried | {"criterion": CRITERION, "method": METHOD},
        inputs=keep.run.inputs,
        images={"source": keep.source.folder, "target": keep.target.folder},
    )
    return Selection(config, methods, keep, jobs, run)


def select(selection: Selection, *, force: bool = False, report: Report = SILENT) -> TrainingResult:
    """Train within the budget, measure all candidates, and save the chosen network as a run of its own.

    Raises:
        FacedanError: there are too few images to compare networks by.
    """
    run, keep = selection.run, selection.keep
    folders = [keep.source.folder, keep.target.folder]
    if finished := found_finished(run, folders, force=force, report=report):
        return finished
    budget, left_out, set_aside = Budget(selection.config.budget), [], None
    trained = {}
    for name, job in selection.jobs.items():
        if not job.run.finished and not budget.allows(job):
            left_out.append(name)
            continue
        report.note(f"{name}: {job.run.name}")
        with budget.spending(job):
            set_aside = adapt(job, force=force, report=report).set_aside or set_aside
        trained[name] = job
    if left_out:
        report.warn(f"--budget {selection.config.budget} left out: {', '.join(left_out)}")
    device = resolve_device(keep.config.device)
    with running(run, force=force, device=str(device)), ThreadPoolExecutor(worker_count(keep.config.workers)) as pool:
        criterion = Criterion(keep, pool, device, report)
        with report.progress("comparing networks", 2 + len(trained), unit="networks") as advance:
            found = []
            for candidates in _measured(selection, trained, criterion, device):
                found += candidates
                advance(1, "")
        facts: dict[str, Any] = {"identities": criterion.identities, "people": criterion.people}
        found = [checked(candidate, found[0], **facts) for candidate in found]
        choice, checkpoint, found = _made(selection, trained, found, criterion, report)
        network, card = load_checkpoint(checkpoint)
        settings = dict(card.config) | {"candidate": choice.chosen.name, LAMBDAS_ON_DISK: selection.config.lambdas}
        save_checkpoint(run.checkpoint, network, replace(card, run=run.name, config=settings))
        _write(run.directory / "candidates.csv", found, left_out, choice)
        tell(choice, criterion, keep, report)
        metrics = _metrics(choice, criterion)
        write_text(run.log, json.dumps(metrics) + "\n")
    report.note(f"{run.directory / 'candidates.csv'} has all {len(found)} candidates")
    return TrainingResult(run, False, metrics, set_aside)


def parse_lambdas(text: str) -> tuple[float, ...]:
    """The values of λ in a text such as "0.1,0.5,2", rising.

    Raises:
        UsageError: there is none, or one is no number from 0.
    """
    try:
        lambdas = tuple(sorted({float(part) for part in text.split(",")}))
    except ValueError:
        lambdas = ()
    if not lambdas or not all(0 <= lambda_ < float("inf") for lambda_ in lambdas):
        raise UsageError(f"--lambdas cannot be '{text}'", "give numbers from 0, as in 0.5,2,10")
    return lambdas


def parse_candidates(text: str, *, batch_norm: bool) -> tuple[str, ...]:
    """The methods in a text such as "whiten,mmd", in the order of `CANDIDATES`; "all": all that the network can.

    Args:
        text: the value of --candidates.
        batch_norm: whether the network has batch normalisation.

    Raises:
        UsageError: one is unknown, or the network cannot do it.
    """
    if text == "all":
        return tuple(name for name in CANDIDATES if batch_norm or name != "adabn")
    asked = [name.strip() for name in text.split(",")]
    for name in asked:
        if name not in CANDIDATES:
            raise UsageError(f"--candidates does not know '{name}'", did_you_mean(name, (*CANDIDATES, "all")))
    if "adabn" in asked and not batch_norm:
        raise UsageError("--candidates adabn needs a network with batch normalisation", "leave adabn out")
    return tuple(name for name in CANDIDATES if name in asked)


def _measured(
    selection: Selection, trained: Mapping[str, AdaptJob], criterion: Criterion, device: torch.device
) -> Iterator[list[Candidate]]:
    """Yield the candidates of each network; the first is the network as it is."""
    methods = selection.methods
    whitened = (WHITEN_POWER,) if "whiten" in methods else ()
    centred = (0.0,) if "centre" in methods else ()

    def network(checkpoint: Path) -> Any:
        return load_checkpoint(checkpoint)[0].to(device)

    init = selection.keep.init
    yield list(criterion.candidates(network(init), KEEP, KEEP, (None, *centred, *whitened)))
    if "adabn" in methods:
        adapted = criterion.adabn(network(init), ADABN_MIX)
        yield list(criterion.candidates(adapted, "adabn", "adabn", (None, *whitened)))
    for index, (name, job) in enumerate(trained.items()):
        order = index / len(trained)
        yield list(criterion.candidates(network(job.run.checkpoint), name, "trained", (None, *whitened), order))


def _made(
    selection: Selection,
    trained: Mapping[str, AdaptJob],
    found: Sequence[Candidate],
    criterion: Criterion,
    report: Report,
) -> tuple[Choice, Path, list[Candidate]]:
    """The choice, the checkpoint of the chosen network, and the candidates: what cannot be made is rejected."""
    found = list(found)
    while True:
        choice = choose(found, criterion.identities, criterion.people)
        chosen = choice.chosen
        if chosen.name == KEEP:
            return choice, selection.keep.init, found
        if chosen.power is None and chosen.network in trained:
            return choice, trained[chosen.network].run.checkpoint, found
        config = _config_of(selection, trained, chosen)
        try:
            made = adapt(plan_adapt(config, selection.keep.workspace, report), report=report)
        except FacedanError as error:
            found[found.index(chosen)] = replace(chosen, rejected=str(error))
            continue
        return choice, made.run.checkpoint, found


def _config_of(selection: Selection, trained: Mapping[str, AdaptJob], chosen: Candidate) -> AdaptConfig:
    """The configuration of `adapt` that makes a candidate."""
    below = trained.get(chosen.network)
    config = replace(below.config if below else selection.config, select=False)
    stages = [config.method] if below else ["adabn"] if chosen.network == "adabn" else []
    stages += [] if chosen.power is None else ["whiten"]
    values: dict[str, Any] = {"method": "+".join(stages)}
    values |= {} if chosen.power is None else {"whiten_power": chosen.power}
    values |= {"adabn_mix": ADABN_MIX} if chosen.network == "adabn" else {}
    values |= {} if below else {"holdout_identities": None}
    return replace(config, **values)


def tell(choice: Choice, criterion: Criterion, job: AdaptJob, report: Report) -> None:
    """Say what was chosen, by what, and how sure it is."""
    chosen, best, keep = choice.chosen, choice.best, choice.keep
    low, high = (100 * end for end in choice.interval)
    looks = f"in the looks of '{job.target.dataset.name}'"
    where = f"VR at FAR {criterion.far} on {criterion.identities} source identities {looks}"
    if chosen is keep:
        report.note(f"chosen: {KEEP}, the network as it is ({where}: {100 * keep.rate:.1f} %)")
        if best is keep:
            report.note("no candidate was better: adaptation is not worth its change here, by this criterion")
        else:
            gain = 100 * (best.rate - keep.rate)
            report.note(
                f"not sure: {best.name} has {gain:+.1f} points [{low:.1f}, {high:.1f}], within its bootstrap error"
            )
    else:
        report.note(
            f"chosen: {chosen.name} ({where}: {100 * chosen.rate:.1f} %, as it is {100 * keep.rate:.1f} %: "
            f"{100 * choice.gain:+.1f} points [{low:.1f}, {high:.1f}])"
        )
        if chosen is choice.default:
            report.note(f"nothing beats {chosen.name}, the default with {ENOUGH_PEOPLE} people or more, by its error")
        elif best is not chosen:
            report.note(f"{best.name} has {100 * best.rate:.1f} %, a tie: what changes less is taken")
        report.note("sure: the interval excludes 0" if choice.sure else "not sure: the interval includes 0")
    report.note("the criterion sees light, colour and resolution; it does not see age, pose or who the people are")
    if criterion.known_identities:
        report.warn(
            "no identities are held out: the networks know those that the choice is measured on, and it is less sure; "
            "pretrain with --holdout-identities"
        )


def _metrics(choice: Choice, criterion: Criterion) -> dict[str, Any]:
    return {
        "candidate": choice.chosen.name,
        "vr": round(choice.chosen.rate, 6),
        "vr_keep": round(choice.keep.rate, 6),
        "interval": [round(end, 6) for end in choice.interval],
        "far": criterion.far,
        "identities": criterion.identities,
        "sure": choice.sure,
        "known_identities": criterion.known_identities,
        "people": None if criterion.people is None else round(criterion.people),
    }


def _write(table: Path, found: Sequence[Candidate], left_out: Sequence[str], choice: Choice) -> None:
    header = ("candidate", "vr", "difference", "low", "high", "spread", "chosen", "out")
    rows: list[tuple[str, ...]] = []
    for one in sorted(found, key=lambda candidate: candidate.change):
        measured = [one.rate, one.rate - choice.keep.rate, *interval(one, choice.keep, choice.identities)]
        rows.append(
            (
                one.name,
                *(f"{value:.4f}" for value in measured),
                f"{one.spread:.2f}",
                "yes" if one is choice.chosen else "",
                one.rejected,
            )
        )
    rows += [(name, "", "", "", "", "", "", "beyond the budget") for name in left_out]
    write_csv(table, header, rows)
