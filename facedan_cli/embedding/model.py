"""Models that compute features of faces: networks and PCANet in checkpoints, and LBP, which has no file."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import Enum
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


class Kind(Enum):
    """The kind of a model."""

    NETWORK = "network"
    PCANET = "pcanet"
    LBP = "lbp"

    @classmethod
    def of(cls, model: str) -> Kind:
        """The kind of a model by its name in `config.models`."""
        return cls(model) if model in CLASSICAL else cls.NETWORK


@dataclass(frozen=True)
class FaceModel:
    """A model that computes features of faces.

    Args:
        card: description of the model.
        checkpoint: its file; None of the kind LBP alone.
    """

    card: ModelCard
    checkpoint: Path | None

    @classmethod
    def of(cls, checkpoint: Path) -> FaceModel:
        """The model in a checkpoint.

        Raises:
            FacedanError: the file is no checkpoint.
        """
        return cls(read_card(checkpoint), checkpoint)

    def __str__(self) -> str:
        return CLASSICAL["lbp"] if self.kind is Kind.LBP else str(self.file)

    @property
    def kind(self) -> Kind:
        """The kind of the model."""
        return Kind.of(self.card.model)

    @property
    def classical(self) -> bool:
        """Whether the model is PCANet or LBP, which have no layers and a frame of their own."""
        return self.kind is not Kind.NETWORK

    @property
    def file(self) -> Path:
        """The checkpoint of a network or of a PCANet."""
        assert self.checkpoint is not None, f"{self.kind} has no file"
        return self.checkpoint

    @cached_property
    def sha256(self) -> str:
        """The digest of the model's file, or of the constants that define LBP."""
        match self.kind:
            case Kind.LBP:
                return digest([asdict(lbp.FRAME), lbp.WEIGHTS])
            case Kind.PCANET | Kind.NETWORK:
                return sha256_file(self.file)

    @property
    def similarity(self) -> Similarity:
        """The similarity of the model's features."""
        return CHI_SQUARE if self.kind is Kind.LBP else COSINE

    def layer(self, asked: str | None, *, flip: bool) -> str:
        """The layer whose features are used, by default the last; "" for a classical model.

        Args:
            asked: --layer.
            flip: --flip.

        Raises:
            UsageError: the model has no such layer, or is classical and an option is given.
        """
        if self.kind is Kind.NETWORK:
            layers = NETWORKS[self.card.model].layers
            check_choice("--layer", asked or layers[-1], layers)
            return asked or layers[-1]
        for option, given in (("--layer", asked is not None), ("--flip", flip)):
            if given:
                raise UsageError(
                    f"{option} means nothing for {CLASSICAL[self.card.model]}",
                    f"leave {option} out, or measure it by a command of its own",
                )
        return ""


LBP = FaceModel(ModelCard("lbp", (), "none", "lbp", {}), None)
"""LBP, which needs no training."""


def find_model(workspace: Workspace, name: str | None) -> FaceModel:
    """The named model, else that of the newest finished adapt run, else that of the newest pretrain run.

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
