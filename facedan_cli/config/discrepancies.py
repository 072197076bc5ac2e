"""The table of discrepancies between two domains, a row each. It imports no torch, for the command line's sake."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class DiscrepancyEntry:
    """A discrepancy: everything but its own function.

    Args:
        measure: "module:function" that computes the discrepancy of each layer of a batch
            (`adaptation.discrepancies.Measure`).
        log: its name in metrics.jsonl.
        title: its name in notes, tables and figures.
        kernels: whether it has bandwidths and kernel weights.
        idle: options of `adapt` that it does not use.
        joint: whether it measures all layers jointly.
    """

    measure: str
    log: str
    title: str
    kernels: bool
    idle: tuple[str, ...] = ()
    joint: bool = False


_KERNEL_OPTIONS = ("bandwidth", "median", "kernel_weights", "bandwidth_multipliers", "kernels")
_HERE = "facedan_cli.adaptation.discrepancies"

DISCREPANCIES: Mapping[str, DiscrepancyEntry] = {
    "mk-mmd": DiscrepancyEntry(measure=f"{_HERE}:layer_mmd", log="mmd2", title="MMD²", kernels=True),
    "jmmd": DiscrepancyEntry(
        measure=f"{_HERE}:joint_mmd", log="jmmd", title="JMMD", kernels=True, idle=("kernel_weights",), joint=True
    ),
    "coral": DiscrepancyEntry(
        measure=f"{_HERE}:coral", log="coral", title="CORAL", kernels=False, idle=(*_KERNEL_OPTIONS, "estimator")
    ),
    "energy": DiscrepancyEntry(
        measure=f"{_HERE}:energy", log="energy", title="energy", kernels=False, idle=_KERNEL_OPTIONS
    ),
}
"""The discrepancies by the value of --discrepancy."""

TITLES = {entry.log: entry.title for entry in DISCREPANCIES.values()}
"""Titles by the names in the log."""
