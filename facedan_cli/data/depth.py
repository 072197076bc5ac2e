"""Conversion of pixels with more than eight bits a channel to eight, scaled by the range of their values.

Cameras of 10, 12 or 14 bits write files of 16 or 32 without scaling: divided by the files' range a face is black.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any, BinaryIO

import cv2
import numpy as np
from PIL import Image

OUTLIERS = 1000
"""One in this many values may lie above the range and is clipped: hot pixels and markers of missing values."""

OVERSHOOT = 1.05
"""Factor by which values may exceed their range: resampling overshoots, and dark frames are subtracted."""

LEAST_USED = 1 / 8
"""Smallest share of a stated range that the values must use; else the range is taken to be wrong."""

_WHITE = 65535

_PHOTOMETRIC, _BITS, _MAXIMUM, _SAMPLE_FORMAT = 262, 258, 281, 339  # tags of TIFF
_WHITE_IS_ZERO = 0

_DEEP_MODES = ("I", "F")
_PNG_HEADER = 8


class OutOfRange(ValueError):
    """Pixel values that fit no range; the message names them."""


class Depth:
    """The range of an image's pixels by its file, read before the image is loaded.

    Args:
        image: the image, opened by Pillow.
        source: the file of the image.
    """

    def __init__(self, image: Image.Image, source: Path | BinaryIO) -> None:
        self._image = image
        self._source = source
        self._deep = image.mode.startswith(_DEEP_MODES)
        maximum = _maximum_of_ppm(image)
        self._deep_colour = not self._deep and (maximum > 255 or _keeps_high_bytes(image))
        self._stated_by_ppm = maximum if 255 < maximum < _WHITE else None

    def eight_bit(self) -> Image.Image:
        """The loaded image with at most eight bits a channel.

        Raises:
            OutOfRange: negative values, or floating-point ones that are no pixels.
        """
        if self._deep:
            return Image.fromarray(self._grey())
        if self._deep_colour:
            contents = _contents(self._source)
            if (values := _decoded(contents)) is not None:
                return Image.fromarray(_colour(values, self._stated_by_ppm or _stated(self._image, contents)))
        return self._image

    def _grey(self) -> np.ndarray:
        values = np.asarray(self._image)
        tags = getattr(self._image, "tag_v2", {})
        if values.dtype == np.int32 and (_first(tags.get(_BITS)), _first(tags.get(_SAMPLE_FORMAT, 1))) == (32, 1):
            values = values.view(np.uint32)  # Pillow has no mode for them
        # Pillow has scaled values of which a PGM's header says the maximum.
        stated = _WHITE if self._stated_by_ppm else _stated(self._image, _contents(self._source))
        grey = scaled(values, stated)
        return 255 - grey if _first(tags.get(_PHOTOMETRIC)) == _WHITE_IS_ZERO else grey


def scaled(values: np.ndarray, stated: float | None = None) -> np.ndarray:
    """Values of any type as uint8, scaled by their range.

    Args:
        values: integers from 0 on, which fill 8 to 32 bits; or floats up to 1 or from 0 on as integers up to 65535.
        stated: the largest value that the file allows, where it says so.

    Returns:
        uint8, of the same shape.

    Raises:
        OutOfRange: there are others.
    """
    floating = values.dtype.kind == "f"
    kind = "floating-point" if floating else "integer"
    if floating and not np.isfinite(values).all():
        raise OutOfRange(f"{kind} values that are not finite")
    top = full_scale(values, stated)
    if values.min() < (1 - OVERSHOOT) * top:
        raise OutOfRange(f"negative {kind} values")
    if floating and top > _WHITE:
        raise OutOfRange(f"{kind} values above {_WHITE}")
    if values.dtype == np.uint16:
        return np.take(_levels(np.arange(65536), top), values)
    return _levels(values, top)


def _levels(values: np.ndarray, top: float) -> np.ndarray:
    levels: np.ndarray = np.clip(np.rint(values * (255 / top)), 0, 255).astype(np.uint8)
    return levels


def full_scale(values: np.ndarray, stated: float | None = None) -> float:
    """The value of white: `stated`, else the first of 2⁸-1, 2⁹-1, … that holds the values; 1 for small floats.

    One in OUTLIERS may lie above. What a file states is not believed where it has values above that, or none that come
    near it.
    """
    flat = values.ravel()
    place = len(flat) - 1 - len(flat) // OUTLIERS
    highest = float(np.partition(flat, place)[place])
    if stated is not None and stated * LEAST_USED < highest <= stated:
        return stated
    if values.dtype.kind == "f":
        if highest <= OVERSHOOT:
            return 1.0
        highest /= OVERSHOOT
    bits = next(bits for bits in range(8, 2048) if highest <= 2.0**bits - 1)
    return 2.0**bits - 1


def _keeps_high_bytes(image: Image.Image) -> bool:
    """Whether Pillow drops the low byte of each channel, as in colour images of 16 bits."""
    modes = [_first(tile[3]) for tile in getattr(image, "tile", ())]
    return any(";16" in str(mode) for mode in modes)


def _maximum_of_ppm(image: Image.Image) -> int:
    """The maximum in the header of a PPM or PGM that Pillow scales by; else 0."""
    tiles = getattr(image, "tile", ()) if image.format == "PPM" else ()
    return next((int(tile[3][1]) for tile in tiles if tile[0].startswith("ppm")), 0)


def _contents(source: Path | BinaryIO) -> bytes:
    if isinstance(source, Path):
        return source.read_bytes()
    source.seek(0)
    return source.read()


def _decoded(contents: bytes) -> np.ndarray | None:
    """The pixels of a file as RGB, RGBA or grey of 16 bits; None if OpenCV cannot read them."""
    try:
        values = cv2.imdecode(np.frombuffer(contents, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        return None
    if values is None or values.dtype != np.uint16:
        return None
    if values.ndim == 2:
        return values
    return cv2.cvtColor(values, cv2.COLOR_BGRA2RGBA if values.shape[2] == 4 else cv2.COLOR_BGR2RGB)


def _colour(values: np.ndarray, stated: float | None) -> np.ndarray:
    """Pixels as uint8, with one range for all colours, which keeps hues, and one for the transparency."""
    if values.ndim == 2 or values.shape[2] == 3:
        return scaled(values, stated)
    return np.dstack([scaled(values[:, :, :3], stated), scaled(values[:, :, 3])])


def _stated(image: Image.Image, contents: bytes) -> float | None:
    """The largest value by a file that states how many bits it uses; else None."""
    if image.format == "PNG":
        bits = _significant_bits(contents)
        return None if bits is None else 2.0**bits - 1
    tags = getattr(image, "tag_v2", {})
    bits, most = (int(_first(tags.get(tag, 0))) for tag in (_BITS, _MAXIMUM))
    if 8 < bits < 16:
        return 2.0**bits - 1
    return full_scale(np.array([most])) if 0 < most < 2**bits - 1 else None


def _first(value: Any) -> Any:
    return value[0] if isinstance(value, tuple) else value


def _significant_bits(contents: bytes) -> int | None:
    """The number of significant bits in the sBIT chunk of a grey PNG; None without that chunk."""
    place = _PNG_HEADER
    while place + 9 <= len(contents):
        length, kind = struct.unpack_from(">I4s", contents, place)
        if kind == b"sBIT" and 8 <= contents[place + 8] < 16:
            return contents[place + 8]
        if kind == b"IDAT":
            return None
        place += length + 12
    return None
