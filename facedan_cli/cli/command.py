"""The signature of a command, made from the fields of its configuration, so that an option is written once."""

from __future__ import annotations

import functools
import inspect
import typing
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from dataclasses import MISSING, Field, fields
from inspect import Parameter
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from facedan_cli.cli.options import (
    ConfigOption,
    WorkspaceOption,
    complete_datasets,
    complete_models,
    complete_runs,
    configured,
    option,
)
from facedan_cli.config.fields import COMMON, former_names, spelling

_COMPLETE = {"dataset": complete_datasets, "run": complete_runs, "model": complete_models}


def _flag(help: str, *names: str, **more: Any) -> Any:
    return Annotated[bool, option(help, *names, **more)]


_OF_ALL = {
    "workspace": WorkspaceOption,
    "config": ConfigOption,
    "force": _flag("Repeat work that is finished.", "--force", rich_help_panel=COMMON),
    "dry_run": _flag("Print the plan only.", "--dry-run", rich_help_panel=COMMON),
    "as_json": _flag("Print the result as JSON.", "--json", allow_from_autoenv=False, rich_help_panel=COMMON),
    "as_csv": _flag("Print the rates as CSV.", "--csv", allow_from_autoenv=False),
    "quiet": _flag("Print no notes and no progress.", "--quiet", "-q", rich_help_panel=COMMON),
    "verbose": _flag("Print more detail.", "--verbose", "-v", rich_help_panel=COMMON),
}
"""The options that are not fields of a configuration, in the order of the help."""

Command = Callable[..., None]


class FormerSpellings(TyperCommand):
    """A command that also accepts its options' names of earlier versions, which the help does not show."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments after replacing former spellings."""
        former = {spelling(old): spelling(new) for old, new in getattr(self.callback, "former", {}).items()}

        def now(word: str) -> str:
            name, equals, value = word.partition("=")
            return former.get(name, name) + equals + value

        end = args.index("--") if "--" in args else len(args)
        return super().parse_args(ctx, [*map(now, args[:end]), *args[end:]])


def command(
    kind: type | None = None,
    *,
    inputs: type | None = None,
    without: Collection[str] = (),
    common: Collection[str] = ("force", "dry_run", "as_json", "quiet", "verbose"),
    workspace: str = ".",
) -> Callable[[Command], Command]:
    """Turn a function into a Typer command.

    The function is called with the context, the configuration if there is a `kind`, the inputs if there are any, and
    its own parameters, which are options of this command alone. Arguments come first, then required options, leading
    fields, own parameters and inputs, other fields, and the common options.

    Args:
        kind: the configuration; its fields that have a help text are options.
        inputs: a second class whose fields are options of this command alone.
        without: fields of `kind` that this command does not take.
        common: options of `_OF_ALL` that it has beside --workspace and --config.
        workspace: the default of --workspace.
    """

    def decorate(function: Command) -> Command:
        made = [one for one in (kind, inputs) if one is not None]
        own = list(inspect.signature(function, eval_str=True).parameters.values())[1 + len(made) :]
        of_inputs = [one for _, one in _of_fields(inputs, (), function.__name__)] if inputs else []
        parameters = [
            Parameter("context", Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context),
            *_ordered(
                [*own, *of_inputs],
                _of_fields(kind, without, function.__name__) if kind else (),
            ),
            *_of_all(common, workspace),
        ]

        @functools.wraps(function)
        def run(context: typer.Context, **given: Any) -> None:
            function(context, *(configured(one, context) for one in made), **{one.name: given[one.name] for one in own})

        signature = inspect.Signature([one.replace(kind=Parameter.KEYWORD_ONLY) for one in parameters])
        run.__signature__ = signature  # type: ignore[attr-defined]
        run.__annotations__ = {one.name: one.annotation for one in parameters}
        run.former = former_names(kind) if kind else {}  # type: ignore[attr-defined]
        del run.__wrapped__
        return run

    return decorate


