"""`adapt --method whiten`: embeddings are whitened by the mean and covariance of the unlabelled target."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from facedan_cli.adaptation.whitening import estimated_people, whitening
from facedan_cli.config.common import hashed_options
from facedan_cli.data.batches import FaceStore
from facedan_cli.data.same_images import keep_images
from facedan_cli.errors import FacedanError
from facedan_cli.models.checkpoint import load_checkpoint, save_checkpoint
from facedan_cli.models.network import FaceNetwork
from facedan_cli.models.whitening import Whitening
from facedan_cli.report import SILENT, Report
from facedan_cli.training.adapt_job import AdaptJob, carried_on
from facedan_cli.training.datasets import (
    LEAST_SAMPLE,
    TrainingResult,
    hold_out,
    warn_of_changes,
    write_unusable,
)
from facedan_cli.training.held_out import centre_crops, evaluating, readable
from facedan_cli.training.resolve import of_method
from facedan_cli.training.session import training_session
from facedan_cli.workspace import write_text

MOST_IMAGES = 4096
"""Largest number of target images that the moments are of; of more, the seed draws so many."""

ENOUGH_PEOPLE = 20
"""With fewer people in the target the gain is uncertain."""

LEAST_PEOPLE = 5
"""With fewer people nothing is whitened: mean and covariance would be those people."""

_BATCH = 64


def whiten(job: AdaptJob, *, force: bool = False, report: Report = SILENT) -> TrainingResult:
    """Carry out a planned adaptation by whitening: no weight changes, and no label is read.

    Held-out images of the source, one an identity, tell how much impostors resemble each other. By that the number of
    people in the target is estimated. The classifier stays that of the initial network.

    Raises:
        FacedanError: the target shows too few people.
    """
    config, run = job.config, job.run
    with training_session(config, run, job.caches, force=force, report=report) as session:
        job.tell_of_inputs(session.report)
        network, card = load_checkpoint(job.init)
        session.report.note(f"starting from {card.run} ({job.init})")
        if network.whitening is not None:
            session.report.note(f"the whitening of {card.run} is replaced")
            network.whitening = None
        network.to(session.device)
        source, held_out = hold_out(job.source.folder, config.holdout, labelled=True)
        keep_images(run.directory, {"source": source, "target": job.target.folder})
        sources = session.images(held_out, network.image_size, job.card.entry.template)
        targets = session.images(job.target.folder, network.image_size, job.card.entry.template)
        target = _rows_of_target(network, targets, config.seed, session.report, flip=config.whiten_flip)
        impostors = _rows(network, sources, range(len(held_out)), flip=config.whiten_flip)
        people = _people(target, impostors, session.report)
        try:
            mean, matrix = whitening(target, config.whiten_power, config.whiten_rank)
        except ValueError as error:
            raise FacedanError(
                f"the embeddings of '{job.target.dataset.name}' are all the same", "check images and network"
            ) from error
        network.whitening = _module(mean, matrix).to(session.device)
        entry: dict[str, Any] = {"step": 1, "images": len(target), "people": None if people is None else round(people)}
        write_text(run.log, json.dumps(entry) + "\n")
        settings = carried_on(card) | of_method(hashed_options(config), config.method)
        settings |= {"whiten_power": config.whiten_power, "whiten_flip": config.whiten_flip, "images": len(target)}
        save_checkpoint(run.checkpoint, network, replace(card, stage=run.stage, run=run.name, config=settings))
        unused = job.source.unlabelled, job.source.folder.skipped + job.target.folder.skipped
        set_aside = write_unusable(run, session.unusable(sources, targets), *unused)
        warn_of_changes(session.report, job.source.folder, job.target.folder)
    return TrainingResult(run, False, entry, set_aside)


def _rows_of_target(network: FaceNetwork, images: FaceStore, seed: int, report: Report, *, flip: bool) -> np.ndarray:
    """The embeddings of the target's images, or of a sample of them, shape (n, d)."""
    drawn = readable(images)
    if len(drawn) > MOST_IMAGES:
        report.note(f"{MOST_IMAGES:,} of {len(drawn):,} target images are drawn by the seed for mean and covariance")
        drawn = sorted(np.random.default_rng(seed).permutation(drawn)[:MOST_IMAGES].tolist())
    rows = _rows(network, images, drawn, flip=flip)
    report.note(f"mean and covariance are of the embeddings of {len(rows)} target images")
    return rows


def _people(target: np.ndarray, impostors: np.ndarray, report: Report) -> float | None:
    """The estimated number of people in the target, None where nothing tells it; warns if it is small or unknown.

    Raises:
        FacedanError: it is below `LEAST_PEOPLE`.
    """
    few = f"give images of {ENOUGH_PEOPLE} people or more"
    if len(target) < LEAST_PEOPLE:
        raise FacedanError(f"{len(target)} target images show too few people to whiten by", few)
    if len(impostors) < LEAST_SAMPLE:
        report.warn(
            f"{len(impostors)} held-out source images are too few to estimate the number of people in the target: with "
            f"fewer than {ENOUGH_PEOPLE} the gain is uncertain and may be harm"
        )
        return None
    people = estimated_people(target, impostors)
    said = f"the {len(target)} target images show about {people:.0f} people"
    if round(people) < LEAST_PEOPLE:
        raise FacedanError(f"{said}: their mean and covariance would be those people", few)
    if round(people) < ENOUGH_PEOPLE:
        report.warn(f"{said}: with fewer than {ENOUGH_PEOPLE} the gain is uncertain and may be harm")
    else:
        report.note(said)
    return people


def _module(mean: np.ndarray, matrix: np.ndarray) -> Whitening:
    made = Whitening(len(mean))
    made.mean.copy_(torch.from_numpy(mean))
    made.matrix.copy_(torch.from_numpy(matrix))
    return made


@torch.no_grad()
def _rows(network: FaceNetwork, images: FaceStore, rows: Sequence[int], *, flip: bool) -> np.ndarray:
    """Rows of length one as `Embedder` makes them before it whitens, shape (n, d), of the images that can be read."""

    def embedded() -> Iterator[Tensor]:
        parts = [rows[start : start + _BATCH] for start in range(0, len(rows), _BATCH)]
        for crops in centre_crops(network, images, parts):
            features = network(crops)[network.layers[-1]]
            if flip:
                features = features + network(crops.flip(3))[network.layers[-1]]
            yield F.normalize(features.float()).cpu()

    with evaluating(network):
        found = list(embedded())
    return torch.cat(found).numpy() if found else np.empty((0, 0), np.float32)
