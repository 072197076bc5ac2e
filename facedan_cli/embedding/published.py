"""Published networks, which are imported into the workspace once and are then ordinary checkpoints."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save as as_bytes

from facedan_cli.config.models import NETWORKS, NetworkEntry, imported
from facedan_cli.config.networks import ONNX_NETWORK, brought_networks, is_library, is_own
from facedan_cli.errors import FacedanError
from facedan_cli.json_files import read_object
from facedan_cli.models.checkpoint import ModelCard, save_checkpoint
from facedan_cli.models.network import FaceNetwork
from facedan_cli.models.networks import build
from facedan_cli.models.pretrained.hub import download, is_hub_name
from facedan_cli.models.pretrained.load import load_public_weights
from facedan_cli.models.pretrained.onnx_import import read_onnx
from facedan_cli.onnx_graph import preprocessing_of, read_graph
from facedan_cli.outputs import is_intact, record_of
from facedan_cli.own_networks import allow, code_file, load_own
from facedan_cli.report import SILENT, Report
from facedan_cli.runs import find_checkpoint
from facedan_cli.workspace import Workspace, digest, sha256_file, write_json


def find_weights(name: str, entry: NetworkEntry, workspace: Workspace) -> Path:
    """The file that --init names: of weights, of the Hub, the checkpoint of a run, or a release of the network.

    Raises:
        FacedanError: there is none, or it cannot be downloaded.
    """
    if Path(name).is_file():
        return Path(name)
    if is_hub_name(name):
        return download(name)
    if name in entry.releases:
        path: Path = imported(entry.fetch)(name)
        return path
    return find_checkpoint(workspace, name)


def import_weights(
    path: Path, model: str, workspace: Workspace, *, channels: str = "auto", report: Report = SILENT
) -> Path:
    """The checkpoint of a network with published weights, written once to the workspace's cache.

    Args:
        path: the file of the weights.
        model: name of the network.
        workspace: workspace of the checkpoint.
        channels: the order that the weights expect, "rgb" or "bgr"; "auto": what is usual for their format.
        report: gets what the user should know of them.

    Raises:
        FacedanError: the weights do not fit the network.
    """
    name = f"weights-{model}-{channels}-{sha256_file(path)[:8]}"
    checkpoint = _checkpoint(workspace, name)
    if not _is_made(checkpoint):
        network = build(model, 1)  # a classifier must have a class; this one says nothing
        weights = load_public_weights(path, network, channels=None if channels == "auto" else channels)
        for remark in weights.remarks:
            report.note(remark)
        for warning in weights.warnings:
            report.warn(warning)
        settings = {"model": model, "channels": weights.channels}
        _save(checkpoint, network, ModelCard(model, ("",), "weights", name, settings, weights.record()))
    return checkpoint


def import_network(
    model: str, workspace: Workspace, settings: Mapping[str, str] | None = None, *, report: Report = SILENT
) -> Path:
    """The checkpoint of a user's network, with the weights that its code gives it.

    Args:
        model: package.module:function, which the user has named in this command, or another network.
        workspace: workspace of the checkpoint.
        settings: settings of its input (`config.networks.SETTINGS`).
        report: told whose code runs.

    Raises:
        FacedanError: it cannot be called, or gives no network.
    """
    if is_own(model):
        allow(model)
        report.note(f"running {model}, which makes the network")
    elif is_library(model):
        report.warn(f"the weights of {model} are random: it recognises nobody until it is trained")
    torch.manual_seed(0)  # for random weights of its code
    network = build(model, 1, settings)
    tensors = {key: value.contiguous() for key, value in network.state_dict().items()}
    last = model.replace(":", ".").rpartition(".")[2]
    # The same weights under another input, or in other code, are another network.
    facts = [model, settings, code_digest(model), hashlib.sha256(as_bytes(tensors)).hexdigest()]
    name = f"weights-{last}-{digest(facts)[:8]}"
    checkpoint = _checkpoint(workspace, name)
    if not _is_made(checkpoint):
        _save(checkpoint, network, ModelCard(model, ("",), "weights", name, {"model": model}, network=settings))
    return checkpoint


def import_onnx(
    path: Path, workspace: Workspace, settings: Mapping[str, str] | None = None, *, report: Report = SILENT
) -> Path:
    """The checkpoint of a network that an ONNX graph was converted to.

    Args:
        path: the graph.
        workspace: workspace that keeps the checkpoint.
        settings: settings of the graph's input, where it does not say them (`config.networks.SETTINGS`).
        report: told of the comparison with onnxruntime, and of folded batch normalisation.

    Raises:
        FacedanError: the graph cannot be converted, or the network computes something else.
    """
    checkpoint = _checkpoint(workspace, f"weights-onnx-{digest([sha256_file(path), settings])[:8]}")
    if _is_made(checkpoint):
        return checkpoint
    graph = read_graph(path)
    how = preprocessing_of(graph, settings)
    if "facedan" in graph.metadata and graph.metadata.get("preprocessing") != "outside":
        raise FacedanError(
            f"{path} is an export of facedan with its preprocessing inside",
            "give --init the run that it was made from, or export it with --raw",
        )
    if graph.channels_last or graph.type is not np.float32:
        raise FacedanError(
            f"{path} takes no float32 images of shape (batch, 3, height, width)",
            "export it so to adapt it; it can be evaluated as it is",
        )
    found = read_onnx(path, *how.size)
    report.note(f"{path} as a network gives onnxruntime's embeddings, within {found.difference:.1e}")
    if found.folded:
        report.note("its batch normalisation is folded into the convolutions: it has no statistics to adapt")
    described = how.as_settings() | {"graph": found.graph}
    network = build(ONNX_NETWORK, 1, described)
    body = {f"body.{key}": value for key, value in found.tensors.items()}
    network.load_state_dict(network.state_dict() | body)
    card = ModelCard(ONNX_NETWORK, ("",), "weights", path.stem, {"model": ONNX_NETWORK}, network=described)
    _save(checkpoint, network, card)
    return checkpoint


def code_of(model: str) -> dict[str, dict[str, str]]:
    """The entry of a user's network in a run: the digest of its module's file; empty for other networks."""
    if not is_own(model):
        return {}
    allow(model)
    return {"network": {"name": model, "sha256": code_digest(model)}}


def code_digest(model: str) -> str:
    """The digest of the file of a user's function, or of another package's; "" for networks without such a file.

    Raises:
        FacedanError: the function cannot be imported, or the user has not named it.
    """
    point = None if model in NETWORKS else brought_networks().get(model)
    if is_own(model):
        load_own(model)
    elif point is None:
        return ""
    file = code_file(model if point is None else point.value)
    return sha256_file(file) if file else ""


def _checkpoint(workspace: Workspace, name: str) -> Path:
    return workspace.root / "cache" / f"{name}.safetensors"


def _save(checkpoint: Path, network: FaceNetwork, card: ModelCard) -> None:
    save_checkpoint(checkpoint, network, card)
    write_json(checkpoint.with_suffix(".json"), record_of(checkpoint.parent, [checkpoint.name]))


def _is_made(checkpoint: Path) -> bool:
    try:
        made = read_object(checkpoint.with_suffix(".json"))
    except (OSError, ValueError):  # never made, by an earlier version, or damaged: it costs little to make it again
        return False
    return "outputs" in made and is_intact(checkpoint.parent, checkpoint, made)
