"""Images of the input, before they are read."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path

from facedan_cli.data.contents import MISSING, NO_FILE, UNREADABLE, digest_of
from facedan_cli.data.images import UnreadableImage

CUT_SHORT = "cut short: the end of the archive is missing"
"""The reason to set aside an image whose bytes an archive does not have."""

MOST_BYTES = 1 << 28
"""Largest file that is read from an archive; a small archive can claim, or hold, gigabytes of zeros."""


@dataclass(frozen=True, slots=True)
class InMemory:
    """The content of an image of a compressed archive, held in memory."""

    content: bytes

    def __call__(self) -> bytes:
        """The content."""
        return self.content


@dataclass(frozen=True, slots=True)
class SourceImage:
    """An image by its name; `open` or `read` gives its content.

    Args:
        path: path in the input, with forward slashes; an image in an archive has the archive's path before its own.
        name: path from which the face's path is made; "" for an image that cannot be read.
        size: bytes of the file, or of the archive's entry.
        modified: time of modification of the file or entry, whole seconds since 1970.
        content: the file, or a function that reads the bytes and may raise UnreadableImage; it can be pickled.
        state: ctime (nanoseconds since 1970) and inode of the file or archive, which show every change; None where
            they are not reliable.
    """

    path: str
    name: str
    size: int
    modified: int
    content: Path | Callable[[], bytes]
    state: tuple[int, int] | None = None

    @property
    def bytes_in_memory(self) -> int:
        """The number of bytes of its content in memory."""
        return len(self.content.content) if isinstance(self.content, InMemory) else 0

    def open(self) -> Path | BytesIO:
        """The image's file, or its bytes, as an argument of `images.read_image`.

        Raises:
            UnreadableImage: the archive does not have it whole.
        """
        return self.content if isinstance(self.content, Path) else BytesIO(self.content())

    def read(self) -> bytes:
        """The bytes of the image's file."""
        return self.content.read_bytes() if isinstance(self.content, Path) else self.content()

    def digest(self) -> str:
        """SHA-256 of the image's bytes, in hex; "" if they cannot be read."""
        if isinstance(self.content, Path):
            found = digest_of(self.content)[0]
            return "" if found in (MISSING, UNREADABLE, NO_FILE) else found.hex()
        try:
            return hashlib.sha256(self.content()).hexdigest()
        except (UnreadableImage, OSError):
            return ""


def unreadable(path: str, reason: str, size: int = 0, modified: int = 0) -> SourceImage:
    """An image without a face, to be set aside with a reason."""
    return SourceImage(path, "", size, modified, refusing(reason))


def refusing(reason: str) -> Callable[[], bytes]:
    """The content of an image that is set aside with a reason although the path of its face is known."""
    return partial(_refuse, reason)


def too_large(size: int) -> str:
    """The reason to set aside a file in an archive with more than MOST_BYTES."""
    return f"too large: {size} bytes, more than the {MOST_BYTES} that are read of an image in an archive"


def _refuse(reason: str) -> bytes:
    raise UnreadableImage(reason)
