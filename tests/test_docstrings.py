"""Docstrings name the parameters that functions have."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import facedan_cli

PACKAGE = Path(facedan_cli.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))

_SECTION = re.compile(r"^Args:\n((?:    .*\n?|\n)+)", re.MULTILINE)
_NAME = re.compile(r"^    \*{0,2}(\w+):", re.MULTILINE)


def documented(docstring: str) -> set[str]:
    section = _SECTION.search(docstring)
    return set(_NAME.findall(section[1])) if section else set()


def parameters(function: ast.FunctionDef) -> Iterator[str]:
    given = function.args
    for one in (*given.posonlyargs, *given.args, given.vararg, *given.kwonlyargs, given.kwarg):
        if one is not None and one.arg not in ("self", "cls"):
            yield one.arg


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_arguments_in_docstrings_are_those_of_the_signature(module: Path) -> None:
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef) and (named := documented(ast.get_docstring(node) or "")):
            assert named == set(parameters(node)), f"{node.name}, line {node.lineno}"


def test_an_argument_that_is_gone_would_be_seen() -> None:
    assert documented("Do it.\n\nArgs:\n    one: a number,\n        two: no argument.\n    three: more.\n") == {
        "one",
        "three",
    }
