"""The FERET protocol of 1996: one gallery and four probe sets of grey images (Phillips et al. 2000).

Who and when is in a name: `nnnnnxxfffq_yymmdd` begins with the five digits of the subject. The pose code xx chooses
nothing: fa holds 194 `ba` images, fb 194 `bj`, and fc is all `bk`. The lists decide.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from facedan_cli.errors import FacedanError
from facedan_cli.protocols.sigset import Record, read_sigset, stem
from facedan_cli.text import read_text

COUNTS = {"fa": 1196, "fb": 1195, "fc": 194, "dup1": 722, "dup2": 234}
"""Images of each list."""

DIGESTS = {
    "fa": "84b6bc180661ca18",
    "fb": "7a71e6c7056d1d6d",
    "fc": "eb362bb1bff68c48",
    "dup1": "0c21177b10af81da",
    "dup2": "b6e1a2eeda902c92",
}
"""SHA-256, first 16 hex digits, of the sorted stems of each list joined by newlines."""

_FILES = {
    "fa": ("fa.xml", "feret_gallery.srt", "fa.srt"),
    "fb": ("fb.xml", "fafb.srt", "fb.srt"),
    "fc": ("fc.xml", "fafc.srt", "fc.srt"),
    "dup1": ("dup1.xml", "dup1.srt"),
    "dup2": ("dup2.xml", "dup2.srt"),
}
_GREY_NAME = re.compile(r"(\d{5})[a-z]{2}\d{3}[a-z]?_\d{6}[a-z]?", re.ASCII)
_COLOUR_NAME = re.compile(r"\d{5}_\d{6}_[a-z]{2}(_[a-z])?", re.ASCII)
_COLOUR_SUBJECTS = 994
_NIST = "The grey FERET images and their lists come from NIST; take the lists from there again."


@dataclass(frozen=True)
class Feret:
    """The lists of the protocol.

    Attributes:
        gallery: fa, one image of each subject.
        probes: fb, fc, dup1 and dup2 in this order; each image has one mate in the gallery.
    """

    gallery: tuple[Record, ...]
    probes: Mapping[str, tuple[Record, ...]]


def read_feret(directory: Path, any_lists: bool = False) -> Feret:
    """Read the five lists: fa, fb, fc, dup1, dup2.xml, or as .srt: feret_gallery, fafb, fafc, dup1, dup2.

    Subjects are the first five digits of the names. Where a list is there in both forms, the XML is read. The case of
    the file names does not matter.

    Args:
        directory: directory of the lists.
        any_lists: whether lists other than the published ones are taken, which are told by their digests.

    Raises:
        FacedanError: a list is missing, unreadable or (without `any_lists`) not that of the protocol; it is of colour
            FERET, which has no such protocol; a probe has not exactly one mate in the gallery; or dup2 is not part of
            dup1.
    """
    lists = {name: _read_list(path) for name, path in _find(directory).items()}
    if len(lists["fa"]) == _COLOUR_SUBJECTS:
        raise _colour_feret(directory, f"its gallery has {_COLOUR_SUBJECTS} images")
    if not any_lists:
        for name, records in lists.items():
            _check_digest(directory, name, records)
    gallery = lists.pop("fa")
    _check_mates(directory, gallery, lists)
    return Feret(gallery, lists)


def list_digest(records: Sequence[Record]) -> str:
    """The digest of a list, as in `DIGESTS`; the order of its images does not matter."""
    return hashlib.sha256("\n".join(sorted(stem(record.file_name) for record in records)).encode()).hexdigest()[:16]


def is_published(lists: Feret) -> bool:
    """Whether gallery and probes are the published lists; rates of others are not comparable with reported ones."""
    found = {"fa": lists.gallery, **lists.probes}
    return all(list_digest(records) == DIGESTS[name] for name, records in found.items())


def _find(directory: Path) -> dict[str, Path]:
    present = {path.name.casefold(): path for path in directory.iterdir()} if directory.is_dir() else {}
    found = {
        name: present[files[0]]
        for name, candidates in _FILES.items()
        if (files := [file for file in candidates if file in present])
    }
    missing = [" or ".join(_FILES[name][:2]) for name in _FILES if name not in found]
    if missing:
        raise FacedanError(f"the FERET protocol in {directory} is incomplete: {', '.join(missing)} not found", _NIST)
    return found


def _read_list(path: Path) -> tuple[Record, ...]:
    names = _srt_names(path) if path.suffix.casefold() == ".srt" else [(0, r.file_name) for r in read_sigset(path)]
    records: dict[str, Record] = {}
    for number, name in names:
        base = stem(name)
        place = f"{path}, line {number}" if number else f"{path}"
        if _COLOUR_NAME.fullmatch(base):
            raise _colour_feret(path, f"it names {name}")
        found = _GREY_NAME.fullmatch(base)
        if not found:
            raise FacedanError(f"{place}: {name} is no name of FERET, such as 00001fa010_930831", _NIST)
        if base in records:
            raise FacedanError(f"{place}: {name} is listed twice", _NIST)
        records[base] = Record(found[1], name)
    return tuple(records.values())


def _srt_names(path: Path) -> list[tuple[int, str]]:
    """The names in a .srt with their line numbers; a line holds a subject's images, separated by blanks."""
    try:
        text = read_text(path)
    except OSError as error:
        raise FacedanError(f"cannot read the list {path}: {error.strerror}", "Check the path.") from error
    if not text.isascii():
        raise FacedanError(f"the list {path} is not plain text", _NIST)
    lines = text.split("\n")
    names = [(number, name) for number, line in enumerate(lines, start=1) for name in line.split()]
    if not names:
        raise FacedanError(f"the list {path} names no image", _NIST)
    return names


def _check_digest(directory: Path, name: str, records: Sequence[Record]) -> None:
    if list_digest(records) == DIGESTS[name]:
        return
    count = f"{len(records)} images instead of {COUNTS[name]}" if len(records) != COUNTS[name] else "other images"
    raise FacedanError(
        f"the list {name} in {directory} is not that of the FERET protocol: {count} "
        f"(digest {list_digest(records)}, not {DIGESTS[name]})",
        f"{_NIST} Rates by another list are not comparable.",
    )


def _check_mates(directory: Path, gallery: Sequence[Record], probes: Mapping[str, Sequence[Record]]) -> None:
    known = {record.subject for record in gallery}
    if len(known) != len(gallery):
        raise FacedanError(f"the gallery fa in {directory} has two images of one subject", _NIST)
    own = {stem(record.file_name) for record in gallery}
    for name, records in probes.items():
        for record in records:
            if record.subject not in known:
                raise FacedanError(f"{record.file_name} of {name} in {directory} has no mate in the gallery fa", _NIST)
            if stem(record.file_name) in own:
                raise FacedanError(f"{record.file_name} of {name} in {directory} is in the gallery fa as well", _NIST)
    dup1 = {stem(record.file_name) for record in probes["dup1"]}
    for record in probes["dup2"]:
        if stem(record.file_name) not in dup1:
            raise FacedanError(f"{record.file_name} of dup2 in {directory} is not in dup1, which should hold it", _NIST)


def _colour_feret(place: Path, reason: str) -> FacedanError:
    return FacedanError(
        f"{place} is of colour FERET ({reason}), whose 994 subjects cannot run the protocol of 1996",
        "Use the grey FERET release and its lists fa, fb, fc, dup1 and dup2.",
    )
