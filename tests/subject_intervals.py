"""Intervals by the subject bootstrap, as an evaluation makes them, and scores to make them of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from facedan_cli.metrics.bootstrap import rank1_replicates, vr_replicates
from facedan_cli.metrics.intervals import Interval, rate_interval
from facedan_cli.metrics.roc import verification_rate


def cross_product(subjects: int, images: int, seed: int) -> dict[str, np.ndarray]:
    """Cosine scores of two sets of images of the same subjects, some of whom are much harder than others."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(subjects), images)
    centre = rng.normal(size=(subjects, 12))[labels]
    noise = rng.lognormal(0, 0.5, size=subjects)[labels][:, None]
    query, target = (centre + noise * rng.normal(size=centre.shape) for _ in range(2))
    scores = (query / np.linalg.norm(query, axis=1, keepdims=True)) @ (
        target / np.linalg.norm(target, axis=1)[:, None]
    ).T
    a, b = np.meshgrid(labels, labels, indexing="ij")
    mates = a == b
    return {
        "genuine": scores[mates],
        "genuine_subject": a[mates],
        "impostor": scores[~mates],
        "impostor_subject_a": a[~mates],
        "impostor_subject_b": b[~mates],
    }


def vr_interval(
    genuine: Any,
    genuine_subject: Any,
    impostor: Any,
    impostor_subject_a: Any,
    impostor_subject_b: Any,
    *,
    fars: Sequence[str],
    level: float = 0.95,
    **drawn: int,
) -> dict[str, Interval]:
    """Interval of the verification rate at each FAR."""
    rows = vr_replicates(genuine, genuine_subject, impostor, impostor_subject_a, impostor_subject_b, fars=fars, **drawn)
    counts = {"subjects": np.unique(np.asarray(genuine_subject)).size, "trials": np.asarray(genuine).size}
    return {
        far: rate_interval(verification_rate(genuine, impostor, far).vr, row, **counts, level=level)
        for far, row in zip(fars, rows, strict=True)
    }


def rank1_interval(correct: Any, probe_subject: Any, *, level: float = 0.95, **drawn: int) -> Interval:
    """Interval of the rank-1 rate."""
    rates = rank1_replicates(correct, probe_subject, **drawn)
    hits, subjects = np.asarray(correct, bool), np.unique(np.asarray(probe_subject)).size
    return rate_interval(float(hits.mean()), rates, subjects=subjects, trials=hits.size, level=level)
