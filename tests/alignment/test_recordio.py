from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from facedan_cli.alignment.recordio import rec_images
from facedan_cli.alignment.source_image import SourceImage
from facedan_cli.data.images import UnreadableImage

MAGIC = struct.pack("<I", 0xCED7230A)


def packed(content: bytes, label: float | tuple[float, ...], key: int = 0) -> bytes:
    """MXNet's recordio.pack: header, labels, file."""
    if isinstance(label, tuple):
        return struct.pack(f"<IfQQ{len(label)}f", len(label), 0.0, key, 0, *label) + content
    return struct.pack("<IfQQ", 0, label, key, 0) + content


def written(record: bytes) -> bytes:
    """dmlc's RecordIOWriter::WriteRecord: cut at every aligned magic number, which itself is left out."""
    parts, begin = [], 0
    for at in range(0, len(record) // 4 * 4, 4):
        if record[at : at + 4] == MAGIC:
            parts.append(record[begin:at])
            begin = at + 4
    parts.append(record[begin:])
    flags = [0] if len(parts) == 1 else [1, *[2] * (len(parts) - 2), 3]
    return b"".join(
        MAGIC + struct.pack("<I", flag << 29 | len(part)) + part + bytes(-len(part) % 4)
        for flag, part in zip(flags, parts, strict=True)
    )


def write(archive: Path, records: list[bytes], *, index: bool = True) -> list[int]:
    """Write NAME.rec and NAME.idx; returns the records' places."""
    places, content = [], b""
    for record in records:
        places.append(len(content))
        content += written(record)
    archive.write_bytes(content)
    if index:
        lines = "".join(f"{key}\t{place}\n" for key, place in enumerate(places))
        archive.with_suffix(".idx").write_text(lines)
    return places


def reason(image: SourceImage) -> str:
    with pytest.raises(UnreadableImage) as caught:
        image.read()
    return str(caught.value)


@pytest.mark.parametrize("index", [True, False])
def test_an_insightface_set_gives_images_by_identity(tmp_path: Path, index: bool) -> None:
    archive = tmp_path / "train.rec"
    records = [
        packed(b"", (4.0, 6.0)),  # key 0: the identities' records are 4 and 5
        packed(b"first", 0.0, 1),
        packed(b"second", (10571.0, 0.5), 2),
        packed(b"third!!!", 0.0, 3),
        packed(b"", (1.0, 2.0), 4),
        packed(b"", (3.0, 4.0), 5),
    ]
    write(archive, records, index=index)
    found = list(rec_images(archive, "casia/train.rec"))
    assert [(one.path, one.name, one.read()) for one in found] == [
        ("casia/train.rec/00000001", "casia/0000000/00000001", b"first"),
        ("casia/train.rec/00000002", "casia/0010571/00000002", b"second"),
        ("casia/train.rec/00000003", "casia/0000000/00000003", b"third!!!"),
    ]
    assert {one.modified for one in found} == {int(archive.stat().st_mtime)}


@given(
    st.lists(
        st.lists(st.sampled_from([MAGIC, b"", b"abc", b"\0\0\0\0", MAGIC[:2], MAGIC[2:]]), min_size=1).map(b"".join),
        min_size=1,
        max_size=5,
    ),
    st.booleans(),
)
def test_contents_that_hold_the_magic_number_come_back_whole(
    tmp_path_factory: pytest.TempPathFactory, contents: list[bytes], index: bool
) -> None:
    archive = tmp_path_factory.mktemp("rec") / "set.rec"
    write(archive, [packed(content, float(number)) for number, content in enumerate(contents)], index=index)
    found = list(rec_images(archive, "set.rec"))
    assert [one.read() for one in found] == contents
    assert [one.name for one in found] == [f"{number:07d}/{number:08d}" for number in range(len(contents))]


@pytest.mark.parametrize("index", [True, False])
def test_a_damaged_record_is_set_aside_and_the_rest_goes_on(tmp_path: Path, index: bool) -> None:
    archive = tmp_path / "set.rec"
    places = write(archive, [packed(b"image" * 9, 7.0) for _ in range(4)], index=index)
    content = bytearray(archive.read_bytes())
    content[places[1] : places[1] + 4] = b"\xff" * 4
    archive.write_bytes(content)
    found = list(rec_images(archive, "set.rec"))
    assert [one.path for one in found] == [f"set.rec/{number:08d}" for number in range(4)]
    assert [bool(one.name) for one in found] == [True, False, True, True]
    assert "no record begins where one should" in reason(found[1])
    assert {one.read() for one in found if one.name} == {b"image" * 9}


@pytest.mark.parametrize("index", [True, False])
def test_an_archive_that_is_cut_short_gives_what_is_there(tmp_path: Path, index: bool) -> None:
    archive = tmp_path / "set.rec"
    write(archive, [packed(b"image", 1.0), packed(MAGIC * 3 + b"end", 2.0)], index=index)
    whole = archive.read_bytes()
    for end in (len(whole) - 4, len(whole) - 12):
        archive.write_bytes(whole[:end])
        first, second = rec_images(archive, "set.rec")
        assert first.read() == b"image"
        assert "cut short" in reason(second)


@pytest.mark.parametrize(
    ("record", "said"),
    [
        (b"short", "no header"),
        (packed(b"image", float("nan")), "no label"),
        (packed(b"image", -1.0), "no label"),
        (struct.pack("<IfQQ", 900, 0.0, 0, 0) + b"abc", "shorter than its labels"),
    ],
)
def test_records_that_say_no_identity(tmp_path: Path, record: bytes, said: str) -> None:
    write(tmp_path / "set.rec", [record, packed(b"image", 3.0)])
    bad, good = rec_images(tmp_path / "set.rec", "set.rec")
    assert said in reason(bad)
    assert good.name == "0000003/00000001"


@pytest.mark.parametrize("line", ["five\t0", "5", "5\t-3", "9" * 5000 + "\t0", "0\t" + "9" * 19])
def test_a_damaged_line_of_the_index_is_told_of(tmp_path: Path, line: str) -> None:
    write(tmp_path / "set.rec", [packed(b"image", 3.0)])
    with (tmp_path / "set.idx").open("a") as file:
        file.write(line + "\n\n")
    good, said = rec_images(tmp_path / "set.rec", "set.rec")
    assert good.read() == b"image"
    assert said.path == "set.rec"
    assert "set.idx is damaged" in reason(said)
    assert "line 2" in reason(said)


def test_records_that_the_index_lacks_are_told_of(tmp_path: Path) -> None:
    archive = tmp_path / "set.rec"
    places = write(archive, [packed(b"image", float(number)) for number in range(5)])
    (tmp_path / "set.idx").write_text(f"0\t{places[0]}\n1\t{places[1]}\n3\t{places[3]}\n")
    *listed, said = rec_images(archive, "set.rec")
    assert [one.path for one in listed] == [f"set.rec/{key:08d}" for key in (0, 1, 3)]
    assert f"does not list 2 records, the first at byte {places[2]}" in reason(said)


def test_what_the_index_says_twice_or_beyond_the_end_is_set_aside(tmp_path: Path) -> None:
    archive = tmp_path / "set.rec"
    write(archive, [packed(b"image", 3.0), packed(b"image", 4.0)])
    places = (0, 0, 48, 1 << 40, 9)
    (tmp_path / "set.idx").write_text("".join(f"{key}\t{place}\n" for key, place in enumerate(places)) + "2\t0")
    found = list(rec_images(archive, "set.rec"))
    assert len({one.path for one in found}) == len(found)
    assert [bool(one.name) for one in found] == [True, False, False, False, False, False, False]
    said = [reason(one) for one in found if not one.name]
    assert "twice" in said[0]
    assert "no record begins" in said[1]
    assert "cut short" in said[2]
    assert "does not list 1 record" in said[-1]


def test_a_damaged_stretch_takes_time_by_its_length(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beginnings of records that none follows, and long chains of parts that break: each byte is read a few times."""
    part = MAGIC + struct.pack("<I", 1 << 29)
    broken = part * 20_000 + (part + (MAGIC + struct.pack("<I", 2 << 29)) * 50) * 400
    archive = tmp_path / "set.rec"
    archive.write_bytes(broken + written(packed(b"image", 3.0)))
    reads: list[int] = []

    def pread(file: int, length: int, offset: int) -> bytes:
        content = os_pread(file, length, offset)
        reads.append(len(content))
        return content

    os_pread = os.pread
    monkeypatch.setattr(os, "pread", pread)
    bad, good = rec_images(archive, "set.rec")
    assert sum(reads) < 10 * len(broken)
    monkeypatch.undo()
    assert "no record begins" in reason(bad)
    assert good.read() == b"image"


def test_damage_of_any_length_is_passed(tmp_path: Path) -> None:
    record = written(packed(b"image", 3.0))
    (tmp_path / "set.rec").write_bytes(record + b"\xff" * (3 << 20) + record)
    found = list(rec_images(tmp_path / "set.rec", "set.rec"))
    assert [bool(one.name) for one in found] == [True, False, True]


@pytest.mark.parametrize(("label", "said"), [(3.5, "no number of an identity"), (2.0**25, "takes two identities")])
def test_labels_that_tell_no_identity(tmp_path: Path, label: float, said: str) -> None:
    write(tmp_path / "set.rec", [packed(b"image", label), packed(b"image", (label, 1.0)), packed(b"", (label, 1.0))])
    found = list(rec_images(tmp_path / "set.rec", "set.rec"))
    assert [said in reason(one) for one in found] == [True, True]
