"""The sources of images: a directory, archives, or a list of paths."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from facedan_cli.alignment.recordio import rec_images
from facedan_cli.alignment.source_image import SourceImage, unreadable
from facedan_cli.alignment.tar import tar_images
from facedan_cli.data.contents import is_local, is_settled
from facedan_cli.data.formats import ARCHIVE_SUFFIXES, is_archive, no_file
from facedan_cli.data.walk import PassedOver, walk
from facedan_cli.text import open_given, read_list, spellings


def source_images(raw: Path, root: Path, out: Path, passed: PassedOver | None = None) -> Iterator[SourceImage]:
    """Yield all images of an input in a fixed order, without reading them.

    Directories that cannot be read are among them, with a slash at the end of their paths.

    Args:
        raw: a directory, in which archives are looked into as well; an archive; or else a file or a pipe with a path a
            line, or paths that end in NUL.
        root: the directory in which a list's images are named; what lies outside it is refused,
        out: and so is what lies in this one.
        passed: counts the files in directories and archives that are no images.
    """
    if raw.is_dir():
        passed = PassedOver() if passed is None else passed
        before = len(passed.skipped)
        for path in walk(raw, ARCHIVE_SUFFIXES, passed):
            yield from _of_file(raw / path, path, passed)
        yield from (unreadable(path, reason) for path, reason in passed.skipped[before:])
    elif is_archive(raw.name):
        yield from _of_file(raw, raw.name, passed)
    else:
        yield from _listed(raw, root, out)


def _listed(paths: Path, root: Path, out: Path) -> Iterator[SourceImage]:
    start, forbidden = Path(os.path.abspath(root)), Path(os.path.abspath(out))
    for listed in _paths_of(paths):
        file = Path(os.path.abspath(listed))
        if file.is_relative_to(forbidden):
            yield unreadable(listed, "it lies among the aligned faces")
        elif not file.is_relative_to(start):
            yield unreadable(listed, f"it does not lie in {root}: name a directory above it with --root")
        else:
            yield from _of_file(Path(listed), file.relative_to(start).as_posix())


def _of_file(file: Path, path: str, passed: PassedOver | None = None) -> Iterator[SourceImage]:
    try:
        now, status = time.time_ns(), file.stat()
        if is_archive(file.name) and (reason := no_file(status.st_mode)):
            yield unreadable(path, f"the archive cannot be read: {reason}")
        elif file.name.lower().endswith(".rec"):
            yield from _in_archive(rec_images(file, path), file, file.with_suffix(".idx"), now)
        elif is_archive(file.name):
            yield from _in_archive(tar_images(file, path, passed), file, file, now)
        else:
            yield SourceImage(path, path, status.st_size, int(status.st_mtime), file, _state(file, status, now))
    except OSError as error:
        if is_archive(file.name):
            yield unreadable(path, f"the archive cannot be read: {error.strerror}")
        else:  # a broken link: reading it will say why
            yield SourceImage(path, path, 0, 0, file)


def _in_archive(found: Iterator[SourceImage], archive: Path, index: Path, now: int) -> Iterator[SourceImage]:
    """Yield the images of an archive, with the state of its file and of its index."""
    status = archive.stat()
    state = _state(archive, status, now)
    if index != archive and index.exists():
        of_index = _state(index, index.stat(), now)
        state = (max(state[0], of_index[0]), state[1] ^ of_index[1]) if state and of_index else None
    for image in found:
        yield replace(image, state=state)


def _state(file: Path, status: os.stat_result, now: int) -> tuple[int, int] | None:
    if is_settled(status, now) and is_local(status.st_dev, os.fspath(file)):
        return status.st_ctime_ns, status.st_ino % (1 << 63)
    return None


def _paths_of(file: Path) -> Iterator[str]:
    """Yield the paths of a list as the file system spells them."""
    with open_given(file) as listed:
        for _, entry in read_list(listed):
            path = next(filter(os.path.lexists, spellings(entry)), None)
            if path is not None:
                yield path
            elif not entry.lstrip().startswith("#"):
                yield entry
