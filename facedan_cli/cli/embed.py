"""`facedan embed`: features of faces."""

from __future__ import annotations

import os
import sys
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
    WorkersOption,
    WorkspaceOption,
    complete_datasets,
    complete_models,
    configured,
    console_of,
    option,
    workspace_of,
)
from facedan_cli.cli.outcome import set_aside_exit
from facedan_cli.config.common import EmbedConfig
from facedan_cli.errors import UsageError

if TYPE_CHECKING:
    from facedan_cli.stages.embed import EmbedResult


def embed(
    context: typer.Context,
    dataset: Annotated[
        str,
        typer.Argument(
            help="Aligned faces: a path or a data set's name; - reads a list of image paths from stdin.",
            show_default=False,
            show_envvar=False,
            autocompletion=complete_datasets,
        ),
    ],
    model: Annotated[
        str | None,
        option(
            "Run, checkpoint or lbp. Default: the newest finished adaptation, else pretraining.",
            show_default=False,
            complete=complete_models,
        ),
    ] = None,
    layer: Annotated[
        str | None,
        option(
            "fc7 or fc6; of facenet embedding or pool. Default: the first.",
            show_default=False,
            complete=("fc7", "fc6", "embedding", "pool"),
        ),
    ] = EmbedConfig.layer,
    flip: Annotated[bool, option("Add the features of the mirrored face.", "--flip")] = EmbedConfig.flip,
    batch: Annotated[int, option("Images at a time.", min=1)] = EmbedConfig.batch,
    workers: WorkersOption = EmbedConfig.workers,
    device: DeviceOption = EmbedConfig.device,
    workspace: WorkspaceOption = Path("."),
    config: ConfigOption = None,
    force: ForceOption = EmbedConfig.force,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Features of aligned faces, L2-normalised; prints the directory of vectors.npy and images.csv.

    Those of lbp are weighted histograms, to be compared by their chi-square.

    With --json one line an image: {"row": 0, "path": …, "identity": …, "vector": […]}.

    Example: find aligned/gate -name '*.jpg' | facedan embed - --json
    """
    from facedan_cli.faces.folder import list_of_paths, read_folder
    from facedan_cli.stages.devices import choose_device
    from facedan_cli.stages.embed import embed as run
    from facedan_cli.stages.recogniser import find_model
    from facedan_cli.training.distributed import Ranks

    console, ranks = console_of(context), Ranks.of(os.environ)
    console.quiet |= not ranks.first
    place = workspace_of(context)
    if dataset == "-":
        if ranks.count > 1:
            raise UsageError("torchrun's processes have no stdin to read a list from", "give the list as a file")
        if sys.stdin.isatty():
            raise UsageError("- reads image paths from stdin, but stdin is a terminal", "pipe a list of paths into it")
        name, folder = "stdin", list_of_paths(sys.stdin)
    else:
        found = place.dataset(dataset)
        name, folder = found.name, read_folder(found.root)
    recogniser = find_model(place, model)
    console.note(f"embedding with {recogniser}")
    if dry_run:
        console.result(f"{len(folder)} images of '{name}' by {recogniser}")
        return
    job = configured(EmbedConfig, context, dataset=name)
    with ranks.joined(ranks.device(choose_device(job.device))):
        result = run(job, folder, recogniser, place, ranks=ranks, report=console)
    if not ranks.first:
        return
    if result.skipped:
        console.note(f"{result.directory} is complete already (--force does it again)")
    if console.as_json:
        _print_vectors(console, result)
    else:
        console.result(str(result.directory))
    set_aside_exit(console, result.set_aside)


def _print_vectors(console: Console, result: EmbedResult) -> None:
    vectors, paths, people = result.load()
    for row, (vector, path, person) in enumerate(zip(vectors, paths, people, strict=True)):
        console.json({"row": row, "path": path, "identity": person, "vector": [round(float(v), 7) for v in vector]})
