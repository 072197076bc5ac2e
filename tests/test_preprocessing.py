"""Sizes and normalisations as options give them."""

import pytest

from facedan_cli.config.preprocessing import parse_normalisation, parse_size
from facedan_cli.errors import UsageError


@pytest.mark.parametrize(
    ("mean", "std", "expected"),
    [
        ("0.5", "0.5", ((127.5,) * 3, (127.5,) * 3)),
        ("127.5", "128", ((127.5,) * 3, (128.0,) * 3)),
        (None, None, ((127.5,) * 3, (127.5,) * 3)),
        (None, "128", ((127.5,) * 3, (128.0,) * 3)),
        ("127", None, ((127.0,) * 3, (127.5,) * 3)),
        ("0.4", None, ((102.0,) * 3, (127.5,) * 3)),
        ("0", "1", ((0.0,) * 3, (255.0,) * 3)),
        ("0", "255", ((0.0,) * 3, (255.0,) * 3)),
        ("0.2,0.4,0.6", "0.2", ((51.0, 102.0, 153.0), (51.0,) * 3)),
        ("123.675,116.28,103.53", "58.395,57.12,57.375", ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))),
    ],
)
def test_numbers_up_to_one_are_of_images_from_0_to_1(mean, std, expected):
    for found, wanted in zip(parse_normalisation(mean, std), expected, strict=True):
        assert found == pytest.approx(wanted)


@pytest.mark.parametrize(("mean", "std"), [("a", "1"), ("1,2", "1"), ("0", "0"), ("0", "-1"), ("nan", "1"), ("", "1")])
def test_no_numbers_are_refused(mean, std):
    with pytest.raises(UsageError):
        parse_normalisation(mean, std)


@pytest.mark.parametrize(("text", "expected"), [("112", (112, 112)), ("112x96", (112, 96)), ("160X160", (160, 160))])
def test_sizes_are_height_and_width(text, expected):
    assert parse_size(text) == expected


@pytest.mark.parametrize("text", ["", "x", "112x", "8", "112x96x3", "-112", "1.5", "2000x10"])
def test_other_sizes_are_refused(text):
    with pytest.raises(UsageError):
        parse_size(text)
