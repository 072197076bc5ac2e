"""Data sets: the images of a tree or of a list, with their identities."""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

from facedan_cli.data.contents import Contents, contents_of
from facedan_cli.data.formats import HEAD, IMAGE_SUFFIXES, sniffed
from facedan_cli.data.walk import PassedOver, walk
from facedan_cli.errors import FacedanError
from facedan_cli.text import is_binary, one_form, open_given, read_list, spellings

_NAMED = 5
"""Number of identities that a message names."""


@dataclass(frozen=True)
class FaceDataset:
    """The images of a data set in a fixed order.

    Args:
        root: the tree; `paths` are relative to it.
        paths: image files with forward slashes, sorted.
        names: the identity of each image, in one Unicode form; "" for an unlabelled image.
        skipped: path and reason of everything that could not be read, such as directories without permission.
        remark: a note on other files in the tree; "" without any.
        contents: digests of the files, with the index of a workspace.
    """

    root: Path
    paths: tuple[str, ...]
    names: tuple[str, ...]
    skipped: tuple[tuple[str, str], ...] = ()
    remark: str = ""
    contents: Contents = field(default_factory=Contents, compare=False, repr=False)

    def __len__(self) -> int:
        return len(self.paths)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over paths, identities and contents of the files; a copy of the tree has the same one."""
        hasher = hashlib.sha256()
        for path, name, digest in zip(self.paths, self.names, self.digests(), strict=True):
            hasher.update(f"{path}\0{name}\0".encode(errors="surrogateescape") + digest)
        return hasher.hexdigest()

    def digests(self) -> Iterator[bytes]:
        """Yield the SHA-256 of each image file, 32 bytes, as `contents.Contents.digests`."""
        return self.contents.digests(self.root, self.paths)

    def remembered_in(self, workspace: Path) -> FaceDataset:
        """The data set with the index of digests of a workspace, so that an unchanged tree is not read again."""
        return replace(self, contents=contents_of(workspace))

    @property
    def fingerprint_by_size(self) -> str:
        """SHA-256 over paths, identities and file sizes, the fingerprint of earlier versions."""
        hasher = hashlib.sha256()
        for path, name in zip(self.paths, self.names, strict=True):
            try:
                size = (self.root / path).stat().st_size
            except OSError:  # a listed file that is not there
                size = -1
            hasher.update(f"{path}\t{name}\t{size}\n".encode(errors="surrogateescape"))
        return hasher.hexdigest()

    def newest_times(self) -> tuple[float, float]:
        """The newest mtime and the newest ctime of the images, seconds since 1970; infinite if an image is missing."""
        try:
            states = [(self.root / path).stat() for path in self.paths]
        except OSError:
            return math.inf, math.inf
        return max(state.st_mtime for state in states), max(state.st_ctime for state in states)

    def is_as_it_was(self) -> bool:
        """Whether the images' contents are the same as when the fingerprint was made."""
        return replace(self).fingerprint == self.fingerprint


def read_dataset(root: Path) -> FaceDataset:
    """Find the images of a data set.

    The first level of a tree names identities (`identity/image.jpg`); images at its root are unlabelled. A file, or a
    pipe, is a list with a line for each image, `path` or `path<TAB>identity`, paths relative to the list. Listed images
    that are missing keep their places: their reader sets them aside.

    Raises:
        FacedanError: there is no file or directory, or it has no images.
    """
    if root.is_dir():
        return _read_tree(root)
    if not root.exists():
        raise FacedanError(f"{root} does not exist", "give a directory of images")
    return _read_list_file(root)


def identity_of(path: str) -> str:
    """The identity of an image by its path in a tree: the first folder; "" if it lies at the root."""
    return one_form(path.partition("/")[0]) if "/" in path else ""


def _read_tree(root: Path) -> FaceDataset:
    passed = PassedOver()
    paths = tuple(sorted(walk(root, passed=passed)))
    if not paths and passed.skipped:
        path, reason = passed.skipped[0]
        raise FacedanError(f"{root} holds no images that can be read; {path}: {reason}", "correct its permissions")
    if not paths:
        raise FacedanError(f"{root} holds no images", f"images end in {', '.join(sorted(IMAGE_SUFFIXES))}")
    remarks = (passed.remark(root), _merged(path.partition("/")[0] for path in paths if "/" in path))
    skipped = tuple(sorted(passed.skipped))
    return FaceDataset(root, paths, tuple(map(identity_of, paths)), skipped, "; ".join(filter(None, remarks)))


