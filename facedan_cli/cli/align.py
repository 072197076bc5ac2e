"""`facedan align`: photographs to aligned faces."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from facedan_cli.cli.console import Console
from facedan_cli.cli.options import (
    ConfigOption,
    DeviceOption,
    DryRunOption,
    ForceOption,
    JsonOption,
    QuietOption,
    VerboseOption,
    WorkspaceOption,
    configured,
    console_of,
    option,
)
from facedan_cli.cli.outcome import set_aside_exit
from facedan_cli.config.common import TEMPLATE_NAMES, AlignConfig
from facedan_cli.errors import UsageError

if TYPE_CHECKING:
    from facedan_cli.stages.align import AlignResult


def align(
    context: typer.Context,
    raw: Annotated[
        Path,
        typer.Argument(
            help="Photographs: a directory, a .rec or tar archive, or a list of paths; - reads the list from stdin.",
            show_default=False,
            show_envvar=False,
        ),
    ],
    out: Annotated[
        Path,
        typer.Argument(
            help="Directory for the aligned faces; the tree of RAW is mirrored in it.",
            show_default=False,
            show_envvar=False,
        ),
    ],
    root: Annotated[Path, option("The directory whose tree is mirrored where RAW is a list.")] = AlignConfig.root,
    size: Annotated[int, option("Side of an aligned face, pixels.", min=32)] = AlignConfig.size,
    template: Annotated[
        str, option(f"Where eyes and mouth go: {', '.join(TEMPLATE_NAMES)}.", complete=TEMPLATE_NAMES)
    ] = AlignConfig.template,
    min_face: Annotated[int, option("Smallest face to look for, pixels.", min=20)] = AlignConfig.min_face,
    second_pass: Annotated[
        bool, option("Search again, more patiently, where no face was found.", "--second-pass/--no-second-pass")
    ] = AlignConfig.second_pass,
    detector_batch: Annotated[int, option("Photographs that are searched together.", min=1)] = (
        AlignConfig.detector_batch
    ),
    landmarks: Annotated[
        Path | None,
        option("CSV of eye or five-point coordinates to use where it has them (GBU's eyes.csv).", show_default=False),
    ] = None,
    no_align: Annotated[
        bool, option("The faces are aligned already: copy them, and scale those of another size.", "--no-align")
    ] = AlignConfig.no_align,
    contact_sheet: Annotated[
        Path | None,
        option("Draw the 100 least certain faces with their points into this picture.", show_default=False),
    ] = AlignConfig.contact_sheet,
    workers: Annotated[
        int,
        option("Processes that align, threads with a GPU; 0: one a processor.", min=0, rich_help_panel="Common"),
    ] = AlignConfig.workers,
    device: DeviceOption = AlignConfig.device,
    workspace: WorkspaceOption = Path("."),
    config: ConfigOption = None,
    force: ForceOption = AlignConfig.force,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Find the face in each photograph and bring eyes and mouth to one template; prints the aligned directory.

    MTCNN finds the faces; of several the large and central one is taken. aligned.jsonl has a line for each photograph.
    Running it again does only what is missing. Archives in the directory are looked into. Under torchrun the processes
    share the photographs.

    Example: facedan align ./raw ./aligned
    """
    from facedan_cli.stages.align import align as run
    from facedan_cli.stages.align_plan import inspect
    from facedan_cli.training.distributed import Ranks

    console = console_of(context)
    ranks = Ranks.of(os.environ)
    console.quiet |= not ranks.first
    with _listed(raw, alone=ranks.count == 1) as source:
        settings = replace(configured(AlignConfig, context), raw=source)
        if dry_run:
            found = inspect(settings)
            done = f"{found.already} aligned before, {len(found.failures)} set aside before"
            if ranks.first:
                console.result(f"{found.total} photographs in {raw} to {out}: {done}")
            return
        result = run(settings, console)
    if ranks.first:
        _print_result(console, result, contact_sheet)
        # A launcher takes every exit code but 0 for a crash.
        with suppress(typer.Exit) if ranks.count > 1 else nullcontext():
            set_aside_exit(console, result.set_aside)


@contextmanager
def _listed(raw: Path, *, alone: bool) -> Iterator[Path]:
    """What is to be read; the list from stdin as a file, since it is gone through twice."""
    if str(raw) != "-":
        yield raw
        return
    if not alone:
        raise UsageError("several processes cannot share stdin", "write the list into a file and name that")
    if sys.stdin.isatty():
        raise UsageError("- reads paths from stdin, but stdin is a terminal", "pipe a list of paths into it")
    with tempfile.NamedTemporaryFile(prefix="facedan-") as spool:
        shutil.copyfileobj(sys.stdin.buffer, spool)
        spool.flush()
        yield Path(spool.name)


def _print_result(console: Console, result: AlignResult, contact_sheet: Path | None) -> None:
    if console.as_json:
        console.json(
            {
                "schema": 1,
                "stage": "align",
                "out": str(result.out),
                "manifest": str(result.manifest),
                "aligned": result.aligned,
                "failed": result.failed,
                "already": result.already,
                "set_aside": None if result.set_aside is None else str(result.set_aside),
                "contact_sheet": None if contact_sheet is None else str(contact_sheet),
            }
        )
        return
    console.note(f"{result.aligned} aligned, {result.failed} set aside, {result.already} done before")
    if contact_sheet is not None:
        console.note(f"the least certain faces: {contact_sheet}")
    console.result(str(result.out))
