"""The rates that the paper reports, and checks that a protocol's lists are the paper's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from facedan_cli.protocols.feret import Feret, is_published
from facedan_cli.protocols.gbu import Partition

PAPER = "Luo, Hu, Deng, Shen 2018"

GBU_SHAPE, GBU_GENUINE = (1085, 1085), 3297
"""Query and target images of each partition of GBU, and how many of their comparisons are genuine."""


@dataclass(frozen=True)
class Reported:
    """A table of the paper.

    Args:
        name: name in the paper.
        at: the FAR of its rates; "1" for rank 1.
        partitions: its columns.
        rows: per cent by row of `config.table.TABLE_ROWS`.
        elsewhere: further rows, of methods that cannot be run.
        notes: remarks below the table.
    """

    name: str
    at: str
    partitions: tuple[str, ...]
    rows: Mapping[str, tuple[float, ...]]
    elsewhere: Mapping[str, tuple[float, ...]]
    notes: tuple[str, ...]

    def rates(self, row: str) -> dict[tuple[str, str], float]:
        """The reported rates of a row, as shares, by partition and operating point; empty for other rows."""
        found = self.rows.get(row) or self.elsewhere.get(row) or ()
        return {
            (partition, self.at): round(value / 100, 4)
            for partition, value in zip(self.partitions, found, strict=False)
        }


TABLE_1 = Reported(
    name="Table I",
    at="0.001",
    partitions=("Good", "Bad", "Ugly"),
    rows={
        "vgg": (85.00, 52.00, 26.00),
        "source": (95.57, 73.55, 48.80),
        "s7": (98.00, 84.95, 60.78),
        "s67": (98.54, 87.08, 63.42),
        "m7": (98.67, 87.68, 68.42),
        "m67": (98.93, 88.87, 69.42),
    },
    elsewhere={"FRVT 2006 fusion": (98.00, 80.00, 15.00)},
    notes=("the paper takes 'FRVT 2006 fusion' and VGG from Phillips 2017, where VGG's faces are cut in another way",),
)

TABLE_2 = Reported(
    name="Table II",
    at="1",
    partitions=("fb", "fc", "dup1", "dup2", "mean"),
    rows={
        "lbp": (97.00, 79.00, 66.00, 64.00, 81.00),
        "pcanet": (99.58, 100.00, 95.43, 94.02, 97.26),
        "source": (99.67, 98.45, 95.15, 95.72, 97.25),
        "s7": (99.74, 98.96, 97.09, 97.43, 98.31),
        "s67": (99.75, 98.97, 96.40, 97.00, 98.03),
        "m7": (99.58, 99.48, 96.54, 97.01, 98.15),
        "m67": (99.67, 99.48, 97.37, 98.29, 98.70),
    },
    elsewhere={},
    notes=("the paper's average of LBP, 81, is the mean of Ahonen's permutation test, not of the four rates",),
)


def reported_gbu(partitions: Mapping[str, Partition]) -> Reported | None:
    """Table I if the sigsets have the shape of the challenge's; None for others, such as the demo's."""
    for partition in partitions.values():
        if (len(partition.query), len(partition.target)) != GBU_SHAPE or partition.genuine_mask().sum() != GBU_GENUINE:
            return None
    return TABLE_1


def reported_feret(lists: Feret) -> Reported | None:
    """Table II if the lists are the published ones; else None."""
    return TABLE_2 if is_published(lists) else None
