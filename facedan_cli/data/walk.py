"""The walk through a tree of images: images, links that are followed, and files that are skipped."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from facedan_cli.data.formats import (
    COMPANION_SUFFIXES,
    is_clutter,
    is_hidden_or_clutter,
    looks_like_image,
    named_as_image,
    suffix_of,
)

MOST_WAYS = 16
"""Most ways through links by which a walk enters one directory; n levels of doubled links make 2ⁿ ways."""

_OWN = frozenset({"aligned.jsonl", "align.json", "set-aside.tsv"})
"""Files that `align` writes beside faces."""

_OF_ARCHIVES = frozenset({".idx", ".lst"})
"""Files beside a .rec."""

_MOST_SUFFIXES = 5


@dataclass
class PassedOver:
    """Files that a walk through a tree skipped.

    Args:
        skipped: path and reason of what may hold images, such as directories without permission.
        others: number of files that are no images, by suffix.
        hidden: number of hidden images and hidden directories.
    """

    skipped: list[tuple[str, str]] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)
    hidden: int = 0

    def remark(self, root: Path) -> str:
        """A sentence on the files that are no images; "" if there are none."""
        parts = []
        if count := self.others.total():
            most = self.others.most_common(_MOST_SUFFIXES)
            kinds = ", ".join(f"{number} {suffix or 'without a suffix'}" for suffix, number in most)
            more = ", …" if len(self.others) > len(most) else ""
            parts.append(f"{_counted(count, 'other file')} ({kinds}{more})")
        if self.hidden:
            parts.append(_counted(self.hidden, "hidden image or directory", "hidden images or directories"))
        return f"passed over in {root}: {' and '.join(parts)}" if parts else ""


def walk(root: Path, archives: Sequence[str] = (), passed: PassedOver | None = None) -> Iterator[str]:
    """Yield the paths of the images below a directory, relative to it, with forward slashes, in a fixed order.

    Hidden directories and those of operating systems and file servers are skipped. Links are followed, but not into a
    directory that the walk is in, which would not end, and not more than MOST_WAYS times into one directory. Memory
    holds the names in one directory, and those of the folders beside the way to it.

    Args:
        root: the directory.
        archives: suffixes of archives, which are yielded as well.
        passed: counts what is skipped.
    """
    passed = PassedOver() if passed is None else passed
    ways, ahead = _Ways(), [_Way(os.fspath(root))]
    while ahead:
        way = ahead.pop()
        if not ways.takes(way):
            continue
        folders, files = [], []
        try:
            with os.scandir(way.path) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False) or (entry.is_symlink() and os.path.isdir(entry.path)):
                        folders.append((entry.name, entry.is_symlink()))
                    elif _wanted_file(entry, archives, passed):
                        files.append(entry.name)
        except OSError as error:  # no permission, or removed meanwhile
            passed.skipped.append((way.prefix or "./", f"the directory cannot be read: {error.strerror}"))
        for name in sorted(files):
            yield way.prefix + name
        passed.hidden += sum(name.startswith(".") and not is_clutter(name) for name, _ in folders)
        folders = [(name, linked) for name, linked in folders if not is_hidden_or_clutter(name)]
        ahead += [way.into(name, linked=linked) for name, linked in sorted(folders, reverse=True)]


def _counted(count: int, one: str, many: str = "") -> str:
    return f"1 {one}" if count == 1 else f"{count} {many or one + 's'}"


def _wanted_file(entry: os.DirEntry[str], archives: Sequence[str], passed: PassedOver) -> bool:
    """Whether a file of a tree is an image, or an archive with images; other files are counted.

    Broken links, named pipes and the like are judged by their names; reading them fails later with a reason. Files with
    unknown suffixes are judged by their first bytes.

    Args:
        entry: the file.
        archives: suffixes of archives, in lower case.
        passed: counts other files.
    """
    name = entry.name
    if is_hidden_or_clutter(name):
        passed.hidden += named_as_image(name) and not is_clutter(name)
        return False
    if named_as_image(name) or name.lower().endswith(tuple(archives)):
        return True
    if name in _OWN:
        return False
    suffix = suffix_of(name)
    if archives and suffix in _OF_ARCHIVES:
        return False
    if suffix not in COMPANION_SUFFIXES and looks_like_image(Path(entry.path)):
        return True
    passed.others[suffix if suffix in COMPANION_SUFFIXES or len(suffix) <= 8 else ""] += 1
    return False


@dataclass(frozen=True)
class _Way:
    """A directory, and the way by which a walk came to it.

    Args:
        path: the directory.
        prefix: its path relative to the root, with a slash at the end; "" for the root.
        linked: whether a link was followed on the way.
        above: the way to its parent; None for the root.
    """

    path: str
    prefix: str = ""
    linked: bool = False
    above: _Way | None = None

    def into(self, name: str, *, linked: bool) -> _Way:
        """The way to a directory in this one; the directory may be a link."""
        return _Way(os.path.join(self.path, name), f"{self.prefix}{name}/", self.linked or linked, self)

    @cached_property
    def directory(self) -> tuple[int, int]:
        """Device and inode of the directory, whatever the way to it."""
        status = os.stat(self.path)
        return status.st_dev, status.st_ino

    def is_circle(self) -> bool:
        """Whether the directory is one of those above it."""
        above = self.above
        while above is not None:
            if above.directory == self.directory:
                return True
            above = above.above
        return False


class _Ways:
    """The number of ways by which a walk has entered each directory."""

    def __init__(self) -> None:
        self._gone: Counter[tuple[int, int]] = Counter()

    def takes(self, way: _Way) -> bool:
        """Whether the walk enters a directory: not in circles, and at most MOST_WAYS times through links."""
        if not way.linked:
            return True
        try:
            if way.is_circle():
                return False
            self._gone[way.directory] += 1
            return self._gone[way.directory] <= MOST_WAYS
        except OSError:  # removed meanwhile
            return False
