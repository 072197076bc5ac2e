"""The manifest of an alignment, aligned.jsonl: one line for every input, appended as the work goes on."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from io import FileIO
from pathlib import Path

from facedan_cli.errors import FacedanError

ALIGNED = "aligned"
FAILED = "failed"


@dataclass(frozen=True, kw_only=True)
class AlignedRecord:
    """What became of one photograph.

    Args:
        path: the photograph relative to the root of the raw tree, with forward slashes.
        output: the aligned face relative to the root of the aligned tree; None where there is none.
        status: "aligned" or "failed".
        reason: why it failed; "" where it did not.
        faces: how many faces were found; None where none were looked for (given landmarks, an unreadable file).
        box: left, top, right, bottom of the chosen face, pixels of the upright photograph.
        probability: how sure the detector is of it.
        points: (x, y) by the names of `geometry.POINT_NAMES`; with given eyes only these two.
        source: where the points come from: "mtcnn", "mtcnn, contrast stretched" (at the second try) or "landmarks"; of
            what was aligned already, "copied" or "resized".
        transform: from the upright photograph to the aligned face, two rows of three.
        template: a name of `geometry.TEMPLATES`; "given" of what was aligned already.
        size: side of the aligned face, pixels.
        bytes: size of the photograph's file.
        modified: when that file was last changed, whole seconds since 1970.
    """

    path: str
    output: str | None = None
    status: str
    reason: str = ""
    faces: int | None = None
    box: tuple[float, ...] | None = None
    probability: float | None = None
    points: Mapping[str, tuple[float, float]] | None = None
    source: str | None = None
    transform: tuple[tuple[float, ...], ...] | None = None
    template: str
    size: int
    bytes: int
    modified: int

    def to_line(self) -> str:
        """The record as a line of the manifest."""
        return json.dumps(asdict(self), ensure_ascii=False, allow_nan=False) + "\n"

    @classmethod
    def from_line(cls, line: str) -> AlignedRecord:
        """The record of a line of the manifest.

        Raises:
            ValueError: the line is not a whole record.
        """
        fields = json.loads(line)
        try:
            if fields["box"] is not None:
                fields["box"] = tuple(fields["box"])
            if fields["points"] is not None:
                fields["points"] = {name: tuple(point) for name, point in fields["points"].items()}
            if fields["transform"] is not None:
                fields["transform"] = tuple(map(tuple, fields["transform"]))
            return cls(**fields)
        except (TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"not a record: {error}") from error


def read_records(manifest: Path) -> Iterator[AlignedRecord]:
    """The records in the order in which they were written; of one photograph the last one counts.

    There may be no manifest yet. A last line that a kill cut short is passed over.

    Raises:
        FacedanError: another line is damaged.
    """
    for _, record in read_with_places(manifest):
        yield record


def read_record(manifest: Path, place: int) -> AlignedRecord:
    """The record whose line begins at this byte of the manifest."""
    with manifest.open("rb") as file:
        file.seek(place)
        return AlignedRecord.from_line(file.readline().decode(errors="surrogateescape"))


def read_with_places(manifest: Path) -> Iterator[tuple[int, AlignedRecord]]:
    """As `read_records`, each record with the byte at which its line begins."""
    if not manifest.exists():
        return
    with manifest.open("rb") as file:
        place = 0
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                return
            try:
                # File names need not be UTF-8: their bytes go through as they are.
                yield place, AlignedRecord.from_line(line.decode(errors="surrogateescape"))
                place += len(line)
            except ValueError as error:
                raise FacedanError(
                    f"{manifest}, line {number}, is damaged",
                    "remove the line (its photograph is then aligned again), or align everything again with --force",
                ) from error


class ManifestWriter:
    """Appends records to a manifest, whole lines only, and keeps other writers from it; use as a context.

    Raises:
        FacedanError: another process writes to it.
    """

    def __init__(self, manifest: Path) -> None:
        self._file = manifest.open("a+b", buffering=0)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._file.close()
            raise FacedanError(f"another process writes {manifest}", "wait for it, or stop it") from error
        self._end = _whole_lines(self._file)
        self._file.truncate(self._end)

    @property
    def end(self) -> int:
        """Bytes of the manifest: where the next line will begin."""
        return self._end

    def __enter__(self) -> ManifestWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def append(self, records: Iterable[AlignedRecord]) -> None:
        """Write records; when this returns they are with the operating system.

        Raises:
            OSError: they could not be written whole (a full disk); then none of them is in the manifest.
        """
        self.append_lines("".join(record.to_line() for record in records).encode(errors="surrogateescape"))

    def append_lines(self, lines: bytes) -> None:
        """Write lines as they are; for the rest as `append`."""
        left = memoryview(lines)
        try:
            while left:
                left = left[self._file.write(left) :]
        except OSError:
            self._file.truncate(self._end)
            raise
        self._end += len(lines)


def _whole_lines(file: FileIO) -> int:
    """How many bytes of a file belong to whole lines."""
    end = file.seek(0, os.SEEK_END)
    while end:
        start = max(0, end - 4096)
        file.seek(start)
        newline = file.read(end - start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        end = start
    return 0
