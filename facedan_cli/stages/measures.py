"""What an evaluation finds: scores turned into figures, and the figures written as tables, curves and pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from facedan_cli.config import EvaluateConfig
from facedan_cli.errors import FacedanError
from facedan_cli.metrics.bootstrap import rank1_interval, vr_interval
from facedan_cli.metrics.identification import cmc, rank_1, ranks
from facedan_cli.metrics.plots import plot_cmc, plot_roc
from facedan_cli.metrics.roc import Curve, OperatingPoint, equal_error_rate, roc_curve, verification_rate
from facedan_cli.workspace import write_csv, write_json

CONVENTION = "max-tar"
"""VR is the largest true-accept rate of any threshold with at most floor(FAR × impostors) false accepts."""

MAX_RANK = 50


@dataclass(frozen=True)
class Comparisons:
    """Scores, and who was compared with whom.

    Args:
        genuine: scores of genuine comparisons, shape (g,).
        genuine_subject: the subject of each, shape (g,).
        impostor: scores of impostor comparisons, shape (n,).
        impostor_subjects: the two subjects of each, both of shape (n,).
    """

    genuine: np.ndarray
    genuine_subject: np.ndarray
    impostor: np.ndarray
    impostor_subjects: tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Verification:
    """One model on one set of comparisons."""

    points: Mapping[str, OperatingPoint]
    intervals: Mapping[str, tuple[float, float]]
    eer: tuple[float, float]
    curve: Curve
    missing: int

    def summary(self) -> dict[str, Any]:
        """The partition's entry in summary.json."""
        points = self.points
        return {
            "vr": {far: point.vr for far, point in points.items()},
            "interval": {far: list(bounds) for far, bounds in self.intervals.items()},
            "achieved_far": {far: point.achieved_far for far, point in points.items()},
            # JSON has no infinity: null where the budget covers every impostor.
            "threshold": {
                far: point.threshold if np.isfinite(point.threshold) else None for far, point in points.items()
            },
            "false_accepts": {far: point.false_accepts for far, point in points.items()},
            "budget": {far: point.budget for far, point in points.items()},
            "eer": list(self.eer),
            "genuine": self.curve.genuine,
            "impostor": self.curve.impostor,
            "missing": self.missing,
        }


@dataclass(frozen=True)
class Identification:
    """One model on one set of probes."""

    rank1: float
    interval: tuple[float, float] | None
    curve: np.ndarray
    probes: int
    gallery: int
    without_mate: int
    missing: int

    def summary(self) -> dict[str, Any]:
        """The probe set's entry in summary.json."""
        return {
            "rank1": self.rank1,
            "interval": None if self.interval is None else list(self.interval),
            "cmc": [float(rate) for rate in self.curve],
            "probes": self.probes,
            "gallery": self.gallery,
            "without_mate": self.without_mate,
            "missing": self.missing,
        }


@dataclass(frozen=True)
class Measured:
    """What a model reached, by partition."""

    name: str
    run: str
    checkpoint: Path
    partitions: Mapping[str, Verification | Identification]


@dataclass(frozen=True)
class EvaluateResult:
    """A finished evaluation.

    Args:
        protocol: "gbu", "pairs" or "identify".
        directory: holds summary.json, the curves as CSV and their picture.
        models: one entry a model, in the order given.
        set_aside: the list of images that the protocol names and that could not be used, if there are any.
    """

    protocol: str
    directory: Path
    models: Sequence[Measured]
    set_aside: Path | None

    @property
    def plot(self) -> Path:
        """The picture of the curves."""
        return self.directory / ("cmc.png" if self.protocol == "identify" else "roc.png")

    def summary(self) -> dict[str, Any]:
        """What `evaluate --json` prints and summary.json holds."""
        return {
            "schema": 1,
            "protocol": self.protocol,
            "convention": CONVENTION,
            "models": [
                {
                    "name": model.name,
                    "run": model.run,
                    "checkpoint": str(model.checkpoint),
                    "partitions": {name: partition.summary() for name, partition in model.partitions.items()},
                }
                for model in self.models
            ],
            "results": str(self.directory),
            "plot": str(self.plot),
        }


def verification(compared: Comparisons, missing: int, config: EvaluateConfig, what: str) -> Verification:
    """Verification rates, their intervals, the equal error rate and the ROC of a set of scores.

    Raises:
        FacedanError: there is no genuine or no impostor comparison.
    """
    for kind, scores in (("genuine", compared.genuine), ("impostor", compared.impostor)):
        if not scores.size:
            raise FacedanError(
                f"{what} has no {kind} comparisons among the images that are there",
                "check that the images are those of the protocol",
            )
    intervals = {}
    if config.replicates:
        intervals = vr_interval(
            compared.genuine,
            compared.genuine_subject,
            compared.impostor,
            *compared.impostor_subjects,
            fars=config.far,
            replicates=config.replicates,
            seed=config.seed,
        )
    eer = equal_error_rate(compared.genuine, compared.impostor)
    return Verification(
        {far: verification_rate(compared.genuine, compared.impostor, far) for far in config.far},
        intervals,
        (eer.low, eer.high),
        roc_curve(compared.genuine, compared.impostor),
        missing,
    )


def identification(
    scores: np.ndarray, probes: np.ndarray, gallery: np.ndarray, missing: int, config: EvaluateConfig
) -> Identification:
    """Rank-1 rate, its interval and the CMC of probes searched in a gallery.

    Args:
        scores: similarities, shape (p, g).
        probes: subjects of the probes, shape (p,).
        gallery: subjects of the gallery, shape (g,).
        missing: images that could not be used.
        config: replicates and seed.

    Raises:
        FacedanError: no probe's subject is in the gallery.
    """
    found = ranks(scores, probes, gallery)
    mated = found > 0
    if not mated.any():
        raise FacedanError(
            "no probe has a mate in the gallery",
            "both need folders (or list entries) that name people, by the same names",
        )
    interval = None
    if config.replicates:
        correct = found[mated] == 1
        interval = rank1_interval(correct, probes[mated], replicates=config.replicates, seed=config.seed)
    return Identification(
        rank1=rank_1(found[mated]),
        interval=interval,
        curve=cmc(found[mated], min(MAX_RANK, len(gallery))),
        probes=int(mated.sum()),
        gallery=len(gallery),
        without_mate=int((~mated).sum()),
        missing=missing,
    )


def write_results(result: EvaluateResult, config: EvaluateConfig) -> None:
    """Write curves and picture, and last summary.json."""
    rocs: dict[str, dict[str, Curve]] = {}
    cmcs: dict[str, dict[str, np.ndarray]] = {}
    for model in result.models:
        for name, partition in model.partitions.items():
            if isinstance(partition, Verification):
                rocs.setdefault(name, {})[model.name] = partition.curve
            else:
                cmcs.setdefault(name, {})[model.name] = partition.curve
    if rocs:
        plot_roc(rocs, result.plot, fars=config.far)
        points = [
            (model, name, *point)
            for name, panel in rocs.items()
            for model, curve in panel.items()
            for point in zip(curve.far, curve.vr, curve.threshold, strict=True)
        ]
        write_csv(result.directory / "roc.csv", ("model", "partition", "far", "vr", "threshold"), points)
    if cmcs:
        plot_cmc(cmcs, result.plot)
        rates = [
            (model, name, rank, rate)
            for name, panel in cmcs.items()
            for model, curve in panel.items()
            for rank, rate in enumerate(curve, start=1)
        ]
        write_csv(result.directory / "cmc.csv", ("model", "partition", "rank", "rate"), rates)
    write_json(result.directory / "summary.json", result.summary())
