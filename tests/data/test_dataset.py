from __future__ import annotations

import io
import math
import os
import subprocess
from pathlib import Path

import pytest

from facedan_cli.data.dataset import FaceDataset, list_of_paths, read_dataset
from facedan_cli.data.walk import MOST_WAYS, walk
from facedan_cli.errors import FacedanError


def touch(root: Path, *names: str | bytes) -> None:
    for name in names:
        path = root / os.fsdecode(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"image")


def test_a_tree_names_identities_by_its_first_level(tmp_path: Path) -> None:
    touch(tmp_path, "bob/2.JPG", "bob/more/1.png", "ann/1.webp", "loose.pgm")
    touch(tmp_path, "bob/notes.txt", "bob/.hidden.png", ".cache/x.png", "aligned.jsonl")
    folder = read_dataset(tmp_path)
    assert folder.paths == ("ann/1.webp", "bob/2.JPG", "bob/more/1.png", "loose.pgm")
    assert folder.names == ("ann", "bob", "bob", "")
    assert len(folder) == 4


def forbid(monkeypatch: pytest.MonkeyPatch, directory: Path) -> None:
    """Let a directory be one that may not be read; to root all may be."""
    scan = os.scandir

    def guarded(path: str) -> object:
        if Path(path) == directory:
            raise PermissionError(13, "Permission denied")
        return scan(path)

    monkeypatch.setattr(os, "scandir", guarded)


def test_a_directory_that_may_not_be_read_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "ann/1.png", "bob/private/2.png", "bob/1.png")
    forbid(monkeypatch, tmp_path / "bob" / "private")
    folder = read_dataset(tmp_path)
    assert folder.paths == ("ann/1.png", "bob/1.png")
    assert folder.skipped == (("bob/private/", "the directory cannot be read: Permission denied"),)
    forbid(monkeypatch, tmp_path)
    with pytest.raises(FacedanError, match=r"no images .*\./"):
        read_dataset(tmp_path)


def test_whatever_lies_in_a_tree_is_taken_or_counted(tmp_path: Path) -> None:
    touch(tmp_path, "ann/1.jfif", "ann/2.heic", "ann/3.nef", "ann/4.avif", "ann/notes.txt", "ann/more.txt", "ann/x.y")
    touch(tmp_path, "ann/@eaDir/1.jpg", "#recycle/1.jpg", "ann/._1.jpg", ".DS_Store", "aligned.jsonl", "ann/.5.png")
    touch(tmp_path, ".private/1.jpg")
    (tmp_path / "ann" / "subject01.sad").write_bytes(b"GIF87a and so on")
    os.mkfifo(tmp_path / "ann" / "pipe.png")
    os.mkfifo(tmp_path / "ann" / "pipe")
    (tmp_path / "ann" / "gone.png").symlink_to("nowhere")
    folder = read_dataset(tmp_path)
    names = ["1.jfif", "2.heic", "3.nef", "4.avif", "gone.png", "pipe.png", "subject01.sad"]
    assert folder.paths == tuple(f"ann/{name}" for name in names)
    assert folder.skipped == ()
    assert folder.remark == (
        f"passed over in {tmp_path}: 4 other files (2 .txt, 1 .y, 1 without a suffix) and "
        "2 hidden images or directories"
    )


def test_linked_folders_are_followed(tmp_path: Path) -> None:
    touch(tmp_path, "elsewhere/1.png")
    (tmp_path / "faces").mkdir()
    (tmp_path / "faces" / "ann").symlink_to(tmp_path / "elsewhere")
    assert read_dataset(tmp_path / "faces").paths == ("ann/1.png",)


def test_links_that_lead_back_are_not_followed(tmp_path: Path) -> None:
    touch(tmp_path, "faces/ann/1.png", "more/bob/2.png")
    (tmp_path / "faces" / "ann" / "up").symlink_to(tmp_path / "faces")
    (tmp_path / "faces" / "ann" / "here").symlink_to(".")
    (tmp_path / "faces" / "more").symlink_to(tmp_path / "more")
    (tmp_path / "more" / "bob" / "back").symlink_to(tmp_path / "faces" / "ann")
    (tmp_path / "faces" / "lost").symlink_to(tmp_path / "nothing")
    (tmp_path / "faces" / "turning").symlink_to("turning")
    (tmp_path / "more" / "up").symlink_to("..")
    paths = read_dataset(tmp_path / "faces").paths
    assert paths == ("ann/1.png", "more/bob/2.png", "more/bob/back/1.png")


@pytest.mark.parametrize("root", ["../faces", "../bob/../faces", "link", "link/../faces", "."])
def test_identities_do_not_depend_on_how_the_root_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, root: str
) -> None:
    touch(tmp_path, "faces/ann/1.png", "bob/2.png")
    (tmp_path / "faces" / "bob").symlink_to(tmp_path / "bob")
    (tmp_path / "bob" / "link").symlink_to(tmp_path / "faces")
    monkeypatch.chdir(tmp_path / ("faces" if root == "." else "bob"))
    assert read_dataset(Path(root)).paths == ("ann/1.png", "bob/2.png")


