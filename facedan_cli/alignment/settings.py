"""Checks of an alignment's configuration, also against the settings that the aligned tree was made with."""

from __future__ import annotations

import contextlib
from itertools import chain, islice
from pathlib import Path
from typing import Any

from facedan_cli.alignment.source_image import SourceImage
from facedan_cli.alignment.sources import source_images
from facedan_cli.alignment.target import Target
from facedan_cli.config.common import REFERENCE_OFFSET, AlignConfig
from facedan_cli.config.fields import check_choices
from facedan_cli.config.templates import POINT_COUNTS
from facedan_cli.data.formats import ARCHIVE_SUFFIXES, IMAGE_SUFFIXES, is_archive
from facedan_cli.data.manifest import GIVEN, SETTINGS, leads_outside, read_records
from facedan_cli.errors import FacedanError, UsageError
from facedan_cli.json_files import read_object
from facedan_cli.workspace import MANIFEST_FILE, sha256_file, write_json

SET_ASIDE = "set-aside.tsv"
SHEET_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")

_LEFT_OUT = (("template", None), ("points", 3), ("edges", "cut"))
"""Settings that align.json does not name: of given faces no template; three points, as all versions before fitted; and
candidates cut at the image's edge, as before and with facenet-pytorch's landmarks."""


def check_config(config: AlignConfig) -> None:
    """Check the configuration and its input.

    Raises:
        UsageError: an option has an impossible value, or one tree lies in the other.
        FacedanError: there is no image.
    """
    check_choices(config)
    for option, value, least in (
        ("--size", 1 if config.size is None else config.size, 1),
        ("--min-face", config.min_face, 12),  # the window of P-Net
        ("--detector-batch", config.detector_batch, 1),
    ):
        if value < least:
            raise UsageError(f"{option} {value} is too small", f"give {least} or more")
    if config.points is not None and config.points not in POINT_COUNTS:
        raise UsageError(f"--points {config.points} is impossible", f"give {' or '.join(map(str, POINT_COUNTS))}")
    if config.no_align and config.landmarks:
        raise UsageError("--no-align and --landmarks exclude each other", "leave one of them out")
    if config.contact_sheet and config.contact_sheet.suffix.lower() not in SHEET_SUFFIXES:
        raise UsageError(f"--contact-sheet {config.contact_sheet} is no image", f"end it in {SHEET_SUFFIXES[0]}")
    if not config.raw.exists():
        raise FacedanError(f"{config.raw} does not exist", "give the directory with the images")
    raw, out = config.raw.resolve(), config.out.resolve()
    if raw.is_relative_to(out) or (raw.is_dir() and out.is_relative_to(raw)):
        raise UsageError(
            f"of {config.raw} and {config.out} one lies in the other: aligned faces would mix with images",
            "give a directory outside for the aligned faces",
        )
    _check_images(config)


def _check_images(config: AlignConfig) -> None:
    found = source_images(config.raw, config.root, config.out)
    some = list(islice(found, 1))
    listed = not config.raw.is_dir() and not is_archive(config.raw.name)
    if not some and listed:
        raise FacedanError("the list of images is empty", "give a path a line")
    if not some:
        endings = ", ".join(sorted({*IMAGE_SUFFIXES, *ARCHIVE_SUFFIXES}))
        raise FacedanError(f"{config.raw} holds no images", f"images and archives of them end in {endings}")
    if listed and not any(map(_is_there, chain(some, found))):
        raise FacedanError(
            f"none of the listed images can be used, such as {some[0].path}",
            f"paths are relative to the current directory, and lie in {config.root} (--root)",
        )


def _is_there(image: SourceImage) -> bool:
    return image.name != "" and (not isinstance(image.content, Path) or image.content.exists())


def check_settings(config: AlignConfig) -> None:
    """Record the settings in the aligned tree, or check that they are those recorded there.

    Raises:
        FacedanError: the tree was aligned with others.
    """
    path = config.out / SETTINGS
    target = Target.of(config)
    template = None if target.template == GIVEN else target.template
    settings: dict[str, Any] = {
        "no_align": config.no_align,
        "size": target.size,
        "template": template,
        "points": target.points,
    }
    if not config.no_align:
        settings |= {
            "min_face": config.min_face,
            "second_pass": config.second_pass,
            "landmark_offset": config.landmark_offset,
            "edges": "cut" if config.landmark_offset == REFERENCE_OFFSET else "black",
            "landmarks": sha256_file(config.landmarks) if config.landmarks else None,
        }
    fix = "give another directory for the aligned faces, or align everything again with --force"
    if not path.exists():
        write_json(path, {key: value for key, value in settings.items() if (key, value) not in _LEFT_OUT})
        return
    try:
        earlier = read_object(path)
    except ValueError as error:
        raise FacedanError(f"{path} is damaged", fix) from error
    earlier = {"landmark_offset": REFERENCE_OFFSET, **dict(_LEFT_OUT)} | earlier
    changed = [key for key, value in settings.items() if earlier.get(key) != value]
    if changed == ["edges"]:
        raise FacedanError(f"the faces in {config.out} were detected by a version that cut off faces at edges", fix)
    different = [f"--{key.replace('_', '-')}" for key in changed if key != "edges"]
    if different:
        raise FacedanError(f"the faces in {config.out} were aligned with another {', '.join(different)}", fix)


def start_over(out: Path) -> None:
    """Remove the files of earlier runs from the aligned tree."""
    for record in read_records(out / MANIFEST_FILE, []):  # a damaged manifest is a reason to start over
        if record.output is not None and not leads_outside(out, record.output):
            with contextlib.suppress(IsADirectoryError, NotADirectoryError):
                (out / record.output).unlink(missing_ok=True)
    for name in (SET_ASIDE, SETTINGS, MANIFEST_FILE):
        (out / name).unlink(missing_ok=True)
