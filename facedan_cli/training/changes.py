"""The changes of source images in training: augmentation, drawn masks and restyling, by the options."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from facedan_cli.adaptation.restyle import restyle
from facedan_cli.config.looks import AUGMENTATIONS, RESTYLINGS, kinds_of
from facedan_cli.config.methods import methods_of
from facedan_cli.config.training import AdaptConfig, TrainingConfig
from facedan_cli.data.augment import Random, augmentation
from facedan_cli.data.batches import FaceStore
from facedan_cli.data.dataset import FaceDataset
from facedan_cli.data.masks import draw_mask, landmarks_of
from facedan_cli.report import Report

_RESTYLE_SEED = 9


@dataclass(frozen=True)
class Restyling:
    """Gives a share of the source images the looks of the target images in their rows.

    Args:
        kinds: of `RESTYLINGS`.
        share: probability for each image.
        seed: of the training.
        rows: rows of the batch that this process has.
    """

    kinds: tuple[str, ...]
    share: float
    seed: int
    rows: range

    def __call__(self, source: Tensor, target: Tensor, step: int) -> Tensor:
        """The source images of a step, uint8, (rows, 3, h, w); which ones change is a function of seed and step."""
        drawn = np.random.default_rng((self.seed, _RESTYLE_SEED, step)).random(self.rows.stop)[self.rows.start :]
        chosen = torch.from_numpy(np.flatnonzero(drawn < self.share)).to(source.device)
        if not len(chosen):
            return source
        changed = source.clone()
        changed[chosen] = restyle(source[chosen], target[chosen], self.kinds)
        return changed


def restyling(config: AdaptConfig, seed: int, rows: range) -> Restyling | None:
    """The restyling of an adaptation; None where its method has none."""
    if "restyle" not in methods_of(config.method):
        return None
    return Restyling(kinds_of("--restyle-by", config.restyle_by, RESTYLINGS), config.restyle_share, seed, rows)


def source_change(
    config: TrainingConfig, folder: FaceDataset, images: FaceStore, template: str, report: Report
) -> Callable[[np.ndarray, int, Random], np.ndarray] | None:
    """The change of each source face before it is cropped; None where the options ask for none.

    Args:
        config: the options.
        folder: the training images of the source.
        images: a store of them.
        template: the network's template.
        report: told of faces whose landmarks are not known.
    """
    kinds = kinds_of("--augment", config.augment, AUGMENTATIONS)
    share = config.mask_share if isinstance(config, AdaptConfig) and "masks" in methods_of(config.method) else 0.0
    if not kinds and not share:
        return None
    augment, usual = augmentation(kinds), np.empty((0, 2))
    points: Mapping[str, np.ndarray] = {}
    if share:
        points, usual = landmarks_of(folder, images.size, template)
        if unknown := sum(path not in points for path in folder.paths):
            report.note(f"masks on {unknown} of {len(folder)} source faces lie by the template: they have no landmarks")

    def change(face: np.ndarray, index: int, random: Random) -> np.ndarray:
        if share and random.random() < share:
            face = draw_mask(face, points.get(folder.paths[index], usual), random)
        return augment(face, random)

    return change
