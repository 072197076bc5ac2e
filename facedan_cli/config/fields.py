"""An option is a field of a command's configuration: type and default as of any field, the rest in its metadata.

`cli.options` makes the command line of them, so that nothing of an option stands twice.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import MISSING, field, fields
from typing import Any

from facedan_cli.config.models import LAYERS
from facedan_cli.errors import UsageError, did_you_mean

COMMON = "Common"
"""The panel of what many commands have; it comes last."""


def setting(
    default: Any = MISSING,
    help: str = "",
    *names: str,
    choices: Iterable[str] = (),
    suggest: Iterable[str] = (),
    complete: str = "",
    min: int | None = None,
    panel: str | None = None,
    argument: bool = False,
    leading: bool = False,
    recipe: bool = False,
    former: str = "",
) -> Any:
    """A field of a configuration that is an option of its command.

    Args:
        default: without one the option is required.
        help: one short sentence.
        names: spellings, where `--field-name` is not meant.
        choices: the only values.
        suggest: values that a shell's completion offers; others are taken too.
        complete: what a shell looks up: "dataset", "run" or "model" (runs, and lbp).
        min: smallest value.
        panel: heading of the option in the help.
        argument: it is positional.
        leading: it comes before the options that only one protocol or command has.
        recipe: where it is None the model's recipe says it; the help names each model's value.
        former: the field's name in earlier versions. It goes on being read where people or files say it, and is the
            name under which runs and checkpoints keep the value (`config.common.hashed_options`).
    """
    facts = {
        "help": help,
        "names": names,
        "choices": tuple(choices),
        "suggest": tuple(suggest),
        "complete": complete,
        "min": min,
        "panel": panel,
        "argument": argument,
        "leading": leading,
        "recipe": recipe,
        "former": former,
    }
    return field(default=default, metadata=facts)


def seed_setting() -> Any:
    """The seed."""
    return setting(0, "Seed of everything random.", min=0)


def workers_setting() -> Any:
    """How many threads decode images."""
    return setting(0, "Threads that decode images; 0: one a processor.", min=0, panel=COMMON)


def device_setting() -> Any:
    """Where a command computes."""
    known = ("auto", "cpu", "cuda")
    return setting("auto", "Where to compute: auto, cpu, cuda or cuda:N.", suggest=known, panel=COMMON)


def layer_setting() -> Any:
    """Whose features are given."""
    return setting(None, "Layer whose features are given. Default: the model's last.", suggest=LAYERS)


def flip_setting() -> Any:
    """Whether the features of the mirrored face are added."""
    return setting(False, "Add the features of the mirrored face.")


def check_choice(option: str, value: str, known: Iterable[str]) -> None:
    """Refuse a value that is not among the known ones.

    Raises:
        UsageError: with the nearest known values.
    """
    if value not in known:
        raise UsageError(f"{option} does not know '{value}'", did_you_mean(value, known))


def check_choices(config: Any) -> None:
    """Refuse values that are not among the choices of their fields; None, which is not set, may stand.

    Raises:
        UsageError: naming the first such option, with the nearest known values.
    """
    for one in fields(config):
        value, known = getattr(config, one.name), one.metadata.get("choices")
        if known and value is not None:
            check_choice(spelling(one.name), value, known)


def former_names(kind: Any) -> dict[str, str]:
    """Names that fields of a configuration had in earlier versions, with those that they have now."""
    return {one.metadata["former"]: one.name for one in fields(kind) if one.metadata.get("former")}


def spelling(name: str) -> str:
    """A field as an option is written: min_face is --min-face, and lambda_ (a Python keyword) --lambda."""
    return f"--{name.rstrip('_').replace('_', '-')}"
