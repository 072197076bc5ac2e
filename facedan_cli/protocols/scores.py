"""Scores of other systems as text: two columns, or Bob's score files with four or five."""

from __future__ import annotations

import gzip
import math
import re
import zlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from facedan_cli.errors import FacedanError
from facedan_cli.text import blocks, one_form, open_given

_CHUNK = 1 << 22
_LONGEST_LINE = 1 << 16
_LABELS = {b"1": True, b"+1": True, b"1.0": True, b"0": False, b"-1": False, b"0.0": False, b"-1.0": False}
_FORMS = "'label score' (1 genuine, 0 or -1 impostor), or Bob's 'claimed_id [model] real_id probe score'"

_NO_NUMBER = re.compile(rb"[+-]?(nan(\([^()]*\))?|1\.#(qnan|snan|ind)0*|n/?a|null|none)", re.IGNORECASE)
_COMMENT = re.compile(rb"^[ \t]*#[^\n]*", re.MULTILINE)
_COMMA = re.compile(rb"^([^\s,]+)[ \t]*,[ \t]*(?=[^\s,]+[ \t\r]*$)", re.MULTILINE)
_BLANK = np.isin(np.arange(256), list(b" \t\n\r\v\f"))  # where bytes.split cuts

Chunk = tuple[NDArray[np.bool_], NDArray[np.float64], NDArray[np.int64] | None]


@dataclass(frozen=True)
class Scores:
    """The scores of a file; a higher score is more alike.

    Attributes:
        genuine: scores of genuine comparisons in the order of the file, shape (g,).
        impostor: scores of impostor comparisons, shape (n,).
        genuine_subject: subject of each genuine comparison, numbers from 0, shape (g,); None if the file has none.
        impostor_subjects: claimed and real subject of each impostor comparison by the same numbers, both of shape (n,);
            None if the file has none.
        failed_subject: subject of each genuine comparison without a score (NaN: an image could not be acquired), shape
            (f,); zeros if the file has no subjects.
        failed_impostor: number of impostor comparisons without a score.
    """

    genuine: NDArray[np.float64]
    impostor: NDArray[np.float64]
    genuine_subject: NDArray[np.int64] | None
    impostor_subjects: tuple[NDArray[np.int64], NDArray[np.int64]] | None
    failed_subject: NDArray[np.int64]
    failed_impostor: int


def read_scores(path: Path) -> Scores:
    """Read a score file, plain or gzip, whose form the columns of its first line show.

    Two columns: a label, 1 for genuine and 0 or -1 for impostor, and the score. Four (bob.bio.base): claimed_id real_id
    probe score; five: claimed_id model real_id probe score; a comparison is genuine where claimed and real agree.
    Blanks or tabs separate the columns; in a file of two it may be a comma. Empty lines and lines that begin with # are
    skipped.

    A score that is NaN, as Bob writes it where an image could not be acquired, is a comparison that could not be made;
    so are the spellings of other languages: NA, N/A, null, nan(ind), 1.#QNAN. Infinite scores are the highest and the
    lowest of all.

    Raises:
        FacedanError: the file cannot be read, holds no score, or has a line of another form. The message names the
            line.
    """
    subjects: defaultdict[bytes, int] = defaultdict()
    subjects.default_factory = subjects.__len__
    chunks: list[Chunk] = []
    width: int | None = None
    number = 1
    for block in _line_blocks(path):
        plain = _plain(block)
        width = width or next((len(row) for line in plain.split(b"\n") if (row := line.split())), None)
        if width is not None:
            try:
                chunks.append(_parse(plain, width, subjects))
            except (ValueError, KeyError) as error:
                raise _first_wrong(path, plain, number, width) from error
        number += block.count(b"\n")
    if not chunks:
        raise FacedanError(f"the score file {path} holds no score", f"Each line should be {_FORMS}.")
    mates = np.concatenate([chunk[0] for chunk in chunks])
    scores = np.concatenate([chunk[1] for chunk in chunks])
    named = [chunk[2] for chunk in chunks if chunk[2] is not None]
    made = ~np.isnan(scores)
    genuine, impostor, lost = mates & made, ~mates & made, mates & ~made
    failed_impostor = int(np.count_nonzero(~mates & ~made))
    if not named:
        silent = np.zeros(np.count_nonzero(lost), np.int64)
        return Scores(scores[genuine], scores[impostor], None, None, silent, failed_impostor)
    claimed, real = np.concatenate(named, axis=1)
    apart = claimed[impostor], real[impostor]
    return Scores(scores[genuine], scores[impostor], claimed[genuine], apart, claimed[lost], failed_impostor)


