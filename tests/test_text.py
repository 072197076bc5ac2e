from __future__ import annotations

import io
import os
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from facedan_cli import text
from facedan_cli.errors import FacedanError
from facedan_cli.text import BLOCK, blocks, is_binary, one_form, open_given, read_list, read_text, spellings

MARKED = ["utf-8", "utf-8-sig", "utf-16", "utf-32"]
LINES = st.lists(
    st.text(st.characters(exclude_characters="\0\n\r\ufeff", exclude_categories=["Cs"]), min_size=1), min_size=1
)


def entries(content: bytes) -> list[str]:
    return [entry for _, entry in read_list(io.BytesIO(content))]


@given(LINES, st.sampled_from(MARKED), st.sampled_from(["\n", "\r\n", "\r", "\0"]), st.booleans(), st.integers(4, 12))
def test_lines_come_through_every_encoding(lines: list[str], encoding: str, end: str, last: bool, size: int) -> None:
    content = (end.join(lines) + end * last).encode(encoding)
    kept = [line for line in lines if line.encode().strip()]
    assert entries(content) == kept
    decoded = b"".join(blocks(io.BytesIO(content), size)).decode()
    if end != "\0":
        assert decoded == "\n".join(lines) + "\n" * last


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
def test_either_byte_order_is_read(encoding: str) -> None:
    assert entries("\ufeffzoë/1.jpg\nb.jpg".encode(encoding)) == ["zoë/1.jpg", "b.jpg"]


def test_bytes_of_no_encoding_are_kept(tmp_path: Path) -> None:
    assert [os.fsencode(entry) for entry in entries(b"caf\xe9.jpg\r\nb.jpg\n")] == [b"caf\xe9.jpg", b"b.jpg"]
    (tmp_path / "x").write_bytes(b"caf\xe9\r\nb")
    assert read_text(tmp_path / "x").encode("utf-8", "surrogateescape") == b"caf\xe9\nb"


def test_carriage_returns_inside_names_stay_where_lines_end_otherwise() -> None:
    assert entries(b"a\rb.jpg\nc.jpg\n") == ["a\rb.jpg", "c.jpg"]
    assert entries(b"a\rb.jpg\0c\n.jpg\0") == ["a\rb.jpg", "c\n.jpg"]
    assert entries(b"a\x0bb\x1cc\xe2\x80\xa8d.jpg\n") == ["a\x0bb\x1cc\u2028d.jpg"]


def test_a_mark_that_lies_is_said() -> None:
    with pytest.raises(FacedanError, match="begins as UTF-16-LE and does not go on so"):
        entries(b"\xff\xfea")


def test_entries_are_numbered_as_lines_are() -> None:
    content = b"a\n\n \nb\r\n" + b"c\n" * BLOCK
    found = list(read_list(io.BytesIO(content)))
    assert found[:3] == [(1, "a"), (4, "b"), (5, "c")]
    assert found[-1] == (4 + BLOCK, "c")


def test_a_pipe_gives_its_content_as_often_as_it_is_asked(tmp_path: Path) -> None:
    pipe = tmp_path / "list"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(b"x" * 200_000,))
    writer.start()
    for _ in range(2):
        with open_given(pipe) as file:
            assert file.read() == b"x" * 200_000
    writer.join()


def test_what_gives_nothing_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text, "PATIENCE", 0.05)
    os.mkfifo(tmp_path / "list")
    with pytest.raises(FacedanError, match="nothing comes out of the pipe"):
        open_given(tmp_path / "list")
    with pytest.raises(FacedanError, match="a device or a socket"):
        open_given(Path("/dev/zero"))


@pytest.mark.parametrize(
    "content", [b"\xff\xd8\xff\xe0\0\x10JFIF", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\x01", b"\x7fELF\x02\x01"]
)
def test_binary_files_are_told_from_text(content: bytes) -> None:
    assert is_binary(content)


@pytest.mark.parametrize("content", [b"", b"a.jpg\tann\r\n", b"caf\xe9.jpg", b"a.jpg\0b.jpg", "é".encode("utf-16")])
def test_text_is_told_from_binary_files(content: bytes) -> None:
    assert not is_binary(content)


def test_a_name_has_several_spellings() -> None:
    assert one_form("Jose\u0301") == one_form("José") == "José"
    assert {"Jose\u0301/1.jpg", "José/1.jpg"} <= set(spellings("José/1.jpg"))
    assert next(spellings("José\\1.jpg")) == "José\\1.jpg"
    assert "José/1.jpg" in spellings(" José\\1.jpg ")
    assert "José/1.jpg" in spellings(os.fsdecode(b"Jos\xe9/1.jpg"))
    assert list(spellings("a.jpg")) == ["a.jpg"]
