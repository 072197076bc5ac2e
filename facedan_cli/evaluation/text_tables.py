"""Text tables of an evaluation's rates, for the terminal and the page."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from facedan_cli.evaluation.differences import Measurement
from facedan_cli.evaluation.result import EvaluateResult, ModelResult
from facedan_cli.evaluation.verification import Rates, Verification
from facedan_cli.figures.page import Table
from facedan_cli.metrics.intervals import Interval

UNRESOLVED, DIFFERENT = "*", "†"


def main_table(result: EvaluateResult) -> Table:
    """The main table, a row for each model, in per cent, with 95 % intervals if requested."""
    differing = {
        (found.partition, found.b, found.at)
        for found in result.differences
        if found.a == result.models[0].name and found.distinguishable
    }
    header: list[str] = ["model"]
    rows = [[model.name] for model in result.models]
    first = result.models[0].partitions
    for at in next(iter(first.values())).rates.values:
        for partition in first:
            header.append(_column(result, partition, at))
            for row, model in zip(rows, result.models, strict=True):
                measured = model.partitions[partition]
                marks = UNRESOLVED * _unresolved(measured, at) + DIFFERENT * ((partition, model.name, at) in differing)
                row.append(_cell(measured.rates, at, marks))
    for row, model in zip(rows, result.models, strict=True):
        row.extend(_more(model).values())
    header += _more(result.models[0])
    notes = []
    if result.config.fuse:
        notes.append(
            "fusion: scores z-normalised over all comparisons of a partition, on which they depend, and summed"
        )
    if any(UNRESOLVED in cell for row in rows for cell in row[1:]):
        notes.append(
            f"{UNRESOLVED} too few impostors for this FAR: not one false accept is allowed"
            if result.verifies
            else f"{UNRESOLVED} too few probes without a mate for this FPIR: not one false positive is allowed"
        )
    if differing:
        by_interval = any(found.interval is not None for found in result.differences)
        why = "the 95 % interval of the paired difference leaves out 0" if by_interval else "McNemar's p is below 0.05"
        notes.append(f"{DIFFERENT} differs from '{result.models[0].name}': {why}")
    return Table("Verification rate" if result.verifies else "Identification rate", header, rows, notes)


def failures_table(result: EvaluateResult) -> Table | None:
    """The table of the rates that count failed comparisons as errors; None if none failed."""
    partitions = result.models[0].partitions
    if not any(_failed(measured) for measured in partitions.values()):
        return None
    header = ["model"]
    rows = [[model.name] for model in result.models]
    for at in next(iter(partitions.values())).rates.values:
        for partition, measured in partitions.items():
            header.append(f"{_column(result, partition, at)} ({measured.failed[0]} failed)")
            for row, model in zip(rows, result.models, strict=True):
                row.append(_cell(model.partitions[partition].with_failures, at))
    for row, model in zip(rows, result.models, strict=True):
        row.extend(_more(model, with_failures=True).values())
    return Table("With failures counted as errors", [*header, *_more(result.models[0], with_failures=True)], rows)


def _failed(measured: Measurement) -> bool:
    """Whether comparisons failed; failed impostor comparisons matter for the accuracy only."""
    return any(measured.failed[:2]) if isinstance(measured, Verification) else measured.failed[0] > 0


def points_table(result: EvaluateResult) -> Table:
    """The table of thresholds, achieved rates and counts."""
    rows = []
    for model in result.models:
        for name, measured in model.partitions.items():
            if isinstance(measured, Verification):
                rows += [
                    [
                        model.name,
                        name,
                        far,
                        f"{point.achieved_far:.3g}",
                        f"{point.threshold:.6g}",
                        f"{point.false_accepts:,} (budget {point.budget:,})",
                        _eer(measured),
                        f"{point.genuine:,}",
                        f"{point.impostor:,}",
                    ]
                    for far, point in measured.points.items()
                ]
            else:
                mated, images = len(measured.correct), measured.gallery
                rows.append([model.name, name, "", "", "", "", "", f"{mated:,}", f"{images:,}"])
    if result.verifies:
        header = ["model", "partition", "FAR", "achieved", "threshold", "false accepts", "EER", "genuine", "impostor"]
        return Table("Operating points", header, rows)
    kept = [[*row[:2], *row[-2:]] for row in rows]
    return Table("Probes", ["model", "probe set", "mated probes", "gallery"], kept)


def differences_table(result: EvaluateResult) -> Table | None:
    """The table of paired differences between every two models; None for one model or unpaired scores."""
    if not result.differences:
        return None
    header = ["models", "partition", "at", "difference", "95 % interval", "distinguishable"]
    searches = not result.verifies
    rows = []
    for found in result.differences:
        interval = "" if found.interval is None else _points(found.interval)
        known = {True: "yes", False: "no", None: ""}[found.distinguishable]
        at = "rank 1" if found.measure == "rank1" else f"FAR {found.at}"
        row = [f"{found.b} − {found.a}", found.partition, at, f"{100 * found.value:+.2f}", interval, known]
        if found.mcnemar is not None:
            row.append(f"{found.mcnemar.only_b} : {found.mcnemar.only_a}, p = {found.mcnemar.p:.3g}")
        rows.append(row)
    return Table("Differences", [*header, "McNemar (only one : only the other)"] if searches else header, rows)


def _column(result: EvaluateResult, partition: str, at: str) -> str:
    rate = f"FAR {at}" if result.verifies else "rank 1"
    if partition != "all":
        return f"{partition} @ {rate}" if result.verifies else f"{partition} {rate}"
    return f"VR @ {rate}" if result.verifies else rate


def _unresolved(measured: Measurement, at: str) -> bool:
    return isinstance(measured, Verification) and not measured.points[at].resolved


def _more(model: ModelResult, *, with_failures: bool = False) -> Mapping[str, str]:
    """Further rates of a model: mean rank-1 rate, accuracy, EER, open-set rates; failed comparisons may be errors."""
    average = model.mean_with_failures if with_failures else model.mean
    cells = {} if average is None else {"mean": f"{100 * average:.2f}"}
    for name, measured in model.partitions.items():
        of = "" if name == "all" else f"{name} "
        if isinstance(measured, Verification):
            if not of:  # beside several partitions' rates it would make the rows too long
                cells["EER"] = f"{100 * (measured.eer_with_failures if with_failures else measured.eer).mid:.2f}"
            accuracy = measured.accuracy_with_failures if with_failures else measured.accuracy
            if accuracy is not None:
                cells[f"{of}accuracy"] = f"{100 * accuracy['mean']:.2f} ± {100 * accuracy['standard_error']:.2f}"
        else:
            for fpir, point in measured.open_set.items():
                rate = measured.open_set_with_failures[fpir] if with_failures else point.dir
                mark = "" if with_failures or point.resolved else UNRESOLVED
                cells[f"{of}DIR @ FPIR {fpir}"] = f"{100 * rate:.2f}{mark}"
    return cells


def _cell(rates: Rates, at: str, marks: str = "") -> str:
    value = f"{100 * rates.values[at]:.2f}{marks}"
    if at not in rates.intervals:
        return value
    low, high = 100 * np.array(rates.intervals[at])
    return f"{value} [{low:.1f}, {high:.1f}]"


def _eer(measured: Verification) -> str:
    low, high = (100 * bound for bound in measured.eer[:2])
    return f"{low:.2f}" if low == high else f"{low:.2f} to {high:.2f}"


def _points(interval: Interval) -> str:
    return f"[{100 * interval[0]:+.2f}, {100 * interval[1]:+.2f}]"
