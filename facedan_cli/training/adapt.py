"""Stage 2: adapt a pretrained network to unlabelled target faces."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from facedan_cli.adaptation.kernels import median_bandwidth
from facedan_cli.adaptation.penalty import Penalty
from facedan_cli.config.common import hashed_options, options
from facedan_cli.config.discrepancies import DISCREPANCIES
from facedan_cli.config.models import CLASSICAL, NETWORKS
from facedan_cli.config.training import AdaptConfig
from facedan_cli.data.batches import BatchStream
from facedan_cli.data.same_images import keep_images
from facedan_cli.distributed import DistEnv
from facedan_cli.embedding.alignment import template_name
from facedan_cli.embedding.model import find_model
from facedan_cli.errors import FacedanError, UsageError
from facedan_cli.figures.domains import plot_domains
from facedan_cli.json_files import read_object, tell_odd
from facedan_cli.models.checkpoint import ModelCard, load_checkpoint, read_card
from facedan_cli.models.network import FaceNetwork
from facedan_cli.models.networks import build
from facedan_cli.models.pretrained.state_dict import open_safetensors
from facedan_cli.report import SILENT, Report
from facedan_cli.run_plan import plan_run
from facedan_cli.runs import Run, checkpoint_of, newest_run
from facedan_cli.training.classification import load_classifier
from facedan_cli.training.datasets import (
    BANDWIDTH_SEED,
    LEAST_SAMPLE,
    METHOD,
    SOURCE_SEED,
    TARGET_SEED,
    Source,
    TrainingResult,
    describe,
    found_finished,
    going_on,
    hold_out,
    is_of_images,
    read_source,
    refuse_same,
    refuse_shared,
    tell_of_inputs,
    warn_of_alignment,
    warn_of_changes,
    write_unusable,
)
from facedan_cli.training.domain_test import DomainTest, tell
from facedan_cli.training.held_out import HeldOut, features_of, readable
from facedan_cli.training.loop import DomainBatches, Validation
from facedan_cli.training.penalty_options import parse_bandwidth
from facedan_cli.training.resolve import check_processes, resolve_adapt
from facedan_cli.training.session import Session, training_plan, training_session
from facedan_cli.training.step import DTYPES, Features
from facedan_cli.training.target_list import Target, read_target
from facedan_cli.workspace import Dataset, Workspace, sha256_file, write_json

BANDWIDTH_SAMPLE = 512
"""Images of each domain whose distances give the frozen bandwidth."""


@dataclass(frozen=True)
class AdaptJob:
    """An adaptation that has been looked into and not begun."""

    config: AdaptConfig
    source: Source
    target: Target
    init: Path
    card: ModelCard
    layers: Mapping[str, float]
    bandwidth_multipliers: tuple[float, ...]
    run: Run
    caches: Path
    shared: int

    @property
    def seed(self) -> int:
        """Of all that is random in the training: none of it is drawn as for the network that it starts from."""
        return going_on("adapt", self.config.seed, self.run.inputs["init"]["sha256"])


def plan_adapt(config: AdaptConfig, workspace: Workspace) -> AdaptJob:
    """Check a configuration and its inputs; writes nothing.

    Raises:
        FacedanError: something that the run needs is missing or cannot be.
    """
    dataset = workspace.dataset(config.source)
    init = find_init(config, workspace, dataset)
    card = read_card(init)
    config, layers, bandwidth_multipliers = resolve_adapt(config, card, init)
    source = read_source(dataset, config.holdout_identities or 0, workspace.root)
    target = read_target(config.target, workspace)
    refuse_same(source.dataset, target.dataset)
    shared = refuse_shared(source.folder, target.folder)
    check_processes(config, len(source.identities))
    run = plan_run(
        workspace,
        "adapt",
        [source.dataset.name, target.dataset.name],
        config=options(config),
        hashed_options=hashed_options(config) | {"method": METHOD},
        inputs={
            "source": describe(source.dataset, source.folder),
            "target": target.describe(),
            "init": {"path": str(init.resolve()), "run": card.run, "sha256": sha256_file(init)},
        },
        images={"source": source.folder, "target": target.folder},
    )
    return AdaptJob(
        config, source, target, init, card, layers, bandwidth_multipliers, run, workspace.root / "cache", shared
    )


def adapt(job: AdaptJob, *, force: bool = False, report: Report = SILENT) -> TrainingResult:
    """Train what was planned; a finished run is left as it is, an interrupted one is continued."""
    config, run = job.config, job.run
    if found := found_finished(run, [job.source.folder, job.target.folder], force=force, report=report):
        return found
    with training_session(config, run, job.caches, force=force, report=report) as work:
        warn_of_alignment(work.report, job.source.dataset, job.target.dataset)
        tell_of_inputs(work.report, job.source, job.target.folder)
        if job.shared:
            work.report.warn(f"{job.shared} images of the target are in the source too, with labels: leave them out")
        torch.manual_seed(job.seed)
        network = _start(job, work).to(work.device)
        source, source_held = hold_out(job.source.folder, config.holdout, labelled=True)
        target, target_held = hold_out(job.target.folder, config.holdout, labelled=False)
        if work.ranks.first:
            keep_images(run.directory, {"source": source, "target": target})
        sources = work.images(job.source.folder, network.image_size)
        targets = work.images(job.target.folder, network.image_size)
        labels, batch = job.source.labels_of(source), training_plan(config).batch

        def streams(*seed: int, rows: range | None = None) -> tuple[BatchStream, BatchStream]:
            return (
                BatchStream(sources.part(source), labels, batch, network.crop, (job.seed, SOURCE_SEED, *seed), rows),
                BatchStream(targets.part(target), None, batch, network.crop, (job.seed, TARGET_SEED, *seed), rows),
            )

        penalty = _penalty(job, _bandwidths(job, network, work.ranks, *streams(BANDWIDTH_SEED)))
        aside = HeldOut(
            network, sources.part(source_held), job.source.labels_of(source_held), targets.part(target_held)
        )
        metrics = work.train(
            network,
            DomainBatches(*streams(rows=work.rows(batch)), penalty),
            ModelCard(
                job.card.model,
                job.source.identities,
                run.stage,
                run.name,
                hashed_options(config),
                job.card.init,
                template_name(job.source.dataset.root),
            ),
            Validation(
                ends=DomainTest(aside, tuple(job.layers), job.bandwidth_multipliers, config.seed),
                loss=lambda: aside.loss(penalty),
            ),
            job.seed,
        )
        unreadable = work.unusable(sources, targets)
        lost = job.source.unlabelled, job.source.folder.skipped + job.target.folder.skipped
        set_aside = write_unusable(run, unreadable, *lost) if work.ranks.first else None
        tell(run.log, work.report)
        if work.ranks.first:
            warn_of_changes(work.report, job.source.folder, job.target.folder)
            _draw_domains(job, aside, work)
    return TrainingResult(run, False, metrics, set_aside)


def _draw_domains(job: AdaptJob, aside: HeldOut, work: Session) -> None:
    """The features of images held aside, by the network before and by the one after, in the run's domains.png."""
    images = (aside.source, aside.target)
    if any(domain is None or len(readable(domain)) < LEAST_SAMPLE for domain in images):
        return

    def features(network: FaceNetwork) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        found = [features_of(network, domain) for domain in images if domain is not None]
        return {layer: (found[0][layer].cpu().numpy(), found[1][layer].cpu().numpy()) for layer in job.layers}

    before, _ = load_checkpoint(job.init)
    try:
        plot_domains(features(before.to(work.device)), features(aside.network), job.run.directory / "domains.png")
    except Exception as error:  # a picture that cannot be drawn costs no training
        work.report.warn(f"the domains could not be drawn: {error}")


