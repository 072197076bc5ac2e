"""Comparisons of an image with itself in a matrix of scores: its diagonal, or the images that two sets share."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from facedan_cli.evaluation.trials import NOTHING_LEFT_OUT, LeftOut
from facedan_cli.protocols.bee import IGNORED, MATCH, BeeMatrix, sigset_beside
from facedan_cli.protocols.sigset import read_sigset

Places = tuple[np.ndarray, np.ndarray]
"""Rows and columns of comparisons, of one shape, by rising rows."""


def selves(matrix: BeeMatrix) -> Places:
    """The comparisons of an image with itself, as far as the matrix shows them.

    If rows and columns have one sigset, they are the diagonal; else those of signatures with the same files, if the
    sigsets lie beside the matrix.
    """
    queries, targets = matrix.values.shape
    if matrix.query_sigset and matrix.query_sigset == matrix.target_sigset and queries == targets:
        return np.arange(queries), np.arange(queries)
    paths = [sigset_beside(matrix, name) for name in (matrix.query_sigset, matrix.target_sigset)]
    rows, columns = ({} if path is None else _images(path) for path in paths)
    met = sorted((row, column) for image in rows for row in rows[image] for column in columns.get(image, ()))
    places = np.array(met, np.int64).reshape(-1, 2)
    inside = (places[:, 0] < queries) & (places[:, 1] < targets)
    return places[inside, 0], places[inside, 1]


def _images(sigset: Path) -> dict[tuple[str, ...], list[int]]:
    """The signatures of a sigset by their files."""
    files: defaultdict[int, list[str]] = defaultdict(list)
    for record in read_sigset(sigset):
        files[record.signature].append(record.file_name.replace("\\", "/"))
    found: defaultdict[tuple[str, ...], list[int]] = defaultdict(list)
    for signature, names in files.items():
        found[tuple(names)].append(signature)
    return found


def without_selves(
    blocks: Iterable[tuple[np.ndarray, np.ndarray]], places: Places
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield blocks of rows (scores and marks), in which comparisons of an image with itself are marked as ignored."""
    start = 0
    for scores, marks in blocks:
        here = slice(*np.searchsorted(places[0], [start, start + len(marks)]))
        rows, columns = places[0][here] - start, places[1][here]
        start += len(marks)
        if len(rows):
            changed = np.array(marks)
            changed[rows, columns] = IGNORED
            yield scores, changed
        else:
            yield scores, marks


def left_out_of(places: Places, mask: BeeMatrix | None, subjects: tuple[np.ndarray, np.ndarray] | None) -> LeftOut:
    """The numbers of comparisons of an image with itself that the mask or the subjects would count.

    Args:
        places: the comparisons, from `selves`.
        mask: mask of the matrix; None without one.
        subjects: subjects of rows and columns, used without a mask.
    """
    rows, columns = places
    if mask is not None:
        marks = np.asarray(mask.values[rows, columns])
        genuine, counted = marks == MATCH, marks != IGNORED
    elif subjects is not None:
        genuine = subjects[0][rows] == subjects[1][columns]
        counted = np.ones(len(rows), bool)
    else:
        return NOTHING_LEFT_OUT
    return LeftOut(int(genuine.sum()), int((counted & ~genuine).sum()), len(np.unique(rows[counted])))
