"""Stage 2: adapt a pretrained network to unlabelled target faces (paper, eq. 4)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from facedan_cli.adaptation.kernels import median_bandwidth
from facedan_cli.adaptation.penalty import Penalty
from facedan_cli.config import ADAPT_RECIPES, AdaptConfig, check_training, determining, options, resolve
from facedan_cli.errors import FacedanError
from facedan_cli.faces.batches import FaceImages, Stream
from facedan_cli.models.vggface import LAYERS, SPECS, VGGFace
from facedan_cli.models.weights import Card, build, load_checkpoint, read_card, save_checkpoint
from facedan_cli.report import SILENT, Report
from facedan_cli.runs import Run, checkpoint_of, find_checkpoint, newest_run, plan_run, working
from facedan_cli.stages.adapt_options import WITHOUT_KERNELS, parse_bandwidth, settle_penalty
from facedan_cli.stages.devices import choose_device, worker_count
from facedan_cli.stages.domain_test import DomainTest, tell
from facedan_cli.stages.target_list import Target, read_target
from facedan_cli.stages.training_data import (
    BANDWIDTH_SEED,
    SOURCE_SEED,
    TARGET_SEED,
    Source,
    TrainingResult,
    describe,
    hold_aside,
    read_source,
    refuse_same,
    training_plan,
    warn_of_alignment,
    write_unusable,
)
from facedan_cli.training.loop import Domains, train
from facedan_cli.workspace import Workspace, sha256_file, write_json

BANDWIDTH_SAMPLE = 512
"""Images of each domain whose distances give the frozen bandwidth."""


@dataclass(frozen=True)
class AdaptJob:
    """An adaptation that has been looked into and not begun."""

    config: AdaptConfig
    source: Source
    target: Target
    init: Path
    card: Card
    layers: Mapping[str, float]
    multipliers: tuple[float, ...]
    run: Run


def plan_adapt(config: AdaptConfig, workspace: Workspace) -> AdaptJob:
    """Check a configuration and its inputs; writes nothing.

    Raises:
        FacedanError: something that the run needs is missing or cannot be.
    """
    config, layers, multipliers = settle_penalty(config)
    source = read_source(workspace.dataset(config.source))
    target = read_target(config.target, workspace)
    refuse_same(source.dataset, target.dataset)
    init = find_init(config, workspace, source)
    card = read_card(init)
    # In the form in which the same command, or config.toml given back, always means the same run.
    config = replace(config, init=config.init or init.parents[1].name)
    config = resolve(config, ADAPT_RECIPES[card.model])
    check_training(config)
    run = plan_run(
        workspace,
        "adapt",
        [source.dataset.name, target.dataset.name],
        config=options(config),
        determining=determining(config),
        inputs={
            "source": describe(source.dataset, source.folder),
            "target": target.describe(),
            "init": {"path": str(init.resolve()), "run": card.run, "sha256": sha256_file(init)},
        },
    )
    return AdaptJob(config, source, target, init, card, layers, multipliers, run)


def adapt(job: AdaptJob, *, force: bool = False, report: Report = SILENT) -> TrainingResult:
    """Train what was planned; a finished run is left as it is, an interrupted one is continued."""
    config, run = job.config, job.run
    if run.finished and not force:
        return TrainingResult(run, True, run.last_metrics, run.set_aside)
    device = choose_device(config.device)
    warn_of_alignment(report, job.source.dataset, job.target.dataset)
    with working(run, force=force, device=str(device)), ThreadPoolExecutor(worker_count(config.workers)) as pool:
        torch.manual_seed(config.seed)
        network = _start(job, report).to(device)
        spec, plan = SPECS[job.card.model], training_plan(config)
        source, source_held = hold_aside(job.source.folder, config.hold_aside, labelled=True)
        target, target_held = hold_aside(job.target.folder, config.hold_aside, labelled=False)
        sources = FaceImages(source, spec.image_size, pool, report)
        targets = FaceImages(target, spec.image_size, pool, report)
        held = [FaceImages(folder, spec.image_size, pool, report) for folder in (source_held, target_held)]
        labels = job.source.labels_of(source)

        def streams(*seed: int) -> tuple[Stream, Stream]:
            return (
                Stream(sources, labels, plan.batch, spec.crop, (config.seed, SOURCE_SEED, *seed)),
                Stream(targets, None, plan.batch, spec.crop, (config.seed, TARGET_SEED, *seed)),
            )

        penalty = _penalty(job, _bandwidths(job, network, *streams(BANDWIDTH_SEED)))
        test = DomainTest(network, held[0], held[1], tuple(job.layers), job.multipliers, spec.crop, config.seed)
        metrics = train(
            network,
            Domains(*streams(), penalty),
            plan,
            state=run.state,
            log=run.log,
            examine=test if test.possible else None,
            report=report,
        )
        card = Card(job.card.model, job.source.identities, run.stage, run.name, determining(config))
        save_checkpoint(run.checkpoint, network, card)
        set_aside = write_unusable(run, [sources, targets, *held], job.source.nameless)
    tell(run.log, report)
    return TrainingResult(run, False, metrics, set_aside)


def find_init(config: AdaptConfig, workspace: Workspace, source: Source) -> Path:
    """The checkpoint that adaptation starts from: --init, else the newest finished pretraining on the source.

    Raises:
        FacedanError: there is none.
    """
    if config.init is not None:
        return find_checkpoint(workspace, config.init)
    newest = newest_run(workspace, "pretrain", source.dataset.name)
    if newest is None:
        raise FacedanError(
            f"there is no finished pretraining on '{source.dataset.name}' in this workspace",
            f"run `facedan pretrain --source {config.source}` first, or name a model with --init",
        )
    return checkpoint_of(newest)


def _start(job: AdaptJob, report: Report) -> VGGFace:
    """The network of the initial checkpoint; its classifier serves on where the people are the same."""
    network, card = load_checkpoint(job.init)
    report.note(f"starting from {card.run} ({job.init})")
    if card.identities == job.source.identities:
        return network
    report.warn(
        f"{card.run} was trained on other people than '{job.source.dataset.name}' has: the classifier starts afresh"
    )
    fresh = build(card.model, len(job.source.identities))
    body = {key: value for key, value in network.state_dict().items() if not key.startswith("fc8.")}
    fresh.load_state_dict(body, strict=False)
    return fresh


def _penalty(job: AdaptJob, bandwidths: Mapping[str, float] | None) -> Penalty:
    config = job.config
    return Penalty(
        strength=config.lambda_,
        layers=job.layers,
        discrepancy=config.discrepancy,
        multipliers=job.multipliers,
        betas=config.betas,
        estimator=config.estimator,
        bandwidths=bandwidths,
        running=config.bandwidth == "ema",
        queue=config.queue,
        ramp=config.lambda_ramp,
    )


def _bandwidths(job: AdaptJob, network: VGGFace, source: Stream, target: Stream) -> Mapping[str, float] | None:
    """γ of each layer before training, kept in the run for when it resumes; None where each batch has its own."""
    fixed = parse_bandwidth(job.config.bandwidth)
    if fixed is not None:
        return dict.fromkeys(job.layers, fixed)
    if job.config.bandwidth == "batch" or job.config.discrepancy in WITHOUT_KERNELS:
        return None
    kept = job.run.directory / "bandwidths.json"
    if job.run.state.exists() and kept.exists():
        return dict(json.loads(kept.read_text(encoding="utf-8")))
    features = [_sample_features(network, stream) for stream in (source, target)]
    try:
        bandwidths = {layer: median_bandwidth(features[0][layer], features[1][layer]) for layer in job.layers}
    except ValueError as error:
        raise FacedanError(f"no bandwidth: {error}", f"the model {job.init} is of no use; pretrain another") from error
    write_json(kept, bandwidths)
    return bandwidths


@torch.no_grad()
def _sample_features(network: VGGFace, stream: Stream) -> dict[str, torch.Tensor]:
    device = next(network.parameters()).device
    network.eval()
    batches = [network(stream[step][0].to(device), 0)[0] for step in range(-(-BANDWIDTH_SAMPLE // stream.batch))]
    return {layer: torch.cat([features[layer] for features in batches]) for layer in LAYERS}
