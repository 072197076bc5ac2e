from __future__ import annotations

import io
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from facedan_cli.data.images import UnreadableImage, read_image, read_reduced

RNG = np.random.default_rng(0)
COLOURS = RNG.integers(0, 256, (12, 20, 3), dtype=np.uint8)
GREYS = RNG.integers(0, 256, (12, 20), dtype=np.uint8)
DEEP_GREYS = RNG.integers(0, 65536, (12, 20)).astype(np.uint16)


def repeated(grey: np.ndarray) -> np.ndarray:
    return np.repeat(np.asarray(grey)[:, :, None], 3, axis=2)


def encoded(image: Image.Image, form: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.ppm", "a.tif", "a.TIFF"])
def test_lossless_colour_is_exact(tmp_path: Path, name: str) -> None:
    Image.fromarray(COLOURS).save(tmp_path / name)
    image = read_image(tmp_path / name)
    assert image.dtype == np.uint8
    assert image.flags.c_contiguous
    np.testing.assert_array_equal(image, COLOURS)


@pytest.mark.parametrize(
    ("name", "options"), [("a.jpg", {"quality": 100, "subsampling": 0}), ("a.webp", {"lossless": True})]
)
def test_lossy_colour_is_close(tmp_path: Path, name: str, options: dict[str, int]) -> None:
    smooth = cv2.resize(COLOURS, (80, 48), interpolation=cv2.INTER_CUBIC)
    Image.fromarray(smooth).save(tmp_path / name, **options)
    assert np.abs(read_image(tmp_path / name).astype(int) - smooth).mean() < 8


@pytest.mark.parametrize("name", ["a.png", "a.pgm", "a.bmp", "a.tif"])
def test_grey_is_repeated(tmp_path: Path, name: str) -> None:
    Image.fromarray(GREYS).save(tmp_path / name)
    np.testing.assert_array_equal(read_image(tmp_path / name), repeated(GREYS))


def test_black_and_white(tmp_path: Path) -> None:
    Image.fromarray(GREYS > 127).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), repeated(np.where(GREYS > 127, 255, 0)))


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.pgm"])
def test_sixteen_bits_are_scaled(tmp_path: Path, name: str) -> None:
    cv2.imwrite(str(tmp_path / name), DEEP_GREYS)
    image = read_image(tmp_path / name)
    np.testing.assert_array_equal(image, repeated(np.rint(DEEP_GREYS / 257)))


def test_a_ten_bit_pgm_is_scaled_by_the_maximum_it_states(tmp_path: Path) -> None:
    values = RNG.integers(0, 1024, (12, 20))
    (tmp_path / "a.pgm").write_bytes(b"P5 20 12 1023\n" + values.astype(">u2").tobytes())
    np.testing.assert_allclose(read_image(tmp_path / "a.pgm"), repeated(values * 255 / 1023), atol=0.51)


@pytest.mark.parametrize("top", [1.0, 255.0, 65535.0])
def test_floating_point_grey_is_scaled_by_its_range(tmp_path: Path, top: float) -> None:
    values = RNG.uniform(0, top, (12, 20)).astype(np.float32)
    values[0, 0] = top
    Image.fromarray(values).save(tmp_path / "a.tif")
    np.testing.assert_allclose(read_image(tmp_path / "a.tif"), repeated(values * (255 / top)), atol=0.51)


@pytest.mark.parametrize("value", [np.nan, np.inf, -1.0, 1e6])
def test_floating_point_without_a_meaning_is_refused(tmp_path: Path, value: float) -> None:
    Image.fromarray(np.full((4, 4), value, np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(UnreadableImage, match="floating-point"):
        read_image(tmp_path / "a.tif")


def test_transparent_pixels_lie_on_white(tmp_path: Path) -> None:
    alpha = RNG.integers(0, 256, (12, 20), dtype=np.uint8)
    share = alpha[:, :, None] / 255
    Image.fromarray(np.dstack([COLOURS, alpha])).save(tmp_path / "rgba.png")
    np.testing.assert_allclose(read_image(tmp_path / "rgba.png"), COLOURS * share + 255 * (1 - share), atol=1.01)
    Image.fromarray(np.dstack([GREYS, alpha])).save(tmp_path / "la.png")
    expected = repeated(GREYS) * share + 255 * (1 - share)
    np.testing.assert_allclose(read_image(tmp_path / "la.png"), expected, atol=1.01)


def test_a_palette_and_its_transparent_entry(tmp_path: Path) -> None:
    indices = (GREYS % 3).astype(np.uint8)
    image = Image.fromarray(indices).convert("P")
    image.putpalette([10, 20, 30, 200, 100, 50, 0, 0, 0])
    image.save(tmp_path / "a.png", transparency=2)
    expected = np.array([(10, 20, 30), (200, 100, 50), (255, 255, 255)])[indices]
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), expected)


def test_cmyk(tmp_path: Path) -> None:
    inks = Image.fromarray(COLOURS).convert("CMYK")
    inks.save(tmp_path / "a.tif")
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif"), COLOURS)
    inks.resize((80, 48)).save(tmp_path / "a.jpg", quality=100)
    nearby = np.asarray(Image.fromarray(COLOURS).resize((80, 48))).astype(int)
    assert np.abs(read_image(tmp_path / "a.jpg") - nearby).mean() < 8


