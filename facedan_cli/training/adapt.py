"""Stage 2: adapt a pretrained network to unlabelled target faces."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from facedan_cli.adaptation.penalty import Penalty
from facedan_cli.config.common import hashed_options, options
from facedan_cli.config.methods import stages_of, trains
from facedan_cli.config.models import CLASSICAL
from facedan_cli.config.networks import is_network, network_settings
from facedan_cli.config.training import AdaptConfig, of_stage
from facedan_cli.data.batches import BatchStream
from facedan_cli.data.same_images import keep_images
from facedan_cli.embedding.alignment import refuse_misaligned, template_name, training_misalignments
from facedan_cli.embedding.model import check_settings, find_model
from facedan_cli.errors import FacedanError, UsageError
from facedan_cli.models.checkpoint import ModelCard, load_checkpoint, read_card
from facedan_cli.models.network import FaceNetwork
from facedan_cli.models.networks import build
from facedan_cli.models.pretrained.state_dict import open_safetensors
from facedan_cli.models.whitening import PREFIX, is_whitened, left_out
from facedan_cli.report import SILENT, Report
from facedan_cli.run_plan import plan_run
from facedan_cli.runs import checkpoint_of, newest_run
from facedan_cli.training.adabn import adapt_statistics, use_target_statistics
from facedan_cli.training.adapt_job import AdaptJob, expected_by
from facedan_cli.training.bandwidths import initial_bandwidths
from facedan_cli.training.changes import restyling, source_change
from facedan_cli.training.class_means import FROM_MEANS, set_class_means, starts_from_means
from facedan_cli.training.classification import load_classifier
from facedan_cli.training.datasets import (
    BANDWIDTH_SEED,
    METHOD,
    SOURCE_SEED,
    TARGET_SEED,
    TrainingResult,
    describe,
    found_finished,
    hold_out,
    is_of_images,
    read_source,
    refuse_same,
    refuse_shared,
    warn_of_changes,
    write_unusable,
)
from facedan_cli.training.domain_test import DomainTest, Ends, draw_domains, tell
from facedan_cli.training.held_out import HeldOut
from facedan_cli.training.keep import Keep
from facedan_cli.training.loop import DomainBatches, Validation
from facedan_cli.training.resolve import check_method, check_processes, of_method, resolve_adapt
from facedan_cli.training.session import Session, training_plan, training_session
from facedan_cli.training.target_list import read_target
from facedan_cli.training.whiten import whiten
from facedan_cli.workspace import Dataset, Workspace, sha256_file


def plan_adapt(config: AdaptConfig, workspace: Workspace, report: Report = SILENT) -> AdaptJob:
    """Plan an adaptation: check configuration and inputs; only the checkpoint of imported weights is written.

    Raises:
        FacedanError: an input is missing, or an option cannot be.
    """
    stage, *later = stages_of(config.method)
    then = of_stage(config, "+".join(later)) if later else None
    dataset = workspace.dataset(config.source)
    init = find_init(config, workspace, dataset, report)
    card = read_card(init)
    check_method(config, card)
    config, layers, bandwidth_multipliers = resolve_adapt(of_stage(config, stage), card, init)
    least_kept = 5 if card.stage == "weights" else 10
    source = read_source(dataset, config.holdout_identities or 0, workspace.root, least_kept=least_kept)
    target = read_target(config.target, workspace)
    refuse_same(source.dataset, target.dataset)
    shared = refuse_shared(source.folder, target.folder)
    check_processes(config, len(source.identities))
    refuse_misaligned(training_misalignments(expected_by(card, init), [source.dataset, target.dataset]), config.strict)
    run = plan_run(
        workspace,
        "adapt",
        [source.dataset.name, target.dataset.name],
        config=of_method(options(config), config.method),
        hashed_options=of_method(_hashed(config), config.method),
        inputs={
            "source": describe(source.dataset, source.folder),
            "target": target.describe(),
            "init": {"path": str(init.resolve()), "run": card.run, "sha256": sha256_file(init)},
        },
        images={"source": source.folder, "target": target.folder},
    )
    return AdaptJob(config, source, target, init, card, layers, bandwidth_multipliers, run, workspace, shared, then)


def _hashed(config: AdaptConfig) -> dict[str, Any]:
    """The options that determine the result of a stage; that of a training also by the version of `METHOD`."""
    hashed = hashed_options(config)
    if trains(config.method):
        hashed = {"methods" if key == "method" else key: value for key, value in hashed.items()} | {"method": METHOD}
    return hashed


def adapt(job: AdaptJob, *, force: bool = False, report: Report = SILENT) -> TrainingResult:
    """Carry out a planned adaptation; a finished run is kept, an interrupted one is resumed.

    Further stages of its method, such as whiten in mmd+whiten, are runs of their own that start from it.

    Returns:
        The result of the last stage.
    """
    result = found_finished(job.run, [job.source.folder, job.target.folder], force=force, report=report)
    if result is None:
        carry_out = {"adabn": adapt_statistics, "whiten": whiten}.get(job.config.method, _train)
        result = carry_out(job, force=force, report=report)
    if job.then is None:
        return result
    report.note(f"{job.run.name} is done; {job.then.method} starts from it")
    following = plan_adapt(replace(job.then, init=job.run.name), job.workspace, report)
    last = adapt(following, force=force, report=report)
    return replace(last, set_aside=last.set_aside or result.set_aside)


def _train(job: AdaptJob, *, force: bool, report: Report) -> TrainingResult:
    config, run = job.config, job.run
    with training_session(config, run, job.caches, force=force, report=report) as session:
        job.tell_of_inputs(session.report)
        torch.manual_seed(job.seed)
        network = _initial_network(job, session).to(session.device)
        network.normalise_by(config.batch_norm or "frozen")
        if config.train_from is not None:
            network.train_from(config.train_from)

        # The images: those to train on, and those held out to measure on.
        source, source_held_out = hold_out(job.source.folder, config.holdout, labelled=True)
        target, target_held_out = hold_out(job.target.folder, config.holdout, labelled=False)
        if session.ranks.first:
            keep_images(run.directory, {"source": source, "target": target})
        sources = session.images(job.source.folder, network.image_size, job.card.entry.template)
        targets = session.images(job.target.folder, network.image_size, job.card.entry.template)
        labels, batch = job.source.labels_of(source), training_plan(config).batch
        if not job.keeps_classifier and starts_from_means(network, config.head) and not run.state.exists():
            set_class_means(network, sources.part(source), labels)
            session.report.note(FROM_MEANS)

        change = source_change(config, source, sources, job.card.entry.template, session.report)

        def streams(*seed: int, rows: range | None = None) -> tuple[BatchStream, BatchStream]:
            numbers = (job.seed, SOURCE_SEED, *seed)
            return (
                BatchStream(sources.part(source), labels, batch, network.crop, numbers, rows, change),
                BatchStream(targets.part(target), None, batch, network.crop, (job.seed, TARGET_SEED, *seed), rows),
            )

        held_out = HeldOut(
            network, sources.part(source_held_out), job.source.labels_of(source_held_out), targets.part(target_held_out)
        )
        ends = Ends(
            DomainTest(
                held_out, tuple(job.layers), job.bandwidth_multipliers, config.seed, bool(config.normalise_features)
            )
        )
        if config.batch_norm == "target":
            if not run.state.exists():
                ends.measure()
            use_target_statistics(network, targets.part(target), config.seed, session.report)

        # The penalty, whose bandwidths are those of the initial network; then the training.
        bandwidths = initial_bandwidths(
            config, job.layers, run, session.ranks, network, streams(BANDWIDTH_SEED), job.seed
        )
        penalty = _penalty(job, bandwidths)
        metrics = session.train(
            network,
            DomainBatches(
                *streams(rows=session.rows(batch)),
                penalty,
                restyling(config, job.seed, session.rows(batch)),
                Keep(config.keep, load_checkpoint(job.init)[0].to(session.device)) if config.keep else None,
            ),
            _card(job),
            Validation(ends=ends, loss=lambda: held_out.loss(penalty)),
            job.seed,
        )

        # What there is to tell: unusable images, the test of the domains, and a figure of them.
        unreadable = session.unusable(sources, targets)
        unused = job.source.unlabelled, job.source.folder.skipped + job.target.folder.skipped
        set_aside = write_unusable(run, unreadable, *unused) if session.ranks.first else None
        tell(run.log, session.report)
        if session.ranks.first:
            warn_of_changes(session.report, job.source.folder, job.target.folder)
            draw_domains(job.init, held_out, job.layers, run.directory / "domains.png", session.report)
    return TrainingResult(run, False, metrics, set_aside)


def _card(job: AdaptJob) -> ModelCard:
    return ModelCard(
        job.card.model,
        job.source.identities,
        job.run.stage,
        job.run.name,
        hashed_options(job.config),
        job.card.init,
        template_name(job.source.dataset.root) or "",
        job.card.network,
    )


def find_init(config: AdaptConfig, workspace: Workspace, source: Dataset, report: Report = SILENT) -> Path:
    """The checkpoint that adaptation starts from: --init, else the newest finished pretraining on the source.

    Raises:
        UsageError: the model has no layers to adapt.
        FacedanError: there is none.
    """
    if config.init is not None:
        settings = network_settings(replace(config, layers=None))
        named = find_model(workspace, config.init, settings, channels=config.channels, trains=True, report=report)
        check_settings([named], settings)
        if named.classical:
            raise UsageError(
                f"--init {config.init} is {CLASSICAL[named.card.model]}, which has no layers to adapt",
                "name the run of a network",
            )
        return named.file
    newest = newest_run(workspace, "pretrain", source.name, is_network)
    newest = newest or newest_run(workspace, "pretrain", is_of_images(source, workspace), is_network)
    if newest is None:
        raise FacedanError(
            f"there is no finished pretraining on '{source.name}' in this workspace",
            f"run `facedan pretrain --source {config.source}` first, or name a model with --init",
        )
    return checkpoint_of(newest)


def _initial_network(job: AdaptJob, session: Session) -> FaceNetwork:
    """The network of the initial checkpoint, with its classifier if identities and head are the same."""
    card, identities = job.card, job.source.identities
    session.report.note(f"starting from {card.run} ({job.init})")
    network = build(card.model, len(identities), card.network, **session.head(len(identities)))
    network.normalise_input(job.config.input_normalisation or "none")
    network.offer(job.layers)
    if is_whitened(card.config):
        session.report.warn(left_out(card.run))
    with open_safetensors(job.init) as file:
        aside = ("classifier.", PREFIX)
        body = {key: file.get_tensor(key) for key in sorted(file.keys()) if not key.startswith(aside)}
        classifier = {key: value for key, value in network.state_dict().items() if key.startswith("classifier.")}
        try:
            network.load_state_dict(body | classifier)
        except RuntimeError as error:
            raise FacedanError(
                f"{job.init} holds other tensors than {card.model} of this version has", "pretrain it again"
            ) from error
        if job.keeps_classifier:
            load_classifier(network.classifier, file)
        elif card.stage == "weights":
            session.report.note("published weights have no classifier: it starts afresh")
        elif card.identities != identities:
            session.report.warn(
                f"{card.run} was trained on other identities than those of '{job.source.dataset.name}': "
                "the classifier starts afresh"
            )
        else:
            session.report.note(f"the classifier starts afresh, as {job.config.head}")
    return network


def _penalty(job: AdaptJob, bandwidths: Mapping[str, float] | None) -> Penalty:
    config = job.config
    return Penalty(
        lambda_=float(config.lambda_ or 0),
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
        normalise=bool(config.normalise_features),
    )
