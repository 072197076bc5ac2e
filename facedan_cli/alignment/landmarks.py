"""Given landmarks of faces, from CSV files."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

from facedan_cli.data.templates import POINT_NAMES
from facedan_cli.errors import FacedanError
from facedan_cli.text import one_form, read_text, spellings

EYES_HEADER = ("righteyex", "righteyey", "lefteyex", "lefteyey")
"""The columns of the GBU's eyes.csv; the right eye is the subject's, on the left of the image."""

FIVE_POINTS_HEADER = tuple(f"{name}_{axis}" for name in POINT_NAMES for axis in "xy")

Points = Mapping[str, tuple[float, float]]

LEAST_LINES = 10
"""Smallest number of lines whose majority decides which eye the file calls left."""


@dataclass(frozen=True)
class Landmarks:
    """Landmarks by image: the two eyes, or all five points of `templates.POINT_NAMES`.

    Args:
        root: the tree of images.
        by_path: the points by path, with forward slashes, in one Unicode form; none of an image whose lines disagree.
        by_stem: the path by file name without extension, in lower case; empty where several paths share one.
    """

    root: Path
    by_path: Mapping[str, Points]
    by_stem: Mapping[str, str]

    @cached_property
    def mostly_turned(self) -> bool:
        """Whether most faces are turned by more than 90°, which means that left and right are exchanged."""
        turned = sum(is_turned(points) for points in self.by_path.values() if points)
        return len(self.by_path) >= LEAST_LINES and turned > len(self.by_path) / 2

    @property
    def eyes_alone(self) -> bool:
        """Whether no line has more than the eyes."""
        return all(len(points) <= 2 for points in self.by_path.values())

    def find(self, path: str) -> Points | None:
        """The points of an image by its path, else by its name; empty if its lines disagree, None without a line.

        The list's paths may start at any directory of the image's path, unless another image lies at that path from
        the root. A base name alone counts only if no other image has the line by its path, and if base names in the
        list are unique, unlike those of anna/1.jpg, bo/1.jpg.
        """
        parts = path.split("/")
        for first in range(len(parts)):
            below = "/".join(parts[first:])
            points = self.by_path.get(one_form(below))
            if points is not None and (first == 0 or not (self.root / below).exists()):
                return points
        other = self.by_stem.get(_stem(path))
        taken = other is None or any((self.root / spelling).exists() for spelling in spellings(other))
        return None if other is None or taken else self.by_path[other]


def read_landmarks(path: Path, root: Path) -> Landmarks:
    """Read a CSV file of landmarks: a path in the first column, then pixels of the upright image.

    The columns are `righteyex,righteyey,lefteyex,lefteyey` (the subject's right and left, as in the GBU's eyes.csv), or
    ten for the five points: `image_left_eye_x,image_left_eye_y,image_right_eye_x, …` by `templates.POINT_NAMES`.

    Raises:
        FacedanError: it cannot be read, has other columns, or a row is not of numbers.
    """
    try:
        text = read_text(path)
        header = text.partition("\n")[0]
        delimiter = next((mark for mark in ",;\t" if mark in header), ",")
        return _parse(path, root, csv.DictReader(io.StringIO(text), skipinitialspace=True, delimiter=delimiter))
    except (OSError, csv.Error) as error:
        raise FacedanError(f"the landmarks {path} cannot be read: {error}", "give --landmarks a CSV file") from error


def _parse(path: Path, root: Path, rows: csv.DictReader[str]) -> Landmarks:
    columns = [(name or "").strip().lower() for name in rows.fieldnames or ()]
    rows.fieldnames = columns
    header = next((header for header in (FIVE_POINTS_HEADER, EYES_HEADER) if set(header) <= set(columns[1:])), None)
    if header is None:
        raise FacedanError(
            f"the landmarks {path} lack columns of coordinates",
            f"write a header line: path,{','.join(EYES_HEADER)} or path,{','.join(FIVE_POINTS_HEADER)}",
        )
    names = POINT_NAMES if header is FIVE_POINTS_HEADER else POINT_NAMES[:2]
    by_path: dict[str, Points] = {}
    by_stem: dict[str, str] = {}
    tell_apart = True
    for row in rows:
        try:
            values = [float(row[column]) for column in header]
        except (TypeError, ValueError):
            values = []
        name = (row[columns[0]] or "").strip()
        if not name or not values or not all(map(math.isfinite, values)):
            raise FacedanError(
                f"{path}, line {rows.line_num}: a path and {len(header)} numbers are needed", "correct the line"
            )
        name = one_form(name.removeprefix("./"))
        points = dict(zip(names, zip(values[::2], values[1::2], strict=True), strict=True))
        for spelling in (name, *map(one_form, spellings(name))):
            if by_path.setdefault(spelling, points) != points:
                by_path[spelling] = {}
        stem = _stem(name)
        tell_apart = tell_apart and by_stem.setdefault(stem, name) == name
    return Landmarks(root, by_path, by_stem if tell_apart else {})


def is_turned(points: Points) -> bool:
    """Whether the left eye lies to the right of the right eye: the face is upside down, or the eyes are exchanged."""
    return points["image_left_eye"][0] > points["image_right_eye"][0]


def is_reflected(points: Points) -> bool | None:
    """Whether the eyes are exchanged, judged by the mouth, which lies below them; None without a mouth."""
    if "image_left_mouth" not in points:
        return None
    left, right, *mouth = (
        complex(*points[name])
        for name in ("image_left_eye", "image_right_eye", "image_left_mouth", "image_right_mouth")
    )
    down = (mouth[0] + mouth[1]) / 2 - (left + right) / 2
    return ((right - left).conjugate() * down).imag < 0


def exchanged(points: Points) -> Points:
    """The points with the eyes swapped, and the corners of the mouth too where they would contradict the eyes."""
    left, right = points["image_right_eye"], points["image_left_eye"]
    found = {**points, "image_left_eye": left, "image_right_eye": right}
    if "image_left_mouth" in points:
        corners = points["image_left_mouth"], points["image_right_mouth"]
        along = (complex(*right) - complex(*left)).conjugate() * (complex(*corners[1]) - complex(*corners[0]))
        if along.real < 0:
            found |= {"image_left_mouth": corners[1], "image_right_mouth": corners[0]}
    return found


def _stem(path: str) -> str:
    return PurePosixPath(one_form(path).replace("\\", "/")).stem.lower()
