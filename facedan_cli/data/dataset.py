"""What a data set holds: the images of a tree or a list file, and whose they are."""

from __future__ import annotations

import hashlib
import math
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

from facedan_cli.data.contents import Contents, contents_of
from facedan_cli.data.entries import PassedOver, is_passed_by, wanted_file
from facedan_cli.data.formats import HEAD, IMAGE_SUFFIXES, is_clutter, sniffed
from facedan_cli.data.listed import Listed, read_entries
from facedan_cli.data.ways import Way, Ways
from facedan_cli.errors import FacedanError
from facedan_cli.text import is_binary, one_form, open_given, read_list


@dataclass(frozen=True)
class FaceDataset:
    """The images of a data set in a fixed order.

    Args:
        root: the tree; `paths` are relative to it.
        paths: image files with forward slashes, sorted.
        names: whose face each is, in one Unicode form; "" where nothing tells.
        skipped: path and reason of what is lost to the data set, such as directories that may not be read.
        remark: what to tell of what else lies there; "" where there is nothing.
        contents: where digests of the files are remembered.
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
        """SHA-256 over paths, identities and what each file holds: equal wherever the tree lies, whoever copied it."""
        hasher = hashlib.sha256()
        for path, name, digest in zip(self.paths, self.names, self.digests(), strict=True):
            hasher.update(f"{path}\0{name}\0".encode(errors="surrogateescape") + digest)
        return hasher.hexdigest()

    def digests(self) -> Iterator[bytes]:
        """SHA-256 of each image file, 32 bytes; see `contents.Contents.digests` for those that have none."""
        return self.contents.digests(self.root, self.paths)

    def remembered_in(self, workspace: Path) -> FaceDataset:
        """The same, with what its files hold remembered in a workspace: an unchanged tree is not read again."""
        return replace(self, contents=contents_of(workspace))

    @property
    def fingerprint_by_size(self) -> str:
        """SHA-256 over paths, identities and file sizes, by which earlier versions knew a data set."""
        hasher = hashlib.sha256()
        for path, name in zip(self.paths, self.names, strict=True):
            try:
                size = (self.root / path).stat().st_size
            except OSError:  # a listed file that is not there
                size = -1
            hasher.update(f"{path}\t{name}\t{size}\n".encode(errors="surrogateescape"))
        return hasher.hexdigest()

    def newest_times(self) -> tuple[float, float]:
        """When an image was last written (mtime), and last changed here in any way (ctime), seconds since 1970.

        Both are infinite where an image is not there.
        """
        try:
            states = [(self.root / path).stat() for path in self.paths]
        except OSError:
            return math.inf, math.inf
        return max(state.st_mtime for state in states), max(state.st_ctime for state in states)

    def is_as_it_was(self) -> bool:
        """Whether the images still hold what they held when the fingerprint was made."""
        return replace(self).fingerprint == self.fingerprint


def read_dataset(root: Path) -> FaceDataset:
    """Find the images of a data set.

    A tree names people by its first level (`identity/image.jpg`); images that lie at the root are nobody's. A file, or
    a pipe, is taken as a list with a line for each image, `path` or `path<TAB>identity`, paths relative to the list.
    Listed images that are not there keep their places: whoever reads them sets them aside.

    Raises:
        FacedanError: there is nothing there, or no image in it.
    """
    if root.is_dir():
        return _read_tree(root)
    if not root.exists():
        raise FacedanError(f"{root} does not exist", "give a directory of images")
    return _read_list_file(root)


def identity_of(path: str) -> str:
    """Whose image lies at a path of a tree, with forward slashes: its first folder; "" where it lies in none."""
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
    """What to tell of people with several folders, their names in different Unicode forms."""
    forms: defaultdict[str, set[str]] = defaultdict(set)
    for folder in folders:
        if not folder.isascii():
            forms[one_form(folder)].add(folder)
    double = sorted(name for name, written in forms.items() if len(written) > 1)
    if not double:
        return ""
    some = ", ".join(double[:3]) + (", …" if len(double) > 3 else "")
    return f"{some}: folders of one name in two Unicode forms are one person's"


def walk_images(root: Path) -> Iterator[str]:
    """Paths of the image files under a directory, relative to it, with forward slashes; hidden ones are passed over."""
    return walk(root)


def walk(root: Path, archives: Sequence[str] = (), passed: PassedOver | None = None) -> Iterator[str]:
    """Paths of the images under a directory, relative to it, with forward slashes, in a fixed order.

    Hidden directories are passed over, and those in which systems and file servers keep copies and remains. Links are
    followed, but not back into a directory that the walk is in, which would have no end, and not by more than MOST_WAYS
    into one directory. The names in one directory are held at a time, and those of the folders beside the way to it.

    Args:
        root: the directory.
        archives: what the names of files end in that are wanted as well.
        passed: is told of what is not given.
    """
    passed = PassedOver() if passed is None else passed
    ways, ahead = Ways(), [Way(os.fspath(root))]
    while ahead:
        way = ahead.pop()
        if not ways.takes(way):
            continue
        folders, files = [], []
        try:
            with os.scandir(way.path) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False) or (entry.is_symlink() and os.path.isdir(entry.path)):
                        folders.append((entry.name, entry.is_symlink()))
                    elif wanted_file(entry, archives, passed):
                        files.append(entry.name)
        except OSError as error:  # it may not be read, or has gone
            passed.skipped.append((way.prefix or "./", f"the directory cannot be read: {error.strerror}"))
        for name in sorted(files):
            yield way.prefix + name
        passed.hidden += sum(name.startswith(".") and not is_clutter(name) for name, _ in folders)
        folders = [(name, linked) for name, linked in folders if not is_passed_by(name)]
        ahead += [way.into(name, linked=linked) for name, linked in sorted(folders, reverse=True)]


def list_of_paths(file: BinaryIO) -> FaceDataset:
    """The images that a list names, relative to the current directory; in the order and number given.

    Args:
        file: the list, such as stdin, as `read_dataset` takes it; or paths that NUL ends.

    Raises:
        FacedanError: there is not one entry, or none of the images is there.
    """
    listed = read_entries(Path(), read_list(file))
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
            listed = read_entries(root, read_list(file))
    except OSError as error:
        raise FacedanError(f"the list {path} cannot be read: {error.strerror}", "check the path") from error
    if not listed.paths:
        fix = f"of {listed.skipped[0][0]}: {listed.skipped[0][1]}" if listed.skipped else form
        raise FacedanError(f"{path} lists no images that can be taken", fix)
    return _some_there(root, listed, f"{form}, relative to {root}")


def _some_there(root: Path, listed: Listed, fix: str) -> FaceDataset:
    """The images of a list, one of which at least is there; of the others their reader will say that they are not."""
    if not any(listed.there):
        raise FacedanError(f"none of the {len(listed.paths)} listed images is there, such as {listed.paths[0]}", fix)
    return FaceDataset(root, listed.paths, listed.names, listed.skipped)