ORIENTATIONS = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: np.rot90,
}


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.tif", "a.webp"])
def test_exif_orientation_is_undone(tmp_path: Path, name: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if name.endswith("webp") else {"quality": 100, "subsampling": 0}
    Image.fromarray(COLOURS).save(tmp_path / name, exif=exif, **(options if name[2:] in ("jpg", "webp") else {}))
    expected = ORIENTATIONS[orientation](COLOURS)
    image = read_image(tmp_path / name)
    assert image.shape == expected.shape
    assert np.abs(image.astype(int) - expected).mean() < 3


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
@pytest.mark.parametrize("factor", [1, 2, 4, 8])
@pytest.mark.parametrize("orientation", [1, 6])
def test_a_jpeg_may_be_decoded_to_fewer_pixels(tmp_path: Path, factor: int, orientation: int) -> None:
    ramp = np.linspace(0, 255, 1000 * 501).reshape(501, 1000).astype(np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(ramp).save(tmp_path / "a.jpg", exif=exif, quality=95)
    asked = []
    image = read_reduced(tmp_path / "a.jpg", lambda size: asked.append(size) or factor)
    assert asked == [(1000, 501)]
    assert image.size == ((1000, 501) if orientation == 1 else (501, 1000))
    height, width = image.pixels.shape[:2]
    assert (width, height) == tuple(-(-side // factor) for side in image.size)
    whole = read_image(tmp_path / "a.jpg")
    smaller = cv2.resize(whole, (width, height), interpolation=cv2.INTER_AREA)
    assert np.abs(smaller.astype(int) - image.pixels).mean() < 2


def test_other_formats_are_decoded_whole(tmp_path: Path) -> None:
    Image.new("RGB", (64, 32)).save(tmp_path / "a.png")
    assert read_reduced(tmp_path / "a.png", lambda _: 4).pixels.shape == (32, 64, 3)


def test_a_damaged_exif_block_does_not_cost_the_image(tmp_path: Path) -> None:
    Image.fromarray(COLOURS).save(tmp_path / "a.jpg", exif=b"Exif\x00\x00MM\x00*\xff\xff\xff\xff garbage")
    assert read_image(tmp_path / "a.jpg").shape == COLOURS.shape


def test_of_an_animation_the_first_frame_is_taken(tmp_path: Path) -> None:
    frames = [Image.fromarray(np.full((8, 8, 3), value, np.uint8)) for value in (40, 200)]
    for name in ("a.webp", "a.png"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], lossless=True)
        assert np.unique(read_image(tmp_path / name)).tolist() == [40]


@pytest.mark.parametrize("form", ["JPEG", "PNG", "PPM", "BMP", "TIFF"])
def test_a_file_that_is_cut_short_is_refused(tmp_path: Path, form: str) -> None:
    whole = encoded(Image.fromarray(COLOURS), form)
    (tmp_path / "a").write_bytes(whole[: len(whole) * 2 // 3])
    with pytest.raises(UnreadableImage, match="cut short"):
        read_image(tmp_path / "a")


@pytest.mark.parametrize(
    ("contents", "reason"),
    [
        (b"", "empty: the file has no bytes"),
        (b"not an image" * 100, "not an image of a known format"),
        (b"P5 10001 10000 255\n" + bytes(100), "too large"),
        (b"P5 40000 10 255\n" + bytes(400_000), "too large"),
        (b"P5 60000 60000 255\n" + bytes(100), "too large"),
    ],
)
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_other_files_are_refused_with_the_reason(tmp_path: Path, contents: bytes, reason: str) -> None:
    (tmp_path / "a.jpg").write_bytes(contents)
    with pytest.raises(UnreadableImage, match=reason):
        read_image(tmp_path / "a.jpg")


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnreadableImage, match="the file is missing"):
        read_image(tmp_path / "a.jpg")


def test_a_png_with_a_wrong_checksum_is_refused(tmp_path: Path) -> None:
    contents = bytearray(encoded(Image.fromarray(COLOURS), "PNG"))
    contents[contents.index(b"IDAT") + 8] ^= 0xFF
    (tmp_path / "a.png").write_bytes(contents)
    with pytest.raises(UnreadableImage, match="damaged"):
        read_image(tmp_path / "a.png")


FILES = [encoded(Image.fromarray(COLOURS), form) for form in ("JPEG", "PNG", "BMP", "PPM", "WEBP", "TIFF")]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.sampled_from(FILES), st.lists(st.tuples(st.integers(0, 999_999), st.integers(0, 255)), max_size=5), st.data())
@pytest.mark.filterwarnings("ignore::UserWarning:PIL", "ignore::PIL.Image.DecompressionBombWarning")
def test_damage_of_any_kind_gives_an_image_or_a_reason(
    tmp_path: Path, whole: bytes, changes: list[tuple[int, int]], data: st.DataObject
) -> None:
    contents = bytearray(whole)
    for place, value in changes:
        contents[place % len(contents)] = value
    (tmp_path / "a").write_bytes(contents[: data.draw(st.integers(0, len(contents)))])
    try:
        image = read_image(tmp_path / "a")
    except UnreadableImage:
        return
    assert image.dtype == np.uint8
    assert image.ndim == 3
    assert image.shape[2] == 3