def test_a_list_file_names_images_and_identities(tmp_path: Path) -> None:
    touch(tmp_path, "a b/1.png", "2.png")
    path = tmp_path / "list.txt"
    path.write_text("# chosen by hand\n2.png\tbob\n\na b/1.png\n2.png\tbob\n", encoding="utf-8")
    folder = read_dataset(path)
    assert folder.root == tmp_path
    assert folder.paths == ("2.png", "a b/1.png", "2.png")
    assert folder.names == ("bob", "", "bob")


def test_a_list_that_cannot_be_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    touch(tmp_path, "1.png")
    path.write_text("gone.png\tbob\n", encoding="utf-8")
    with pytest.raises(FacedanError, match=r"gone\.png"):
        read_dataset(path)
    path.write_text("# nothing\n", encoding="utf-8")
    with pytest.raises(FacedanError, match="lists no images"):
        read_dataset(path)
    path.write_bytes(b"\xff\xd8\xff\xe0\x00\x10JFIF")
    with pytest.raises(FacedanError, match="is not a list of images"):
        read_dataset(path)


def test_nothing_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(FacedanError, match="does not exist"):
        read_dataset(tmp_path / "missing")
    with pytest.raises(FacedanError, match="holds no images"):
        read_dataset(tmp_path)


def test_the_fingerprint_is_of_the_images_and_not_of_their_place(tmp_path: Path) -> None:
    for copy in ("one", "two"):
        touch(tmp_path / copy, "ann/1.png", "bob/1.png")
    one, two = read_dataset(tmp_path / "one"), read_dataset(tmp_path / "two")
    assert one.fingerprint == two.fingerprint
    changed = {one.fingerprint, FaceDataset(one.root, one.paths, ("ann", "eve")).fingerprint}
    (tmp_path / "two" / "ann" / "1.png").write_bytes(b"other image")
    changed.add(read_dataset(tmp_path / "two").fingerprint)
    (tmp_path / "two" / "ann" / "1.png").rename(tmp_path / "two" / "ann" / "2.png")
    changed.add(read_dataset(tmp_path / "two").fingerprint)
    changed.add(FaceDataset(one.root, ("gone.png", *one.paths), ("ann", *one.names)).fingerprint)
    assert len(changed) == 5


def test_what_was_written_or_replaced_since_is_told(tmp_path: Path) -> None:
    touch(tmp_path, "ann/1.png", "bob/1.png")
    folder = read_dataset(tmp_path)
    now = max((tmp_path / path).stat().st_ctime for path in folder.paths)
    os.utime(tmp_path / "ann" / "1.png", (1, 2))
    os.utime(tmp_path / "bob" / "1.png", (4, 3))  # which leaves when its status changed
    written, changed = folder.newest_times()
    assert written == 3
    assert now <= changed < now + 60
    (tmp_path / "bob" / "1.png").unlink()
    assert folder.newest_times() == (math.inf, math.inf)


def test_names_need_not_be_utf8(tmp_path: Path) -> None:
    touch(tmp_path, b"zo\xeb/1.png")
    folder = read_dataset(tmp_path)
    assert os.fsencode(folder.names[0]) == b"zo\xeb"
    assert len(folder.fingerprint) == 64


def test_a_stream_of_paths_keeps_order_and_repetitions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "a.png", "b c.png")
    monkeypatch.chdir(tmp_path)
    folder = list_of_paths(io.BytesIO(b"b c.png\n\na.png\r\ngone.png\nb c.png"))
    assert folder.paths == ("b c.png", "a.png", "gone.png", "b c.png")
    assert set(folder.names) == {""}
    with pytest.raises(FacedanError, match="the list of images is empty"):
        list_of_paths(io.BytesIO(b"\n"))
    with pytest.raises(FacedanError, match=r"x\.png"):
        list_of_paths(io.BytesIO(b"x.png\ny.png"))


def test_links_that_are_doubled_many_times_come_to_an_end(tmp_path: Path) -> None:
    depth = 24
    touch(tmp_path, f"{depth}/1.png", "alone/1.png")
    for level in range(depth):
        (tmp_path / str(level)).mkdir()
        for link in "ab":
            (tmp_path / str(level) / link).symlink_to(f"../{level + 1}")
    paths = list(walk(tmp_path / "0"))
    assert len(paths) == len(set(paths)) == MOST_WAYS
    assert paths[0] == "a/" * depth + "1.png"
    (tmp_path / "root").mkdir()
    for link in ("ann", "bob"):  # a few links to one directory are each what they say
        (tmp_path / "root" / link).symlink_to("../alone")
    assert list(walk(tmp_path / "root")) == ["ann/1.png", "bob/1.png"]


def test_a_tree_deeper_than_calls_may_be_nested_is_walked(tmp_path: Path) -> None:
    deep = tmp_path / "root"
    for _ in range(1500):
        deep.mkdir()
        deep /= "d"
    touch(deep.parent, "1.png")
    try:
        assert list(walk(tmp_path)) == [f"root/{'d/' * 1499}1.png"]
    finally:
        subprocess.run(["rm", "-r", tmp_path / "root"], check=True)  # what Python has for it nests as many calls
