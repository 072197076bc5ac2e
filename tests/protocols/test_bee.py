from __future__ import annotations

import os
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from facedan_cli.errors import FacedanError
from facedan_cli.protocols import bee
from facedan_cli.protocols.bee import (
    IGNORED,
    MATCH,
    NON_MATCH,
    comparisons,
    read_matrix,
    read_scores_and_mask,
    sigset_beside,
    write_matrix,
)

LITTLE, BIG = b"\x78\x56\x34\x12", b"\x12\x34\x56\x78"
SCORES = np.array([[0.5, -1.5, 3.25], [0.0, np.inf, -7.0]], np.float32)  # two queries, three targets
MARKS = np.array([[MATCH, NON_MATCH, NON_MATCH], [IGNORED, MATCH, NON_MATCH]], np.uint8)


def matrix_bytes(
    *,
    kind: bytes = b"S2",
    names: bytes = b"target.xml\nquery.xml\n",
    sizes: bytes = b"MF 2 3 ",
    magic: bytes = LITTLE,
    body: bytes = struct.pack("<6f", *SCORES.flat),
) -> bytes:
    return kind + b"\n" + names + sizes + magic + b"\n" + body


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(("magic", "order"), [(LITTLE, "<"), (BIG, ">")])
def test_rows_are_queries_in_either_byte_order(tmp_path: Path, magic: bytes, order: str) -> None:
    body = struct.pack(f"{order}6f", *SCORES.flat)
    matrix = read_matrix(write(tmp_path / "a.mtx", matrix_bytes(magic=magic, body=body)))
    assert (matrix.kind, matrix.distance) == ("scores", False)
    assert (matrix.target_sigset, matrix.query_sigset) == ("target.xml", "query.xml")
    assert matrix.values.shape == (2, 3)
    assert isinstance(matrix.values, np.memmap)
    np.testing.assert_array_equal(matrix.values, SCORES)
    similarities = matrix.similarities()
    assert similarities.dtype.isnative
    np.testing.assert_array_equal(similarities, SCORES)


def test_distances_are_negated(tmp_path: Path) -> None:
    matrix = read_matrix(write(tmp_path / "a.mtx", matrix_bytes(kind=b"D2")))
    assert matrix.distance
    np.testing.assert_array_equal(matrix.values, SCORES)
    np.testing.assert_array_equal(matrix.similarities(slice(1, 2)), -SCORES[1:])


@pytest.mark.parametrize("kind", [b"M2", b"S2", b"D2", b"M2\r"])
def test_a_mask_is_told_by_mb(tmp_path: Path, kind: bytes) -> None:
    matrix = read_matrix(write(tmp_path / "m.mtx", matrix_bytes(kind=kind, sizes=b"MB 2 3 ", body=MARKS.tobytes())))
    assert (matrix.kind, matrix.distance) == ("mask", False)
    np.testing.assert_array_equal(matrix.values, MARKS)