def find_init(config: AdaptConfig, workspace: Workspace, source: Dataset) -> Path:
    """The checkpoint that adaptation starts from: --init, else the newest finished pretraining on the source.

    Raises:
        UsageError: it has nothing to adapt.
        FacedanError: there is none.
    """
    if config.init is not None:
        named = find_model(workspace, config.init)
        if named.classical:
            raise UsageError(
                f"--init {config.init} is {CLASSICAL[named.card.model]}, which has no layers to adapt",
                "name the run of a network",
            )
        return named.file
    newest = newest_run(workspace, "pretrain", source.name, NETWORKS)
    newest = newest or newest_run(workspace, "pretrain", is_of_images(source, workspace), NETWORKS)
    if newest is None:
        raise FacedanError(
            f"there is no finished pretraining on '{source.name}' in this workspace",
            f"run `facedan pretrain --source {config.source}` first, or name a model with --init",
        )
    return checkpoint_of(newest)


def _start(job: AdaptJob, work: Session) -> FaceNetwork:
    """The network of the initial checkpoint; its classifier serves on where the people and the head are the same."""
    card, people = job.card, job.source.identities
    work.report.note(f"starting from {card.run} ({job.init})")
    network = build(card.model, len(people), **work.head(len(people)))
    with open_safetensors(job.init) as file:
        body = {key: file.get_tensor(key) for key in sorted(file.keys()) if not key.startswith("classifier.")}
        classifier = {key: value for key, value in network.state_dict().items() if key.startswith("classifier.")}
        try:
            network.load_state_dict(body | classifier)
        except RuntimeError as error:
            raise FacedanError(
                f"{job.init} holds other tensors than {card.model} of this version has", "pretrain it again"
            ) from error
        if card.identities != people:
            work.report.warn(
                f"{card.run} was trained on other people than '{job.source.dataset.name}' has: "
                "the classifier starts afresh"
            )
        elif card.head.get("head", "softmax") != job.config.head:
            work.report.note(f"the classifier starts afresh, as {job.config.head}")
        else:
            load_classifier(network.classifier, file, "classifier.")
    return network


