"""The entries of a list of images: which files they mean, and whose images these are."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from facedan_cli.text import one_form, spellings

_NAMED = 5


@dataclass(frozen=True)
class Listed:
    """What a list of images holds.

    Args:
        paths: the images in the order and number listed, spelt as where they lie.
        names: whose they are, in one Unicode form; "" where the list does not say.
        there: whether something lies there.
        skipped: images that are left out, with the reason.
    """

    paths: tuple[str, ...]
    names: tuple[str, ...]
    there: tuple[bool, ...]
    skipped: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class _Entry:
    """An image, its identity, and its device and inode; None where nothing lies there."""

    image: str
    name: str
    file: tuple[int, int] | None


def read_entries(root: Path, entries: Iterable[tuple[int, str]]) -> Listed:
    """Find the images of a list's entries, `path` or `path<TAB>identity`; those that begin with # are comments.

    One file under two identities, however it is spelt or linked, is left out: nobody knows whose it is.

    Args:
        root: the directory that paths are relative to.
        entries: with their numbers, as `text.read_list` gives them.
    """
    rows = []
    identities: defaultdict[tuple[int, int], set[str]] = defaultdict(set)
    for _, text in entries:
        entry = _found(root, text)
        if not entry.image or (entry.file is None and entry.image.startswith("#")):
            continue
        rows.append(entry)
        if entry.file is not None and entry.name:
            identities[entry.file].add(entry.name)
    shared = {file: sorted(names) for file, names in identities.items() if len(names) > 1}
    skipped = {
        row.image: f"it is listed under {len(shared[row.file])} identities: {', '.join(shared[row.file][:_NAMED])}"
        for row in rows
        if row.file in shared
    }
    kept = [row for row in rows if row.file not in shared]
    return Listed(
        tuple(row.image for row in kept),
        tuple(row.name for row in kept),
        tuple(row.file is not None for row in kept),
        tuple(sorted(skipped.items())),
    )


def _found(root: Path, entry: str) -> _Entry:
    image, tab, name = entry.partition("\t")
    name = one_form(name.strip())
    # A tab may be a part of the image's name.
    for path, whose in ((image, name), (entry, "")) if tab else ((image, name),):
        for spelling in spellings(path):
            try:
                status = (root / spelling).stat()
            except (OSError, ValueError):
                continue
            return _Entry(spelling, whose, (status.st_dev, status.st_ino))
    return _Entry(image.strip(), name, None)
