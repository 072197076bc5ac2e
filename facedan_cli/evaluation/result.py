"""The results of an evaluation and their files: JSON, CSV and figures of the curves."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from facedan_cli.config.common import EvaluateConfig
from facedan_cli.evaluation.differences import Difference, Measurement
from facedan_cli.evaluation.identification import Identification
from facedan_cli.evaluation.verification import LEVEL, Verification
from facedan_cli.figures.rates import plot_cmc, plot_det, plot_roc, plot_scores
from facedan_cli.workspace import make_directory, write_csv, write_json

SCHEMA = 2
"""Version of summary.json; docs/evaluation.md describes it."""

CSV_HEADER = ("model", "partition", "measure", "at", "value", "low", "high", "value_with_failures", "trials")


@dataclass(frozen=True)
class ModelResult:
    """The results of a model by partition.

    Args:
        name: name in the tables.
        run: name of its run; None for scores of other systems and fused scores.
        checkpoint: its file; None likewise.
        partitions: rates by partition.
        mean: plain mean of the partitions' rank-1 rates, if the protocol has one.
        mean_with_failures: plain mean of the rates that count failed probes as not found.
    """

    name: str
    run: str | None
    checkpoint: Path | None
    partitions: Mapping[str, Measurement]
    mean: float | None = None
    mean_with_failures: float | None = None

    def summary(self) -> dict[str, Any]:
        """The model's entry in summary.json."""
        entry = {
            "name": self.name,
            "run": self.run,
            "checkpoint": None if self.checkpoint is None else str(self.checkpoint),
            "partitions": {name: partition.summary() for name, partition in self.partitions.items()},
        }
        if self.mean is None:
            return entry
        return entry | {"mean_rank1": self.mean, "mean_rank1_with_failures": self.mean_with_failures}


@dataclass(frozen=True)
class EvaluateResult:
    """A finished evaluation.

    Args:
        protocol: name of the row in `config.protocols`.
        directory: holds summary.json, figures.csv, the curves as CSV and as figures, and report.html.
        models: one entry a model, in the order given; the fused one, if there is one, is last.
        differences: differences between every two models.
        config: settings of the measurement.
        warnings: warnings about the rates.
        provenance: command line, versions and inputs.
        set_aside: list of images of the protocol that could not be used; None if there are none.
    """

    protocol: str
    directory: Path
    models: Sequence[ModelResult]
    differences: Sequence[Difference]
    config: EvaluateConfig
    warnings: Sequence[str]
    provenance: Mapping[str, Any]
    set_aside: Path | None = None

    @property
    def verifies(self) -> bool:
        """Whether the protocol is verification; else it is identification."""
        return isinstance(next(iter(self.models[0].partitions.values())), Verification)

    @property
    def plot(self) -> Path:
        """The figure of the curves: ROC for verification, CMC for identification."""
        return self.directory / f"{'roc' if self.verifies else 'cmc'}.{self.config.plot}"

    @property
    def page(self) -> Path:
        """The page with all results."""
        return self.directory / "report.html"

    def summary(self) -> dict[str, Any]:
        """The object that `evaluate --json` prints and summary.json holds."""
        config = self.config
        return {
            "schema": SCHEMA,
            "protocol": self.protocol,
            "convention": config.convention,
            "intervals": {
                "method": config.ci,
                "level": LEVEL,
                "replicates": config.replicates if config.ci == "bootstrap" else None,
                "seed": config.seed if config.ci == "bootstrap" else None,
            },
            "models": [model.summary() for model in self.models],
            "differences": [difference.summary() for difference in self.differences],
            "warnings": list(self.warnings),
            "results": str(self.directory),
            "plot": str(self.plot),
            "report": str(self.page),
            "set_aside": None if self.set_aside is None else str(self.set_aside),
            "provenance": dict(self.provenance),
        }

    def rows(self) -> Iterator[tuple[object, ...]]:
        """The rows of figures.csv, which `evaluate --csv` prints; their columns are CSV_HEADER."""
        for model in self.models:
            for name, measured in model.partitions.items():
                verifies = isinstance(measured, Verification)
                trials = measured.curve.genuine if isinstance(measured, Verification) else len(measured.correct)
                for at, value in measured.rates.values.items():
                    bounds = measured.rates.intervals.get(at, ("", ""))
                    failed = measured.with_failures.values[at]
                    yield model.name, name, "vr" if verifies else "rank", at, value, *bounds, failed, trials
                for measure, at, value, ends, failed in _further(measured):
                    yield model.name, name, measure, at, value, *ends, failed, trials
            if model.mean is not None:
                yield model.name, "mean", "rank", "1", model.mean, "", "", model.mean_with_failures, ""


