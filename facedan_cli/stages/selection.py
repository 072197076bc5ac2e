"""Which λ, and which step? Chosen by labels of the source and by unlabelled target images, never by target labels.

Each λ is a run of its own that keeps its networks on the way. Of each network three things are measured:

- how well it knows target images again: one crop of each against another, perhaps mirrored, among those of all others.
  That asks for no name, and it rises where what varies between pictures of a person counts for less;
- how well it verifies the source's people whom no training saw, or else images that none saw;
- how far the target's features spread: where they have fallen together all faces look alike.

A network that has lost the source or whose features have fallen together is out. Of the others the one is taken that
knows target images best.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from facedan_cli.adaptation.diagnostics import effective_rank
from facedan_cli.config import AdaptConfig, determining, options
from facedan_cli.errors import FacedanError, UsageError
from facedan_cli.faces.batches import FaceImages, Stream
from facedan_cli.faces.folder import FaceFolder
from facedan_cli.metrics.roc import equal_error_rate
from facedan_cli.models.network import FaceNetwork
from facedan_cli.models.weights import load_checkpoint, save_checkpoint
from facedan_cli.report import SILENT, Report
from facedan_cli.runs import Run, plan_run, working
from facedan_cli.stages.adapt import AdaptJob, adapt, plan_adapt
from facedan_cli.stages.devices import choose_device, worker_count
from facedan_cli.stages.held_aside import features_of
from facedan_cli.stages.training_data import LEAST_SAMPLE, Source, TrainingResult, hold_aside, part_of
from facedan_cli.training.distributed import Ranks
from facedan_cli.workspace import Workspace, write_csv

NETWORKS_KEPT = 6
"""Of each run so many networks are compared, the last one among them."""

IMAGES = 256
"""Target images, at most, that are to be known again; and source images that are verified."""

SOURCE_LOSS = 0.02
"""A network may verify the source worse than the one before adaptation by so much equal error rate, no more."""

LEAST_SPREAD = 0.5
"""Its target features keep at least this share of the effective rank that they had before."""

_VIEWS_SEED = 4


@dataclass(frozen=True)
class Selection:
    """A choice among adaptations that has been looked into and not begun.

    Args:
        jobs: the adaptations, by λ.
        run: where the chosen network will lie.
    """

    jobs: Mapping[float, AdaptJob]
    run: Run


@dataclass(frozen=True)
class Candidate:
    """What was measured of a network.

    Args:
        strength: λ of its run.
        step: after which it was kept; 0 is the network before adaptation.
        checkpoint: its file.
        agreement: decidability of other crops of the same target image against those of others (`decidability`).
        source_error: equal error rate on source images that no training saw.
        spread: effective rank of the target's features.
    """

    strength: float
    step: int
    checkpoint: Path
    agreement: float
    source_error: float
    spread: float


def plan_selection(config: AdaptConfig, workspace: Workspace) -> Selection:
    """Check the configuration of all candidates; writes nothing.

    Raises:
        FacedanError: something that a run needs is missing or cannot be.
    """
    strengths = parse_strengths(config.strengths)
    jobs = {}
    for strength in strengths:
        job = plan_adapt(replace(config, lambda_=strength), workspace)
        every = max(1, int(job.config.iterations or 0) // NETWORKS_KEPT)
        kept = replace(job.config, checkpoint_every=every, keep_every=every)
        jobs[strength] = replace(job, config=kept, run=replace(job.run, config=options(kept)))
    first = jobs[strengths[0]]
    _to_verify(first.source, first.config.hold_aside)
    chosen = {"select": True, "strengths": ",".join(f"{strength:g}" for strength in strengths)}

    def of_all(values: Mapping[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in values.items() if key != "lambda"} | chosen

    run = plan_run(
        workspace,
        "adapt",
        [first.source.dataset.name, first.target.dataset.name],
        config=of_all(options(first.config)),
        determining=of_all(determining(first.config)),
        inputs=first.run.inputs,
    )
    return Selection(jobs, run)


def select(selection: Selection, *, force: bool = False, report: Report = SILENT) -> TrainingResult:
    """Train what is missing, measure what was kept, and put the best network into a run of its own.

    Raises:
        FacedanError: there are too few images to measure networks by.
    """
    run = selection.run
    if run.finished and not force:
        return TrainingResult(run, True, run.last_metrics, run.set_aside)
    set_aside = None
    for strength, job in selection.jobs.items():
        report.note(f"λ = {strength:g}: {job.run.name}")
        set_aside = adapt(job, force=force, report=report).set_aside or set_aside
    job = next(iter(selection.jobs.values()))
    if not Ranks.of(os.environ).first:  # the first process judges alone
        return TrainingResult(run, False, {}, None)
    device = choose_device(job.config.device)
    with working(run, force=force, device=str(device)), ThreadPoolExecutor(worker_count(job.config.workers)) as pool:
        before, *found = _measure(selection, job, pool, device, report)
        best = choose(before, found)
        network, card = load_checkpoint(best.checkpoint)
        config = dict(card.config) | {"step": best.step, "strengths": run.config["strengths"]}
        save_checkpoint(run.checkpoint, network, replace(card, run=run.name, config=config))
        _write(run.directory / "candidates.csv", before, found, best)
    taken = "the network before adaptation" if best is before else f"λ = {best.strength:g}, step {best.step}"
    report.note(f"chosen of {len(found)} networks: {taken}; {run.directory / 'candidates.csv'} says why")
    metrics = {"lambda": best.strength, "step": best.step, "agreement": best.agreement}
    return TrainingResult(run, False, metrics | {"source_error": best.source_error}, set_aside)


def choose(before: Candidate, found: Sequence[Candidate]) -> Candidate:
    """The network that knows target images best, of those that are not out; else the one before adaptation.

    Args:
        before: the network before adaptation.
        found: adapted networks; of equals the first is taken.
    """
    left = [candidate for candidate in found if not why_out(candidate, before)]
    return max(left, key=lambda candidate: candidate.agreement, default=before)


def why_out(candidate: Candidate, before: Candidate) -> str:
    """Why a network cannot be chosen; empty where it can."""
    if not np.isfinite([candidate.agreement, candidate.source_error, candidate.spread]).all():
        return "features that are no numbers"
    if candidate.spread < LEAST_SPREAD * before.spread:
        return "target features have fallen together"
    if candidate.source_error > before.source_error + SOURCE_LOSS:
        return "the source is lost"
    return ""


def decidability(scores: Tensor) -> float:
    """How far scores of the same image lie from those of different ones, in standard deviations (Daugman 2003).

    (μ_same − μ_different) / √((σ²_same + σ²_different)/2): below 0, different ones are more alike. Unlike an error rate
    it still tells networks apart that make no errors.

    Args:
        scores: similarity of one view of each image with another view of each, the same ones on the diagonal, (n, n).
    """
    scores = scores.double()
    same = scores.diagonal()
    different = scores[~torch.eye(len(scores), dtype=torch.bool, device=scores.device)]
    spread = ((same.var() + different.var()) / 2).sqrt()
    return float((same.mean() - different.mean()) / spread)


def parse_strengths(text: str) -> tuple[float, ...]:
    """The λ of "0.1,0.5,2", rising.

    Raises:
        UsageError: there are fewer than two, or one is no number from 0.
    """
    try:
        strengths = tuple(sorted({float(part) for part in text.split(",")}))
    except ValueError:
        strengths = ()
    if len(strengths) < 2 or not all(0 <= strength < float("inf") for strength in strengths):
        raise UsageError(f"--strengths cannot be '{text}'", "give at least two numbers from 0, as in 0.5,2,10")
    return strengths


def _measure(
    selection: Selection, job: AdaptJob, pool: ThreadPoolExecutor, device: torch.device, report: Report
) -> list[Candidate]:
    """The network before adaptation, and all that were kept."""
    kept = [(0.0, 0, job.init)]
    for strength, of in selection.jobs.items():
        steps = {int(path.stem.partition("-")[2]): path for path in of.run.checkpoint.parent.glob("step-*.safetensors")}
        steps[int(of.config.iterations or 0)] = of.run.checkpoint
        kept += [(strength, step, path) for step, path in sorted(steps.items())]
    size = load_checkpoint(job.init)[0].image_size
    people, names = _to_verify(job.source, job.config.hold_aside)
    if job.source.aside.paths == ():
        report.note("no people are held aside (pretrain --hold-people): the source is judged by images of known people")
    verified = FaceImages(people, size, pool, report)
    known = FaceImages(_to_know_again(job), size, pool, report)
    found = []
    with report.progress("comparing networks", len(kept), unit="networks") as advance:
        for strength, step, path in kept:
            network = load_checkpoint(path)[0].to(device)
            first, second = (_view(network, known, (job.config.seed, _VIEWS_SEED, view)) for view in (0, 1))
            found.append(
                Candidate(
                    strength,
                    step,
                    path,
                    decidability(first @ second.T),
                    _source_error(network, verified, names),
                    effective_rank(features_of(network, known)[network.layers[-1]]),
                )
            )
            advance(1, "")
    return found


def _to_verify(source: Source, most: int) -> tuple[FaceFolder, np.ndarray]:
    """Images of people held aside and their names; without such people, images held aside with one other of each."""
    folder = source.aside
    if len(folder) < LEAST_SAMPLE:
        kept, held = hold_aside(source.folder, most, labelled=True)
        names = list(kept.names)
        partners = [names.index(name) for name in held.names]
        paths = held.paths + tuple(kept.paths[row] for row in partners)
        folder = FaceFolder(source.folder.root, paths, held.names * 2)
    folder = part_of(folder, range(min(len(folder), 2 * IMAGES)))
    names_of = np.array(folder.names)
    if len(folder) < LEAST_SAMPLE or len(set(folder.names)) < 2:
        raise FacedanError(
            f"the source '{source.dataset.name}' has too few images held aside to judge networks by",
            "pretrain with --hold-people, or raise --hold-aside",
        )
    return folder, names_of


def _to_know_again(job: AdaptJob) -> FaceFolder:
    """Target images that no training saw; where they are few, others besides."""
    kept, held = hold_aside(job.target.folder, job.config.hold_aside, labelled=False)
    rows = np.linspace(0, len(kept) - 1, min(len(kept), max(0, IMAGES - len(held)))).astype(int)
    more = part_of(kept, sorted(set(rows.tolist())))
    return FaceFolder(held.root, held.paths + more.paths, held.names + more.names)


@torch.no_grad()
def _view(network: FaceNetwork, images: FaceImages, seed: tuple[int, ...]) -> Tensor:
    """Directions of the features of a random crop of each image, perhaps mirrored, (n, length)."""
    count = len(images.folder)
    stream = Stream(images, np.arange(count), 64, network.crop, seed)
    device = next(network.parameters()).device
    features, order = [], []
    for crops, numbers in stream.batches(0, -(-count // stream.batch), device):
        features.append(network(crops)[network.layers[-1]].float())
        order.append(numbers)
    numbers = torch.cat(order)[:count]  # an epoch: each image once
    return F.normalize(torch.cat(features)[:count][numbers.argsort()])


def _source_error(network: FaceNetwork, images: FaceImages, names: np.ndarray) -> float:
    rows = [row for row, path in enumerate(images.folder.paths) if path not in images.unreadable]
    features = F.normalize(features_of(network, images)[network.layers[-1]])
    scores = (features @ features.T).double().cpu().numpy()
    upper = np.triu(np.ones_like(scores, bool), 1)
    same = names[rows][:, None] == names[rows][None]
    error = equal_error_rate(scores[same & upper], scores[~same & upper])
    return (error.low + error.high) / 2


def _write(table: Path, before: Candidate, found: Sequence[Candidate], best: Candidate) -> None:
    header = ("lambda", "step", "agreement", "source_error", "spread", "chosen", "out", "checkpoint")
    rows = [
        (
            f"{candidate.strength:g}",
            candidate.step,
            f"{candidate.agreement:.4f}",
            f"{candidate.source_error:.4f}",
            f"{candidate.spread:.2f}",
            "yes" if candidate is best else "",
            "" if candidate is before else why_out(candidate, before),
            candidate.checkpoint,
        )
        for candidate in (before, *found)
    ]
    write_csv(table, header, rows)
