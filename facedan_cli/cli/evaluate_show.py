"""The printed results of `facedan evaluate`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from facedan_cli.cli.console import Console, table
from facedan_cli.cli.outcome import set_aside_exit
from facedan_cli.errors import UsageError
from facedan_cli.spreadsheet import csv_lines

if TYPE_CHECKING:
    from facedan_cli.evaluation.result import EvaluateResult
    from facedan_cli.figures.page import Table


def refuse_two_forms(context: typer.Context) -> None:
    """Raise an error if both --json and --csv are given.

    Raises:
        UsageError: both are given.
    """
    if context.params["as_json"] and context.params["as_csv"]:
        raise UsageError("--json and --csv cannot both be printed", "take one; the results directory has both files")


def show(context: typer.Context, console: Console, result: EvaluateResult) -> None:
    """Print an evaluation as tables, JSON or CSV; exit with code 3 if images were set aside."""
    from facedan_cli.evaluation.text_tables import differences_table, failures_table, main_table, points_table

    if console.as_json:
        console.json(result.summary())
    elif context.params["as_csv"]:
        console.result(as_csv(result))
    else:
        shown = [main_table(result), failures_table(result)]
        texts = [as_text(found, titled=place > 0) for place, found in enumerate(shown) if found]
        # A table that is kept or sent on takes with it what may make its rates wrong.
        texts[0] = "\n".join([texts[0], *(f"! {warning}" for warning in result.warnings)])
        console.result("\n\n".join(texts))
    for more in (points_table(result), differences_table(result)):
        if more is not None:
            console.detail("\n" + as_text(more, titled=True))
    console.note(f"results: {result.directory}, plot: {result.plot}, page: {result.page}")
    set_aside_exit(console, result.set_aside)


def as_text(shown: Table, *, titled: bool) -> str:
    """A table with aligned columns, an optional title and notes."""
    return "\n".join([*([f"{shown.title}:"] if titled else []), table(shown.header, shown.rows), *shown.notes])


def as_csv(result: EvaluateResult) -> str:
    """The rows of figures.csv."""
    from facedan_cli.evaluation.result import CSV_HEADER

    return "".join(csv_lines(CSV_HEADER, result.rows())).rstrip("\n")
