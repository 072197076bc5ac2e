"""The end of a command: the printed result and the exit code."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from facedan_cli.cli.console import Console
from facedan_cli.workspace import read_set_aside

if TYPE_CHECKING:
    from facedan_cli.evaluation.check import Check
    from facedan_cli.runs import Run
    from facedan_cli.training.datasets import TrainingResult


def print_plan(console: Console, run: Run) -> None:
    """Print the runs of a training and their states, for --dry-run."""
    state = "finished" if run.finished else "to be resumed" if run.state.exists() else "to be run"
    if console.as_json:
        console.json({"run": str(run.directory), "state": state, "config": run.config, "inputs": run.inputs})
        return
    console.result(f"{run.directory} ({state})")
    for role, facts in run.inputs.items():
        console.result(f"  {role}: " + ", ".join(f"{key} {value}" for key, value in facts.items()))
    console.result("  " + ", ".join(f"{key} {value}" for key, value in run.config.items() if value is not None))


def finish(console: Console, result: TrainingResult, checked: Check | None = None) -> None:
    """Print the result of a training; exit with code 3 if images were set aside."""
    run = result.run
    if result.skipped:
        console.note(f"{run.name} is finished already (--force does it again)")
    if console.as_json:
        made: dict[str, Any] = {
            "schema": 1,
            "stage": run.stage,
            "run": str(run.directory),
            "checkpoint": str(run.checkpoint),
            "skipped": result.skipped,
            "metrics": dict(result.metrics),
            "set_aside": None if result.set_aside is None else str(result.set_aside),
        }
        if checked is not None:
            made["check"] = checked.summary()
        console.json(made)
    else:
        console.path(run.checkpoint)
    set_aside_exit(console, result.set_aside)


def set_aside_exit(console: Console, listed: Path | None) -> None:
    """Name the list of set-aside inputs, if there is one, and exit with code 3."""
    if listed is not None:
        count = len(read_set_aside(listed))
        what = "1 image was" if count == 1 else f"{count} images were"
        console.warn(f"{what} set aside; {listed} names each and says why")
        raise typer.Exit(3)
