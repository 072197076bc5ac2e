"""The errors of facedan: each says what happened and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class FacedanError(Exception):
    """A failure that its message explains (exit code 1).

    Args:
        what: what happened, one sentence without a full stop.
        fix: what the user can do, one sentence; may be empty.
    """

    exit_code = 1

    def __init__(self, what: str, fix: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.fix = fix


class UsageError(FacedanError):
    """A command with wrong options or inputs (exit code 2)."""

    exit_code = 2


class Interrupted(FacedanError):
    """An interruption by user or system; the same command resumes (exit code 130)."""

    exit_code = 130


def did_you_mean(word: str, known: Iterable[str], *, of: str = "known names") -> str:
    """A hint for a misspelt word: the nearest known ones, else the list of all (at most ten)."""
    known = sorted(known)
    near = difflib.get_close_matches(word, known, n=3, cutoff=0.6)
    if near:
        return f"did you mean {' or '.join(near)}?"
    if not known:
        return f"there are no {of}"
    more = f", … ({len(known)} in all)" if len(known) > 10 else ""
    return f"{of}: {', '.join(known[:10])}{more}"
