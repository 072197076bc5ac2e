"""Photographs in MXNet's RecordIO files, as InsightFace publishes its sets: NAME.rec and, beside it, NAME.idx.

A .rec is a sequence of records, little-endian: the magic number; a word with the part's flag in the upper 3 bits and
its length in the lower 29; the part, padded to 4 bytes. Writers cut a record where it holds the magic number itself at
a multiple of 4, and leave that out: its parts are a start, middles and an end. The record is a header `<IfQQ` (how many
labels follow, the label if none do, two numbers), those labels as float32, and the picture's file.
"""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from facedan_cli.errors import FacedanError
from facedan_cli.faces.photograph import Photograph, unreadable
from facedan_cli.faces.pictures import UnreadableImage

MAGIC = 0xCED7230A
WHOLE, START, MIDDLE, END = range(4)

_MAGIC_BYTES = struct.pack("<I", MAGIC)
_PART = struct.Struct("<II")
_HEADER = struct.Struct("<IfQQ")
_LABEL = struct.Struct("<f")


@dataclass(frozen=True)
class _Head:
    """The beginning of a record: whose face it holds, and how long the record and the picture's file are."""

    label: float
    labels: int
    bytes: int

    @property
    def picture_bytes(self) -> int:
        return self.bytes - _HEADER.size - self.labels * _LABEL.size


def rec_photographs(archive: Path, path: str) -> Iterator[Photograph]:
    """The photographs of a .rec, in the order of its .idx, or of the file itself where there is none.

    A face is named `LABEL/KEY` beside the archive: a set's identities become folders. Records with labels and no
    picture are passed over: InsightFace's sets have one at key 0, and one an identity behind the pictures.

    Args:
        archive: the file.
        path: its name among the inputs.

    Raises:
        FacedanError: the .idx is damaged.
        OSError: the .rec cannot be read.
    """
    folder = path[: path.rfind("/") + 1]
    with archive.open("rb", buffering=0) as file:
        modified = int(os.fstat(file.fileno()).st_mtime)
        for key, offset in _offsets(archive, file.fileno()):
            record = f"{path}/{key:08d}"
            try:
                head = _read_head(file.fileno(), offset)
            except UnreadableImage as error:
                yield unreadable(record, str(error), 0, modified)
                continue
            if head.labels and not head.picture_bytes:
                continue
            name = f"{folder}{int(head.label):07d}/{key:08d}"
            yield Photograph(record, name, head.bytes, modified, partial(_read_picture_file, archive, offset))


def _offsets(archive: Path, file: int) -> Iterator[tuple[int, int]]:
    """Key and place of each record."""
    index = archive.with_suffix(".idx")
    if not index.exists():
        yield from enumerate(_scan(file))
        return
    with index.open(encoding="ascii", errors="replace") as lines:
        for number, line in enumerate(lines, start=1):
            key, _, offset = line.strip().partition("\t")
            if not (key.isdecimal() and offset.isdecimal()):
                raise FacedanError(
                    f"{index}, line {number}, is damaged", "move the file away: the records are found without it"
                )
            yield int(key), int(offset)


def _scan(file: int) -> Iterator[int]:
    """Places of records, found one behind the other; damaged stretches are searched for the next record."""
    size = os.fstat(file).st_size
    offset = 0
    while offset < size:
        yield offset
        try:
            offset = _parts(file, offset)[-1][2]
        except UnreadableImage:
            offset = _next_record(file, offset + 4, size)


def _next_record(file: int, offset: int, size: int) -> int:
    """Where behind a damage a record begins; `size` where none does."""
    while offset < size:
        stretch = os.pread(file, 1 << 20, offset)
        at = stretch.find(_MAGIC_BYTES)
        while at >= 0:
            head = os.pread(file, _PART.size, offset + at)
            if at % 4 == 0 and len(head) == _PART.size and _PART.unpack(head)[1] >> 29 in (WHOLE, START):
                return offset + at
            at = stretch.find(_MAGIC_BYTES, at + 1)
        offset += len(stretch)
    return size


def _parts(file: int, offset: int) -> list[tuple[int, int, int]]:
    """Start and length of the content of each part of a record, and where the next part or record begins."""
    parts: list[tuple[int, int, int]] = []
    flag = START
    size = os.fstat(file).st_size
    while flag in (START, MIDDLE):
        head = os.pread(file, _PART.size, offset)
        if len(head) < _PART.size:
            raise UnreadableImage("cut short: the end of the archive is missing")
        magic, word = _PART.unpack(head)
        flag, length = word >> 29, word & (1 << 29) - 1
        if magic != MAGIC or flag not in ((MIDDLE, END) if parts else (WHOLE, START)):
            raise UnreadableImage("damaged: no record begins where one should")
        start = offset + _PART.size
        if start + length > size:
            raise UnreadableImage("cut short: the end of the archive is missing")
        offset = start + (length + 3) // 4 * 4
        parts.append((start, length, offset))
    return parts


def _read_record(file: int, offset: int) -> bytes:
    return _MAGIC_BYTES.join(os.pread(file, length, start) for start, length, _ in _parts(file, offset))


def _read_head(file: int, offset: int) -> _Head:
    parts = _parts(file, offset)
    start, length, _ = parts[0]
    begin = _HEADER.size + _LABEL.size
    record = os.pread(file, min(begin, length), start) if len(parts) == 1 else _read_record(file, offset)
    size = sum(length for _, length, _ in parts) + len(_MAGIC_BYTES) * (len(parts) - 1)
    if len(record) < _HEADER.size:
        raise UnreadableImage("damaged: the record has no header")
    labels, label, _, _ = _HEADER.unpack_from(record)
    if labels:
        if size < _HEADER.size + labels * _LABEL.size:
            raise UnreadableImage("damaged: the record is shorter than its labels")
        (label,) = _LABEL.unpack_from(record, _HEADER.size)
    if not math.isfinite(label) or label < 0:
        raise UnreadableImage("damaged: the record has no label")
    return _Head(label, labels, size)


def _read_picture_file(archive: Path, offset: int) -> bytes:
    with archive.open("rb", buffering=0) as file:
        record = _read_record(file.fileno(), offset)
    labels = int(_HEADER.unpack_from(record)[0])
    return record[_HEADER.size + labels * _LABEL.size :]
