from __future__ import annotations

from pathlib import Path

import pytest

from facedan_cli.alignment.landmarks import read_landmarks
from facedan_cli.errors import FacedanError


def written(folder: Path, *lines: str) -> Path:
    path = folder / "points.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def test_the_subjects_right_eye_is_on_the_images_left(tmp_path: Path) -> None:
    landmarks = read_landmarks(
        written(tmp_path, "uri,righteyex,righteyey,lefteyex,lefteyey", "a/b.jpg,10,20,30.5,21"), tmp_path
    )
    assert landmarks.find("a/b.jpg") == {"image_left_eye": (10, 20), "image_right_eye": (30.5, 21)}


def test_five_points_in_any_order_of_columns(tmp_path: Path) -> None:
    names = ["image_left_eye", "image_right_eye", "nose", "image_left_mouth", "image_right_mouth"]
    columns = [f"{name}_{axis}" for name in names for axis in "xy"]
    values = [str(number) for number in range(10)]
    lines = ["path," + ",".join(reversed(columns)) + ",quality", "x.png," + ",".join(reversed(values)) + ",good"]
    points = read_landmarks(written(tmp_path, *lines), tmp_path).find("x.png")
    assert points == {name: (2 * i, 2 * i + 1) for i, name in enumerate(names)}


def test_an_image_is_matched_by_path_then_by_name(tmp_path: Path) -> None:
    landmarks = read_landmarks(
        written(
            tmp_path,
            "uri,righteyex,righteyey,lefteyex,lefteyey",
            "nd1/04530D235.jpg,1,1,2,1",
            "two/same.jpg,5,5,6,5",
            "one/there.jpg,7,7,8,7",
        ),
        tmp_path,
    )
    assert landmarks.find("raw/04530d235.PNG") == {"image_left_eye": (1, 1), "image_right_eye": (2, 1)}
    assert landmarks.find("two/same.jpg") == {"image_left_eye": (5, 5), "image_right_eye": (6, 5)}
    assert landmarks.find("images/two/same.jpg") == landmarks.find("two/same.jpg")
    assert landmarks.find("three/there.jpg") == {"image_left_eye": (7, 7), "image_right_eye": (8, 7)}
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "there.jpg").touch()
    assert landmarks.find("three/there.jpg") is None  # the points are those of another image
    assert landmarks.find("other.jpg") is None


def test_names_that_images_share_mean_nothing(tmp_path: Path) -> None:
    lines = ["one/same.jpg,3,3,4,3", "two/same.jpg,5,5,6,5", "bo/gone.jpg,7,7,8,7"]
    landmarks = read_landmarks(written(tmp_path, "uri,righteyex,righteyey,lefteyex,lefteyey", *lines), tmp_path)
    assert landmarks.find("images/two/same.jpg") == {"image_left_eye": (5, 5), "image_right_eye": (6, 5)}
    assert landmarks.find("three/same.jpg") is None  # which of the two?
    assert landmarks.find("anna/gone.jpg") is None  # bo's image is not there, and this is none of it


def test_an_image_deeper_in_the_tree_has_not_the_points_of_one_above(tmp_path: Path) -> None:
    lines = ["path,righteyex,righteyey,lefteyex,lefteyey", "bo/1.jpg,1,1,2,1"]
    landmarks = read_landmarks(written(tmp_path, *lines), tmp_path)
    assert landmarks.find("old/bo/1.jpg") == {"image_left_eye": (1, 1), "image_right_eye": (2, 1)}
    (tmp_path / "bo").mkdir()
    (tmp_path / "bo" / "1.jpg").touch()
    assert landmarks.find("old/bo/1.jpg") is None
    assert landmarks.find("bo/1.jpg") is not None


@pytest.mark.parametrize("again", ["a/1.jpg", "a\\1.jpg", "./a/1.jpg"])
def test_lines_that_disagree_give_an_image_no_points(tmp_path: Path, again: str) -> None:
    lines = ["path,righteyex,righteyey,lefteyex,lefteyey", "a/1.jpg,1,1,2,1", "a/2.jpg,1,1,2,1", "a/2.jpg,1,1,2,1"]
    landmarks = read_landmarks(written(tmp_path, *lines, f"{again},5,5,6,5", "a/1.jpg,1,1,2,1"), tmp_path)
    assert landmarks.find("a/1.jpg") == {}
    assert landmarks.find("a/2.jpg") == {"image_left_eye": (1, 1), "image_right_eye": (2, 1)}
    assert not landmarks.mostly_turned


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([""], "lack columns"),
        (["uri,x,y", "a.jpg,1,2"], "lack columns"),
        (["uri,righteyex,righteyey,lefteyex,lefteyey", "a.jpg,1,2,3"], "line 2"),
        (["uri,righteyex,righteyey,lefteyex,lefteyey", "a.jpg,1,2,3,4", "b.jpg,1,2,3,left"], "line 3"),
        (["uri,righteyex,righteyey,lefteyex,lefteyey", "a.jpg,1,2,3,nan"], "line 2"),
        (["uri,righteyex,righteyey,lefteyex,lefteyey", ",1,2,3,4"], "line 2"),
    ],
)
def test_files_that_cannot_be_used_are_refused(tmp_path: Path, lines: list[str], message: str) -> None:
    with pytest.raises(FacedanError, match=message) as caught:
        read_landmarks(written(tmp_path, *lines), tmp_path)
    assert caught.value.fix


@pytest.mark.parametrize("contents", [None, b"\xff\xfe\x00broken\x80"])
def test_files_that_cannot_be_read_are_refused(tmp_path: Path, contents: bytes | None) -> None:
    path = tmp_path / "points.csv"
    if contents is not None:
        path.write_bytes(contents)
    with pytest.raises(FacedanError, match=r"cannot be read|lack columns"):
        read_landmarks(path, tmp_path)


def test_the_gbus_list_is_read(shared_data: Path) -> None:
    landmarks = read_landmarks(shared_data / "gbu" / "eyes.csv", shared_data)
    assert len(landmarks.by_path) == 8638
    assert landmarks.find("gbu/04530d235.png") == {"image_left_eye": (1215, 613), "image_right_eye": (1363, 597)}


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "latin-1"])
@pytest.mark.parametrize("mark", [",", ";", "\t"])
def test_tables_are_read_as_editors_write_them(tmp_path: Path, encoding: str, mark: str) -> None:
    lines = [mark.join(["uri", "righteyex", "righteyey", "lefteyex", "lefteyey"]), mark.join(["José/1.jpg", *"1234"])]
    path = tmp_path / "points.csv"
    path.write_bytes("\r\n".join(lines).encode(encoding))
    for name in ("Jose\u0301/1.jpg", "José/1.jpg"):
        points = read_landmarks(path, tmp_path).find(name)
        assert points == {"image_left_eye": (1, 2), "image_right_eye": (3, 4)}
