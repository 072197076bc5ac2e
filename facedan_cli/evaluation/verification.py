"""Verification rates from scores, with and without failures to acquire."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from facedan_cli.config.common import EvaluateConfig
from facedan_cli.errors import FacedanError
from facedan_cli.evaluation.failures import Failures
from facedan_cli.evaluation.trials import NOTHING_LEFT_OUT, Comparisons, LeftOut, Trials
from facedan_cli.metrics.accuracy import fold_accuracy, with_failed_pairs
from facedan_cli.metrics.bootstrap import vr_replicates
from facedan_cli.metrics.intervals import Interval, rate_interval, wilson
from facedan_cli.metrics.radix import Streamed
from facedan_cli.metrics.roc import (
    Curve,
    EqualErrorRate,
    OperatingPoint,
    equal_error_rate,
    roc_curve,
    verification_rate,
)

LEVEL = 0.95
OURS = EvaluateConfig.convention
"""The convention of the bootstrap."""


@dataclass(frozen=True)
class Rates:
    """Rates by operating point (a FAR; "1" for rank 1), with their intervals.

    Args:
        values: the rates.
        intervals: their 95 % intervals; may be empty.
        replicates: bootstrap replicates of each rate, shape (replicates,); replicate i has the same subjects for all
            models; empty without bootstrap.
        subjects: number of subjects whose comparisons or probes are counted; 0 without bootstrap.
    """

    values: Mapping[str, float]
    intervals: Mapping[str, Interval]
    replicates: Mapping[str, np.ndarray] = field(default_factory=dict)
    subjects: int = 0

    def interval(self, at: str) -> list[float] | None:
        """The bounds of an interval, for JSON."""
        return list(self.intervals[at]) if at in self.intervals else None


@dataclass(frozen=True)
class Verification:
    """The verification rates of one model on one set of comparisons.

    Args:
        points: the operating point at each FAR.
        rates: verification rates of the comparisons that could be made.
        with_failures: verification rates that count failed genuine comparisons as false rejects.
        eer: the equal error rate.
        curve: the ROC curve.
        scores: genuine and impostor scores; None if they were streamed.
        failed: numbers of failed genuine and impostor comparisons, and of missing images.
        eer_with_failures: equal error rate that rejects failed genuine comparisons at every threshold.
        accuracy: mean and standard error over the folds, and the thresholds; None without folds.
        accuracy_with_failures: mean, standard error and folds that count failed pairs as errors.
        left_out: comparisons of an image with itself, which were not made.
    """

    points: Mapping[str, OperatingPoint]
    rates: Rates
    with_failures: Rates
    eer: EqualErrorRate
    curve: Curve
    scores: tuple[np.ndarray, np.ndarray] | None
    failed: tuple[int, int, int]
    eer_with_failures: EqualErrorRate
    accuracy: Mapping[str, Any] | None = None
    accuracy_with_failures: Mapping[str, Any] | None = None
    left_out: LeftOut = NOTHING_LEFT_OUT

    def summary(self) -> dict[str, Any]:
        """The partition's entry in summary.json."""
        points = self.points
        genuine, impostor, images = self.failed
        entry: dict[str, Any] = {
            "vr": dict(self.rates.values),
            "interval": {far: self.rates.interval(far) for far in self.rates.intervals},
            "achieved_far": {far: point.achieved_far for far, point in points.items()},
            # JSON has no infinity: null where the budget covers every impostor.
            "threshold": {
                far: point.threshold if np.isfinite(point.threshold) else None for far, point in points.items()
            },
            "false_accepts": {far: point.false_accepts for far, point in points.items()},
            "budget": {far: point.budget for far, point in points.items()},
            "resolved": {far: point.resolved for far, point in points.items()},
            "eer": self.eer._asdict(),
            "genuine": self.curve.genuine,
            "impostor": self.curve.impostor,
            "failures": {
                "images": images,
                "genuine": genuine,
                "impostor": impostor,
                "vr": dict(self.with_failures.values),
                "interval": {far: self.with_failures.interval(far) for far in self.with_failures.intervals},
                "eer": self.eer_with_failures._asdict(),
            },
            "left_out": left_out_entry(self.left_out),
        }
        if self.accuracy is not None and self.accuracy_with_failures is not None:
            entry["accuracy"] = dict(self.accuracy)
            entry["failures"]["accuracy"] = dict(self.accuracy_with_failures)
        return entry


def left_out_entry(left_out: LeftOut) -> dict[str, int]:
    """The entry of summary.json about comparisons of an image with itself."""
    return {"images": left_out.images, "genuine": left_out.genuine, "impostor": left_out.impostor}


