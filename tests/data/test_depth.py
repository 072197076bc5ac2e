from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from facedan_cli.data.depth import OUTLIERS, OutOfRange, full_scale, scaled
from facedan_cli.data.images import UnreadableImage, read_image

RNG = np.random.default_rng(0)
GREYS = RNG.integers(0, 256, (40, 50), dtype=np.uint8)
GREYS[0, :10] = 255
COLOURS = RNG.integers(0, 256, (40, 50, 3), dtype=np.uint8)
COLOURS[0, :10] = 255


def deeper(levels: np.ndarray, bits: int) -> np.ndarray:
    """The levels of eight bits as a camera of more would give them."""
    return np.rint(levels * ((2**bits - 1) / 255)).astype(np.uint32)


def as_rgb(levels: np.ndarray) -> np.ndarray:
    return levels if levels.ndim == 3 else np.repeat(levels[:, :, None], 3, axis=2)


def png(values: np.ndarray, significant: int | None = None) -> bytes:
    """A PNG of 16 bits, grey or RGB, of which a chunk may say how many bits are significant."""
    colours = 1 if values.ndim == 2 else values.shape[2]

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    height, width = values.shape[:2]
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, {1: 0, 2: 4, 3: 2}[colours], 0, 0, 0))
    said = b"" if significant is None else chunk(b"sBIT", bytes([significant]) * colours)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    return b"\x89PNG\r\n\x1a\n" + header + said + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@given(st.integers(8, 16), arrays.arrays(np.uint8, st.tuples(st.integers(1, 6), st.integers(1, 6))))
def test_pixels_of_any_depth_are_what_they_are_with_eight_bits(bits: int, levels: np.ndarray) -> None:
    levels[0, 0] = 255
    for kind in (np.uint16, np.int32, np.uint32, np.float32):
        values = deeper(levels, bits).astype(kind)
        assert np.abs(scaled(values).astype(int) - levels).max() <= 1


