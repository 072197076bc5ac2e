"""Recognition of the same image in several places, by the contents of files and by their real paths."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from facedan_cli.data.contents import MISSING, NO_FILE, UNREADABLE
from facedan_cli.data.dataset import FaceDataset, read_dataset
from facedan_cli.data.origins import read_origins
from facedan_cli.errors import FacedanError
from facedan_cli.runs import read_record
from facedan_cli.workspace import Workspace, replacing

_HEX = re.compile("[0-9a-f]{16}")
NO_CONTENTS = np.frombuffer(b"".join(mark[:8] for mark in (MISSING, UNREADABLE, NO_FILE)), "<i8")
"""The numbers of missing and unreadable files."""

IMAGES_FILE = "images.safetensors"
"""File in a run's directory: the images that it learnt from."""

LEARNT = {"source": "trained", "target": "adapted"}
"""The roles of data sets that a network learns from, and how."""


@dataclass(frozen=True)
class Learnt:
    """The images that a run learnt from in one role.

    Args:
        role: "source" or "target".
        name: name of the data set.
        contents: numbers of `contents_of_images`, sorted.
        places: numbers of `places_of`, sorted; empty if unknown.
    """

    role: str
    name: str
    contents: np.ndarray
    places: np.ndarray


def contents_of_images(folder: FaceDataset) -> np.ndarray:
    """A number for the content of each image file, int64, shape (images,); copies have the same number.

    It is the beginning of the file's SHA-256. In a data set of a million different images two share a number with
    probability 1 in 37 million.
    """
    return np.frombuffer(b"".join(digest[:8] for digest in folder.digests()), "<i8").astype(np.int64)


def contents_of_sets(folders: Sequence[FaceDataset]) -> list[np.ndarray]:
    """The numbers of `contents_of_images` for several data sets; faces of one original image have the same number.

    An image that was aligned twice, with other settings, has faces of other bytes. The manifests know both by the
    digest of the image that they were made from.
    """
    contents = [contents_of_images(folder) for folder in folders]
    faces = np.concatenate(contents)
    made_from = np.concatenate([_made_from(folder) for folder in folders])
    # Missing files share one number, which must not join their original images.
    known = np.flatnonzero((made_from != 0) & ~np.isin(faces, NO_CONTENTS))
    if not known.size:
        return contents
    # Digests are the nodes of a graph, in which each face is joined to its image: a component is one image.
    nodes, places = np.unique(np.concatenate([faces, made_from[known]]), return_inverse=True)
    ends = places[known], places[len(faces) :]
    graph = coo_array((np.ones(len(known), bool), ends), shape=(len(nodes), len(nodes)))
    component = connected_components(graph, directed=False)[1][places[: len(faces)]]
    number = np.full(component.max() + 1, np.iinfo(np.int64).max)
    np.minimum.at(number, component, faces)
    return np.split(number[component], np.cumsum([len(one) for one in contents])[:-1])


def _made_from(folder: FaceDataset) -> np.ndarray:
    """A number for the content of each face's original image, as in `contents_of_images`; 0 if no manifest has it."""
    digests = read_origins(folder.root, folder, []).digests
    heads = [digests.get(path, "")[:16] for path in folder.paths]
    whole = "".join(head if _HEX.fullmatch(head) else "0" * 16 for head in heads)
    return np.frombuffer(bytes.fromhex(whole), "<i8").astype(np.int64)


def contents_that_are_there(folder: FaceDataset) -> np.ndarray:
    """The numbers of `contents_of_images`, sorted, each once, without those of missing and unreadable files."""
    return np.setdiff1d(contents_of_images(folder), NO_CONTENTS)


def places_of(files: Iterable[str | Path]) -> np.ndarray:
    """A number for the real path of each file, int64, shape (files,); links have the number of their target."""
    real = cache(os.path.realpath)
    found = []
    for file in files:
        folder, name = os.path.split(os.fspath(file))
        place = os.path.join(real(folder), name)
        place = os.path.realpath(place) if os.path.islink(place) else place
        found.append(int.from_bytes(hashlib.blake2b(os.fsencode(place), digest_size=8).digest(), "little", signed=True))
    return np.array(found, np.int64)


def keep_images(directory: Path, folders: Mapping[str, FaceDataset]) -> None:
    """Write the images that a run learns from into its directory, 16 bytes each.

    Args:
        directory: directory of the run.
        folders: the images by role, without held-out ones.
    """
    columns: dict[str, np.ndarray] = {}
    for role, folder in folders.items():
        columns[f"{role}_contents"], columns[f"{role}_places"] = _known(folder)
    with replacing(directory / IMAGES_FILE) as temporary:
        save_file(columns, temporary)


def learnt_images(checkpoint: Path, run: str, workspace: Workspace) -> Iterator[Learnt]:
    """Yield the images that a network, and the networks that it started from, learnt from.

    Args:
        checkpoint: the network's file.
        run: the name of the run that made it.
        workspace: workspace of that run, used if the file lies elsewhere. Runs that are missing there are skipped.
    """
    met: set[Path] = set()
    beside = checkpoint.resolve().parents[1]
    directory: Path | None = beside if read_record(beside).get("run") == run else workspace.root / "runs" / run
    while directory is not None and directory.resolve() not in met:
        met.add(directory.resolve())
        inputs = read_record(directory).get("inputs", {})
        for role in LEARNT:
            if isinstance(facts := inputs.get(role), dict):
                yield _learnt(directory, role, facts, workspace)
        init = inputs.get("init")
        directory = _run_of(init, workspace) if isinstance(init, dict) else None


def _run_of(init: Mapping[str, Any], workspace: Workspace) -> Path | None:
    """The directory of the run that a run started from; None for other weights."""
    path = Path(str(init.get("path", "")))
    if len(path.parts) > 2 and read_record(path.parents[1]):
        return path.parents[1]
    named = workspace.root / "runs" / str(init.get("run", path.parent.parent.name))
    return named if read_record(named) else None


def _learnt(directory: Path, role: str, facts: Mapping[str, Any], workspace: Workspace) -> Learnt:
    try:
        kept = load_file(directory / IMAGES_FILE)
        contents, places = (kept[f"{role}_{column}"].astype(np.int64) for column in ("contents", "places"))
    except (OSError, SafetensorError, KeyError):
        # The file is missing (earlier version) or damaged: use the present images, held-out ones included.
        contents, places = _there_now(facts, workspace)
    return Learnt(role, str(facts.get("name", "")), contents, places)


def _there_now(facts: Mapping[str, Any], workspace: Workspace) -> tuple[np.ndarray, np.ndarray]:
    nothing = np.array([], np.int64)
    if "sigset" in facts:
        return nothing, nothing
    try:
        return _known(read_dataset(Path(str(facts.get("root", "")))).remembered_in(workspace.root))
    except (FacedanError, OSError):
        return nothing, nothing


def _known(folder: FaceDataset) -> tuple[np.ndarray, np.ndarray]:
    """Contents and places of a data set's images, each sorted."""
    places = np.unique(places_of(os.path.join(folder.root, path) for path in folder.paths))
    return contents_that_are_there(folder), places
