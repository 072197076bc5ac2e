"""`facedan embed`: a matrix with the features of each face in a row, and a table of paths and identities."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from facedan_cli.config.common import EmbedConfig
from facedan_cli.data.alignments import side_to_read
from facedan_cli.data.batches import read_faces
from facedan_cli.data.dataset import FaceDataset
from facedan_cli.data.images import UnreadableImage
from facedan_cli.devices import resolve_device, worker_count
from facedan_cli.distributed import SINGLE, DistEnv, shard_range
from facedan_cli.embedding.extractor import ASSUMED, extractor, framed_by
from facedan_cli.embedding.model import FaceModel, Kind
from facedan_cli.errors import FacedanError
from facedan_cli.json_files import read_object
from facedan_cli.onnx_graph import preprocessing_of
from facedan_cli.outputs import is_intact, record_of
from facedan_cli.report import SILENT, Report
from facedan_cli.spreadsheet import read_csv
from facedan_cli.workspace import Workspace, digest, locked, replacing, write_csv, write_json, write_set_aside

_VECTORS, _TABLE, _SET_ASIDE, _RECORD = "vectors.npy", "images.csv", "set-aside.tsv", "embedding.json"


@dataclass(frozen=True)
class EmbedResult:
    """The files with the features of a data set.

    Args:
        directory: holds vectors.npy and images.csv; embedding.json tells of what they are.
        images: number of rows.
        skipped: they were there before.
        set_aside: the list of images that could not be read, if there are any.
    """

    directory: Path
    images: int
    skipped: bool
    set_aside: Path | None

    def load(self) -> tuple[np.ndarray, list[str], list[str]]:
        """Load the features (n, d), float32, memory-mapped, and the images' paths and identities in the same order."""
        rows = read_csv(self.directory / _TABLE)
        vectors = np.load(self.directory / _VECTORS, mmap_mode="r")
        return vectors, [row["path"] for row in rows], [row["identity"] for row in rows]


