"""The overlap between training images and a protocol, by the names of images."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from facedan_cli.protocols.sigset import Record, stem
from facedan_cli.text import one_form

# 04530d235 of Notre Dame (FRGC, GBU), 00001fa010_930831 of FERET; shorter numbers are those of images, not of subjects.
_LEADING_DIGITS = re.compile(r"\d{4,}", re.ASCII)
_TRAILING_NUMBER = re.compile(r"[_-]\d+$", re.ASCII)


@dataclass(frozen=True)
class Overlap:
    """Images and subjects of a protocol that are also in training images.

    Attributes:
        images: training images that the protocol compares, in the order given.
        subjects: subjects of the protocol with training images, sorted, including those of `images`.
    """

    images: tuple[str, ...]
    subjects: tuple[str, ...]


def overlap(images: Iterable[str], records: Sequence[Record]) -> Overlap:
    """Find the subjects and images of a protocol among training images, by their names alone.

    The names of the protocol show how a name gives the subject there: by the directory, by leading digits
    (04530d235), or by what stands before the image's number (Al_Gore_0001). A way is taken if on the protocol itself it
    tells everybody apart. A directory that is called as a subject is taken as well.

    Args:
        images: paths of the training images, with either slash.
        records: all images of the protocol with their subjects.

    Returns:
        What is in common. An empty result proves nothing: data sets name subjects differently.
    """
    names = list(images)
    own = {stem(record.file_name): record.subject for record in records}
    if len(own) < len({record.file_name for record in records}):
        own = {}  # names such as 1.pgm, which every directory has, tell nothing
    labels = {one_form(record.subject).casefold(): record.subject for record in records}
    ways = (_directory, _digits, _before_number)
    known = [(_directory, labels), *((way, found) for way in ways if (found := _subjects_by(way, records)))]
    seen = {subjects[key] for name in names for way, subjects in known if (key := way(name)) in subjects}
    same = tuple(name for name in names if stem(name) in own)
    return Overlap(same, tuple(sorted(seen | {own[stem(name)] for name in same})))


def _subjects_by(way: Callable[[str], str], records: Sequence[Record]) -> dict[str, str]:
    """The subject of each key; empty if a key is missing, or keys and subjects are not one to one."""
    subjects: dict[str, str] = {}
    for record in records:
        key = way(record.file_name)
        if not key or subjects.setdefault(key, record.subject) != record.subject:
            return {}
    return subjects if len(set(subjects.values())) == len(subjects) else {}


def _directory(name: str) -> str:
    parts = name.replace("\\", "/").split("/")
    return one_form(parts[-2]).casefold() if len(parts) > 1 else ""


def _digits(name: str) -> str:
    found = _LEADING_DIGITS.match(stem(name))
    return found[0] if found else ""


def _before_number(name: str) -> str:
    base = stem(name)
    key = _TRAILING_NUMBER.sub("", base)
    return key if key != base else ""
