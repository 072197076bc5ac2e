"""Images in MXNet's RecordIO files (NAME.rec with NAME.idx), the format of InsightFace's data sets.

A .rec is a sequence of records, little-endian: the magic number; a word with the part's flag in the upper 3 bits and
its length in the lower 29; the part, padded to 4 bytes. A record that contains the magic number at a multiple of 4 is
cut there into parts (start, middles, end), without the number. A record is a header `<IfQQ` (how many labels follow,
the label if none follow, two numbers), these labels as float32, and the bytes of the image's file.
"""

from __future__ import annotations

import math
import os
import struct
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from facedan_cli.alignment.recordio_index import RecordIndex, read_index
from facedan_cli.alignment.source_image import CUT_SHORT, MOST_BYTES, SourceImage, refusing, too_large, unreadable
from facedan_cli.data.images import UnreadableImage

MAGIC = 0xCED7230A
WHOLE, START, MIDDLE, END = range(4)

_MAGIC_BYTES = struct.pack("<I", MAGIC)
_PART = struct.Struct("<II")
_HEADER = struct.Struct("<IfQQ")
_LABEL = struct.Struct("<f")
_MOST_LABEL = 1 << 24
_SEARCHED = 1 << 20


@dataclass(frozen=True)
class _Head:
    """The beginning of a record: label, bytes of the record, bytes before the image, and offset of the end."""

    label: float
    bytes: int
    before_image: int
    end: int

    @property
    def with_image(self) -> bool:
        return self.bytes > self.before_image or self.before_image == _HEADER.size


def rec_images(archive: Path, path: str) -> Iterator[SourceImage]:
    """Yield the images of a .rec in the order of its .idx, or in that of the file without one.

    A face is named `LABEL/KEY` beside the archive, so that identities become folders. Records without an image are
    skipped: InsightFace's sets have one at key 0, and one for each identity behind the images. Damaged lines of the
    index, records that it lists twice and records that it does not list are set aside.

    Args:
        archive: the file.
        path: its name among the inputs.

    Raises:
        OSError: the .rec cannot be read.
    """
    reader = _Reader(archive, path)
    with archive.open("rb", buffering=0) as file:
        reader.modified = int(os.fstat(file.fileno()).st_mtime)
        index = archive.with_suffix(".idx")
        if index.exists():
            yield from _indexed(reader, file.fileno(), read_index(index))
        else:
            for key, (offset, reason) in enumerate(scan(file.fileno())):
                record = f"{path}/{key:08d}"
                if reason:
                    yield reader.refused(record, reason)
                else:
                    yield from reader.at(file.fileno(), key, record, offset)


def _indexed(reader: _Reader, file: int, index: RecordIndex) -> Iterator[SourceImage]:
    """Yield the images that an index lists, and a remark on its damage."""
    size = os.fstat(file).st_size
    again = index.repeated()
    for place, (key, offset) in enumerate(zip(index.keys, index.offsets, strict=True)):
        record = f"{reader.path}/{key:08d}"
        if place in again:
            yield reader.refused(f"{record} at byte {offset}", "the index has its key or its place twice")
        elif offset >= size:
            yield reader.refused(record, CUT_SHORT)
        else:
            yield from reader.at(file, key, record, offset)
    words = list(index.damage)
    starts = set(index.offsets)
    found = (offset for begin, end in reader.gaps(size) for offset, _ in scan(file, begin, end))
    unlisted = [offset for offset in found if offset not in starts]
    if unlisted:
        words.append(
            f"{index.path.name} does not list {len(unlisted)} records, the first at byte {unlisted[0]}: "
            "move it away, and the records are found without it"
        )
    if words:
        yield reader.refused(reader.path, "; ".join(words))


class _Reader:
    """Reads the records of a .rec as images, and keeps the byte ranges of the records."""

    def __init__(self, archive: Path, path: str) -> None:
        self.archive = archive
        self.path = path
        self.modified = 0
        self._folder = path[: path.rfind("/") + 1]
        self._begins, self._ends = array("q"), array("q")

    def at(self, file: int, key: int, record: str, offset: int) -> Iterator[SourceImage]:
        """Yield the image of the record at an offset, if it has one."""
        try:
            head = _read_head(file, offset)
        except UnreadableImage as error:
            yield self.refused(record, str(error))
            return
        self._begins.append(offset)
        self._ends.append(head.end)
        if not head.with_image:
            return
        name = f"{self._folder}{int(head.label):07d}/{key:08d}"
        content: Callable[[], bytes] = partial(_read_image_file, self.archive, offset, head.bytes, head.before_image)
        if head.bytes > MOST_BYTES:
            content = refusing(too_large(head.bytes))
        yield SourceImage(record, name, head.bytes, self.modified, content)

    def refused(self, record: str, reason: str) -> SourceImage:
        """A record that is set aside."""
        return unreadable(record, reason, 0, self.modified)

    def gaps(self, size: int) -> Iterator[tuple[int, int]]:
        """Yield the byte ranges of a file of this size that belong to no record."""
        begins = np.array(self._begins, np.int64)
        order = np.argsort(begins)
        reached = np.maximum.accumulate(np.append(0, np.array(self._ends, np.int64)[order]))
        following = np.append(begins[order], size)
        apart = reached < following
        yield from zip(reached[apart].tolist(), following[apart].tolist(), strict=True)


