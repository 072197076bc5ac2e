"""Adapted networks as candidates: what is measured of each without a label of the target, and which one is best.

Three things are measured:

- how well it knows target images again: one crop of each against another, perhaps mirrored, among those of all others.
  That asks for no name, and it rises where what varies between pictures of a person counts for less;
- how well it verifies the source's people whom no training saw, or else images that none saw;
- how far the target's features spread: where they have fallen together all faces look alike.

A network that has lost the source or whose features have fallen together is out. Of the others the one is taken that
knows target images best.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from facedan_cli.adaptation.diagnostics import effective_rank
from facedan_cli.data.batches import BatchStream, FaceStore
from facedan_cli.data.dataset import FaceDataset
from facedan_cli.errors import FacedanError
from facedan_cli.metrics.roc import equal_error_rate
from facedan_cli.models.checkpoint import load_checkpoint
from facedan_cli.models.network import FaceNetwork
from facedan_cli.report import SILENT, Report
from facedan_cli.training.adapt import AdaptJob
from facedan_cli.training.datasets import LEAST_SAMPLE, Source, hold_out, part_of
from facedan_cli.training.held_out import features_of, readable

IMAGES = 256
"""Target images, at most, that are to be known again; and source images that are verified."""

SOURCE_LOSS = 0.02
"""A network may verify the source worse than the one before adaptation by so much equal error rate, no more."""

LEAST_SPREAD = 0.5
"""Its target features keep at least this share of the effective rank that they had before."""

_VIEWS_SEED = 4


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

    lambda_: float
    step: int
    checkpoint: Path
    agreement: float
    source_error: float
    spread: float


class Scorer:
    """Measures networks that start from the same one and are adapted from and to the same faces.

    Args:
        job: one of their adaptations.
        pool: decodes the images.
        device: where the networks run.
        report: told of images that cannot be read.

    Raises:
        FacedanError: there are too few images of the source to judge networks by.
    """

    def __init__(self, job: AdaptJob, pool: ThreadPoolExecutor, device: torch.device, report: Report = SILENT) -> None:
        size = load_checkpoint(job.init)[0].image_size
        people, self._names = images_to_verify(job.source, job.config.holdout)
        self._verified = FaceStore(people, size, pool, report)
        self._known = FaceStore(_to_know_again(job), size, pool, report)
        self._seed = job.config.seed
        self._device = device

    def candidate(self, lambda_: float, step: int, checkpoint: Path) -> Candidate:
        """Measure the network of a checkpoint, that of a step of the adaptation with a λ."""
        network = load_checkpoint(checkpoint)[0].to(self._device)
        first, second = (_view(network, self._known, (self._seed, _VIEWS_SEED, view)) for view in (0, 1))
        return Candidate(
            lambda_,
            step,
            checkpoint,
            decidability(first @ second.T),
            _source_error(network, self._verified, self._names),
            effective_rank(features_of(network, self._known)[network.layers[-1]]),
        )


def choose(before: Candidate, found: Sequence[Candidate]) -> Candidate:
    """The network that knows target images best, of those that are not out; else the one before adaptation.

    Args:
        before: the network before adaptation.
        found: adapted networks; of equals the first is taken.
    """
    left = [candidate for candidate in found if not rejection_reason(candidate, before)]
    return max(left, key=lambda candidate: candidate.agreement, default=before)


def rejection_reason(candidate: Candidate, before: Candidate) -> str:
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


def images_to_verify(source: Source, most: int) -> tuple[FaceDataset, np.ndarray]:
    """Images of people held aside and their names; without such people, images held aside with one other of each.

    Args:
        source: the labelled faces.
        most: how many images are held aside.

    Raises:
        FacedanError: there are too few to judge networks by.
    """
    folder = source.aside
    if len(folder) < LEAST_SAMPLE:
        kept, held = hold_out(source.folder, most, labelled=True)
        names = list(kept.names)
        partners = [names.index(name) for name in held.names]
        paths = held.paths + tuple(kept.paths[row] for row in partners)
        folder = replace(source.folder, paths=paths, names=held.names * 2)
    folder = part_of(folder, range(min(len(folder), 2 * IMAGES)))
    names_of = np.array(folder.names)
    if len(folder) < LEAST_SAMPLE or len(set(folder.names)) < 2:
        raise FacedanError(
            f"the source '{source.dataset.name}' has too few held-out images to compare networks by",
            "pretrain with --holdout-identities, or raise --holdout",
        )
    return folder, names_of


def _to_know_again(job: AdaptJob) -> FaceDataset:
    """Target images that no training saw; where they are few, others besides."""
    kept, held = hold_out(job.target.folder, job.config.holdout, labelled=False)
    rows = np.linspace(0, len(kept) - 1, min(len(kept), max(0, IMAGES - len(held)))).astype(int)
    more = part_of(kept, sorted(set(rows.tolist())))
    return replace(held, paths=held.paths + more.paths, names=held.names + more.names)


@torch.no_grad()
def _view(network: FaceNetwork, images: FaceStore, seed: tuple[int, ...]) -> Tensor:
    """Directions of the features of a random crop of each image, perhaps mirrored, (n, length)."""
    count = len(images.folder)
    stream = BatchStream(images, np.arange(count), 64, network.crop, seed)
    device = next(network.parameters()).device
    features, order = [], []
    for crops, numbers in stream.batches(0, -(-count // stream.batch), device):
        features.append(network(crops)[network.layers[-1]].float())
        order.append(numbers)
    numbers = torch.cat(order)[:count]  # an epoch: each image once
    return F.normalize(torch.cat(features)[:count][numbers.argsort()])


def _source_error(network: FaceNetwork, images: FaceStore, names: np.ndarray) -> float:
    features = F.normalize(features_of(network, images)[network.layers[-1]])
    rows = readable(images)  # what cannot be read is known now
    scores = (features @ features.T).double().cpu().numpy()
    upper = np.triu(np.ones_like(scores, bool), 1)
    same = names[rows][:, None] == names[rows][None]
    error = equal_error_rate(scores[same & upper], scores[~same & upper])
    return (error.low + error.high) / 2
