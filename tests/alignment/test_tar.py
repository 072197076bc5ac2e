from __future__ import annotations

import gzip
import io
import tarfile
import tracemalloc
from pathlib import Path

import pytest

from facedan_cli.alignment import tar as module
from facedan_cli.alignment.source_image import SourceImage
from facedan_cli.alignment.tar import tar_images
from facedan_cli.data.formats import TAR_SUFFIXES
from facedan_cli.data.images import UnreadableImage
from facedan_cli.data.walk import PassedOver

MODES = {".tar": "w", ".tar.gz": "w:gz", ".tgz": "w:gz", ".tar.bz2": "w:bz2", ".tar.xz": "w:xz"}


def write(archive: Path, files: dict[str, bytes], *, form: int = tarfile.PAX_FORMAT) -> None:
    mode = next(mode for suffix, mode in MODES.items() if archive.name.endswith(suffix))
    with tarfile.open(archive, mode, format=form) as tar:
        for name, content in files.items():
            header = tarfile.TarInfo(name)
            header.size, header.mtime = len(content), 1_600_000_000
            tar.addfile(header, io.BytesIO(content))


def names(archive: Path, path: str = "web/shard.tar") -> list[str]:
    return [one.name for one in tar_images(archive, path)]


def reason(image: SourceImage) -> str:
    with pytest.raises(UnreadableImage) as caught:
        image.read()
    return str(caught.value)


def test_every_suffix_has_its_test() -> None:
    assert set(TAR_SUFFIXES) == MODES.keys()


@pytest.mark.parametrize("suffix", MODES)
@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_images_take_their_names_beside_the_archive(tmp_path: Path, suffix: str, form: int) -> None:
    archive = tmp_path / f"shard{suffix}"
    long = "anna/" + "x" * 90 + ".JPG" if form == tarfile.USTAR_FORMAT else "anna/" + "x" * 150 + ".JPG"
    files = {"./bo/1.png": b"one", "notes.txt": b"no", "bo/._1.png": b"no", long: b"two" * 999, "3.webp": b""}
    write(archive, files, form=form)
    path = f"web/shard{suffix}"
    found = [
        (one.path, one.name, one.size, one.modified, one.read()) for one in tar_images(archive, f"web/shard{suffix}")
    ]
    assert found == [
        (f"{path}/bo/1.png", "web/bo/1.png", 3, 1_600_000_000, b"one"),
        (f"{path}/{long}", f"web/{long}", 2997, 1_600_000_000, b"two" * 999),
        (f"{path}/3.webp", "web/3.webp", 0, 1_600_000_000, b""),
    ]


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz"])
def test_a_class_beside_an_image_names_its_folder(tmp_path: Path, suffix: str) -> None:
    archive = tmp_path / f"shard{suffix}"
    files = {"000.jpg": b"a", "000.cls": b"17\n", "001.cls": b"anna", "001.left.png": b"b", "001.right.png": b"c"}
    write(archive, files | {"002.jpg": b"d"})
    assert names(archive) == ["web/17/000.jpg", "web/anna/001.left.png", "web/anna/001.right.png", "web/002.jpg"]


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz"])
def test_names_with_dots_keep_their_own_labels(tmp_path: Path, suffix: str) -> None:
    archive = tmp_path / f"shard{suffix}"
    files = {"J.Smith_1.jpg": b"a", "J.Smith_1.cls": b"smith", "J.Doe_1.cls": b"doe", "J.Doe_1.jpg": b"b"}
    files |= {"J.Roe_1.jpg": b"c", "v.1/0.jpg": b"d", "v.1/0.cls": b"vera", "k.left.eye.png": b"e", "k.cls": b"kim"}
    write(archive, files)
    assert names(archive, "shard") == [
        "smith/J.Smith_1.jpg",
        "doe/J.Doe_1.jpg",
        "J.Roe_1.jpg",
        "vera/v.1/0.jpg",
        "kim/k.left.eye.png",
    ]


@pytest.mark.parametrize("label", [b"..", b"a/b", b"", b"/", b"x\0y"])
def test_a_class_that_names_no_folder_sets_its_image_aside(tmp_path: Path, label: bytes) -> None:
    write(tmp_path / "shard.tar", {"000.cls": label, "000.jpg": b"a", "001.jpg": b"b"})
    bad, good = tar_images(tmp_path / "shard.tar", "shard.tar")
    assert (bad.path, bad.name) == ("shard.tar/000.jpg", "")
    assert reason(bad) == "its .cls does not name a folder"
    assert good.name == "001.jpg"


@pytest.mark.parametrize("name", ["../x.jpg", "/etc/x.jpg", "a/../../x.jpg", ".."])
def test_names_that_climb_out_are_refused(tmp_path: Path, name: str) -> None:
    write(tmp_path / "shard.tar", {name: b"a", "a/../b.jpg": b"b"})
    *bad, good = tar_images(tmp_path / "shard.tar", "web/shard.tar")
    assert good.name == "web/b.jpg"
    for one in bad:
        assert one.name == ""
        assert "leads out of the archive" in reason(one)


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    header = tarfile.TarInfo(name)
    header.type, header.linkname = kind, target
    return header


