"""The examples in docstrings give what they say."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

import facedan_cli

PACKAGE = Path(facedan_cli.__file__).parent
MODULES = [
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
    for path in sorted(PACKAGE.rglob("*.py"))
    if ">>>" in path.read_text(encoding="utf-8")
]


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings_give_what_they_say(name: str) -> None:
    ran = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    assert ran.attempted > 0
    assert ran.failed == 0


@pytest.mark.parametrize("module", ["adaptation.mmd", "adaptation.discrepancies", "adaptation.two_sample"])
def test_what_a_reader_would_try_has_an_example(module: str) -> None:
    assert f"facedan_cli.{module}" in MODULES