def _of_fields(kind: Any, without: Collection[str], command: str) -> list[tuple[Field[Any], Parameter]]:
    """The options of a configuration's fields; fields of the class itself come before inherited ones."""
    annotations = typing.get_type_hints(kind)
    inherited = {name for base in kind.__mro__[1:] for name in getattr(base, "__dataclass_fields__", ())}
    return [
        (field, _parameter(kind, field, annotations[field.name], command))
        for field in sorted(fields(kind), key=lambda field: field.name in inherited and field.default is not MISSING)
        if field.metadata.get("help") and field.name not in without
    ]


def _ordered(own: list[Parameter], made: Iterable[tuple[Field[Any], Parameter]]) -> list[Parameter]:
    """The parameters in order: arguments, required options, leading fields, own options, other fields, common ones."""

    def place(parameter: Parameter, field: Field[Any] | None) -> int:
        information = typing.get_args(parameter.annotation)[1]
        if isinstance(information, typer.models.ArgumentInfo):
            return 0
        if parameter.default is Parameter.empty:
            return 1
        if field is None:
            return 3
        if field.metadata["panel"] == COMMON:
            return 5
        return 2 if field.metadata["leading"] else 4

    placed = [(place(parameter, field), parameter) for field, parameter in made]
    placed += [(place(parameter, None), parameter) for parameter in own]
    return [parameter for _, parameter in sorted(placed, key=lambda pair: pair[0])]


def _parameter(kind: type, field: Field[Any], annotation: Any, command: str) -> Parameter:
    facts, default = field.metadata, field.default
    if isinstance(default, tuple):
        annotation, default = list[str], list(default)
        if not default:
            annotation, default = list[str] | None, None
    if facts["argument"]:
        words = facts["choices"] or facts["suggest"]
        information: Any = typer.Argument(
            metavar=facts["metavar"],
            help=facts["help"],
            show_default=False,
            show_envvar=False,
            autocompletion=(lambda: list(words)) if words else _COMPLETE.get(facts["complete"]),
        )
    else:
        information = option(
            facts["help"] + (_of_recipes(kind, field.name) if facts["recipe"] else ""),
            *_names(field, annotation),
            **_more(field, command),
        )
    empty = Parameter.empty if default is MISSING else default
    return Parameter(field.name, Parameter.KEYWORD_ONLY, default=empty, annotation=Annotated[annotation, information])


def _names(field: Field[Any], annotation: Any) -> tuple[str, ...]:
    name = spelling(field.name)
    if field.metadata["names"]:
        return tuple(field.metadata["names"])
    if annotation in (bool, bool | None):
        return (name,) if field.default is False else (f"{name}/--no-{name.removeprefix('--')}",)
    return (name,) if field.name.endswith("_") else ()


def _more(field: Field[Any], command: str) -> dict[str, Any]:
    facts = field.metadata
    more: dict[str, Any] = {
        "complete": _COMPLETE.get(facts["complete"]) or facts["choices"] or facts["suggest"],
        "show_default": field.default is not None,
        "rich_help_panel": facts["panel"],
    }
    if facts["min"] is not None:
        more["min"] = facts["min"]
    if field.name.endswith("_") or facts["former"]:
        names = [name for name in (field.name.rstrip("_"), facts["former"]) if name]
        variables = [f"FACEDAN_{command.upper()}_{name.upper()}" for name in names]
        more["envvar"] = variables if facts["former"] else variables[0]
    return more


def _of_recipes(kind: Any, name: str) -> str:
    """The value in each model's recipe; that of most models once, at the end."""
    values = {model: _plain(getattr(recipe, name)) for model, recipe in kind.RECIPES.items()}
    (usual, count), *others = Counter(values.values()).most_common()
    if not others:
        return f" Default: {usual}."
    named = [f"{model} {value}" for model, value in values.items() if value != usual or count == 1]
    return f" Default: {', '.join(named if count == 1 else [*named, f'others {usual}'])}."


def _plain(value: object) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _of_all(common: Collection[str], workspace: str) -> Iterable[Parameter]:
    defaults: dict[str, Any] = {"workspace": Path(workspace), "config": None}
    for name, annotation in _OF_ALL.items():
        if name in ("workspace", "config", *common):
            yield Parameter(name, Parameter.KEYWORD_ONLY, default=defaults.get(name, False), annotation=annotation)
