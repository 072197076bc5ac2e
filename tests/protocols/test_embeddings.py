"""Embeddings of other systems: the forms that are read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as arrow
import pytest
from pyarrow import parquet

from facedan_cli.errors import FacedanError
from facedan_cli.protocols.embeddings import read_embeddings

NAMES = ["a/1.png", "a/2.png", "ü/3.png"]
VECTORS = np.arange(12, dtype=np.float32).reshape(3, 4) - 5


def directory(path: Path, vectors: np.ndarray = VECTORS, table: str | None = None) -> Path:
    path.mkdir()
    np.save(path / "vectors.npy", vectors)
    rows = "".join(f"{row},{name},x\n" for row, name in enumerate(NAMES))
    (path / "images.csv").write_text(table or "row,path,identity\n" + rows, encoding="utf-8")
    return path


def npz(path: Path, **arrays: Any) -> Path:
    np.savez(path.with_suffix(".npz"), **arrays)
    return path.with_suffix(".npz")


def table(path: Path, /, **columns: Any) -> Path:
    parquet.write_table(arrow.table(columns), path)
    return path


FORMS: dict[str, Callable[[Path], Path]] = {
    "directory": directory,
    "rows in another order": lambda path: directory(path, table="path,row\nü/3.png,2\na/1.png,0\na/2.png,1\n"),
    "no rows": lambda path: directory(path, table="path\n" + "\n".join(NAMES) + "\n"),
    "npz": lambda path: npz(path, paths=NAMES, vectors=VECTORS),
    "npz of bytes": lambda path: npz(path, filenames=[name.encode() for name in NAMES], features=VECTORS),
    "npz of doubles": lambda path: npz(path, name=NAMES, embeddings=VECTORS.astype(np.float64), labels=[1, 2, 3]),
    "lists": lambda path: table(path, path=NAMES, vector=VECTORS.tolist(), label=["x"] * 3),
    "fixed lists": lambda path: table(
        path, file=NAMES, e=arrow.FixedSizeListArray.from_arrays(arrow.array(VECTORS.ravel()), 4)
    ),
    "columns": lambda path: table(path, image=NAMES, row=[0, 1, 2], **{str(at): VECTORS[:, at] for at in range(4)}),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same(tmp_path: Path, form: str) -> None:
    found = read_embeddings(FORMS[form](tmp_path / "x"))
    by_name = dict(zip(found.paths, np.asarray(found.vectors), strict=True))
    assert by_name.keys() == set(NAMES)
    for name, vector in zip(NAMES, VECTORS, strict=True):
        np.testing.assert_array_equal(by_name[name], vector)


def test_the_digest_is_of_the_content(tmp_path: Path) -> None:
    digests = [read_embeddings(directory(tmp_path / name)).sha256 for name in "ab"]
    other = read_embeddings(directory(tmp_path / "c", VECTORS + 1)).sha256
    assert digests[0] == digests[1] != other


def test_a_missing_list_is_no_number(tmp_path: Path) -> None:
    found = read_embeddings(table(tmp_path / "x", path=NAMES, vector=[[1.0, 2.0], None, [3.0, None]]))
    np.testing.assert_array_equal(found.vectors, [[1, 2], [np.nan, np.nan], [3, np.nan]])


WRONG: dict[str, tuple[Callable[[Path], Path], str]] = {
    "pickles": (lambda path: npz(path, paths=np.array(NAMES, object), vectors=VECTORS), "cannot be read"),
    "objects": (lambda path: npz(path, paths=NAMES, vectors=np.array([[1], [1, 2], [3]], object)), "cannot be read"),
    "no vectors": (lambda path: npz(path, paths=NAMES), "no array `vector`"),
    "no paths": (lambda path: npz(path, vectors=VECTORS), "no array `paths`"),
    "numbers as paths": (lambda path: npz(path, paths=[1, 2, 3], vectors=VECTORS), "no texts"),
    "fewer paths": (lambda path: npz(path, paths=NAMES[:2], vectors=VECTORS), "2 paths and 3 vectors"),
    "no matrix": (lambda path: npz(path, paths=NAMES, vectors=VECTORS[0]), "shape"),
    "complex": (lambda path: npz(path, paths=NAMES, vectors=VECTORS * 1j), "complex"),
    "texts": (lambda path: npz(path, paths=NAMES, vectors=[["x"]] * 3), "shape"),
    "empty": (lambda path: npz(path, paths=np.array([], "U1"), vectors=VECTORS[:0]), "shape"),
    "ragged": (lambda path: table(path, path=NAMES, vector=[[1.0], [1.0, 2.0], [3.0]]), "lengths"),
    "no column": (lambda path: table(path, path=NAMES, label=NAMES), "no column of vectors"),
    "rows that are not there": (lambda path: directory(path, table="row,path\n0,a\n1,b\n7,c\n"), "rows"),
    "no column of paths": (lambda path: directory(path, table="row,name\n0,a\n1,b\n2,c\n"), "no column `path`"),
    "longer table": (lambda path: directory(path, VECTORS[:2]), "rows"),
    "not there": (lambda path: path, "cannot be read"),
    "another form": (lambda path: path.write_text("x") and path, "known form"),
}


@pytest.mark.parametrize("form", WRONG)
def test_other_forms_are_refused(tmp_path: Path, form: str) -> None:
    make, message = WRONG[form]
    with pytest.raises(FacedanError, match=message):
        read_embeddings(make(tmp_path / "x"))
