"""Recognition of image files by names and first bytes, and the formats that are read."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import BinaryIO

from PIL import Image, features


def _suffixes(text: str) -> frozenset[str]:
    return frozenset(text.split())


TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
ARCHIVE_SUFFIXES = (".rec", *TAR_SUFFIXES)
"""Suffixes of archives that `align` reads."""
IMAGE_SUFFIXES = _suffixes(
    ".jpg .jpeg .jpe .jfif .jif .mpo .png .apng .bmp .dib .gif .webp .avif .tif .tiff .pgm .ppm .pbm .pnm "
    ".jp2 .j2k .j2c .jpc .jpf .jpx .heic .heif .hif"
)

_RAW_SUFFIXES = _suffixes(
    ".arw .cr2 .cr3 .crw .dng .nef .nrw .orf .pef .raf .raw .rw2 .sr2 .srf .srw .x3f .3fr .iiq .erf .kdc .mrw"
)
_UNREAD_SUFFIXES = _suffixes(
    ".jxl .psd .psb .tga .sgi .rgb .bw .ras .pcx .ico .icns .exr .hdr .pfm .xcf .qoi .jxr .wdp .dds .eps"
)
"""Suffixes of image formats that are not read: such files are set aside with that reason."""

_ALL_SUFFIXES = IMAGE_SUFFIXES | _RAW_SUFFIXES | _UNREAD_SUFFIXES

COMPANION_SUFFIXES = _suffixes(
    ".txt .csv .tsv .json .jsonl .xml .yaml .yml .toml .ini .md .rst .html .htm .pdf .log .py .m .sh .srt "
    ".sha256 .md5 .pts .mat .npy .npz .h5 .hdf5 .pkl .bin .dat .idx .lst .pt .pth .safetensors .onnx "
    ".lock .part .mp4 .avi .mov .mkv .webm .mp3 .wav .zip .gz .bz2 .xz .zst .7z .rar .tar .tgz .rec"
)
"""Suffixes of files that are not images. Files with unknown suffixes are opened."""

_CLUTTER = frozenset(
    name.casefold()
    for name in (
        # Synology, QNAP, NetApp and other file servers: thumbnails, recycle bins, snapshots
        *("@eaDir", "#recycle", "@Recycle", "@Recently-Snapshot", ".@__thumb", "@__thumb", "@tmp", "@sharebin"),
        *("#snapshot", ".snapshot", "~snapshot", ".snapshots", ".zfs", "@GMT", ".recycle", "RECYCLED", "RECYCLER"),
        # Windows
        *("$RECYCLE.BIN", "System Volume Information", "Thumbs.db", "Thumbs.db:encryptable", "ehthumbs.db"),
        *("ehthumbs_vista.db", "desktop.ini", "Config.Msi", "found.000"),
        # macOS
        *(".DS_Store", "__MACOSX", ".AppleDouble", ".AppleDB", ".AppleDesktop", ".LSOverride", ".Spotlight-V100"),
        *(".Trashes", ".fseventsd", ".TemporaryItems", ".DocumentRevisions-V100", ".VolumeIcon.icns", "Icon\r"),
        *("Network Trash Folder", "Temporary Items", ".apdisk", "TheVolumeSettingsFolder"),
        # Linux
        *("lost+found", ".Trash", ".thumbnails", ".directory", ".git", "__pycache__", ".ipynb_checkpoints"),
    )
)
_CLUTTER_STARTS = ("._", ".trash-", ".fuse_hidden", ".nfs", ".smbdelete", ".~lock", "~$")

FORMATS = ("JPEG", "MPO", "PNG", "BMP", "DIB", "GIF", "WEBP", "AVIF", "TIFF", "PPM", "JPEG2000", "HEIF")

_FTYP_HEIF = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"})
_FTYP_AVIF = frozenset({b"avif", b"avis"})
_FTYP_EITHER = frozenset({b"mif1", b"msf1", b"miaf"})

_BITMAP_HEADERS = tuple(length.to_bytes(4, "little") for length in (12, 40, 108, 124))
"""Possible lengths of a BMP's second header."""

HEAD = 32
"""Number of first bytes that show a file's format."""

_NO_FILES = (
    (stat.S_ISDIR, "a directory, not a file"),
    (stat.S_ISFIFO, "a named pipe, not a file"),
    (stat.S_ISSOCK, "a socket, not a file"),
    (stat.S_ISCHR, "a device, not a file"),
    (stat.S_ISBLK, "a device, not a file"),
)


def is_clutter(path: str) -> bool:
    """Whether a path, with forward slashes, belongs to operating systems or file servers (thumbnails, bins, …).

    Such are thumbnails, recycle bins, snapshots, resource forks: copies or remains of images, or no images at all.
    """
    names = path.casefold().split("/")
    return any(name in _CLUTTER or name.startswith(_CLUTTER_STARTS) for name in names)


