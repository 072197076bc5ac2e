"""Embeddings of other systems for the images of a data set, as rows beside those of models."""

from __future__ import annotations

import filecmp
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from facedan_cli.config.common import EvaluateConfig
from facedan_cli.data.dataset import FaceDataset
from facedan_cli.data.origins import Origins, missing_images
from facedan_cli.embedding.similarity import COSINE, EUCLIDEAN, Similarity
from facedan_cli.errors import FacedanError, UsageError
from facedan_cli.evaluation.models import FUSION, EmbeddedSet, origins_of
from facedan_cli.protocols.embeddings import Embeddings, read_embeddings
from facedan_cli.protocols.matching import NOT_THERE, match_images
from facedan_cli.report import Report
from facedan_cli.workspace import Dataset, digest, on_one_line

ROWS_AT_ONCE = 1 << 16
NEARLY_ONE = 1e-5
"""Largest difference from length one for vectors that are used unscaled, due to float32."""


@dataclass(frozen=True)
class ExternalEmbeddings:
    """A row of embeddings.

    Args:
        name: name in tables.
        path: path of the embeddings.
        distance: "cosine" or "euclidean".
        read: embeddings by data set; the same object for several data sets of one file.
    """

    name: str
    path: Path
    distance: str
    read: Mapping[str, Embeddings]

    @property
    def similarity(self) -> Similarity:
        """The similarity of the embeddings."""
        return EUCLIDEAN if self.distance == "euclidean" else COSINE

    @property
    def sha256(self) -> str:
        """The digest of the embeddings and their distance."""
        return digest([self.distance, *(one.sha256 for one in self.read.values())])

    def provenance(self) -> dict[str, Any]:
        """The entry in summary.json."""
        digests = {name: one.sha256 for name, one in self.read.items()}
        return {"path": str(self.path.absolute()), "sha256": digests, "distance": self.distance}


def read_rows(config: EvaluateConfig, datasets: Sequence[Dataset], taken: Sequence[str]) -> list[ExternalEmbeddings]:
    """The rows of --embeddings, each path once.

    A directory without vectors of its own has an entry with the name of each data set.

    Args:
        config: configuration with the paths.
        datasets: data sets of the protocol.
        taken: names of other rows.

    Raises:
        FacedanError: a path does not exist or has no embeddings.
    """
    rows: list[ExternalEmbeddings] = []
    names = [*taken, *([FUSION] if config.fuse else [])]
    for path in dict.fromkeys(Path(path).expanduser() for path in config.embeddings):
        if not path.exists():
            raise UsageError(f"there are no embeddings {path}", "check the path given to --embeddings")
        stem = path.resolve().name if path.is_dir() else path.stem
        same = sum(name == stem or name.startswith(f"{stem} #") for name in names)
        names.append(f"{stem} #{same + 1}" if same else stem)
        places = {dataset.name: _place(path, dataset.name) for dataset in datasets}
        read = {place: read_embeddings(place) for place in dict.fromkeys(places.values())}
        by_dataset = {name: read[place] for name, place in places.items()}
        rows.append(ExternalEmbeddings(names[-1], path, config.embeddings_distance, by_dataset))
    return rows


def _place(path: Path, dataset: str) -> Path:
    """The path of the embeddings of a data set."""
    inside = [path / name for name in (dataset, f"{dataset}.npz", f"{dataset}.parquet")]
    if path.is_dir() and not (path / "vectors.npy").exists():
        return next((place for place in inside if place.exists()), path)
    return path


def embed_externally(
    row: ExternalEmbeddings,
    datasets: Sequence[Dataset],
    folders: Sequence[FaceDataset],
    report: Report,
    *,
    by_base_name: bool,
) -> list[EmbeddedSet]:
    """The vectors of the images of each data set; an image without a usable one is a failure to acquire.

    Args:
        row: the embeddings.
        datasets: data sets of the protocol.
        folders: their images.
        report: receives notes on vectors without an image.
        by_base_name: see `match_images`.

    Raises:
        FacedanError: they fit no image, or an image has two vectors, or a vector two images.
    """
    sets, found = [], []
    for dataset, folder in zip(datasets, folders, strict=True):
        embeddings, origins = row.read[dataset.name], origins_of(dataset, folder, report)
        rows = _rows(row, dataset, folder, origins, by_base_name=by_base_name)
        found.append((embeddings, rows))
        sets.append(_embedded(row, folder, origins, embeddings, rows))
    _refuse_two_images(row, folders, found)
    for embeddings in {id(one): one for one, _ in found}.values():
        used = {place for one, rows in found if one is embeddings for place in rows.values()}
        unused = [path for place, path in enumerate(embeddings.paths) if place not in used]
        if unused:
            report.note(
                f"{len(unused)} of {len(embeddings.paths)} vectors of '{row.name}' are of no image: {unused[0]}"
            )
    report.note(f"of '{row.name}' it is not known what it learnt from, nor how its faces were aligned")
    return sets


