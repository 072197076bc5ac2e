"""Features of aligned faces by any kind of model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from facedan_cli.data.dataset import FaceDataset
from facedan_cli.data.manifest import read_records
from facedan_cli.data.templates import TEMPLATE_SIZE, TEMPLATES
from facedan_cli.embedding.model import FaceModel, Kind
from facedan_cli.models import lbp, pcanet
from facedan_cli.models.checkpoint import load_checkpoint, load_pcanet
from facedan_cli.models.embedder import Embedder
from facedan_cli.models.frame import Frame
from facedan_cli.report import Report
from facedan_cli.workspace import find_manifest

FRAMED_FROM = TEMPLATE_SIZE
"""Side of the faces that frames are cut from, pixels."""

ASSUMED_TEMPLATE = "vggface"

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


def template_of(folder: FaceDataset, report: Report) -> str:
    """The template that a data set's faces are aligned to, by the manifest of its first image; else `vggface`."""
    manifest = find_manifest((folder.root / folder.paths[0]).parent)
    if manifest is not None:
        for record in read_records(manifest, []):
            if record.template in TEMPLATES:
                return record.template
    report.note(f"no aligned.jsonl names the template of {folder.root}: it is taken to be {ASSUMED_TEMPLATE}")
    return ASSUMED_TEMPLATE


def extractor(model: FaceModel, layer: str, template: str, *, flip: bool, device: torch.device) -> Extractor:
    """Load a model.

    Args:
        model: of any kind.
        layer: a network's layer that gives the features; a classical model has none.
        template: the alignment of the faces, from which a classical model cuts its frame.
        flip: whether a network adds the features of the mirrored face.
        device: where it computes.

    Raises:
        FacedanError: the model's file is not as it should be.
    """
    match model.kind:
        case Kind.LBP:
            return Extractor(FRAMED_FROM, lambda faces: _of_lbp(framed(faces, lbp.FRAME, template, device)))
        case Kind.PCANET:
            filters = load_pcanet(model.file).to(device)
            frame = pcanet.FRAME
            return Extractor(FRAMED_FROM, lambda faces: _of_pcanet(filters, framed(faces, frame, template, device)))
        case Kind.NETWORK:
            network = load_checkpoint(model.file)[0].to(device)
            embedder = Embedder(network, layer, flip=flip)
            return Extractor(network.image_size, lambda faces: _of_network(embedder, faces, device))


def framed(faces: np.ndarray, frame: Frame, template: str, device: torch.device) -> Tensor:
    """The grey windows of faces that are aligned to a template, uint8, shape (n, frame.height, frame.width)."""
    images = torch.from_numpy(faces).to(device).permute(0, 3, 1, 2)
    return frame.cut(images, TEMPLATES[template].points(FRAMED_FROM)[:2])


def _of_lbp(windows: Tensor) -> np.ndarray:
    return lbp.features(windows).cpu().numpy()


def _of_pcanet(network: pcanet.PCANet, windows: Tensor) -> np.ndarray:
    return F.normalize(pcanet.transform(network, windows).float()).cpu().numpy()


@torch.no_grad()
def _of_network(embedder: Embedder, faces: np.ndarray, device: torch.device) -> np.ndarray:
    rows: np.ndarray = embedder(torch.from_numpy(faces).permute(0, 3, 1, 2).to(device)).cpu().numpy()
    return rows
