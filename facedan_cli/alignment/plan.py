"""What an alignment has to do: which photographs, under which names, and what earlier runs left done."""

from __future__ import annotations

import posixpath
import stat
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from facedan_cli.alignment.index import ABSENT, ManifestIndex, contained, digest64, output_digest, repeated
from facedan_cli.alignment.photograph import Photograph
from facedan_cli.alignment.ranks import share_of
from facedan_cli.alignment.settings import check_config
from facedan_cli.alignment.sources import photographs
from facedan_cli.config.common import AlignConfig
from facedan_cli.data.entries import PassedOver
from facedan_cli.data.manifest import AlignedRecord
from facedan_cli.distributed import DistEnv
from facedan_cli.workspace import MANIFEST_FILE

STRETCH = 4096
"""Photographs that are looked up together."""

HELD_AT_ONCE = 1 << 26
"""Bytes of contents that they may hold, but for the last one's."""


@dataclass(frozen=True)
class Job:
    """A photograph and what becomes of it.

    Args:
        photograph: what is to be aligned.
        output: the name of its aligned face in the aligned tree; "" where it can have none.
        replaced: the name that its face had in an earlier run; "" where it had the same or none.
        digest: of the photograph's bytes, made before they are looked at: what is written to the file meanwhile has
            another.
    """

    photograph: Photograph
    output: str
    replaced: str = ""
    digest: str | None = None

    def begun(self) -> Job:
        """The same with the digest of the photograph as it is now."""
        return replace(self, digest=self.photograph.digest())


@dataclass(frozen=True)
class _Stretch:
    """Neighbouring photographs, the digests of their paths, and their rows in the ledger."""

    photographs: list[Photograph]
    keys: np.ndarray
    rows: np.ndarray


