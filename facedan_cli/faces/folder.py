"""What a data set holds: the images of a tree or a list file, and whose they are."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from facedan_cli.errors import FacedanError
from facedan_cli.faces.contents import Contents, contents_of
from facedan_cli.faces.formats import IMAGE_SUFFIXES, is_clutter, is_image
from facedan_cli.faces.ways import Way, Ways


@dataclass(frozen=True)
class FaceFolder:
    """The images of a data set in a fixed order.

    Args:
        root: the tree; `paths` are relative to it.
        paths: image files with forward slashes, sorted.
        names: whose face each is; "" where nothing tells.
        contents: where digests of the files are remembered.
    """

    root: Path
    paths: tuple[str, ...]
    names: tuple[str, ...]
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

    def remembered_in(self, workspace: Path) -> FaceFolder:
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

    def unchanged_since(self, moment: float) -> bool:
        """Whether no image has been written, replaced or moved here since a moment, seconds since 1970."""
        try:
            return all((self.root / path).stat().st_ctime < moment for path in self.paths)
        except OSError:
            return False

    def is_as_it_was(self) -> bool:
        """Whether the images still hold what they held when the fingerprint was made."""
        return replace(self).fingerprint == self.fingerprint


def read_folder(root: Path) -> FaceFolder:
    """Find the images of a data set.

    A tree names people by its first level (`identity/image.jpg`); images that lie at the root are nobody's. A file is
    taken as a list with a line for each image, `path` or `path<TAB>identity`, paths relative to the list.

    Raises:
        FacedanError: there is nothing there, or no image in it.
    """
    if root.is_file():
        return _read_list(root)
    if not root.is_dir():
        raise FacedanError(f"{root} does not exist", "give a directory of images")
    paths = tuple(sorted(walk_images(root)))
    if not paths:
        raise FacedanError(f"{root} holds no images", f"images end in {', '.join(sorted(IMAGE_SUFFIXES))}")
    return FaceFolder(root, paths, tuple(map(identity_of, paths)))


def identity_of(path: str) -> str:
    """Whose image lies at a path of a tree, with forward slashes: its first folder; "" where it lies in none."""
    return path.partition("/")[0] if "/" in path else ""


def walk_images(root: Path) -> Iterator[str]:
    """Paths of the image files under a directory, relative to it, with forward slashes; hidden ones are passed over."""
    return walk(root, is_image)


def walk(root: Path, wanted: Callable[[str], bool]) -> Iterator[str]:
    """Paths of the files with wanted names under a directory, relative to it, with forward slashes, in a fixed order.

    Hidden directories are passed over. Links are followed, but not back into a directory that the walk is in, which
    would have no end, and not by more than MOST_WAYS into one directory. The names in one directory are held at a time,
    and those of the folders beside the way to it.
    """
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
                    elif wanted(entry.name):
                        files.append(entry.name)
        except OSError:  # it may not be read, or has gone
            continue
        for name in sorted(files):
            yield way.prefix + name
        folders = [(name, linked) for name, linked in folders if not (name.startswith(".") or is_clutter(name))]
        ahead += [way.into(name, linked=linked) for name, linked in sorted(folders, reverse=True)]


def _read_list(path: Path) -> FaceFolder:
    paths, names = [], []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise FacedanError(f"{path} is not a list of images", "give a directory of images, or a text file") from error
    for number, line in enumerate(lines, start=1):
        image, _, name = line.strip().partition("\t")
        if not image or image.startswith("#"):
            continue
        if not (path.parent / image).is_file():
            raise FacedanError(
                f"{path}, line {number}: there is no file {image}",
                f"a list has a line `path` or `path<TAB>identity` an image, relative to {path.parent}",
            )
        paths.append(image)
        names.append(name.strip())
    if not paths:
        raise FacedanError(f"{path} lists no images", "a list has a line `path` or `path<TAB>identity` an image")
    return FaceFolder(path.parent, tuple(paths), tuple(names))


def list_of_paths(lines: Iterable[str]) -> FaceFolder:
    """The images that a stream of lines names, relative to the current directory; in the order and number given.

    Raises:
        FacedanError: there is not one line, or a file is missing.
    """
    paths = tuple(line.rstrip("\r\n") for line in lines if line.strip())
    if not paths:
        raise FacedanError("the list of images is empty", "give a path a line")
    missing = [path for path in paths if not Path(path).is_file()]
    if len(missing) == len(paths):
        raise FacedanError(f"none of the {len(paths)} listed images is there, such as {missing[0]}", "check the paths")
    return FaceFolder(Path(), paths, ("",) * len(paths))
