"""Models that compute features of faces: networks and PCANet in checkpoints, and LBP, which has no file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import Enum
from functools import cached_property
from pathlib import Path
from typing import Any

from facedan_cli.config import models as known
from facedan_cli.config.fields import check_choice
from facedan_cli.config.models import CLASSICAL, NETWORKS
from facedan_cli.config.networks import ONNX_NETWORK, is_network, network_entry, release_of
from facedan_cli.embedding.published import (
    code_digest,
    find_weights,
    import_network,
    import_onnx,
    import_weights,
)
from facedan_cli.embedding.similarity import CHI_SQUARE, COSINE, Similarity
from facedan_cli.errors import FacedanError, UsageError
from facedan_cli.models import lbp
from facedan_cli.models.checkpoint import ModelCard, card_of_graph, has_card, layer_paths, read_card
from facedan_cli.models.pretrained.formats import network_of
from facedan_cli.models.pretrained.hub import download, is_hub_name
from facedan_cli.models.whitening import flip_warning
from facedan_cli.onnx_graph import Graph, is_onnx, output_of, preprocessing_of, read_graph
from facedan_cli.report import SILENT, Report
from facedan_cli.runs import checkpoint_of, find_checkpoint, newest_run
from facedan_cli.workspace import Workspace, digest, sha256_file


class Kind(Enum):
    """The kind of a model."""

    NETWORK = "network"
    PCANET = known.PCANET
    LBP = known.LBP
    ONNX = known.ONNX

    @classmethod
    def of(cls, model: str) -> Kind:
        """The kind of a model by its name in `config.models`."""
        return cls(model) if model in (*CLASSICAL, known.ONNX) else cls.NETWORK


@dataclass(frozen=True)
class FaceModel:
    """A model that computes features of faces.

    Args:
        card: description of the model.
        checkpoint: its file; None of the kind LBP alone.
        settings: of an ONNX graph's input, as the options have them.
    """

    card: ModelCard
    checkpoint: Path | None
    settings: Mapping[str, str] | None = None

    @classmethod
    def of(cls, checkpoint: Path) -> FaceModel:
        """The model in a checkpoint.

        Raises:
            FacedanError: the file is no checkpoint.
        """
        return cls(read_card(checkpoint), checkpoint)

    def __str__(self) -> str:
        return CLASSICAL[known.LBP] if self.kind is Kind.LBP else str(self.file)

    @property
    def kind(self) -> Kind:
        """The kind of the model."""
        return Kind.of(self.card.model)

    @property
    def classical(self) -> bool:
        """Whether the model is PCANet or LBP, which have no layers and a frame of their own."""
        return self.kind in (Kind.PCANET, Kind.LBP)

    @property
    def file(self) -> Path:
        """The file of every model but LBP."""
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
            case Kind.ONNX:
                digests = [sha256_file(path) for path in (self.file, *self.graph.external)]
                return digests[0] if len(digests) == 1 else digest(digests)

    @cached_property
    def graph(self) -> Graph:
        """What an ONNX graph says of itself."""
        return read_graph(self.file)

    @property
    def seen(self) -> list[Any]:
        """What the features depend on beside the file: the input of an ONNX graph, the code of a user's network."""
        if self.kind is Kind.ONNX:
            return [preprocessing_of(self.graph, self.settings).facts()]
        code = code_digest(self.card.model) if self.kind is Kind.NETWORK else ""
        return [{"code": code}] if code else []

    @property
    def template(self) -> str:
        """The template of a network's row, and of recognisers in ONNX; "" of the classical models, which take any."""
        if self.kind is Kind.ONNX:
            return self.card.template or ""
        return "" if self.classical else self.card.entry.template

    @property
    def similarity(self) -> Similarity:
        """The similarity of the model's features."""
        return CHI_SQUARE if self.kind is Kind.LBP else COSINE

    def layer(self, asked: str | None, *, flip: bool) -> str:
        """The layer, or the output of a graph, whose features are used, by default the last; "" for a classical model.

        Args:
            asked: --layer.
            flip: --flip.

        Raises:
            UsageError: the model has no such layer, or is classical and an option is given.
        """
        if self.kind is Kind.NETWORK:
            layers = self.card.entry.layers
            if asked is not None and asked not in layers:
                check_choice("--layer", asked, tuple(dict.fromkeys((*layers, *layer_paths(self.card)))))
            return asked or layers[-1]
        if self.kind is Kind.ONNX:
            preprocessing_of(self.graph, self.settings)
            return output_of(self.graph, asked)
        for option, given in (("--layer", asked is not None), ("--flip", flip)):
            if given:
                raise UsageError(
                    f"{option} means nothing for {CLASSICAL[self.card.model]}",
                    f"leave {option} out, or measure it by a command of its own",
                )
        return ""

    def warnings(self, layer: str | None, *, flip: bool) -> list[str]:
        """Warnings about features of this layer, taken with or without those of mirrored images.

        Args:
            layer: --layer.
            flip: --flip.
        """
        if self.kind is not Kind.NETWORK or layer not in (None, self.card.entry.layers[-1]):
            return []
        return [warning for warning in (flip_warning(self.card.config, flip=flip),) if warning]


