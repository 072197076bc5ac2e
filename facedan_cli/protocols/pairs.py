"""Lists of image pairs: LFW's pairs.txt, and plain lists of two paths and a label."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from facedan_cli.errors import FacedanError
from facedan_cli.protocols.sigset import climbs
from facedan_cli.text import read_text

_NUMBER = re.compile(r"\d{1,9}", re.ASCII)
_LABELS = {"1": True, "same": True, "0": False, "different": False}


@dataclass(frozen=True)
class Pair:
    """Two images to compare.

    Attributes:
        a: name or path of the first image.
        b: name or path of the second.
        same: whether both show one subject.
        fold: number of the fold from 0; 0 in lists without folds.
    """

    a: str
    b: str
    same: bool
    fold: int = 0


def read_pairs(path: Path) -> list[Pair]:
    """Read a list of pairs, whose form its content shows.

    LFW: the first line holds the number of folds and of pairs of each kind in a fold ("10 300"), or the latter alone.
    Then "name n1 n2" is a pair of one subject and "name1 n1 name2 n2" one of two; images are named "name/name_000n".

    Plain: each line holds two paths and a label, 1 or same, 0 or different. The first line says whether tabs, commas
    (quotes are understood) or blanks separate them; it may be a header that names its third column "label". Empty lines
    and lines that begin with # are skipped.

    Raises:
        FacedanError: the file cannot be read, holds no pair, or has a line that fits neither form or whose path climbs
            out of the directory of the images. The message names the line.
    """
    try:
        text = read_text(path)
    except OSError as error:
        raise FacedanError(f"cannot read the list of pairs {path}: {error.strerror}", "Check the path.") from error
    lines = [
        (number, line.strip())
        for number, line in enumerate(text.split("\n"), start=1)
        if line.strip() and not line.lstrip().startswith("#")
    ]
    counts = lines[0][1].split() if lines else []
    if len(counts) in (1, 2) and all(map(_NUMBER.fullmatch, counts)):
        pairs = list(_lfw_pairs(path, lines[1:], counts))
    else:
        pairs = list(_plain_pairs(path, lines))
    if not pairs:
        raise FacedanError(f"the list of pairs {path} holds no pair", "Give a list of two paths and a label a line.")
    return pairs


def _lfw_pairs(path: Path, lines: list[tuple[int, str]], counts: list[str]) -> Iterator[Pair]:
    folds, per_kind = (1, int(counts[0])) if len(counts) == 1 else (int(counts[0]), int(counts[1]))
    if len(lines) != folds * 2 * per_kind:
        raise FacedanError(
            f"the first line of {path} promises {folds * 2 * per_kind} pairs, but {len(lines)} follow",
            "Take the list from its distribution again, or correct its first line.",
        )
    for place, (number, line) in enumerate(lines):
        match line.split("\t") if "\t" in line else line.split():
            case [name, a, b] if _NUMBER.fullmatch(a) and _NUMBER.fullmatch(b):
                pair = Pair(_lfw_name(name, a), _lfw_name(name, b), True, place // (2 * per_kind))
            case [name_a, a, name_b, b] if _NUMBER.fullmatch(a) and _NUMBER.fullmatch(b):
                pair = Pair(_lfw_name(name_a, a), _lfw_name(name_b, b), False, place // (2 * per_kind))
            case _:
                raise _malformed(path, number, line, "neither 'name n1 n2' nor 'name1 n1 name2 n2'")
        yield _inside(path, number, line, pair)


def _lfw_name(name: str, number: str) -> str:
    return f"{name}/{name}_{int(number):04d}"


def _plain_pairs(path: Path, lines: list[tuple[int, str]]) -> Iterator[Pair]:
    separator = next((mark for mark in "\t," if lines and lines[0][1].count(mark) >= 2), None)
    for place, (number, line) in enumerate(lines):
        try:
            fields = next(csv.reader([line])) if separator == "," else line.split(separator)
        except csv.Error as error:
            raise _malformed(path, number, line, str(error)) from error
        match [field.strip() for field in fields]:
            case [_, _, label] if place == 0 and label.casefold() == "label":
                continue
            case [a, b, label] if a and b and label.casefold() in _LABELS:
                yield _inside(path, number, line, Pair(a, b, _LABELS[label.casefold()]))
            case [_, _, label]:
                raise _malformed(path, number, line, f"'{label}' is not 1, same, 0 or different, or a path is empty")
            case fields:
                raise _malformed(path, number, line, f"{len(fields)} columns instead of two paths and a label")


def _inside(path: Path, number: int, line: str, pair: Pair) -> Pair:
    if climbs(pair.a) or climbs(pair.b):
        raise _malformed(path, number, line, "a path climbs out of the directory of the images")
    return pair


def _malformed(path: Path, number: int, line: str, reason: str) -> FacedanError:
    return FacedanError(
        f"{path}, line {number}: {reason}: {line[:100]}",
        "Correct the line; separate the columns by tabs or commas where a path has blanks.",
    )
