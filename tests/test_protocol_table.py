"""The table of protocols: each row is a whole protocol."""

from __future__ import annotations

import inspect
from dataclasses import fields

import pytest

from facedan_cli.config.common import EvaluateConfig
from facedan_cli.config.models import imported
from facedan_cli.config.protocols import PROTOCOLS, is_dataset
from facedan_cli.config.table import TABLE_INPUTS, TABLE_PROTOCOLS, table_option


@pytest.mark.parametrize("name", PROTOCOLS)
def test_a_row_fits_its_functions(name: str) -> None:
    entry = PROTOCOLS[name]
    inputs = {one.name for one in fields(entry.inputs)}
    parameters = inspect.signature(imported(entry.evaluate)).parameters
    assert {"config", "workspace", "report", *inputs} <= parameters.keys()
    assert set(entry.idle) <= {one.name for one in fields(EvaluateConfig)}
    assert "Example: facedan evaluate " + name in (entry.inputs.__doc__ or "")
    if entry.reader:
        of_lists = [one.name for one in fields(entry.inputs) if not is_dataset(one)]
        inspect.signature(imported(entry.reader)).bind(*of_lists)
    if entry.reported:
        inspect.signature(imported(entry.reported)).bind("lists")


def test_table_has_each_input_of_its_protocols_once() -> None:
    wanted = {table_option(name, one) for name in TABLE_PROTOCOLS for one in fields(PROTOCOLS[name].inputs)}
    assert [one.name for one in fields(TABLE_INPUTS)] == sorted(wanted, key=[*TABLE_INPUTS.__annotations__].index)
