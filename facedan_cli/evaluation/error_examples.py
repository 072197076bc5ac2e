"""Error examples: the impostor comparisons that score highest and the genuine ones that score lowest."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from facedan_cli.evaluation.differences import Measurement
from facedan_cli.evaluation.trials import Trials
from facedan_cli.evaluation.verification import Verification

EXAMPLES = 4
"""Number of examples of each kind."""


@dataclass(frozen=True)
class ErrorExample:
    """A comparison that is an error, or nearly one.

    Args:
        model: name of the model.
        partition: name of the partition.
        kind: impostors that were accepted, or genuine comparisons that were rejected.
        files: the two faces, the query or probe first.
        score: their score.
        wrong: whether it is an error at the first FAR (in a search: at rank 1).
    """

    model: str
    partition: str
    kind: Literal["false accept", "false reject"]
    files: tuple[Path, Path]
    score: float
    wrong: bool


def error_examples(
    model: str, partition: str, trials: Trials, scores: np.ndarray, measured: Measurement
) -> Iterator[ErrorExample]:
    """The false accepts and false rejects of a model in a partition, those farthest from the threshold first."""
    if isinstance(measured, Verification):
        threshold = next(iter(measured.points.values())).threshold
        found = [*_of_verification(trials, scores, threshold)]
    else:
        found = [*_of_identification(trials, scores)]
    for kind, place, wrong in found:
        query, target = trials.sides(place)
        files = trials.query.files[query], trials.target.files[target]
        yield ErrorExample(model, partition, kind, files, float(scores.flat[place]), wrong)


Found = tuple[Literal["false accept", "false reject"], int, bool]


def _of_verification(trials: Trials, scores: np.ndarray, threshold: float) -> Iterator[Found]:
    impostor, genuine = np.flatnonzero(trials.impostor), np.flatnonzero(trials.genuine)
    for place in _extreme(-scores.flat[impostor], impostor):
        yield "false accept", place, bool(scores.flat[place] > threshold)
    for place in _extreme(scores.flat[genuine], genuine):
        yield "false reject", place, bool(scores.flat[place] <= threshold)


def _of_identification(trials: Trials, scores: np.ndarray) -> Iterator[Found]:
    """Best rival and best mate of the mated probes with the largest lead of the rival."""
    rivals = np.where(trials.impostor, scores, -np.inf)  # (p, g)
    mates = np.where(trials.genuine, scores, -np.inf)
    mated = np.flatnonzero(trials.genuine.any(axis=1))
    margin = (mates.max(axis=1) - rivals.max(axis=1))[mated]
    extreme = _extreme(margin, mated)
    columns = scores.shape[1]
    for probe in extreme:
        yield "false accept", probe * columns + int(rivals[probe].argmax()), _lost(mates, rivals, probe)
    for probe in extreme:
        yield "false reject", probe * columns + int(mates[probe].argmax()), _lost(mates, rivals, probe)


def _lost(mates: np.ndarray, rivals: np.ndarray, probe: int) -> bool:
    return bool(rivals[probe].max() >= mates[probe].max())


def _extreme(keys: np.ndarray, places: np.ndarray) -> list[int]:
    """The indices of the smallest keys, in rising order; earlier ones first among equals."""
    nearest = np.argpartition(keys, min(EXAMPLES, len(keys)) - 1)[:EXAMPLES] if len(keys) else np.array([], np.int64)
    return [int(places[index]) for index in sorted(nearest, key=lambda index: (keys[index], places[index]))]
