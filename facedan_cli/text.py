"""Readers of users' text files (lists, tables, settings) in all encodings that editors write.

UTF-8 with or without a byte order mark, UTF-16 and UTF-32 with one; lines that end in LF, CR LF or CR. What is not
UTF-8 keeps its bytes, as names of files do (surrogateescape).
"""

from __future__ import annotations

import codecs
import gzip
import io
import os
import select
import stat
import time
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from facedan_cli.errors import FacedanError

BLOCK = 1 << 16
"""Number of bytes read at a time."""

PATIENCE = 10.0
"""Longest wait for the first byte of a named pipe, seconds."""

_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_CONTROL = frozenset(range(32)) - frozenset(b"\0\t\n\v\f\r\x1a\x1b")

_LONGEST = 1 << 20
"""Most bytes of an entry of a list."""

_from_pipes: dict[tuple[int, int], bytes] = {}
"""Contents of pipes by device and inode; a pipe can be read once, but several steps of a command read it."""


def open_given(path: Path) -> io.BufferedReader | io.BytesIO:
    """Open a file of the user; a pipe, such as a shell's `<(…)`, can be opened repeatedly.

    Raises:
        FacedanError: it is a socket or a device, or a named pipe that nobody writes to.
        OSError: it is not there, or may not be read.
    """
    status = path.stat()
    if stat.S_ISFIFO(status.st_mode):
        key = status.st_dev, status.st_ino
        if key not in _from_pipes:
            _from_pipes[key] = _drained(path)
        return io.BytesIO(_from_pipes[key])
    if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
        raise FacedanError(f"{path} is a device or a socket, not a file", "give a file, or a pipe")
    return path.open("rb")


def _drained(path: Path) -> bytes:
    """The whole content of a pipe."""
    pipe = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    content = bytearray()
    end = time.monotonic() + PATIENCE
    try:
        while True:
            try:
                block = os.read(pipe, BLOCK)
            except BlockingIOError:  # somebody writes, but slowly
                select.select([pipe], [], [])
                continue
            if not block and (content or time.monotonic() > end):
                break
            if not block:
                time.sleep(0.02)
            content += block
    finally:
        os.close(pipe)
    if not content:
        raise FacedanError(f"nothing comes out of the pipe {path}", "start what writes to it, or give a file")
    return bytes(content)


def blocks(file: BinaryIO | gzip.GzipFile, size: int = BLOCK) -> Iterator[bytes]:
    """Yield the content of a text file in blocks of UTF-8, without a byte order mark and with LF line ends.

    Carriage returns before LF are left away. Where there is no LF at all they end the lines themselves.

    Args:
        file: at its beginning.
        size: bytes of the file that are read at a time.

    Raises:
        FacedanError: it begins with the mark of an encoding and does not go on in it.
    """
    head = file.read(size)
    mark, encoding = next(((mark, name) for mark, name in _MARKS if head.startswith(mark)), (b"", "utf-8"))
    decoder = None if encoding == "utf-8" else codecs.getincrementaldecoder(encoding)()
    block, rest = head[len(mark) :] or file.read(size), b""
    alone: bool | None = None
    while True:
        end = not block
        try:
            plain = block if decoder is None else decoder.decode(block, end).encode("utf-8", "surrogatepass")
        except UnicodeDecodeError as error:
            name = getattr(file, "name", "the text")
            raise FacedanError(f"{name} begins as {encoding.upper()} and does not go on so", "save it anew") from error
        plain = rest + plain
        rest = b"\r" if plain.endswith(b"\r") and not end else b""  # does LF follow?
        plain = plain[: len(plain) - len(rest)]
        if alone is None and (b"\n" in plain or b"\r" in plain):
            alone = b"\n" not in plain
        plain = plain.replace(b"\r\n", b"\n")
        yield plain.replace(b"\r", b"\n") if alone else plain
        if end:
            return
        block = file.read(size)


def read_text(path: Path) -> str:
    """The decoded text of a file, with LF line ends.

    Raises:
        FacedanError: it is in no encoding of text, or no file.
        OSError: it cannot be read.
    """
    with open_given(path) as file:
        if is_binary(file.read(1 << 12)):
            raise FacedanError(f"{path} is not text", "give a text file")
        file.seek(0)
        return b"".join(blocks(file)).decode("utf-8", "surrogateescape")


def read_list(file: BinaryIO) -> Iterator[tuple[int, str]]:
    """Yield the entries of a list with their numbers, from 1; entries end in NUL if the list has any, else in lines.

    Lines of blanks are left out. Entries are decoded as names of files are; the file is read in chunks.

    Raises:
        FacedanError: as `blocks`.
    """
    number, rest, end = 0, b"", None
    for block in blocks(file):
        end = end or (b"\0" if b"\0" in block else b"\n")
        *entries, rest = (rest + block).split(end)
        for number, entry in enumerate(entries, start=number + 1):  # noqa: B020  (it goes on counting)
            if entry.strip():
                yield number, os.fsdecode(entry)
        if len(rest) > _LONGEST:
            raise FacedanError(f"line {number + 1} is longer than {_LONGEST} bytes: this is no list", "give a list")
    if rest.strip():
        yield number + 1, os.fsdecode(rest)


def is_binary(head: bytes) -> bool:
    """Whether the first bytes of a file show that it is neither a text nor a list."""
    if head.startswith(tuple(mark for mark, _ in _MARKS)):
        return False
    return not _CONTROL.isdisjoint(head)


def one_form(name: str) -> str:
    """A name in Unicode form NFC; macOS stores accents apart from their letters (NFD)."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def spellings(name: str) -> Iterator[str]:
    """The possible names of a list's entry, the likeliest first: unchanged, in other Unicode forms, and so on.

    Blanks around it may be no part of it, backslashes stand for slashes in lists from Windows, and bytes that are not
    UTF-8 may be Latin-1.
    """
    seen = set()
    for bare in (name, name.strip()):
        for whole in (bare, bare.replace("\\", "/")):
            latin = whole.encode("utf-8", "surrogateescape").decode("latin-1")
            readings = (whole,) if whole.isascii() else (whole, latin)
            for reading in readings:
                for spelling in (reading, *(unicodedata.normalize(form, reading) for form in ("NFC", "NFD"))):
                    if spelling and spelling not in seen:
                        seen.add(spelling)
                        yield spelling
