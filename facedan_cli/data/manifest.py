"""The manifest of an alignment, aligned.jsonl, to which each aligned or failed image appends a line."""

from __future__ import annotations

import fcntl
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from dataclasses import fields as dataclass_fields
from io import FileIO
from pathlib import Path
from typing import Any

from facedan_cli.errors import FacedanError
from facedan_cli.json_files import parse_object
from facedan_cli.workspace import replacing

ALIGNED = "aligned"
FAILED = "failed"
SETTINGS = "align.json"
"""The file beside the manifest with the settings of its faces."""

GIVEN = "given"
"""The template of faces that were aligned before."""


@dataclass(frozen=True, kw_only=True)
class AlignedRecord:
    """The outcome of one image.

    Args:
        path: the image relative to the root of the raw tree, with forward slashes.
        output: the aligned face relative to the root of the aligned tree; None where there is none.
        status: "aligned" or "failed".
        reason: reason of a failure; "" without one.
        meant: `output` that a failed image would have had, which tells its identity; None for aligned images, if
            unknown, and in manifests of earlier versions.
        faces: number of faces found; None without detection (given landmarks, an unreadable file).
        box: left, top, right, bottom of the chosen face, pixels of the upright image.
        probability: the detector's probability of the chosen face.
        points: (x, y) by the names of `templates.POINT_NAMES`; with given eyes only these two.
        source: origin of the points: "mtcnn", "mtcnn, contrast stretched" (at the second try), "landmarks" or
            "landmarks, left and right exchanged"; for faces aligned before, "copied" or "resized".
        transform: transform from the upright image to the aligned face, two rows of three.
        template: a name of `config.templates.TEMPLATES`; "given" for faces aligned before on a template not stated.
        size: side of the aligned face, pixels.
        bytes: size of the image's file.
        modified: mtime of that file, whole seconds since 1970.
        changed: ctime of that file, or of its archive, nanoseconds since 1970; None if it is not reliable. Earlier
            versions wrote neither this nor the following fields.
        inode: inode of that file or archive.
        digest: SHA-256 of the image's bytes, in hex; "" if they could not be read.
        fitted: 5 for a similarity of all five points; None (no key in the line) for the eyes alone or with the mouth.
    """

    path: str
    output: str | None = None
    status: str
    reason: str = ""
    meant: str | None = None
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
    changed: int | None = None
    inode: int | None = None
    digest: str | None = None
    fitted: int | None = None

    @property
    def version(self) -> tuple[int, ...]:
        """Facts that stay the same until the image's file is written, for the quick check."""
        if self.changed is None or self.inode is None:
            return self.bytes, self.modified
        return self.bytes, self.modified, self.changed, self.inode

    def to_line(self) -> str:
        """The record as a line of the manifest."""
        fields = asdict(self)
        if self.fitted is None:  # as earlier versions wrote it
            del fields["fitted"]
        return json.dumps(fields, ensure_ascii=False, allow_nan=False) + "\n"

    @classmethod
    def from_line(cls, line: str) -> AlignedRecord:
        """The record in a line of the manifest; unknown fields of later versions are ignored.

        Raises:
            ValueError: the line is not a whole record, or names a face outside the aligned tree.
        """
        fields = parse_object(line, constants=_refuse)
        for name, is_right in _CHECKS.items():
            if name in fields and not is_right(fields[name]):
                raise ValueError(f"its {name} cannot be: {str(fields[name])[:100]}")
        try:
            if fields["box"] is not None:
                fields["box"] = tuple(fields["box"])
            if fields["points"] is not None:
                fields["points"] = {name: tuple(point) for name, point in fields["points"].items()}
            if fields["transform"] is not None:
                fields["transform"] = tuple(map(tuple, fields["transform"]))
            record = cls(**{field.name: fields[field.name] for field in dataclass_fields(cls) if field.name in fields})
        except (TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"not a record: {error}") from error
        if (record.status == ALIGNED) != (record.output is not None):
            raise ValueError("an aligned image has a face, and no other has")
        return record


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is no number")


def _whole(value: Any) -> bool:
    return type(value) is int and -(1 << 63) <= value < 1 << 63


def _number(value: Any) -> bool:
    return _whole(value) or (isinstance(value, float) and math.isfinite(value))


def _numbers(value: Any, length: int) -> bool:
    return isinstance(value, list) and len(value) == length and all(map(_number, value))


def _face(value: Any) -> bool:
    """Whether a value names a face: a JPEG below the root of the tree, not one of the tree's own files."""
    return isinstance(value, str) and stays_inside(value) and value.endswith(".jpg")


