"""What `facedan table` hands on: its options as those of `pretrain`, `adapt` and `evaluate`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import typer

from facedan_cli.cli.adapt import preset_adapt
from facedan_cli.cli.options import configured
from facedan_cli.config.common import EvaluateConfig
from facedan_cli.config.table import TableConfig
from facedan_cli.config.training import AdaptConfig, PretrainConfig
from facedan_cli.errors import UsageError

if TYPE_CHECKING:
    from facedan_cli.table.fill import TableProtocol
    from facedan_cli.workspace import Workspace

# What is handed on to each command, by our parameter and its option; the rest it takes from its own section and
# environment, as if it were typed.
_COMMON = {"workspace": "--workspace", "config": "--config", "workers": "--workers", "device": "--device"}
_PRETRAIN = _COMMON | {
    "source": "--source",
    "model": "--model",
    "init": "--init",
    "pretrain_iterations": "--iterations",
}
_ADAPT = _COMMON | {"source": "--source", "target": "--target", "iterations": "--iterations", "lambda_": "--lambda"}
_EVALUATE = _COMMON | {
    **{name: f"--{name}" for name in ("far", "ci", "replicates", "images", "protocol", "gallery", "probe")},
    "any_lists": "--any-lists",
}


def settings(context: typer.Context) -> tuple[TableConfig, typer.Context]:
    """The configuration, and the options of the protocol that measures."""
    from facedan_cli.table.runs import resolve_rows

    given = context.params
    pretrain = configured(PretrainConfig, _parsed(context, "pretrain", _words(context, _PRETRAIN)))
    parsed = _parsed(context, "adapt", _words(context, _ADAPT))
    adapt = preset_adapt(configured(AdaptConfig, parsed), parsed.params["preset"], parsed)
    if (given["pairs"] is not None) != (given["by"] == "pairs"):
        raise UsageError(
            "the protocol pairs, and no other, is a list of pairs", "table pairs --pairs FILE --images DATASET"
        )
    words = _words(context, _EVALUATE) + ([str(given["pairs"])] if given["pairs"] else [])
    test = _parsed(context, "evaluate", words, given["by"])
    evaluate = replace(configured(EvaluateConfig, test), model=())
    rows = resolve_rows(given["rows"], given["by"], pretrain.init)
    return TableConfig(rows=rows, seeds=_seeds(given["seeds"]), pretrain=pretrain, adapt=adapt, evaluate=evaluate), test


def _words(context: typer.Context, options: Mapping[str, str]) -> list[str]:
    """Our own options as another command takes them; those that are not given are left to it."""
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
    """A command's context as if the words were typed after its name, or after the protocol's."""
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
    """The protocol, its data sets and lists looked up: what is missing is said before anything is trained."""
    from facedan_cli.evaluation.protocols import evaluate_feret, evaluate_gbu, evaluate_identify, evaluate_pairs
    from facedan_cli.protocols.pairs import read_pairs
    from facedan_cli.table.fill import TableProtocol
    from facedan_cli.table.reported import published_feret, published_gbu

    given = test.params
    if by == "identify":
        gallery, probe = place.dataset(given["gallery"]), place.dataset(given["probe"])
        return TableProtocol(by, lambda how, report: evaluate_identify(how, place, gallery, probe, report=report))
    images = place.dataset(given["images"])
    if by == "pairs":
        read_pairs(given["file"])
        return TableProtocol(by, lambda how, report: evaluate_pairs(how, place, images, given["file"], report=report))
    lists = given["protocol"] or place.protocol(by)
    if by == "gbu":
        published = published_gbu(lists)
        return TableProtocol(by, lambda how, report: evaluate_gbu(how, place, images, lists, report=report), published)
    checked = not given["any_lists"]
    published = published_feret(lists, check_lists=checked)
    return TableProtocol(
        by,
        lambda how, report: evaluate_feret(how, place, images, lists, check_lists=checked, report=report),
        published,
    )
