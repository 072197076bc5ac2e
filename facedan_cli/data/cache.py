"""The cache of decoded faces: in memory, or in one memory-mapped file that later runs reuse."""

from __future__ import annotations

import fcntl
import glob
import hashlib
import json
import math
import mmap
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from facedan_cli import __version__
from facedan_cli.config.common import CACHES
from facedan_cli.data.dataset import FaceDataset
from facedan_cli.data.images import UnreadableImage
from facedan_cli.errors import FacedanError
from facedan_cli.json_files import read_object
from facedan_cli.report import SILENT, Report
from facedan_cli.workspace import make_directory, replacing, write_text

CACHE_BYTES = 2 << 30
"""Most bytes of faces that "auto" caches; more are decoded again in each epoch."""

Faces = Iterable[tuple[int, np.ndarray | UnreadableImage]]
"""The faces of a data set in its order, each with its index: `data.batches.read_faces`."""


@dataclass(frozen=True)
class Decoded:
    """The faces of a data set.

    Args:
        faces: RGB, uint8, shape (images, size, size, 3); black where an image cannot be read.
        unreadable: the reason for each path that cannot.
    """

    faces: np.ndarray
    unreadable: dict[str, str]


@dataclass(frozen=True)
class Cache:
    """A cache of decoded faces.

    Args:
        mode: "ram": in the memory of this process. "disk": in a file, which processes share and later runs map without
            decoding anything. "none": nowhere. "auto": in memory where they take no more than CACHE_BYTES.
        directory: directory of the files of "disk".
    """

    mode: str = "auto"
    directory: Path | None = None

    def __post_init__(self) -> None:
        if self.mode not in CACHES:
            raise ValueError(f"a cache is one of {', '.join(CACHES)}, not {self.mode!r}")
        if self.mode == "disk" and self.directory is None:
            raise ValueError("a cache on disk wants a directory")

    def keep(self, folder: FaceDataset, size: int, faces: Faces, report: Report = SILENT) -> Decoded | None:
        """The cached faces of a data set; None if they are not cached.

        Args:
            folder: the data set.
            size: side of a face, pixels.
            faces: the decoded faces, used if they are not cached yet.
            report: told of the progress.

        Raises:
            FacedanError: memory or disk is too small.
        """
        if self.directory is not None and self.mode == "disk" and len(folder):  # no file of no faces can be mapped
            return _on_disk(self.directory, folder, size, faces, report)
        needed = len(folder) * size * size * 3
        if self.mode == "none" or (self.mode == "auto" and needed > CACHE_BYTES):
            return None
        _refuse_without_room(folder, needed, os.sysconf("SC_PHYS_PAGES") * mmap.PAGESIZE, "this machine's memory")
        return _in_memory(folder, size, faces, report)


def expect(faces: np.ndarray, rows: Iterable[int]) -> None:
    """Let the system fetch the pages of several faces at once, before they are read one by one."""
    if not isinstance(faces, np.memmap):
        return
    mapped: Any = faces.base
    length = math.prod(faces.shape[1:])
    for row in rows:
        first = faces.offset + row * length
        page = first - first % mmap.PAGESIZE
        mapped.madvise(mmap.MADV_WILLNEED, page, first + length - page)


def _in_memory(folder: FaceDataset, size: int, faces: Faces, report: Report) -> Decoded:
    kept = np.zeros((len(folder), size, size, 3), np.uint8)
    unreadable = {}
    with report.progress(f"reading {_name(folder)}", len(folder)) as advance:
        for index, face in faces:
            if isinstance(face, UnreadableImage):
                unreadable[folder.paths[index]] = str(face)
            else:
                kept[index] = face
            advance(1, "")
    return Decoded(kept, unreadable)


def _on_disk(directory: Path, folder: FaceDataset, size: int, faces: Faces, report: Report) -> Decoded:
    """The faces in the file NAME-FINGERPRINT-SIZE.npy, with a .json beside it; the file is made if missing."""
    path = directory / f"{_name(folder)}-{folder.fingerprint[:8]}-{size}.npy"
    facts = {
        "version": __version__,
        "fingerprint": folder.fingerprint,
        "shape": [len(folder), size, size, 3],
    }
    with _alone_with(path, report):
        kept = _map(path, facts)
        if kept is None:
            _build(path, facts, folder, faces, report)
            kept = _map(path, facts)
    if kept is None:
        raise OSError(f"{path} cannot be read back")
    report.detail(f"the faces of {_name(folder)} are in {path}")
    return kept


