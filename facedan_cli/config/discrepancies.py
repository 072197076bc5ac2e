"""The table of discrepancies between two domains: a row each. Free of torch, so that the command line can read it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class DiscrepancyEntry:
    """What the package knows of a discrepancy beside its own function.

    Args:
        measure: "module:function", which gives the discrepancy of each layer of a batch
            (`adaptation.discrepancies.Measure`).
        log: its name in metrics.jsonl.
        title: its name for people.
        kernels: whether it has bandwidths and kernel weights.
        idle: options of `adapt` that mean nothing for it.
        joint: whether it measures all layers as one.
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
"""The discrepancies by the values of --discrepancy."""

TITLES = {entry.log: entry.title for entry in DISCREPANCIES.values()}
"""Their names for people, by those in the log."""
