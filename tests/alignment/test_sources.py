from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from test_recordio import packed
from test_recordio import write as write_rec

from facedan_cli.alignment.source_image import SourceImage
from facedan_cli.alignment.sources import source_images
from facedan_cli.data.images import UnreadableImage, read_image
from facedan_cli.data.walk import PassedOver

Find = Callable[..., list[SourceImage]]


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory, with images of two data sets, one of them in archives."""
    monkeypatch.chdir(tmp_path)
    for name in ("gate/b.jpg", "gate/a.PNG", "gate/.hidden.jpg", "gate/notes.txt", "web/bo/1.jpg", ".cache/x.jpg"):
        (tmp_path / "raw" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "raw" / name).write_bytes(name.encode())
    write_rec(tmp_path / "raw" / "web" / "train.rec", [packed(b"image", 5.0)])
    with tarfile.open(tmp_path / "raw" / "web" / "shard.tgz", "w:gz") as tar:
        header = tarfile.TarInfo("anna/1.jpg")
        header.size = 4
        tar.addfile(header, io.BytesIO(b"face"))
    return tmp_path


def find(raw: str | Path, root: str = ".", out: str = "aligned") -> list[SourceImage]:
    return list(source_images(Path(raw), Path(root), Path(out)))


def reason(image: SourceImage) -> str:
    with pytest.raises(UnreadableImage) as caught:
        image.read()
    return str(caught.value)


def listed(tree: Path, content: bytes) -> Path:
    path = tree / "list.txt"
    path.write_bytes(content)
    return path


def test_a_directory_is_walked_and_its_archives_too(tree: Path) -> None:
    assert [(one.path, one.name, one.read()) for one in find("raw")] == [
        ("gate/a.PNG", "gate/a.PNG", b"gate/a.PNG"),
        ("gate/b.jpg", "gate/b.jpg", b"gate/b.jpg"),
        ("web/shard.tgz/anna/1.jpg", "web/anna/1.jpg", b"face"),
        ("web/train.rec/00000000", "web/0000005/00000000", b"image"),
        ("web/bo/1.jpg", "web/bo/1.jpg", b"web/bo/1.jpg"),
    ]


def test_an_archive_may_stand_alone(tree: Path) -> None:
    assert [(one.path, one.name) for one in find("raw/web/train.rec")] == [("train.rec/00000000", "0000005/00000000")]


def test_an_archive_that_cannot_be_opened_is_listed(tree: Path) -> None:
    (tree / "raw" / "web" / "gone.rec").symlink_to("nowhere")
    (tree / "raw" / "web" / "gone.tar").symlink_to("nowhere")
    broken = [one for one in find("raw") if not one.name]
    assert [one.path for one in broken] == ["web/gone.rec", "web/gone.tar"]
    assert all("No such file" in reason(one) for one in broken)


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\0"])
@pytest.mark.parametrize("last", [True, False])
def test_a_list_names_images_and_archives(tree: Path, end: bytes, last: bool) -> None:
    paths = [b"raw/gate/b.jpg", b"./raw/web/../gate/a.PNG", os.fsencode(tree) + b"/raw/web/train.rec", b"raw/gone.jpg"]
    found = find(listed(tree, end.join(paths) + end * last), root="raw")
    assert [(one.path, one.name) for one in found] == [
        ("gate/b.jpg", "gate/b.jpg"),
        ("gate/a.PNG", "gate/a.PNG"),
        ("web/train.rec/00000000", "web/0000005/00000000"),
        ("gone.jpg", "gone.jpg"),
    ]
    assert [one.read() for one in found[:3]] == [b"gate/b.jpg", b"gate/a.PNG", b"image"]
    assert (found[3].size, found[3].modified) == (0, 0)


def test_odd_names_come_through_a_list(tree: Path) -> None:
    names = [b"new\nline.jpg", b" blank .jpg", b"caf\xe9.jpg", b"tab\t.jpg"]
    for name in names:
        (tree / os.fsdecode(name)).write_bytes(name)
    found = find(listed(tree, b"\0".join(names)))
    assert [os.fsencode(one.path) for one in found] == names
    assert [one.read() for one in found] == names


def test_a_long_list_is_read_in_chunks(tree: Path) -> None:
    paths = [f"raw/{number:05d}.jpg" for number in range(9000)]
    assert [one.path for one in find(listed(tree, "\n".join(paths).encode()))] == paths


def test_what_a_list_may_not_name_is_refused(tree: Path) -> None:
    found = find(listed(tree, b"../x.jpg\n/etc/x.jpg\naligned/1.jpg\nraw/aligned.jpg\n\n"))
    assert [bool(one.name) for one in found] == [False, False, False, True]
    assert ["--root" in reason(one) for one in found[:2]] == [True, True]
    assert reason(found[2]) == "it lies among the aligned faces"


def test_a_directory_that_may_not_be_read_is_listed(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scan = os.scandir

    def guarded(path: str) -> object:
        if Path(path) == Path("raw/web/bo"):
            raise PermissionError(13, "Permission denied")
        return scan(path)

    monkeypatch.setattr(os, "scandir", guarded)
    (lost,) = [one for one in find("raw") if not one.name]
    assert (lost.path, reason(lost)) == ("web/bo/", "the directory cannot be read: Permission denied")


def test_what_is_no_file_is_not_waited_for(tree: Path) -> None:
    os.mkfifo(tree / "raw" / "pipe.tar")
    os.mkfifo(tree / "raw" / "pipe.jpg")
    found = {one.path: one for one in find("raw")}
    assert reason(found["pipe.tar"]) == "the archive cannot be read: a named pipe, not a file"
    with pytest.raises(UnreadableImage, match="a named pipe, not a file"):
        read_image(found["pipe.jpg"].open())


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_lists_are_read_in_their_encoding(tree: Path, encoding: str) -> None:
    found = find(listed(tree, "# all of them\r\nraw\\gate\\b.jpg\r\nraw/gate/a.PNG\r\n".encode(encoding)), root="raw")
    assert [one.path for one in found] == ["gate/b.jpg", "gate/a.PNG"]


def test_other_files_of_a_tree_are_counted(tree: Path) -> None:
    passed = PassedOver()
    list(source_images(Path("raw"), Path(), Path("aligned"), passed))
    assert passed.remark(Path("raw")) == "passed over in raw: 1 other file (1 .txt) and 2 hidden images or directories"
