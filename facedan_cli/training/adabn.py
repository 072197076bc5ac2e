"""Statistics of batch normalisation, estimated on the unlabelled target (AdaBN, Li et al. 2017)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from torch import Tensor

from facedan_cli.data.batches import FaceStore
from facedan_cli.errors import FacedanError
from facedan_cli.models.batch_norm import set_statistics, statistics_of
from facedan_cli.models.network import FaceNetwork
from facedan_cli.report import Report
from facedan_cli.training.held_out import centre_crops, readable

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
