"""Options that commands share, and the precedence of values: flag > environment > facedan.toml > built-in default."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from facedan_cli.cli.console import Console
from facedan_cli.config.fields import COMMON
from facedan_cli.config.models import LBP
from facedan_cli.errors import UsageError, did_you_mean
from facedan_cli.workspace import SETTINGS_FILE, Workspace, read_settings

SECTIONS = ("align", "pretrain", "adapt", "embed", "evaluate", "table", "export", "demo")

Config = TypeVar("Config")


def option(help: str, *names: str, complete: Iterable[str] | Callable[[], list[str]] = (), **more: Any) -> Any:
    """A Typer option without its environment variable in the help, since every option has one."""
    more.setdefault("show_envvar", False)
    if complete:
        more["autocompletion"] = complete if callable(complete) else lambda: list(complete)
    return typer.Option(*names, help=help, **more)


def of_others(kind: Any, used: Iterable[str]) -> set[str]:
    """The fields of a configuration but for those that are used."""
    return {field.name for field in fields(kind)} - set(used)


def refuse_typed(context: typer.Context, names: Container[str], by: str) -> None:
    """Raise an error for meaningless options on the command line; those in files or the environment are ignored.

    Args:
        context: of the command.
        names: names of the parameters.
        by: the option that leaves them without meaning.

    Raises:
        UsageError: naming the first.
    """
    for parameter in context.command.params:
        source = context.get_parameter_source(str(parameter.name))
        if parameter.name in names and source is not None and source.name == "COMMANDLINE":
            raise UsageError(f"{parameter.opts[0]} means nothing for {by}", f"leave {parameter.opts[0]} out")


def _read_workspace_settings(context: typer.Context, value: Path) -> Path:
    """Make the command's section of facedan.toml its defaults; runs before other options are read."""
    _take_defaults(context, SETTINGS_FILE, read_settings(value / SETTINGS_FILE), value / SETTINGS_FILE)
    return value


def _read_config_file(context: typer.Context, value: Path | None) -> Path | None:
    """Make the command's section of the --config file its defaults, which override facedan.toml."""
    if value is not None:
        if not value.is_file():
            raise UsageError(f"there is no file {value}", "give --config the config.toml of a run, or one like it")
        _take_defaults(context, "--config", read_settings(value), value)
    return value


def _take_defaults(context: typer.Context, origin: str, settings: Mapping[str, Any], path: Path) -> None:
    for name in settings:
        if name not in (*SECTIONS, "datasets"):
            hint = did_you_mean(name, (*SECTIONS, "datasets"), of="sections")
            raise UsageError(f"{path} has an unknown section [{name}]", hint)
    section = _section(context)
    values = settings.get(section, {})
    known = {_key(opt): param.name for param in context.command.params for opt in param.opts}
    known = {key: name for key, name in known.items() if key not in _NOT_SETTINGS and len(key) > 1}
    known |= getattr(context.command.callback, "former", {})
    siblings = _options_of_siblings(context)
    defaults: dict[str, Any] = {}
    for key, value in values.items():
        normal = key.replace("-", "_")
        if normal in known:
            defaults[str(known[normal])] = value
        elif normal not in siblings:
            raise UsageError(
                f"{path} has an unknown key '{key}' in [{section}]", did_you_mean(normal, known, of="keys")
            )
    # --config overrides facedan.toml, whichever option is read first.
    layers = context.meta.setdefault("facedan.settings", {})
    layers[origin] = defaults
    context.default_map = {**layers.get(SETTINGS_FILE, {}), **layers.get("--config", {})}


def _section(context: typer.Context) -> str:
    """The name of the command's section, "evaluate" for every protocol."""
    parent = context.parent
    protocol = parent is not None and parent.parent is not None
    return str(parent.info_name if parent is not None and protocol else context.info_name)


_NOT_SETTINGS = {"help", "workspace", "config", "json", "quiet", "verbose", "dry_run", "force"}


def _options_of_siblings(context: typer.Context) -> set[str]:
    """The options of the other protocols, since all share [evaluate]."""
    group = context.parent.command if context.parent else None
    commands = getattr(group, "commands", {}) if context.parent and context.parent.parent else {}
    names = (opt for command in commands.values() for param in command.params for opt in param.opts)
    return {_key(name) for name in names} - _NOT_SETTINGS


def _key(option: str) -> str:
    """The key of an option in a file: --min-face is min_face."""
    return option.lstrip("-").replace("-", "_")


WorkspaceOption = Annotated[
    Path,
    option(
        "Directory of data sets, runs and results.",
        "--workspace",
        "-w",
        envvar="FACEDAN_WORKSPACE",
        show_envvar=True,
        is_eager=True,
        callback=_read_workspace_settings,
        file_okay=True,
        rich_help_panel=COMMON,
    ),
]
ConfigOption = Annotated[
    Path | None,
    option(
        "TOML file of defaults that override facedan.toml, such as a run's config.toml.",
        "--config",
        is_eager=True,
        callback=_read_config_file,
        rich_help_panel=COMMON,
    ),
]


def console_of(context: typer.Context) -> Console:
    """The console with the command's --quiet and --verbose."""
    given = context.params
    return Console(
        as_json=given.get("as_json", False), quiet=given.get("quiet", False), verbose=given.get("verbose", False)
    )


def workspace_of(context: typer.Context) -> Workspace:
    """The workspace of the command's options."""
    return Workspace.open(context.params["workspace"])


def configured(kind: type[Config], context: typer.Context) -> Config:
    """The configuration of a command, with its options as fields."""
    values = {}
    for field in fields(kind):  # type: ignore[arg-type]
        if field.name in context.params:
            value = context.params[field.name]
            values[field.name] = tuple(value or field.default) if isinstance(field.default, tuple) else value
    return kind(**values)


def complete_datasets(context: typer.Context) -> list[str]:
    """Names of data sets, for the shell's completion."""
    return Workspace.open(Path(context.params.get("workspace") or ".")).dataset_names()


def complete_runs(context: typer.Context) -> list[str]:
    """Names of runs, for the shell's completion."""
    runs = Path(context.params.get("workspace") or ".") / "runs"
    return sorted(entry.name for entry in runs.iterdir()) if runs.is_dir() else []


def complete_models(context: typer.Context) -> list[str]:
    """Names of runs, and lbp, for the shell's completion."""
    return [*complete_runs(context), LBP]
