"""An image of an input: found, not yet read."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path

from facedan_cli.data.contents import MISSING, NO_FILE, UNREADABLE, digest_of
from facedan_cli.data.images import UnreadableImage

MOST_BYTES = 1 << 28
"""Larger files in archives are set aside: an archive of some megabytes can claim, or hold, gigabytes of zeros."""


@dataclass(frozen=True, slots=True)
class InMemory:
    """The content of an image that is in memory already, as of compressed archives."""

    content: bytes

    def __call__(self) -> bytes:
        """The content."""
        return self.content


@dataclass(frozen=True, slots=True)
class SourceImage:
    """An image by its name; `open` or `read` gives its content.

    Args:
        path: its own name among the inputs, with forward slashes; in an archive it follows the archive's.
        name: what its face is named after, with forward slashes; "" where it cannot be read, so that it has no face.
        size: of its file, bytes; in an archive of its entry.
        modified: when that was last changed, whole seconds since 1970.
        content: its file, or a function that reads the bytes and may raise UnreadableImage; another process can be sent
            it.
        state: of the file, or the archive: when its status last changed, nanoseconds since 1970, and its inode, which
            tell of every change; None where they cannot be relied upon.
    """

    path: str
    name: str
    size: int
    modified: int
    content: Path | Callable[[], bytes]
    state: tuple[int, int] | None = None

    @property
    def bytes_in_memory(self) -> int:
        """Bytes of its content that are in memory."""
        return len(self.content.content) if isinstance(self.content, InMemory) else 0

    def open(self) -> Path | BytesIO:
        """What `images.read_image` takes.

        Raises:
            UnreadableImage: the archive does not have it whole.
        """
        return self.content if isinstance(self.content, Path) else BytesIO(self.content())

    def read(self) -> bytes:
        """The bytes of its file."""
        return self.content.read_bytes() if isinstance(self.content, Path) else self.content()

    def digest(self) -> str:
        """SHA-256 of its bytes, in hex; "" where they cannot be read."""
        if isinstance(self.content, Path):
            found = digest_of(self.content)[0]
            return "" if found in (MISSING, UNREADABLE, NO_FILE) else found.hex()
        try:
            return hashlib.sha256(self.content()).hexdigest()
        except (UnreadableImage, OSError):
            return ""


def unreadable(path: str, reason: str, size: int = 0, modified: int = 0) -> SourceImage:
    """An image that is to be set aside with a reason."""
    return SourceImage(path, "", size, modified, refusing(reason))


def refusing(reason: str) -> Callable[[], bytes]:
    """The content of an image that is to be set aside, though it is known whose face it would have."""
    return partial(_refuse, reason)


def too_large(size: int) -> str:
    """Why a file in an archive is set aside whose size is more than MOST_BYTES."""
    return f"too large: {size} bytes, more than the {MOST_BYTES} that are read of an image in an archive"


def _refuse(reason: str) -> bytes:
    raise UnreadableImage(reason)
