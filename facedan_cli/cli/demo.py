"""`facedan demo`: the whole pipeline on drawn faces."""

from __future__ import annotations

import contextlib
import io
import shlex
import time
from collections.abc import Sequence
from typing import Annotated

import typer

from facedan_cli.cli.command import command
from facedan_cli.cli.options import console_of, option, workspace_of
from facedan_cli.config.common import DemoConfig
from facedan_cli.errors import FacedanError, Interrupted

_FARS = ["0.1", "0.01"]

# The control sees augmented source images and no penalty: what augmentation gives is not credited to adaptation. The
# choice comes last: of the trainings that it compares the paper's is finished already.
CONTROL, PAPER = ("--lambda", "0", "--augment", "all"), ("--kernels", "5", "--layers", "fc6,fc7")
WHITENING, CHOICE = ("--method", "whiten"), ("--select", "--lambdas", "0.5,10")

HELD_OUT_IDENTITIES = 24


@command(DemoConfig, common=("as_json", "quiet", "verbose"), workspace="facedan-demo")
def demo(
    context: typer.Context,
    settings: DemoConfig,
    far: Annotated[list[str], option("False-accept rate; repeatable.")] = _FARS,
) -> None:
    """Run the whole pipeline on drawn faces, from web to studio images; prints a table and the path of a figure.

    Draws labelled `web` faces, unlabelled `studio` faces of other identities and a small GBU of yet others, then runs
    the five commands on them: source only, a control with augmentation, the paper's adaptation, whitening, and the
    label-free choice. Nothing is downloaded. It takes a few minutes on two processor cores.

    Example: facedan demo --workspace demo
    """
    from facedan_cli.synthetic.world import draw_world

    console, place = console_of(context), workspace_of(context)
    began = time.monotonic()
    draw_world(settings, place, report=console)
    root = str(place.root)
    common = ["--workspace", root, "--workers", str(settings.workers)] + (["--quiet"] if console.quiet else [])
    _run(context, ["align", f"{root}/raw", f"{root}/aligned", *common])
    seeded = [*common, "--seed", str(settings.seed)]
    aside = ["--holdout-identities", str(HELD_OUT_IDENTITIES)]
    before = _run(context, ["pretrain", "--source", "web", "--model", "vggface-mini", *aside, *seeded])
    adapt = ["adapt", "--source", "web", "--target", "studio"]
    adapted = [_run(context, [*adapt, *how, *seeded]) for how in (CONTROL, PAPER, WHITENING, CHOICE)]
    models = [before, *adapted]
    _run(context, ["embed", "gbu", "--model", models[-1], *common])
    named = [word for model in models for word in ("--model", model)]
    fars = [word for rate in far for word in ("--far", rate)]
    evaluate = ["evaluate", "gbu", *fars, *named, *common]
    console.result(_run(context, evaluate + (["--json"] if console.as_json else [])))
    if not console.as_json:
        newest = max((place.root / "results").glob("gbu-*/roc.png"), key=lambda path: path.stat().st_mtime)
        console.path(newest)
    console.note(f"the demo took {time.monotonic() - began:.0f} s; all it made is in {root}")


def _run(context: typer.Context, arguments: Sequence[str]) -> str:
    """Run a command of facedan as a shell would; returns its stdout."""
    console_of(context).note(f"$ facedan {shlex.join(arguments)}")
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        # The root's command is facedan itself, which imports this module.
        code = context.find_root().command(list(arguments), prog_name="facedan", standalone_mode=False)
    if code == Interrupted.exit_code:
        raise KeyboardInterrupt
    if code not in (None, 0, 3):
        raise FacedanError(f"facedan {arguments[0]} ended with exit code {code}", "see its message above")
    return printed.getvalue().strip()
