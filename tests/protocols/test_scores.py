from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from facedan_cli.errors import FacedanError
from facedan_cli.protocols import scores as module
from facedan_cli.protocols.scores import Scores, read_scores


def read(tmp_path: Path, content: str | bytes) -> Scores:
    path = tmp_path / "scores.txt"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return read_scores(path)


TWO = "1 0.9\n0 0.25\n-1 -1e-3\n1 2\n"


@pytest.mark.parametrize(
    "content",
    [
        TWO,
        TWO.rstrip(),
        TWO.replace(" ", "\t"),
        TWO.replace("\n", "\r\n"),
        TWO.replace(" ", ","),
        TWO.replace(" ", " , "),
        "# label score\n\n" + TWO + "  # the end\n",
        "+1 0.9\n0.0 0.25\n-1.0 -0.001\n1.0 +2.0\n",
        gzip.compress(TWO.encode()),
    ],
)
def test_two_columns(tmp_path: Path, content: str | bytes) -> None:
    found = read(tmp_path, content)
    assert (found.genuine.tolist(), found.impostor.tolist()) == ([0.9, 2.0], [0.25, -0.001])
    assert found.genuine_subject is None
    assert found.impostor_subjects is None


FOUR = "al al a/1 0.75\nal bo b/1 -0.5\nbo bo b/1 0.25\nbo cy c/1 0.125\n"
FIVE = "al m1 al a/1 0.75\nal m1 bo b/1 -0.5\nbo m2 bo b/1 0.25\nbo m2 cy c/1 0.125\n"


@pytest.mark.parametrize("content", [FOUR, FIVE, FOUR.replace(" ", "\t"), FOUR.replace("a/1", "a,1")])
def test_bob_columns_tell_the_subjects(tmp_path: Path, content: str) -> None:
    found = read(tmp_path, content)
    assert (found.genuine.tolist(), found.impostor.tolist()) == ([0.75, 0.25], [-0.5, 0.125])
    assert found.genuine_subject is not None
    assert found.impostor_subjects is not None
    al, bo = found.genuine_subject
    claimed, real = found.impostor_subjects
    assert claimed.tolist() == [al, bo]
    assert real[0] == bo
    assert len({al, bo, int(real[1])}) == 3


def test_infinite_scores_are_scores(tmp_path: Path) -> None:
    found = read(tmp_path, "1 inf\n0 -inf\n")
    assert (found.genuine.tolist(), found.impostor.tolist()) == ([np.inf], [-np.inf])


@pytest.mark.parametrize(
    "word", ["nan", "NaN", "-nan", "+NAN", "nan(ind)", "-nan(0x7fc00000)", "1.#QNAN", "-1.#IND00", "NA", "N/A", "null"]
)
def test_what_has_no_score_could_not_be_acquired(tmp_path: Path, word: str) -> None:
    found = read(tmp_path, f"1 0.5\n0 {word}\n1 {word}\n0 0.25\n0 {word}\n")
    assert (found.genuine.tolist(), found.impostor.tolist()) == ([0.5], [0.25])
    assert (len(found.failed_subject), found.failed_impostor) == (1, 2)
    found = read(tmp_path, f"al al a 0.5\nal bo b {word}\nbo bo b {word}\nbo al c 0.25\n")
    assert found.genuine_subject is not None
    assert (found.failed_impostor, len(found.failed_subject)) == (1, 1)
    assert found.failed_subject[0] != found.genuine_subject[0]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("# a\n\n1 0.5\n0 nano\n", "line 4: the last column is no number: 0 nano"),
        ("1 0.5\n2 0.5\n", "line 2: the label is not 1, 0 or -1: 2 0.5"),
        ("0.5 1\n", "line 1: the label is not"),
        ("1 0.5\n0 high\n", "line 2: the last column is no number"),
        ("1 0.5\n0\n", "line 2: 1 columns where the lines before it have 2"),
        ("1 0.5 0\n0.5 0 0.5\n", "line 1: 3 columns instead of 2, 4 or 5"),
        ("# comment\n0.5\n", "line 2: 1 columns instead of 2, 4 or 5"),
        ("1 0.5\n0 0.5 1\n0.25\n", "line 2: 3 columns where"),  # as many columns as three whole lines have
        (FIVE + "al bo b/1 0.5\n", "line 5: 4 columns where the lines before it have 5"),
        (FOUR + "al bo b/1 1.#INF?\n", "line 5: the last column is no number"),
        (b"\x89PNG\r\n\x1a\n\x00\x00 x", "line 1: .*columns|line 1: the last"),
        (b"1 " + b"0" * 70_000, "line 1: the last column|line 1"),
        ("", "holds no score"),
        ("# nothing\n\n", "holds no score"),
        (gzip.compress(TWO.encode())[:-9], "is damaged"),
        (b"\x1f\x8b no gzip", "is damaged"),
        (gzip.compress(TWO.encode())[:12] + bytes(40), "is damaged"),
    ],
)
def test_bad_files_are_refused_with_the_line(tmp_path: Path, content: str | bytes, reason: str) -> None:
    with pytest.raises(FacedanError, match=reason) as error:
        read(tmp_path, content)
    assert error.value.fix


