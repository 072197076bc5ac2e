"""A planned adaptation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from facedan_cli.config.training import AdaptConfig
from facedan_cli.embedding.alignment import Expected
from facedan_cli.models.checkpoint import ModelCard
from facedan_cli.runs import Run
from facedan_cli.training.datasets import Source, going_on
from facedan_cli.training.target_list import Target


@dataclass(frozen=True)
class AdaptJob:
    """A checked and planned adaptation.

    Args:
        config: resolved.
        source: labelled faces.
        target: unlabelled faces.
        init: the initial checkpoint.
        card: description of the initial network.
        layers: adapted layers with their weights.
        bandwidth_multipliers: bandwidths of the kernels as multiples of γ.
        run: run of the result.
        caches: directory of decoded faces.
        shared: number of images in both source and target.
    """

    config: AdaptConfig
    source: Source
    target: Target
    init: Path
    card: ModelCard
    layers: Mapping[str, float]
    bandwidth_multipliers: tuple[float, ...]
    run: Run
    caches: Path
    shared: int

    @property
    def expected(self) -> Expected:
        """The alignment that the initial network expects."""
        return expected_by(self.card, self.init)

    @property
    def keeps_classifier(self) -> bool:
        """Whether the classifier of the initial network is of the same identities, with the same head."""
        card = self.card
        return card.identities == self.source.identities and card.head.get("head", "softmax") == self.config.head

    @property
    def seed(self) -> int:
        """The seed of the training, which differs from that of the initial network's training."""
        return going_on("adapt", self.config.seed, self.run.inputs["init"]["sha256"])


def expected_by(card: ModelCard, init: Path) -> Expected:
    """The alignment that a network expects."""
    expected = Expected.of(card, init)
    assert expected is not None, "only networks are adapted"
    return expected
