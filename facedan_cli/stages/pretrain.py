"""Stage 1: train a classifier of the source's people, from random or from published weights (paper, Section IV-B)."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch

from facedan_cli.config import (
    MODEL_NAMES,
    PRETRAIN_RECIPES,
    PretrainConfig,
    check_choice,
    check_training,
    determining,
    options,
    resolve,
)
from facedan_cli.faces.batches import FaceImages, Stream
from facedan_cli.models.vggface import SPECS
from facedan_cli.models.weights import Card, build, load_public_weights, save_checkpoint
from facedan_cli.report import SILENT, Report
from facedan_cli.runs import Run, find_checkpoint, plan_run, working
from facedan_cli.stages.devices import choose_device, worker_count
from facedan_cli.stages.training_data import (
    SOURCE_SEED,
    Source,
    TrainingResult,
    describe,
    hold_aside,
    read_source,
    training_plan,
    warn_of_alignment,
    write_unusable,
)
from facedan_cli.training.loop import Domains, train
from facedan_cli.workspace import Workspace, sha256_file


@dataclass(frozen=True)
class PretrainJob:
    """A pretraining that has been looked into and not begun."""

    config: PretrainConfig
    source: Source
    init: Path | None
    run: Run


def plan_pretrain(config: PretrainConfig, workspace: Workspace) -> PretrainJob:
    """Check a configuration and its inputs; writes nothing.

    Raises:
        FacedanError: something that the run needs is missing or cannot be.
    """
    check_choice("--model", config.model, MODEL_NAMES)
    config = resolve(config, PRETRAIN_RECIPES[config.model])
    check_training(config)
    source = read_source(workspace.dataset(config.source))
    inputs = {"source": describe(source.dataset, source.folder)}
    init = None
    if config.init is not None:
        init = find_weights(config.init, workspace)
        inputs["init"] = {"path": str(init.resolve()), "sha256": sha256_file(init)}
    run = plan_run(
        workspace,
        "pretrain",
        [source.dataset.name],
        config=options(config),
        determining=determining(config),
        inputs=inputs,
    )
    return PretrainJob(config, source, init, run)


def pretrain(job: PretrainJob, *, force: bool = False, report: Report = SILENT) -> TrainingResult:
    """Train what was planned; a finished run is left as it is, an interrupted one is continued."""
    config, source, run = job.config, job.source, job.run
    if run.finished and not force:
        return TrainingResult(run, True, run.last_metrics, run.set_aside)
    device = choose_device(config.device)
    warn_of_alignment(report, source.dataset)
    with working(run, force=force, device=str(device)), ThreadPoolExecutor(worker_count(config.workers)) as pool:
        torch.manual_seed(config.seed)
        network = build(config.model, len(source.identities))
        if job.init is not None:
            form = load_public_weights(job.init, network)
            report.note(f"starting from {job.init} (keys as in {form})")
            if form == "torchvision":
                report.warn("its inputs must be RGB in 0-255 less VGG-Face's mean; ImageNet's weights expect others")
        elif config.model == "vggface":
            report.warn("starting from random weights; the paper starts from VGG-Face's: --init PATH")
        spec = SPECS[config.model]
        folder, _ = hold_aside(source.folder, config.hold_aside, labelled=True)
        images = FaceImages(folder, spec.image_size, pool, report)
        plan = training_plan(config)
        stream = Stream(images, source.labels_of(folder), plan.batch, spec.crop, (config.seed, SOURCE_SEED))
        metrics = train(network.to(device), Domains(stream), plan, state=run.state, log=run.log, report=report)
        card = Card(config.model, source.identities, run.stage, run.name, determining(config))
        save_checkpoint(run.checkpoint, network, card)
        set_aside = write_unusable(run, [images], source.nameless)
    return TrainingResult(run, False, metrics, set_aside)


def find_weights(name: str, workspace: Workspace) -> Path:
    """The file meant by --init: a weights file, or the checkpoint of a run."""
    return Path(name) if Path(name).is_file() else find_checkpoint(workspace, name)
