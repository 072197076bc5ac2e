"""Statistics of batch normalisation, estimated on the unlabelled target (AdaBN, Li et al. 2017)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from torch import Tensor

from facedan_cli.config.common import hashed_options
from facedan_cli.data.batches import FaceStore
from facedan_cli.data.same_images import keep_images
from facedan_cli.errors import FacedanError
from facedan_cli.models.batch_norm import set_statistics, statistics_of
from facedan_cli.models.checkpoint import load_checkpoint, save_checkpoint
from facedan_cli.models.network import FaceNetwork
from facedan_cli.models.whitening import left_out
from facedan_cli.report import SILENT, Report
from facedan_cli.training.adapt_job import AdaptJob, carried_on
from facedan_cli.training.datasets import (
    TrainingResult,
    hold_out,
    warn_of_changes,
    write_unusable,
)
from facedan_cli.training.domain_test import DomainTest, draw_domains, tell
from facedan_cli.training.held_out import HeldOut, centre_crops, readable
from facedan_cli.training.resolve import of_method
from facedan_cli.training.session import training_session
from facedan_cli.workspace import write_text

MOST_IMAGES = 4096
"""Largest number of images that statistics are estimated on."""

_BATCH = 64


def use_target_statistics(network: FaceNetwork, images: FaceStore, seed: int, report: Report, mix: float = 1.0) -> int:
    """Replace a network's running statistics by those of a domain's images, in place.

    Args:
        network: with batch normalisation.
        images: unlabelled; their centre crops are taken, of more than `MOST_IMAGES` a sample.
        seed: seed of the sample and of its division into batches, which mixes neighbouring images.
        report: told how many images there were.
        mix: share of the new statistics, from 0 to 1; the rest are the old ones.

    Returns:
        The number of images.

    Raises:
        FacedanError: fewer than two images can be read.
    """
    rows = np.random.default_rng(seed).permutation(readable(images))[:MOST_IMAGES]
    batches = np.array_split(rows, max(1, -(-len(rows) // _BATCH)))
    count = 0

    def crops() -> Iterator[Tensor]:
        nonlocal count
        for batch in centre_crops(network, images, (part.tolist() for part in batches)):
            if len(batch) > 1:
                count += len(batch)
                yield batch

    found = statistics_of(network, crops())
    if count < 2:
        raise FacedanError(
            f"{count} images of {images.folder.root} can be read: they have no variance", "give more target images"
        )
    set_statistics(network, found, mix)
    report.note(f"batch normalisation takes its statistics from {count} target images")
    return count


def adapt_statistics(job: AdaptJob, *, force: bool = False, report: Report = SILENT) -> TrainingResult:
    """Carry out a planned adaptation of the statistics alone: no weight changes, and no image of the source is needed.

    The source gives the other side of the two-sample test. The classifier stays that of the initial network.
    """
    config, run = job.config, job.run
    with training_session(config, run, job.caches, force=force, report=report) as session:
        job.tell_of_inputs(session.report)
        network, card = load_checkpoint(job.init)
        session.report.note(f"starting from {card.run} ({job.init})")
        if network.whitening is not None:
            session.report.warn(left_out(card.run))
            network.whitening = None
        network.offer(job.layers)
        network.to(session.device)
        source, source_held_out = hold_out(job.source.folder, config.holdout, labelled=True)
        target, target_held_out = hold_out(job.target.folder, config.holdout, labelled=False)
        keep_images(run.directory, {"source": source, "target": target})
        sources = session.images(source_held_out, network.image_size, job.card.entry.template)
        targets = session.images(job.target.folder, network.image_size, job.card.entry.template)
        held_out = HeldOut(network, sources, job.source.labels_of(source_held_out), targets.part(target_held_out))
        test = DomainTest(held_out, tuple(job.layers), job.bandwidth_multipliers, config.seed)
        entries: list[dict[str, Any]] = [{"step": 0, **test()}]
        count = use_target_statistics(network, targets.part(target), config.seed, session.report, config.adabn_mix)
        entries.append({"step": 1, "images": count, **test()})
        write_text(run.log, "".join(json.dumps(entry) + "\n" for entry in entries))
        settings = carried_on(card) | {"adabn_mix": config.adabn_mix} | of_method(hashed_options(config), config.method)
        save_checkpoint(run.checkpoint, network, replace(card, stage=run.stage, run=run.name, config=settings))
        unused = job.source.unlabelled, job.source.folder.skipped + job.target.folder.skipped
        set_aside = write_unusable(run, session.unusable(sources, targets), *unused)
        tell(run.log, session.report)
        warn_of_changes(session.report, job.source.folder, job.target.folder)
        draw_domains(job.init, held_out, job.layers, run.directory / "domains.png", session.report)
    return TrainingResult(run, False, entries[-1], set_aside)
