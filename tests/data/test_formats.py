from __future__ import annotations

import io
import os
import socket
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from facedan_cli.data import formats, images
from facedan_cli.data.formats import HEAD, is_clutter, is_image, looks_like_image, readable_formats, sniffed
from facedan_cli.data.images import UnreadableImage, read_image

SMOOTH = np.linspace(0, 255, 24 * 32 * 3).reshape(24, 32, 3).astype(np.uint8)
NAMED = {
    "a.jpg": "JPEG",
    "a.jpe": "JPEG",
    "a.JFIF": "JPEG",
    "a.mpo": "MPO",
    "a.png": "PNG",
    "a.bmp": "BMP",
    "a.dib": "DIB",
    "a.gif": "GIF",
    "a.webp": "WEBP",
    "a.avif": "AVIF",
    "a.tif": "TIFF",
    "a.pgm": "PPM",
    "a.jp2": "JPEG2000",
    "a.j2k": "JPEG2000",
    "a.heic": "HEIF",
}


def encoded(form: str) -> bytes:
    if form == "HEIF" and form not in readable_formats():
        pytest.skip("pillow-heif is not installed")
    buffer = io.BytesIO()
    Image.fromarray(SMOOTH).save(buffer, form)
    return buffer.getvalue()


def refusal(path: Path) -> str:
    with pytest.raises(UnreadableImage) as caught:
        read_image(path)
    return str(caught.value)


@pytest.mark.parametrize(("name", "form"), NAMED.items())
def test_every_format_is_known_by_its_name_and_read_by_its_bytes(tmp_path: Path, name: str, form: str) -> None:
    (tmp_path / name).write_bytes(encoded(form))
    (tmp_path / "plain").write_bytes(encoded(form))
    assert is_image(name)
    for path in (tmp_path / name, tmp_path / "plain"):
        assert np.abs(read_image(path).astype(int) - SMOOTH).mean() < 12
    if form != "DIB":  # a bitmap without the file's header: nothing tells
        assert looks_like_image(tmp_path / "plain")


@given(st.binary(max_size=HEAD))
def test_any_first_bytes_are_judged(head: bytes) -> None:
    assert sniffed(head) in {"", *formats.FORMATS}


@pytest.mark.parametrize(
    "text", [b"", b"P5", b"path,identity\n", b"\x7fELF", b"RIFF\0\0\0\0WAVE", b"BM of the match", b"%!PS"]
)
def test_what_is_no_image_is_not_taken_for_one(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "x").write_bytes(text)
    assert not looks_like_image(tmp_path / "x")


@pytest.mark.parametrize("name", ["a.jpg", "a.eps", "a"])
def test_postscript_starts_no_other_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    (tmp_path / name).write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n{ } loop\n%%EOF\n")
    script = tmp_path / "bin" / "gs"
    script.parent.mkdir()
    script.write_text(f"#!/bin/sh\ntouch {tmp_path}/started\n", encoding="utf-8")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(script.parent), prepend=os.pathsep)
    assert refusal(tmp_path / name) == "PostScript or PDF, not an image"
    assert not (tmp_path / "started").exists()


def test_what_is_no_file_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # a socket's path is short
    os.mkfifo("pipe.jpg")
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "link.jpg").symlink_to("pipe.jpg")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("socket.jpg")
        assert refusal(Path("socket.jpg")) == "a socket, not a file"
    assert refusal(Path("pipe.jpg")) == refusal(Path("link.jpg")) == "a named pipe, not a file"
    assert refusal(Path("folder.jpg")) == "a directory, not a file"
    assert refusal(Path("/dev/zero")) == "a device, not a file"
    assert not any(map(looks_like_image, (Path("pipe.jpg"), Path("/dev/zero"), Path("folder.jpg"), Path("gone"))))


def test_formats_that_are_not_read_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(SMOOTH).save(tmp_path / "a.tga")
    Image.fromarray(SMOOTH).save(tmp_path / "a.nef", "TIFF")
    (tmp_path / "a.heic").write_bytes(b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic" + bytes(400))
    monkeypatch.setattr(formats, "readable_formats", lambda: ("JPEG",))
    monkeypatch.setattr(images, "readable_formats", lambda: ("JPEG",))
    assert refusal(tmp_path / "a.tga") == "images in .tga are not read: convert it to PNG"
    assert "camera's raw file" in refusal(tmp_path / "a.nef")
    assert "facedan[heic]" in refusal(tmp_path / "a.heic")
    assert all(map(is_image, ("a.tga", "a.nef", "a.heic")))


@pytest.mark.parametrize(
    "path",
    [
        "ann/@eaDir/1.jpg/SYNOPHOTO_THUMB_M.jpg",
        "#recycle/1.jpg",
        "ann/@Recycle/1.jpg",
        "$RECYCLE.BIN/S-1-5/1.jpg",
        "$Recycle.Bin/1.jpg",
        ".@__thumb/1.jpg",
        "__MACOSX/ann/._1.jpg",
        "ann/._1.jpg",
        "._1.jpg",
        ".Trash-1000/files/1.jpg",
        "lost+found/1.jpg",
        "System Volume Information/1.jpg",
        ".AppleDouble/1.jpg",
        "#snapshot/daily/ann/1.jpg",
        ".snapshot/ann/1.jpg",
        "ann/Thumbs.db",
        "desktop.ini",
        ".DS_Store",
    ],
)
def test_what_file_servers_leave_is_clutter(path: str) -> None:
    assert is_clutter(path)
    assert not is_image(path)


@pytest.mark.parametrize("path", ["ann/1.jpg", "recycle/1.jpg", "ann#1/1.jpg", "thumbs/1.jpg", "a._b/x.jpg"])
def test_identities_are_not_clutter(path: str) -> None:
    assert not is_clutter(path)
    assert is_image(path)
