"""The list of commands, and the handling of errors."""

from __future__ import annotations

import errno
import logging
import os
import sys
import warnings
from typing import Annotated

import typer

from facedan_cli import __version__
from facedan_cli.cli import adapt, align, demo, embed, evaluate, export, models, pretrain, table
from facedan_cli.cli.command import FormerSpellings
from facedan_cli.cli.console import Console
from facedan_cli.cli.stopping import interrupted, stoppable
from facedan_cli.cli.streams import prepare, use_utf8
from facedan_cli.errors import FacedanError, Interrupted, UsageError

_OS_FIXES = {
    errno.ENOSPC: "make room and run the same command again: finished work is kept",
    errno.EDQUOT: "make room and run the same command again: finished work is kept",
    errno.EACCES: "check the permissions, or name another --workspace",
    errno.EPERM: "check the permissions, or name another --workspace",
    errno.EROFS: "the file system is read-only; name another --workspace",
}

_LESS_MEMORY = "in training raise --grad-accum, which changes nothing else; elsewhere lower --batch"

_KNOWN = (
    ("out of memory", "out of memory on the device", _LESS_MEMORY),  # of torch.OutOfMemoryError, so before the next
    ("RecursionError", "a file that was read is nested too deeply", "check the files that the command names"),
    ("MemoryError", "out of memory", _LESS_MEMORY),
    (
        "torchvision::nms does not exist",
        "torchvision cannot load beside this build of torch",
        "install both together: pip install --force-reinstall torch torchvision",
    ),
)

app = typer.Typer(
    name="facedan",
    help="Unsupervised domain adaptation for face recognition: MK-MMD on fc6 and fc7 (Luo et al. 2018).",
    epilog="Exit codes: 0 done, 1 failed, 2 wrong usage, 3 done but some inputs set aside, 130 interrupted.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"], "auto_envvar_prefix": "FACEDAN"},
)
app.command("align")(align.align)
app.command("pretrain", cls=FormerSpellings)(pretrain.pretrain)
app.command("adapt", cls=FormerSpellings)(adapt.adapt)
app.command("embed")(embed.embed)
app.add_typer(evaluate.app, name="evaluate")
app.command("table")(table.table)
app.command("export")(export.export)
app.command("models")(models.models)
app.command("demo")(demo.demo)


def _version(value: bool) -> None:
    if value:
        Console().result(f"facedan {__version__}")
        raise typer.Exit


@app.callback()
def _facedan(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version.", callback=_version, is_eager=True, allow_from_autoenv=False
        ),
    ] = False,
) -> None: ...


def main() -> None:
    """Run the command line; errors become messages and exit codes (FACEDAN_DEBUG=1 shows tracebacks)."""
    use_utf8()
    prepare()
    logging.getLogger("facedan").handlers[:] = [_Warnings()]
    # Pillow warns of odd files in words for programmers; what cannot be read is set aside and listed.
    warnings.filterwarnings("ignore", module="PIL")
    try:
        # If one process of torchrun dies, the others get a signal; the error of their waiting call has the reason.
        with stoppable(of_several=int(os.environ.get("WORLD_SIZE", "1")) > 1):
            code = app(prog_name="facedan", standalone_mode=False) or 0
            if code == Interrupted.exit_code:  # what Typer makes of KeyboardInterrupt
                raise interrupted()
    except (Exception, KeyboardInterrupt) as error:
        if os.environ.get("FACEDAN_DEBUG") == "1":
            raise
        explained = interrupted() if isinstance(error, KeyboardInterrupt) else explain(error)
        if explained.what:  # a command without its arguments has shown its help already
            Console().error(explained)
        sys.exit(explained.exit_code)
    sys.exit(code)


class _Warnings(logging.Handler):
    """A log handler that prints warnings of modules without a console, in the first process only."""

    def emit(self, record: logging.LogRecord) -> None:
        if os.environ.get("RANK", "0") == "0":
            Console().warn(record.getMessage())


def explain(error: Exception) -> FacedanError:
    """The message for an error, with advice."""
    if isinstance(error, FacedanError):
        return error
    if isinstance(error, typer.TyperException):
        return UsageError(error.format_message().rstrip("."), "--help after the command lists what it takes")
    said = str(error)
    if "No space left on device" in said:  # safetensors raises an error of its own
        error = OSError(errno.ENOSPC, "No space left on device", getattr(error, "filename", None))
    if isinstance(error, OSError):
        where = f": {error.filename}" if error.filename else ""
        fix = _OS_FIXES.get(error.errno or 0, "check the path and the file system")
        return FacedanError(f"{error.strerror or said}{where}", fix)
    for sign, what, fix in _KNOWN:
        if sign in f"{type(error).__name__}: {said}":
            return FacedanError(what, fix)
    return FacedanError(
        f"this should not have happened: {type(error).__name__}: {said}",
        "run it again with FACEDAN_DEBUG=1 and report the traceback",
    )