def verification(compared: Comparisons, config: EvaluateConfig, what: str) -> Verification:
    """Verification rates with intervals, equal error rate and ROC of a set of scores.

    Raises:
        FacedanError: there is no genuine or no impostor comparison, or a score is NaN.
    """
    for kind, scores in (("genuine", compared.genuine), ("impostor", compared.impostor)):
        if not scores.size:
            raise FacedanError(
                f"{what} has no {kind} comparisons among the images that are there",
                "check that the images are those of the protocol",
            )
        if np.isnan(scores).any():
            raise FacedanError(f"{what} has {kind} scores that are no numbers (NaN)", "look at what made the features")
    failed = len(compared.failures.genuine)
    eer, eer_failed = (equal_error_rate(compared.genuine, compared.impostor, failed=count) for count in (0, failed))
    points = {
        far: verification_rate(compared.genuine, compared.impostor, far, convention=config.convention)
        for far in config.far
    }
    rates = _rates({far: point.vr for far, point in points.items()}, points, compared, config)
    with_failures = _rates_with_failures(points, compared, config)
    return Verification(
        points=points,
        rates=rates,
        with_failures=with_failures or rates,
        eer=eer,
        curve=roc_curve(compared.genuine, compared.impostor),
        scores=(compared.genuine, compared.impostor),
        failed=(failed, compared.failures.impostor, compared.failures.images),
        eer_with_failures=eer_failed,
        left_out=compared.left_out,
    )


def streamed_verification(
    found: Streamed, failures: Failures, left_out: LeftOut, config: EvaluateConfig
) -> Verification:
    """The rates of streamed comparisons, with Wilson's intervals or none."""
    rates, with_failures = wilson_rates(found.points), wilson_rates(found.points, len(failures.genuine))
    if config.ci == "none":
        rates, with_failures = Rates(rates.values, {}), Rates(with_failures.values, {})
    return Verification(
        points=found.points,
        rates=rates,
        with_failures=with_failures,
        eer=found.eer,
        curve=found.curve,
        scores=None,
        failed=(len(failures.genuine), failures.impostor, failures.images),
        eer_with_failures=found.eer_with_failures,
        left_out=left_out,
    )


def wilson_rates(points: Mapping[str, OperatingPoint], failed: int = 0) -> Rates:
    """Verification rates with binomial intervals, and with `failed` false rejects beside the scores."""
    values = {far: point.vr * point.genuine / (point.genuine + failed) for far, point in points.items()}
    intervals = {
        far: wilson(round(point.vr * point.genuine), point.genuine + failed, LEVEL) for far, point in points.items()
    }
    return Rates(values, intervals)


def _rates(
    values: Mapping[str, float], points: Mapping[str, OperatingPoint], compared: Comparisons, config: EvaluateConfig
) -> Rates:
    if config.ci == "wilson":
        return Rates(values, wilson_rates(points).intervals)
    # Other tools' rules may differ so much that a replicate by ours would not be an interval of their rate.
    if config.ci == "none" or config.convention != OURS or compared.genuine_subject is None:
        return Rates(values, {})
    assert compared.impostor_subjects is not None
    drawn = vr_replicates(
        compared.genuine,
        compared.genuine_subject,
        compared.impostor,
        *compared.impostor_subjects,
        fars=config.far,
        replicates=config.replicates,
        seed=config.seed,
    )
    replicates = dict(zip(config.far, drawn, strict=True))
    return bootstrapped(values, replicates, compared.genuine_subject)


def bootstrapped(values: Mapping[str, float], replicates: Mapping[str, np.ndarray], subjects: np.ndarray) -> Rates:
    """Rates with the intervals of their replicates; `subjects` belong to the comparisons or probes, shape (n,)."""
    count = len(np.unique(subjects))
    intervals = {
        at: rate_interval(values[at], row, subjects=count, trials=len(subjects), level=LEVEL)
        for at, row in replicates.items()
    }
    return Rates(values, intervals, replicates, count)


def _rates_with_failures(
    points: Mapping[str, OperatingPoint], compared: Comparisons, config: EvaluateConfig
) -> Rates | None:
    """The rates that count failed genuine comparisons as false rejects; None if none failed.

    The threshold stays that of the comparisons that were made, since a failed comparison cannot be a false accept.
    """
    failed = len(compared.failed_subject)
    if not failed:
        return None
    values = wilson_rates(points, failed).values
    if config.ci == "wilson":
        return wilson_rates(points, failed)
    rejected = Comparisons(
        genuine=np.concatenate([compared.genuine, np.full(failed, -np.inf, compared.genuine.dtype)]),
        impostor=compared.impostor,
        genuine_subject=None
        if compared.genuine_subject is None
        else np.concatenate([compared.genuine_subject, compared.failed_subject]),
        impostor_subjects=compared.impostor_subjects,
    )
    return _rates(values, points, rejected, config)


def accuracy(trials: Trials, scores: np.ndarray) -> tuple[dict[str, Any], dict[str, Any]]:
    """The accuracy of LFW's View 2, with the best threshold of the other folds for each fold.

    Returns:
        The accuracy of the pairs that could be compared, and the accuracy that counts the others as errors.

    Raises:
        FacedanError: all pairs that are there are of one fold.
    """
    assert trials.fold is not None
    if len(np.unique(trials.fold)) < 2:
        raise FacedanError(
            "the pairs that are there are all of one fold", "check that the images are those of the list"
        )
    found = fold_accuracy(scores, trials.genuine, trials.fold)
    failed = with_failed_pairs(found, trials.fold, trials.failures.fold)
    plain, counted = (
        {"mean": one.mean, "standard_error": one.standard_error, "folds": [float(value) for value in one.folds]}
        for one in (found, failed)
    )
    return plain | {"thresholds": [float(value) if np.isfinite(value) else None for value in found.thresholds]}, counted
