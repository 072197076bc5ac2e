from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from facedan_cli.errors import FacedanError
from facedan_cli.protocols.feret import COUNTS, DIGESTS, list_digest, read_feret
from facedan_cli.protocols.sigset import Record, write_sigset

SMALL = {
    "fa": ["00001fa010_930831", "00019ba010_960521", "01013ba010_960521"],
    "fb": ["00001fb010_930831", "00019bj010_960521"],
    "fc": ["01013bk010_960521"],
    "dup1": ["00001fa010_940128", "00019fa010_960627", "00001fb001d_931230"],
    "dup2": ["00019fa010_960627"],
}


def write_srt(directory: Path, name: str, lines: str) -> None:
    (directory / name).write_text(lines, encoding="ascii")


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A protocol of the shape of FERET with three subjects, whose sigsets are labelled without leading zeros."""
    for name, stems in SMALL.items():
        write_sigset(tmp_path / f"{name}.xml", [Record(str(int(base[:5])), f"{base}.tif") for base in stems])
    return tmp_path


def test_subjects_are_the_first_five_digits(small: Path) -> None:
    feret = read_feret(small, any_lists=True)
    assert [record.subject for record in feret.gallery] == ["00001", "00019", "01013"]
    assert list(feret.probes) == ["fb", "fc", "dup1", "dup2"]
    assert [record.subject for record in feret.probes["dup1"]] == ["00001", "00019", "00001"]


def test_srt_and_xml_say_the_same(small: Path, tmp_path: Path) -> None:
    expected = read_feret(small, any_lists=True)
    other = tmp_path / "srt"
    other.mkdir()
    names = {"fa": "FERET_Gallery.SRT", "fb": "fafb.srt", "fc": "fafc.srt", "dup1": "dup1.srt", "dup2": "dup2.srt"}
    for name, stems in SMALL.items():
        write_srt(other, names[name], "".join(f"{base}.sfi \t\n" for base in stems))
    found = read_feret(other, any_lists=True)
    assert found.gallery == tuple(Record(r.subject, r.file_name.replace(".tif", ".sfi")) for r in expected.gallery)
    assert found.probes.keys() == expected.probes.keys()
    assert [r.subject for r in found.probes["dup1"]] == [r.subject for r in expected.probes["dup1"]]


def test_a_line_of_a_srt_may_hold_several_images(small: Path) -> None:
    (small / "dup1.xml").unlink()
    write_srt(small, "dup1.srt", "00001fa010_940128.sfi\t00001fb001d_931230.sfi\n00019fa010_960627.sfi")
    assert len(read_feret(small, any_lists=True).probes["dup1"]) == 3


def test_another_list_than_the_published_one_is_named(small: Path) -> None:
    with pytest.raises(FacedanError, match=r"list fa .* 3 images .*1196"):
        read_feret(small)


def test_missing_lists_are_named(small: Path) -> None:
    (small / "fa.xml").unlink()
    (small / "dup2.xml").unlink()
    with pytest.raises(FacedanError, match=r"feret_gallery\.srt, .*dup2\.srt"):
        read_feret(small)
    with pytest.raises(FacedanError, match="incomplete"):
        read_feret(small / "nowhere")


@pytest.mark.parametrize(
    ("name", "stems", "reason"),
    [
        ("fb", ["00007fb010_930831"], "00007fb010_930831.tif of fb .* no mate in the gallery"),
        ("fa", [*SMALL["fa"], "00001fa010_940128"], "two images of one subject"),
        ("fb", ["00001fa010_930831"], "of fb .* is in the gallery fa as well"),
        ("dup2", ["00001fb010_940128"], "of dup2 .* not in dup1"),
        ("fc", ["01013bk010_960521", "01013bk010_960521"], "listed twice"),
        ("fc", ["s1/1"], "s1/1.tif is no name of FERET"),
        ("fa", ["00001_930831_fa_a"], "colour FERET .*it names 00001_930831_fa_a.tif"),
        ("fa", ["00001_930831_fa"], "colour FERET"),
        ("fa", [f"{n:05}fa010_930831" for n in range(994)], "colour FERET .*its gallery has 994 images"),
    ],
)
def test_lists_that_cannot_be_the_protocol(small: Path, name: str, stems: list[str], reason: str) -> None:
    write_sigset(small / f"{name}.xml", [Record("1", f"{base}.tif") for base in stems])
    with pytest.raises(FacedanError, match=reason) as error:
        read_feret(small, any_lists=True)
    assert error.value.fix


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"00019fa010_960627.sfi\nholiday.jpg\n", r"dup2\.srt, line 2: holiday\.jpg is no name of FERET"),
        (b"00019fa010_960627.sfi\n\n00019fa010_960627.sfi", r"dup2\.srt, line 3: .* listed twice"),
        (b"\xff\xd8\xff\xe0", "not plain text"),
        (b" \n", "names no image"),
    ],
)
def test_bad_srt(small: Path, content: bytes, reason: str) -> None:
    (small / "dup2.xml").unlink()
    (small / "dup2.srt").write_bytes(content)
    with pytest.raises(FacedanError, match=reason):
        read_feret(small, any_lists=True)


def only(suffix: str) -> Callable[[str, list[str]], set[str]]:
    return lambda _, names: {name for name in names if not name.endswith(suffix)}


@pytest.mark.parametrize("suffix", [".xml", ".srt"])
def test_the_real_lists(shared_data: Path, tmp_path: Path, suffix: str) -> None:
    shutil.copytree(shared_data / "feret", tmp_path / "feret", ignore=only(suffix))
    feret = read_feret(tmp_path / "feret")
    lists = {"fa": feret.gallery, **feret.probes}
    assert {name: len(records) for name, records in lists.items()} == COUNTS
    assert {name: list_digest(records) for name, records in lists.items()} == DIGESTS
    # The digest as its definition says, apart from the module's own notion of a stem.
    for name, records in lists.items():
        stems = sorted(Path(record.file_name).stem for record in records)
        assert hashlib.sha256("\n".join(stems).encode()).hexdigest()[:16] == DIGESTS[name]
    subjects = [record.subject for record in feret.gallery]
    assert all(subjects.count(record.subject) == 1 for records in feret.probes.values() for record in records)
    poses = {name: [record.file_name[5:7] for record in records] for name, records in lists.items()}
    assert (poses["fa"].count("ba"), poses["fb"].count("bj"), set(poses["fc"])) == (194, 194, {"bk"})


def test_one_image_more_or_another_one_is_noticed(shared_data: Path, tmp_path: Path) -> None:
    directory = shutil.copytree(shared_data / "feret", tmp_path / "feret", ignore=only(".xml"))
    path = directory / "fc.xml"
    content = path.read_text()
    path.write_text(content.replace("01013bk010_960521", "01013bk010_960522"))
    with pytest.raises(FacedanError, match=r"the list fc in .*: other images"):
        read_feret(directory)
    assert len(read_feret(directory, any_lists=True).probes["fc"]) == 194
