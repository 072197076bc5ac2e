"""The GBU challenge: three partitions of frontal faces, the Good, the Bad and the Ugly (Phillips et al. 2012).

Each partition compares a query set with a target set; equal subjects make a genuine comparison, all others an impostor
one. Smaller sets of the same shape, such as the demo's, are read as well: the counts of the challenge are not enforced.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from facedan_cli.errors import FacedanError
from facedan_cli.protocols.sigset import Record, read_sigset, stem

PARTITIONS = ("Good", "Bad", "Ugly")


@dataclass(frozen=True)
class Partition:
    """The two sets of images that a partition compares."""

    target: tuple[Record, ...]
    query: tuple[Record, ...]

    def subjects(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The subjects of the query and of the target images, as numbers from 0 in the order of their labels."""
        labels = [record.subject for record in (*self.query, *self.target)]
        codes = np.unique(labels, return_inverse=True)[1].astype(np.int64)
        return codes[: len(self.query)], codes[len(self.query) :]

    def genuine_mask(self) -> NDArray[np.bool_]:
        """Whether each comparison is genuine, shape (queries, targets), as in BEE matrices."""
        query, target = self.subjects()
        return np.equal.outer(query, target)


def sigset_name(partition: str, side: str) -> str:
    """The file name of a list: "GBU_Good_Target.xml" for partition "Good" and side "Target" (or "Query")."""
    return f"GBU_{partition}_{side}.xml"


def read_gbu(directory: Path) -> dict[str, Partition]:
    """Read the six lists of the protocol; the case of their file names does not matter.

    Returns:
        The partitions by name, in the order Good, Bad, Ugly.

    Raises:
        FacedanError: a list is missing or unreadable, two images of a set share a base name, or an image is in both
            sets of a partition.
    """
    present = {path.name.casefold(): path for path in directory.iterdir()} if directory.is_dir() else {}
    names = [sigset_name(partition, side) for partition in PARTITIONS for side in ("Target", "Query")]
    missing = [name for name in names if name.casefold() not in present]
    if missing:
        raise FacedanError(
            f"the GBU protocol in {directory} is incomplete: {', '.join(missing)} not found",
            "Copy GBU_{Good,Bad,Ugly}_{Target,Query}.xml there; these sigsets come with the GBU images from NIST.",
        )
    sets = {name: _read_set(present[name.casefold()]) for name in names}
    partitions = {}
    for partition in PARTITIONS:
        target, query = (sets[sigset_name(partition, side)] for side in ("Target", "Query"))
        for name in query.keys() & target.keys():
            raise FacedanError(
                f"{query[name].file_name} is in the query and in the target set of the {partition} partition",
                f"take the GBU sigsets in {directory} from their distribution again: no image may meet itself",
            )
        partitions[partition] = Partition(tuple(target.values()), tuple(query.values()))
    return partitions


def _read_set(path: Path) -> dict[str, Record]:
    """The images of a list by their base name."""
    records: dict[str, Record] = {}
    for record in read_sigset(path):
        first = records.setdefault(stem(record.file_name), record)
        if first is not record:
            raise FacedanError(
                f"{path} lists two images of one base name: {first.file_name} and {record.file_name}",
                "Take the list from its distribution again: GBU images are told apart by their base names.",
            )
    return records
