"""The candidates of a selection: adapted networks, measured without target labels, and the choice of the best one.

Each network has three measurements:

- agreement: how well it matches two crops, perhaps mirrored, of the same target image among those of all others. It
  needs no label, and rises where variation within an identity counts for less;
- source error: the equal error rate on held-out identities of the source, or else on held-out images;
- spread: the effective rank of the target's features, which falls where they collapse.

A network is rejected where its source error rises or its features collapse. Of the others the one with the highest
agreement is chosen.
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
from facedan_cli.data.alignments import side_to_read
from facedan_cli.data.batches import BatchStream, FaceStore
from facedan_cli.data.dataset import FaceDataset
from facedan_cli.errors import FacedanError
from facedan_cli.metrics.roc import equal_error_rate
from facedan_cli.models.checkpoint import load_checkpoint
from facedan_cli.models.network import FaceNetwork
from facedan_cli.report import SILENT, Report
from facedan_cli.training.adapt_job import AdaptJob
from facedan_cli.training.datasets import LEAST_SAMPLE, Source, hold_out, part_of
from facedan_cli.training.held_out import features_of, readable

IMAGES = 256
"""Largest number of target images that are matched, and half that of source images that are verified."""

SOURCE_LOSS = 0.02
"""Largest rise of the source error over that before adaptation."""

LEAST_SPREAD = 0.5
"""Smallest effective rank of the target's features, as a share of that before adaptation."""

_VIEWS_SEED = 4


@dataclass(frozen=True)
class Candidate:
    """The measurements of a network.

    Args:
        lambda_: λ of its run.
        step: step of the kept network; 0 is the network before adaptation.
        checkpoint: its file.
        agreement: decidability of two crops of the same target image against crops of different ones (`decidability`).
        source_error: equal error rate on held-out source images.
        spread: effective rank of the target's features.
    """

    lambda_: float
    step: int
    checkpoint: Path
    agreement: float
    source_error: float
    spread: float


class Scorer:
    """Measures networks that were adapted from one network with one source and target.

    Args:
        job: one of their adaptations.
        pool: decodes the images.
        device: device of the networks.
        report: warned of images that cannot be read.

    Raises:
        FacedanError: the source has too few held-out images.
    """

    def __init__(self, job: AdaptJob, pool: ThreadPoolExecutor, device: torch.device, report: Report = SILENT) -> None:
        size = load_checkpoint(job.init)[0].image_size
        held_out, self._names = images_to_verify(job.source, job.config.holdout)
        template, target = job.card.entry.template, _images_to_match(job)
        self._verified = FaceStore(held_out, side_to_read(held_out, template, size), pool, report)
        self._matched = FaceStore(target, side_to_read(target, template, size), pool, report)
        self._seed = job.config.seed
        self._device = device

    def candidate(self, lambda_: float, step: int, checkpoint: Path) -> Candidate:
        """Measure the network of a checkpoint, kept at a step of the adaptation with a λ."""
        network = load_checkpoint(checkpoint)[0].to(self._device)
        first, second = (_view(network, self._matched, (self._seed, _VIEWS_SEED, view)) for view in (0, 1))
        return Candidate(
            lambda_,
            step,
            checkpoint,
            decidability(first @ second.T),
            _source_error(network, self._verified, self._names),
            effective_rank(features_of(network, self._matched)[network.layers[-1]]),
        )


def choose(before: Candidate, found: Sequence[Candidate]) -> Candidate:
    """The network with the highest agreement that is not rejected; else the one before adaptation.

    Args:
        before: the network before adaptation.
        found: adapted networks; the first of equals is chosen.
    """
    left = [candidate for candidate in found if not rejection_reason(candidate, before)]
    return max(left, key=lambda candidate: candidate.agreement, default=before)


def rejection_reason(candidate: Candidate, before: Candidate) -> str:
    """The reason why a network is rejected; "" if it is not."""
    if not np.isfinite([candidate.agreement, candidate.source_error, candidate.spread]).all():
        return "its features are not finite"
    if candidate.spread < LEAST_SPREAD * before.spread:
        return "its target features have collapsed"
    if candidate.source_error > before.source_error + SOURCE_LOSS:
        return "its source error has risen too far"
    return ""


def decidability(scores: Tensor) -> float:
    """The decidability d′ of scores of the same image and of different images, in standard deviations (Daugman 2003).

    (μ_same − μ_different) / √((σ²_same + σ²_different)/2). Unlike an error rate it ranks networks without errors.

    >>> decidability(torch.tensor([[1.0, 0.0], [0.2, 0.8]])) > 5
    True

    Args:
        scores: similarity of a view of each image with another view of each, the same image on the diagonal, (n, n).
    """
    scores = scores.double()
    same = scores.diagonal()
    different = scores[~torch.eye(len(scores), dtype=torch.bool, device=scores.device)]
    spread = ((same.var() + different.var()) / 2).sqrt()
    return float((same.mean() - different.mean()) / spread)


def images_to_verify(source: Source, most: int) -> tuple[FaceDataset, np.ndarray]:
    """Images of held-out identities with their names; without any, held-out images and another image of each identity.

    Args:
        source: the labelled faces.
        most: largest number of held-out images.

    Raises:
        FacedanError: there are too few to compare networks by.
    """
    folder = source.held_out
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


def _images_to_match(job: AdaptJob) -> FaceDataset:
    """Held-out target images, filled up with other target images if they are few."""
    kept, held = hold_out(job.target.folder, job.config.holdout, labelled=False)
    rows = np.linspace(0, len(kept) - 1, min(len(kept), max(0, IMAGES - len(held)))).astype(int)
    more = part_of(kept, sorted(set(rows.tolist())))
    return replace(held, paths=held.paths + more.paths, names=held.names + more.names)


@torch.no_grad()
def _view(network: FaceNetwork, images: FaceStore, seed: tuple[int, ...]) -> Tensor:
    """Normalised features of a random, possibly mirrored crop of each image, (n, d)."""
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
    rows = readable(images)  # known only now: reading finds unreadable images
    scores = (features @ features.T).double().cpu().numpy()
    upper = np.triu(np.ones_like(scores, bool), 1)
    same = names[rows][:, None] == names[rows][None]
    error = equal_error_rate(scores[same & upper], scores[~same & upper])
    return (error.low + error.high) / 2
