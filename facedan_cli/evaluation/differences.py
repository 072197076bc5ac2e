"""Paired differences between the rates of models."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from facedan_cli.evaluation.identification import Identification
from facedan_cli.evaluation.verification import LEVEL, Rates, Verification
from facedan_cli.metrics.identification import McNemar, mcnemar
from facedan_cli.metrics.intervals import Interval, difference_interval

Measurement = Verification | Identification
"""The result of one model in one partition."""


@dataclass(frozen=True)
class Difference:
    """The difference of two models' rates on the same comparisons.

    Args:
        partition: where.
        a: the model that is subtracted.
        b: the other.
        measure: "vr" or "rank1".
        at: the FAR; "1" for rank 1.
        value: rate of b minus rate of a.
        interval: its 95 % interval by paired bootstrap replicates; None without bootstrap.
        mcnemar: for rank 1, the numbers of probes that only one model finds.
    """

    partition: str
    a: str
    b: str
    measure: str
    at: str
    value: float
    interval: Interval | None
    mcnemar: McNemar | None = None

    @property
    def distinguishable(self) -> bool | None:
        """Whether the interval excludes 0 or, without one, McNemar's p is below 5 %; None without both."""
        if self.interval is not None:
            return not self.interval[0] <= 0 <= self.interval[1]
        return None if self.mcnemar is None else self.mcnemar.p < 1 - LEVEL

    def summary(self) -> dict[str, Any]:
        """The entry in summary.json."""
        return {
            "partition": self.partition,
            "a": self.a,
            "b": self.b,
            "measure": self.measure,
            "at": self.at,
            "difference": self.value,
            "interval": None if self.interval is None else list(self.interval),
            "distinguishable": self.distinguishable,
            "mcnemar": None
            if self.mcnemar is None
            else {"only_a": self.mcnemar.only_a, "only_b": self.mcnemar.only_b, "p": self.mcnemar.p},
        }


def differences(models: Sequence[tuple[str, Mapping[str, Measurement]]]) -> list[Difference]:
    """The differences between every two models, partition by partition.

    Args:
        models: the name and, by partition, the rates of each, all of the same comparisons.
    """
    return [found for a, b in combinations(models, 2) for found in _between(*a, *b)]


def _between(
    name_a: str, by_part_a: Mapping[str, Measurement], name_b: str, by_part_b: Mapping[str, Measurement]
) -> Iterator[Difference]:
    for partition, a in by_part_a.items():
        b = by_part_b[partition]
        measure, test = "vr", None
        if isinstance(a, Identification) and isinstance(b, Identification):
            measure, test = "rank1", mcnemar(a.correct, b.correct)
        for at in a.rates.values:
            value = b.rates.values[at] - a.rates.values[at]
            yield Difference(partition, name_a, name_b, measure, at, value, _interval(a.rates, b.rates, at), test)


def _interval(a: Rates, b: Rates, at: str) -> Interval | None:
    if at not in a.replicates or at not in b.replicates:
        return None
    between = b.values[at] - a.values[at]
    return difference_interval(between, b.replicates[at], a.replicates[at], subjects=a.subjects, level=LEVEL)
