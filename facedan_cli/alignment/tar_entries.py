"""A reader of the headers of tar archives (ustar, GNU and pax) with bounded memory.

Python's tarfile trusts the sizes in headers: damaged or hostile ones end in a MemoryError, an OverflowError or an
endless loop. This reader only moves forward, limits extension headers to a megabyte, and searches for the next header
behind damage.
"""

from __future__ import annotations

import lzma
import math
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import BinaryIO

BLOCK = 512
MOST_EXTENSION = 1 << 20
"""Most bytes of an extension header (a long name, or pax records); names in file systems have at most 4096."""

_MOST_EXTENSIONS = 16  # before one header; there are at most four
_CHUNK = 1 << 20
_DAMAGE = (EOFError, OSError, zlib.error, lzma.LZMAError)
_LONG_NAME, _LONG_LINK, _PAX, _SOLARIS, _GLOBAL = b"L", b"K", b"x", b"X", b"g"
_EXTENSIONS = {_LONG_NAME, _LONG_LINK, _PAX, _SOLARIS, _GLOBAL}
_SPARSE_KEYS = b"GNU.sparse."
_KEYS = {b"path", b"linkpath", b"size", b"mtime", b"GNU.sparse.name"}


class Kind(Enum):
    """The kind of an entry."""

    FILE = "file"
    HARD_LINK = "hard link"
    SYMBOLIC_LINK = "symbolic link"
    DIRECTORY = "directory"
    SPARSE = "sparse file"
    OTHER = "device, pipe or part of another volume"


_CUT = "cut short: its end is missing"
_NONE = f"damaged: no tar archive, which has {BLOCK} bytes at least"

_KINDS = {
    b"0": Kind.FILE,
    b"\0": Kind.FILE,
    b"7": Kind.FILE,
    b"1": Kind.HARD_LINK,
    b"2": Kind.SYMBOLIC_LINK,
    b"5": Kind.DIRECTORY,
    b"D": Kind.DIRECTORY,
    b"S": Kind.SPARSE,
}
_ZEROS = bytes(BLOCK)
_MORE_SPARSE, _STILL_MORE_SPARSE = 482, 504
_WITHOUT_CONTENT = {b"1", b"2", b"3", b"4", b"5", b"6"}


@dataclass(frozen=True, slots=True)
class Entry:
    """A member of an archive.

    Args:
        name: name in the archive; bytes that are not UTF-8 are surrogates.
        kind: kind of the member.
        size: bytes of its content by the header; the archive may hold fewer.
        modified: time of modification, whole seconds since 1970.
        link: path that a link leads to; "" for other kinds.
        offset: offset of its first header.
        data: offset of its content.
    """

    name: str
    kind: Kind
    size: int
    modified: int
    link: str
    offset: int
    data: int


@dataclass(frozen=True, slots=True)
class Damage:
    """A damaged chunk of an archive, or its missing end, with the reason."""

    offset: int
    reason: str


class Source:
    """The bytes of an archive in order; after an error of reading it ends, and `error` is the reason.

    Args:
        file: the archive, decompressed as it is read.
        size: bytes of an uncompressed archive, whose contents can be skipped; None: everything has to be read.
    """

    def __init__(self, file: BinaryIO, size: int | None) -> None:
        self.error = ""
        self.position = 0
        self.size = size
        self._file = file

    def read(self, length: int) -> bytes:
        """The next bytes, fewer only at the end of the archive."""
        pieces = []
        left = length
        while left > 0 and (piece := self._more(min(left, _CHUNK))):
            pieces.append(piece)
            left -= len(piece)
        self.position += length - left
        return b"".join(pieces)

    def go_to(self, position: int) -> None:
        """Skip to a position, or to the end of the archive."""
        if self.size is not None and position > self.position:
            self.position = min(position, self.size)
            self._file.seek(self.position)
        while self.position < position and self.read(min(position - self.position, _CHUNK)):
            pass

    def _more(self, length: int) -> bytes:
        if self.error:
            return b""
        try:
            return self._file.read(length)
        except _DAMAGE as error:
            self.error = _CUT if isinstance(error, EOFError) else f"damaged: {error}"
            return b""


def entries(source: Source) -> Iterator[Entry | Damage]:
    """Yield the members of an archive and its damaged chunks, in order.

    Joined archives go on behind an end mark. The caller reads a member's content from the source before the next step,
    or keeps its offset.
    """
    overall: dict[str, str] = {}
    damaged = ended = False
    while True:
        offset = source.position
        block = source.read(BLOCK)
        if len(block) < BLOCK:
            if source.error or block.strip(b"\0"):
                yield Damage(offset, source.error or (_CUT if offset else _NONE))
            elif not (ended or damaged):
                yield Damage(offset, "cut short: its end mark is missing")
            return
        if block == _ZEROS:
            ended, damaged = True, False
            continue
        ended = False
        found = _entry(source, block, offset, overall)
        if found is None or isinstance(found, Damage):
            if not damaged:
                yield found or Damage(offset, f"damaged at byte {offset}")
            damaged = True
            continue
        damaged = False
        yield found
        end = found.data + found.size
        fits = source.size is None or end <= source.size
        if fits:  # else the size is wrong, and the next header is searched for
            source.go_to(end + -end % BLOCK)
        if not fits or source.position < end:
            reason = f"cut short or damaged: the end of the member at byte {found.offset} is missing"
            yield Damage(found.offset, source.error or reason)
            damaged = True


