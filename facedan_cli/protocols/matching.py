"""Matching of the names in a protocol to images."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from facedan_cli.protocols.sigset import stem, without_extension

NOT_THERE = "not among the images"

_HERE = re.compile(r"(?:^|(?<=/))(?:\./+)+|(?<=/)/+")


@dataclass(frozen=True)
class Match:
    """The images that match the names of a protocol.

    Attributes:
        rows: row in the list of images, for each name with an image.
        missing: reason why each other name has no image, in the order of the protocol.
    """

    rows: Mapping[str, int]
    missing: Mapping[str, str]


def match_images(names: Iterable[str], images: Sequence[str | tuple[str, ...]], *, by_base_name: bool = False) -> Match:
    """Match each name of a protocol to the image that fits it by the first of these rules:

    1. its path, as it is written; 2. its path in the other Unicode form (macOS stores accents apart); 3. the same
    folder and a base name that differs in case only; 4. the same, and behind it the suffix that `align` adds where
    1.jpg and 1.png lie side by side (1.png.jpg is the face of 1.png); 5. the same folder and the base name without its
    suffix (the face of 1.png is 1.jpg); 6. with `by_base_name` the base name alone, without case or suffix.

    If two images fit a name equally well, the name is missing, with both as the reason. An image that one name gives
    exactly does not match another name that differs in the suffix: 1.png and 1.jpg of one folder are two images.

    Args:
        names: names or relative paths in the protocol; they may repeat.
        images: paths of the images, relative to their directory; a tuple for an image with several paths, such as an
            aligned face and its original image.
        by_base_name: whether base names identify the protocol's images, as in GBU and FERET, and the directories in its
            lists have no meaning. If the names share base names, none is matched by this rule.
    """
    wanted = list(dict.fromkeys(names))
    keys = [*_KEYS]
    if by_base_name and base_names_tell_apart(wanted):
        keys.append((stem, stem))
    spelled = [(image,) if isinstance(image, str) else image for image in images]
    found: dict[str, tuple[int, list[int]]] = {}
    for level, (of_name, of_image) in enumerate(keys):
        candidates = defaultdict(list)
        for row, paths in enumerate(spelled):
            for key in dict.fromkeys(of_image(path) for path in paths if path):
                candidates[key].append(row)
        for name in wanted:
            if name not in found and (rows := candidates.get(of_name(name))):
                found[name] = level, rows
    return _decide(wanted, found, spelled)


def base_names_tell_apart(names: Iterable[str]) -> bool:
    """Whether no two images of a protocol share a base name, unlike s1/1.pgm, s2/1.pgm, …."""
    wanted = set(names)
    return len({stem(name) for name in wanted}) == len({without_extension(_path(name)) for name in wanted})


def _decide(
    wanted: Sequence[str], found: Mapping[str, tuple[int, list[int]]], spelled: Sequence[tuple[str, ...]]
) -> Match:
    """The one image of each name, or the reason why there is none."""
    claims: defaultdict[int, list[str]] = defaultdict(list)
    for name, (_, rows) in found.items():
        if len(rows) == 1:
            claims[rows[0]].append(name)
    rows_of: dict[str, int] = {}
    missing: dict[str, str] = {}
    for name in wanted:
        if name not in found:
            missing[name] = NOT_THERE
            continue
        level, rows = found[name]
        if len(rows) > 1:
            fitting = " and ".join(spelled[row][0] for row in rows[:2])
            missing[name] = f"{len(rows)} images fit the name: {fitting}" + (", …" if len(rows) > 2 else "")
            continue
        others = [other for other in claims[rows[0]] if _other_image(other, name)]
        if level >= _LOOSE and any(found[other][0] < level for other in others):
            missing[name] = NOT_THERE
        elif level >= _LOOSE and any(found[other][0] == level for other in others):
            missing[name] = f"{spelled[rows[0]][0]} fits {' and '.join(sorted([name, others[0]]))}"
        else:
            rows_of[name] = rows[0]
    return Match(rows_of, missing)


def _other_image(one: str, other: str) -> bool:
    """Whether two names must be two images: both have a suffix, and they differ."""
    written = [_composed(name).casefold() for name in (one, other)]
    return written[0] != written[1] and all(without_extension(name) != name for name in written)


def _path(name: str) -> str:
    return _HERE.sub("", name.replace("\\", "/"))


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", _path(name))


def _folded(name: str) -> str:
    """The path with its base name in lower case; folders that differ in case are different subjects."""
    folder, slash, base = _composed(name).rpartition("/")
    return folder + slash + base.casefold()


def _without_suffix(name: str) -> str:
    folder, slash, base = _composed(name).rpartition("/")
    return folder + slash + without_extension(base)


_Key = Callable[[str], str]
_KEYS: tuple[tuple[_Key, _Key], ...] = (
    (_path, _path),
    (_composed, _composed),
    (_folded, _folded),
    (_folded, _without_suffix),
    (_without_suffix, _without_suffix),
)
_LOOSE = 2
"""From this key on a name may meet an image that another name calls closer."""