def _merged(folders: Iterable[str]) -> str:
    """A note on identities with several folders, whose names are in different Unicode forms."""
    forms: defaultdict[str, set[str]] = defaultdict(set)
    for folder in folders:
        if not folder.isascii():
            forms[one_form(folder)].add(folder)
    double = sorted(name for name, written in forms.items() if len(written) > 1)
    if not double:
        return ""
    some = ", ".join(double[:3]) + (", …" if len(double) > 3 else "")
    return f"{some}: folders of one name in two Unicode forms are one identity"


def list_of_paths(file: BinaryIO) -> FaceDataset:
    """The images of a list of paths, which are relative to the current directory, in the list's order.

    Args:
        file: the list, such as stdin, as `read_dataset` takes it; or paths that NUL ends.

    Raises:
        FacedanError: there is not one entry, or none of the images is there.
    """
    listed = _read_entries(Path(), read_list(file))
    if not listed.paths:
        raise FacedanError("the list of images is empty", "give a path a line")
    return _some_there(Path(), listed, "check the paths")


def _read_list_file(path: Path) -> FaceDataset:
    form = "a list has a line `path` or `path<TAB>identity` an image"
    try:
        with open_given(path) as file:
            head = file.read(1 << 12)
            if sniffed(head[:HEAD]) or is_binary(head):
                raise FacedanError(f"{path} is not a list of images", "give a directory of images, or a text file")
            file.seek(0)
            root = Path() if path.is_fifo() else path.parent  # a pipe lies nowhere
            listed = _read_entries(root, read_list(file))
    except OSError as error:
        raise FacedanError(f"the list {path} cannot be read: {error.strerror}", "check the path") from error
    if not listed.paths:
        fix = f"of {listed.skipped[0][0]}: {listed.skipped[0][1]}" if listed.skipped else form
        raise FacedanError(f"{path} lists no images that can be taken", fix)
    return _some_there(root, listed, f"{form}, relative to {root}")


def _some_there(root: Path, listed: _Listed, fix: str) -> FaceDataset:
    """The data set of a list; raises an error if no listed image exists."""
    if not any(listed.there):
        raise FacedanError(f"none of the {len(listed.paths)} listed images is there, such as {listed.paths[0]}", fix)
    return FaceDataset(root, listed.paths, listed.names, listed.skipped)


@dataclass(frozen=True)
class _Listed:
    """The images of a list.

    Args:
        paths: the images in the order and number listed, spelt as where they lie.
        names: the identity of each image, in one Unicode form; "" where it is unlabelled.
        there: whether the image exists.
        skipped: other images with the reason.
    """

    paths: tuple[str, ...]
    names: tuple[str, ...]
    there: tuple[bool, ...]
    skipped: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class _Entry:
    """An image, its identity, and its device and inode; None for a missing image."""

    image: str
    name: str
    file: tuple[int, int] | None


def _read_entries(root: Path, entries: Iterable[tuple[int, str]]) -> _Listed:
    """Find the images of a list's entries, `path` or `path<TAB>identity`; entries that begin with # are comments.

    A file that is listed under two identities, however it is spelt or linked, is skipped, and so is one whose line has
    more columns: with these in its name each identity would be several.

    Args:
        root: the directory that paths are relative to.
        entries: with their numbers, as `text.read_list` gives them.
    """
    rows = []
    wide: dict[str, str] = {}
    identities: defaultdict[tuple[int, int], set[str]] = defaultdict(set)
    for _, text in entries:
        entry = _found(root, text)
        if not entry.image or (entry.file is None and entry.image.startswith("#")):
            continue
        if entry.file is not None and (more := entry.name.count("\t")):
            wide[entry.image] = f"its line has {2 + more} columns, not a path and an identity"
            continue
        rows.append(entry)
        if entry.file is not None and entry.name:
            identities[entry.file].add(entry.name)
    shared = {file: sorted(names) for file, names in identities.items() if len(names) > 1}
    skipped = {
        row.image: f"it is listed under {len(shared[row.file])} identities: {', '.join(shared[row.file][:_NAMED])}"
        for row in rows
        if row.file in shared
    }
    kept = [row for row in rows if row.file not in shared]
    return _Listed(
        tuple(row.image for row in kept),
        tuple(row.name for row in kept),
        tuple(row.file is not None for row in kept),
        tuple(sorted((wide | skipped).items())),
    )


def _found(root: Path, entry: str) -> _Entry:
    image, tab, name = entry.partition("\t")
    name = one_form(name.strip())
    # A tab may be a part of the image's name.
    for path, whose in ((image, name), (entry, "")) if tab else ((image, name),):
        for spelling in spellings(path):
            try:
                status = (root / spelling).stat()
            except (OSError, ValueError):
                continue
            return _Entry(spelling, whose, (status.st_dev, status.st_ino))
    return _Entry(image.strip(), name, None)
