"""Failures to acquire: the comparisons of a protocol whose images are missing, counted without a matrix."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class Failures:
    """Failures to acquire (FTA): comparisons that could not be made because an image failed or is missing.

    Args:
        images: number of missing images of the protocol.
        genuine: subject of each failed genuine comparison (in identification: of each failed mated probe), strings,
            shape (f,).
        impostor: number of failed impostor comparisons.
        fold: fold of each failed pair, int64, shape (pairs,), for pairs with folds.
        unlabelled: number of missing images without a known subject, none of whose comparisons is counted.
    """

    images: int = 0
    genuine: np.ndarray = field(default_factory=lambda: np.array([], str))
    impostor: int = 0
    fold: np.ndarray = field(default_factory=lambda: np.array([], np.int64))
    unlabelled: int = 0


def all_pairs_failures(
    query: np.ndarray,
    target: np.ndarray,
    query_acquired: np.ndarray,
    target_acquired: np.ndarray,
    images: int,
    *,
    symmetric: bool = False,
    lost: tuple[Sequence[str], Sequence[str]] = ((), ()),
) -> Failures:
    """The failures among the comparisons of all pairs.

    Args:
        query: subjects of all queries that the protocol names, strings, shape (q,).
        target: subjects of all targets, shape (t,).
        query_acquired: which queries have features, bool, shape (q,).
        target_acquired: which targets have features, bool, shape (t,).
        images: number of missing images.
        symmetric: both are one set, of which each pair counts once.
        lost: names of the queries and of the targets without features, in order. One that is on both sides would only
            have met itself there: that is no failure.
    """
    subjects, codes = np.unique(np.concatenate([query, target]), return_inverse=True)
    q, t = codes[: len(query)], codes[len(query) :]
    wanted = genuine_of_subjects(q, t, len(subjects), symmetric)
    made = genuine_of_subjects(q[query_acquired], t[target_acquired], len(subjects), symmetric)
    acquired, listed = (int(query_acquired.sum()), int(target_acquired.sum())), (len(query), len(target))
    impostor = (
        _count_pairs(*listed, symmetric) - int(wanted.sum()) - (_count_pairs(*acquired, symmetric) - int(made.sum()))
    )
    if not symmetric and lost[0] and lost[1]:
        own, selves = _selves(q[~query_acquired], t[~target_acquired], lost)
        np.add.at(made, q[~query_acquired], own)
        impostor -= int((selves - own).sum())
    return Failures(images, np.repeat(subjects, wanted - made), impostor)


def identification_failures(
    query: np.ndarray,
    target: np.ndarray,
    query_acquired: np.ndarray,
    target_acquired: np.ndarray,
    images: int,
    *,
    lost: tuple[Sequence[str], Sequence[str]] = ((), ()),
) -> tuple[Failures, np.ndarray]:
    """The probes (queries) that cannot be searched in the gallery (targets); arguments as in `all_pairs_failures`.

    A mated probe fails where it has no features, or where none of its mates in the gallery has. The latter probes have
    features but are not searched: they would pass for probes without a mate. A probe without features that is its own
    only mate would not have been searched and is no failure.

    Returns:
        The failures, and which of the queries with features are searched, shape (query_acquired.sum(),).
    """
    mated = np.isin(query, target)
    if lost[0] and lost[1]:
        codes = np.unique(np.concatenate([query, target]), return_inverse=True)[1]
        q, t = codes[: len(query)], codes[len(query) :]
        own, _ = _selves(q[~query_acquired], t[~target_acquired], lost)
        mated[~query_acquired] &= np.bincount(t, minlength=len(codes))[q[~query_acquired]] > own
    findable = np.isin(query, target[target_acquired])
    return Failures(images, query[mated & ~(query_acquired & findable)], 0), (~mated | findable)[query_acquired]


def genuine_of_subjects(query: np.ndarray, target: np.ndarray, subjects: int, symmetric: bool) -> np.ndarray:
    """The number of genuine comparisons of each subject, int64, shape (subjects,).

    Args:
        query: subjects of the queries as numbers from 0, shape (q,).
        target: subjects of the targets, shape (t,).
        subjects: number of subjects.
        symmetric: both are one set, of which each pair counts once.
    """
    counts = np.bincount(query, minlength=subjects)
    if symmetric:
        return counts * (counts - 1) // 2
    return counts * np.bincount(target, minlength=subjects)


def _selves(
    query: np.ndarray, target: np.ndarray, lost: tuple[Sequence[str], Sequence[str]]
) -> tuple[np.ndarray, np.ndarray]:
    """How often each lost query is among the lost targets, under its subject and in all, both of shape (lost,).

    Args:
        query: subjects of the lost queries, as numbers.
        target: subjects of the lost targets.
        lost: the names of both.
    """
    names = np.unique([*lost[0], *lost[1]], return_inverse=True)[1].astype(np.int64)
    whose = np.concatenate([query, target])
    kinds = np.unique(names * (int(whose.max()) + 1) + whose, return_inverse=True)[1]
    first = len(query)
    own, selves = (
        np.bincount(codes[first:], minlength=int(codes.max()) + 1)[codes[:first]] for codes in (kinds, names)
    )
    return own, selves


def _count_pairs(queries: int, targets: int, symmetric: bool) -> int:
    return queries * (queries - 1) // 2 if symmetric else queries * targets
