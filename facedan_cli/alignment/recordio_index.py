"""The .idx of a RecordIO file: a line `KEY<TAB>OFFSET` for each record."""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from pathlib import Path

import numpy as np

_DIGITS = 18  # at most, so that numbers fit 64 bits
_LONGEST_LINE = 256


@dataclass(frozen=True)
class RecordIndex:
    """The records that an index lists.

    Args:
        path: the .idx.
        keys: keys of the records, in the order of the lines.
        offsets: byte offsets of the records.
        damage: remarks on damaged lines.
    """

    path: Path
    keys: array[int]
    offsets: array[int]
    damage: tuple[str, ...]

    def repeated(self) -> set[int]:
        """The lines, from 0, whose key or offset occurs in an earlier line."""
        found: set[int] = set()
        for column in (self.keys, self.offsets):
            values = np.array(column, np.int64)
            order = np.argsort(values, kind="stable")
            same = values[order][1:] == values[order][:-1]
            found.update(order[1:][same].tolist())
        return found


def read_index(path: Path) -> RecordIndex:
    """Read an index; damaged lines are counted and skipped.

    Raises:
        OSError: the index cannot be read.
    """
    keys, offsets = array("q"), array("q")
    wrong = first = number = 0
    with path.open("rb") as file:
        while line := file.readline(_LONGEST_LINE):
            number += 1
            key, _, offset = line.strip().partition(b"\t")
            if _is_number(key) and _is_number(offset):
                keys.append(int(key))
                offsets.append(int(offset))
            elif line.strip():
                wrong, first = wrong + 1, first or number
    damage = f"{path.name} is damaged: {wrong} lines, the first is line {first}"
    return RecordIndex(path, keys, offsets, (damage,) if wrong else ())


def _is_number(text: bytes) -> bool:
    return text.isdigit() and len(text) <= _DIGITS
