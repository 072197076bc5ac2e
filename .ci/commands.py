"""facedan's command line as plain data, read from the Typer app: what completions and man pages are made of."""

from __future__ import annotations

import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import NoneType
from typing import Any, Literal

import typer
from typer.main import get_command

from facedan_cli.cli.app import app
from facedan_cli.cli.options import complete_datasets, complete_models, complete_runs

Kind = Literal["flag", "dataset", "run", "model", "path", "word", "number", "text"]

_NUMBERS = {int: "N", float: "X"}
_METAVARS: Mapping[Kind, str] = {
    "dataset": "DATASET",
    "run": "RUN",
    "model": "RUN",
    "path": "PATH",
    "word": "WORD",
    "text": "VALUE",
}
_FROM_THE_WORKSPACE: Mapping[Any, Kind] = {complete_datasets: "dataset", complete_runs: "run", complete_models: "model"}


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """An option or an argument.

    Args:
        names: how an option is written, the long form first; empty for an argument.
        metavar: what stands for its value; empty for a flag.
        kind: what its value is, and so how a shell completes it.
        words: the values that are known beforehand, where `kind` is "word".
        facts: default, bounds and the like, as --help shows them in brackets.
        common: many commands have it.
    """

    names: tuple[str, ...]
    metavar: str
    kind: Kind
    words: tuple[str, ...]
    help: str
    facts: tuple[str, ...]
    required: bool
    repeatable: bool
    common: bool


@dataclass(frozen=True, kw_only=True)
class Command:
    """A command, or a group of commands; the root is facedan itself.

    Args:
        words: how it is called, "facedan" first.
        paragraphs: its description; the first is one sentence.
        example: one line of shell; may be empty.
    """

    words: tuple[str, ...]
    paragraphs: tuple[str, ...]
    example: str
    options: tuple[Parameter, ...]
    arguments: tuple[Parameter, ...]
    commands: tuple[Command, ...]

    @property
    def summary(self) -> str:
        """What it does, in less than a sentence: without what it prints and without a full stop."""
        return self.paragraphs[0].partition("; prints")[0].rstrip(".")

    def walk(self) -> Iterator[Command]:
        """This command and all below it."""
        yield self
        for command in self.commands:
            yield from command.walk()


def facedan() -> Command:
    """The whole command line."""
    return _command(get_command(app), ("facedan",), None)


def _command(command: Any, words: tuple[str, ...], parent: typer.Context | None) -> Command:
    # The context knows what is inherited from the group above: the names of --help.
    context = typer.Context(command, info_name=words[-1], parent=parent, **command.context_settings)
    signature = typing.get_type_hints(command.callback, include_extras=True) if command.callback else {}
    parameters = [
        (given.param_type_name, _parameter(given, signature.get(given.name)))
        for given in command.get_params(context)
        if not getattr(given, "hidden", False)
    ]
    paragraphs = [" ".join(block.split()) for block in (command.help or "").split("\n\n")]
    examples = [block.removeprefix("Example: ") for block in paragraphs if block.startswith("Example: ")]
    return Command(
        words=words,
        paragraphs=tuple(block for block in paragraphs if not block.startswith("Example: ")),
        example=examples[0] if examples else "",
        options=tuple(parameter for kind, parameter in parameters if kind == "option"),
        arguments=tuple(parameter for kind, parameter in parameters if kind == "argument"),
        commands=tuple(
            _command(below, (*words, name), context) for name, below in getattr(command, "commands", {}).items()
        ),
    )


def _parameter(given: Any, annotation: Any) -> Parameter:
    """One parameter; `annotation` is that of the command's function, None for --help, which Typer adds itself."""
    information = typing.get_args(annotation)[1] if annotation else None
    kind, words = _kind(given, annotation, information)
    is_argument = given.param_type_name == "argument"
    if is_argument:
        metavar = str(given.name).upper()
    elif kind == "number":
        metavar = _NUMBERS[_plain_type(annotation)]
    else:
        metavar = _METAVARS.get(kind, "")
    return Parameter(
        names=() if is_argument else tuple(sorted(given.opts, key=len, reverse=True)),
        metavar=metavar,
        kind=kind,
        words=words,
        help=given.help or "",
        facts=_facts(given, kind),
        required=given.required,
        repeatable=getattr(given, "multiple", False),
        common=getattr(given, "rich_help_panel", None) == "Common",
    )


def _kind(given: Any, annotation: Any, information: Any) -> tuple[Kind, tuple[str, ...]]:
    if getattr(given, "is_flag", False):
        return "flag", ()
    complete = information.autocompletion
    if complete is not None:
        kind = _FROM_THE_WORKSPACE.get(complete)
        return (kind, ()) if kind else ("word", tuple(complete()))
    plain = _plain_type(annotation)
    if plain is Path:
        return "path", ()
    return ("number", ()) if plain in _NUMBERS else ("text", ())


def _plain_type(annotation: Any) -> Any:
    """The type below Annotated, list and None: int, float, str or Path."""
    inner = [choice for choice in typing.get_args(annotation) if choice is not NoneType]
    return _plain_type(inner[0]) if inner else annotation


def _facts(given: Any, kind: Kind) -> tuple[str, ...]:
    facts = []
    if given.required:
        facts.append("required")
    elif kind != "flag" and given.show_default and given.default is not None:
        values = given.default if isinstance(given.default, list | tuple) else [given.default]
        facts.append("default: " + ", ".join(map(str, values)))
    if getattr(given, "min", None):
        facts.append(f"at least {given.min}")
    return tuple(facts)
