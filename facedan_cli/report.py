"""`Report`: how the rooms below `cli` tell notes, warnings and progress, so that they never print."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from facedan_cli.config.discrepancies import TITLES

Advance = Callable[[int, str], None]
"""Called with how many more are done and a short status text (may be empty)."""

Follow = Callable[[Mapping[str, Any]], None]
"""Called after each step of a training with the last entry of its log; it is empty while there is none."""


class Report:
    """Says nothing; the command line passes one that prints (`facedan_cli.cli.console.Console`)."""

    def note(self, text: str) -> None:
        """A note to the user, such as the model that was chosen."""

    def warn(self, text: str) -> None:
        """Something that may make the result wrong or useless."""

    def detail(self, text: str) -> None:
        """Something for those who asked for more with -v."""

    @contextmanager
    def progress(self, label: str, total: int | None, *, done: int = 0, unit: str = "images") -> Iterator[Advance]:
        """Progress of `total` items, `done` of them before; yields the function that advances it."""
        yield lambda n, status: None

    @contextmanager
    def training(self, total: int, done: int = 0) -> Iterator[Follow]:
        """Progress of a training of `total` steps, `done` of them before; yields the function to call once a step."""
        with self.progress("training", total, done=done, unit="steps") as advance:
            yield lambda entry: advance(1, summary(entry))


SILENT = Report()


def summary(entry: Mapping[str, Any]) -> str:
    """An entry of a training's log as one line; empty where it is not of a step."""
    if "classification" not in entry:
        return ""
    parts = [f"loss {entry['classification']:.3f}"]
    parts += [f"{' '.join(filter(None, name))} {value:.4f}" for name, value in discrepancies(entry).items()]
    return "  ".join([*parts, f"{entry['images_per_second']:.0f} images/s"])


def discrepancies(entry: Mapping[str, Any]) -> dict[tuple[str, str], float]:
    """The distances between domains in an entry of a log, by name and layer; a joint one's layer is ""."""
    found = {}
    for key, value in entry.items():
        name, _, layer = key.partition("_")
        if name in TITLES:
            found[TITLES[name], layer] = value
    return found
