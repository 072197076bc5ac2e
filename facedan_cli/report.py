"""`Report`, by which the rooms below `cli` give notes, warnings and progress without printing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from facedan_cli.config.discrepancies import TITLES

Advance = Callable[[int, str], None]
"""Called with the number of further finished items and a short status text, which may be empty."""

Follow = Callable[[Mapping[str, Any]], None]
"""Called after each step of a training with the last entry of its log, at first an empty one."""


class Report:
    """A report that prints nothing; the command line passes one that prints (`facedan_cli.cli.console.Console`)."""

    def note(self, text: str) -> None:
        """Give a note to the user, such as the chosen model."""

    def warn(self, text: str) -> None:
        """Warn of something that may make the result wrong or useless."""

    def detail(self, text: str) -> None:
        """Give a detail, shown with -v."""

    @contextmanager
    def progress(self, label: str, total: int | None, *, done: int = 0, unit: str = "images") -> Iterator[Advance]:
        """Show the progress of `total` items, `done` of them finished before; yields the function that advances it."""
        yield lambda n, status: None

    @contextmanager
    def training(self, total: int, done: int = 0) -> Iterator[Follow]:
        """Show the progress of a training of `total` steps, `done` of them before; yields a function for each step."""
        with self.progress("training", total, done=done, unit="steps") as advance:
            yield lambda entry: advance(1, summary(entry))


SILENT = Report()


def summary(entry: Mapping[str, Any]) -> str:
    """An entry of a training's log as one line; "" if it belongs to no step."""
    if "classification" not in entry:
        return ""
    parts = [f"loss {entry['classification']:.3f}"]
    parts += [f"{' '.join(filter(None, name))} {value:.4f}" for name, value in discrepancies(entry).items()]
    return "  ".join([*parts, f"{entry['images_per_second']:.0f} images/s"])


def discrepancies(entry: Mapping[str, Any]) -> dict[tuple[str, str], float]:
    """The discrepancies in an entry of a log, by name and layer; a joint one has the layer ""."""
    found = {}
    for key, value in entry.items():
        name, _, layer = key.partition("_")
        if name in TITLES:
            found[TITLES[name], layer] = value
    return found
