"""The plan of an alignment: the images that remain to be aligned, and the names of their faces."""

from __future__ import annotations

import posixpath
import stat
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from facedan_cli.alignment.index import NO_ROW, ManifestIndex, contained, digest64, output_digest, repeated
from facedan_cli.alignment.ranks import share_of
from facedan_cli.alignment.settings import check_config
from facedan_cli.alignment.source_image import SourceImage
from facedan_cli.alignment.sources import source_images
from facedan_cli.config.common import AlignConfig
from facedan_cli.data.manifest import AlignedRecord
from facedan_cli.data.walk import PassedOver
from facedan_cli.distributed import DistEnv
from facedan_cli.workspace import MANIFEST_FILE

CHUNK = 4096
"""Number of images that are looked up together."""

MOST_IN_MEMORY = 1 << 26
"""Bytes in memory at which such a group of images ends."""


@dataclass(frozen=True)
class Job:
    """An image to be aligned, and the name of its face.

    Args:
        image: the image.
        output: name of its face in the aligned tree; "" if it can have none.
        replaced: name of its face in an earlier run; "" if it was the same or if there was none.
        digest: digest of the image's bytes, made before they are decoded, so that a later change shows.
    """

    image: SourceImage
    output: str
    replaced: str = ""
    digest: str | None = None

    def begun(self) -> Job:
        """The job with the digest of the image's present content."""
        return replace(self, digest=self.image.digest())


@dataclass(frozen=True)
class _Chunk:
    """A group of images that are looked up together: digests of their paths, and their rows in the index."""

    images: list[SourceImage]
    keys: np.ndarray
    rows: np.ndarray


