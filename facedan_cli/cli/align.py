"""`facedan align`: raw images to aligned faces."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from facedan_cli.cli.command import command
from facedan_cli.cli.console import Console
from facedan_cli.cli.options import console_of, workspace_of
from facedan_cli.cli.outcome import set_aside_exit
from facedan_cli.config.common import AlignConfig
from facedan_cli.errors import UsageError

if TYPE_CHECKING:
    from facedan_cli.alignment.align import AlignResult


@command(AlignConfig)
def align(context: typer.Context, settings: AlignConfig) -> None:
    """Detect the face in each image and warp it to a template; prints the aligned directory.

    MTCNN detects the faces; of several the large and central one is taken. aligned.jsonl has a line for each image.
    A second run does only what is missing. Archives in the directory are read. Under torchrun the processes share the
    images.

    Example: facedan align ./raw ./aligned --for facenet
    """
    from facedan_cli.alignment.align import align as run
    from facedan_cli.alignment.plan import inspect
    from facedan_cli.alignment.target import resolved
    from facedan_cli.distributed import DistEnv

    console = console_of(context)
    ranks = DistEnv.of(os.environ)
    settings = resolved(_as_typed(context, settings), workspace_of(context))
    console.quiet |= not ranks.first
    with _listed(settings.raw, settings.out, alone=ranks.count == 1) as source:
        settings = replace(settings, raw=source)
        if context.params["dry_run"]:
            found = inspect(settings)
            done = f"{found.already} aligned before, {len(found.failures)} set aside before"
            if ranks.first:
                console.result(f"{found.total} images in {context.params['raw']} to {settings.out}: {done}")
            return
        result = run(settings, console)
    if ranks.first:
        _print_result(console, result, settings.contact_sheet)
        # A launcher takes every exit code but 0 for a crash.
        with suppress(typer.Exit) if ranks.count > 1 else nullcontext():
            set_aside_exit(console, result.set_aside)


def _as_typed(context: typer.Context, settings: AlignConfig) -> AlignConfig:
    """The settings without those of facedan.toml or the environment that have no effect with the command line.

    A typed --for has precedence over their template, size and points, each of these over their `for`, and --no-align
    says nothing of a template without a typed one.
    """
    typed = {name for name in vars(settings) if (of := context.get_parameter_source(name)) and of.name == "COMMANDLINE"}
    place = {"template", "size", "points"}
    if "for_" in typed:
        untyped: dict[str, Any] = dict.fromkeys(place - typed)
        return replace(settings, **untyped)
    if settings.for_ is not None and (typed & place or settings.no_align):
        settings = replace(settings, for_=None)
    return replace(settings, template=None) if settings.no_align and "template" not in typed else settings


@contextmanager
def _listed(raw: Path, out: Path, *, alone: bool) -> Iterator[Path]:
    """The input of an alignment; a list on stdin is copied into a file, since it is read twice.

    It lies beside the aligned directory, where there must be room anyway; the directory for temporary files is often
    small.
    """
    if str(raw) != "-":
        yield raw
        return
    if not alone:
        raise UsageError("several processes cannot share stdin", "write the list into a file and name that")
    if sys.stdin.isatty():
        raise UsageError("- reads paths from stdin, but stdin is a terminal", "pipe a list of paths into it")
    above = next((directory for directory in out.absolute().parents if directory.is_dir()), None)
    beside = above if above is not None and os.access(above, os.W_OK) else None
    with tempfile.NamedTemporaryFile(prefix=".facedan-", suffix=".tmp", dir=beside) as spool:
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
    console.path(result.out)
