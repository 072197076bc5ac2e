"""Progress of a training on the terminal."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import pairwise
from math import isfinite
from typing import Any

from rich.console import Console, ConsoleOptions, RenderResult
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from facedan_cli.report import discrepancies

_WIDTH = 80
_SPARK, _BESIDE_SPARK = 24, 40
"""Number of cells of a sparkline, and of columns for the rest of its line."""

_MOST_LAYERS = 5
_SPEED_SECONDS = 600.0
"""Period for the estimate of the remaining time; large networks on a CPU take minutes for a step."""

_BLOCKS = "▁▂▃▄▅▆▇█"


class TrainingView:
    """A progress bar with the last entry of the log and sparklines below it; at most ten lines.

    Args:
        total: steps of the whole training.
        done: steps that were done before.
    """

    def __init__(self, total: int, done: int) -> None:
        self._bar = Progress(
            TextColumn("training"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TimeRemainingColumn(compact=True),
            TextColumn("left"),
            expand=True,
            speed_estimate_period=_SPEED_SECONDS,
        )
        self._task = self._bar.add_task("training", total=total, completed=done)
        self._entry: Mapping[str, Any] = {}
        self._past: dict[str, list[float]] = defaultdict(list)

    def step(self, entry: Mapping[str, Any]) -> None:
        """Show one more finished step; `entry` is the last entry of the log."""
        self._bar.advance(self._task)
        if entry.get("step") != self._entry.get("step"):
            self._entry = dict(entry)
            for label, value, _ in self._measured():
                if isfinite(value):
                    self._past[label].append(value)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        narrow = options.update(max_width=min(options.max_width, _WIDTH))
        yield from console.render(self._bar, narrow)
        measured = self._measured()
        if not measured:
            return
        table = Table.grid(padding=(0, 2))
        table.add_column(style="dim", no_wrap=True)
        table.add_column(justify="right", no_wrap=True)
        table.add_column(style="cyan", no_wrap=True)
        table.add_column(style="dim", no_wrap=True)
        cells = 0 if options.ascii_only else max(0, min(_SPARK, narrow.max_width - _BESIDE_SPARK))
        for label, value, aside in measured[: 2 + _MOST_LAYERS]:
            past = sparkline(self._past[label], cells)
            table.add_row(label, f"{value:.4f}", past, aside)
        yield from console.render(table, narrow)
        yield from console.render(Text(self._pace(), style="dim", no_wrap=True, overflow="crop"), narrow)

    def _measured(self) -> list[tuple[str, float, str]]:
        """The measured values, a line each: label, value and remark."""
        entry = self._entry
        lines = [(key, entry[key], "") for key in ("loss", "accuracy") if key in entry]
        for (name, layer), value in discrepancies(entry).items():
            gamma = entry.get(f"gamma_{layer}")
            lines.append((f"{name} {layer}".rstrip(), value, "" if gamma is None else f"γ {gamma:.4g}"))
        return lines

    def _pace(self) -> str:
        forms = {"lr": "lr {:.2e}", "lambda": "λ {:.3g}", "images_per_second": "{:.0f} images/s"}
        parts = [form.format(self._entry[key]) for key, form in forms.items() if key in self._entry]
        more = len(discrepancies(self._entry)) - _MOST_LAYERS
        return "  ".join([*parts, *([f"and {more} more layers in the log"] if more > 0 else [])])


def sparkline(values: Sequence[float], cells: int) -> str:
    """A line of blocks for finite values over time; values are averaged if there are more than cells."""
    count = min(len(values), cells)
    edges = [len(values) * cell // count for cell in range(count + 1)] if count else []
    means = [sum(values[a:b]) / (b - a) for a, b in pairwise(edges)]
    low, high = min(means, default=0.0), max(means, default=0.0)
    scale = (len(_BLOCKS) - 1) / (high - low) if high > low else 0.0
    return "".join(_BLOCKS[round((mean - low) * scale)] for mean in means)
