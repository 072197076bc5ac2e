"""What the evaluations of a workspace found of a model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from facedan_cli.json_files import read_object


@dataclass(frozen=True)
class Rate:
    """A rate that was measured.

    Args:
        protocol: with the partition where there are several, and the data sets.
        features: the layer, and whether the mirror image was added.
        measure: what it is, and at what.
        value: as a share, from 0 to 1.
        interval: of 95 %; None where there is none.
        trials: on how many comparisons or probes.
        evaluation: the number of its evaluation, from 1.
    """

    protocol: str
    features: str
    measure: str
    value: float
    interval: tuple[float, float] | None
    trials: str
    evaluation: int


@dataclass(frozen=True)
class Measured:
    """The evaluations of a model.

    Args:
        rates: all of them.
        warnings: of each evaluation, by its number.
        damaged: results that cannot be read.
    """

    rates: tuple[Rate, ...]
    warnings: Mapping[int, tuple[str, ...]]
    damaged: tuple[Path, ...]


def measured_of(results: Path, sha256: str, last_layer: str) -> Measured:
    """The rates of a model in the summaries of a workspace.

    Args:
        results: the directory of the workspace's results.
        sha256: of the model's checkpoint.
        last_layer: gives the features where an evaluation names no layer.
    """
    rates: list[Rate] = []
    warnings: dict[int, tuple[str, ...]] = {}
    damaged = []
    for path in sorted(results.glob("*/summary.json")):
        try:
            summary = read_object(path)
            found = list(_rates(summary, sha256, last_layer, len(warnings) + 1))
            said = tuple(str(warning) for warning in summary.get("warnings", ()))
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            damaged.append(path)
            continue
        if found:
            warnings[len(warnings) + 1] = said
            rates += found
    return Measured(tuple(rates), warnings, tuple(damaged))


def _rates(summary: Mapping[str, Any], sha256: str, last_layer: str, number: int) -> Iterator[Rate]:
    """The rates of the model in a summary, as `evaluate` writes it."""
    made = summary["provenance"]
    named = {name for name, digest in made.get("models", {}).items() if digest == sha256}
    features = (made.get("layer") or last_layer) + (" + mirror image" if made.get("flip") else "")
    sets = " and ".join(made.get("images", {}))
    for model in summary["models"]:
        for name, part in model["partitions"].items() if model["name"] in named else ():
            protocol = f"{summary['protocol']} on {sets}" + ("" if name == "all" else f", {name}")
            trials = (
                f"{part['genuine']:,} genuine, {part['impostor']:,} impostor"
                if "genuine" in part
                else f"{part['probes']:,} probes"
            )
            for measure, value, interval in _of_partition(part):
                ends = (float(interval[0]), float(interval[1])) if interval else None
                yield Rate(protocol, features, measure, float(value), ends, trials, number)


def _of_partition(part: Mapping[str, Any]) -> Iterator[tuple[str, float, Any]]:
    """Each rate of a partition's entry: the measure, the value and its interval."""
    intervals = part.get("interval") or {}
    for far, value in part.get("vr", {}).items():
        yield f"verification rate at FAR {far}", value, intervals.get(far)
    if "eer" in part:
        yield "equal error rate", part["eer"]["mid"], None
    if "accuracy" in part:
        yield "accuracy", part["accuracy"]["mean"], None
    if "rank1" in part:
        yield "rank-1 identification rate", part["rank1"], part["interval"]
    for fpir, point in part.get("open_set", {}).items():
        yield f"detection and identification rate at FPIR {fpir}", point["dir"], None