def _penalty(job: AdaptJob, bandwidths: Mapping[str, float] | None) -> Penalty:
    config = job.config
    return Penalty(
        lambda_=config.lambda_,
        layers=job.layers,
        discrepancy=config.discrepancy,
        bandwidth_multipliers=job.bandwidth_multipliers,
        kernel_weights=config.kernel_weights,
        estimator=config.estimator,
        bandwidths=bandwidths,
        running=config.bandwidth == "ema",
        median=config.median,
        memory_bank=config.memory_bank,
        ramp=config.lambda_ramp,
    )


def _bandwidths(
    job: AdaptJob, network: FaceNetwork, ranks: DistEnv, source: BatchStream, target: BatchStream
) -> Mapping[str, float] | None:
    """γ of each layer before training, kept in the run for when it resumes; None where each batch has its own."""
    fixed = parse_bandwidth(job.config.bandwidth)
    if fixed is not None:
        return dict.fromkeys(job.layers, fixed)
    if job.config.bandwidth == "batch" or not DISCREPANCIES[job.config.discrepancy].kernels:
        return None
    kept = job.run.directory / "bandwidths.json"
    if job.run.state.exists() and kept.exists():
        try:
            found = read_object(kept)
            return {layer: _positive(found.get(layer)) for layer in job.layers}
        except ValueError as error:  # measured again: the network is still the initial one
            tell_odd(kept, error)
    of_source, of_target = _sample_features(job, network, source, target)
    reading = job.config.median
    try:
        bandwidths = {layer: median_bandwidth(of_source[layer], of_target[layer], reading) for layer in job.layers}
    except ValueError as error:
        raise FacedanError(f"no bandwidth: {error}", f"the model {job.init} is of no use; pretrain another") from error
    if ranks.first:
        write_json(kept, bandwidths)
    return bandwidths


def _positive(value: object) -> float:
    if not isinstance(value, int | float) or not 0 < value < float("inf"):
        raise ValueError(f"{value!r} is no bandwidth")
    return float(value)


@torch.no_grad()
def _sample_features(
    job: AdaptJob, network: FaceNetwork, source: BatchStream, target: BatchStream
) -> tuple[Features, Features]:
    """Features of both domains as the penalty will see them: with dropout, by which they lie farther apart."""
    device, dtype = next(network.parameters()).device, DTYPES[job.config.precision]
    network.train()
    found = []
    for step in range(-(-BANDWIDTH_SAMPLE // source.batch)):
        torch.manual_seed(int(np.random.SeedSequence((job.seed, BANDWIDTH_SEED, step)).generate_state(1)[0]))
        images = torch.cat([source[step][0], target[step][0]]).to(device)
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            found.append({layer: rows.float() for layer, rows in network(images).items()})

    def of(part: slice) -> Features:
        return {layer: torch.cat([features[layer][part] for features in found]) for layer in network.layers}

    return of(slice(source.batch)), of(slice(source.batch, None))
