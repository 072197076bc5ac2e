"""Photographs in tar archives: folders of people, or shards in WebDataset's manner."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import posixpath
import tarfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

from facedan_cli.faces.formats import is_image
from facedan_cli.faces.photograph import Photograph, stays_inside, unreadable
from facedan_cli.faces.pictures import UnreadableImage

_COMPRESSED: Mapping[str, Callable[[Path], Any]] = {
    ".tar.gz": gzip.open,
    ".tgz": gzip.open,
    ".tar.bz2": bz2.open,
    ".tar.xz": lzma.open,
}
TAR_SUFFIXES = (".tar", *_COMPRESSED)

_DAMAGE = (tarfile.TarError, EOFError, OSError, zlib.error, lzma.LZMAError)


@dataclass(frozen=True)
class _Member:
    """A file in an archive, or with an empty path a damaged stretch of it.

    Of compressed archives the bytes are held, from others they are read when they are wanted.
    """

    path: str
    size: int
    modified: int
    content: Callable[[], bytes]

    @property
    def sample(self) -> str:
        """What the files of one WebDataset sample share: the path up to the name's first dot."""
        folder, slash, name = self.path.rpartition("/")
        return folder + slash + name.partition(".")[0]


def tar_photographs(archive: Path, path: str) -> Iterator[Photograph]:
    """The photographs of a tar archive in its order; a face takes its name beside the archive.

    A `.cls` beside a photograph (WebDataset) names the folder that its face goes into. A damaged stretch of the archive
    is listed under the archive's own name, and what can be read behind it is read.

    Args:
        archive: the file, its name one of TAR_SUFFIXES.
        path: its name among the inputs.
    """
    folder = path[: path.rfind("/") + 1]
    for _, files in groupby(_readable(archive), key=lambda member: member.sample):
        yield from _photographs_of(list(files), path, folder)


def _photographs_of(files: Sequence[_Member], archive: str, folder: str) -> Iterator[Photograph]:
    """The photographs of one sample."""
    label = next((file for file in files if file.path.endswith(".cls")), None)
    person = "" if label is None else label.content().decode(errors="surrogateescape").strip()
    for file in files:
        path, name = f"{archive}/{file.path}", file.path
        if not name:
            yield Photograph(archive, "", file.size, file.modified, file.content)
        elif not is_image(name):
            continue
        elif not stays_inside(name):
            yield unreadable(path, "its name leads out of the archive", file.size, file.modified)
        elif label is not None and ("/" in person or not stays_inside(person)):
            yield unreadable(path, "its .cls does not name a folder", file.size, file.modified)
        else:
            name = f"{folder}{person}/{name}" if person else folder + name
            yield Photograph(path, name, file.size, file.modified, file.content)


def _readable(archive: Path) -> Iterator[_Member]:
    """The files of an archive up to where it cannot be read any more."""
    opener = next((opener for suffix, opener in _COMPRESSED.items() if archive.name.lower().endswith(suffix)), None)
    try:
        yield from _members(archive) if opener is None else _streamed(archive, opener)
    except _DAMAGE as error:
        short = isinstance(error, EOFError) or "end of data" in str(error)
        yield _damage(archive, "cut short: its end is missing" if short else f"damaged: {error}")


def _members(archive: Path) -> Iterator[_Member]:
    """The files of an archive that is not compressed, and its damaged stretches."""
    with archive.open("rb") as file, tarfile.open(fileobj=file, mode="r:", ignore_zeros=True) as tar:
        expected = 0
        while (member := _next(tar)) is not None:
            if member.offset != expected and not _empty(file.fileno(), expected):
                yield _damage(archive, f"damaged at byte {expected}")
            if member.isreg():
                yield _member(member, partial(_read_stretch, archive, member.offset_data, member.size))
            expected = tar.offset
        if not _empty(file.fileno(), expected):
            raise tarfile.ReadError(f"no file begins at byte {expected}")


def _streamed(archive: Path, opener: Callable[[Path], Any]) -> Iterator[_Member]:
    """The files of a compressed archive, each with its bytes."""
    with opener(archive) as file, tarfile.open(fileobj=file, mode="r|") as tar:
        while (member := _next(tar)) is not None:
            if member.isreg() and (is_image(member.name) or member.name.endswith(".cls")):
                content = tar.extractfile(member).read()  # type: ignore[union-attr]  # it is a file
                yield _member(member, partial(bytes, content))
        if file.read().strip(b"\0"):
            raise tarfile.ReadError("what follows the last file that could be read is no tar")


def _next(tar: tarfile.TarFile) -> tarfile.TarInfo | None:
    member = tar.next()
    tar.members.clear()  # type: ignore[attr-defined]  # else it keeps all of them
    return member


def _member(header: tarfile.TarInfo, content: Callable[[], bytes]) -> _Member:
    return _Member(posixpath.normpath(header.name), header.size, int(header.mtime), content)


def _damage(archive: Path, reason: str) -> _Member:
    status = archive.stat()
    return _Member("", status.st_size, int(status.st_mtime), unreadable("", reason).read)


def _empty(file: int, offset: int) -> bool:
    """Whether an archive may end at this block."""
    return not os.pread(file, tarfile.BLOCKSIZE, offset).strip(b"\0")


def _read_stretch(archive: Path, offset: int, length: int) -> bytes:
    with archive.open("rb", buffering=0) as file:
        content = os.pread(file.fileno(), length, offset)
    if len(content) < length:
        raise UnreadableImage("cut short: the end of the archive is missing")
    return content
