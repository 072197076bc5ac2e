"""Decoding of image files to RGB."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, UnidentifiedImageError

from facedan_cli.data.depth import Depth, OutOfRange
from facedan_cli.data.formats import is_camera_raw, no_file, readable_formats, why_unknown

MAX_PIXELS = 100_000_000
"""Most pixels of an image; a small file can claim a size that fills the memory (a decompression bomb)."""

MAX_SIDE = 32_000
"""Longest side of an image; OpenCV's warps take sides of 16 bits."""

_ORIENTATION = 0x0112  # EXIF tag
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class UnreadableImage(ValueError):
    """A file that cannot be used as an image; the message is the reason in set-aside.tsv."""


@dataclass(frozen=True)
class DecodedImage:
    """A decoded image.

    Args:
        pixels: RGB, uint8, shape (height, width, 3), perhaps fewer than the file has.
        size: width and height of the upright image itself.
    """

    pixels: np.ndarray
    size: tuple[int, int]


def read_image(source: Path | BinaryIO) -> np.ndarray:
    """The decoded image: RGB, uint8, shape (height, width, 3), upright by its EXIF orientation.

    Grey is repeated in three channels; transparent pixels lie on white; of an animation the first frame is taken.
    More than eight bits a channel are scaled by the range that their values fill (`depth.scaled`).

    Raises:
        UnreadableImage: the file is missing, damaged, cut short, too large, not an image, or not a file at all, such
            as a named pipe. No other program is started to read it.
    """
    return read_reduced(source, lambda _: 1).pixels


def read_reduced(source: Path | BinaryIO, reduction: Callable[[tuple[int, int]], int]) -> DecodedImage:
    """The image as `read_image` gives it, or a JPEG decoded to fewer pixels if allowed, in a fraction of the time.

    Args:
        source: the file.
        reduction: gives for the width and height of the file by what both may be divided: 1, 2, 4 or 8.

    Raises:
        UnreadableImage: as `read_image`.
    """
    try:
        if isinstance(source, Path):
            _refuse_at_sight(source)
        with Image.open(source, formats=readable_formats()) as image:
            width, height = image.size
            if width * height > MAX_PIXELS or max(width, height) > MAX_SIDE:
                raise UnreadableImage(f"too large: {width}×{height} pixels")
            factor = reduction((width, height))
            if factor > 1 and image.format == "JPEG":
                # The decoder leaves out the higher frequencies of each block of 8×8 pixels.
                image.draft(None, (max(1, width // factor), max(1, height // factor)))
            depth = Depth(image, source)
            image.load()
            upright = _upright(depth.eight_bit(), _orientation(image))
            turned = (upright.width > upright.height) != (image.width > image.height)
            return DecodedImage(_to_rgb(upright), (height, width) if turned else (width, height))
    except UnreadableImage:
        raise
    except OutOfRange as error:
        raise UnreadableImage(str(error)) from error
    except Exception as error:  # Pillow's decoders raise errors of every type on damaged files
        raise UnreadableImage(_reason(error, source)) from error


def _refuse_at_sight(path: Path) -> None:
    """Raise an error for files that would block or be decoded as another image.

    Raises:
        UnreadableImage: it is no regular file, or a camera's raw file.
        OSError: it is not there, or may not be looked at.
    """
    if reason := no_file(path.stat().st_mode):
        raise UnreadableImage(reason)
    if is_camera_raw(path):
        raise UnreadableImage("a camera's raw file: convert it to JPEG or PNG")


def _reason(error: Exception, source: Path | BinaryIO) -> str:
    text = str(error)
    if isinstance(error, FileNotFoundError):
        return "the file is missing"
    if isinstance(error, PermissionError):
        return "the file may not be read"
    if isinstance(error, UnidentifiedImageError):
        return _why_unknown(source)
    if isinstance(error, Image.DecompressionBombError):
        return "too large: more pixels than any camera takes"
    if "truncated" in text or "not enough image data" in text or "Truncated" in text:
        return "cut short: the end of the file is missing"
    return f"damaged: {text or type(error).__name__}"


def _why_unknown(source: Path | BinaryIO) -> str:
    try:
        return why_unknown(source)
    except (OSError, ValueError):  # removed meanwhile
        return "not an image of a known format"


def _upright(image: Image.Image, orientation: int | None) -> Image.Image:
    return image if orientation not in _UPRIGHT else image.transpose(_UPRIGHT[orientation])


def _orientation(image: Image.Image) -> int | None:
    try:
        return image.getexif().get(_ORIENTATION)
    except Exception:  # a damaged EXIF block says nothing of the image
        return None


def _to_rgb(image: Image.Image) -> np.ndarray:
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        image = Image.alpha_composite(white, rgba)
    return np.array(image.convert("RGB"))
