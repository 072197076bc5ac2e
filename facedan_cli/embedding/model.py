"""What faces are recognised by: a network or a PCANet, which lie in checkpoints, or LBP, which needs no training."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

from facedan_cli.config.fields import check_choice
from facedan_cli.config.models import CLASSICAL, NETWORKS
from facedan_cli.embedding.similarity import CHI_SQUARE, COSINE, Similarity
from facedan_cli.errors import FacedanError, UsageError
from facedan_cli.models import lbp
from facedan_cli.models.checkpoint import ModelCard, read_card
from facedan_cli.runs import checkpoint_of, find_checkpoint, newest_run
from facedan_cli.workspace import Workspace, digest, sha256_file


@dataclass(frozen=True)
class FaceModel:
    """A model that gives features of faces.

    Args:
        card: what is known of it.
        checkpoint: its file; None of LBP, which has none.
    """

    card: ModelCard
    checkpoint: Path | None

    @classmethod
    def of(cls, checkpoint: Path) -> FaceModel:
        """That of a checkpoint.

        Raises:
            FacedanError: the file is none.
        """
        return cls(read_card(checkpoint), checkpoint)

    def __str__(self) -> str:
        return CLASSICAL["lbp"] if self.checkpoint is None else str(self.checkpoint)

    @cached_property
    def sha256(self) -> str:
        """What tells it from others: the digest of its file, or of the constants that define it."""
        if self.checkpoint is None:
            return digest([asdict(lbp.FRAME), lbp.WEIGHTS])
        return sha256_file(self.checkpoint)

    @property
    def classical(self) -> bool:
        """Whether it is no network: it has no layers, and sees faces by a frame of its own."""
        return self.card.model in CLASSICAL

    @property
    def similarity(self) -> Similarity:
        """How its features are compared."""
        return CHI_SQUARE if self.card.model == "lbp" else COSINE

    def layer(self, asked: str | None, *, flip: bool) -> str | None:
        """The layer whose features are meant, the last by default; None of a classical model.

        Args:
            asked: --layer.
            flip: --flip.

        Raises:
            UsageError: the model has no such layer, or the options mean nothing for it.
        """
        if not self.classical:
            layers = NETWORKS[self.card.model].layers
            check_choice("--layer", asked or layers[-1], layers)
            return asked or layers[-1]
        for option, given in (("--layer", asked is not None), ("--flip", flip)):
            if given:
                raise UsageError(
                    f"{option} means nothing for {CLASSICAL[self.card.model]}",
                    f"leave {option} out, or measure it by a command of its own",
                )
        return None


LBP = FaceModel(ModelCard("lbp", (), "none", "lbp", {}), None)
"""It is learnt from nothing: no run made it."""


def find_model(workspace: Workspace, name: str | None) -> FaceModel:
    """The model that is meant: the one named, else the newest finished adapt run's, else the newest pretrain run's.

    `lbp` means LBP, unless something of that name is there.

    Raises:
        FacedanError: there is none.
    """
    if name is not None:
        if name == "lbp" and not Path(name).exists() and not (workspace.root / "runs" / name).exists():
            return LBP
        return FaceModel.of(find_checkpoint(workspace, name))
    newest = newest_run(workspace, "adapt") or newest_run(workspace, "pretrain")
    if newest is None:
        raise FacedanError(
            f"there is no finished model in {workspace.root / 'runs'}",
            "run `facedan pretrain` and `facedan adapt` first, or name a checkpoint with --model",
        )
    return FaceModel.of(checkpoint_of(newest))
