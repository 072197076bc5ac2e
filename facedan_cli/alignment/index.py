"""The index of the manifest by digests of paths; 33 MB for a million images."""

from __future__ import annotations

import hashlib
from array import array
from pathlib import Path

import numpy as np

from facedan_cli.data.manifest import AlignedRecord, OddLine, read_record, read_with_places

NO_ROW = -1


def digest64(*parts: object) -> int:
    """A digest of 64 bits; among ten million names two share one with probability 1/300 000."""
    text = "\0".join(map(str, parts))
    return int.from_bytes(hashlib.blake2b(text.encode(errors="surrogateescape"), digest_size=8).digest(), "little")


def output_digest(output: str) -> int:
    """The digest of an aligned face's name; it ignores case, as some disks do."""
    return digest64(output.lower())


class ManifestIndex:
    """The last line of the manifest on each image.

    A face that another image's has overwritten counts as not made.

    Args:
        manifest: an aligned.jsonl; it may not exist yet, and may grow later.

    Attributes:
        odd: lines that are damaged: what they spoke of is as if it had not been done.
    """

    def __init__(self, manifest: Path) -> None:
        self._manifest = manifest
        columns = tuple(array("Q") for _ in range(4))
        self.odd: list[OddLine] = []
        for place, record in read_with_places(manifest, self.odd):
            output = 0 if record.output is None else output_digest(record.output)
            row = (digest64(record.path), digest64(*record.version), output, place)
            for column, value in zip(columns, row, strict=True):
                column.append(value)
        keys, versions, outputs, places = (np.frombuffer(column, np.uint64) for column in columns)
        kept = last_of_each(keys)
        kept = kept[_owns(keys, outputs)[kept]]
        self.keys, self.versions, self.outputs, self._places = (
            values[kept] for values in (keys, versions, outputs, places)
        )

    def find(self, keys: np.ndarray) -> np.ndarray:
        """Rows of images by the digests of their paths, int64; NO_ROW where the manifest has none."""
        if not len(self.keys):
            return np.full(len(keys), NO_ROW)
        places = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        return np.where(self.keys[places] == keys, places, NO_ROW)

    def record(self, row: int) -> AlignedRecord:
        """The line of a row."""
        return read_record(self._manifest, int(self._places[row]))


def last_of_each(values: np.ndarray) -> np.ndarray:
    """The index of the last occurrence of each value, in the order of the values."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    is_last = np.ones(len(order), bool)
    is_last[:-1] = ordered[1:] != ordered[:-1]
    last: np.ndarray = order[is_last]
    return last


def _owns(keys: np.ndarray, outputs: np.ndarray) -> np.ndarray:
    """Whether no other image wrote the line's face later; true for lines without a face."""
    last = last_of_each(outputs)
    writer = keys[last[np.searchsorted(outputs[last], outputs)]]
    owns: np.ndarray = (outputs == 0) | (writer == keys)
    return owns


def contained(values: np.ndarray, ordered: np.ndarray) -> np.ndarray:
    """Whether each value occurs in an ordered array."""
    if not len(ordered):
        return np.zeros(len(values), bool)
    found: np.ndarray = ordered[np.minimum(np.searchsorted(ordered, values), len(ordered) - 1)] == values
    return found


def repeated(values: np.ndarray) -> np.ndarray:
    """The values that occur more than once, ordered."""
    ordered = np.sort(values)
    return np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