def is_hidden_or_clutter(path: str) -> bool:
    """Whether a part of a path is hidden, or is clutter."""
    return is_clutter(path) or any(name.startswith(".") and name != ".." for name in path.split("/"))


def suffix_of(path: str) -> str:
    """A file name's suffix in lower case, with its dot; "" without one."""
    return os.path.splitext(path)[1].lower()


def is_image(path: str) -> bool:
    """Whether a path, with forward slashes, has the name of an image that is neither hidden nor clutter.

    The image may be of a format that is not read here: its reader sets it aside.
    """
    return named_as_image(path) and not is_hidden_or_clutter(path)


def named_as_image(path: str) -> bool:
    """Whether a path has the suffix of an image; it may be hidden."""
    return suffix_of(path) in _ALL_SUFFIXES


def sniffed(head: bytes) -> str:
    """The format of a file by its first bytes, by Pillow's name; "" if it is unknown.

    Args:
        head: `HEAD` bytes, or fewer of a shorter file.
    """
    for magic, name in (
        (b"\xff\xd8\xff", "JPEG"),
        (b"\x89PNG\r\n\x1a\n", "PNG"),
        (b"GIF87a", "GIF"),
        (b"GIF89a", "GIF"),
        (b"II*\0", "TIFF"),
        (b"MM\0*", "TIFF"),
        (b"II+\0", "TIFF"),
        (b"MM\0+", "TIFF"),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG2000"),
        (b"\xff\x4f\xff\x51", "JPEG2000"),
    ):
        if head.startswith(magic):
            return name
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "WEBP"
    if head.startswith(b"BM") and head[14:18] in _BITMAP_HEADERS:
        return "BMP"
    if head[:1] == b"P" and head[1:2] in b"123456" and head[2:3] in (b" ", b"\t", b"\n", b"\r"):
        return "PPM"
    return _of_ftyp(head)


def _of_ftyp(head: bytes) -> str:
    """The format of an ISO container, HEIF or AVIF, by the brands in its first box."""
    if head[4:8] != b"ftyp":
        return ""
    end = min(int.from_bytes(head[:4], "big"), len(head))
    brands = {head[8:12], *(head[at : at + 4] for at in range(16, end - 3, 4))}
    if brands & _FTYP_AVIF:
        return "AVIF"
    return "HEIF" if brands & (_FTYP_HEIF | _FTYP_EITHER) else ""


def looks_like_image(path: Path) -> bool:
    """Whether a file is an image by its first bytes; false for a file that cannot be read."""
    try:
        if no_file(path.stat().st_mode):
            return False
        with path.open("rb", buffering=0) as file:
            return sniffed(file.read(HEAD)) != ""
    except OSError:
        return False


def no_file(mode: int) -> str:
    """The reason why a path with this `st_mode` cannot be read; "" for a regular file.

    A named pipe or a socket without a writer would be waited for, and a device may have no end.
    """
    if stat.S_ISREG(mode):
        return ""
    return next((reason for is_one, reason in _NO_FILES if is_one(mode)), "no regular file")


@cache
def readable_formats() -> tuple[str, ...]:
    """The image formats that are read and installed, by Pillow's names.

    Pillow has more formats. Some of them come from no camera, accept any file, or start another program, as PostScript
    starts Ghostscript.
    """
    with suppress(ImportError):
        from pillow_heif import register_heif_opener

        register_heif_opener()
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def is_camera_raw(path: Path) -> bool:
    """Whether a file is a camera's raw file by its name; read as TIFF, many would give their thumbnails."""
    return suffix_of(path.name) in _RAW_SUFFIXES


def why_unknown(source: Path | BinaryIO) -> str:
    """The reason why a file is no image in `readable_formats`, for set-aside.tsv.

    Args:
        source: the file; a stream is read at its beginning.

    Raises:
        OSError: the file cannot be read.
    """
    if isinstance(source, Path):
        with source.open("rb", buffering=0) as file:
            head = file.read(HEAD)
    else:
        source.seek(0)
        head = source.read(HEAD)
    if not head:
        return "empty: the file has no bytes"
    found = sniffed(head)
    if found == "HEIF" and "HEIF" not in readable_formats():
        return "HEIF (HEIC) is not read: pip install 'facedan[heic]', or convert it to JPEG"
    if found == "AVIF" and not features.check("avif"):
        return "AVIF is not read by this Pillow: install 11.3 or later, or convert it to PNG"
    if head.startswith((b"%!PS", b"\xc5\xd0\xd3\xc6", b"%PDF")):
        return "PostScript or PDF, not an image"
    if isinstance(source, Path) and suffix_of(source.name) in _UNREAD_SUFFIXES:
        return f"images in {suffix_of(source.name)} are not read: convert it to PNG"
    return "not an image of a known format"


def is_archive(path: str) -> bool:
    """Whether a file's name is that of an archive."""
    return path.lower().endswith(ARCHIVE_SUFFIXES)
