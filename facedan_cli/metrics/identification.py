"""Closed-set identification: ranks, cumulative match characteristic and rank-1 rate, ties counted against the mate."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[Any]


def ranks(scores: ArrayLike, probe_labels: ArrayLike, gallery_labels: ArrayLike) -> Array:
    """The rank of each probe's best mate among the gallery entries of other people.

    The rank is one more than the number of gallery entries of other people that score as high as the best mate or
    higher. A tie counts against the mate, so that constant scores never look like recognition. Further mates of the
    probe do not take up ranks; several entries of one other person do.

    Args:
        scores: similarity of each probe to each gallery entry, shape (p, g).
        probe_labels: subjects of the probes, shape (p,).
        gallery_labels: subjects of the gallery entries, shape (g,).

    Returns:
        Integers, shape (p,): from 1 up, or 0 for a probe that has no mate in the gallery (not a rank: leave it out).

    Raises:
        ValueError: the shapes do not belong together, or a score is NaN.
    """
    scores, probe, gallery = np.asarray(scores), np.asarray(probe_labels), np.asarray(gallery_labels)
    if scores.shape != (probe.size, gallery.size):
        raise ValueError(f"scores have shape {scores.shape}, labels ask for {(probe.size, gallery.size)}")
    if np.isnan(scores).any():
        raise ValueError("scores contain NaN")
    mates = probe[:, None] == gallery[None, :]  # (p, g)
    best_mate = np.where(mates, scores, -np.inf).max(axis=1, initial=-np.inf)  # (p,)
    rivals = np.count_nonzero(~mates & (scores >= best_mate[:, None]), axis=1)
    return np.where(mates.any(axis=1), rivals + 1, 0)


def cmc(ranks: ArrayLike, max_rank: int) -> Array:
    """Cumulative match characteristic: entry r-1 is the share of probes whose mate is at rank r or better.

    Args:
        ranks: ranks from 1 up, shape (p,), of probes that have a mate.
        max_rank: the last rank, at least 1.

    Returns:
        Shares, shape (max_rank,), rising.

    Raises:
        ValueError: there are no ranks, or one is below 1.
    """
    counted = _checked(ranks)
    hits = np.bincount(counted[counted <= max_rank], minlength=max_rank + 1)[1:]
    return np.cumsum(hits) / counted.size


def rank_1(ranks: ArrayLike) -> float:
    """The share of probes whose mate beats every gallery entry of other people.

    Args:
        ranks: ranks from 1 up, shape (p,), of probes that have a mate.

    Raises:
        ValueError: there are no ranks, or one is below 1.
    """
    return float(np.mean(_checked(ranks) == 1))


def _checked(ranks: ArrayLike) -> Array:
    array = np.asarray(ranks)
    if array.size == 0 or array.min() < 1:
        raise ValueError("ranks must be one or more numbers from 1 up; leave out probes that have no mate (rank 0)")
    return array
