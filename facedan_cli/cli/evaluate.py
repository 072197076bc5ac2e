"""`facedan evaluate`: a command for each row of the table of protocols."""

from __future__ import annotations

import os
from typing import Any

import typer

from facedan_cli.cli.command import command
from facedan_cli.cli.evaluate_show import refuse_two_forms, show
from facedan_cli.cli.options import console_of, workspace_of
from facedan_cli.config.common import EvaluateConfig
from facedan_cli.config.models import imported
from facedan_cli.config.protocols import PROTOCOLS, ProtocolEntry

app = typer.Typer(
    help="Measure models by a protocol: verification at a false-accept rate, or identification.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)

_COMMON = ("force", "as_json", "as_csv", "quiet", "verbose")


def _add(name: str, entry: ProtocolEntry) -> None:
    def run(context: typer.Context, settings: EvaluateConfig, inputs: Any) -> None:
        refuse_two_forms(context)
        console, place = console_of(context), workspace_of(context)
        given = entry.resolve_inputs(inputs, place)
        result = imported(entry.evaluate)(settings, place, **given, report=console)
        if os.environ.get("RANK", "0") == "0":  # of torchrun's processes the first prints
            show(context, console, result)

    run.__name__, run.__doc__ = name, entry.inputs.__doc__
    common = [option for option in _COMMON if option not in entry.idle]
    app.command(name)(command(EvaluateConfig, inputs=entry.inputs, without=entry.idle, common=common)(run))


for _name, _entry in PROTOCOLS.items():
    _add(_name, _entry)
