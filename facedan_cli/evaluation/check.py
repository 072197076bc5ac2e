"""A check of an adaptation on labelled pairs: the verification rate before and after, and the paired difference."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from facedan_cli.config.common import EvaluateConfig
from facedan_cli.errors import FacedanError
from facedan_cli.evaluation.differences import Difference
from facedan_cli.evaluation.protocols import evaluate_pairs
from facedan_cli.evaluation.verification import Verification
from facedan_cli.metrics.roc import OperatingPoint
from facedan_cli.protocols.pairs import read_pairs
from facedan_cli.report import SILENT, Report
from facedan_cli.workspace import Dataset, Workspace

FARS = ("0.1", "0.01", "0.001")
LEAST_FALSE_ACCEPTS = 5
"""The check is at the lowest of `FARS` that allows so many false accepts; else at the highest."""


@dataclass(frozen=True)
class Check:
    """The verification rates of two networks on the same pairs.

    Args:
        pairs: the list.
        before: of the initial network.
        after: of the adapted one.
        difference: with its paired bootstrap interval.
        results: directory of the evaluation.
    """

    pairs: Path
    before: OperatingPoint
    after: OperatingPoint
    difference: Difference
    results: Path

    def __str__(self) -> str:
        of, found = f"{self.before.genuine + self.before.impostor} pairs of {self.pairs.name}", self.difference
        bounds = "" if found.interval is None else f" [{100 * found.interval[0]:+.1f}, {100 * found.interval[1]:+.1f}]"
        verdict = "" if found.distinguishable else "; this may be chance"
        return (
            f"on the {of} the verification rate at FAR {found.at} was {100 * self.before.vr:.1f} % and is "
            f"{100 * self.after.vr:.1f} %: {100 * found.value:+.1f} points{bounds}{verdict}"
        )

    def summary(self) -> dict[str, Any]:
        """The entry in the output of `adapt --json`."""
        found = self.difference
        return {
            "pairs": str(self.pairs),
            "genuine": self.before.genuine,
            "impostor": self.before.impostor,
            "far": found.at,
            "before": self.before.vr,
            "after": self.after.vr,
            "difference": found.value,
            "interval": None if found.interval is None else list(found.interval),
            "distinguishable": found.distinguishable,
            "results": str(self.results),
        }


def refuse_pairs(file: Path) -> None:
    """Raise an error for a list that no check can be made on, before an adaptation rather than after it.

    Raises:
        FacedanError: it cannot be read, or lacks pairs of the same or of different subjects.
    """
    kinds = {pair.same for pair in read_pairs(file)}
    if len(kinds) < 2:
        lacking = "different subjects" if True in kinds else "the same subject"
        raise FacedanError(f"{file} has no pair of {lacking}", "a check needs pairs of both kinds")


def check_adaptation(
    before: Path,
    after: Path,
    images: Dataset,
    file: Path,
    workspace: Workspace,
    config: EvaluateConfig,
    report: Report = SILENT,
) -> Check:
    """Verify the pairs of a list with the initial network and with the adapted one.

    Args:
        before: checkpoint of the initial network.
        after: checkpoint of the adapted one.
        images: aligned images that the list names.
        file: the list; its labels are read here alone, and choose nothing.
        workspace: workspace of features and results.
        config: settings of the measurement; its models and FARs are replaced.
        report: receives warnings and progress.

    Raises:
        FacedanError: the list cannot be read, or too few of its images are there.
    """
    impostor = sum(not pair.same for pair in read_pairs(file))
    allowed = [far for far in FARS if float(far) * impostor >= LEAST_FALSE_ACCEPTS]
    far = allowed[-1] if allowed else FARS[0]
    models = (str(before), str(after))
    found = evaluate_pairs(replace(config, model=models, far=(far,)), workspace, images, file, report=report)
    points = [model.partitions["all"] for model in found.models]
    first, second = (part.points[far] for part in points if isinstance(part, Verification))
    difference = next(one for one in found.differences if one.at == far)
    return Check(file, first, second, difference, found.directory)
