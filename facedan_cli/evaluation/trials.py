"""The comparisons of a protocol: pairs of images, their subjects, and the comparisons that could not be made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from facedan_cli.embedding.similarity import COSINE, Similarity
from facedan_cli.evaluation.failures import Failures, genuine_of_subjects

PAIRS_AT_ONCE = 1 << 16


@dataclass(frozen=True)
class ImageSet:
    """The images on one side of the comparisons.

    Args:
        rows: the row of each image in its data set's features, int64, shape (n,).
        subjects: subject of each image, strings, shape (n,).
        files: aligned faces.
        contents: a number for the content of each image, equal for copies on both sides, int64, shape (n,); None if
            they were not read.
    """

    rows: np.ndarray
    subjects: np.ndarray
    files: Sequence[Path]
    contents: np.ndarray | None = None

    def part(self, kept: np.ndarray) -> ImageSet:
        """The images of a mask, shape (n,)."""
        files = [file for file, keep in zip(self.files, kept, strict=True) if keep]
        return ImageSet(
            self.rows[kept], self.subjects[kept], files, None if self.contents is None else self.contents[kept]
        )


@dataclass(frozen=True)
class LeftOut:
    """Comparisons of an image with itself (the same file, a link or a copy), which are not made.

    Args:
        genuine: number of those that would be genuine.
        impostor: number of those that would be impostor comparisons, because one image has two subjects.
        images: number of images, each counted once, that would be compared with themselves.
        probes: in identification, number of probes whose only mate is the same image; they are not searched.
    """

    genuine: int = 0
    impostor: int = 0
    images: int = 0
    probes: int = 0

    def __bool__(self) -> bool:
        return self.images > 0


NOTHING_LEFT_OUT = LeftOut()


@dataclass(frozen=True)
class Comparisons:
    """Scores of genuine and impostor comparisons, with their subjects.

    Args:
        genuine: scores of genuine comparisons, shape (g,).
        impostor: scores of impostor comparisons, shape (n,).
        genuine_subject: subject of each genuine comparison, shape (g,); None if unknown.
        impostor_subjects: the two subjects of each impostor comparison, both of shape (n,).
        failed_subject: subject of each failed genuine comparison, shape (f,).
        failures: numbers of failed comparisons and missing images.
        left_out: comparisons of an image with itself, which were not made.
    """

    genuine: np.ndarray
    impostor: np.ndarray
    genuine_subject: np.ndarray | None = None
    impostor_subjects: tuple[np.ndarray, np.ndarray] | None = None
    failed_subject: np.ndarray = field(default_factory=lambda: np.array([], np.int64))
    failures: Failures = field(default_factory=Failures)
    left_out: LeftOut = NOTHING_LEFT_OUT


@dataclass(frozen=True)
class Trials:
    """The comparisons of one partition of a protocol, the same for every model.

    Args:
        query: one side.
        target: the other side.
        all_pairs: whether every query is compared with every target, with scores of shape (queries, targets); else row
            i of `query` is compared with row i of `target`, with scores of shape (n,).
        same: for pairs, whether each is genuine, shape (n,); None: equal subjects are.
        symmetric: whether both sides are one set, whose pairs count once (i < j).
        fold: for pairs, fold of each, shape (n,); None without folds.
        failures: comparisons that could not be made.
        left_out: comparisons of an image with itself, which are not made; pairs of this kind have no row.
    """

    query: ImageSet
    target: ImageSet
    all_pairs: bool = True
    same: np.ndarray | None = None
    symmetric: bool = False
    fold: np.ndarray | None = None
    failures: Failures = field(default_factory=Failures)
    left_out: LeftOut = NOTHING_LEFT_OUT

    def score(self, query: np.ndarray, target: np.ndarray, similarity: Similarity = COSINE) -> np.ndarray:
        """The similarities of the comparisons, from the features of both sides' data sets."""
        if self.all_pairs:
            return np.asarray(similarity.all_pairs(query[self.query.rows], target[self.target.rows]))
        scores = np.empty(len(self.query.rows), np.float32)
        for start in range(0, len(scores), PAIRS_AT_ONCE):
            part = slice(start, start + PAIRS_AT_ONCE)
            scores[part] = similarity.paired(query[self.query.rows[part]], target[self.target.rows[part]])
        return scores

    @cached_property
    def codes(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Subjects as numbers from 0, for the queries, the targets and the failed genuine comparisons."""
        sides = [self.query.subjects, self.target.subjects, self.failures.genuine]
        codes = np.unique(np.concatenate(sides), return_inverse=True)[1].astype(np.int64)
        first, second = len(sides[0]), len(sides[0]) + len(sides[1])
        return codes[:first], codes[first:second], codes[second:]

    @cached_property
    def genuine(self) -> np.ndarray:
        """Whether each comparison is genuine, in the shape of the scores."""
        if self.same is not None:
            return self.same
        return self._made(np.equal.outer(self.codes[0], self.codes[1]))

    @cached_property
    def impostor(self) -> np.ndarray:
        """Whether each comparison is an impostor comparison, in the shape of the scores."""
        if not self.all_pairs:
            return ~self.genuine
        return self._made(np.not_equal.outer(self.codes[0], self.codes[1]))

    def _made(self, mask: np.ndarray) -> np.ndarray:
        """A mask of all pairs without repeated pairs and without images with themselves."""
        if self.left_out:
            assert self.query.contents is not None
            assert self.target.contents is not None
            mask &= np.not_equal.outer(self.query.contents, self.target.contents)
        return np.triu(mask, 1) if self.symmetric else mask

    def sides(self, place: int | np.integer) -> tuple[int, int]:
        """Query and target of the comparison at an index of the flattened scores."""
        return divmod(int(place), len(self.target.rows)) if self.all_pairs else (int(place), int(place))

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
            left_out=self.left_out,
        )


def all_pairs_trials(query: ImageSet, target: ImageSet, failures: Failures, *, symmetric: bool = False) -> Trials:
    """The comparisons of every query with every target, without images with themselves; arguments as in `Trials`."""
    return Trials(
        query,
        target,
        symmetric=symmetric,
        failures=failures,
        left_out=count_left_out(query, target, symmetric=symmetric),
    )


def identification_trials(query: ImageSet, target: ImageSet, failures: Failures) -> Trials:
    """The comparisons of queries (probes) with targets (the gallery) in a search where no image finds itself.

    A probe whose mates in the gallery are all itself is not searched: its subject is in the gallery, itself alone.
    """
    found = count_left_out(query, target)
    if not found:
        return Trials(query, target, failures=failures)
    assert query.contents is not None
    assert target.contents is not None
    subjects, codes = np.unique(np.concatenate([query.subjects, target.subjects]), return_inverse=True)
    q, t = codes[: len(query.rows)], codes[len(query.rows) :]
    mates = np.bincount(t, minlength=len(subjects))[q]
    contents = np.unique(np.concatenate([query.contents, target.contents]), return_inverse=True)[1]
    own = np.stack([np.concatenate([q, t]), contents])
    kinds, kind = np.unique(own, axis=1, return_inverse=True)
    selves = np.bincount(kind[len(q) :], minlength=kinds.shape[1])[kind[: len(q)]]
    kept = (mates == 0) | (mates > selves)
    left_out = replace(found, probes=int((~kept).sum()))
    return Trials(query.part(kept), target, failures=failures, left_out=left_out)


def count_left_out(query: ImageSet, target: ImageSet, *, symmetric: bool = False) -> LeftOut:
    """The numbers of comparisons of an image with itself among all pairs, counted without a matrix."""
    if query.contents is None or target.contents is None:
        return NOTHING_LEFT_OUT
    if symmetric:
        contents, counts = np.unique(query.contents, return_counts=True)
        shared = contents[counts > 1]
    else:
        shared = np.intersect1d(query.contents, target.contents)
    if not len(shared):
        return NOTHING_LEFT_OUT
    q, t = np.isin(query.contents, shared), np.isin(target.contents, shared)
    subjects = np.unique(np.concatenate([query.subjects[q], target.subjects[t]]), return_inverse=True)[1]
    places = np.searchsorted(shared, np.concatenate([query.contents[q], target.contents[t]]))
    kind = places * (subjects.max() + 1) + subjects  # one content of one subject
    kinds = np.unique(kind, return_inverse=True)[1]
    part = int(q.sum())

    def pairs(codes: np.ndarray) -> int:
        return int(genuine_of_subjects(codes[:part], codes[part:], int(codes.max()) + 1, symmetric).sum())

    genuine = pairs(kinds)
    return LeftOut(genuine, pairs(places) - genuine, len(shared))
