from __future__ import annotations

from pathlib import Path

import pytest
from tiny import draw
from typer.main import get_command

from facedan_cli.cli.app import app
from facedan_cli.cli.demo import _run
from facedan_cli.errors import FacedanError


def test_the_demo_runs_facedans_own_commands_and_takes_what_they_print(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    draw(tmp_path / "raw" / "0.png", 0, 0)
    context = get_command(app).make_context("facedan", ["demo"])
    out = _run(context, ["align", str(tmp_path / "raw"), str(tmp_path / "out"), "--no-align", "--size", "72"])
    assert out == str(tmp_path / "out")
    said = capsys.readouterr()
    assert said.out == ""
    assert f"$ facedan align {tmp_path}" in said.err


def test_what_a_command_of_the_demo_raises_ends_it(tmp_path: Path) -> None:
    context = get_command(app).make_context("facedan", ["demo"])
    with pytest.raises(FacedanError, match="does not exist"):
        _run(context, ["align", str(tmp_path / "gone"), str(tmp_path / "out")])