@given(arrays.arrays(np.uint16, st.integers(1, 300)))
def test_nothing_becomes_darker_than_half_of_what_it_could_be(values: np.ndarray) -> None:
    top = full_scale(values)
    assert top == 255 or top / 2 < np.sort(values)[-1 - len(values) // OUTLIERS] <= top


@pytest.mark.parametrize("bits", [8, 9, 10, 12, 14, 16])
@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.pgm"])
@pytest.mark.parametrize("levels", [GREYS, COLOURS], ids=["grey", "colour"])
def test_files_of_sixteen_bits_of_which_fewer_are_used(
    tmp_path: Path, bits: int, name: str, levels: np.ndarray
) -> None:
    path = tmp_path / (name if levels.ndim == 2 else name.replace("pgm", "ppm"))
    values = deeper(levels, bits).astype(np.uint16)
    cv2.imwrite(str(path), values if levels.ndim == 2 else values[:, :, ::-1])
    assert np.abs(read_image(path).astype(int) - as_rgb(levels)).max() <= 1


@pytest.mark.parametrize("bits", [8, 12, 20, 31, 32])
def test_grey_of_thirty_two_bits(tmp_path: Path, bits: int) -> None:
    values = np.rint(GREYS * ((2.0**bits - 1) / 255)).astype(np.uint32)
    cv2.imwrite(str(tmp_path / "unsigned.tif"), values)
    assert np.abs(read_image(tmp_path / "unsigned.tif").astype(int) - as_rgb(GREYS)).max() <= 1
    if bits < 32:
        Image.fromarray(values.astype(np.int32)).save(tmp_path / "signed.tif")
        assert np.abs(read_image(tmp_path / "signed.tif").astype(int) - as_rgb(GREYS)).max() <= 1


@pytest.mark.parametrize("top", [1.0, 1.02, 255.0, 260.0, 1023.0, 4095.0])
def test_floating_point_grey_of_any_range(tmp_path: Path, top: float) -> None:
    Image.fromarray((GREYS * (top / 255)).astype(np.float32)).save(tmp_path / "a.tif")
    assert np.abs(read_image(tmp_path / "a.tif").astype(int) - as_rgb(GREYS)).max() <= 13  # a twentieth


def test_the_significant_bits_of_a_png_are_believed_where_the_values_are_of_so_many() -> None:
    dim = (GREYS // 3).astype(np.uint16)  # of 1023 levels a twelfth is too little to believe, a sixth is not
    assert read_image(io.BytesIO(png(dim * 2, 10))).max() == round(170 * 255 / 1023)
    assert read_image(io.BytesIO(png(dim * 2))).max() == 170
    assert read_image(io.BytesIO(png(dim, 10))).max() == 85
    whole = deeper(GREYS, 16)  # written as the format asks for, the significant bits are the upper ones
    assert np.abs(read_image(io.BytesIO(png(whole, 10))).astype(int) - as_rgb(GREYS)).max() <= 1


def test_grey_with_transparency_of_ten_bits() -> None:
    opaque = np.full_like(GREYS, 255)
    values = deeper(np.dstack([GREYS, opaque]), 10)
    assert np.abs(read_image(io.BytesIO(png(values))).astype(int) - as_rgb(GREYS)).max() <= 1


@pytest.mark.parametrize("maximum", [1023, 4095])
@pytest.mark.parametrize("levels", [GREYS, COLOURS], ids=["grey", "colour"])
def test_the_maximum_of_a_netpbm_file_is_believed(levels: np.ndarray, maximum: int) -> None:
    half = levels // 2
    values = np.rint(half * (maximum / 255)).astype(">u2")
    header = f"P{5 if levels.ndim == 2 else 6} 50 40 {maximum}\n".encode()
    assert np.abs(read_image(io.BytesIO(header + values.tobytes())).astype(int) - as_rgb(half)).max() <= 1


@pytest.mark.parametrize(("tag", "value"), [(281, 1023), (258, None)])
def test_what_a_tiff_states_is_believed(tmp_path: Path, tag: int, value: int | None) -> None:
    values = deeper(GREYS, 10).astype(np.uint16) // 2
    values[values > 400] = 400
    tags = {} if value is None else {tag: value}
    Image.fromarray(values).save(tmp_path / "a.tif", tiffinfo=tags)
    top = 511 if value is None else 1023
    assert read_image(tmp_path / "a.tif").max() == round(400 * 255 / top)


def test_white_may_be_zero(tmp_path: Path) -> None:
    Image.fromarray(255 - GREYS.astype(np.uint16)).save(tmp_path / "a.tif", tiffinfo={262: 0})
    with Image.open(tmp_path / "a.tif") as image:
        assert image.tag_v2[262] == 0
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif"), as_rgb(GREYS))


def test_a_hot_pixel_costs_no_light() -> None:
    values = deeper(GREYS, 10).astype(np.uint16)
    values[20, 20] = 65535
    grey = scaled(values)
    assert grey[20, 20] == 255
    grey[20, 20] = GREYS[20, 20]
    assert np.abs(grey.astype(int) - GREYS).max() <= 1


def test_negative_values_are_no_pixels(tmp_path: Path) -> None:
    values = GREYS.astype(np.int32) - 100
    with pytest.raises(OutOfRange, match="negative integer"):
        scaled(values)
    Image.fromarray(values).save(tmp_path / "a.tif")
    with pytest.raises(UnreadableImage, match="negative integer"):
        read_image(tmp_path / "a.tif")
    noise = GREYS.astype(np.int32) - 3  # a dark frame was taken off
    np.testing.assert_array_equal(scaled(noise), np.maximum(noise, 0))


def test_deep_colour_is_turned_upright_and_flattened(tmp_path: Path) -> None:
    alpha = np.where(GREYS > 127, 255, 0).astype(np.uint8)
    values = deeper(np.dstack([COLOURS[:, :, ::-1], alpha]), 12).astype(np.uint16)
    cv2.imwrite(str(tmp_path / "a.png"), values)
    flat = np.where(alpha[:, :, None] == 255, COLOURS, 255)
    assert np.abs(read_image(tmp_path / "a.png").astype(int) - flat).max() <= 1
    exif = Image.Exif()
    exif[0x0112] = 6
    content = (tmp_path / "a.png").read_bytes()
    block = exif.tobytes().removeprefix(b"Exif\0\0")
    chunk = struct.pack(">I", len(block)) + b"eXIf" + block + struct.pack(">I", zlib.crc32(b"eXIf" + block))
    turned = read_image(io.BytesIO(content[:33] + chunk + content[33:]))
    assert np.abs(turned.astype(int) - np.rot90(flat, -1)).max() <= 1


def test_a_deep_colour_file_that_is_cut_short_is_refused(tmp_path: Path) -> None:
    whole = png(deeper(COLOURS, 10))
    (tmp_path / "a.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UnreadableImage, match="cut short"):
        read_image(tmp_path / "a.png")