def _entry(source: Source, block: bytes, offset: int, overall: dict[str, str]) -> Entry | Damage | None:
    """The member whose first header is this block; None if the block is no header."""
    own: dict[str, str] = {}
    for _ in range(_MOST_EXTENSIONS):
        size = _number(block[124:136])
        if not _has_checksum(block) or size is None or size < 0:
            return None
        kind = block[156:157]
        if kind not in _EXTENSIONS:
            return _made(source, block, size, offset, {**overall, **own})
        if size > MOST_EXTENSION:
            return None
        content = source.read(size)
        source.read(-size % BLOCK)
        if kind in (_LONG_NAME, _LONG_LINK):
            own["path" if kind == _LONG_NAME else "linkpath"] = _text(content)
        else:
            (overall if kind == _GLOBAL else own).update(_records(content))
        block = source.read(BLOCK)
        if len(block) < BLOCK:
            return Damage(offset, source.error or _CUT)
    return None


def _made(source: Source, block: bytes, size: int, offset: int, extended: Mapping[str, str]) -> Entry | None:
    letter = block[156:157]
    name = _text(block[:100])
    if block[257:263] == b"ustar\0" and (prefix := _text(block[345:500])):
        name = f"{prefix}/{name}"
    name = extended.get("GNU.sparse.name", extended.get("path", name))
    kind = _KINDS.get(letter, Kind.OTHER)
    if letter == b"\0" and name.endswith("/"):
        kind = Kind.DIRECTORY
    if "sparse" in extended or "GNU.sparse.name" in extended:
        kind = Kind.SPARSE
    if "size" in extended:
        if not _is_number(extended["size"]):
            return None
        size = int(extended["size"])
    if letter in _WITHOUT_CONTENT:
        size = 0
    if letter == b"S" and block[_MORE_SPARSE]:  # its map continues before the content
        while len(more := source.read(BLOCK)) == BLOCK and more[_STILL_MORE_SPARSE]:
            pass
    modified = _seconds(extended["mtime"]) if "mtime" in extended else _number(block[136:148])
    link = ""
    if kind in (Kind.HARD_LINK, Kind.SYMBOLIC_LINK):
        link = extended.get("linkpath", _text(block[157:257]))
    return Entry(name, kind, size, modified or 0, link, offset, source.position)


def _has_checksum(block: bytes) -> bool:
    """Whether a block has the checksum of a header; some writers sum signed bytes."""
    claimed = _number(block[148:156])
    if claimed is None:
        return False
    counted = block[:148] + b" " * 8 + block[156:]
    total = sum(counted)
    return claimed in (total, total - 256 * sum(byte > 127 for byte in counted))


def _number(field: bytes) -> int | None:
    """The number of a header's field, in octal digits or in base 256 after a mark byte; None if it is neither."""
    if field[0] in (0x80, 0xFF):
        value = int.from_bytes(field[1:], "big")
        return value - (1 << 8 * (len(field) - 1)) if field[0] == 0xFF else value
    digits = field.split(b"\0")[0].strip()
    if digits.strip(b"01234567"):
        return None
    return int(digits or b"0", 8)


def _is_number(text: str) -> bool:
    return text.isdecimal() and text.isascii() and len(text) <= 19


def _seconds(text: str) -> int:
    try:
        value = float(text)
    except ValueError:
        return 0
    return int(value) if math.isfinite(value) and abs(value) < 1 << 62 else 0


def _records(content: bytes) -> dict[str, str]:
    """The pax records (`LENGTH KEY=VALUE` and a line break) with the keys that are used here."""
    found = {}
    at = 0
    while at < len(content):
        digits, blank, _ = content[at : at + 12].partition(b" ")
        if not (blank and digits.isdigit()):
            break
        end = at + int(digits)
        key, equals, value = content[at + len(digits) + 1 : end - 1].partition(b"=")
        if not equals or end > len(content) or content[end - 1 : end] != b"\n":
            break
        if key in _KEYS:
            found[key.decode()] = value.decode(errors="surrogateescape")
        elif key.startswith(_SPARSE_KEYS):
            found["sparse"] = ""
        at = end
    return found


def _text(field: bytes) -> str:
    return field.split(b"\0")[0].decode(errors="surrogateescape")
