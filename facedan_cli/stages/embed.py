"""Features of faces: a matrix of L2-normalised rows and a table of whose they are."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch

from facedan_cli.config import EmbedConfig, check_choice
from facedan_cli.errors import FacedanError
from facedan_cli.faces.batches import read_faces
from facedan_cli.faces.folder import FaceFolder
from facedan_cli.faces.pictures import UnreadableImage
from facedan_cli.models.vggface import LAYERS, VGGFace
from facedan_cli.models.weights import load_checkpoint
from facedan_cli.report import SILENT, Report
from facedan_cli.runs import checkpoint_of, find_checkpoint, newest_run
from facedan_cli.stages.devices import choose_device, worker_count
from facedan_cli.workspace import Workspace, digest, locked, replacing, sha256_file, write_csv, write_set_aside


@dataclass(frozen=True)
class EmbedResult:
    """Where the features of a data set lie.

    Args:
        directory: holds vectors.npy and images.csv.
        images: how many rows there are.
        skipped: they were there before.
        set_aside: the list of images that could not be read, if there are any.
    """

    directory: Path
    images: int
    skipped: bool
    set_aside: Path | None

    def load(self) -> tuple[np.ndarray, list[str], list[str]]:
        """Vectors (n, d) float32, memory-mapped; the images' paths and identities in the same order."""
        with (self.directory / "images.csv").open(newline="", encoding="utf-8", errors="surrogateescape") as file:
            rows = list(csv.DictReader(file))
        vectors = np.load(self.directory / "vectors.npy", mmap_mode="r")
        return vectors, [row["path"] for row in rows], [row["identity"] for row in rows]


def find_model(workspace: Workspace, name: str | None) -> Path:
    """The checkpoint of a model: the one named, else of the newest finished adapt run, else of the newest pretrain run.

    Raises:
        FacedanError: there is none.
    """
    if name is not None:
        return find_checkpoint(workspace, name)
    newest = newest_run(workspace, "adapt") or newest_run(workspace, "pretrain")
    if newest is None:
        raise FacedanError(
            f"there is no finished model in {workspace.root / 'runs'}",
            "run `facedan pretrain` and `facedan adapt` first, or name a checkpoint with --model",
        )
    return checkpoint_of(newest)


def embed(
    config: EmbedConfig, folder: FaceFolder, checkpoint: Path, workspace: Workspace, *, report: Report = SILENT
) -> EmbedResult:
    """Features of every image that can be read, in the order of the folder.

    Args:
        config: the layer, whether to add the mirrored image, batch size, device.
        folder: the faces; `config.dataset` is their name.
        checkpoint: the model.
        workspace: where the features will lie.
        report: told of the progress.

    Raises:
        FacedanError: not one image can be read.
    """
    check_choice("--layer", config.layer, LAYERS)
    identity = digest([sha256_file(checkpoint), config.layer, config.flip, folder.fingerprint])
    directory = workspace.embedding_directory(config.dataset, identity)
    set_aside = directory / "set-aside.tsv"
    table = directory / "images.csv"  # written last: with it the directory is complete
    if table.is_file() and not config.force:
        with table.open(encoding="utf-8", errors="surrogateescape") as file:
            count = sum(1 for _ in file) - 1
        return EmbedResult(directory, count, True, set_aside if set_aside.is_file() else None)
    device = choose_device(config.device)
    network, _ = load_checkpoint(checkpoint)
    network.to(device)
    unreadable: list[tuple[str, str]] = []
    rows: list[tuple[int, str, str]] = []
    with locked(directory, f"the embedding {directory.name}"):
        table.unlink(missing_ok=True)
        with (
            replacing(directory / "vectors.npy") as temporary,
            temporary.open("wb") as file,
            ThreadPoolExecutor(worker_count(config.workers)) as pool,
            report.progress(f"embedding {config.dataset}", len(folder)) as advance,
        ):
            for batch in _batches(folder, network.spec.image_size, config.batch, pool, unreadable):
                vectors = _features(network, np.stack([face for _, face in batch]), config, device)
                if not rows:
                    _write_header(file, 0, vectors.shape[1])
                file.write(vectors.tobytes())
                rows += [
                    (len(rows) + offset, folder.paths[index], folder.names[index])
                    for offset, (index, _) in enumerate(batch)
                ]
                advance(len(batch), "")
            if not rows:
                raise FacedanError(f"no image under {folder.root} can be read", "check what the files are")
            file.seek(0)
            _write_header(file, len(rows), vectors.shape[1])
        listed = write_set_aside(set_aside, unreadable)
        write_csv(table, ("row", "path", "identity"), rows)
    return EmbedResult(directory, len(rows), False, listed)


def _batches(
    folder: FaceFolder, size: int, batch: int, pool: ThreadPoolExecutor, unreadable: list[tuple[str, str]]
) -> Iterator[list[tuple[int, np.ndarray]]]:
    waiting: list[tuple[int, np.ndarray]] = []
    for index, face in read_faces(folder, range(len(folder)), size, pool):
        if isinstance(face, UnreadableImage):
            unreadable.append((folder.paths[index], str(face)))
            continue
        waiting.append((index, face))
        if len(waiting) == batch:
            yield waiting
            waiting = []
    if waiting:
        yield waiting


@torch.no_grad()
def _features(network: VGGFace, faces: np.ndarray, config: EmbedConfig, device: torch.device) -> np.ndarray:
    """Centre crops through the network; with --flip the sum of a face and its mirror; rows of length one."""
    margin = (faces.shape[1] - network.spec.crop) // 2
    crops = faces[:, margin : margin + network.spec.crop, margin : margin + network.spec.crop]
    images = torch.from_numpy(np.ascontiguousarray(crops)).permute(0, 3, 1, 2).to(device)
    features = network(images, 0)[0][config.layer]
    if config.flip:
        features = features + network(images.flip(3), 0)[0][config.layer]
    return torch.nn.functional.normalize(features.float()).cpu().numpy()


def _write_header(file: BinaryIO, rows: int, columns: int) -> None:
    """The .npy header; numpy leaves room in it for the number of rows to grow, so that it can be written again."""
    np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": (rows, columns)})
