from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from facedan_cli.data.manifest import (
    AlignedRecord,
    ManifestWriter,
    OddLine,
    leads_outside,
    read_records,
    remove_lines,
)
from facedan_cli.errors import FacedanError

ALIGNED = AlignedRecord(
    path="anna/1.png",
    output="anna/1.jpg",
    status="aligned",
    faces=2,
    box=(1.5, 2.0, 30.25, 40.0),
    probability=0.998,
    points={"image_left_eye": (10.0, 12.5), "image_right_eye": (20.0, 12.0)},
    source="mtcnn",
    transform=((1.5, -0.1, 3.0), (0.1, 1.5, 4.0)),
    template="vggface",
    size=250,
    bytes=1234,
    modified=1_700_000_000,
)
FAILED = AlignedRecord(
    path="bo/2.jpg", status="failed", reason="no face was found", faces=0, template="lfw", size=112, bytes=9, modified=1
)


def write(manifest: Path, *records: AlignedRecord) -> None:
    with ManifestWriter(manifest) as writer:
        writer.append(records)


def test_records_come_back_as_they_were_written(tmp_path: Path) -> None:
    write(tmp_path / "m.jsonl", ALIGNED)
    write(tmp_path / "m.jsonl", FAILED, ALIGNED)
    assert list(read_records(tmp_path / "m.jsonl")) == [ALIGNED, FAILED, ALIGNED]


def test_a_line_says_everything_by_name() -> None:
    fields = json.loads(ALIGNED.to_line())
    assert fields["path"] == "anna/1.png"
    assert fields["points"]["image_left_eye"] == [10.0, 12.5]
    assert fields["transform"] == [[1.5, -0.1, 3.0], [0.1, 1.5, 4.0]]
    assert {"output", "status", "reason", "faces", "box", "probability", "template", "size"} <= set(fields)


@given(st.text(st.characters(exclude_categories=[]), min_size=1), st.text())
def test_names_of_any_characters_stay_on_one_line(path: str, reason: str) -> None:
    # A file name that is not UTF-8 reaches Python as lone surrogates U+DC80 … U+DCFF; others cannot occur.
    path = "".join(c for c in path if not 0xD800 <= ord(c) <= 0xDFFF) + "\udcff"
    record = replace(FAILED, path=path, reason=reason)
    line = record.to_line()
    assert line.count("\n") == 1
    assert AlignedRecord.from_line(line) == record


def test_a_name_that_is_not_utf8_survives_the_file(tmp_path: Path) -> None:
    record = replace(FAILED, path="caf\udce9.jpg")
    write(tmp_path / "m.jsonl", record)
    assert b'"caf\xe9.jpg"' in (tmp_path / "m.jsonl").read_bytes()
    assert list(read_records(tmp_path / "m.jsonl")) == [record]


@given(st.data())
def test_a_torn_last_line_is_passed_over_and_then_cut_off(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    manifest = tmp_path_factory.mktemp("torn") / "m.jsonl"
    whole = (ALIGNED.to_line() + FAILED.to_line()).encode()
    end = data.draw(st.integers(0, len(whole) - 1))
    manifest.write_bytes(whole[:end])
    kept = [ALIGNED] if end >= len(ALIGNED.to_line()) else []
    assert list(read_records(manifest)) == kept
    write(manifest, FAILED)
    assert list(read_records(manifest)) == [*kept, FAILED]


def test_a_long_torn_tail_is_cut_off(tmp_path: Path) -> None:
    manifest = tmp_path / "m.jsonl"
    manifest.write_bytes(ALIGNED.to_line().encode() + bytes(20_000))
    write(manifest, FAILED)
    assert list(read_records(manifest)) == [ALIGNED, FAILED]


def changed(**fields: object) -> str:
    return json.dumps(json.loads(ALIGNED.to_line()) | fields)


ODD = [
    "{",
    "[]",
    "null",
    '{"path": "a"}',
    '{"box": 5}',
    "[" * 100_000,
    changed(output="../../x.jpg"),
    changed(output="/etc/x.jpg"),
    changed(output="a/../../x.jpg"),
    changed(output="a\0.jpg"),
    changed(output="aligned.jsonl"),
    changed(output=None),
    changed(output=["x.jpg"]),
    changed(status="failed"),
    changed(bytes="many"),
    changed(modified=1 << 70),
    changed(size=0),
    changed(path=""),
    changed(transform=[[1, 2, 3]]),
    changed(points={"eye": [1]}),
    changed(box=[1, 2, 3, float("inf")]),
    changed(probability="1"),
]


@pytest.mark.parametrize("line", ODD)
def test_an_odd_line_is_named_or_passed_over(tmp_path: Path, line: str) -> None:
    manifest = tmp_path / "m.jsonl"
    manifest.write_text(ALIGNED.to_line() + line + "\n" + FAILED.to_line())
    with pytest.raises(FacedanError, match="line 2, is damaged"):
        list(read_records(manifest))
    odd: list[OddLine] = []
    assert list(read_records(manifest, odd)) == [ALIGNED, FAILED]
    assert [one.number for one in odd] == [2]
    remove_lines(manifest, odd)
    assert manifest.read_text() == ALIGNED.to_line() + FAILED.to_line()


def test_what_a_later_version_adds_is_passed_over() -> None:
    assert AlignedRecord.from_line(changed(new="x")) == ALIGNED


def test_a_link_to_a_directory_elsewhere_leads_outside(tmp_path: Path) -> None:
    out = tmp_path / "out"
    (out / "inside").mkdir(parents=True)
    (out / "within").symlink_to("inside")
    (out / "away").symlink_to(tmp_path)
    names = ["a.jpg", "new/a.jpg", "within/a.jpg", "away/a.jpg", "away/new/a.jpg"]
    assert [leads_outside(out, name) for name in names] == [False, False, False, True, True]


def test_no_manifest_has_no_records(tmp_path: Path) -> None:
    assert list(read_records(tmp_path / "m.jsonl")) == []


def test_a_full_disk_leaves_no_half_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = tmp_path / "m.jsonl"
    write(manifest, ALIGNED)
    with ManifestWriter(manifest) as writer:
        file = writer._file

        class FullDisk:
            calls = 0

            def write(self, data: memoryview) -> int:
                self.calls += 1
                if self.calls == 2:
                    raise OSError(28, "No space left on device")
                return file.write(data[:10])

            def __getattr__(self, name: str) -> object:
                return getattr(file, name)

        monkeypatch.setattr(writer, "_file", FullDisk())
        with pytest.raises(OSError, match="No space"):
            writer.append([FAILED])
    assert manifest.read_text() == ALIGNED.to_line()