LBP = FaceModel(ModelCard(known.LBP, (), "none", known.LBP, {}), None)
"""LBP, which needs no training."""


def find_model(
    workspace: Workspace,
    name: str | None,
    settings: Mapping[str, str] | None = None,
    *,
    channels: str = "auto",
    trains: bool = False,
    report: Report = SILENT,
) -> FaceModel:
    """The named model, else that of the newest finished adapt run, else that of the newest pretrain run.

    A name is that of a run, or the path of its directory or checkpoint; the path or the name of published weights,
    here or on the Hub (hf:OWNER/NAME:FILE), which are imported into the workspace; package.module:function, timm:NAME
    or torchvision:NAME; or `lbp`, unless something of that name is there.

    Args:
        workspace: workspace of the runs.
        name: as above.
        settings: settings of a network without a row (`config.networks.SETTINGS`).
        channels: the order that published weights expect: "rgb", "bgr" or "auto".
        trains: whether the model is to be trained: an ONNX graph becomes a network.
        report: told of what is imported.

    Raises:
        FacedanError: there is none.
    """
    if name is None:
        newest = newest_run(workspace, "adapt") or newest_run(workspace, "pretrain")
        if newest is None:
            raise FacedanError(
                f"there is no finished model in {workspace.root / 'runs'}",
                "run `facedan pretrain` and `facedan adapt` first, or name a checkpoint with --model",
            )
        return FaceModel.of(checkpoint_of(newest))
    path = download(name) if is_hub_name(name) else Path(name)
    if is_onnx(path):
        return _trained_graph(path, workspace, settings, report) if trains else _graph_at(path, settings)
    if not path.exists() and not (workspace.root / "runs" / name).exists():
        if name == known.LBP:
            return LBP
        if model := release_of(name):
            weights = find_weights(name, network_entry(model), workspace)
            return FaceModel.of(import_weights(weights, model, workspace, channels=channels, report=report))
        if is_network(name) and (settings or name not in NETWORKS):
            return FaceModel.of(import_network(name, workspace, settings, report=report))
    checkpoint = path if is_hub_name(name) else find_checkpoint(workspace, name)
    if not has_card(checkpoint):
        model = network_of(checkpoint)
        checkpoint = import_weights(checkpoint, model, workspace, channels=channels, report=report)
    return FaceModel.of(checkpoint)


def _graph_at(path: Path, settings: Mapping[str, str] | None) -> FaceModel:
    graph = read_graph(path)
    return FaceModel(card_of_graph(graph, settings), path, settings)


def _trained_graph(path: Path, workspace: Workspace, settings: Mapping[str, str] | None, report: Report) -> FaceModel:
    return FaceModel.of(import_onnx(path, workspace, settings, report=report))


def check_settings(models: Sequence[FaceModel], settings: Mapping[str, str] | None) -> None:
    """Refuse settings of a network's input that none of the models takes.

    Raises:
        UsageError: naming the first.
    """
    for key, value in (settings or {}).items():
        if not any(_takes(one, key, value) for one in models):
            raise UsageError(f"--{key} means nothing for {models[0] if models else 'embeddings'}", f"leave --{key} out")


def _takes(model: FaceModel, key: str, value: str) -> bool:
    """Whether a model takes a setting: a checkpoint has its own, an import and a graph are described by the command."""
    card = model.card
    own = (card.network or {}).get(key) == value
    of_import = card.stage == "weights" and (key == "channels" or card.model == ONNX_NETWORK)
    return model.kind is Kind.ONNX or own or of_import
