"""Translation of the options of `facedan table` to those of `pretrain`, `adapt` and `evaluate`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

import typer

from facedan_cli.cli.adapt import preset_adapt
from facedan_cli.cli.options import configured
from facedan_cli.config.common import EvaluateConfig
from facedan_cli.config.fields import spelling
from facedan_cli.config.models import imported
from facedan_cli.config.protocols import PROTOCOLS
from facedan_cli.config.table import TABLE_INPUTS, TABLE_PROTOCOLS, TableConfig
from facedan_cli.config.training import AdaptConfig, PretrainConfig
from facedan_cli.errors import UsageError

if TYPE_CHECKING:
    from facedan_cli.table.fill import TableProtocol
    from facedan_cli.workspace import Workspace

# Parameters of `table` that are passed on to each command, with the command's option. Other options come from the
# command's own section of facedan.toml and its environment variables.
_COMMON = {
    "workspace": "--workspace",
    "config": "--config",
    "workers": "--workers",
    "device": "--device",
    "strict": "--strict",
}
_PRETRAIN = _COMMON | {
    "source": "--source",
    "model": "--model",
    "init": "--init",
    "pretrain_iterations": "--iterations",
}
_ADAPT = _COMMON | {"source": "--source", "target": "--target", "iterations": "--iterations", "lambda_": "--lambda"}
_EVALUATE = _COMMON | {name: f"--{name}" for name in ("far", "ci", "replicates")}
_ARGUMENTS = {  # an argument of a protocol's command is our option of the protocol's name
    protocol: one.name
    for protocol in TABLE_PROTOCOLS
    for one in fields(PROTOCOLS[protocol].inputs)
    if one.metadata["argument"]
}
_INPUTS = {one.name: spelling(one.name) for one in fields(TABLE_INPUTS) if one.name not in _ARGUMENTS}


def settings(context: typer.Context) -> tuple[TableConfig, typer.Context]:
    """The configuration of the table, and the options of its protocol."""
    from facedan_cli.table.runs import resolve_rows

    given = context.params
    pretrain = configured(PretrainConfig, _parsed(context, "pretrain", _words(context, _PRETRAIN)))
    parsed = _parsed(context, "adapt", _words(context, _ADAPT))
    adapt = preset_adapt(configured(AdaptConfig, parsed), parsed.params["preset"], parsed)
    for protocol in _ARGUMENTS:
        if (given[protocol] is not None) != (given["by"] == protocol):
            raise UsageError(
                f"--{protocol} FILE is of the protocol {protocol}, which needs it, and of no other",
                f"facedan table {protocol} --{protocol} FILE --images DATASET",
            )
    words = _words(context, _EVALUATE | _INPUTS)
    words += [str(given[protocol]) for protocol in _ARGUMENTS if given[protocol] is not None]
    test = _parsed(context, "evaluate", words, given["by"])
    also, embeddings = tuple(given["also"] or ()), tuple(given["embeddings"] or ())
    evaluate = replace(configured(EvaluateConfig, test), model=also, embeddings=embeddings)
    rows = resolve_rows(given["rows"], given["by"], pretrain.init, given["methods"])
    return TableConfig(rows=rows, seeds=_seeds(given["seeds"]), pretrain=pretrain, adapt=adapt, evaluate=evaluate), test


def _words(context: typer.Context, options: Mapping[str, str]) -> list[str]:
    """The given options as words of another command's line."""
    words = []
    for name, written in options.items():
        value = context.params[name]
        for one in value if isinstance(value, list | tuple) else [value]:
            if one is True:
                words.append(written)
            elif one is not None and one is not False:
                words += [written, str(one)]
    return words


def _parsed(context: typer.Context, command: str, words: list[str], protocol: str | None = None) -> typer.Context:
    """The context of a command, or of a protocol's command, with these words as arguments."""
    root = context.find_root()
    called: Any = root.command
    called = called.commands[command]
    if protocol is None:
        parsed: typer.Context = called.make_context(command, words, parent=root)
        return parsed
    group = called.make_context(command, [protocol], parent=root)
    parsed = called.commands[protocol].make_context(protocol, words, parent=group)
    return parsed


def _seeds(text: str) -> tuple[int, ...]:
    try:
        seeds = tuple(dict.fromkeys(int(part) for part in text.split(",")))
    except ValueError:
        seeds = (-1,)
    if min(seeds) < 0:
        raise UsageError(f"--seeds cannot be '{text}'", "give whole numbers from 0, as in 0,1,2")
    return seeds


def tested_by(by: str, test: typer.Context, place: Workspace) -> TableProtocol:
    """The protocol of a table, with data sets looked up and lists read, so that errors come before any training."""
    from facedan_cli.table.fill import TableProtocol
    from facedan_cli.workspace import Dataset

    entry = PROTOCOLS[by]
    given = entry.resolve_inputs(configured(entry.inputs, test), place)
    lists = entry.read_lists(given)
    return TableProtocol(
        name=by,
        datasets=tuple(value for value in given.values() if isinstance(value, Dataset)),
        measure=lambda how, report: imported(entry.evaluate)(how, place, **given, report=report),
        reported=imported(entry.reported)(lists) if entry.reported else None,
    )
