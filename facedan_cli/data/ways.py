"""The ways by which a walk comes to directories, and which of them it goes: links can make very many of few."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass
from functools import cached_property

MOST_WAYS = 16
"""By so many ways through links a walk goes into one directory: links to links that are doubled n deep make 2ⁿ."""


@dataclass(frozen=True)
class Way:
    """A directory, as a walk has come to it.

    Args:
        path: the directory.
        prefix: before the names of what lies in it, relative to the root: empty, or ending in a slash.
        linked: whether a link was followed on the way.
        above: the way to the directory in which it was found; None of the root.
    """

    path: str
    prefix: str = ""
    linked: bool = False
    above: Way | None = None

    def into(self, name: str, *, linked: bool) -> Way:
        """The way to a directory in this one, which may be a link."""
        return Way(os.path.join(self.path, name), f"{self.prefix}{name}/", self.linked or linked, self)

    @cached_property
    def directory(self) -> tuple[int, int]:
        """Which directory it is, whatever the way."""
        status = os.stat(self.path)
        return status.st_dev, status.st_ino

    def is_circle(self) -> bool:
        """Whether the directory is one of those above it."""
        above = self.above
        while above is not None:
            if above.directory == self.directory:
                return True
            above = above.above
        return False


class Ways:
    """Which ways a walk has gone."""

    def __init__(self) -> None:
        self._gone: Counter[tuple[int, int]] = Counter()

    def takes(self, way: Way) -> bool:
        """Whether a walk goes into a directory: not in circles, and not by ever more links."""
        if not way.linked:
            return True
        try:
            if way.is_circle():
                return False
            self._gone[way.directory] += 1
            return self._gone[way.directory] <= MOST_WAYS
        except OSError:  # it has gone
            return False
