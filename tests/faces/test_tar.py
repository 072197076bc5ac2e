from __future__ import annotations

import gzip
import io
import tarfile
from pathlib import Path

import pytest

from facedan_cli.faces.photograph import Photograph
from facedan_cli.faces.pictures import UnreadableImage
from facedan_cli.faces.tar import TAR_SUFFIXES, tar_photographs

MODES = {".tar": "w", ".tar.gz": "w:gz", ".tgz": "w:gz", ".tar.bz2": "w:bz2", ".tar.xz": "w:xz"}


def write(archive: Path, files: dict[str, bytes], *, form: int = tarfile.PAX_FORMAT) -> None:
    mode = next(mode for suffix, mode in MODES.items() if archive.name.endswith(suffix))
    with tarfile.open(archive, mode, format=form) as tar:
        for name, content in files.items():
            header = tarfile.TarInfo(name)
            header.size, header.mtime = len(content), 1_600_000_000
            tar.addfile(header, io.BytesIO(content))


def names(archive: Path, path: str = "web/shard.tar") -> list[str]:
    return [one.name for one in tar_photographs(archive, path)]


def reason(photograph: Photograph) -> str:
    with pytest.raises(UnreadableImage) as caught:
        photograph.read()
    return str(caught.value)


def test_every_suffix_has_its_test() -> None:
    assert set(TAR_SUFFIXES) == MODES.keys()


@pytest.mark.parametrize("suffix", MODES)
@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_photographs_take_their_names_beside_the_archive(tmp_path: Path, suffix: str, form: int) -> None:
    archive = tmp_path / f"shard{suffix}"
    long = "anna/" + "x" * 90 + ".JPG" if form == tarfile.USTAR_FORMAT else "anna/" + "x" * 150 + ".JPG"
    files = {"./bo/1.png": b"one", "notes.txt": b"no", "bo/._1.png": b"no", long: b"two" * 999, "3.webp": b""}
    write(archive, files, form=form)
    path = f"web/shard{suffix}"
    found = [
        (one.path, one.name, one.size, one.modified, one.read())
        for one in tar_photographs(archive, f"web/shard{suffix}")
    ]
    assert found == [
        (f"{path}/bo/1.png", "web/bo/1.png", 3, 1_600_000_000, b"one"),
        (f"{path}/{long}", f"web/{long}", 2997, 1_600_000_000, b"two" * 999),
        (f"{path}/3.webp", "web/3.webp", 0, 1_600_000_000, b""),
    ]


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz"])
def test_a_class_beside_a_photograph_names_its_folder(tmp_path: Path, suffix: str) -> None:
    archive = tmp_path / f"shard{suffix}"
    files = {"000.jpg": b"a", "000.cls": b"17\n", "001.cls": b"anna", "001.left.png": b"b", "001.right.png": b"c"}
    write(archive, files | {"002.jpg": b"d"})
    assert names(archive) == ["web/17/000.jpg", "web/anna/001.left.png", "web/anna/001.right.png", "web/002.jpg"]


@pytest.mark.parametrize("label", [b"..", b"a/b", b"", b"/", b"x\0y"])
def test_a_class_that_names_no_folder_sets_its_photograph_aside(tmp_path: Path, label: bytes) -> None:
    write(tmp_path / "shard.tar", {"000.cls": label, "000.jpg": b"a", "001.jpg": b"b"})
    bad, good = tar_photographs(tmp_path / "shard.tar", "shard.tar")
    assert (bad.path, bad.name) == ("shard.tar/000.jpg", "")
    assert reason(bad) == "its .cls does not name a folder"
    assert good.name == "001.jpg"


