"""The comparisons of a protocol: which images meet, whose they are, and which comparisons could not be made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from facedan_cli.stages.similarities import COSINE, Similarity

PAIRS_AT_ONCE = 1 << 16


@dataclass(frozen=True)
class Side:
    """The images on one side of the comparisons.

    Args:
        rows: the row of each image in its data set's features, int64, shape (n,).
        subjects: whose image each is, strings, shape (n,).
        files: the aligned faces.
    """

    rows: np.ndarray
    subjects: np.ndarray
    files: Sequence[Path]


@dataclass(frozen=True)
class Failures:
    """What is missing because images could not be acquired: not aligned, unreadable, or not there.

    Args:
        images: how many images of the protocol are missing.
        genuine: the subject of each genuine comparison (in a search: of each mated probe) that could not be made,
            strings, shape (f,).
        impostor: how many impostor comparisons could not be made.
    """

    images: int = 0
    genuine: np.ndarray = field(default_factory=lambda: np.array([], str))
    impostor: int = 0


@dataclass(frozen=True)
class Comparisons:
    """Scores, and who was compared with whom.

    Args:
        genuine: scores of genuine comparisons, shape (g,).
        impostor: scores of impostor comparisons, shape (n,).
        genuine_subject: the subject of each genuine comparison, shape (g,); None where nobody knows.
        impostor_subjects: the two subjects of each impostor comparison, both of shape (n,).
        failed_subject: the subject of each genuine comparison that could not be made, shape (f,).
        failures: the same in numbers, and what else is missing.
    """

    genuine: np.ndarray
    impostor: np.ndarray
    genuine_subject: np.ndarray | None = None
    impostor_subjects: tuple[np.ndarray, np.ndarray] | None = None
    failed_subject: np.ndarray = field(default_factory=lambda: np.array([], np.int64))
    failures: Failures = Failures()


@dataclass(frozen=True)
class Trials:
    """The comparisons of one partition of a protocol, the same for every model.

    Args:
        query: one side.
        target: the other.
        crossed: every query meets every target, scores have shape (queries, targets); else they meet in pairs, one
            row of `query` with the same row of `target`, and scores have shape (n,).
        same: in pairs, which are of one person, shape (n,); where crossed, equal subjects say so.
        itself: both sides are one set; each pair counts once (i < j) and no image meets itself.
        fold: in pairs, the fold of each, shape (n,); None where there are none.
        failures: what is missing.
    """

    query: Side
    target: Side
    crossed: bool = True
    same: np.ndarray | None = None
    itself: bool = False
    fold: np.ndarray | None = None
    failures: Failures = Failures()

    def score(self, query: np.ndarray, target: np.ndarray, similarity: Similarity = COSINE) -> np.ndarray:
        """Similarities, given the features of both sides' data sets."""
        if self.crossed:
            return np.asarray(similarity.crossed(query[self.query.rows], target[self.target.rows]))
        scores = np.empty(len(self.query.rows), np.float32)
        for start in range(0, len(scores), PAIRS_AT_ONCE):
            part = slice(start, start + PAIRS_AT_ONCE)
            scores[part] = similarity.paired(query[self.query.rows[part]], target[self.target.rows[part]])
        return scores

    @cached_property
    def codes(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Subjects as numbers from 0: of the queries, of the targets, and of the failed genuine comparisons."""
        sides = [self.query.subjects, self.target.subjects, self.failures.genuine]
        codes = np.unique(np.concatenate(sides), return_inverse=True)[1].astype(np.int64)
        first, second = len(sides[0]), len(sides[0]) + len(sides[1])
        return codes[:first], codes[first:second], codes[second:]

    @cached_property
    def genuine(self) -> np.ndarray:
        """Which comparisons are of one subject, in the shape of the scores."""
        if self.same is not None:
            return self.same
        mask: np.ndarray = np.equal.outer(self.codes[0], self.codes[1])
        return np.triu(mask, 1) if self.itself else mask

    @cached_property
    def impostor(self) -> np.ndarray:
        """Which comparisons are of two subjects, in the shape of the scores."""
        mask = ~np.equal.outer(self.codes[0], self.codes[1]) if self.crossed else ~self.genuine
        return np.triu(mask, 1) if self.itself else mask

    def sides(self, place: int | np.integer) -> tuple[int, int]:
        """Query and target of the comparison at a place of the scores, counted row by row."""
        return divmod(int(place), len(self.target.rows)) if self.crossed else (int(place), int(place))

    def compare(self, scores: np.ndarray) -> Comparisons:
        """The scores of the genuine and of the impostor comparisons, with their subjects."""
        query, target, failed = self.codes
        genuine, impostor = self.genuine, self.impostor
        places = np.nonzero(genuine), np.nonzero(impostor)
        return Comparisons(
            genuine=scores[genuine],
            impostor=scores[impostor],
            genuine_subject=query[places[0][0]],
            impostor_subjects=(query[places[1][0]], target[places[1][-1]]),
            failed_subject=failed,
            failures=self.failures,
        )


def crossing_failures(
    query: np.ndarray,
    target: np.ndarray,
    query_there: np.ndarray,
    target_there: np.ndarray,
    images: int,
    *,
    itself: bool = False,
) -> Failures:
    """What is missing of a cross of queries and targets.

    Args:
        query: subjects of all queries that the protocol names, strings, shape (q,).
        target: subjects of all targets, shape (t,).
        query_there: which queries are there, bool, shape (q,).
        target_there: which targets are there, bool, shape (t,).
        images: how many images are missing.
        itself: both are one set, of which each pair counts once.
    """
    subjects, codes = np.unique(np.concatenate([query, target]), return_inverse=True)
    q, t = codes[: len(query)], codes[len(query) :]
    meant = _genuine_of(q, t, len(subjects), itself)
    made = _genuine_of(q[query_there], t[target_there], len(subjects), itself)
    there, wanted = (int(query_there.sum()), int(target_there.sum())), (len(query), len(target))
    impostor = _crossings(*wanted, itself) - int(meant.sum()) - (_crossings(*there, itself) - int(made.sum()))
    return Failures(images, np.repeat(subjects, meant - made), impostor)


def search_failures(
    query: np.ndarray, target: np.ndarray, query_there: np.ndarray, target_there: np.ndarray, images: int
) -> Failures:
    """What is missing of a search of queries (probes) among targets (the gallery); arguments as above.

    A probe cannot be found where it is missing, or where all its mates in the gallery are.
    """
    mated = np.isin(query, target)
    findable = query_there & np.isin(query, target[target_there])
    return Failures(images, query[mated & ~findable], 0)


def _genuine_of(query: np.ndarray, target: np.ndarray, subjects: int, itself: bool) -> np.ndarray:
    """How many genuine comparisons each subject has."""
    counts = np.bincount(query, minlength=subjects)
    if itself:
        return counts * (counts - 1) // 2
    return counts * np.bincount(target, minlength=subjects)


def _crossings(queries: int, targets: int, itself: bool) -> int:
    return queries * (queries - 1) // 2 if itself else queries * targets
