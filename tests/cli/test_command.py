"""Options are made from fields: what a field says is what the command line does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from facedan_cli.cli.command import FormerSpellings, command
from facedan_cli.cli.options import option
from facedan_cli.config.common import hashed_options
from facedan_cli.config.fields import check_choices, setting
from facedan_cli.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class Base:
    inherited: str = setting("last", "Comes after what the class itself adds.")


@dataclass(frozen=True, kw_only=True)
class Config(Base):
    data: str = setting(help="Positional.", argument=True)
    lambda_: float = setting(0.5, "A Python keyword.")
    far: tuple[str, ...] = setting(("0.1",), "May be repeated.", leading=True)
    mode: str = setting("a", "One of two.", choices=("a", "b"))
    flag: bool = setting(False, "Off unless given.")
    present: int = setting(1, "Had another name once.", former="past")
    hidden: int = 3


def run(*words: str, env: dict[str, str] | None = None) -> tuple[Config, str]:
    found: list[tuple[Config, str]] = []
    app = typer.Typer(context_settings={"auto_envvar_prefix": "FACEDAN"})

    @app.command(cls=FormerSpellings)
    @command(Config)
    def probe(
        context: typer.Context, settings: Config, own: Annotated[str, option("Of this command alone.")] = "none"
    ) -> None:
        found.append((settings, own))

    done = CliRunner().invoke(app, list(words), env=env)
    assert done.exit_code == 0, done.output
    return found[0] if found else (Config(data=""), done.output)


def test_values_reach_the_configuration_and_the_functions_own_parameter() -> None:
    settings, own = run("x", "--lambda", "2", "--far", "0.01", "--far", "0.001", "--flag", "--own", "mine")
    assert settings == Config(data="x", lambda_=2.0, far=("0.01", "0.001"), flag=True)
    assert own == "mine"


def test_defaults_are_those_of_the_fields() -> None:
    assert run("x") == (Config(data="x"), "none")


def test_a_keyword_has_the_variable_of_its_name_without_the_underscore() -> None:
    assert run("x", env={"FACEDAN_PROBE_LAMBDA": "7"})[0].lambda_ == 7


def test_order_in_the_help() -> None:
    _, shown = run("--help")
    places = [
        shown.index(name) for name in ("--far", "--own", "--lambda", "--mode", "--flag", "--inherited", "--quiet")
    ]
    assert places == sorted(places)
    assert "--hidden" not in shown


def test_a_value_that_is_no_choice_is_refused_by_the_options_name() -> None:
    check_choices(Config(data="x", mode="b"))
    with pytest.raises(UsageError, match="--mode"):
        check_choices(Config(data="x", mode="c"))


def test_a_former_name_goes_on_being_read_and_is_shown_nowhere() -> None:
    assert run("x", "--past", "5")[0].present == 5
    assert run("x", "--past=6")[0].present == 6
    assert run("x", "--present", "7")[0].present == 7
    assert run("x", env={"FACEDAN_PROBE_PAST": "8"})[0].present == 8
    assert run("x", env={"FACEDAN_PROBE_PAST": "8", "FACEDAN_PROBE_PRESENT": "9"})[0].present == 9
    assert "past" not in run("--help")[1]


def test_runs_and_checkpoints_keep_the_former_name() -> None:
    kept = hashed_options(Config(data="x", present=3))
    assert kept["past"] == 3
    assert "present" not in kept