def test_names_may_be_empty_or_no_utf_8(tmp_path: Path) -> None:
    matrix = read_matrix(write(tmp_path / "a.mtx", matrix_bytes(names=b"\n caf\xe9.xml \r\n")))
    assert (matrix.target_sigset, matrix.query_sigset) == ("", "caf\udce9.xml")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "line 1: neither S2, D2 nor M2"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "line 1: neither"),
        (matrix_bytes(kind=b"S3"), "line 1: neither"),
        (b"S2", "line 2: the name of a sigset is cut short"),
        (b"S2\ntarget.xml", "line 2: .* cut short"),
        (b"S2\ntarget.xml\nquery", "line 3: .* cut short"),
        (matrix_bytes(names=b"x" * 5000 + b"\n\n"), "line 2: .* longer than 4096 bytes"),
        (b"S2\n\n\n", "line 4: not 'MF' or 'MB'"),
        (matrix_bytes(sizes=b"MD 2 3 "), "line 4: not 'MF' or 'MB'"),
        (matrix_bytes(sizes=b"MF -2 3 "), "line 4: not"),
        (matrix_bytes(sizes=b"MF 2 "), "line 4: not"),
        (matrix_bytes(sizes=b"MF 2 1" + b"0" * 30 + b" "), "line 4: not"),
        (matrix_bytes(sizes="MF 2 ٣ ".encode()), "line 4: not"),
        (matrix_bytes(magic=b"\x12\x34\x56\x79"), "line 4: the byte order is given as 0x12345679"),
        (matrix_bytes(magic=b"\x0a\x0a\x0a\x0a"), "line 4"),
        (matrix_bytes(magic=b""), "line 4: not"),
        (matrix_bytes(sizes=b"MF 0 3 ", body=b""), "line 4: a matrix of 0 queries and 3 targets holds nothing"),
        (matrix_bytes(sizes=b"MF 3 3 "), "3×3 values need 36 bytes, 24 follow line 4: the file is cut short"),
        (matrix_bytes(sizes=b"MF 999999999 999999999 "), "need 3999999992000000004 bytes, 24 follow"),
        (matrix_bytes(sizes=b"MB 2 3 "), "need 6 bytes, 24 follow line 4: the file goes on after its last value"),
        (matrix_bytes()[:-1], "cut short"),
        (matrix_bytes() + b"\n", "goes on after its last value"),
    ],
)
def test_hostile_files_are_refused_with_place_and_reason(tmp_path: Path, content: bytes, reason: str) -> None:
    with pytest.raises(FacedanError, match=rf"a\.mtx, .*{reason}") as error:
        read_matrix(write(tmp_path / "a.mtx", content))
    assert error.value.fix


@given(content=st.binary(max_size=60), cut=st.integers(0, 90))
def test_no_content_raises_anything_else(tmp_path_factory: pytest.TempPathFactory, content: bytes, cut: int) -> None:
    path = tmp_path_factory.mktemp("bee") / "a.mtx"
    path.write_bytes(matrix_bytes()[:cut] + content)
    try:
        matrix = read_matrix(path)
    except FacedanError:
        return
    assert matrix.values.nbytes < path.stat().st_size


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FacedanError, match=r"cannot read the matrix .*a\.mtx"):
        read_matrix(tmp_path / "a.mtx")


def test_the_bytes_that_are_written(tmp_path: Path) -> None:
    write_matrix(tmp_path / "a.mtx", SCORES, "query.xml", "target.xml")
    assert (tmp_path / "a.mtx").read_bytes() == matrix_bytes()
    write_matrix(tmp_path / "m.mtx", MARKS, "query.xml", "target.xml", kind="mask")
    expected = matrix_bytes(kind=b"M2", sizes=b"MB 2 3 ", body=MARKS.tobytes())
    assert (tmp_path / "m.mtx").read_bytes() == expected


shapes = arrays.array_shapes(min_dims=2, max_dims=2, max_side=6)


@given(values=arrays.arrays(np.float32, shapes))
def test_what_is_written_is_read_back(tmp_path_factory: pytest.TempPathFactory, values: np.ndarray) -> None:
    path = tmp_path_factory.mktemp("bee") / "a.mtx"
    write_matrix(path, values, "q", "t")
    matrix = read_matrix(path)
    assert matrix.values.tobytes() == values.astype("<f4").tobytes()
    assert [entry.name for entry in path.parent.iterdir()] == ["a.mtx"]


def test_other_orders_and_types_are_converted(tmp_path: Path) -> None:
    write_matrix(tmp_path / "a.mtx", np.asfortranarray(SCORES.astype(">f8")), "query.xml", "target.xml")
    assert (tmp_path / "a.mtx").read_bytes() == matrix_bytes()


def test_wrong_values_leave_no_file(tmp_path: Path) -> None:
    path = tmp_path / "a.mtx"
    with pytest.raises(ValueError, match="a mask is of uint8, not float32"):
        write_matrix(path, SCORES, "q", "t", kind="mask")
    with pytest.raises(ValueError, match="the shape of a matrix"):
        write_matrix(path, SCORES[None], "q", "t")
    with pytest.raises(ValueError, match="one line"):
        write_matrix(path, SCORES, "q", "t\nMF 1 1")
    assert not list(tmp_path.iterdir())