def _build(path: Path, facts: Mapping[str, Any], folder: FaceDataset, faces: Faces, report: Report) -> None:
    path.with_suffix(".json").unlink(missing_ok=True)  # it is written last and marks a complete cache
    for left in path.parent.glob(f".{glob.escape(path.stem)}.*.tmp.*"):  # files of killed processes
        left.unlink()
    _refuse_without_room(
        folder, math.prod(facts["shape"]), shutil.disk_usage(path.parent).free, f"left at {path.parent}"
    )
    header = {"descr": "|u1", "fortran_order": False, "shape": tuple(facts["shape"])}
    black = np.zeros(facts["shape"][1:], np.uint8)
    unreadable = {}
    with (
        replacing(path) as temporary,
        temporary.open("wb") as file,
        report.progress(f"reading {_name(folder)}", len(folder)) as advance,
    ):
        np.lib.format.write_array_header_1_0(file, header)
        for index, face in faces:
            if isinstance(face, UnreadableImage):
                unreadable[folder.paths[index]] = str(face)
            file.write((black if isinstance(face, UnreadableImage) else face).tobytes())
            advance(1, "")
    _refuse_changed(folder)
    place = _place(folder)
    for other in path.parent.glob(f"{glob.escape(_name(folder))}-*-{facts['shape'][1]}.json"):
        if _read_facts(other).get("place") == place:  # the faces of these files' earlier contents
            other.unlink()
            other.with_suffix(".npy").unlink(missing_ok=True)
    write_text(path.with_suffix(".json"), json.dumps({**facts, "place": place, "unreadable": unreadable}))


def _map(path: Path, facts: Mapping[str, Any]) -> Decoded | None:
    """The faces in a file; None if it is missing, cut short, or belongs to other facts."""
    found = _read_facts(path.with_suffix(".json"))
    try:
        unreadable = {str(name): str(reason) for name, reason in found["unreadable"].items()}
        faces = np.lib.format.open_memmap(path, mode="r")
        length = path.stat().st_size
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None
    right = all(found.get(key) == value for key, value in facts.items()) and faces.dtype == np.uint8
    whole = list(faces.shape) == facts["shape"] and faces.offset + faces.nbytes == length
    return Decoded(faces, unreadable) if right and whole else None


def _read_facts(path: Path) -> dict[str, Any]:
    try:
        return read_object(path)
    except (OSError, ValueError):
        return {}


def _place(folder: FaceDataset) -> str:
    """A digest of the paths of these files."""
    hasher = hashlib.sha256(os.fsencode(folder.root.resolve()))
    for path in folder.paths:
        hasher.update(b"\0" + os.fsencode(path))
    return hasher.hexdigest()


def _refuse_without_room(folder: FaceDataset, needed: int, room: int, where: str) -> None:
    """Check that the cache fits, before hours of decoding.

    Raises:
        FacedanError: the faces need more than `room` bytes.
    """
    if needed > room:
        raise FacedanError(
            f"the decoded faces of '{_name(folder)}' take {needed / 1e9:.1f} GB; {room / 1e9:.1f} GB is {where}",
            "give another --cache: disk, or none, which decodes them again in each epoch",
        )


def _refuse_changed(folder: FaceDataset) -> None:
    """Check that no image changed while it was read.

    Raises:
        FacedanError: the data set has another fingerprint now.
    """
    if not folder.is_as_it_was():
        raise FacedanError(
            f"images of '{_name(folder)}' changed while they were read",
            "repeat the command when nothing writes to them",
        )


@contextmanager
def _alone_with(path: Path, report: Report) -> Iterator[None]:
    """Hold a file's lock, waiting for other processes; the system releases it when a process ends."""
    make_directory(path.parent)
    with (path.parent / f".{path.stem}.lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            report.note(f"another process looks after {path}: waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _name(folder: FaceDataset) -> str:
    return folder.root.resolve().name
