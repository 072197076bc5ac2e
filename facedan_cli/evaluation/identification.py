"""Identification rates from scores, with and without failures to acquire."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from facedan_cli.config.common import EvaluateConfig
from facedan_cli.errors import FacedanError
from facedan_cli.evaluation.trials import NOTHING_LEFT_OUT, LeftOut, Trials
from facedan_cli.evaluation.verification import LEVEL, Rates, bootstrapped, left_out_entry
from facedan_cli.metrics.bootstrap import rank1_replicates
from facedan_cli.metrics.identification import OpenSetPoint, cmc, open_set, rank_1, ranks
from facedan_cli.metrics.intervals import wilson

MAX_RANK = 50


@dataclass(frozen=True)
class Identification:
    """The identification rates of one model on one set of probes.

    Args:
        rates: the rank-1 rate, under "1", of the mated probes that could be searched.
        with_failures: the rank-1 rate that counts failed mated probes as not found.
        correct: whether each mated probe is found at rank 1, shape (p,).
        curve: the CMC, from rank 1.
        open_set: rates of detection and identification at each FPIR; empty if every probe has a mate.
        gallery: number of images in the gallery.
        without_mate: number of probes whose subject is not in the gallery.
        failed: numbers of failed mated probes and of missing images.
        left_out: searches in which an image would have found itself.
    """

    rates: Rates
    with_failures: Rates
    correct: np.ndarray
    curve: np.ndarray
    open_set: Mapping[str, OpenSetPoint]
    gallery: int
    without_mate: int
    failed: tuple[int, int]
    left_out: LeftOut = NOTHING_LEFT_OUT

    @property
    def _searched(self) -> float:
        """The share of mated probes that could be searched."""
        return len(self.correct) / (len(self.correct) + self.failed[0])

    @property
    def curve_with_failures(self) -> np.ndarray:
        """The CMC that counts failed mated probes as found at no rank."""
        return self.curve * self._searched

    @property
    def open_set_with_failures(self) -> Mapping[str, float]:
        """The detection and identification rates that count failed mated probes as not found."""
        return {fpir: point.dir * self._searched for fpir, point in self.open_set.items()}

    def summary(self) -> dict[str, Any]:
        """The probe set's entry in summary.json."""
        return {
            "rank1": self.rates.values["1"],
            "interval": self.rates.interval("1"),
            "correct": int(self.correct.sum()),
            "cmc": [float(rate) for rate in self.curve],
            "open_set": {fpir: _open_set_entry(point) for fpir, point in self.open_set.items()},
            "probes": len(self.correct),
            "gallery": self.gallery,
            "without_mate": self.without_mate,
            "failures": {
                "images": self.failed[1],
                "probes": self.failed[0],
                "rank1": self.with_failures.values["1"],
                "interval": self.with_failures.interval("1"),
                "cmc": [float(rate) for rate in self.curve_with_failures],
                "open_set": {fpir: {"dir": rate} for fpir, rate in self.open_set_with_failures.items()},
            },
            "left_out": left_out_entry(self.left_out) | {"probes": self.left_out.probes},
        }


def _open_set_entry(point: OpenSetPoint) -> dict[str, Any]:
    return {
        "dir": point.dir,
        "achieved_fpir": point.achieved_fpir,
        "threshold": point.threshold if np.isfinite(point.threshold) else None,
        "false_positives": point.false_positives,
        "budget": point.budget,
    }


def identification(trials: Trials, scores: np.ndarray, config: EvaluateConfig) -> Identification:
    """Rank-1 rate with interval, CMC and open-set rates of probes (queries) searched in a gallery (targets).

    Raises:
        FacedanError: no probe's subject is in the gallery, or a score is NaN.
    """
    if np.isnan(scores).any():
        raise FacedanError("there are scores that are no numbers (NaN)", "look at what made the features")
    probes, gallery, failed = trials.codes
    if trials.left_out:  # beaten by everything, and beating nothing: an image that would find itself
        scores = np.where(trials.genuine | trials.impostor, scores, -np.inf)
    found = ranks(scores, probes, gallery)
    mated = found > 0
    if not mated.any():
        raise FacedanError(
            "no probe has a mate in the gallery" + (" but the probe's own image" if trials.left_out else ""),
            "both need folders (or list entries) that name subjects, by the same names, and other images of them",
        )
    correct = found[mated] == 1
    rates = _rank1_rates(correct, probes[mated], config)
    with_failures = rates
    if len(failed):
        with_failures = _rank1_rates(
            np.concatenate([correct, np.zeros(len(failed), bool)]), np.concatenate([probes[mated], failed]), config
        )
    strangers = int((~mated).sum())
    return Identification(
        rates=rates,
        with_failures=with_failures,
        correct=correct,
        curve=cmc(found[mated], min(MAX_RANK, len(gallery))),
        open_set=open_set(scores, probes, gallery, config.fpir) if strangers else {},
        gallery=len(gallery),
        without_mate=strangers,
        failed=(len(failed), trials.failures.images),
        left_out=trials.left_out,
    )


def _rank1_rates(correct: np.ndarray, subjects: np.ndarray, config: EvaluateConfig) -> Rates:
    values = {"1": rank_1(np.where(correct, 1, 2))}
    if config.ci == "wilson":
        return Rates(values, {"1": wilson(int(correct.sum()), correct.size, LEVEL)})
    if config.ci == "none":
        return Rates(values, {})
    drawn = rank1_replicates(correct, subjects, replicates=config.replicates, seed=config.seed)
    return bootstrapped(values, {"1": drawn}, subjects)
