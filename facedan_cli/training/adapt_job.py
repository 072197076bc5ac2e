"""A planned adaptation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from facedan_cli.config.training import AdaptConfig
from facedan_cli.embedding.alignment import Expected
from facedan_cli.models.checkpoint import ModelCard
from facedan_cli.models.whitening import is_whitened
from facedan_cli.report import Report
from facedan_cli.runs import Run
from facedan_cli.training.datasets import Source, check_alignment, going_on, tell_of_inputs
from facedan_cli.training.target_list import Target
from facedan_cli.workspace import Workspace

OF_INIT = ("head", "margin", "scale", "hold_people", "input_normalisation")
"""What the card of the initial network says that is still true after an adaptation without training."""


def carried_on(card: ModelCard) -> dict[str, Any]:
    """The options that a network keeps from its card when it is adapted without training.

    Those of the adaptation before it are under `after`; a whitening is replaced, and so are its options.
    """
    kept = {key: card.config[key] for key in OF_INIT if key in card.config}
    before = card.config.get("after") if is_whitened(card.config) else card.config if card.stage == "adapt" else None
    return kept | ({} if before is None else {"after": dict(before)})


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
        workspace: where runs and decoded faces lie.
        shared: number of images in both source and target.
        then: the configuration of the further stages of its method, which start from this run; None: it is the last.
    """

    config: AdaptConfig
    source: Source
    target: Target
    init: Path
    card: ModelCard
    layers: Mapping[str, float]
    bandwidth_multipliers: tuple[float, ...]
    run: Run
    workspace: Workspace
    shared: int
    then: AdaptConfig | None = None

    @property
    def caches(self) -> Path:
        """The directory of decoded faces."""
        return self.workspace.root / "cache"

    @property
    def expected(self) -> Expected:
        """The alignment that the initial network expects."""
        return expected_by(self.card, self.init)

    @property
    def keeps_classifier(self) -> bool:
        """Whether the classifier of the initial network is of the same identities, with the same head."""
        card = self.card
        return card.identities == self.source.identities and card.head.get("head", "softmax") == self.config.head

    def tell_of_inputs(self, report: Report) -> None:
        """Say what may be wrong with the images: their alignment, unlabelled ones, and those of both domains."""
        check_alignment(report, self.expected, self.source.dataset, self.target.dataset)
        tell_of_inputs(report, self.source, self.target.folder)
        if self.shared:
            report.warn(f"{self.shared} images of the target are in the source too, with labels: leave them out")

    @property
    def seed(self) -> int:
        """The seed of the training, which differs from that of the initial network's training."""
        return going_on("adapt", self.config.seed, self.run.inputs["init"]["sha256"])


def expected_by(card: ModelCard, init: Path) -> Expected:
    """The alignment that a network expects."""
    expected = Expected.of(card, init)
    assert expected is not None, "only networks are adapted"
    return expected
