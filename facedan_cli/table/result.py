"""A filled table: its rates over the seeds, in JSON and CSV; `table.formats` has its text."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from facedan_cli.config.networks import network_entry, network_settings
from facedan_cli.config.table import TableConfig
from facedan_cli.evaluation.verification import LEVEL
from facedan_cli.metrics.intervals import Interval
from facedan_cli.table.reported import PAPER, Reported

SCHEMA = 1
"""Version of the table's summary.json."""

CSV_HEADER = ("row", "name", "partition", "measure", "at", "value", "low", "high", "sd", "seeds", "paper")

Key = tuple[str, str]
"""A partition and an operating point: a FAR, or "1" for rank 1."""


@dataclass(frozen=True)
class SeedSummary:
    """A rate over the seeds.

    Args:
        values: one a seed; a single one of a model without seed.
        intervals: the 95 % interval of each over subjects; None where there is none, as of a model without seed.
        resolved: whether there are enough impostors for the FAR to allow a false accept.
    """

    values: tuple[float, ...]
    intervals: tuple[Interval | None, ...]
    resolved: bool = True

    @property
    def mean(self) -> float:
        """The mean over the seeds."""
        return statistics.fmean(self.values)

    @property
    def bounds(self) -> Interval | None:
        """The lowest and highest of several values; for a single value its interval."""
        return (min(self.values), max(self.values)) if len(self.values) > 1 else self.intervals[0]

    @property
    def deviation(self) -> float | None:
        """The standard deviation over the seeds (n − 1); None for a single seed."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None

    def summary(self) -> dict[str, Any]:
        """The part of an entry in summary.json about this rate."""
        return {
            "mean": self.mean,
            "bounds": None if self.bounds is None else list(self.bounds),
            "sd": self.deviation,
            "values": list(self.values),
            "intervals": [None if interval is None else list(interval) for interval in self.intervals],
        }


@dataclass(frozen=True)
class TableRow:
    """A row of the table.

    Args:
        key: key in `config.table.TABLE_ROWS`.
        name: name in the paper.
        runs: runs of its models, by seed; empty for models without training.
        rates: rates by partition and operating point.
        paper: rates that the paper reports.
    """

    key: str
    name: str
    runs: Mapping[int, str]
    rates: Mapping[Key, SeedSummary]
    paper: Mapping[Key, float]


@dataclass(frozen=True)
class PairedDifference:
    """The difference between a row's rate and a reference's, on the same comparisons with models of the same seed.

    Args:
        row: the row.
        reference: the row that is subtracted.
        partition: the partition.
        at: the FAR; "1" for rank 1.
        measure: "vr" or "rank1".
        spread: the differences.
        distinguishable: for each seed, whether its difference is beyond chance; None if unknown.
    """

    row: str
    reference: str
    partition: str
    at: str
    measure: str
    spread: SeedSummary
    distinguishable: tuple[bool | None, ...]


@dataclass(frozen=True)
class TableResult:
    """A filled table.

    Args:
        protocol: name of the row in `config.protocols`.
        directory: holds summary.json, table.csv, table.md and table.tex.
        config: settings of the trainings and the measurement.
        verifies: whether the protocol is verification; else it is identification.
        rows: rows in the paper's order.
        differences: differences of the rows to the references.
        reported: the paper's table of this protocol; None without one.
        evaluations: the results of `evaluate`, by seed.
        provenance: command line, versions and inputs.
        set_aside: the list of images that could not be used, if there are any.
        warnings: warnings of the evaluations.
    """

    protocol: str
    directory: Path
    config: TableConfig
    verifies: bool
    rows: Sequence[TableRow]
    differences: Sequence[PairedDifference]
    reported: Reported | None
    evaluations: Mapping[int, Sequence[Path]]
    provenance: Mapping[str, Any]
    set_aside: Path | None
    warnings: Sequence[str] = ()

    def summary(self) -> dict[str, Any]:
        """The object that `table --json` prints and summary.json holds."""
        config, several = self.config, len(self.config.seeds) > 1
        network = network_entry(config.pretrain.model, network_settings(config.pretrain))
        lambda_ = network.adapt.lambda_ if config.adapt.lambda_ is None else config.adapt.lambda_
        return {
            "schema": SCHEMA,
            "protocol": self.protocol,
            "measure": "vr" if self.verifies else "rank1",
            "source": config.adapt.source,
            "target": config.adapt.target,
            "model": config.pretrain.model,
            "init": config.pretrain.init,
            "lambda": lambda_,
            "seeds": list(config.seeds),
            "bounds": "lowest and highest of the seeds" if several else config.evaluate.ci,
            "level": LEVEL,
            "rows": [self._row(row) for row in self.rows],
            "differences": [
                {
                    "row": difference.row,
                    "minus": difference.reference,
                    "partition": difference.partition,
                    "at": difference.at,
                    **difference.spread.summary(),
                    "distinguishable": list(difference.distinguishable),
                }
                for difference in self.differences
            ],
            "published": None if self.reported is None else {"paper": PAPER, "table": self.reported.name},
            "evaluations": {str(seed): [str(path) for path in paths] for seed, paths in self.evaluations.items()},
            "warnings": list(self.warnings),
            "results": str(self.directory),
            "set_aside": None if self.set_aside is None else str(self.set_aside),
            "provenance": dict(self.provenance),
        }

    def _row(self, row: TableRow) -> dict[str, Any]:
        rates = [
            {"partition": key[0], "at": key[1], **spread.summary(), "paper": row.paper.get(key)}
            for key, spread in row.rates.items()
        ]
        runs = {str(seed): run for seed, run in row.runs.items()}
        return {"row": row.key, "name": row.name, "runs": runs, "figures": rates}

    def csv_rows(self) -> Iterator[tuple[object, ...]]:
        """The rows of table.csv; their columns are CSV_HEADER."""
        measure = "vr" if self.verifies else "rank1"
        for row in self.rows:
            for (partition, at), spread in row.rates.items():
                found = (spread.mean, *(spread.bounds or ("", "")), spread.deviation, len(spread.values))
                paper = row.paper.get((partition, at))
                yield (row.key, row.name, partition, measure, at, *found, paper)
        if self.reported is not None:
            for name in self.reported.elsewhere:
                for (partition, at), rate in self.reported.rates(name).items():
                    yield ("", name, partition, measure, at, *[""] * 5, rate)
