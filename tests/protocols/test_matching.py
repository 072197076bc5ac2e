from __future__ import annotations

import pytest

from facedan_cli.errors import FacedanError
from facedan_cli.protocols.matching import match_images


def test_the_exact_path_comes_first() -> None:
    found = match_images(["b/1.jpg"], ["b/1.png", "b/1.jpg", "1.jpg"])
    assert (found.rows, found.missing) == ({"b/1.jpg": 1}, ())


@pytest.mark.parametrize("name", ["Al_Gore/Al_Gore_0008", "Al_Gore/Al_Gore_0008.jpg", r".\Al_Gore\Al_Gore_0008.JPG"])
def test_then_the_path_without_its_extension(name: str) -> None:
    assert match_images([name], ["Al_Gore/Al_Gore_0007.png", "Al_Gore/Al_Gore_0008.png"]).rows == {name: 1}


def test_then_the_base_name_without_case_or_extension() -> None:
    images = ["nd1/Fall2003/04530D235.PNG", "nd1/Fall2003/04381d64.png"]
    assert match_images(["Query/Original/04530d235.jpg"], images).rows == {"Query/Original/04530d235.jpg": 0}


def test_missing_names_keep_their_order_and_come_once() -> None:
    found = match_images(["z.jpg", "a.jpg", "y.jpg", "z.jpg"], ["a.jpg"])
    assert (found.rows, found.missing) == ({"a.jpg": 0}, ("z.jpg", "y.jpg"))


def test_base_names_that_repeat_in_the_protocol_do_not_stand_for_another_directory() -> None:
    found = match_images(["s1/1.pgm", "s2/1.pgm", "s3/1.pgm"], ["s1/1.png", "s3/1.png"])
    assert (found.rows, found.missing) == ({"s1/1.pgm": 0, "s3/1.pgm": 1}, ("s2/1.pgm",))


def test_an_ambiguous_base_name_that_is_needed_names_both_images() -> None:
    with pytest.raises(FacedanError, match=r"two images fit the name Q/7\.jpg: a/7\.jpg and b/7\.jpg") as error:
        match_images(["Q/7.jpg"], ["a/7.jpg", "b/7.jpg"])
    assert "directory" in error.value.fix
    with pytest.raises(FacedanError, match=r"a/7\.jpg and a/7\.png"):
        match_images(["a/7"], ["a/7.jpg", "a/7.png"])


def test_an_ambiguous_base_name_that_is_not_needed_does_no_harm() -> None:
    assert match_images(["Q/8.jpg", "a/7.jpg"], ["a/7.jpg", "b/7.jpg", "8.jpg"]).rows == {"Q/8.jpg": 2, "a/7.jpg": 0}