class Plan:
    """The images of this process: those that are done, and jobs for the others.

    An image is done if its file has not changed since its line in the manifest, and its aligned face, if any, exists.
    A failed image is tried again only if its file was replaced. Size, times and inode are compared first; where they
    differ, as in a copied tree, or are unreliable, the file is read and its digest compared.

    A face has its image's name, `stem.jpg`, if that is free. If `a.jpg` and `a.png` lie in one folder, the first gets
    `a.jpg` and the second `a.png.jpg`; names of earlier runs stay. A first pass over the images finds the free names;
    it keeps two digests of each image, 16 bytes.

    Args:
        config: configuration with the images and the aligned tree.
        index: index of the manifest of earlier runs.
        ranks: the processes, of which this one takes its share.

    Attributes:
        total: number of images of this process.
        already: number of images with an aligned face.
        failures: path and reason of each image that failed earlier and has not changed.
        unchecked: number of copied images with an aligned face whose contents could not be compared.
        remark: a sentence on other files in the input; "" if there are none.
    """

    def __init__(self, config: AlignConfig, index: ManifestIndex, ranks: DistEnv) -> None:
        self._config = config
        self._index = index
        self._ranks = ranks
        self.unchecked = 0
        self._found_same = tuple(array("q") for _ in range(4))
        keys, names = array("Q"), array("Q")
        done, met = np.zeros(len(index.keys), bool), np.zeros(len(index.keys), bool)
        passed = PassedOver()
        for chunk in self._chunks(passed):
            keys.frombytes(chunk.keys.tobytes())
            met[chunk.rows[chunk.rows != NO_ROW]] = True
            for image, row, mine in zip(chunk.images, chunk.rows, share_of(ranks, chunk.keys), strict=True):
                if image.name and (row == NO_ROW or not index.outputs[row] or self._renamed(image, row)):
                    names.append(output_digest(_first_name(image)))
                if row != NO_ROW and mine:
                    done[row] = self._is_done(image, row)
        self.remark = passed.remark(config.raw)
        self._done = done
        self._given = np.sort(index.outputs[met & (index.outputs != 0)])
        self._asked = np.sort(np.frombuffer(names, np.uint64))
        self._contested = np.union1d(repeated(self._asked), self._asked[contained(self._asked, self._given)])
        self._listed_twice = repeated(np.frombuffer(keys, np.uint64))
        self.total = int(np.count_nonzero(share_of(ranks, np.unique(np.frombuffer(keys, np.uint64)))))
        self.already = int(np.count_nonzero(done & (index.outputs != 0)))
        failed = (index.record(int(row)) for row in np.flatnonzero(done & (index.outputs == 0)))
        self.failures = [(record.path, record.reason) for record in failed]

    def jobs(self) -> Iterator[Job]:
        """Yield the jobs in the order of the images."""
        if self.total == self.already + len(self.failures):
            return
        met: set[int] = set()
        taken: set[int] = set()
        for chunk in self._chunks():
            again = contained(chunk.keys, self._listed_twice)
            mine = share_of(self._ranks, chunk.keys)
            for image, key, row, twice, own in zip(chunk.images, chunk.keys, chunk.rows, again, mine, strict=True):
                if twice and key in met:
                    continue
                if twice:
                    met.add(key)
                # Every process chooses all contested names, so that they agree.
                output = self._name(image, row, taken)
                if own and (row == NO_ROW or not self._done[row]):
                    replaced = self._earlier_name(image, row) if self._renamed(image, row) else ""
                    yield Job(image, output, replaced)

    def found_same(self) -> Iterator[AlignedRecord]:
        """Yield new records for images that changed in inode or times only; these need no alignment."""
        for row, modified, changed, inode in zip(*self._found_same, strict=True):
            yield replace(self._index.record(row), modified=modified, changed=changed, inode=inode)

    def _chunks(self, passed: PassedOver | None = None) -> Iterator[_Chunk]:
        found = source_images(self._config.raw, self._config.root, self._config.out, passed)
        while chunk := _together(found):
            keys = np.array([digest64(image.path) for image in chunk], np.uint64)
            yield _Chunk(chunk, keys, self._index.find(keys))

    def _is_done(self, image: SourceImage, row: int) -> bool:
        aligned = self._aligned_at(image, row) if self._index.outputs[row] else 0
        if aligned is None or self._renamed(image, row):
            return False
        now = image.state
        if now and self._index.versions[row] == digest64(image.size, image.modified, *now):
            return True
        record = self._index.record(row)
        if not image.name:  # nothing can be read
            same = now is None and record.version == (image.size, image.modified)
        elif record.digest is None:  # version 0.1.0 made no digests: only a face that is newer than its image
            unchanged = now is not None and now[0] < aligned
            copied = not unchanged and image.modified < aligned // 10**9
            same = record.version == (image.size, image.modified) and (unchanged or copied)
            self.unchecked += same and copied
        else:
            same = bool(record.digest) and record.bytes == image.size and record.digest == image.digest()
        if same and now and record.changed is not None:
            for column, value in zip(self._found_same, (row, image.modified, *now), strict=True):
                column.append(value)
        return same

    def _aligned_at(self, image: SourceImage, row: int) -> int | None:
        """Time of writing of a row's face, nanoseconds since 1970; None without a face or if the file is empty."""
        try:
            status = (self._config.out / self._earlier_name(image, row)).stat()
        except (OSError, ValueError):
            return None
        return status.st_mtime_ns if stat.S_ISREG(status.st_mode) and status.st_size else None

    def _renamed(self, image: SourceImage, row: int) -> bool:
        """Whether an image's face belongs in another folder now, because its archive names another identity."""
        if row == NO_ROW or not self._index.outputs[row] or not image.name:
            return False
        earlier = posixpath.dirname(self._earlier_name(image, row))
        return earlier.lower() != posixpath.dirname(image.name).lower()

    def _earlier_name(self, image: SourceImage, row: int) -> str:
        name = _first_name(image) if image.name else ""
        return name if output_digest(name) == self._index.outputs[row] else str(self._index.record(row).output)

    def _name(self, image: SourceImage, row: int, taken: set[int]) -> str:
        """The name of an image's face; names that several images want are marked as taken."""
        if row != NO_ROW and self._index.outputs[row] and not self._renamed(image, row):
            return self._earlier_name(image, row)
        if not image.name:
            return ""
        first = _first_name(image)
        if not _holds(self._contested, output_digest(first)):
            return first
        free = (name for name in _names(image) if self._is_free(output_digest(name), name == first, taken))
        name = next(free)
        taken.add(output_digest(name))
        return name

    def _is_free(self, digest: int, first: bool, taken: set[int]) -> bool:
        asked = not first and _holds(self._asked, digest)
        return not (asked or digest in taken or _holds(self._given, digest))


def _together(found: Iterator[SourceImage]) -> list[SourceImage]:
    """The next images, as many as are looked up together."""
    chunk: list[SourceImage] = []
    held = 0
    while len(chunk) < CHUNK and held < MOST_IN_MEMORY and (image := next(found, None)) is not None:
        chunk.append(image)
        held += image.bytes_in_memory
    return chunk


def _holds(ordered: np.ndarray, value: int) -> bool:
    place = np.searchsorted(ordered, np.uint64(value))
    return bool(place < len(ordered) and ordered[place] == value)


def _first_name(image: SourceImage) -> str:
    return posixpath.splitext(image.name)[0] + ".jpg"


def _names(image: SourceImage) -> Iterator[str]:
    yield _first_name(image)
    yield f"{image.name}.jpg"
    number = 2
    while True:
        yield f"{image.name}.{number}.jpg"
        number += 1


def inspect(config: AlignConfig) -> Plan:
    """The plan of an alignment, made without writing anything.

    Raises:
        UsageError, FacedanError: as `check_config`.
    """
    check_config(config)
    return Plan(config, ManifestIndex(config.out / MANIFEST_FILE), DistEnv())
