"""`facedan align`: photographs to aligned faces."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from facedan_cli.cli.options import (
    ConfigOption,
    DeviceOption,
    DryRunOption,
    ForceOption,
    JsonOption,
    QuietOption,
    VerboseOption,
    WorkersOption,
    WorkspaceOption,
    configured,
    console_of,
    option,
)
from facedan_cli.cli.outcome import set_aside_exit
from facedan_cli.config import TEMPLATE_NAMES, AlignConfig


def align(
    context: typer.Context,
    raw: Annotated[Path, typer.Argument(help="Directory of photographs.", show_default=False, show_envvar=False)],
    out: Annotated[
        Path,
        typer.Argument(
            help="Directory for the aligned faces; the tree of RAW is mirrored in it.",
            show_default=False,
            show_envvar=False,
        ),
    ],
    size: Annotated[int, option("Side of an aligned face, pixels.", min=32)] = AlignConfig.size,
    template: Annotated[
        str, option(f"Where eyes and mouth go: {', '.join(TEMPLATE_NAMES)}.", complete=TEMPLATE_NAMES)
    ] = AlignConfig.template,
    min_face: Annotated[int, option("Smallest face to look for, pixels.", min=20)] = AlignConfig.min_face,
    detector_batch: Annotated[int, option("Photographs that are searched together.", min=1)] = (
        AlignConfig.detector_batch
    ),
    landmarks: Annotated[
        Path | None,
        option("CSV of eye or five-point coordinates to use where it has them (GBU's eyes.csv).", show_default=False),
    ] = None,
    workers: WorkersOption = AlignConfig.workers,
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
    Running it again does only what is missing.

    Example: facedan align ./raw ./aligned
    """
    from facedan_cli.stages.align import align as run
    from facedan_cli.stages.align_plan import inspect

    console = console_of(context)
    settings = configured(AlignConfig, context)
    if dry_run:
        found = inspect(settings)
        done = f"{found.already} aligned before, {len(found.failures)} set aside before"
        console.result(f"{found.total} photographs in {raw} to {out}: {done}")
        return
    result = run(settings, console)
    made = f"{result.aligned} aligned, {result.failed} set aside, {result.already} done before"
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
            }
        )
    else:
        console.note(made)
        console.result(str(result.out))
    set_aside_exit(console, result.set_aside)