class _Broken(UnreadableImage):
    """A damaged or truncated record; `checked` is the offset up to which its parts are good."""

    def __init__(self, reason: str, checked: int) -> None:
        super().__init__(reason)
        self.checked = checked


def scan(file: int, offset: int = 0, size: int | None = None) -> Iterator[tuple[int, str]]:
    """Yield the offsets of records, with "", and of damaged chunks, with the reason.

    Every byte is read at most once, however much is damaged.

    Args:
        file: descriptor of the .rec.
        offset: first byte of the scan.
        size: end of the scan; None: the end of the file.
    """
    search = _Search(file, os.fstat(file).st_size if size is None else size)
    damaged = False
    while offset < search.size:
        try:
            end = _parts(file, offset)[-1][2]
        except _Broken as error:
            if not damaged:
                yield offset, str(error)
            damaged = True
            offset = search.record(max(error.checked, offset + 4))
            continue
        yield offset, ""
        damaged = False
        offset = end


class _Search:
    """A forward search for the beginnings of records."""

    def __init__(self, file: int, size: int) -> None:
        self.size = size
        self._file = file
        self._found = np.empty(0, np.int64)  # offsets of magic numbers that begin a record, in what was read last
        self._reached = 0

    def record(self, offset: int) -> int:
        """The offset of the next record at or after an offset; `size` if there is none."""
        while (place := np.searchsorted(self._found, offset)) == self._found.size:
            begin = max(offset + -offset % 4, self._reached)
            if begin >= self.size:
                return self.size
            chunk = os.pread(self._file, _SEARCHED + 4, begin)  # whether a record begins, the next word says
            words = np.frombuffer(chunk, "<u4", len(chunk) // 4)
            self._found = begin + 4 * np.flatnonzero((words[:-1] == MAGIC) & (words[1:] >> 29 <= START))
            self._reached = begin + _SEARCHED
        return min(int(self._found[place]), self.size)


def _parts(file: int, offset: int) -> list[tuple[int, int, int]]:
    """For each part of a record: start and length of its content, and offset of the next part or record.

    Raises:
        UnreadableImage: the record is cut short or damaged.
    """
    parts: list[tuple[int, int, int]] = []
    flag = START
    size = os.fstat(file).st_size
    while flag in (START, MIDDLE):
        head = os.pread(file, _PART.size, offset)
        # A part followed by another belongs to a record: it is not searched again.
        checked = parts[-1][0] if len(parts) > 1 else 0
        if len(head) < _PART.size:
            raise _Broken(CUT_SHORT, checked)
        magic, word = _PART.unpack(head)
        flag, length = word >> 29, word & (1 << 29) - 1
        if magic != MAGIC or flag not in ((MIDDLE, END) if parts else (WHOLE, START)):
            raise _Broken("damaged: no record begins where one should", checked)
        start = offset + _PART.size
        if start + length > size:
            raise _Broken(CUT_SHORT, checked)
        offset = start + (length + 3) // 4 * 4
        parts.append((start, length, offset))
    return parts


def _read_record(file: int, parts: Sequence[tuple[int, int, int]], most: int) -> bytes:
    """The first `most` bytes of a record, or all of it, with the magic numbers at which it was cut into parts."""
    record = bytearray()
    for place, (start, length, _) in enumerate(parts):
        record += (_MAGIC_BYTES if place else b"") + os.pread(file, min(length, most), start)
        if len(record) >= most:
            break
    return bytes(record[:most])


def _read_head(file: int, offset: int) -> _Head:
    parts = _parts(file, offset)
    record = _read_record(file, parts, _HEADER.size + _LABEL.size)
    if len(record) < _HEADER.size:
        raise UnreadableImage("damaged: the record has no header")
    size = sum(length for _, length, _ in parts) + len(_MAGIC_BYTES) * (len(parts) - 1)
    labels, label, _, _ = _HEADER.unpack_from(record)
    head = _Head(label, size, _HEADER.size + labels * _LABEL.size, parts[-1][2])
    if size < head.before_image:
        raise UnreadableImage("damaged: the record is shorter than its labels")
    if labels:
        head = replace(head, label=_LABEL.unpack_from(record, _HEADER.size)[0])
    if not math.isfinite(head.label) or head.label < 0:
        raise UnreadableImage("damaged: the record has no label")
    if head.with_image and head.label != int(head.label):
        raise UnreadableImage(f"its label {head.label:g} is no number of an identity")
    if head.with_image and head.label > _MOST_LABEL:
        raise UnreadableImage(f"its label {head.label:g} is so large that float32 takes two identities for one")
    return head


def _read_image_file(archive: Path, offset: int, size: int, before_image: int) -> bytes:
    with archive.open("rb", buffering=0) as file:
        record = _read_record(file.fileno(), _parts(file.fileno(), offset), size)
    if len(record) < size:
        raise UnreadableImage(CUT_SHORT)
    return record[before_image:]
