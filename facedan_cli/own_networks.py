"""Users' networks, given as package.module:function, and the permission to run their code.

A checkpoint names the function of its network. A file that comes from elsewhere must not make facedan run code, so a
function is called only after the user has named it in a command on this machine, which is remembered.
"""

from __future__ import annotations

import importlib
import io
import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from facedan_cli.errors import FacedanError

_SHOWN = 500
"""Most characters that are shown of what the code of others printed."""

FILE = "networks.txt"
"""Functions that the user has named, a line each: the name, a tab, and where its package lies."""


def allow(name: str) -> None:
    """Remember that the user named a function.

    Raises:
        FacedanError: there is no such package, or this cannot be remembered.
    """
    if is_allowed(name):
        return
    path = _file()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(f"{name}\t{_origin(name)}\n")
    except OSError as error:
        raise FacedanError(
            f"{path} cannot be written: {error}", "set XDG_STATE_HOME to a directory of yours"
        ) from error


def is_allowed(name: str) -> bool:
    """Whether the user has allowed a function, and its package has not moved since."""
    try:
        lines = _file().read_text("utf-8").splitlines()
    except OSError:
        return False
    return f"{name}\t{_origin(name)}" in lines


def load_own(name: str) -> Callable[[], Any]:
    """The function of that name, from an installed package or the current directory.

    Raises:
        FacedanError: it is not there, or the user has not named it.
    """
    if not is_allowed(name):
        raise FacedanError(
            f"the network is the code of {name}, which you have not named on this machine",
            f"facedan models {name} allows it, if you trust that code",
        )
    module, _, attribute = name.partition(":")
    with others_code(f"{name} cannot be imported:", "mend the name, or that module"):
        found = getattr(importlib.import_module(module), attribute)
    if not callable(found):
        raise FacedanError(f"{name} is no function", "name a function without arguments that returns an nn.Module")
    function: Callable[[], Any] = found
    return function


@contextmanager
def others_code(what: str, fix: str) -> Iterator[None]:
    """Run the code of others: what it prints becomes a warning, and whatever it raises, or an exit, is an error.

    Raises:
        FacedanError: `what` with the exception, and `fix`.
    """
    printed = io.StringIO()
    try:
        with redirect_stdout(printed):  # stdout carries only the result
            yield
    except FacedanError:
        raise
    except (Exception, SystemExit) as error:
        raise FacedanError(f"{what} {type(error).__name__}: {error}", fix) from error
    finally:
        if text := printed.getvalue().strip():
            logging.getLogger("facedan").warning("the network's code printed: %s", text[-_SHOWN:])


def code_file(name: str) -> Path | None:
    """The file of a function's module; None without one."""
    module = sys.modules.get(name.partition(":")[0])
    file = getattr(module, "__file__", None)
    return Path(file) if file else None


def _origin(name: str) -> str:
    """The path of a function's top-level package; the current directory is searched last."""
    here = os.getcwd()
    if here not in sys.path and "" not in sys.path:
        sys.path.append(here)
    package = name.partition(":")[0].partition(".")[0]
    spec = find_spec(package)
    if spec is None:
        raise FacedanError(f"there is no package '{package}'", "install it, or run facedan where it lies")
    return spec.origin or str(next(iter(spec.submodule_search_locations or ()), ""))


def _file() -> Path:
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "facedan" / FILE
