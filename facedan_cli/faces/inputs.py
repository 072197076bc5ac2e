"""Where photographs come from: a directory, archives, or a list of paths."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from facedan_cli.faces.folder import walk
from facedan_cli.faces.formats import is_image
from facedan_cli.faces.photograph import Photograph, unreadable
from facedan_cli.faces.recordio import rec_photographs
from facedan_cli.faces.tar import TAR_SUFFIXES, tar_photographs

ARCHIVE_SUFFIXES = (".rec", *TAR_SUFFIXES)

_STRETCH = 1 << 16


def photographs(raw: Path, root: Path, out: Path) -> Iterator[Photograph]:
    """All photographs of an input, in a fixed order; none is read yet, and they are not held.

    Args:
        raw: a directory, in which archives are looked into as well; an archive; or else a file with a path a line, or
            paths that end in NUL.
        root: the directory in which a list's photographs are named; what lies outside it is refused,
        out: and so is what lies in this one.
    """
    if raw.is_dir():
        for path in walk(raw, _is_input):
            yield from _of_file(raw / path, path)
    elif is_archive(raw.name):
        yield from _of_file(raw, raw.name)
    else:
        yield from _listed(raw, root, out)


def _listed(paths: Path, root: Path, out: Path) -> Iterator[Photograph]:
    start, forbidden = Path(os.path.abspath(root)), Path(os.path.abspath(out))
    for listed in _paths_of(paths):
        file = Path(os.path.abspath(listed))
        if file.is_relative_to(forbidden):
            yield unreadable(listed, "it lies among the aligned faces")
        elif not file.is_relative_to(start):
            yield unreadable(listed, f"it does not lie in {root}: name a directory above it with --root")
        else:
            yield from _of_file(Path(listed), file.relative_to(start).as_posix())


def is_archive(path: str) -> bool:
    """Whether a file's name is that of an archive."""
    return path.lower().endswith(ARCHIVE_SUFFIXES)


def _is_input(name: str) -> bool:
    return is_image(name) or (is_archive(name) and not name.startswith("."))


def _of_file(file: Path, path: str) -> Iterator[Photograph]:
    try:
        status = file.stat()
        if file.name.lower().endswith(".rec"):
            yield from rec_photographs(file, path)
        elif is_archive(file.name):
            yield from tar_photographs(file, path)
        else:
            yield Photograph(path, path, status.st_size, int(status.st_mtime), file)
    except OSError as error:
        if is_archive(file.name):
            yield unreadable(path, f"the archive cannot be read: {error.strerror}")
        else:  # a broken link: reading it will say why
            yield Photograph(path, path, 0, 0, file)


def _paths_of(file: Path) -> Iterator[str]:
    """The paths of a list, a stretch of which is held at a time."""
    with file.open("rb") as listed:
        end = b"\0" if b"\0" in listed.read(_STRETCH) else b"\n"
        listed.seek(0)
        rest = b""
        while stretch := listed.read(_STRETCH):
            *paths, rest = (rest + stretch).split(end)
            yield from (os.fsdecode(path) for path in map(_plain, paths) if path)
        if _plain(rest):
            yield os.fsdecode(_plain(rest))


def _plain(line: bytes) -> bytes:
    return line.removesuffix(b"\r")
