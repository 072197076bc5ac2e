"""Stage 2: adapt a pretrained network to unlabelled target faces (paper, eq. 4)."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from facedan_cli.adaptation.kernels import median_bandwidth
from facedan_cli.adaptation.mmd import Penalty
from facedan_cli.config import (
    ADAPT_RECIPES,
    ESTIMATORS,
    AdaptConfig,
    check_choice,
    check_training,
    determining,
    options,
    resolve,
)
from facedan_cli.errors import FacedanError, UsageError, did_you_mean
from facedan_cli.faces.batches import FaceImages, Stream
from facedan_cli.faces.folder import FaceFolder, read_folder
from facedan_cli.models.vggface import LAYERS, SPECS, VGGFace
from facedan_cli.models.weights import Card, build, load_checkpoint, read_card, save_checkpoint
from facedan_cli.report import SILENT, Report
from facedan_cli.runs import Run, checkpoint_of, find_checkpoint, newest_run, plan_run, working
from facedan_cli.stages.devices import choose_device, worker_count
from facedan_cli.stages.training_data import (
    BANDWIDTH_SEED,
    SOURCE_SEED,
    TARGET_SEED,
    Source,
    TrainingResult,
    describe,
    read_source,
    refuse_same,
    training_plan,
    warn_of_alignment,
    write_unusable,
)
from facedan_cli.training.loop import Domains, train
from facedan_cli.workspace import Dataset, Workspace, sha256_file, write_json

BANDWIDTH_SAMPLE = 512
"""Images of each domain whose distances give the frozen bandwidth."""


@dataclass(frozen=True)
class AdaptJob:
    """An adaptation that has been looked into and not begun."""

    config: AdaptConfig
    source: Source
    target: Dataset
    target_folder: FaceFolder
    init: Path
    card: Card
    layers: tuple[str, ...]
    run: Run


def plan_adapt(config: AdaptConfig, workspace: Workspace) -> AdaptJob:
    """Check a configuration and its inputs; writes nothing.

    Raises:
        FacedanError: something that the run needs is missing or cannot be.
    """
    layers = parse_layers(config.layers)
    check_choice("--estimator", config.estimator, ESTIMATORS)
    parse_bandwidth(config.bandwidth)
    if config.kernels < 1:
        raise UsageError(f"--kernels must be at least 1, not {config.kernels}", "the paper uses 1 and 5")
    if not 0 <= config.lambda_ < math.inf:
        raise UsageError(f"--lambda must be a number from 0, not {config.lambda_}", "the paper uses 0.5")
    source = read_source(workspace.dataset(config.source))
    target = workspace.dataset(config.target)
    refuse_same(source.dataset, target)
    target_folder = read_folder(target.root)
    init = find_init(config, workspace, source)
    card = read_card(init)
    # In the form in which the same command, or config.toml given back, always means the same run.
    config = replace(config, layers=",".join(layers), init=config.init or init.parents[1].name)
    config = resolve(config, ADAPT_RECIPES[card.model])
    check_training(config)
    run = plan_run(
        workspace,
        "adapt",
        [source.dataset.name, target.name],
        config=options(config),
        determining=determining(config),
        inputs={
            "source": describe(source.dataset, source.folder),
            "target": describe(target, target_folder),
            "init": {"path": str(init.resolve()), "run": card.run, "sha256": sha256_file(init)},
        },
    )
    return AdaptJob(config, source, target, target_folder, init, card, layers, run)


def adapt(job: AdaptJob, *, force: bool = False, report: Report = SILENT) -> TrainingResult:
    """Train what was planned; a finished run is left as it is, an interrupted one is continued."""
    config, run = job.config, job.run
    if run.finished and not force:
        return TrainingResult(run, True, run.last_metrics, run.set_aside)
    device = choose_device(config.device)
    warn_of_alignment(report, job.source.dataset, job.target)
    with working(run, force=force, device=str(device)), ThreadPoolExecutor(worker_count(config.workers)) as pool:
        torch.manual_seed(config.seed)
        network = _start(job, report).to(device)
        spec, plan = SPECS[job.card.model], training_plan(config)
        sources = FaceImages(job.source.folder, spec.image_size, pool, report)
        targets = FaceImages(job.target_folder, spec.image_size, pool, report)

        def streams(*seed: int) -> tuple[Stream, Stream]:
            return (
                Stream(sources, job.source.labels, plan.batch, spec.crop, (config.seed, SOURCE_SEED, *seed)),
                Stream(targets, None, plan.batch, spec.crop, (config.seed, TARGET_SEED, *seed)),
            )

        bandwidths = _bandwidths(job, network, *streams(BANDWIDTH_SEED))
        weights = (1.0 / config.kernels,) * config.kernels
        penalty = Penalty(config.lambda_, job.layers, weights, config.estimator, bandwidths)
        domains = Domains(*streams(), penalty)
        metrics = train(network, domains, plan, state=run.state, log=run.log, report=report)
        card = Card(job.card.model, job.source.identities, run.stage, run.name, determining(config))
        save_checkpoint(run.checkpoint, network, card)
        set_aside = write_unusable(run, [sources, targets], job.source.nameless)
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


def parse_layers(text: str) -> tuple[str, ...]:
    """The layers of "fc6,fc7", in the order of the network.

    Raises:
        UsageError: a layer is unknown, named twice, or none is named.
    """
    layers = tuple(layer.strip() for layer in text.split(",") if layer.strip())
    for layer in layers:
        if layer not in LAYERS:
            raise UsageError(f"there is no layer '{layer}' to adapt", did_you_mean(layer, LAYERS, of="layers"))
    if not layers or len(set(layers)) < len(layers):
        raise UsageError(f"--layers must name each layer once, not '{text}'", f"layers: {', '.join(LAYERS)}")
    return tuple(sorted(layers, key=LAYERS.index))


def parse_bandwidth(text: str) -> float | None:
    """A number given for γ; None for "frozen" and "batch".

    Raises:
        UsageError: it is neither.
    """
    if text in ("frozen", "batch"):
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise UsageError(f"--bandwidth does not know '{text}'", "give frozen, batch, or γ as a positive number")
    return value


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


def _bandwidths(job: AdaptJob, network: VGGFace, source: Stream, target: Stream) -> Mapping[str, float] | None:
    """γ of each layer, or None where each batch has its own; frozen ones are kept in the run for when it resumes."""
    fixed = parse_bandwidth(job.config.bandwidth)
    if fixed is not None:
        return dict.fromkeys(job.layers, fixed)
    if job.config.bandwidth == "batch":
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
