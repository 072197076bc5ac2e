from __future__ import annotations

import os
import threading
import unicodedata
from pathlib import Path

import pytest

from facedan_cli.data.dataset import read_dataset
from facedan_cli.errors import FacedanError

NFC, NFD = (unicodedata.normalize(form, "José") for form in ("NFC", "NFD"))


def touch(root: Path, *names: str | bytes) -> None:
    for name in names:
        path = root / os.fsdecode(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"image")


def listed(root: Path, text: str | bytes, encoding: str = "utf-8") -> Path:
    path = root / "list.txt"
    path.write_bytes(text if isinstance(text, bytes) else text.encode(encoding))
    return path


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", "\0"])
def test_lists_in_every_encoding_name_the_same(tmp_path: Path, encoding: str, end: str) -> None:
    touch(tmp_path, "zoë/1.png", "b.png")
    text = end.join(["# by hand", "zoë/1.png\tZoë", "b.png\tBob", ""])
    folder = read_dataset(listed(tmp_path, text, encoding))
    assert (folder.paths, folder.names) == (("zoë/1.png", "b.png"), ("Zoë", "Bob"))


def test_missing_files_cost_the_others_nothing(tmp_path: Path) -> None:
    touch(tmp_path, "1.png")
    folder = read_dataset(listed(tmp_path, "gone.png\tann\n1.png\tbob\n"))
    assert (folder.paths, folder.names) == (("gone.png", "1.png"), ("ann", "bob"))


def test_images_are_found_in_another_form_than_listed(tmp_path: Path) -> None:
    touch(tmp_path, f"{NFD}/1.png", "a/2.png", b"caf\xe9.png", "é.png", "with\ttab.png", "#1.png")
    entries = [f"{NFC}/1.png", "a\\2.png", "  a/2.png ", "with\ttab.png", "#1.png"]
    folder = read_dataset(listed(tmp_path, "\n".join(entries).encode() + b"\ncaf\xe9.png\n\xe9.png\n"))
    assert folder.paths[:5] == (f"{NFD}/1.png", "a/2.png", "a/2.png", "with\ttab.png", "#1.png")
    assert [os.fsencode(path) for path in folder.paths[5:]] == [b"caf\xe9.png", "é.png".encode()]


def test_one_file_under_two_identities_is_left_out_and_said(tmp_path: Path) -> None:
    touch(tmp_path, "1.png", "2.png", "3.png")
    (tmp_path / "link.png").symlink_to("1.png")
    os.link(tmp_path / "2.png", tmp_path / "hard.png")
    text = "1.png\tann\n./link.png\tbob\n2.png\tann\nhard.png\tcid\n3.png\tann\n3.png\tann\n"
    folder = read_dataset(listed(tmp_path, text))
    assert (folder.paths, folder.names) == (("3.png", "3.png"), ("ann", "ann"))
    assert dict(folder.skipped) == {
        "1.png": "it is listed under 2 identities: ann, bob",
        "./link.png": "it is listed under 2 identities: ann, bob",
        "2.png": "it is listed under 2 identities: ann, cid",
        "hard.png": "it is listed under 2 identities: ann, cid",
    }
    with pytest.raises(FacedanError, match="lists no images that can be taken"):
        read_dataset(listed(tmp_path, "1.png\tann\n1.png\tbob\n"))


def test_a_line_with_more_columns_is_left_out_and_said(tmp_path: Path) -> None:
    touch(tmp_path, "1.png", "2.png", "with\ttab.png")
    folder = read_dataset(listed(tmp_path, "1.png\tann\tfemale\n2.png\tbob\nwith\ttab.png\n"))
    assert (folder.paths, folder.names) == (("2.png", "with\ttab.png"), ("bob", ""))
    assert dict(folder.skipped) == {"1.png": "its line has 3 columns, not a path and an identity"}
    with pytest.raises(FacedanError, match="lists no images that can be taken"):
        read_dataset(listed(tmp_path, "1.png\tann\t1\n2.png\tann\t2\n"))


def test_names_of_identities_have_one_form(tmp_path: Path) -> None:
    touch(tmp_path, "1.png", "2.png")
    assert read_dataset(listed(tmp_path, f"1.png\t{NFC}\n2.png\t{NFD}\n1.png\t{NFD}\n")).names == (NFC,) * 3
    touch(tmp_path / "tree", f"{NFC}/1.png", f"{NFD}/2.png", "bob/1.png")
    folder = read_dataset(tmp_path / "tree")
    assert sorted(folder.names) == sorted([NFC, NFC, "bob"])
    assert f"{NFC}: folders of one name in two Unicode forms" in folder.remark


def test_a_pipe_is_a_list_whose_paths_start_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "here/1.png")
    monkeypatch.chdir(tmp_path / "here")
    os.mkfifo(tmp_path / "list")
    writer = threading.Thread(target=(tmp_path / "list").write_text, args=("1.png\tann\n",))
    writer.start()
    folders = [read_dataset(tmp_path / "list") for _ in range(2)]
    writer.join()
    assert [(folder.root, folder.paths) for folder in folders] == [(Path(), ("1.png",))] * 2
