"""The criterion of a selection: verification of labelled source images that were made to look like the target.

Source images of held-out identities take the looks of random target images (`adaptation.restyle`). Centring, whitening
and batch statistics are those of other source images in the same looks, of as many people as the target seems to show.
So each candidate meets what it would meet on the target, and the labels of the source measure it. No label of the
target is read. A shift that is none of looks, as of age or pose, cannot be seen so: there the network tends to be kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from facedan_cli.adaptation.diagnostics import effective_rank
from facedan_cli.adaptation.restyle import restyle
from facedan_cli.adaptation.whitening import estimated_people, whitening
from facedan_cli.data.alignments import side_to_read
from facedan_cli.data.batches import FaceStore
from facedan_cli.data.dataset import FaceDataset
from facedan_cli.errors import FacedanError
from facedan_cli.metrics.bootstrap import vr_replicates
from facedan_cli.metrics.roc import far_budget, parse_far, verification_rate
from facedan_cli.models.batch_norm import set_statistics, statistics_of
from facedan_cli.models.checkpoint import load_checkpoint
from facedan_cli.models.network import FaceNetwork
from facedan_cli.report import SILENT, Report
from facedan_cli.training.adapt_job import AdaptJob
from facedan_cli.training.candidates import CHANGES, Candidate
from facedan_cli.training.datasets import LEAST_SAMPLE, Source, by_digest, hold_out, part_of
from facedan_cli.training.held_out import centre_crops, evaluating, readable
from facedan_cli.training.whiten import LEAST_PEOPLE

IMAGES = 512
"""Largest number of source images that are compared, of those that give moments, and of target images."""

PARTNERS = 3
"""Training images of each identity that its held-out image is compared with, where no identities are held out."""

FARS = ("0.001", "0.01", "0.1")
"""False-accept rates: of those at which enough impostor comparisons are accepted, the most telling one is taken."""

LEAST_ACCEPTED = 30
"""Smallest number of accepted impostor comparisons."""

REPLICATES = 500

LOOKS = ("resolution", "histogram")
"""The looks of the target that source images take, of `config.looks.RESTYLINGS`."""

_BATCH, _SEED = 64, 4


@dataclass(frozen=True)
class Verified:
    """Source images that are compared.

    Args:
        folder: the images, with their identities.
        unseen: which of them no training sees; each comparison has one of these at least, shape (images,).
        known_identities: whether training images of the same identities were seen in training.
    """

    folder: FaceDataset
    unseen: np.ndarray
    known_identities: bool


class Criterion:
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
        network = load_checkpoint(job.init)[0].to(device)
        network.whitening = None

        def crops(folder: FaceDataset) -> tuple[Tensor, list[int]]:
            store = FaceStore(folder, side_to_read(folder, job.card.entry.template, network.image_size), pool, report)
            parts = (range(row, min(row + _BATCH, len(folder))) for row in range(0, len(folder), _BATCH))
            found = torch.cat(list(centre_crops(network, store, parts)))
            return found.cpu(), readable(store)

        verified = images_to_verify(job.source, job.config.holdout)
        self.known_identities = verified.known_identities
        rng = np.random.default_rng((job.config.seed, _SEED))
        rows = sorted(rng.permutation(len(job.target.folder))[:IMAGES].tolist())
        self._target, _ = crops(part_of(job.target.folder, rows))

        def in_looks(images: Tensor) -> Tensor:
            looks = rng.integers(len(self._target), size=len(images))
            parts = zip(_parts(images), _parts(torch.from_numpy(looks)), strict=True)
            return torch.cat([restyle(part, self._target[look], LOOKS) for part, look in parts])

        faces, found = crops(verified.folder)
        names = np.array(verified.folder.names)[found]
        self._compared = _Compared(names, verified.unseen[found])
        self._verified = in_looks(faces)
        self._compared.settle(embedded(network, self._verified, device))
        one_each = np.unique(names, return_index=True)[1]
        self.people = self._people(network, one_each)
        others, _ = hold_out(job.source.folder, job.config.holdout, labelled=True)
        seen = set(verified.folder.paths)
        others = part_of(others, [row for row, path in enumerate(others.paths) if path not in seen])
        people = None if self.people is None else max(LEAST_PEOPLE, round(self.people))
        self._others = in_looks(crops(spread_over(others, len(self._target), people))[0])
        self._device = device

    @property
    def far(self) -> str:
        """The false-accept rate of the rates."""
        return self._compared.far

    @property
    def identities(self) -> int:
        """The number of identities that are verified."""
        return self._compared.identities

    def adabn(self, network: FaceNetwork, mix: float) -> FaceNetwork:
        """A network whose batch statistics are mixed with those of source images in the looks of the target."""
        batches = self._others[torch.randperm(len(self._others), generator=torch.Generator().manual_seed(0))]
        found = statistics_of(network, (part.to(self._device) for part in _parts(batches) if len(part) > 1))
        set_statistics(network, found, mix)
        return network

    def candidates(
        self, network: FaceNetwork, name: str, change: str, powers: tuple[float | None, ...], order: float = 0.0
    ) -> Iterator[Candidate]:
        """Measure a network as it is (power None), centred (0) and whitened.

        Args:
            network: on the device of the criterion.
            name: its name.
            change: what it changes, of `CHANGES`.
            powers: powers of the whitenings.
            order: from 0 to 1, its place among those that change the same.
        """
        network.whitening = None
        rows, moments = (embedded(network, crops, self._device) for crops in (self._verified, self._others))
        finite = np.isfinite(rows).all() and np.isfinite(moments).all()
        spread = effective_rank(torch.from_numpy(embedded(network, self._target, self._device))) if finite else 0.0
        for power in powers:
            kind = "" if power is None else "centre" if power == 0 else "whiten"
            called = "+".join(part for part in (name if name != "keep" else "", kind) if part) or "keep"
            place = CHANGES.index(change if not kind else kind if change == "keep" else f"{change}+whiten")
            out = "" if finite else "its features are not finite"
            if power is not None and self.people is not None and round(self.people) < LEAST_PEOPLE:
                out = out or f"the target shows about {self.people:.0f} people: too few to centre or whiten by"
            rate, replicates = float("nan"), np.full(REPLICATES, np.nan)
            if finite:
                rate, replicates = self._compared.rates(rows if power is None else _whitened(rows, moments, power))
            yield Candidate(called, place + 0.9 * order, name, power, rate, replicates, spread, out)

    def _people(self, network: FaceNetwork, one_each: np.ndarray) -> float | None:
        """The estimated number of people in the target; None where nothing tells it."""
        device = next(network.parameters()).device
        impostors = embedded(network, self._verified[one_each], device)
        if len(impostors) < LEAST_SAMPLE or len(self._target) < LEAST_PEOPLE:
            return None
        return estimated_people(embedded(network, self._target, device), impostors)


class _Compared:
    """The comparisons, with their identities and the false-accept rate that their number allows."""

    def __init__(self, names: np.ndarray, unseen: np.ndarray) -> None:
        codes = np.unique(names, return_inverse=True)[1]
        first, second = np.triu_indices(len(names), 1)
        used = unseen[first] | unseen[second]
        first, second = first[used], second[used]
        self._pairs = first, second
        self._same = codes[first] == codes[second]
        self._genuine = codes[first][self._same]
        self._impostors = codes[first][~self._same], codes[second][~self._same]
        self.identities = len(np.unique(self._genuine))
        count = int((~self._same).sum())
        self._fars = [far for far in FARS if far_budget(parse_far(far), count) >= LEAST_ACCEPTED] or [FARS[-1]]
        self.far = self._fars[0]

    def settle(self, rows: np.ndarray) -> None:
        """Take the FAR at which these rows have a rate nearest to one half: 0 and 1 leave nothing to tell apart."""
        first, second = self._pairs
        scores = (rows @ rows.T)[first, second]
        genuine, impostor = scores[self._same], scores[~self._same]
        self.far = min(self._fars, key=lambda far: abs(verification_rate(genuine, impostor, far).vr - 0.5))

    def rates(self, rows: np.ndarray) -> tuple[float, np.ndarray]:
        first, second = self._pairs
        scores = (rows @ rows.T)[first, second]
        genuine, impostor = scores[self._same], scores[~self._same]
        replicates = vr_replicates(
            genuine, self._genuine, impostor, *self._impostors, fars=[self.far], replicates=REPLICATES
        )
        return verification_rate(genuine, impostor, self.far).vr, replicates[0]


def images_to_verify(source: Source, most: int) -> Verified:
    """Images of held-out identities; without any, held-out images and training images of the same identities.

    Args:
        source: the labelled faces.
        most: largest number of held-out images, --holdout.

    Raises:
        FacedanError: there are too few to compare networks by.
    """
    if len(set(source.held_out.names)) >= LEAST_SAMPLE:
        folder = spread_over(source.held_out, IMAGES)
        return Verified(folder, np.ones(len(folder), bool), False)
    kept, held = hold_out(source.folder, most, labelled=True)
    if len(held) < LEAST_SAMPLE:
        raise FacedanError(
            f"the source '{source.dataset.name}' has too few held-out images to compare networks by",
            "pretrain with --holdout-identities, or raise --holdout",
        )
    own = part_of(kept, [row for row, name in enumerate(kept.names) if name in set(held.names)])
    partners = spread_over(own, PARTNERS * len(held))
    folder = replace(held, paths=held.paths + partners.paths, names=held.names + partners.names)
    return Verified(folder, np.arange(len(folder)) < len(held), True)


def spread_over(folder: FaceDataset, most: int, identities: int | None = None) -> FaceDataset:
    """Images of a labelled data set, as many of each identity as of any other while they last.

    Args:
        folder: the data set.
        most: number of images at most.
        identities: number of identities at most; None: all.
    """
    order = sorted(set(folder.names), key=by_digest)[:identities]
    place, taken = {name: index for index, name in enumerate(order)}, dict.fromkeys(order, 0)
    ranked = []
    for row in sorted(range(len(folder)), key=lambda row: by_digest(folder.paths[row])):
        name = folder.names[row]
        if name in taken:
            ranked.append((taken[name], place[name], row))
            taken[name] += 1
    return part_of(folder, sorted(row for *_, row in sorted(ranked)[:most]))


@torch.no_grad()
def embedded(network: FaceNetwork, crops: Tensor, device: torch.device) -> np.ndarray:
    """Rows of length one, float64, shape (n, d), of uint8 crops."""
    with evaluating(network):
        found = [F.normalize(network(part.to(device))[network.layers[-1]].float()).cpu() for part in _parts(crops)]
    rows: np.ndarray = torch.cat(found).double().numpy()
    return rows


def _parts(rows: Tensor) -> Iterator[Tensor]:
    return (rows[start : start + _BATCH] for start in range(0, len(rows), _BATCH))


def _whitened(rows: np.ndarray, others: np.ndarray, power: float) -> np.ndarray:
    mean, matrix = whitening(others, power)
    moved: np.ndarray = (rows - mean) @ matrix
    moved /= np.linalg.norm(moved, axis=1, keepdims=True)
    return moved
