"""Options as fields of a command's configuration, with metadata beside type and default.

`cli.command` makes the command line from the fields.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import MISSING, field, fields
from typing import Any

from facedan_cli.config.models import LAYERS
from facedan_cli.errors import UsageError, did_you_mean

COMMON, OWN = "Common", "A network of your own"
"""Help panels of options that several commands have; `COMMON` comes last."""


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
    metavar: str | None = None,
) -> Any:
    """A field of a configuration that is an option of its command.

    Args:
        default: an option without one is required.
        help: one short imperative sentence, or a noun phrase.
        names: spellings of the option, if not `--field-name`.
        choices: the values that are allowed.
        suggest: values that the shell completes; others are allowed.
        complete: kind of names that the shell completes from the workspace: "dataset", "run" or "model" (runs and lbp).
        min: smallest value.
        panel: heading in the help.
        argument: whether it is positional.
        leading: whether it comes before the options of a single protocol or command.
        recipe: whether None takes the value of the model's recipe; the help names these values.
        former: the field's name in earlier versions: still read from the command line, files and the environment, and
            the name on disk in runs and checkpoints (`config.common.hashed_options`).
        metavar: placeholder of an argument's value in the help; by default its name.
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
        "metavar": metavar,
    }
    return field(default=default, metadata=facts)


def input_setting() -> Any:
    """--input."""
    what = "Input of a network that `facedan models` does not list, or of an ONNX file: 112x112, 112x96."
    return setting(None, what, panel=OWN)


def mean_setting() -> Any:
    """--mean."""
    return setting(
        None,
        "Mean of its input, one number or three, in 0-1 or 0-255. Default: 0.5, or what the ONNX file says.",
        panel=OWN,
    )


def std_setting() -> Any:
    """--std."""
    return setting(None, "Standard deviation of its input, likewise. Default: 0.5.", panel=OWN)


def channels_setting() -> Any:
    """--channels."""
    what = "Channel order that its code or its weights expect; auto: as the weights' format says, else rgb."
    return setting("auto", what, choices=("auto", "rgb", "bgr"), panel=OWN)


def layers_setting() -> Any:
    """--layers of a network without a row."""
    what = "Layers of it that adapt takes by default: dotted paths of modules. Default: the embedding."
    return setting(None, what, panel=OWN)


def seed_setting() -> Any:
    """The field of --seed."""
    return setting(0, "Seed of all random numbers.", min=0)


def workers_setting() -> Any:
    """The field of --workers."""
    return setting(0, "Threads that decode images; 0: one per core.", min=0, panel=COMMON)


def device_setting() -> Any:
    """The field of --device."""
    known = ("auto", "cpu", "cuda")
    return setting("auto", "Device: auto, cpu, cuda or cuda:N.", suggest=known, panel=COMMON)


def layer_setting() -> Any:
    """The field of --layer."""
    return setting(None, "Layer of the features. Default: the model's last.", suggest=LAYERS)


def flip_setting() -> Any:
    """The field of --flip."""
    return setting(False, "Add the features of the mirrored image.")


def strict_setting() -> Any:
    """--strict."""
    return setting(False, "Refuse faces that are not aligned as the network expects, instead of a warning.")


def check_choice(option: str, value: str, known: Iterable[str]) -> None:
    """Raise an error for an unknown value.

    Raises:
        UsageError: with the nearest known values.
    """
    if value not in known:
        raise UsageError(f"{option} does not know '{value}'", did_you_mean(value, known))


def check_choices(config: Any) -> None:
    """Raise an error for values that are not among the choices of their fields; None is allowed.

    Raises:
        UsageError: naming the first such option and the nearest known values.
    """
    for one in fields(config):
        value, known = getattr(config, one.name), one.metadata.get("choices")
        if known and value is not None:
            check_choice(spelling(one.name), value, known)


def former_names(kind: Any) -> dict[str, str]:
    """Field names of earlier versions and the present names that replace them."""
    return {one.metadata["former"]: one.name for one in fields(kind) if one.metadata.get("former")}


def spelling(name: str) -> str:
    """The option of a field: --min-face for min_face, --lambda for lambda_ (a Python keyword)."""
    return f"--{name.rstrip('_').replace('_', '-')}"
