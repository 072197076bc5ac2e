"""CSV files that are safe in spreadsheets: no text is read as a formula, and every name can be read back."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

_FORMULA = re.compile("'*[=+\\-@\t\r＝＋－＠]")
"""Texts that a spreadsheet may read as a formula, or that were prefixed for that reason, so that both differ."""

_QUOTED = re.compile('[,"\r\n]')


def csv_lines(header: Iterable[str], rows: Iterable[Iterable[object]]) -> Iterator[str]:
    """Yield a table as lines of CSV, each with its line feed.

    Text that begins like a formula, and is no number, has an apostrophe before it, as one writes it into a spreadsheet.
    """
    for row in chain([header], rows):
        fields = [_field(value) for value in row]
        yield ('""' if fields == [""] else ",".join(fields)) + "\n"


def read_csv(path: Path) -> list[dict[str, str]]:
    """The rows of a table of `csv_lines`, by the header's names, without the added apostrophes.

    Raises:
        ValueError: the file is no such table, or its rows are not as long as its header.
        OSError: it cannot be read.
    """
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        try:
            header, *rows = csv.reader(file, strict=True)
            return [dict(zip(header, map(_text, row), strict=True)) for row in rows]
        except (csv.Error, ValueError) as error:
            raise ValueError(f"{path} is no table of ours: {error}") from error


def _field(value: object) -> str:
    if isinstance(value, str):
        field = "'" + value if _FORMULA.match(value) and not _is_number(value) else value
    else:
        field = "" if value is None else str(value)
    return '"' + field.replace('"', '""') + '"' if _QUOTED.search(field) else field


def _text(field: str) -> str:
    return field[1:] if field.startswith("'") and _FORMULA.match(field) else field


def _is_number(text: str) -> bool:
    return re.fullmatch(r"[+-]?\d+(\.\d*)?([eE][+-]?\d+)?", text, re.ASCII) is not None
