"""Find the images that a protocol names among those that are there."""

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
    """Which image stands for which name.

    Attributes:
        rows: for each name that was found, its row in the list of images.
        missing: why each other name has no image, in the order of the protocol: it is not there, or several fit it.
    """

    rows: Mapping[str, int]
    missing: Mapping[str, str]


def match_images(names: Iterable[str], images: Sequence[str | tuple[str, ...]], *, by_base_name: bool = False) -> Match:
    """Match the names of a protocol to images, each by the closest of these that any image fits:

    1. its path, as it is written; 2. its path in the other Unicode form (macOS stores accents apart); 3. the same
    folder and a base name that differs in case only; 4. the same, and behind it the suffix that `align` adds where
    1.jpg and 1.png lie side by side (1.png.jpg is the face of 1.png); 5. the same folder and the base name without its
    suffix (the face of 1.png is 1.jpg); 6. with `by_base_name` the base name alone, without case or suffix.

    Two images that fit a name equally well are no match: the name is missing, with both as the reason. Nor does an
    image that one name calls exactly stand for another name that differs from it in the suffix: 1.png and 1.jpg of one
    folder are two images.

    Args:
        names: names or relative paths as the protocol has them, repeated or not.
        images: paths of the images, relative to their directory; a tuple where one image has several, as an aligned
            face has its own and that of the image that it was made from.
        by_base_name: the protocol tells its images apart by base names, as GBU and FERET do, and the directories of its
            lists mean nothing. Where the names at hand share base names none is matched so.
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
    """Whether no two images of a protocol share a base name: of s1/1.pgm, s2/1.pgm, … it would mean nothing."""
    wanted = set(names)
    return len({stem(name) for name in wanted}) == len({without_extension(_path(name)) for name in wanted})


def _decide(
    wanted: Sequence[str], found: Mapping[str, tuple[int, list[int]]], spelled: Sequence[tuple[str, ...]]
) -> Match:
    """Which of the images found for each name is it, if one is."""
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
    """Whether two names mean two images: both are written out, and not alike."""
    written = [_composed(name).casefold() for name in (one, other)]
    return written[0] != written[1] and all(without_extension(name) != name for name in written)


def _path(name: str) -> str:
    return _HERE.sub("", name.replace("\\", "/"))


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", _path(name))


def _folded(name: str) -> str:
    """The base name in one case; the folder keeps its own, for folders that differ in case are two subjects."""
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