def _plain(block: bytes) -> bytes:
    """Lines with blanks instead of commas and without comments; the number of lines stays.

    Names of subjects are in one Unicode form.
    """
    if not block.isascii():
        block = one_form(block.decode("utf-8", "surrogateescape")).encode("utf-8", "surrogateescape")
    if b"#" in block:
        block = _COMMENT.sub(b"", block)
    return _COMMA.sub(rb"\1 ", block) if b"," in block else block


def _parse(block: bytes, width: int, subjects: defaultdict[bytes, int]) -> Chunk:
    """The columns of many lines at once, which is much faster than a list for each line.

    Raises:
        ValueError: a line has another width, a score is no number, or the width is none of the three.
        KeyError: a label is unknown.
    """
    if width not in (2, 4, 5) or not np.isin(_columns(block), (0, width)).all():
        raise ValueError("columns")
    fields = block.split()
    count = len(fields) // width
    try:
        scores = np.fromiter(map(float, fields[width - 1 :: width]), np.float64, count)
    except ValueError:  # a look at each word costs more
        scores = np.fromiter(map(_number, fields[width - 1 :: width]), np.float64, count)
    if width == 2:
        return np.fromiter(map(_LABELS.__getitem__, fields[::2]), bool, count), scores, None
    claimed, real = (
        np.fromiter(map(subjects.__getitem__, fields[column::width]), np.int64, count) for column in (0, width - 3)
    )
    return claimed == real, scores, np.stack([claimed, real])


def _number(word: bytes) -> float:
    """A score, or NaN in any spelling.

    Raises:
        ValueError: it is no number.
    """
    return math.nan if _NO_NUMBER.fullmatch(word) else float(word)


def _columns(block: bytes) -> NDArray[np.int64]:
    """The number of columns of each line of a block, as bytes.split counts them, shape (lines,)."""
    characters = np.frombuffer(block + b"\n", np.uint8)
    blank = _BLANK[characters]
    starts = np.flatnonzero(~blank & np.append(True, blank[:-1]))
    return np.diff(np.searchsorted(starts, np.flatnonzero(characters == ord("\n"))), prepend=0)


def _first_wrong(path: Path, block: bytes, number: int, width: int) -> FacedanError:
    """The error for the first line of a block that cannot be parsed."""
    lines = block.split(b"\n")
    reasons = ((place, _reason(row, width)) for place, line in enumerate(lines) if (row := line.split()))
    place, reason = next((place, reason) for place, reason in reasons if reason)
    line = lines[place].decode(errors="replace").strip()[:100]
    return FacedanError(f"{path}, line {number + place}: {reason}: {line}", f"Each line should be {_FORMS}.")


def _reason(row: Sequence[bytes], width: int) -> str:
    """The reason why a row cannot be parsed; "" if it can."""
    if len(row) != width:
        return f"{len(row)} columns where the lines before it have {width}"
    if width not in (2, 4, 5):
        return f"{width} columns instead of 2, 4 or 5"
    try:
        _number(row[-1])
    except ValueError:
        return "the last column is no number"
    return "the label is not 1, 0 or -1" if width == 2 and row[0] not in _LABELS else ""


def _line_blocks(path: Path) -> Iterator[bytes]:
    """Yield a file in blocks of some megabytes, cut after ends of lines."""
    try:
        with open_given(path) as file:
            compressed = file.read(2) == b"\x1f\x8b"
            file.seek(0)
            rest, number = b"", 1
            for chunk in blocks(gzip.GzipFile(fileobj=file) if compressed else file, _CHUNK):
                lines, end, rest = (rest + chunk).rpartition(b"\n")
                yield lines + end
                number += lines.count(b"\n") + len(end)
                if len(rest) > _LONGEST_LINE:
                    raise FacedanError(
                        f"{path}, line {number} is longer than {_LONGEST_LINE} bytes: this is no score file",
                        f"Each line should be {_FORMS}.",
                    )
            yield rest
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise FacedanError(f"the score file {path} is damaged: {error}", "Compress it anew.") from error
    except OSError as error:
        raise FacedanError(f"cannot read the score file {path}: {error.strerror}", "Check the path.") from error