def _rows(
    row: ExternalEmbeddings, dataset: Dataset, folder: FaceDataset, origins: Origins, *, by_base_name: bool
) -> dict[str, int]:
    """The row of the vector of each image, by path, for images with a vector."""
    paths, vectors = row.read[dataset.name].paths, row.read[dataset.name].vectors
    first: dict[str, int] = {}
    again = [(first[path], place) for place, path in enumerate(paths) if first.setdefault(path, place) != place]
    found: dict[str, int] = {}
    for name, image in _matched(first, folder, origins, by_base_name=by_base_name).items():
        if found.setdefault(image, first[name]) != first[name]:
            again.append((found[image], first[name]))
    for one, other in again:
        if not np.array_equal(vectors[one], vectors[other], equal_nan=True):
            raise FacedanError(
                f"{row.path} has two vectors of one image: {paths[one]} and {paths[other]} (rows {one} and {other})",
                "give each image one vector",
            )
    if not found:
        raise FacedanError(
            f"no path in {row.path} is an image of '{dataset.name}': {paths[0]}, but {folder.paths[0]}",
            f"give paths relative to {folder.root}",
        )
    return found


def _matched(names: Iterable[str], folder: FaceDataset, origins: Origins, *, by_base_name: bool) -> dict[str, str]:
    """The image of each path: below the data set's directory, else below its parent, the current directory or /."""
    images = list(dict.fromkeys(folder.paths))
    below = [tuple(dict.fromkeys((path, origins.files.get(path, path)))) for path in images]
    match = match_images(names, below, by_base_name=by_base_name)
    rows = dict(match.rows)
    if nowhere := [name for name, why in match.missing.items() if why == NOT_THERE]:
        root = os.path.abspath(folder.root)
        places = os.path.basename(root), root, os.path.realpath(root), os.path.relpath(root)
        beyond = [tuple(f"{place}/{path}" for place in dict.fromkeys(places) for path in paths) for paths in below]
        rows |= match_images(nowhere, beyond).rows
    return {name: images[row] for name, row in rows.items()}


def _embedded(
    row: ExternalEmbeddings, folder: FaceDataset, origins: Origins, embeddings: Embeddings, rows: Mapping[str, int]
) -> EmbeddedSet:
    """The features of the images that have a usable vector."""
    named = [(path, whose) for path, whose in zip(folder.paths, folder.names, strict=True) if path in rows]
    vectors, usable = _usable(embeddings.vectors[[rows[path] for path, _ in named]], unit=row.similarity is COSINE)
    if not usable.any():
        raise FacedanError(f"no vector of {row.path} is usable: all are zero or no numbers", "look at what made them")
    acquired = [one for one, use in zip(named, usable, strict=True) if use]
    lost = set(folder.paths).difference(path for path, _ in acquired)
    reasons = {
        on_one_line(path): f"{'its vector is zero or no number' if path in rows else 'no vector'} in '{row.name}'"
        for path in folder.paths
        if path in lost
    }
    return EmbeddedSet(
        root=folder.root,
        vectors=vectors,
        paths=[path for path, _ in acquired],
        subjects=[whose for _, whose in acquired],
        origins=[origins.files.get(path, "") for path, _ in acquired],
        failed=missing_images(folder, origins, dict(folder.skipped) | reasons),
    )


def _usable(vectors: np.ndarray, *, unit: bool) -> tuple[np.ndarray, np.ndarray]:
    """The usable rows as float32, where `unit` of length one; and which rows are usable, bool, shape (n,).

    Rows whose length is one already are taken to the last bit.
    """
    usable = np.zeros(len(vectors), bool)
    made = np.empty(vectors.shape, np.float32)
    for start in range(0, len(vectors), ROWS_AT_ONCE):
        part = slice(start, start + ROWS_AT_ONCE)
        wide = vectors[part].astype(np.float64)
        with np.errstate(over="ignore", invalid="ignore"):
            lengths = np.linalg.norm(wide, axis=1)
            usable[part] = np.isfinite(lengths) & (lengths > 1e-150)  # squares of less are not exact
            other = unit & usable[part] & (np.abs(lengths - 1) > NEARLY_ONE)
            made[part] = wide / np.where(other, lengths, 1)[:, None]
    usable &= np.isfinite(made).all(axis=1)
    return made[usable], usable


def _refuse_two_images(
    row: ExternalEmbeddings, folders: Sequence[FaceDataset], found: Sequence[tuple[Embeddings, Mapping[str, int]]]
) -> None:
    """Raise an error if a vector matches different images of two data sets.

    Raises:
        FacedanError: there is one.
    """
    if len(found) < 2 or found[0][0] is not found[1][0]:
        return
    (embeddings, one), (_, other) = found
    images = {place: path for path, place in one.items()}
    for path, place in other.items():
        files = folders[0].root / images.get(place, ""), folders[1].root / path
        if place in images and not _same(*files):
            raise FacedanError(
                f"{embeddings.paths[place]} in {row.path} may be {files[0]} and {files[1]}",
                "begin the paths with the directories of the data sets",
            )


def _same(one: Path, other: Path) -> bool:
    try:
        return os.path.samefile(one, other) or filecmp.cmp(one, other, shallow=False)
    except OSError:
        return False
