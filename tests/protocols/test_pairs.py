from __future__ import annotations

from pathlib import Path

import pytest

from facedan_cli.errors import FacedanError
from facedan_cli.protocols.pairs import Pair, read_pairs


def read(tmp_path: Path, content: str | bytes) -> list[Pair]:
    path = tmp_path / "pairs.txt"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return read_pairs(path)


LFW = "2\t1\nAbel_Pacheco\t1\t4\nAbdel_Madi_Shabneh\t1\tDean_Barker\t1\nAl_Gore\t8\t12\nAl_Gore\t3\tDean_Barker\t10\n"


@pytest.mark.parametrize("content", [LFW, LFW.replace("\t", "  "), LFW.replace("\n", "\r\n"), "\ufeff" + LFW])
def test_lfw_pairs_in_folds(tmp_path: Path, content: str) -> None:
    assert read(tmp_path, content) == [
        Pair("Abel_Pacheco/Abel_Pacheco_0001", "Abel_Pacheco/Abel_Pacheco_0004", True, 0),
        Pair("Abdel_Madi_Shabneh/Abdel_Madi_Shabneh_0001", "Dean_Barker/Dean_Barker_0001", False, 0),
        Pair("Al_Gore/Al_Gore_0008", "Al_Gore/Al_Gore_0012", True, 1),
        Pair("Al_Gore/Al_Gore_0003", "Dean_Barker/Dean_Barker_0010", False, 1),
    ]


def test_lfw_development_list_has_one_fold(tmp_path: Path) -> None:
    pairs = read(tmp_path, "2\nA\t1\t2\nB\t1\t2\nA\t1\tB\t1\nA\t2\tB\t2\n")
    assert [(pair.same, pair.fold) for pair in pairs] == [(True, 0), (True, 0), (False, 0), (False, 0)]


PLAIN = [Pair("s1/1.pgm", "s1/2.pgm", True), Pair("s1/1.pgm", "s2/1.pgm", False)]


@pytest.mark.parametrize(
    "content",
    [
        "s1/1.pgm s1/2.pgm 1\ns1/1.pgm s2/1.pgm 0\n",
        "s1/1.pgm\ts1/2.pgm\tsame\ns1/1.pgm\ts2/1.pgm\tdifferent\n",
        "s1/1.pgm,s1/2.pgm,Same\ns1/1.pgm, s2/1.pgm, Different",
        "path_a,path_b,label\ns1/1.pgm,s1/2.pgm,1\ns1/1.pgm,s2/1.pgm,0\n",
        "a b label\r\ns1/1.pgm s1/2.pgm 1\r\n\r\ns1/1.pgm s2/1.pgm 0\r\n",
        "# of the test people\n\ns1/1.pgm   s1/2.pgm   1\n  # half-way\ns1/1.pgm s2/1.pgm 0\n",
    ],
)
def test_plain_lists(tmp_path: Path, content: str) -> None:
    assert read(tmp_path, content) == PLAIN


@pytest.mark.parametrize("content", ["my faces/1 a.jpg\tmy faces/2.jpg\t1\n", "my faces/1 a.jpg,my faces/2.jpg,1\n"])
def test_paths_with_blanks(tmp_path: Path, content: str) -> None:
    assert read(tmp_path, content) == [Pair("my faces/1 a.jpg", "my faces/2.jpg", True)]


def test_quoted_paths_with_commas(tmp_path: Path) -> None:
    assert read(tmp_path, '"Gore, Al/1.jpg",b.jpg,0\n') == [Pair("Gore, Al/1.jpg", "b.jpg", False)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a.jpg b.jpg 1\na.jpg c.jpg\n", "line 2: 2 columns instead of two paths and a label"),
        ("a.jpg b.jpg 1\n\nmy a.jpg c.jpg 0\n", "line 3: 4 columns"),
        ("a.jpg b.jpg smae\n", "line 1: 'smae' is not 1, same, 0 or different"),
        ("a.jpg b.jpg 1\na b label\n", "line 2: 'label' is not"),
        ("a.jpg,,1\n", "line 1: .*a path is empty"),
        ("a.jpg b.jpg 1\na.jpg ../../b.jpg 0\n", "line 2: a path climbs out of the directory"),
        ("a.jpg,/etc/passwd,1\n", "line 1: a path climbs out"),
        (r"a.jpg,C:\faces\b.jpg,1", "line 1: a path climbs out"),
        ("1\nA 1 2\n../A 1 B 2\n", "line 3: a path climbs out"),
        ("", "holds no pair"),
        ("# nothing\npath_a,path_b,label\n", "holds no pair"),
        ("1 2\n" + "A 1 2\n" * 3, "promises 4 pairs, but 3 follow"),
        ("1\nA 1 2\nA 1 B b\n", "line 3: neither 'name n1 n2' nor"),
        (b"\xff\xfe\x00", "begins as UTF-16-LE and does not go on so"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\x01", "is not text"),
    ],
)
def test_malformed_lists_are_refused_with_the_line(tmp_path: Path, content: str | bytes, message: str) -> None:
    with pytest.raises(FacedanError, match=message) as error:
        read(tmp_path, content)
    assert error.value.fix


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FacedanError, match="cannot read the list of pairs"):
        read_pairs(tmp_path / "pairs.txt")


@pytest.mark.parametrize("line", ["a" * 200_000 + ",b,1", "a\rb,c,1"])
def test_a_line_that_is_no_csv_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "pairs.csv"
    path.write_bytes(f"a,b,1\n{line}\n".encode())
    with pytest.raises(FacedanError, match="line 2"):
        read_pairs(path)
