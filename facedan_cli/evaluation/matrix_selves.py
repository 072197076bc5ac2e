"""Where an image meets itself in a matrix of scores: the diagonal of one set with itself, and what two sets share."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from facedan_cli.evaluation.trials import NOTHING_LEFT_OUT, LeftOut
from facedan_cli.protocols.bee import IGNORED, MATCH, BeeMatrix, sigset_beside
from facedan_cli.protocols.sigset import read_sigset

Places = tuple[np.ndarray, np.ndarray]
"""Rows and columns of comparisons, of one shape, the rows rising."""


def selves(matrix: BeeMatrix) -> Places:
    """The comparisons of an image with itself, as far as the matrix tells.

    Where rows and columns are of one sigset they are the diagonal; else those whose sigsets, which must lie beside the
    matrix, name the same files for both.
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
    """The signatures of a sigset by the files that they hold."""
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
    """Blocks of rows, scores and what they are, in which the comparisons of an image with itself are ignored."""
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
    """How many comparisons would count if an image could meet itself.

    Args:
        places: as `selves` gives them.
        mask: says what they are.
        subjects: of rows and columns; they say it where there is no mask.
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
