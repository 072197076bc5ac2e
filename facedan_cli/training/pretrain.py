"""Stage 1: train a classifier of the source's identities, from random or published weights (paper, Section IV-B)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch

from facedan_cli.config.common import hashed_options, options
from facedan_cli.config.models import LBP, PCANET
from facedan_cli.config.networks import network_entry, network_settings
from facedan_cli.config.training import PretrainConfig
from facedan_cli.data.batches import BatchStream
from facedan_cli.data.same_images import keep_images
from facedan_cli.embedding.alignment import Expected, refuse_misaligned, template_name, training_misalignments
from facedan_cli.embedding.published import code_of, find_weights
from facedan_cli.errors import UsageError
from facedan_cli.models.checkpoint import ModelCard, is_checkpoint, read_card
from facedan_cli.models.input_normalisation import normalisation_in
from facedan_cli.models.network import FaceNetwork
from facedan_cli.models.networks import build
from facedan_cli.models.pretrained.load import load_public_weights
from facedan_cli.report import SILENT, Report
from facedan_cli.run_plan import plan_run
from facedan_cli.runs import Run
from facedan_cli.training.changes import source_change
from facedan_cli.training.class_means import FROM_MEANS, set_class_means, starts_from_means
from facedan_cli.training.datasets import (
    METHOD,
    SOURCE_SEED,
    Source,
    TrainingResult,
    check_alignment,
    describe,
    found_finished,
    going_on,
    hold_out,
    read_source,
    tell_of_inputs,
    warn_of_changes,
    write_unusable,
)
from facedan_cli.training.held_out import HeldOut
from facedan_cli.training.loop import DomainBatches, Validation
from facedan_cli.training.pcanet import PCANetJob, learn_pcanet, plan_pcanet
from facedan_cli.training.resolve import check_processes, resolve_pretrain
from facedan_cli.training.session import training_plan, training_session
from facedan_cli.workspace import Workspace, sha256_file


@dataclass(frozen=True)
class PretrainJob:
    """A checked and planned pretraining."""

    config: PretrainConfig
    source: Source
    init: Path | None
    run: Run
    caches: Path

    @property
    def expected(self) -> Expected:
        """The alignment that the network expects, by its initial weights, else by its row."""
        return _expected(self.config, self.init)

    @property
    def seed(self) -> int:
        """The seed of the training, which differs from that of an initial network of facedan."""
        if self.init is None or not is_checkpoint(self.init):
            return self.config.seed
        return going_on("pretrain", self.config.seed, self.run.inputs["init"]["sha256"])


def plan_pretrain(config: PretrainConfig, workspace: Workspace) -> PretrainJob | PCANetJob:
    """Plan a pretraining: check its configuration and inputs without writing anything.

    Raises:
        FacedanError: an input is missing, or an option cannot be.
    """
    if config.model == LBP:
        raise UsageError("LBP needs no training", "name it to embed or to evaluate: --model lbp")
    if config.model == PCANET:
        return plan_pcanet(config, workspace)
    code = code_of(config.model)
    config = resolve_pretrain(config)
    source = read_source(workspace.dataset(config.source), config.holdout_identities or 0, workspace.root)
    check_processes(config, len(source.identities))
    inputs = {"source": describe(source.dataset, source.folder), **code}
    init, method = None, {}
    if config.init is not None:
        init = find_weights(config.init, network_entry(config.model, network_settings(config)), workspace)
        method = {"method": METHOD} if is_checkpoint(init) else {}
        inputs["init"] = {"path": str(init.resolve()), "sha256": sha256_file(init)}
    normalisation = config.input_normalisation or ("none" if init is None else normalisation_in(init))
    config = replace(config, input_normalisation=normalisation)
    refuse_misaligned(training_misalignments(_expected(config, init), [source.dataset]), config.strict)
    run = plan_run(
        workspace,
        "pretrain",
        [source.dataset.name],
        config=options(config),
        hashed_options=hashed_options(config) | method,
        inputs=inputs,
        images={"source": source.folder},
    )
    return PretrainJob(config, source, init, run, workspace.root / "cache")


def _expected(config: PretrainConfig, init: Path | None) -> Expected:
    if init is not None and is_checkpoint(init) and (learnt := Expected.of(read_card(init), init)):
        return learnt
    network = network_entry(config.model, network_settings(config))
    return Expected.by_row(config.model, network, certain=init is not None)


def pretrain(job: PretrainJob | PCANetJob, *, force: bool = False, report: Report = SILENT) -> TrainingResult:
    """Carry out a planned pretraining; a finished run is kept, an interrupted one is resumed."""
    if isinstance(job, PCANetJob):
        return learn_pcanet(job, force=force, report=report)
    config, source, run = job.config, job.source, job.run
    if found := found_finished(run, [source.folder], force=force, report=report):
        return found
    with training_session(config, run, job.caches, force=force, report=report) as session:
        check_alignment(session.report, job.expected, source.dataset)
        tell_of_inputs(session.report, source)
        torch.manual_seed(job.seed)
        settings, identities = network_settings(config), len(source.identities)
        network = build(config.model, identities, settings, **session.head(identities))
        network.normalise_input(config.input_normalisation or "none")
        weights = _load_initial_weights(job, network, session.report)
        if config.batch_norm is not None or job.init is not None:
            network.normalise_by(config.batch_norm or "frozen")
        if config.train_from is not None:
            network.train_from(config.train_from)
        folder, held_out_images = hold_out(source.folder, config.holdout, labelled=True)
        images = session.images(source.folder, network.image_size, network_entry(config.model, settings).template)
        network.to(session.device)
        if job.init is not None and starts_from_means(network, config.head) and not run.state.exists():
            set_class_means(network, images.part(folder), source.labels_of(folder))
            session.report.note(FROM_MEANS)
        plan = training_plan(config)
        stream = BatchStream(
            images.part(folder),
            source.labels_of(folder),
            plan.batch,
            network.crop,
            (job.seed, SOURCE_SEED),
            session.rows(plan.batch),
            source_change(config, folder, images, network_entry(config.model, settings).template, session.report),
        )
        if session.ranks.first:
            keep_images(run.directory, {"source": folder})
        held_out = HeldOut(network, images.part(held_out_images), source.labels_of(held_out_images))
        card = ModelCard(
            config.model,
            source.identities,
            run.stage,
            run.name,
            hashed_options(config),
            weights,
            template_name(source.dataset.root) or "",
            settings,
        )
        metrics = session.train(network, DomainBatches(stream), card, Validation(loss=held_out.loss), job.seed)
        unreadable = session.unusable(images)
        unused = source.unlabelled, source.folder.skipped
        set_aside = write_unusable(run, unreadable, *unused) if session.ranks.first else None
        if session.ranks.first:
            warn_of_changes(session.report, source.folder)
    return TrainingResult(run, False, metrics, set_aside)


def _load_initial_weights(job: PretrainJob, network: FaceNetwork, report: Report) -> dict[str, str] | None:
    """Load the initial weights into the network; returns their entry for the checkpoint."""
    config = job.config
    if job.init is None:
        if usual := network_entry(config.model, network_settings(config)).start:
            report.warn(f"starting from random weights; {usual}")
        if config.train_from is not None:
            report.warn(f"the modules before {config.train_from} stay as they were drawn: give --init")
        if config.backbone_lr_mult == 0:
            report.warn("convolutions of random weights stay as they are with --backbone-lr-mult 0: give --init")
        return None
    weights = load_public_weights(job.init, network, channels=None if config.channels == "auto" else config.channels)
    report.note(f"starting from {job.init} ({weights.format}, trained on {weights.channels.upper()})")
    for remark in weights.remarks:
        report.note(remark)
    for warning in weights.warnings:
        report.warn(warning)
    return weights.record()
