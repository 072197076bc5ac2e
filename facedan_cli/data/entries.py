"""What lies in a tree of images: which files are images, and what is passed over, counted so that it can be said."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from facedan_cli.data.formats import COMPANION_SUFFIXES, is_clutter, looks_like_image, named_as_image, suffix_of

_OWN = frozenset({"aligned.jsonl", "align.json", "set-aside.tsv"})
"""What `align` writes beside faces."""

_OF_ARCHIVES = frozenset({".idx", ".lst"})
"""Files beside a .rec."""

_MOST_SUFFIXES = 5


@dataclass
class PassedOver:
    """What a walk through a tree met and did not give.

    Args:
        skipped: path and reason of what is lost with it, such as directories that may not be read.
        others: how many files are no images, by their suffixes.
        hidden: how many images are hidden, and hidden directories.
    """

    skipped: list[tuple[str, str]] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)
    hidden: int = 0

    def remark(self, root: Path) -> str:
        """What to tell of files that are no images; "" where there are none."""
        parts = []
        if count := self.others.total():
            most = self.others.most_common(_MOST_SUFFIXES)
            kinds = ", ".join(f"{number} {suffix or 'without a suffix'}" for suffix, number in most)
            more = ", …" if len(self.others) > len(most) else ""
            parts.append(f"{_counted(count, 'other file')} ({kinds}{more})")
        if self.hidden:
            parts.append(_counted(self.hidden, "hidden image or directory", "hidden images or directories"))
        return f"passed over in {root}: {' and '.join(parts)}" if parts else ""


def _counted(count: int, one: str, many: str = "") -> str:
    return f"1 {one}" if count == 1 else f"{count} {many or one + 's'}"


def is_passed_by(name: str) -> bool:
    """Whether a directory or a file is hidden or clutter by its name."""
    return name.startswith(".") or is_clutter(name)


def wanted_file(entry: os.DirEntry[str], archives: Sequence[str], passed: PassedOver) -> bool:
    """Whether a file of a tree is an image, or an archive that is looked into; what is not is counted.

    Links that lead nowhere, named pipes and the like are taken by their names: whoever reads them says why not. Files
    whose names do not tell are judged by their first bytes.

    Args:
        entry: no directory.
        archives: what the names of archives end in, in lower case.
        passed: where others are counted.
    """
    name = entry.name
    if is_passed_by(name):
        passed.hidden += named_as_image(name) and not is_clutter(name)
        return False
    if named_as_image(name) or name.lower().endswith(tuple(archives)):
        return True
    if name in _OWN:
        return False
    suffix = suffix_of(name)
    if archives and suffix in _OF_ARCHIVES:
        return False
    if suffix not in COMPANION_SUFFIXES and looks_like_image(Path(entry.path)):
        return True
    passed.others[suffix if suffix in COMPANION_SUFFIXES or len(suffix) <= 8 else ""] += 1
    return False
