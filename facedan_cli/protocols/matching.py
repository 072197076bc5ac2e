"""Find the images that a protocol names among those that are there."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from facedan_cli.errors import FacedanError
from facedan_cli.protocols.sigset import stem, without_extension


@dataclass(frozen=True)
class Match:
    """Which image stands for which name.

    Attributes:
        rows: for each name that was found, its row in the list of images.
        missing: the names that were not found, each once, in the order of the protocol.
    """

    rows: dict[str, int]
    missing: tuple[str, ...]


def match_images(names: Iterable[str], images: Sequence[str]) -> Match:
    """Match the names of a protocol to images: by path, by path without extension, else by base name.

    Releases and aligners lay out directories and formats differently, so the base name without case or extension
    decides where no path does. It does so only if it tells the protocol's own images apart: in a list of s1/1.pgm,
    s2/1.pgm, … it does not, and an image that is not at its path is missing.

    Args:
        names: names or relative paths as the protocol has them, repeated or not.
        images: paths of the images, relative to their directory.

    Raises:
        FacedanError: two images fit a name equally well.
    """
    wanted = list(dict.fromkeys(names))
    keys: list[Callable[[str], str]] = [_path, _path_without_extension]
    if len({stem(name) for name in wanted}) == len({_path_without_extension(name) for name in wanted}):
        keys.append(stem)
    rows: dict[str, int] = {}
    for key in keys:
        candidates = defaultdict(list)
        for row, image in enumerate(images):
            candidates[key(image)].append(row)
        for name in wanted:
            if name not in rows and (found := candidates.get(key(name))):
                rows[name] = _only(found, name, images)
    return Match(rows, tuple(name for name in wanted if name not in rows))


def _path(name: str) -> str:
    return name.replace("\\", "/").removeprefix("./")


def _path_without_extension(name: str) -> str:
    return without_extension(_path(name))


def _only(rows: list[int], name: str, images: Sequence[str]) -> int:
    if len(rows) > 1:
        raise FacedanError(
            f"two images fit the name {name}: {images[rows[0]]} and {images[rows[1]]}",
            "Point at a directory that holds only the images of this protocol.",
        )
    return rows[0]
