"""Images in tar archives: folders of identities, or shards in WebDataset's manner."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from facedan_cli.alignment.source_image import (
    CUT_SHORT,
    MOST_BYTES,
    InMemory,
    SourceImage,
    refusing,
    too_large,
    unreadable,
)
from facedan_cli.alignment.tar_entries import Damage, Entry, Kind, Source, entries
from facedan_cli.alignment.tar_index import LABEL_SUFFIX, MOST_NAME, TarIndex, above_of, image_name, index_of
from facedan_cli.data.formats import (
    COMPANION_SUFFIXES,
    HEAD,
    TAR_SUFFIXES,
    is_clutter,
    is_hidden_or_clutter,
    is_image,
    named_as_image,
    sniffed,
    suffix_of,
)
from facedan_cli.data.images import UnreadableImage
from facedan_cli.data.manifest import stays_inside
from facedan_cli.data.walk import PassedOver

_MAGIC: Mapping[bytes, Callable[[Any], Any]] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\0": lzma.open}
_SUFFIX = 8  # most characters of a suffix that is counted by itself
_NESTED = (*TAR_SUFFIXES, ".rec", ".zip", ".7z", ".rar", ".tar.zst", ".tar.lz4")


def tar_images(archive: Path, path: str, passed: PassedOver | None = None) -> Iterator[SourceImage]:
    """Yield the images of a tar archive in the order of its entries; faces are named relative to the archive's folder.

    A link inside the archive is yielded where the image that it leads to lies. The last entry of a repeated name
    counts, as in an extraction. A `.cls` beside an image (WebDataset) names the folder of its face. Damaged entries,
    repeated entries and archives inside this one are set aside; reading goes on behind damage. Memory holds one image
    at a time, of MOST_BYTES at most, and 16 bytes for each name.

    Args:
        archive: the file; its first bytes, not its name, say whether it is compressed.
        path: its name among the inputs.
        passed: counts the files that are no images.

    Raises:
        OSError: it cannot be opened.
    """
    status = archive.stat()
    index = _index(archive, (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns))
    reader = _Reader(archive, path, index, PassedOver() if passed is None else passed)
    with _opened(archive) as source:
        yield from reader.images(source)
    for name, reason in index.refused:
        yield reader.source_image(name, 0, 0, refusing(reason))
    if words := reader.words():
        yield unreadable(path, words, status.st_size, int(status.st_mtime))


@lru_cache(maxsize=4)
def _index(archive: Path, _version: tuple[int, ...]) -> TarIndex:
    """The index of an archive; planning and reading share it."""
    with _opened(archive) as source:
        return index_of(source)


@contextmanager
def _opened(archive: Path) -> Iterator[Source]:
    with archive.open("rb") as file:
        begin = file.peek(8)
        opener = next((opener for magic, opener in _MAGIC.items() if begin.startswith(magic)), None)
        if opener is None:
            yield Source(file, os.fstat(file.fileno()).st_size)
            return
        with opener(file) as decompressed:
            yield Source(decompressed, None)


class _Reader:
    """One pass over an archive that gives its images."""

    def __init__(self, archive: Path, path: str, index: TarIndex, passed: PassedOver) -> None:
        self._passed = passed
        self._archive = archive
        self._path = path
        self._index = index
        self._damage: list[str] = []
        self._damages = self._repeated = 0
        self._first_repeated = ""
        self._folder_links = dict(index.folder_links)

    def images(self, source: Source) -> Iterator[SourceImage]:
        for entry in entries(source):
            if isinstance(entry, Damage):
                self._damages += 1
                self._damage = [*self._damage, entry.reason][:3]
            elif entry.kind is not Kind.DIRECTORY:
                yield from self._of_entry(source, entry, image_name(entry))

    def words(self) -> str:
        """A sentence on damaged and repeated entries; "" without any."""
        said = list(self._damage)
        if self._damages > len(said):
            said.append(f"damaged at {self._damages - len(said)} more places")
        if self._repeated:
            what = f"{self._repeated} images are written again further on under the same name"
            said.append(f"{what}, such as {self._first_repeated}: the last one counts")
        return "; ".join(said)

    def _of_entry(self, source: Source, entry: Entry, name: str) -> Iterator[SourceImage]:
        if len(name) > MOST_NAME:
            if is_image(name):
                yield self._refused(entry, f"…{name[-100:]}", f"its name has {len(name)} characters")
            return
        yield from self._folder_links_to(name)
        head = b""
        images = self._images_of(entry, name)
        if not images and entry.kind is Kind.FILE and not is_image(name):
            if name.lower().endswith(_NESTED):
                yield self._refused(entry, name, "an archive inside an archive: extract it beside this one")
            elif head := self._looked_into(source, entry, name):
                images = [(name, entry.modified)]
        if images:
            content = self._content(source, entry, head)
            yield from (self.source_image(image, entry.size, modified, content) for image, modified in images)

    def _images_of(self, entry: Entry, name: str) -> list[tuple[str, int]]:
        """Names and times of the images with an entry's content: the entry itself and the links to it."""
        images = [*self._index.links.get(entry.offset, ())]
        if is_image(name) and entry.kind not in (Kind.HARD_LINK, Kind.SYMBOLIC_LINK):
            if entry.offset in self._index.superseded:
                self._first_repeated = self._first_repeated or name
                self._repeated += 1
            else:
                images.insert(0, (name, entry.modified))
        return images

    def _folder_links_to(self, name: str) -> Iterator[SourceImage]:
        """Set aside links to a directory, at the first image of that directory."""
        if self._folder_links and is_image(name):
            for folder in above_of(name):
                if (link := self._folder_links.pop(folder, None)) is not None:
                    reason = f"a link to the directory {folder}: its images are taken where they lie"
                    yield unreadable(f"{self._path}/{link}", reason)

    def _looked_into(self, source: Source, entry: Entry, name: str) -> bytes:
        """The first bytes of an image whose name has no suffix of images; empty for other files, which are counted."""
        suffix = suffix_of(name)
        if is_hidden_or_clutter(name):
            self._passed.hidden += named_as_image(name) and not is_clutter(name)
        elif suffix not in COMPANION_SUFFIXES and entry.offset not in self._index.superseded and suffix != LABEL_SUFFIX:
            head = source.read(min(entry.size, HEAD))
            if sniffed(head):
                return head
            self._passed.others[suffix if len(suffix) <= _SUFFIX else ""] += 1
        elif suffix != LABEL_SUFFIX:
            self._passed.others[suffix] += 1
        return b""

    def _content(self, source: Source, entry: Entry, head: bytes) -> Callable[[], bytes]:
        if entry.kind is not Kind.FILE:
            return refusing(f"a {entry.kind.value}: extract the archive")
        if entry.size > MOST_BYTES:
            return refusing(too_large(entry.size))
        if source.size is not None:
            return partial(_read_chunk, self._archive, entry.data, entry.size)
        content = head + source.read(entry.size - len(head))
        if len(content) < entry.size:
            return refusing(source.error or CUT_SHORT)
        return InMemory(content)

    def source_image(self, image: str, size: int, modified: int, content: Callable[[], bytes]) -> SourceImage:
        """The image with this name in the archive, set aside if the name or its label leads outside."""
        path = f"{self._path}/{image}"
        identity = self._index.label(image)
        if not stays_inside(image):
            return unreadable(path, "its name leads out of the archive", size, modified)
        if identity is not None and ("/" in identity or not stays_inside(identity)):
            return unreadable(path, "its .cls does not name a folder", size, modified)
        folder = self._path[: self._path.rfind("/") + 1]
        name = f"{folder}{identity}/{image}" if identity is not None else folder + image
        return SourceImage(path, name, size, modified, content)

    def _refused(self, entry: Entry, name: str, reason: str) -> SourceImage:
        return unreadable(f"{self._path}/{name}", reason, entry.size, entry.modified)


def _read_chunk(archive: Path, offset: int, length: int) -> bytes:
    with archive.open("rb", buffering=0) as file:
        content = os.pread(file.fileno(), length, offset)
    if len(content) < length:
        raise UnreadableImage(CUT_SHORT)
    return content
