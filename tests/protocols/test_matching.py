from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from facedan_cli.protocols.matching import NOT_THERE, match_images


def test_the_exact_path_comes_first() -> None:
    found = match_images(["b/1.jpg"], ["b/1.png", "b/1.jpg", "1.jpg"])
    assert (found.rows, tuple(found.missing)) == ({"b/1.jpg": 1}, ())


@pytest.mark.parametrize("name", ["Al_Gore/Al_Gore_0008", "Al_Gore/Al_Gore_0008.jpg", r".\Al_Gore\Al_Gore_0008.JPG"])
def test_then_the_path_without_its_extension(name: str) -> None:
    assert match_images([name], ["Al_Gore/Al_Gore_0007.png", "Al_Gore/Al_Gore_0008.png"]).rows == {name: 1}


def test_then_the_base_name_without_case_or_extension_where_the_protocol_is_defined_by_them() -> None:
    images = ["nd1/Fall2003/04530D235.PNG", "nd1/Fall2003/04381d64.png"]
    name = "Query/Original/04530d235.jpg"
    assert match_images([name], images, by_base_name=True).rows == {name: 0}
    assert match_images([name], images).missing == {name: NOT_THERE}


def test_missing_names_keep_their_order_and_come_once() -> None:
    found = match_images(["z.jpg", "a.jpg", "y.jpg", "z.jpg"], ["a.jpg"])
    assert (found.rows, tuple(found.missing)) == ({"a.jpg": 0}, ("z.jpg", "y.jpg"))


def test_base_names_that_repeat_in_the_protocol_do_not_stand_for_another_directory() -> None:
    found = match_images(["s1/1.pgm", "s2/1.pgm", "s3/1.pgm"], ["s1/1.png", "s3/1.png"])
    assert (found.rows, tuple(found.missing)) == ({"s1/1.pgm": 0, "s3/1.pgm": 1}, ("s2/1.pgm",))


def test_an_ambiguous_name_is_absent_with_both_images_as_the_reason_and_costs_no_other() -> None:
    found = match_images(["Q/7.jpg", "Q/8.jpg"], ["a/7.jpg", "b/7.jpg", "8.jpg"], by_base_name=True)
    assert found.missing == {"Q/7.jpg": "2 images fit the name: a/7.jpg and b/7.jpg"}
    assert found.rows == {"Q/8.jpg": 2}
    assert match_images(["a/7"], ["a/7.jpg", "a/7.png"]).missing == {
        "a/7": "2 images fit the name: a/7.jpg and a/7.png"
    }


def test_an_ambiguous_base_name_that_is_not_needed_does_no_harm() -> None:
    found = match_images(["Q/8.jpg", "a/7.jpg"], ["a/7.jpg", "b/7.jpg", "8.jpg"], by_base_name=True)
    assert found.rows == {"Q/8.jpg": 2, "a/7.jpg": 0}


def test_another_folder_is_another_subject() -> None:
    images = ["A/2.jpg", "A/5.jpg", "B/3.jpg", "C/1.jpg", "a/9.jpg"]
    assert match_images(["A/1.jpg", "A/9.jpg", "1.jpg"], images).rows == {}


def test_names_that_differ_in_the_suffix_are_two_images() -> None:
    assert match_images(["A/1.jpg", "A/1.png"], ["A/1.jpg", "A/2.jpg"]).rows == {"A/1.jpg": 0}
    both = match_images(["A/1.bmp", "A/1.png"], ["A/1.jpg"])
    assert both.rows == {}
    assert set(both.missing.values()) == {"A/1.jpg fits A/1.bmp and A/1.png"}
    assert match_images(["A/1", "A/1.jpg"], ["A/1.jpg"]).rows == {"A/1": 0, "A/1.jpg": 0}


def test_a_face_is_known_by_the_file_that_it_was_made_from() -> None:
    faces = [("A/1.jpg", "A/1.jpg"), ("A/1.png.jpg", "A/1.png"), ("A/2.jpg", "A/2.png")]
    assert match_images(["A/1.jpg", "A/1.png", "A/2.png", "A/2.jpg"], faces).rows == {
        "A/1.jpg": 0,
        "A/1.png": 1,
        "A/2.png": 2,
        "A/2.jpg": 2,
    }
    assert match_images(["A/1.png", "A/1.jpg"], ["A/1.jpg", "A/1.png.jpg"]).rows == {"A/1.png": 1, "A/1.jpg": 0}
    # The name of one face is that of another's file: which is meant, nobody knows.
    all_pairs = match_images(["A/1.jpg"], [("A/1.jpg", "A/1.png"), ("A/1.jpg.jpg", "A/1.jpg")])
    assert all_pairs.missing == {"A/1.jpg": "2 images fit the name: A/1.jpg and A/1.jpg.jpg"}


def test_accents_stored_apart_and_suffixes_in_capitals_are_the_same_name() -> None:
    composed, apart = "Jos\u00e9/1.jpg", "Jose\u0301/1.jpg"
    assert match_images([composed], [apart]).rows == {composed: 0}
    assert match_images([composed], [apart, composed]).rows == {composed: 1}
    assert match_images(["A/IMG_1.JPG"], ["A/img_1.jpg"]).rows == {"A/IMG_1.JPG": 0}
    assert match_images(["A/1.JPG", "A/1.jpg"], ["A/1.jpg", "A/1.JPG"]).rows == {"A/1.JPG": 1, "A/1.jpg": 0}
    assert match_images(["./A//1.jpg", "A/./2.jpg"], ["A/1.jpg", "A/2.jpg"]).rows == {"./A//1.jpg": 0, "A/./2.jpg": 1}


FOLDERS, BASES, SUFFIXES = (st.sampled_from(values) for values in (["A", "B", "A/B", ""], "12", [".jpg", ".png", ""]))
PATHS = st.builds(lambda folder, base, end: f"{folder}/{base}{end}".lstrip("/"), FOLDERS, BASES, SUFFIXES)


@given(names=st.lists(PATHS), images=st.lists(PATHS.filter(lambda path: path.endswith("g")), unique=True))
def test_no_name_is_ever_matched_across_folders_or_to_an_image_that_another_name_calls(
    names: list[str], images: list[str]
) -> None:
    found = match_images(names, images)
    assert {*found.rows, *found.missing} == set(names)
    assert not found.rows.keys() & found.missing.keys()
    for name, row in found.rows.items():
        assert name.rpartition("/")[0] == images[row].rpartition("/")[0]
        if name in images:
            assert images[row] == name
    exact = {row for name, row in found.rows.items() if images[row] == name}
    written = [(name, row) for name, row in found.rows.items() if name.endswith("g")]
    assert len({row for _, row in written}) == len(written)
    assert not any(row in exact and images[row] != name for name, row in written)
