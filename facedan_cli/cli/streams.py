"""The standard streams; a closed or broken stream, or another encoding, costs no result."""

from __future__ import annotations

import codecs
import io
import json
import os
import re
import select
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

NAMES = "utf-8"
"""Encoding of file names in every locale, so that written files mean the same everywhere."""

_BYTES, _LATER = "facedan.bytes", "FACEDAN_UTF8"

# What a terminal may take for a command: the control characters of ASCII (but tab and line feed) and of Latin-1, and
# those that turn the direction of writing.
_COMMANDS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def visible(text: str) -> str:
    """A text with control characters as escapes: an escape character of a file's name becomes `\\x1b`."""
    return _COMMANDS.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


def prepare() -> None:
    """Make the streams of this process safe to use; called once, before anything is read or printed.

    - A stream that is closed leads nowhere, so that no file that is opened later takes its number.
    - A reader of stderr that has gone, or a full disk under it, stops nothing; nor does a reader of stdout that has
      seen enough. Only where stdout cannot be written for another reason is a result lost, and that is an error.
    - What a stream has no letter for is written as an escape; bytes of names that are no UTF-8 go through as they are.
    """
    for number, way in ((0, os.O_RDONLY), (1, os.O_WRONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, way)  # takes the lowest number that is free: this one
    codecs.register_error(_BYTES, _escape)
    if sys.stdin is None:
        sys.stdin = open(0, encoding=NAMES, closefd=False)  # noqa: SIM115
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(encoding=NAMES, errors="surrogateescape", newline="\n")
    sys.stdout = _stream(sys.stdout, 1, _BYTES)
    sys.stderr = _stream(sys.stderr, 2, "backslashreplace")


def use_utf8() -> None:
    """Restart this process in Python's UTF-8 mode if its locale has another encoding for file names.

    In such a locale a name would be decoded otherwise than by the run that wrote it down, or not at all.
    """
    if sys.getfilesystemencoding() == NAMES or _LATER in os.environ:
        return
    environment = os.environ | {_LATER: "1"}
    if sys.stdout is not None:  # the terminal keeps its alphabet
        environment.setdefault("PYTHONIOENCODING", sys.stdout.encoding)
    with suppress(OSError):
        os.execve(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]], environment)


def json_line(value: Any, *, ascii_only: bool) -> str:
    """A value as JSON on one line; control characters and bytes that are not UTF-8 become JSON escapes.

    Args:
        value: a value for JSON; objects that JSON cannot hold are written as their text.
        ascii_only: whether letters beyond ASCII are escapes too.
    """
    text = json.dumps(value, ensure_ascii=ascii_only, default=str).encode(errors="backslashreplace").decode()
    return _COMMANDS.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def speaks_utf8(stream: TextIO) -> bool:
    """Whether a stream can encode every character."""
    return (stream.encoding or NAMES).lower().replace("_", "-") in ("utf-8", "utf8")


def write_path(path: str) -> None:
    """Write a path and a line feed on stdout in the bytes of its name; on a terminal control characters are escaped."""
    out = sys.stdout
    buffer = getattr(out, "buffer", None)
    if out.isatty():
        out.write(visible(path) + "\n")
    elif buffer is None:  # it is read by facedan itself
        out.write(path + "\n")
    else:
        out.flush()
        buffer.write(os.fsencode(path) + b"\n")


class _Forgiving(io.RawIOBase):
    """A stream that discards its output once its reader has gone.

    Args:
        number: its file descriptor.
        always: discard after any error, not only after a broken pipe.
    """

    def __init__(self, number: int, *, always: bool) -> None:
        self._number = number
        self._always = always
        self.name = f"<{number}>"

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._number

    def isatty(self) -> bool:
        return os.isatty(self._number)

    def write(self, data: ReadableBuffer) -> int:
        left = memoryview(data).cast("B")
        length = len(left)
        try:
            while left:
                try:
                    left = left[os.write(self._number, left) :]
                except BlockingIOError:  # another process made the shared stream non-blocking
                    select.select((), (self._number,), ())
        except OSError as error:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._number)
            os.close(nowhere)
            if not (self._always or isinstance(error, BrokenPipeError)):
                raise
        return length


def _stream(stream: TextIO | None, number: int, errors: str) -> TextIO:
    if stream is not None and not _is_of(stream, number):
        return stream  # replaced by the caller
    encoding = NAMES if stream is None else stream.encoding
    raw = _Forgiving(number, always=number == 2)
    buffered = io.BufferedWriter(raw)
    return io.TextIOWrapper(buffered, encoding, errors, newline="\n", line_buffering=number == 2 or raw.isatty())


def _is_of(stream: TextIO, number: int) -> bool:
    try:
        return isinstance(stream, io.TextIOWrapper) and stream.fileno() == number
    except (OSError, ValueError):
        return False


def _escape(error: UnicodeError) -> tuple[str | bytes, int]:
    """Handle an error of a codec: bytes of names are kept, other characters become escapes."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    letter = error.object[error.start]
    if "\udc80" <= letter <= "\udcff":
        return bytes([ord(letter) - 0xDC00]), error.start + 1
    return letter.encode("ascii", "backslashreplace").decode("ascii"), error.start + 1
