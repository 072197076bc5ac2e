"""An index of a tar archive, made before its images are read: links, labels and repeated names."""

from __future__ import annotations

import posixpath
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from facedan_cli.alignment.tar_entries import Damage, Entry, Kind, Source, entries
from facedan_cli.data.formats import is_image

LABEL_SUFFIX = ".cls"
MOST_NAME = 4096
"""Most bytes of a path in a file system."""

_MOST_LABEL = 4096
_MOST_LINKS = 1_000_000
_LINKS_ON_THE_WAY = 40


class _Table:
    """A number for each name, kept by the hashes of names in 16 bytes each; a name may be added again."""

    def __init__(self) -> None:
        self._keys, self._values = array("q"), array("q")
        self.keys, self.values = np.empty(0, np.int64), np.empty(0, np.int64)

    def add(self, name: str, value: int) -> None:
        self._keys.append(hash(name))
        self._values.append(value)

    def close(self) -> None:
        """Sort the names for `last`; no more can be added."""
        keys, values = np.array(self._keys, np.int64), np.array(self._values, np.int64)
        order = np.argsort(keys, kind="stable")
        self.keys, self.values = keys[order], values[order]
        self._keys, self._values = array("q"), array("q")

    def last(self, name: str, before: int | None = None) -> int | None:
        """The last value of a name; with `before` the last value below it, if values were added in rising order."""
        start, stop = np.searchsorted(self.keys, hash(name), "left"), np.searchsorted(self.keys, hash(name), "right")
        if before is not None:
            stop = start + np.searchsorted(self.values[start:stop], before)
        return int(self.values[stop - 1]) if stop > start else None

    def earlier(self) -> set[int]:
        """All values but the last of each name."""
        return set(self.values[:-1][self.keys[1:] == self.keys[:-1]].tolist()) if len(self.keys) else set()


@dataclass
class TarIndex:
    """Facts of one pass over the headers of an archive.

    Args:
        links: names and times of the links that are images, by the offset of the entry that they lead to.
        superseded: offsets of the entries whose names occur again later; an extraction keeps the last one.
        folder_links: links to paths that may be directories, by these paths.
        refused: entries that are set aside: name and reason.
    """

    links: dict[int, list[tuple[str, int]]] = field(default_factory=dict)
    superseded: set[int] = field(default_factory=set)
    folder_links: dict[str, str] = field(default_factory=dict)
    refused: list[tuple[str, str]] = field(default_factory=list)
    _labels: _Table = field(default_factory=_Table)
    _identities: list[str] = field(default_factory=list)

    def label(self, name: str) -> str | None:
        """The identity in the `.cls` of an image, which has the image's name, or that name up to a dot.

        `a.b.cls` labels `a.b.jpg`, and `a.cls` labels all images of the sample `a` without a `.cls` of their own: in
        WebDataset the key of a sample is the name up to its first dot.
        """
        folder, slash, base = name.rpartition("/")
        while base and len(self._labels.keys):
            if (place := self._labels.last(folder + slash + base)) is not None:
                return self._identities[place]
            base = base.rpartition(".")[0]
        return None


def index_of(source: Source) -> TarIndex:
    """The index of an archive, made in one pass over it."""
    return _Indexer().run(source)


def image_name(entry: Entry) -> str:
    """The path of an entry in the archive, without "." parts and doubled slashes."""
    return posixpath.normpath(entry.name)


class _Indexer:
    def __init__(self) -> None:
        self.index = TarIndex()
        self.written = _Table()
        self.links: dict[int, tuple[Entry, str]] = {}
        self.identities: dict[str, int] = {}

    def run(self, source: Source) -> TarIndex:
        for entry in entries(source):
            if not isinstance(entry, Damage) and len(entry.name) <= MOST_NAME:
                self._add(source, entry)
        self.written.close()
        self.index._labels.close()
        self.index._identities = list(self.identities)
        self.index.superseded = self.written.earlier()
        self._resolve_links()
        return self.index

    def _add(self, source: Source, entry: Entry) -> None:
        name = image_name(entry)
        if entry.kind is Kind.DIRECTORY:
            return
        self.written.add(name, entry.offset)
        if entry.kind in (Kind.HARD_LINK, Kind.SYMBOLIC_LINK):
            if len(self.links) < _MOST_LINKS:
                self.links[entry.offset] = entry, name
            elif is_image(name):
                self.index.refused.append((name, f"the archive has more than {_MOST_LINKS} links"))
        elif entry.kind is Kind.FILE and name.endswith(LABEL_SUFFIX):
            content = source.read(entry.size) if entry.size <= _MOST_LABEL else b""
            identity = content.decode(errors="surrogateescape").strip()
            self.index._labels.add(
                name.removesuffix(LABEL_SUFFIX), self.identities.setdefault(identity, len(self.identities))
            )

    def _resolve_links(self) -> None:
        for offset, (entry, name) in self.links.items():
            if offset in self.index.superseded:
                continue
            if not is_image(name):
                self.index.folder_links.setdefault(_aim(entry, name), name)
                continue
            target = self._follow(entry, name)
            if target is None:
                reason = f"a link to {entry.link[:MOST_NAME]}, which is no file of the archive"
                self.index.refused.append((name, reason))
            else:
                self.index.links.setdefault(target, []).append((name, entry.modified))

    def _follow(self, entry: Entry, name: str) -> int | None:
        """The offset of the file that a link leads to, also through other links; None if there is none."""
        offset: int | None = entry.offset
        for _ in range(_LINKS_ON_THE_WAY):
            if offset is None or offset not in self.links:
                return offset
            entry, name = self.links[offset]
            aim = _aim(entry, name)
            # A hard link leads to the entry before it, a symbolic link to the last entry of that name.
            before = entry.offset if entry.kind is Kind.HARD_LINK else None
            offset = self.written.last(aim, before)
            if offset is None:
                offset = self._through_folders(aim)
        return None

    def _through_folders(self, path: str) -> int | None:
        """The offset of a file whose path leads through links to directories; None if there is none."""
        for _ in range(_LINKS_ON_THE_WAY):
            found = ((above, self.written.last(above)) for above in above_of(path))
            link = next(((above, at) for above, at in found if at is not None and at in self.links), None)
            if link is None:
                return None
            above, at = link
            path = posixpath.normpath(posixpath.join(_aim(*self.links[at]), path[len(above) + 1 :]))
            if (offset := self.written.last(path)) is not None:
                return offset
        return None


def _aim(entry: Entry, name: str) -> str:
    """The path in the archive that a link leads to."""
    start = "" if entry.kind is Kind.HARD_LINK else posixpath.dirname(name)
    return posixpath.normpath(posixpath.join(start, entry.link[:MOST_NAME]))


def above_of(name: str) -> Iterator[str]:
    """Yield the directories above a path, the outermost first."""
    at = name.find("/")
    while at > 0:
        yield name[:at]
        at = name.find("/", at + 1)
