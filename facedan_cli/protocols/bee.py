"""Matrices of the Biometrics Evaluation Environment (.mtx): scores of every query with every target, and their masks.

The form is that of FRGC and MBGC, which OpenBR and Bob read and write. Four lines of text, and then the values row by
row; rows are queries, columns are targets:

    S2                          S2 similarities, D2 distances, M2 a mask
    target.xml                  the target sigset
    query.xml                   the query sigset
    MF 1085 1085 ....           MF float32, MB bytes; queries; targets; 0x12345678 as four raw bytes in the byte order

Many masks carry S2 on the first line, so that MF or MB decides. Values stay in the file until they are asked for: a
matrix may be larger than the memory.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NoReturn

import numpy as np
from numpy.typing import NDArray

from facedan_cli.errors import FacedanError
from facedan_cli.workspace import replacing

MATCH, NON_MATCH, IGNORED = 0xFF, 0x7F, 0x00
"""Values of a mask: genuine, impostor, not to be counted."""

Kind = Literal["scores", "mask"]

_MAGIC = 0x12345678
_ORDERS: dict[bytes, Literal["<", ">"]] = {_MAGIC.to_bytes(4, "little"): "<", _MAGIC.to_bytes(4, "big"): ">"}
_LONGEST_LINE = 4096
_SIZES = re.compile(rb"(M[FB]) +([0-9]{1,9}) +([0-9]{1,9}) (.{4})\n", re.DOTALL)
_BLOCK = 1 << 22  # comparisons held at a time


@dataclass(frozen=True)
class BeeMatrix:
    """A matrix in a file.

    Attributes:
        path: the file.
        kind: "scores" or "mask".
        distance: whether a smaller score means more alike; never so of a mask.
        target_sigset: name of the columns' list in the file; may be empty.
        query_sigset: name of the rows' list in the file; may be empty.
        values: read-only memory map, shape (queries, targets): float32 in the byte order of the file, or uint8.
    """

    path: Path
    kind: Kind
    distance: bool
    target_sigset: str
    query_sigset: str
    values: NDArray[Any]

    def similarities(self, rows: slice = slice(None)) -> NDArray[np.float32]:
        """Some rows of the matrix as similarities; distances are negated."""
        block = self.values[rows].astype(np.float32)
        return np.negative(block, out=block) if self.distance else block


def read_matrix(path: Path) -> BeeMatrix:
    """Open a matrix of scores or a mask.

    Raises:
        FacedanError: the file cannot be read, is no BEE matrix, has no rows or columns, or is shorter or longer than
            its fourth line says. The message names the file, the place and the reason.
    """
    if path.exists() and not path.is_file():
        raise FacedanError(f"the matrix {path} is no regular file", "write it into a file: it is not read at once")
    try:
        with path.open("rb") as file:
            kind_line, target, query, sizes = (file.readline(_LONGEST_LINE) for _ in range(4))
            start = file.tell()
            end = file.seek(0, 2)
    except OSError as error:
        raise FacedanError(f"cannot read the matrix {path}: {error.strerror}", "Check the path.") from error
    if kind_line.rstrip() not in (b"S2", b"D2", b"M2"):
        _refuse(path, "line 1: neither S2, D2 nor M2, so this is no BEE matrix")
    for number, line in ((2, target), (3, query)):
        if not line.endswith(b"\n"):
            _refuse(path, f"line {number}: the name of a sigset is cut short or longer than {_LONGEST_LINE} bytes")
    found = _SIZES.fullmatch(sizes)
    if not found:
        _refuse(path, "line 4: not 'MF' or 'MB', the numbers of queries and of targets and four bytes of byte order")
    form, queries, targets, magic = found[1], int(found[2]), int(found[3]), found[4]
    if magic not in _ORDERS:
        _refuse(path, f"line 4: the byte order is given as 0x{magic.hex()}, not as 0x12345678 in either order")
    if not queries or not targets:
        _refuse(path, f"line 4: a matrix of {queries} queries and {targets} targets holds nothing")
    dtype = np.dtype(np.uint8 if form == b"MB" else f"{_ORDERS[magic]}f4")
    expected = queries * targets * dtype.itemsize
    if end - start != expected:
        which = "is cut short" if end - start < expected else "goes on after its last value"
        _refuse(
            path, f"{queries}×{targets} values need {expected} bytes, {end - start} follow line 4: the file {which}"
        )
    return BeeMatrix(
        path,
        "mask" if form == b"MB" else "scores",
        form == b"MF" and kind_line.startswith(b"D"),
        _text(target),
        _text(query),
        np.memmap(path, dtype, "r", start, (queries, targets)),
    )


def read_scores_and_mask(scores: Path, mask: Path) -> tuple[BeeMatrix, BeeMatrix]:
    """Open a matrix of scores and its mask.

    Raises:
        FacedanError: as `read_matrix`; one of them is of the other kind, or their shapes differ.
    """
    matrices = read_matrix(scores), read_matrix(mask)
    for matrix, kind in zip(matrices, ("scores", "mask"), strict=True):
        if matrix.kind != kind:
            raise FacedanError(
                f"{matrix.path} holds {'a mask' if matrix.kind == 'mask' else 'scores'}, where {kind} should stand",
                "Give the matrix of scores (MF) first and its mask (MB) second.",
            )
    shapes = [matrix.values.shape for matrix in matrices]
    if shapes[0] != shapes[1]:
        raise FacedanError(
            f"{scores} has {shapes[0][0]} queries × {shapes[0][1]} targets, its mask {mask} "
            f"{shapes[1][0]} × {shapes[1][1]}",
            "Give the mask that was made for these sigsets.",
        )
    return matrices


def comparisons(scores: BeeMatrix, mask: BeeMatrix) -> Iterator[tuple[slice, NDArray[np.float32], NDArray[np.uint8]]]:
    """Yield blocks of rows of the matrix and its mask, in the order of the file.

    Yields:
        The rows; their similarities, shape (rows, targets), NaN where a comparison could not be made; MATCH, NON_MATCH
        or IGNORED of each, the same shape.

    Raises:
        FacedanError: the mask holds another value; the message names its place.
    """
    queries, targets = scores.values.shape
    step = max(1, _BLOCK // targets)
    for start in range(0, queries, step):
        rows = slice(start, min(start + step, queries))
        similarities, marks = scores.similarities(rows), np.asarray(mask.values[rows])
        wrong = (marks != MATCH) & (marks != NON_MATCH) & (marks != IGNORED)
        if wrong.any():
            place, value = _first(wrong, start), marks[wrong][0]
            _refuse(mask.path, f"{place}: 0x{value:02x} is neither 0xff (match), 0x7f (non-match) nor 0x00 (ignore)")
        yield rows, similarities, marks


def write_matrix(
    path: Path,
    values: NDArray[Any],
    query_sigset: str,
    target_sigset: str,
    *,
    kind: Kind = "scores",
) -> None:
    """Write similarities or a mask, little-endian, through a temporary file.

    Args:
        path: the file.
        values: the matrix, shape (queries, targets).
        query_sigset: name of the list of the rows.
        target_sigset: name of the list of the columns.
        kind: kind of the values.

    Raises:
        ValueError: the values are no matrix, a mask is not of uint8, or a name has more than one line.
    """
    if values.ndim != 2:
        raise ValueError(f"the shape of a matrix is (queries, targets), not {values.shape}")
    if kind == "mask" and values.dtype != np.uint8:
        raise ValueError(f"a mask is of uint8, not {values.dtype}")
    if any("\n" in name for name in (query_sigset, target_sigset)):
        raise ValueError("the name of a sigset has one line")
    header = f"{'M2' if kind == 'mask' else 'S2'}\n{target_sigset}\n{query_sigset}\n"
    sizes = f"{'MB' if kind == 'mask' else 'MF'} {len(values)} {values.shape[1]} "
    with replacing(path) as temporary, temporary.open("wb") as file:
        file.write(header.encode(errors="surrogateescape") + sizes.encode())
        file.write(_MAGIC.to_bytes(4, "little") + b"\n")
        file.write(np.ascontiguousarray(values, np.uint8 if kind == "mask" else "<f4").data)


def sigset_beside(matrix: BeeMatrix, name: str) -> Path | None:
    """The sigset that a matrix names, if it lies beside the matrix; else None.

    Names in matrices are paths on the machine that made them, so their last part alone is looked for.
    """
    base = name.replace("\\", "/").rpartition("/")[2]
    return next((path for path in matrix.path.parent.iterdir() if path.name == base and path.is_file()), None)


def _first(wrong: NDArray[np.bool_], start: int) -> str:
    """The place of the first true value of a block, counted from 1."""
    row, column = np.unravel_index(int(wrong.argmax()), wrong.shape)
    return f"query {start + int(row) + 1}, target {int(column) + 1}"


def _text(line: bytes) -> str:
    return line.decode(errors="surrogateescape").strip()


def _refuse(path: Path, reason: str) -> NoReturn:
    raise FacedanError(f"{path}, {reason}", "Make the matrix anew with the tool that it comes from.")