def _further(measured: Measurement) -> Iterator[tuple[str, str, float, tuple[object, object], float]]:
    """Yield further rates of a partition: measure, operating point, value, bounds, and value with failures."""
    if isinstance(measured, Verification):
        yield "eer", "", measured.eer.mid, measured.eer[:2], measured.eer_with_failures.mid
        if measured.accuracy is not None and measured.accuracy_with_failures is not None:
            yield "accuracy", "", measured.accuracy["mean"], ("", ""), measured.accuracy_with_failures["mean"]
    else:
        for fpir, point in measured.open_set.items():
            yield "dir", fpir, point.dir, ("", ""), measured.open_set_with_failures[fpir]


def write_results(result: EvaluateResult) -> None:
    """Write the curves, the rates, the differences and, at last, summary.json."""
    make_directory(result.directory)
    write_curves(result)
    write_csv(result.directory / "figures.csv", CSV_HEADER, result.rows())
    if result.differences:
        rows = [difference.summary() for difference in result.differences]
        header = ("partition", "a", "b", "measure", "at", "difference", "low", "high", "distinguishable")
        write_csv(
            result.directory / "differences.csv",
            header,
            [[*list(row.values())[:6], *(row["interval"] or ("", "")), row["distinguishable"]] for row in rows],
        )
    write_json(result.directory / "summary.json", result.summary())


def panels(result: EvaluateResult, kind: type[Any]) -> dict[str, dict[str, Any]]:
    """The rates of one kind by partition and model."""
    found: dict[str, dict[str, Any]] = {}
    for model in result.models:
        for name, measured in model.partitions.items():
            if isinstance(measured, kind):
                found.setdefault(name, {})[model.name] = measured
    return found


def write_curves(result: EvaluateResult) -> None:
    """Write roc.csv or cmc.csv."""
    if result.verifies:
        points = [
            (model, name, *point)
            for name, panel in panels(result, Verification).items()
            for model, measured in panel.items()
            for point in zip(measured.curve.far, measured.curve.vr, measured.curve.threshold, strict=True)
        ]
        write_csv(result.directory / "roc.csv", ("model", "partition", "far", "vr", "threshold"), points)
    else:
        rates = [
            (model, name, rank, *both)
            for name, panel in panels(result, Identification).items()
            for model, measured in panel.items()
            for rank, both in enumerate(zip(measured.curve, measured.curve_with_failures, strict=True), start=1)
        ]
        header = ("model", "partition", "rank", "rate", "rate_with_failures")
        write_csv(result.directory / "cmc.csv", header, rates)


def draw(result: EvaluateResult) -> dict[str, str]:
    """Draw the curves, as files in the format of --plot and as SVG for the page.

    Returns:
        The SVG of each figure, by its name: "roc", "det" and "scores" (not of streamed ones), or "cmc".
    """
    scratch = result.directory / ".page"  # not the system's directory, which may be full
    drawn: dict[str, Path] = {}

    def paths(name: str) -> list[Path]:
        shown = result.directory / f"{name}.{result.config.plot}"
        drawn[name] = shown if shown.suffix == ".svg" else scratch / f"{name}.svg"
        return list(dict.fromkeys([shown, drawn[name]]))

    shutil.rmtree(scratch, ignore_errors=True)
    try:
        if result.verifies:
            verified = panels(result, Verification)
            curves = {name: _each(panel, "curve") for name, panel in verified.items()}
            plot_roc(curves, *paths("roc"), fars=result.config.far)
            plot_det(curves, *paths("det"), fars=result.config.far)
            scores = {name: _each(panel, "scores") for name, panel in verified.items()}
            if all(value is not None for panel in scores.values() for value in panel.values()):
                plot_scores(scores, *paths("scores"))
        else:
            searched = panels(result, Identification)
            plot_cmc({name: _each(panel, "curve") for name, panel in searched.items()}, *paths("cmc"))
        return {name: svg.read_text(encoding="utf-8") for name, svg in drawn.items()}
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _each(panel: Mapping[str, Any], attribute: str) -> dict[str, Any]:
    return {model: getattr(measured, attribute) for model, measured in panel.items()}