def test_scores_and_mask_must_belong_together(tmp_path: Path) -> None:
    scores, mask = tmp_path / "s.mtx", tmp_path / "m.mtx"
    write_matrix(scores, SCORES, "q", "t")
    write_matrix(mask, MARKS, "q", "t", kind="mask")
    assert [matrix.kind for matrix in read_scores_and_mask(scores, mask)] == ["scores", "mask"]
    with pytest.raises(FacedanError, match=r"m\.mtx holds a mask"):
        read_scores_and_mask(mask, scores)
    with pytest.raises(FacedanError, match=r"s\.mtx holds scores, where mask should stand"):
        read_scores_and_mask(scores, scores)
    write_matrix(mask, MARKS.T, "t", "q", kind="mask")
    with pytest.raises(FacedanError, match=r"2 queries × 3 targets, its mask .* 3 × 2"):
        read_scores_and_mask(scores, mask)


@pytest.mark.parametrize("block", [1, 3, 7, 1 << 20])
def test_comparisons_come_in_blocks_of_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(bee, "_BLOCK", block)
    rng = np.random.default_rng(0)
    values = rng.normal(size=(5, 3)).astype(np.float32)
    marks = rng.choice(np.array([MATCH, NON_MATCH, IGNORED], np.uint8), (5, 3))
    values[marks == IGNORED] = np.nan
    write(tmp_path / "s.mtx", matrix_bytes(kind=b"D2", sizes=b"MF 5 3 ", body=values.astype("<f4").tobytes()))
    write_matrix(tmp_path / "m.mtx", marks, "q", "t", kind="mask")
    rows, similarities, masks = zip(
        *comparisons(*read_scores_and_mask(tmp_path / "s.mtx", tmp_path / "m.mtx")), strict=True
    )
    assert [place for part in rows for place in range(part.start, part.stop)] == list(range(5))
    assert max(part.stop - part.start for part in rows) <= max(1, block // 3)
    np.testing.assert_array_equal(np.concatenate(similarities), -values)
    np.testing.assert_array_equal(np.concatenate(masks), marks)


def test_wrong_cells_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bee, "_BLOCK", 3)
    scores, mask = tmp_path / "s.mtx", tmp_path / "m.mtx"
    values, marks = SCORES.copy(), MARKS.copy()
    values[1, 2], marks[1, 1] = np.nan, 0x80
    write_matrix(scores, values, "q", "t")
    write_matrix(mask, marks, "q", "t", kind="mask")
    with pytest.raises(FacedanError, match=r"query 2, target 2: 0x80"):
        list(comparisons(*read_scores_and_mask(scores, mask)))
    write_matrix(mask, MARKS, "q", "t", kind="mask")
    found = np.concatenate([block for _, block, _ in comparisons(*read_scores_and_mask(scores, mask))])
    assert np.argwhere(np.isnan(found)).tolist() == [[1, 2]]  # a comparison that could not be made


def test_sigsets_are_looked_for_beside_the_matrix_only(tmp_path: Path) -> None:
    write(tmp_path / "outside.xml", b"")
    beside = tmp_path / "matrices"
    beside.mkdir()
    write_matrix(beside / "a.mtx", SCORES, "q", "t")
    write(beside / "target.xml", b"")
    matrix = read_matrix(beside / "a.mtx")
    for name in ("target.xml", "/somewhere/else/target.xml", r"D:\lists\target.xml", "../target.xml"):
        assert sigset_beside(matrix, name) == beside / "target.xml"
    for name in ("", "..", ".", "../outside.xml", "query.xml", "x" * 300):
        assert sigset_beside(matrix, name) is None


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "scores.mtx")
    with pytest.raises(FacedanError, match="no regular file"):
        read_matrix(tmp_path / "scores.mtx")
