"""`facedan table`: the paper's tables, trained and measured."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import typer

from facedan_cli.cli.command import command
from facedan_cli.cli.console import Console
from facedan_cli.cli.evaluate_show import as_text
from facedan_cli.cli.options import console_of, workspace_of
from facedan_cli.cli.outcome import set_aside_exit
from facedan_cli.cli.table_settings import settings, tested_by
from facedan_cli.config.fields import check_choice
from facedan_cli.config.table import TABLE_FORMATS, TABLE_INPUTS, TABLE_PROTOCOLS, TableOptions
from facedan_cli.errors import UsageError

if TYPE_CHECKING:
    from facedan_cli.table.result import TableResult
    from facedan_cli.table.runs import Cell

_FILES = {"markdown": "table.md", "latex": "table.tex", "csv": "table.csv"}


@command(TableOptions, inputs=TABLE_INPUTS, common=("dry_run", "as_json", "quiet", "verbose"))
def table(context: typer.Context, given: TableOptions, _: Any) -> None:
    """Fill the paper's table: train missing models, measure each, print the rates with their intervals.

    Rows: the weights as loaded, stage 1, the control λ = 0, the paper's four adaptations (1 or 5 kernels, last layer or
    all) and their fusion; of feret also LBP and PCANet. Every model is an ordinary run: finished runs are reused, an
    interrupted table resumes. Other options come from the sections pretrain, adapt and evaluate of facedan.toml. On the
    paper's own protocols its rates stand beside.

    Example: facedan table gbu --source casia --target frgc --init vgg_face_dag.pth --seeds 0,1,2
    """
    from facedan_cli.table.fill import fill_table
    from facedan_cli.table.runs import plan_table

    _check(given, context.params["as_json"])
    console, place = console_of(context), workspace_of(context)
    whole, test = settings(context)
    protocol_of = tested_by(given.by, test, place)
    if context.params["dry_run"]:
        _print_plan(console, plan_table(whole, place))
        return
    result = fill_table(whole, place, protocol_of, report=console)
    _show(console, result, given.format)
    console.note(f"results: {result.directory}")
    set_aside_exit(console, result.set_aside)


def _check(given: TableOptions, as_json: bool) -> None:
    check_choice("PROTOCOL", given.by, TABLE_PROTOCOLS)
    check_choice("--format", given.format, TABLE_FORMATS)
    if as_json and given.format != "text":
        raise UsageError("--json and --format cannot both be printed", "take one; the results directory has all forms")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UsageError(
            "a table is filled by one process",
            "train what --dry-run names by torchrun -m facedan_cli pretrain and adapt; the table takes finished runs",
        )


def _print_plan(console: Console, cells: list[Cell]) -> None:
    if console.as_json:
        console.json(
            [{"row": c.row, "seed": c.seed, "run": c.run and str(c.run.directory), "state": c.state} for c in cells]
        )
        return
    for cell in cells:
        name = "after stage 1" if cell.run is None else str(cell.run.directory)
        console.result(f"{cell.row}, seed {cell.seed}: {name} ({cell.state})")


def _show(console: Console, result: TableResult, format: str) -> None:
    """Print the table in the requested format."""
    from facedan_cli.table.formats import differences_table, rates_table

    if console.as_json:
        console.json(result.summary())
    elif format in _FILES:
        console.result(
            (result.directory / _FILES[format]).read_text(encoding="utf-8", errors="surrogateescape").rstrip("\n")
        )
    else:
        shown = [found for found in (rates_table(result), differences_table(result)) if found is not None]
        console.result("\n\n".join(as_text(found, titled=True) for found in shown))
