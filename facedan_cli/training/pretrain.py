"""Stage 1: train a classifier of the source's people, from random or from published weights (paper, Section IV-B)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from facedan_cli.config.common import hashed_options, options
from facedan_cli.config.models import NETWORKS, imported
from facedan_cli.config.training import PretrainConfig
from facedan_cli.data.batches import BatchStream
from facedan_cli.data.same_images import keep_images
from facedan_cli.embedding.alignment import template_name
from facedan_cli.errors import UsageError
from facedan_cli.models.checkpoint import ModelCard, is_checkpoint
from facedan_cli.models.network import FaceNetwork
from facedan_cli.models.networks import build
from facedan_cli.models.pretrained.load import load_public_weights
from facedan_cli.report import SILENT, Report
from facedan_cli.run_plan import plan_run
from facedan_cli.runs import Run, find_checkpoint
from facedan_cli.training.datasets import (
    METHOD,
    SOURCE_SEED,
    Source,
    TrainingResult,
    describe,
    found_finished,
    going_on,
    hold_out,
    read_source,
    tell_of_inputs,
    warn_of_alignment,
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
    """A pretraining that has been looked into and not begun."""

    config: PretrainConfig
    source: Source
    init: Path | None
    run: Run
    caches: Path

    @property
    def seed(self) -> int:
        """Of all that is random in the training: as for no network of facedan that it starts from."""
        if self.init is None or not is_checkpoint(self.init):
            return self.config.seed
        return going_on("pretrain", self.config.seed, self.run.inputs["init"]["sha256"])


def plan_pretrain(config: PretrainConfig, workspace: Workspace) -> PretrainJob | PCANetJob:
    """Check a configuration and its inputs; writes nothing.

    Raises:
        FacedanError: something that the run needs is missing or cannot be.
    """
    if config.model == "lbp":
        raise UsageError("LBP needs no training", "name it to embed or to evaluate: --model lbp")
    if config.model == "pcanet":
        return plan_pcanet(config, workspace)
    config = resolve_pretrain(config)
    source = read_source(workspace.dataset(config.source), config.holdout_identities or 0, workspace.root)
    check_processes(config, len(source.identities))
    inputs = {"source": describe(source.dataset, source.folder)}
    init, method = None, {}
    if config.init is not None:
        init = find_weights(config.init, config.model, workspace)
        method = {"method": METHOD} if is_checkpoint(init) else {}
        inputs["init"] = {"path": str(init.resolve()), "sha256": sha256_file(init)}
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


def pretrain(job: PretrainJob | PCANetJob, *, force: bool = False, report: Report = SILENT) -> TrainingResult:
    """Train what was planned; a finished run is left as it is, an interrupted one is continued."""
    if isinstance(job, PCANetJob):
        return learn_pcanet(job, force=force, report=report)
    config, source, run = job.config, job.source, job.run
    if found := found_finished(run, [source.folder], force=force, report=report):
        return found
    with training_session(config, run, job.caches, force=force, report=report) as work:
        warn_of_alignment(work.report, source.dataset)
        tell_of_inputs(work.report, source)
        torch.manual_seed(job.seed)
        network = build(config.model, len(source.identities), **work.head(len(source.identities)))
        weights = _start(job, network, work.report)
        folder, held = hold_out(source.folder, config.holdout, labelled=True)
        images = work.images(source.folder, network.image_size)
        plan = training_plan(config)
        stream = BatchStream(
            images.part(folder),
            source.labels_of(folder),
            plan.batch,
            network.crop,
            (job.seed, SOURCE_SEED),
            work.rows(plan.batch),
        )
        if work.ranks.first:
            keep_images(run.directory, {"source": folder})
        aside = HeldOut(network, images.part(held), source.labels_of(held))
        card = ModelCard(
            config.model,
            source.identities,
            run.stage,
            run.name,
            hashed_options(config),
            weights,
            template_name(source.dataset.root),
        )
        metrics = work.train(
            network.to(work.device), DomainBatches(stream), card, Validation(loss=aside.loss), job.seed
        )
        unreadable = work.unusable(images)
        lost = source.unlabelled, source.folder.skipped
        set_aside = write_unusable(run, unreadable, *lost) if work.ranks.first else None
        if work.ranks.first:
            warn_of_changes(work.report, source.folder)
    return TrainingResult(run, False, metrics, set_aside)


def _start(job: PretrainJob, network: FaceNetwork, report: Report) -> dict[str, str] | None:
    """Give the network the weights that it starts from; returns what the checkpoint says of them."""
    config = job.config
    if job.init is None:
        if usual := NETWORKS[config.model].start:
            report.warn(f"starting from random weights; {usual}")
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


def find_weights(name: str, model: str, workspace: Workspace) -> Path:
    """The file meant by --init: a weights file, the checkpoint of a run, or weights that a library publishes.

    Raises:
        FacedanError: there is none, or it cannot be fetched.
    """
    if Path(name).is_file():
        return Path(name)
    if name in NETWORKS[model].releases:
        path: Path = imported(NETWORKS[model].fetch)(name)
        return path
    return find_checkpoint(workspace, name)