def file(name: str, content: bytes) -> tuple[tarfile.TarInfo, io.BytesIO]:
    header = tarfile.TarInfo(name)
    header.size = len(content)
    return header, io.BytesIO(content)


def given(archive: Path) -> dict[str, bytes | str]:
    """What the archive gives by path: contents, or why not."""
    found: dict[str, bytes | str] = {}
    for one in tar_images(archive, "a"):
        try:
            found[one.path.removeprefix("a/")] = one.read()
        except UnreadableImage as error:
            found[one.path.removeprefix("a/")] = str(error)
    return found


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz"])
def test_links_give_what_they_lead_to(tmp_path: Path, suffix: str) -> None:
    archive = tmp_path / f"shard{suffix}"
    with tarfile.open(archive, MODES[suffix]) as tar:
        tar.addfile(link("bo/early.jpg", "../anna/1.jpg"))
        tar.addfile(*file("anna/1.jpg", b"one"))
        tar.addfile(link("anna/2.jpg", "anna/1.jpg", tarfile.LNKTYPE))
        tar.addfile(link("anna/3.jpg", "2.jpg"))
        tar.addfile(link("latest", "anna"))
        tar.addfile(link("bo/4.jpg", "../latest/./1.jpg"))
        tar.addfile(*file("pool/sha256-77", b"pooled"))
        tar.addfile(link("bo/5.jpg", "../pool/sha256-77"))
        tar.addfile(link("loop.jpg", "pool.jpg"))
        tar.addfile(link("pool.jpg", "loop.jpg"))
        tar.addfile(link("out.jpg", "/etc/passwd"))
        tar.addfile(link("gone.jpg", "anna/9.jpg", tarfile.LNKTYPE))
        tar.addfile(link("readme", "anna/9.jpg", tarfile.LNKTYPE))
    found = given(archive)
    assert {name: content for name, content in found.items() if isinstance(content, bytes)} == {
        "anna/1.jpg": b"one",
        "bo/early.jpg": b"one",
        "anna/2.jpg": b"one",
        "anna/3.jpg": b"one",
        "bo/4.jpg": b"one",
        "bo/5.jpg": b"pooled",
    }
    refused = {name: said for name, said in found.items() if isinstance(said, str)}
    assert refused.keys() == {"loop.jpg", "pool.jpg", "out.jpg", "gone.jpg", "latest"}
    assert "no file of the archive" in refused["out.jpg"]
    assert "link to the directory anna" in refused["latest"]


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz"])
def test_of_a_name_written_twice_the_last_counts_as_where_it_is_extracted(tmp_path: Path, suffix: str) -> None:
    archive = tmp_path / f"shard{suffix}"
    with tarfile.open(archive, MODES[suffix]) as tar:
        tar.addfile(*file("anna/1.jpg", b"old"))
        tar.addfile(link("anna/2.jpg", "anna/1.jpg", tarfile.LNKTYPE))
        tar.addfile(link("anna/3.jpg", "1.jpg"))
        tar.addfile(*file("./anna/1.jpg", b"newer"))
        tar.addfile(*file("bo.jpg", b"bo"))
        tar.addfile(link("bo.jpg", "anna/1.jpg"))
    # As GNU tar extracts it: a file that is written again takes the place of the name, not of other links' content.
    extracted = {"anna/1.jpg": b"newer", "anna/2.jpg": b"old", "anna/3.jpg": b"newer", "bo.jpg": b"newer"}
    found = given(archive)
    said = found.pop("a")
    assert found == extracted
    assert "2 images are written again" in str(said)


def test_devices_sparse_files_and_nested_archives_are_listed(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "shard.tar", "w") as tar:
        tar.addfile(link("pipe.jpg", "", tarfile.FIFOTYPE))
        tar.addfile(link("disk.jpg", "", tarfile.CHRTYPE))
        tar.addfile(link("folder.jpg", "", tarfile.DIRTYPE))
        sparse, _ = file("holes.jpg", b"")
        sparse.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "5"}
        tar.addfile(sparse)
        tar.addfile(*file("more.tar.gz", b"x"))
        tar.addfile(*file(".cache/1.jpg", b"x"))
        tar.addfile(*file("notes.txt", b"x"))
    found = given(tmp_path / "shard.tar")
    assert found.keys() == {"pipe.jpg", "disk.jpg", "holes.jpg", "more.tar.gz"}
    assert "sparse" in str(found["holes.jpg"])
    assert "archive inside an archive" in str(found["more.tar.gz"])


def test_a_damaged_stretch_is_listed_and_what_follows_is_read(tmp_path: Path) -> None:
    archive = tmp_path / "shard.tar"
    write(archive, {f"{number}.jpg": b"x" * 600 for number in range(4)}, form=tarfile.USTAR_FORMAT)
    content = bytearray(archive.read_bytes())
    content[1536:1600] = b"\xff" * 64  # in the second header
    archive.write_bytes(content)
    first, *rest, damage = tar_images(archive, "web/shard.tar")
    assert [one.name for one in (first, *rest)] == ["web/0.jpg", "web/2.jpg", "web/3.jpg"]
    assert (damage.path, damage.name) == ("web/shard.tar", "")
    assert reason(damage) == "damaged at byte 1536"


