"""Features of aligned faces by any kind of model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from facedan_cli.data.alignments import Alignment, alignment_of
from facedan_cli.data.dataset import FaceDataset
from facedan_cli.data.templates import TEMPLATES
from facedan_cli.embedding.model import FaceModel, Kind
from facedan_cli.models import lbp, pcanet
from facedan_cli.models.checkpoint import load_checkpoint, load_pcanet
from facedan_cli.models.embedder import Embedder
from facedan_cli.models.frame import Frame
from facedan_cli.onnx_graph import Recogniser, preprocessing_of
from facedan_cli.report import Report
from facedan_cli.workspace import find_manifest

FRAMED_FROM = 250
"""Side of the faces that frames are cut from, pixels."""

ASSUMED = Alignment("vggface", FRAMED_FROM)

Extract = Callable[[np.ndarray], np.ndarray]
"""RGB, uint8, shape (n, size, size, 3) → features, float32, shape (n, d)."""


@dataclass(frozen=True)
class Extractor:
    """A model ready to compute.

    Args:
        size: side of the faces that it takes, pixels.
        extract: gives their features.
    """

    size: int
    extract: Extract


def framed_by(folder: FaceDataset, report: Report) -> Alignment:
    """The alignment of a data set's faces, by the manifest of its first image; else `ASSUMED`."""
    manifest = find_manifest((folder.root / folder.paths[0]).parent)
    if manifest is not None:
        found = alignment_of(manifest)
        if found is not None and found.template in TEMPLATES:
            return found
    report.note(f"no aligned.jsonl names the template of {folder.root}: it is taken to be {ASSUMED.template}")
    return ASSUMED


def extractor(model: FaceModel, layer: str, faces_are: Alignment, *, flip: bool, device: torch.device) -> Extractor:
    """Load a model.

    Args:
        model: of any kind.
        layer: a network's layer that gives the features; a classical model has none.
        faces_are: the alignment of the faces, from which a classical model cuts its frame.
        flip: whether a network adds the features of the mirrored face.
        device: where it computes.

    Raises:
        FacedanError: the model's file is not as it should be.
    """
    match model.kind:
        case Kind.LBP:
            return Extractor(FRAMED_FROM, lambda faces: _of_lbp(framed(faces, lbp.FRAME, faces_are, device)))
        case Kind.PCANET:
            filters = load_pcanet(model.file).to(device)
            frame = pcanet.FRAME
            return Extractor(FRAMED_FROM, lambda faces: _of_pcanet(filters, framed(faces, frame, faces_are, device)))
        case Kind.NETWORK:
            network = load_checkpoint(model.file)[0].to(device)
            embedder = Embedder(network, layer, flip=flip)
            return Extractor(network.image_size, lambda faces: _of_network(embedder, faces, device))
        case Kind.ONNX:
            how = preprocessing_of(model.graph, model.settings)
            recogniser = Recogniser(model.graph, how, layer, device)
            return Extractor(max(how.size), lambda faces: _of_graph(recogniser, faces, flip=flip))


def framed(faces: np.ndarray, frame: Frame, faces_are: Alignment, device: torch.device) -> Tensor:
    """The grey windows of faces read at `FRAMED_FROM` pixels, uint8, shape (n, frame.height, frame.width)."""
    images = torch.from_numpy(faces).to(device).permute(0, 3, 1, 2)
    return frame.cut(images, TEMPLATES[faces_are.template].shown(faces_are.size, FRAMED_FROM, 2))


def _of_lbp(windows: Tensor) -> np.ndarray:
    return lbp.features(windows).cpu().numpy()


def _of_pcanet(network: pcanet.PCANet, windows: Tensor) -> np.ndarray:
    return F.normalize(pcanet.transform(network, windows).float()).cpu().numpy()


@torch.no_grad()
def _of_network(embedder: Embedder, faces: np.ndarray, device: torch.device) -> np.ndarray:
    rows: np.ndarray = embedder(torch.from_numpy(faces).permute(0, 3, 1, 2).to(device)).cpu().numpy()
    return rows


def _of_graph(recogniser: Recogniser, faces: np.ndarray, *, flip: bool) -> np.ndarray:
    """Rows of length one of the middle of the faces; with `flip` the features of the mirrored faces are added first."""
    height, width = recogniser.how.size
    top, left = (faces.shape[1] - height) // 2, (faces.shape[2] - width) // 2
    middle = faces[:, top : top + height, left : left + width]
    features = recogniser(middle)
    if flip:
        features = features + recogniser(middle[:, :, ::-1])
    return F.normalize(torch.from_numpy(features)).numpy()
