"""`facedan embed`: features of faces."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import typer

from facedan_cli.cli.command import command
from facedan_cli.cli.console import Console
from facedan_cli.cli.options import console_of, workspace_of
from facedan_cli.cli.outcome import set_aside_exit
from facedan_cli.config.common import EmbedConfig
from facedan_cli.config.networks import network_settings
from facedan_cli.errors import UsageError

if TYPE_CHECKING:
    from facedan_cli.embedding.embed import EmbedResult


@command(EmbedConfig)
def embed(context: typer.Context, settings: EmbedConfig) -> None:
    """Compute L2-normalised features of aligned faces; prints the directory of vectors.npy and images.csv.

    Features of lbp are weighted histograms, to be compared by chi-square.

    --json prints a line per image: {"row": 0, "path": …, "identity": …, "vector": […]}.

    Example: find aligned/gate -name '*.jpg' | facedan embed - --json
    """
    from facedan_cli.data.dataset import list_of_paths, read_dataset
    from facedan_cli.devices import resolve_device
    from facedan_cli.distributed import DistEnv
    from facedan_cli.embedding.alignment import alignment_warnings
    from facedan_cli.embedding.embed import embed as run
    from facedan_cli.embedding.model import check_settings, find_model

    console, ranks = console_of(context), DistEnv.of(os.environ)
    console.quiet |= not ranks.first
    place = workspace_of(context)
    if settings.dataset == "-":
        if ranks.count > 1:
            raise UsageError("torchrun's processes have no stdin to read a list from", "give the list as a file")
        if sys.stdin.isatty():
            raise UsageError("- reads image paths from stdin, but stdin is a terminal", "pipe a list of paths into it")
        name, folder = "stdin", list_of_paths(sys.stdin.buffer).remembered_in(place.root)
    else:
        found = place.dataset(settings.dataset)
        name, folder = found.name, read_dataset(found.root).remembered_in(place.root)
    if folder.remark:
        console.note(folder.remark)
    described = network_settings(settings)
    model = find_model(place, settings.model, described, channels=settings.channels, report=console)
    check_settings([model], described)
    console.note(f"embedding with {model}")
    for warning in alignment_warnings({str(model): model}, {name: folder}, console, strict=settings.strict):
        console.warn(warning)
    for warning in model.warnings(settings.layer, flip=settings.flip):
        console.warn(warning)
    if context.params["dry_run"]:
        console.result(f"{len(folder)} images of '{name}' by {model}")
        return
    job = replace(settings, dataset=name)
    with ranks.joined(ranks.device(resolve_device(job.device))):
        result = run(job, folder, model, place, ranks=ranks, report=console)
    if not ranks.first:
        return
    if result.skipped:
        console.note(f"{result.directory} is complete already (--force does it again)")
    if console.as_json:
        _print_vectors(console, result)
    else:
        console.path(result.directory)
    set_aside_exit(console, result.set_aside)


def _print_vectors(console: Console, result: EmbedResult) -> None:
    vectors, paths, identities = result.load()
    for row, (vector, path, identity) in enumerate(zip(vectors, paths, identities, strict=True)):
        console.json({"row": row, "path": path, "identity": identity, "vector": [round(float(v), 7) for v in vector]})