class Plan:
    """This process's share of the photographs: how they stand, and what is to be done.

    One is done if its file is what the manifest says, and its aligned face, if it has one, is there. So what failed is
    tried again only where the file was replaced. Size, times and inode are looked at first; a file of which these are
    others, as in a copied tree, or not to be relied upon, is read and its digest compared.

    A face is named as its photograph, `stem.jpg`, where that is free. Where `a.jpg` and `a.png` lie side by side, the
    first gets `a.jpg` and the second `a.png.jpg`; a name given in an earlier run stays. To know what is free, the
    photographs are gone through once before; of each two digests are kept, 16 bytes.

    Args:
        config: names the photographs and the aligned tree.
        ledger: what earlier runs did.
        ranks: which share of the photographs this process has.

    Attributes:
        total: photographs of this share.
        already: those with an aligned face.
        failures: path and reason of those that failed earlier and have not changed.
        unchecked: those with an aligned face of which only size and time of writing are known, and were copied since.
        remark: what to tell of what else lies in the input; "" where there is nothing.
    """

    def __init__(self, config: AlignConfig, ledger: ManifestIndex, ranks: DistEnv) -> None:
        self._config = config
        self._ledger = ledger
        self._ranks = ranks
        self.unchecked = 0
        self._found_same = tuple(array("q") for _ in range(4))
        keys, names = array("Q"), array("Q")
        done, met = np.zeros(len(ledger.keys), bool), np.zeros(len(ledger.keys), bool)
        passed = PassedOver()
        for stretch in self._stretches(passed):
            keys.frombytes(stretch.keys.tobytes())
            met[stretch.rows[stretch.rows != ABSENT]] = True
            for photograph, row, mine in zip(
                stretch.photographs, stretch.rows, share_of(ranks, stretch.keys), strict=True
            ):
                if photograph.name and (row == ABSENT or not ledger.outputs[row] or self._renamed(photograph, row)):
                    names.append(output_digest(_first_name(photograph)))
                if row != ABSENT and mine:
                    done[row] = self._is_done(photograph, row)
        self.remark = passed.remark(config.raw)
        self._done = done
        self._given = np.sort(ledger.outputs[met & (ledger.outputs != 0)])
        self._asked = np.sort(np.frombuffer(names, np.uint64))
        self._contested = np.union1d(repeated(self._asked), self._asked[contained(self._asked, self._given)])
        self._listed_twice = repeated(np.frombuffer(keys, np.uint64))
        self.total = int(np.count_nonzero(share_of(ranks, np.unique(np.frombuffer(keys, np.uint64)))))
        self.already = int(np.count_nonzero(done & (ledger.outputs != 0)))
        failed = (ledger.record(int(row)) for row in np.flatnonzero(done & (ledger.outputs == 0)))
        self.failures = [(record.path, record.reason) for record in failed]

    def jobs(self) -> Iterator[Job]:
        """What is to be done, in the order of the photographs."""
        if self.total == self.already + len(self.failures):
            return
        met: set[int] = set()
        taken: set[int] = set()
        for stretch in self._stretches():
            again = contained(stretch.keys, self._listed_twice)
            mine = share_of(self._ranks, stretch.keys)
            for photograph, key, row, twice, own in zip(
                stretch.photographs, stretch.keys, stretch.rows, again, mine, strict=True
            ):
                if twice and key in met:
                    continue
                if twice:
                    met.add(key)
                # Every process gives all contested names, that they agree.
                output = self._name(photograph, row, taken)
                if own and (row == ABSENT or not self._done[row]):
                    replaced = self._earlier_name(photograph, row) if self._renamed(photograph, row) else ""
                    yield Job(photograph, output, replaced)

    def found_same(self) -> Iterator[AlignedRecord]:
        """Records of photographs of which only inode or times are others: with these, that none is read once more."""
        for row, modified, changed, inode in zip(*self._found_same, strict=True):
            yield replace(self._ledger.record(row), modified=modified, changed=changed, inode=inode)

    def _stretches(self, passed: PassedOver | None = None) -> Iterator[_Stretch]:
        found = photographs(self._config.raw, self._config.root, self._config.out, passed)
        while stretch := _together(found):
            keys = np.array([digest64(photograph.path) for photograph in stretch], np.uint64)
            yield _Stretch(stretch, keys, self._ledger.find(keys))

    def _is_done(self, photograph: Photograph, row: int) -> bool:
        aligned = self._aligned_at(photograph, row) if self._ledger.outputs[row] else 0
        if aligned is None or self._renamed(photograph, row):
            return False
        now = photograph.state
        if now and self._ledger.versions[row] == digest64(photograph.size, photograph.modified, *now):
            return True
        record = self._ledger.record(row)
        if not photograph.name:  # nothing can be read
            same = now is None and record.version == (photograph.size, photograph.modified)
        elif record.digest is None:  # version 0.1.0 made no digests: only a face that is newer than its photograph
            unchanged = now is not None and now[0] < aligned
            copied = not unchanged and photograph.modified < aligned // 10**9
            same = record.version == (photograph.size, photograph.modified) and (unchanged or copied)
            self.unchecked += same and copied
        else:
            same = bool(record.digest) and record.bytes == photograph.size and record.digest == photograph.digest()
        if same and now and record.changed is not None:
            for column, value in zip(self._found_same, (row, photograph.modified, *now), strict=True):
                column.append(value)
        return same

    def _aligned_at(self, photograph: Photograph, row: int) -> int | None:
        """When the face of a row was written, nanoseconds since 1970; None where there is none, or an empty file."""
        try:
            status = (self._config.out / self._earlier_name(photograph, row)).stat()
        except (OSError, ValueError):
            return None
        return status.st_mtime_ns if stat.S_ISREG(status.st_mode) and status.st_size else None

    def _renamed(self, photograph: Photograph, row: int) -> bool:
        """Whether a photograph's face would now lie in another folder: its archive gives it to somebody else."""
        if row == ABSENT or not self._ledger.outputs[row] or not photograph.name:
            return False
        earlier = posixpath.dirname(self._earlier_name(photograph, row))
        return earlier.lower() != posixpath.dirname(photograph.name).lower()

    def _earlier_name(self, photograph: Photograph, row: int) -> str:
        name = _first_name(photograph) if photograph.name else ""
        return name if output_digest(name) == self._ledger.outputs[row] else str(self._ledger.record(row).output)

    def _name(self, photograph: Photograph, row: int, taken: set[int]) -> str:
        """The name of a photograph's face; adds the digest of a contested one to those that are taken."""
        if row != ABSENT and self._ledger.outputs[row] and not self._renamed(photograph, row):
            return self._earlier_name(photograph, row)
        if not photograph.name:
            return ""
        first = _first_name(photograph)
        if not _holds(self._contested, output_digest(first)):
            return first
        free = (name for name in _names(photograph) if self._is_free(output_digest(name), name == first, taken))
        name = next(free)
        taken.add(output_digest(name))
        return name

    def _is_free(self, digest: int, first: bool, taken: set[int]) -> bool:
        asked = not first and _holds(self._asked, digest)
        return not (asked or digest in taken or _holds(self._given, digest))


def _together(found: Iterator[Photograph]) -> list[Photograph]:
    """The next photographs, as many as are looked up together."""
    stretch: list[Photograph] = []
    held = 0
    while len(stretch) < STRETCH and held < HELD_AT_ONCE and (photograph := next(found, None)) is not None:
        stretch.append(photograph)
        held += photograph.held
    return stretch


def _holds(ordered: np.ndarray, value: int) -> bool:
    place = np.searchsorted(ordered, np.uint64(value))
    return bool(place < len(ordered) and ordered[place] == value)


def _first_name(photograph: Photograph) -> str:
    return posixpath.splitext(photograph.name)[0] + ".jpg"


def _names(photograph: Photograph) -> Iterator[str]:
    yield _first_name(photograph)
    yield f"{photograph.name}.jpg"
    number = 2
    while True:
        yield f"{photograph.name}.{number}.jpg"
        number += 1


def inspect(config: AlignConfig) -> Plan:
    """How the photographs of an alignment stand; writes nothing.

    Raises:
        UsageError, FacedanError: as `check_config`.
    """
    check_config(config)
    return Plan(config, ManifestIndex(config.out / MANIFEST_FILE), DistEnv())
