"""Readers of other systems' embeddings (paths of images with vectors): files of `embed`, `.npz` or Parquet."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from facedan_cli.errors import FacedanError
from facedan_cli.spreadsheet import read_csv
from facedan_cli.workspace import digest, sha256_file

PATHS = ("path", "paths", "name", "names", "filename", "filenames", "file", "files", "image", "images")
VECTORS = ("vectors", "vector", "embeddings", "embedding", "features", "feature")
"""Names of the arrays or columns, the likeliest first."""

_FIX = (
    "give a directory with vectors.npy and images.csv, as `facedan embed` writes it, a .npz of the arrays `paths` and "
    "`vectors`, or a .parquet of a column `path` and a column of vectors"
)


@dataclass(frozen=True)
class Embeddings:
    """The vectors of a file and the paths of their images.

    Args:
        paths: the path of each vector's image; paths may repeat.
        vectors: shape (n, d), any real numbers, d ≥ 1.
        sha256: digest of the files.
    """

    paths: Sequence[str]
    vectors: np.ndarray
    sha256: str


def read_embeddings(path: Path) -> Embeddings:
    """Read embeddings; nothing in the files is run.

    Args:
        path: a directory with vectors.npy and images.csv, a `.npz` or a Parquet file.

    Raises:
        FacedanError: they are of no such form, or there are not as many paths as vectors.
    """
    try:
        if path.is_dir():
            paths, vectors, sha256 = _directory(path)
        else:
            with path.open("rb") as file:
                magic = file.read(4)
            reader = {b"PK\x03\x04": _npz, b"PAR1": _parquet}.get(magic)
            if reader is None:
                raise FacedanError(f"{path} holds no embeddings of a known form", _FIX)
            (paths, vectors), sha256 = reader(path), sha256_file(path)
    except FacedanError:
        raise
    except OSError as error:
        raise FacedanError(f"the embeddings {path} cannot be read: {error.strerror or error}", _FIX) from error
    except Exception as error:  # a damaged file may fail in any part of its parser
        raise FacedanError(f"the embeddings {path} cannot be read: {error}", _FIX) from error
    if vectors.ndim != 2 or not vectors.size or vectors.dtype.kind not in "fiu":
        raise FacedanError(
            f"the vectors of {path} are {vectors.dtype} of shape {vectors.shape}, not numbers by image and length",
            _FIX,
        )
    if len(paths) != len(vectors):
        raise FacedanError(f"{path} has {len(paths)} paths and {len(vectors)} vectors", "give each vector its path")
    return Embeddings(paths, vectors, sha256)


def _directory(path: Path) -> tuple[list[str], np.ndarray, str]:
    """Read files of `embed`; the optional column `row` of the table names the vector."""
    table, matrix = path / "images.csv", path / "vectors.npy"
    rows = read_csv(table)
    if rows and "path" not in rows[0]:
        raise FacedanError(f"{table} has no column `path`", _FIX)
    vectors = np.load(matrix, mmap_mode="r", allow_pickle=False)
    numbers = [int(row.get("row", place)) for place, row in enumerate(rows)]
    if sorted(numbers) != list(range(len(vectors))):
        raise FacedanError(f"the rows of {table} are not those of {matrix}", "give each vector one row of the table")
    if numbers != list(range(len(numbers))):
        vectors = vectors[numbers]
    return [row["path"] for row in rows], vectors, digest([sha256_file(table), sha256_file(matrix)])


def _npz(path: Path) -> tuple[list[str], np.ndarray]:
    with np.load(path, allow_pickle=False) as arrays:
        names = _named(path, arrays.files, PATHS, "array")
        vectors = _named(path, arrays.files, VECTORS, "array")
        written = np.asarray(arrays[names])
        if written.ndim != 1 or written.dtype.kind not in "US":
            raise FacedanError(f"the array `{names}` of {path} holds no texts", "save it as np.array(list_of_texts)")
        return [os.fsdecode(one) for one in written.tolist()], np.asarray(arrays[vectors])


def _parquet(path: Path) -> tuple[list[str], np.ndarray]:
    try:
        import pyarrow as arrow
        from pyarrow import parquet
    except ImportError as error:
        raise FacedanError(f"{path} is read by pyarrow, which is missing", "pip install 'facedan[parquet]'") from error
    table = parquet.read_table(path)
    types = {field.name: field.type for field in table.schema}
    texts = [name for name, kind in types.items() if arrow.types.is_string(kind) or arrow.types.is_large_string(kind)]
    names = next((name for name in PATHS if name in texts), texts[0] if len(texts) == 1 else "")
    if not names:
        raise FacedanError(f"{path} has no column of paths", f"call it {', '.join(PATHS[:3])} or the like")
    written = [text or "" for text in table.column(names).to_pylist()]
    lists = [name for name, kind in types.items() if _is_list(arrow, kind)]
    chosen = next((name for name in VECTORS if name in lists), lists[0] if len(lists) == 1 else "")
    if chosen:
        return written, _from_lists(path, table.column(chosen))
    columns = [name for name, kind in types.items() if arrow.types.is_floating(kind)]
    if lists or not columns:
        raise FacedanError(f"{path} has no column of vectors", f"call it {', '.join(VECTORS[:3])} or the like")
    return written, np.stack([table.column(name).to_numpy().astype(np.float64) for name in columns], axis=1)


def _is_list(arrow: Any, kind: Any) -> bool:
    known = (arrow.types.is_list, arrow.types.is_large_list, arrow.types.is_fixed_size_list)
    return any(is_it(kind) for is_it in known) and (
        arrow.types.is_floating(kind.value_type) or arrow.types.is_integer(kind.value_type)
    )


def _from_lists(path: Path, column: Any) -> np.ndarray:
    """A matrix of the lists of a column, which have one length; one that is missing is all NaN."""
    from pyarrow import compute

    lengths = compute.list_value_length(column).drop_null().unique().to_pylist()
    if len(lengths) != 1:
        raise FacedanError(
            f"the vectors of {path} have the lengths {sorted(lengths)[:5]}", "give vectors of one length"
        )
    vectors = np.full((len(column), lengths[0]), np.nan)
    there = column.is_valid().to_numpy()
    values = compute.list_flatten(column.drop_null()).to_numpy()
    vectors[there] = values.reshape(-1, lengths[0])
    return vectors


def _named(path: Path, there: Sequence[str], known: Sequence[str], what: str) -> str:
    """The array of one of the known names.

    Raises:
        FacedanError: there is none.
    """
    found = next((name for name in known if name in there), None)
    if found is None:
        have = f"it has {', '.join(there)}" if there else "it is empty"
        raise FacedanError(f"{path} has no {what} `{known[1]}`: {have}", f"call it one of {', '.join(known)}")
    return found
