"""Selection of λ and step by labels of the source and by target images, without labels of the target.

Each λ is a run that keeps its networks on the way; `candidates` measures and compares them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from facedan_cli.config.common import hashed_options, options
from facedan_cli.config.training import LAMBDAS_ON_DISK, AdaptConfig
from facedan_cli.devices import resolve_device, worker_count
from facedan_cli.distributed import DistEnv
from facedan_cli.errors import UsageError
from facedan_cli.models.checkpoint import load_checkpoint, save_checkpoint
from facedan_cli.report import SILENT, Report
from facedan_cli.run_plan import plan_run
from facedan_cli.runs import Run, running
from facedan_cli.training.adapt import adapt, plan_adapt
from facedan_cli.training.adapt_job import AdaptJob
from facedan_cli.training.candidates import Candidate, Scorer, choose, images_to_verify, rejection_reason
from facedan_cli.training.datasets import METHOD, TrainingResult, found_finished
from facedan_cli.workspace import Workspace, write_csv

NETWORKS_KEPT = 6
"""Number of networks of each run that are compared, including the last."""


@dataclass(frozen=True)
class Selection:
    """A checked and planned selection among adaptations.

    Args:
        jobs: the adaptations, by λ.
        run: run of the chosen network.
    """

    jobs: Mapping[float, AdaptJob]
    run: Run


def plan_selection(config: AdaptConfig, workspace: Workspace, report: Report = SILENT) -> Selection:
    """Plan a selection: check all candidates' configurations without writing anything.

    Raises:
        FacedanError: an input is missing, or an option cannot be.
    """
    lambdas = parse_lambdas(config.lambdas)
    jobs = {}
    for lambda_ in lambdas:
        job = plan_adapt(replace(config, lambda_=lambda_), workspace, report)
        every = max(1, int(job.config.iterations or 0) // NETWORKS_KEPT)
        kept = replace(job.config, checkpoint_every=every, keep_every=every)
        jobs[lambda_] = replace(job, config=kept, run=replace(job.run, config=options(kept)))
    first = jobs[lambdas[0]]
    images_to_verify(first.source, first.config.holdout)
    tried = ",".join(f"{lambda_:g}" for lambda_ in lambdas)

    def of_all(values: Mapping[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in values.items() if key != "lambda"} | {"select": True}

    run = plan_run(
        workspace,
        "adapt",
        [first.source.dataset.name, first.target.dataset.name],
        config=of_all(options(first.config)) | {"lambdas": tried},
        hashed_options=of_all(hashed_options(first.config)) | {LAMBDAS_ON_DISK: tried, "method": METHOD},
        inputs=first.run.inputs,
        images={"source": first.source.folder, "target": first.target.folder},
    )
    return Selection(jobs, run)


def select(selection: Selection, *, force: bool = False, report: Report = SILENT) -> TrainingResult:
    """Train missing candidates, measure the kept networks, and save the best one as a run of its own.

    Raises:
        FacedanError: there are too few images to compare networks by.
    """
    run = selection.run
    first = next(iter(selection.jobs.values()))
    folders = [first.source.folder, first.target.folder]
    if finished := found_finished(run, folders, force=force, report=report):
        return finished
    set_aside = None
    for lambda_, job in selection.jobs.items():
        report.note(f"λ = {lambda_:g}: {job.run.name}")
        set_aside = adapt(job, force=force, report=report).set_aside or set_aside
    if not DistEnv.of(os.environ).first:  # the first process compares alone
        return TrainingResult(run, False, {}, None)
    device = resolve_device(first.config.device)
    with running(run, force=force, device=str(device)), ThreadPoolExecutor(worker_count(first.config.workers)) as pool:
        before, *found = _measured(selection, first, pool, device, report)
        best = choose(before, found)
        network, card = load_checkpoint(best.checkpoint)
        config = dict(card.config) | {"step": best.step, LAMBDAS_ON_DISK: run.config["lambdas"]}
        save_checkpoint(run.checkpoint, network, replace(card, run=run.name, config=config))
        _write(run.directory / "candidates.csv", before, found, best)
    taken = "the network before adaptation" if best is before else f"λ = {best.lambda_:g}, step {best.step}"
    report.note(f"chosen of {len(found)} networks: {taken}; {run.directory / 'candidates.csv'} says why")
    metrics = {"lambda": best.lambda_, "step": best.step, "agreement": best.agreement}
    return TrainingResult(run, False, metrics | {"source_error": best.source_error}, set_aside)


def parse_lambdas(text: str) -> tuple[float, ...]:
    """The values of λ in a text such as "0.1,0.5,2", rising.

    Raises:
        UsageError: there are fewer than two, or one is no number from 0.
    """
    try:
        lambdas = tuple(sorted({float(part) for part in text.split(",")}))
    except ValueError:
        lambdas = ()
    if len(lambdas) < 2 or not all(0 <= lambda_ < float("inf") for lambda_ in lambdas):
        raise UsageError(f"--lambdas cannot be '{text}'", "give at least two numbers from 0, as in 0.5,2,10")
    return lambdas


def _measured(
    selection: Selection, job: AdaptJob, pool: ThreadPoolExecutor, device: torch.device, report: Report
) -> list[Candidate]:
    """The measurements of the network before adaptation and of all kept networks."""
    kept = [(0.0, 0, job.init)]
    for lambda_, of in selection.jobs.items():
        steps = {int(path.stem.partition("-")[2]): path for path in of.run.checkpoint.parent.glob("step-*.safetensors")}
        steps[int(of.config.iterations or 0)] = of.run.checkpoint
        kept += [(lambda_, step, path) for step, path in sorted(steps.items())]
    if not job.source.held_out.paths:
        report.note(
            "no identities are held out (pretrain --holdout-identities): the source error is that of trained identities"
        )
    scorer = Scorer(job, pool, device, report)
    found = []
    with report.progress("comparing networks", len(kept), unit="networks") as advance:
        for lambda_, step, path in kept:
            found.append(scorer.candidate(lambda_, step, path))
            advance(1, "")
    return found


def _write(table: Path, before: Candidate, found: Sequence[Candidate], best: Candidate) -> None:
    header = ("lambda", "step", "agreement", "source_error", "spread", "chosen", "out", "checkpoint")
    rows = [
        (
            f"{candidate.lambda_:g}",
            candidate.step,
            f"{candidate.agreement:.4f}",
            f"{candidate.source_error:.4f}",
            f"{candidate.spread:.2f}",
            "yes" if candidate is best else "",
            "" if candidate is before else rejection_reason(candidate, before),
            candidate.checkpoint,
        )
        for candidate in (before, *found)
    ]
    write_csv(table, header, rows)