@pytest.mark.parametrize("end", [700, 1536 + 200, 1536 + 512 + 5])
def test_an_archive_that_is_cut_short_gives_what_is_there(tmp_path: Path, end: int) -> None:
    archive = tmp_path / "shard.tar"
    write(archive, {"0.jpg": b"x" * 600, "1.jpg": b"y" * 600}, form=tarfile.USTAR_FORMAT)
    archive.write_bytes(archive.read_bytes()[:end])
    found = list(tar_images(archive, "shard.tar"))
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
    last = list(tar_images(archive, f"shard{suffix}"))[-1]
    assert (last.path, last.name) == (f"shard{suffix}", "")
    assert "cut short" in reason(last) or "damaged" in reason(last)


def test_a_flipped_bit_in_a_gzip_is_noticed(tmp_path: Path) -> None:
    archive = tmp_path / "shard.tar.gz"
    plain = tmp_path / "plain.tar"
    write(plain, {"0.jpg": b"x" * 600})
    content = bytearray(gzip.compress(plain.read_bytes(), compresslevel=0))  # stored: only the checksum tells
    content[content.index(b"xxxx")] ^= 1
    archive.write_bytes(content)
    assert "damaged" in reason(list(tar_images(archive, "shard.tar.gz"))[-1])


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz"])
def test_what_is_no_archive_is_listed(tmp_path: Path, suffix: str) -> None:
    archive = tmp_path / f"shard{suffix}"
    archive.write_bytes(b"no archive" * 200)
    (only,) = tar_images(archive, f"shard{suffix}")
    assert "damaged" in reason(only)


def test_an_empty_archive_has_no_images(tmp_path: Path) -> None:
    write(tmp_path / "shard.tar", {})
    assert names(tmp_path / "shard.tar") == []


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz"])
def test_what_is_no_image_by_its_name_is_looked_into_or_counted(tmp_path: Path, suffix: str) -> None:
    png = b"\x89PNG\r\n\x1a\n" + bytes(100)
    files = {
        "a/blob": png,
        "a/image.tmp": png,
        "a/notes": b"n",
        "a/0.json": b"{}",
        "a/0.cls": b"7",
        "@eaDir/1.jpg": png,
    }
    write(tmp_path / f"x{suffix}", files | {"a/.1.jpg": png, "__MACOSX/2.jpg": png})
    passed = PassedOver()
    found = list(tar_images(tmp_path / f"x{suffix}", "x", passed))
    assert [(one.name, one.read()) for one in found] == [("a/blob", png), ("a/image.tmp", png)]
    assert passed.others == {"": 1, ".json": 1}
    assert passed.hidden == 1


def test_a_missing_end_mark_and_an_empty_file_are_said(tmp_path: Path) -> None:
    archive = tmp_path / "shard.tar"
    write(archive, {"0.jpg": b"x" * 600}, form=tarfile.USTAR_FORMAT)
    archive.write_bytes(archive.read_bytes()[:1536])
    whole, said = tar_images(archive, "shard.tar")
    assert whole.read() == b"x" * 600
    assert "end mark is missing" in reason(said)
    archive.write_bytes(b"")
    assert ["cut short" in reason(one) for one in tar_images(archive, "shard.tar")] == [True]


def test_archives_joined_end_to_end_are_read_on(tmp_path: Path) -> None:
    archive, other = tmp_path / "one.tar", tmp_path / "two.tar"
    write(archive, {"1.jpg": b"x"})
    write(other, {"2.jpg": b"y"})
    archive.write_bytes(archive.read_bytes() + other.read_bytes())
    assert names(archive, "one.tar") == ["1.jpg", "2.jpg"]


@pytest.mark.parametrize(("written", "called"), [(".tar.gz", ".tar"), (".tar", ".tgz"), (".tar.xz", ".tar.gz")])
def test_what_a_file_is_counts_not_its_name(tmp_path: Path, written: str, called: str) -> None:
    write(tmp_path / f"x{written}", {"1.jpg": b"x"})
    archive = (tmp_path / f"x{written}").rename(tmp_path / f"y{called}")
    assert names(archive, "x") == ["1.jpg"]


def test_a_file_that_is_too_large_is_set_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_BYTES", 4)
    write(tmp_path / "x.tar.gz", {"1.jpg": b"12345", "2.jpg": b"1234"})
    bad, good = tar_images(tmp_path / "x.tar.gz", "x.tar.gz")
    assert bad.name == "1.jpg"  # whose it would be is known
    assert "too large" in reason(bad)
    assert good.bytes_in_memory == 4


def test_what_is_held_does_not_grow_with_the_archive(tmp_path: Path) -> None:
    archive = tmp_path / "x.tar.gz"
    write(archive, {f"video.{number:04}.jpg": bytes(100_000) for number in range(100)})
    tracemalloc.start()
    assert sum(1 for _ in tar_images(archive, "x.tar.gz")) == 100
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5_000_000