@pytest.mark.parametrize("name", ["../x.jpg", "/etc/x.jpg", "a/../../x.jpg", ".."])
def test_names_that_climb_out_are_refused(tmp_path: Path, name: str) -> None:
    write(tmp_path / "shard.tar", {name: b"a", "a/../b.jpg": b"b"})
    *bad, good = tar_photographs(tmp_path / "shard.tar", "web/shard.tar")
    assert good.name == "web/b.jpg"
    for one in bad:
        assert one.name == ""
        assert "leads out of the archive" in reason(one)


def test_links_and_devices_are_passed_over(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "shard.tar", "w") as tar:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.DIRTYPE):
            header = tarfile.TarInfo(f"{kind!r}.jpg")
            header.type, header.linkname = kind, "/etc/passwd"
            tar.addfile(header)
    assert names(tmp_path / "shard.tar") == []


def test_a_damaged_stretch_is_listed_and_what_follows_is_read(tmp_path: Path) -> None:
    archive = tmp_path / "shard.tar"
    write(archive, {f"{number}.jpg": b"x" * 600 for number in range(4)}, form=tarfile.USTAR_FORMAT)
    content = bytearray(archive.read_bytes())
    content[1536:1600] = b"\xff" * 64  # in the second header
    archive.write_bytes(content)
    first, damage, *rest = tar_photographs(archive, "web/shard.tar")
    assert [one.name for one in (first, *rest)] == ["web/0.jpg", "web/2.jpg", "web/3.jpg"]
    assert (damage.path, damage.name) == ("web/shard.tar", "")
    assert reason(damage) == "damaged at byte 1536"


@pytest.mark.parametrize("end", [700, 1536 + 200, 1536 + 512 + 5])
def test_an_archive_that_is_cut_short_gives_what_is_there(tmp_path: Path, end: int) -> None:
    archive = tmp_path / "shard.tar"
    write(archive, {"0.jpg": b"x" * 600, "1.jpg": b"y" * 600}, form=tarfile.USTAR_FORMAT)
    archive.write_bytes(archive.read_bytes()[:end])
    found = list(tar_photographs(archive, "shard.tar"))
    whole = [one for one in found if end >= 1536 and one.name == "0.jpg"]
    assert [one.read() for one in whole] == [b"x" * 600] * (end >= 1536)
    others = [reason(one) for one in found if one not in whole]
    assert others
    assert all("cut short" in said or "damaged" in said for said in others)


@pytest.mark.parametrize("suffix", [".tar.gz", ".tar.bz2", ".tar.xz"])
def test_a_compressed_archive_that_is_cut_short_says_so(tmp_path: Path, suffix: str) -> None:
    archive = tmp_path / f"shard{suffix}"
    write(archive, {"0.jpg": bytes(range(256)) * 9, "1.jpg": b"y" * 600})
    archive.write_bytes(archive.read_bytes()[:-20])
    last = list(tar_photographs(archive, f"shard{suffix}"))[-1]
    assert (last.path, last.name) == (f"shard{suffix}", "")
    assert "cut short" in reason(last) or "damaged" in reason(last)


def test_a_flipped_bit_in_a_gzip_is_noticed(tmp_path: Path) -> None:
    archive = tmp_path / "shard.tar.gz"
    plain = tmp_path / "plain.tar"
    write(plain, {"0.jpg": b"x" * 600})
    content = bytearray(gzip.compress(plain.read_bytes(), compresslevel=0))  # stored: only the checksum tells
    content[content.index(b"xxxx")] ^= 1
    archive.write_bytes(content)
    assert "damaged" in reason(list(tar_photographs(archive, "shard.tar.gz"))[-1])


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz"])
def test_what_is_no_archive_is_listed(tmp_path: Path, suffix: str) -> None:
    archive = tmp_path / f"shard{suffix}"
    archive.write_bytes(b"no archive" * 200)
    (only,) = tar_photographs(archive, f"shard{suffix}")
    assert "damaged" in reason(only)


def test_an_empty_archive_has_no_photographs(tmp_path: Path) -> None:
    write(tmp_path / "shard.tar", {})
    assert names(tmp_path / "shard.tar") == []
