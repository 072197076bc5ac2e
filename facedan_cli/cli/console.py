"""The console, the only place that prints: results on stdout, everything else on stderr."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console as RichConsole
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from facedan_cli.cli.live import TrainingView
from facedan_cli.cli.streams import json_line, speaks_utf8, visible, write_path
from facedan_cli.errors import FacedanError
from facedan_cli.report import Advance, Follow, Report

LINE_EVERY_SECONDS = 60.0
"""Where stderr is no terminal, progress is a line now and then: a night's log can be read in the morning."""


class Console(Report):
    """The console of one command.

    Args:
        as_json: results are JSON.
        quiet: no notes and no progress; warnings and errors stay.
        verbose: details too.
    """

    def __init__(self, *, as_json: bool = False, quiet: bool = False, verbose: bool = False) -> None:
        self.as_json = as_json
        self.quiet = quiet
        self.verbose = verbose
        self._stderr = RichConsole(stderr=True, highlight=False, soft_wrap=True)

    def note(self, text: str) -> None:
        """Print a note on stderr, unless quiet."""
        if not self.quiet:
            self._stderr.print(visible(text), style="dim", markup=False)

    def warn(self, text: str) -> None:
        """Print a warning on stderr."""
        self._stderr.print(Text.assemble(("Warning: ", "yellow"), visible(text)))

    def detail(self, text: str) -> None:
        """Print a detail on stderr, with -v."""
        if self.verbose:
            self._stderr.print(visible(text), style="dim", markup=False)

    def error(self, error: FacedanError) -> None:
        """Print what happened and what to do."""
        self._stderr.print(Text.assemble(("Error: ", "bold red"), visible(error.what)))
        if error.fix:
            self._stderr.print(Text.assemble(("Fix: ", "bold"), visible(error.fix)))

    def result(self, text: str) -> None:
        """Print a result as text on stdout; control characters are printed as escapes."""
        _to_stdout(lambda: sys.stdout.write(visible(text) + "\n"))

    def path(self, path: Path) -> None:
        """Print a path on stdout in the bytes of its name."""
        _to_stdout(lambda: write_path(str(path)))

    def json(self, value: Any) -> None:
        """Print a result on stdout as one line of JSON."""
        text = json_line(value, ascii_only=not speaks_utf8(sys.stdout))
        _to_stdout(lambda: sys.stdout.write(text + "\n"))

    @contextmanager
    def progress(self, label: str, total: int | None, *, done: int = 0, unit: str = "images") -> Iterator[Advance]:
        """Show a progress bar on a terminal; elsewhere a line each minute."""
        if self.quiet:
            yield lambda n, status: None
        elif self._stderr.is_interactive:
            columns = (
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                _Rate(unit),
                TimeRemainingColumn(compact=True),
                TextColumn("{task.fields[status]}", style="dim", markup=False),
            )
            with Progress(*columns, console=self._stderr, transient=True) as bars:
                task = bars.add_task(visible(label), total=total, completed=done, status="")
                yield lambda n, status: bars.update(task, advance=n, status=visible(status))
        else:
            yield self._lines(label, total, done, unit)

    @contextmanager
    def training(self, total: int, done: int = 0) -> Iterator[Follow]:
        """Show a training's log on a terminal; elsewhere its progress."""
        if self.quiet or not self._stderr.is_interactive:
            with super().training(total, done) as follow:
                yield follow
        else:
            view = TrainingView(total, done)
            with Live(view, console=self._stderr, transient=True, redirect_stdout=False):
                yield view.step

    def _lines(self, label: str, total: int | None, done: int, unit: str) -> Advance:
        begun = spoken = time.monotonic()
        first = done

        def advance(n: int, status: str) -> None:
            nonlocal done, spoken
            done += n
            now = time.monotonic()
            if now - spoken >= LINE_EVERY_SECONDS:
                spoken = now
                rate = (done - first) / (now - begun)
                of = f" of {total}, {(total - done) / rate / 60:.0f} min left" if total is not None else ""
                self.note(f"{label}: {done}{of}, {rate:.3g} {unit}/s  {status}".rstrip())

        return advance


class _Rate(ProgressColumn):
    def __init__(self, unit: str) -> None:
        super().__init__()
        self.unit = unit

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:.1f} {self.unit}/s" if speed else "", style="progress.data.speed")


def table(header: Sequence[str], rows: Sequence[Sequence[str]], *, left: Container[int] = (0,)) -> str:
    """A text table with aligned columns, also for pipes: words to the left, numbers to the right.

    Args:
        header: names of the columns.
        rows: their cells.
        left: columns of words.
    """
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        padded = [
            cell.ljust(width) if column in left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        return "  ".join(padded).rstrip()

    return "\n".join([line(header), *(line(row) for row in rows)])


def _to_stdout(write: Callable[[], object]) -> None:
    try:
        write()
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader has seen enough (`| head`): what is left goes nowhere, and nobody is bothered with it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
