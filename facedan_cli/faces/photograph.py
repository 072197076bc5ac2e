"""A photograph that an input holds: found, not yet read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path

from facedan_cli.faces.pictures import UnreadableImage

MOST_BYTES = 1 << 28
"""Larger files in archives are set aside: an archive of some megabytes can claim, or hold, gigabytes of zeros."""


@dataclass(frozen=True, slots=True)
class Held:
    """The content of a photograph, in memory."""

    content: bytes

    def __call__(self) -> bytes:
        """The content."""
        return self.content


@dataclass(frozen=True, slots=True)
class Photograph:
    """A photograph by its name; whoever wants its picture opens it.

    Args:
        path: its own name among the inputs, with forward slashes; in an archive it follows the archive's.
        name: what its face is named after, with forward slashes; "" where it cannot be read, so that it has no face.
        size: of its file, bytes; in an archive of its entry.
        modified: when that was last changed, whole seconds since 1970.
        content: its file, or a function that reads the bytes and may raise UnreadableImage; another process can be sent
            it.
    """

    path: str
    name: str
    size: int
    modified: int
    content: Path | Callable[[], bytes]

    @property
    def held(self) -> int:
        """Bytes of its content that lie in memory already: those of compressed archives."""
        return len(self.content.content) if isinstance(self.content, Held) else 0

    def open(self) -> Path | BytesIO:
        """What `pictures.read_picture` takes.

        Raises:
            UnreadableImage: the archive does not have it whole.
        """
        return self.content if isinstance(self.content, Path) else BytesIO(self.content())

    def read(self) -> bytes:
        """The bytes of its file."""
        return self.content.read_bytes() if isinstance(self.content, Path) else self.content()


def unreadable(path: str, reason: str, size: int = 0, modified: int = 0) -> Photograph:
    """A photograph that is to be set aside with a reason."""
    return Photograph(path, "", size, modified, partial(_refuse, reason))


def too_large(size: int) -> str:
    """Why a file in an archive is set aside whose size is more than MOST_BYTES."""
    return f"too large: {size} bytes, more than the {MOST_BYTES} that are read of an image in an archive"


def _refuse(reason: str) -> bytes:
    raise UnreadableImage(reason)


def stays_inside(path: str) -> bool:
    """Whether a relative path with forward slashes leads to a place below where it starts."""
    return not path.startswith("/") and ".." not in path.split("/") and "\0" not in path and path.strip("./") != ""