def embed(
    config: EmbedConfig,
    folder: FaceDataset,
    model: FaceModel,
    workspace: Workspace,
    *,
    ranks: DistEnv = SINGLE,
    report: Report = SILENT,
) -> EmbedResult:
    """Compute the features of every readable image in the data set's order: rows of length one, or LBP histograms.

    Args:
        config: the layer, whether to add the mirrored image, batch size, device.
        folder: the faces; `config.dataset` is their name.
        model: gives the features.
        workspace: workspace that keeps the features.
        ranks: which of several processes, which have joined, this one is: they share the images.
        report: receives notes and progress.

    Raises:
        UsageError: the model has no such layer.
        FacedanError: not one image can be read, images were written to meanwhile, or another process has ended.
    """
    layer = model.layer(config.layer, flip=config.flip)
    aligned = framed_by(folder, report) if model.classical else ASSUMED  # a network sees the faces as they are
    seen = [aligned.template] if model.classical else [layer, config.flip, *model.seen]
    if model.kind is Kind.ONNX:
        report.note(f"{model} is given {preprocessing_of(model.graph, model.settings)}")
    facts = {"model": model.sha256, "seen": seen, "contents": folder.fingerprint}
    folder.contents.keep()
    directory = _directory(workspace, config.dataset, facts)
    if not config.force and _is_complete(directory, facts):
        return _found(directory, skipped=True)
    device = ranks.device(resolve_device(config.device))
    ready = extractor(model, layer, aligned, flip=config.flip, device=device)
    own = shard_range(len(folder), ranks.rank, ranks.count)
    workers = config.workers or max(1, worker_count(0) // ranks.local_count)
    with ExitStack() as held:
        if ranks.first:
            held.enter_context(_emptied(directory))
        ranks.gather([])
        part = _part(directory, ranks.rank)
        held.callback(part.unlink, missing_ok=True)
        pool = held.enter_context(ThreadPoolExecutor(workers))
        unreadable: list[tuple[str, str]] = []
        with part.open("wb") as file, report.progress(f"embedding {config.dataset}", len(own)) as advance:
            side = side_to_read(folder, model.template, ready.size)
            for faces in _batches(folder, own, side, config.batch, pool, unreadable):
                file.write(ready.extract(_middles(faces, ready.size)).tobytes())
                advance(len(faces), "")
        unreadable = [*folder.skipped, *ranks.gather(unreadable)]
        if ranks.first:
            _join(directory, folder, unreadable, ranks.count)
            outputs = [name for name in (_VECTORS, _TABLE, _SET_ASIDE) if (directory / name).is_file()]
            write_json(directory / _RECORD, facts | record_of(directory, outputs))
        ranks.gather([])
    return _found(directory, skipped=False)


def _middles(faces: list[np.ndarray], side: int) -> np.ndarray:
    """The middles of faces of one size, shape (n, side, side, 3)."""
    margin = (len(faces[0]) - side) // 2
    return np.stack([face[margin : margin + side, margin : margin + side] for face in faces])


def _directory(workspace: Workspace, dataset: str, facts: Mapping[str, Any]) -> Path:
    """The directory of these images' features, found by content if the data set had another name."""
    identity = digest(facts)
    directory = workspace.embedding_directory(dataset, identity)
    if directory.is_dir():
        return directory
    others = sorted(workspace.embedding_directory("x", identity).parent.glob(f"*-{identity[:8]}"))
    return next((other for other in others if _is_complete(other, facts)), directory)


@contextmanager
def _emptied(directory: Path) -> Iterator[None]:
    """Hold a directory that no longer is complete: its record, which is written last, is gone."""
    with locked(directory, f"the embedding {directory.name}"):
        for left in directory.glob(".vectors-*.f32"):  # files of killed processes, which may have been more
            left.unlink()
        for name in (_RECORD, _TABLE):
            (directory / name).unlink(missing_ok=True)
        yield


def _is_complete(directory: Path, facts: Mapping[str, Any]) -> bool:
    """Whether a directory holds the complete, undamaged features of these images."""
    try:
        record = read_object(directory / _RECORD)
        outputs = dict(record["outputs"])
        is_it = {_VECTORS, _TABLE} <= outputs.keys() and all(record.get(key) == value for key, value in facts.items())
        return is_it and all(is_intact(directory, directory / str(name), record) for name in outputs)
    except (OSError, ValueError, LookupError, TypeError):
        return False


def _found(directory: Path, *, skipped: bool) -> EmbedResult:
    """The result of a complete directory."""
    count = len(read_csv(directory / _TABLE))
    set_aside = directory / _SET_ASIDE
    return EmbedResult(directory, count, skipped, set_aside if set_aside.is_file() else None)


def _part(directory: Path, rank: int) -> Path:
    """The file with the rows of one process, without a header."""
    return directory / f".vectors-{rank}.f32"


def _join(directory: Path, folder: FaceDataset, unreadable: list[tuple[str, str]], parts: int) -> None:
    """Join the processes' rows in the order of the data set.

    Raises:
        FacedanError: no image can be read, or images have changed since the data set was listed.
    """
    if not folder.is_as_it_was():
        raise FacedanError(
            f"images of {folder.root} changed while they were read", "repeat the command when nothing writes to them"
        )
    lost = {path for path, _ in unreadable}
    rows = [(path, name) for path, name in zip(folder.paths, folder.names, strict=True) if path not in lost]
    if not rows:
        raise FacedanError(f"no image under {folder.root} can be read", "check what the files are")
    length = sum(_part(directory, part).stat().st_size for part in range(parts)) // 4 // len(rows)
    with replacing(directory / _VECTORS) as temporary, temporary.open("wb") as file:
        header = {"descr": "<f4", "fortran_order": False, "shape": (len(rows), length)}
        np.lib.format.write_array_header_1_0(file, header)
        for part in range(parts):
            with _part(directory, part).open("rb") as vectors:
                shutil.copyfileobj(vectors, file, 1 << 24)
    write_set_aside(directory / _SET_ASIDE, unreadable)
    write_csv(directory / _TABLE, ("row", "path", "identity"), ((row, *of) for row, of in enumerate(rows)))


def _batches(
    folder: FaceDataset,
    rows: range,
    size: int,
    batch: int,
    pool: ThreadPoolExecutor,
    unreadable: list[tuple[str, str]],
) -> Iterator[list[np.ndarray]]:
    waiting: list[np.ndarray] = []
    for index, face in read_faces(folder, rows, size, pool):
        if isinstance(face, UnreadableImage):
            unreadable.append((folder.paths[index], str(face)))
            continue
        waiting.append(face)
        if len(waiting) == batch:
            yield waiting
            waiting = []
    if waiting:
        yield waiting
