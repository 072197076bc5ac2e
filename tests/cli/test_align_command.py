from __future__ import annotations

import io
import json
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def faces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory, with raw/ of three faces that are aligned already, and one file that is none."""
    monkeypatch.chdir(tmp_path)
    for number, name in enumerate(("anna/1.png", "anna/2.png", "bo/1.png")):
        (tmp_path / "raw" / name).parent.mkdir(parents=True, exist_ok=True)
        grey = np.linspace(0, 60 * (number + 1), 40 * 40 * 3).reshape(40, 40, 3)
        Image.fromarray(grey.astype(np.uint8)).save(tmp_path / "raw" / name)
    (tmp_path / "raw" / "bo" / "2.png").write_bytes(b"no image")
    return tmp_path


def pipe(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))


def test_faces_that_are_aligned_already_are_copied(facedan: Callable, faces: Path) -> None:
    ended = facedan("align", "raw", "aligned", "--no-align", "--size", 48)
    assert ended.code == 3
    assert ended.out == "aligned\n"
    assert "3 aligned, 1 set aside, 0 done before" in ended.err
    assert "aligned/set-aside.tsv names each" in ended.err
    with Image.open("aligned/anna/2.jpg") as face:
        assert face.size == (48, 48)
    again = facedan("align", "raw", "aligned", "--no-align", "--size", 48, "--json")
    assert again.code == 3
    assert json.loads(again.out) == {
        "schema": 1,
        "stage": "align",
        "out": "aligned",
        "manifest": "aligned/aligned.jsonl",
        "aligned": 0,
        "failed": 1,
        "already": 3,
        "set_aside": "aligned/set-aside.tsv",
        "contact_sheet": None,
    }


@pytest.mark.parametrize("end", [b"\n", b"\0"])
def test_a_list_comes_through_stdin(
    facedan: Callable, faces: Path, monkeypatch: pytest.MonkeyPatch, end: bytes
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(faces / "none"))  # it needs no room but beside the aligned directory
    listed = end.join([b"raw/bo/1.png", b"raw/anna/2.png"]) + end
    options = ("--root", "raw", "--no-align", "--size", 48)
    pipe(monkeypatch, listed)
    planned = facedan("align", "-", "aligned", *options, "--dry-run")
    assert planned.out == "2 images in - to aligned: 0 aligned before, 0 set aside before\n"
    pipe(monkeypatch, listed)
    ended = facedan("align", "-", "aligned", *options)
    assert (ended.code, ended.out) == (0, "aligned\n")
    assert sorted(path.as_posix() for path in Path("aligned").rglob("*.jpg")) == [
        "aligned/anna/2.jpg",
        "aligned/bo/1.jpg",
    ]
    assert sorted(path.name for path in faces.iterdir()) == ["aligned", "raw"]


def test_without_a_root_the_current_directory_is_mirrored(
    facedan: Callable, faces: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe(monkeypatch, os.fsencode(faces) + b"/raw/bo/1.png\n")
    assert facedan("align", "-", "aligned", "--no-align").code == 0
    assert Path("aligned/raw/bo/1.jpg").is_file()


def test_an_empty_stdin_is_an_error(facedan: Callable, faces: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe(monkeypatch, b"")
    ended = facedan("align", "-", "aligned")
    assert (ended.code, ended.out) == (1, "")
    assert "the list of images is empty" in ended.err


def test_several_processes_cannot_share_stdin(facedan: Callable, faces: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    ended = facedan("align", "-", "aligned")
    assert ended.code == 2
    assert "several processes cannot share stdin" in ended.err


def test_a_contact_sheet_is_drawn(facedan: Callable, faces: Path) -> None:
    ended = facedan("align", "raw", "aligned", "--no-align", "--contact-sheet", "sheets/check.png")
    assert "the least certain faces: sheets/check.png" in ended.err
    with Image.open("sheets/check.png") as sheet:
        assert sheet.width > 1000


def test_second_pass_and_no_align_come_from_the_settings_too(facedan: Callable, faces: Path) -> None:
    Path("facedan.toml").write_text("[align]\nno_align = true\nsecond_pass = false\nsize = 48\n")
    assert facedan("align", "raw", "aligned").code == 3
    assert json.loads(Path("aligned/align.json").read_text()) == {"no_align": True, "size": 48}


def test_a_network_names_template_size_and_points(facedan: Callable, faces: Path) -> None:
    ended = facedan("align", "raw", "aligned", "--no-align", "--for", "facenet")
    assert ended.code == 3
    assert json.loads(Path("aligned/align.json").read_text()) == {"no_align": True, "size": 182, "template": "arcface"}
    ended = facedan("align", "raw", "other", "--for", "facenet", "--size", 112)
    assert ended.code == 2
    assert "--size 112 contradicts --for facenet" in ended.err
    ended = facedan("align", "raw", "other", "--for", "facenett")
    assert ended.code != 0
    assert "facenett" in ended.err
    assert not Path("other").exists()


def test_what_is_typed_has_precedence_over_what_a_file_says_of_the_template(facedan: Callable, faces: Path) -> None:
    Path("facedan.toml").write_text('[align]\ntemplate = "lfw"\nsize = 48\n')
    facedan("align", "raw", "one", "--no-align")  # no word of these faces' template
    assert json.loads(Path("one/align.json").read_text()) == {"no_align": True, "size": 48}
    facedan("align", "raw", "two", "--no-align", "--for", "vggface-mini")
    assert json.loads(Path("two/align.json").read_text()) == {"no_align": True, "size": 72, "template": "vggface"}
    Path("facedan.toml").write_text('[align]\nfor = "facenet"\n')
    facedan("align", "raw", "three")
    assert json.loads(Path("three/align.json").read_text())["template"] == "arcface"
    facedan("align", "raw", "four", "--template", "dlib", "--points", 3)
    settings = json.loads(Path("four/align.json").read_text())
    assert (settings["template"], settings["size"], settings.get("points")) == ("dlib", 150, None)
    assert facedan("align", "raw", "five", "--points", 4).code == 2