def test_a_compressed_file_without_lines_does_not_fill_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_CHUNK", 1 << 17)
    with pytest.raises(FacedanError, match="line 3 is longer than 65536 bytes"):
        read(tmp_path, gzip.compress(b"1 0.5\n0 0.5\n" + bytes(1 << 24)))


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FacedanError, match=r"scores\.txt: No such file"):
        read_scores(tmp_path / "scores.txt")


words = st.text("abcé/_-,.", min_size=1, max_size=4)
finite = st.floats(allow_nan=False)
rows = st.lists(st.tuples(words, words, words, finite), min_size=1, max_size=30)


@given(rows=rows, chunk=st.integers(1, 200), five=st.booleans(), end=st.sampled_from(["\n", "\r\n", "\n\n"]))
def test_any_file_of_bob_is_read_as_line_by_line(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str, str, float]], chunk: int, five: bool, end: str
) -> None:
    path = tmp_path_factory.mktemp("scores") / "scores.txt"
    lines = (f"{claimed} {'model ' * five}{real} {probe} {score!r}{end}" for claimed, real, probe, score in rows)
    path.write_bytes("".join(lines).encode())
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(module, "_CHUNK", chunk)
        found = read_scores(path)
    assert found.genuine.tolist() == [score for claimed, real, _, score in rows if claimed == real]
    assert found.impostor.tolist() == [score for claimed, real, _, score in rows if claimed != real]
    assert found.genuine_subject is not None
    assert found.impostor_subjects is not None
    numbers: dict[str, int] = {}
    coded = [
        *zip((claimed for claimed, real, *_ in rows if claimed == real), found.genuine_subject, strict=True),
        *zip((claimed for claimed, real, *_ in rows if claimed != real), found.impostor_subjects[0], strict=True),
        *zip((real for claimed, real, *_ in rows if claimed != real), found.impostor_subjects[1], strict=True),
    ]
    assert all(numbers.setdefault(name, int(number)) == number for name, number in coded)
    assert len(set(numbers.values())) == len(numbers)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("packed", [False, True])
def test_scores_are_read_in_every_encoding(tmp_path: Path, encoding: str, end: str, packed: bool) -> None:
    content = TWO.replace("\n", end).encode(encoding)
    found = read(tmp_path, gzip.compress(content) if packed else content)
    assert (found.genuine.tolist(), found.impostor.tolist()) == ([0.9, 2], [0.25, -0.001])


def test_subjects_of_one_name_in_two_unicode_forms_are_one(tmp_path: Path) -> None:
    assert read(tmp_path, "Jose\u0301 José 1 0.9\nJosé bob 2 0.1\n").genuine.tolist() == [0.9]
