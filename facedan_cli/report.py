"""How a stage tells what it does: through a `Report`, so that stages never print."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

Advance = Callable[[int, str], None]
"""Called with how many more are done and a short status text (may be empty)."""


class Report:
    """Says nothing; the command line passes one that prints (`facedan_cli.cli.console.Console`)."""

    def note(self, text: str) -> None:
        """Something the user will want to know: which model was taken, what was skipped."""

    def warn(self, text: str) -> None:
        """Something that may make the result wrong or useless."""

    def detail(self, text: str) -> None:
        """Something for those who asked for more with -v."""

    @contextmanager
    def progress(self, label: str, total: int | None, *, done: int = 0, unit: str = "images") -> Iterator[Advance]:
        """Progress of `total` things of which `done` were done before; yields the function to advance it."""
        yield lambda n, status: None


SILENT = Report()