_CHECKS: Mapping[str, Callable[[Any], bool]] = {
    "path": lambda value: isinstance(value, str) and value != "",
    "output": lambda value: value is None or _face(value),
    "meant": lambda value: value is None or _face(value),
    "status": lambda value: value in (ALIGNED, FAILED),
    "reason": lambda value: isinstance(value, str),
    "faces": lambda value: value is None or (_whole(value) and value >= 0),
    "box": lambda value: value is None or _numbers(value, 4),
    "probability": lambda value: value is None or _number(value),
    "points": lambda value: (
        value is None or (isinstance(value, dict) and all(_numbers(point, 2) for point in value.values()))
    ),
    "source": lambda value: value is None or isinstance(value, str),
    "transform": lambda value: (
        value is None or (isinstance(value, list) and len(value) == 2 and all(_numbers(row, 3) for row in value))
    ),
    "template": lambda value: isinstance(value, str),
    "size": lambda value: _whole(value) and 0 < value <= 1 << 16,
    "bytes": _whole,
    "modified": _whole,
    "changed": lambda value: value is None or _whole(value),
    "inode": lambda value: value is None or _whole(value),
    "digest": lambda value: value is None or isinstance(value, str),
    "fitted": lambda value: value in (None, 5),
}
"""The checks of a line's fields. Trees may be foreign, and faces are written and removed at the paths in lines."""


@dataclass(frozen=True)
class OddLine:
    """A damaged line of a manifest: its number, from 1, and the reason."""

    number: int
    reason: str


def read_records(manifest: Path, odd: list[OddLine] | None = None) -> Iterator[AlignedRecord]:
    """Yield the records in the order of the file; the last one of an image counts.

    There may be no manifest yet. A last line that a kill cut short is passed over.

    Args:
        manifest: an aligned.jsonl.
        odd: takes the lines that are damaged, which are passed over then.

    Raises:
        FacedanError: a line is damaged, and there is no `odd`.
    """
    for _, record in read_with_places(manifest, odd):
        yield record


def read_record(manifest: Path, place: int) -> AlignedRecord:
    """The record whose line begins at this byte offset of the manifest."""
    with manifest.open("rb") as file:
        file.seek(place)
        return AlignedRecord.from_line(file.readline().decode(errors="surrogateescape"))


def read_with_places(manifest: Path, odd: list[OddLine] | None = None) -> Iterator[tuple[int, AlignedRecord]]:
    """Yield the records of `read_records`, each with the byte offset of its line."""
    if not manifest.exists():
        return
    with manifest.open("rb") as file:
        place = 0
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                return
            try:
                # File names need not be UTF-8: their bytes go through as they are.
                record = AlignedRecord.from_line(line.decode(errors="surrogateescape"))
            except ValueError as error:
                if odd is None:
                    raise FacedanError(
                        f"{manifest}, line {number}, is damaged: {error}",
                        "run the same facedan align again: it removes the line and aligns that image anew",
                    ) from error
                odd.append(OddLine(number, str(error)))
            else:
                yield place, record
            place += len(line)


def leads_outside(root: Path, output: str) -> bool:
    """Whether a face's name leads out of the aligned tree by a link to a directory."""
    top = os.path.realpath(root)
    return not Path(os.path.realpath((root / output).parent)).is_relative_to(top)


def remove_lines(manifest: Path, odd: Iterable[OddLine]) -> None:
    """Rewrite a manifest without these damaged lines, whole or not at all; no other process may write to it."""
    numbers = {line.number for line in odd}
    if not numbers:
        return
    with replacing(manifest) as temporary, manifest.open("rb") as lines, temporary.open("wb") as kept:
        kept.writelines(line for number, line in enumerate(lines, start=1) if number not in numbers)


class ManifestWriter:
    """Appends records to a manifest in whole lines, under a lock; use as a context manager.

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
        """The number of bytes of the manifest, the offset of the next line."""
        return self._end

    def __enter__(self) -> ManifestWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def append(self, records: Iterable[AlignedRecord]) -> None:
        """Append records and hand them to the operating system.

        Raises:
            OSError: they could not be written whole (a full disk); then none of them is in the manifest.
        """
        self.append_lines("".join(record.to_line() for record in records).encode(errors="surrogateescape"))

    def append_lines(self, lines: bytes) -> None:
        """Append lines unchanged, as `append` does."""
        left = memoryview(lines)
        try:
            while left:
                left = left[self._file.write(left) :]
        except OSError:
            self._file.truncate(self._end)
            raise
        self._end += len(lines)


def _whole_lines(file: FileIO) -> int:
    """The number of bytes of a file up to the end of its last whole line."""
    end = file.seek(0, os.SEEK_END)
    while end:
        start = max(0, end - 4096)
        file.seek(start)
        newline = file.read(end - start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        end = start
    return 0


def stays_inside(path: str) -> bool:
    """Whether a relative path, with forward slashes, stays below its start."""
    return not path.startswith("/") and ".." not in path.split("/") and "\0" not in path and path.strip("./") != ""
