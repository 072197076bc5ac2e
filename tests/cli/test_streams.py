"""What is said, however the streams are: closed, left by their readers, full, or of another alphabet."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny import draw

import facedan_cli
from facedan_cli.cli.app import explain
from facedan_cli.cli.console import Console
from facedan_cli.cli.streams import json_line, visible
from facedan_cli.errors import FacedanError

ENVIRONMENT = {
    **{key: value for key, value in os.environ.items() if not key.startswith(("FACEDAN_", "PYTHON", "LC_", "LANG"))},
    "OMP_NUM_THREADS": "1",
    "PYTHONPATH": str(Path(facedan_cli.__file__).parents[1]),
}
FACEDAN = [sys.executable, "-m", "facedan_cli"]
ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
LATIN = {"PYTHONIOENCODING": "latin-1"}
OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")


SAY = r"""
import os, sys
from pathlib import Path
from facedan_cli.cli import streams
from facedan_cli.cli.app import explain
from facedan_cli.cli.console import Console
streams.use_utf8()
streams.prepare()
console = Console(verbose=True)
for line in sys.stdin:
    console.detail(line.rstrip())
open(os.environ["OPENED"], "w").write("kept")
console.result("\u03bb = 0")
console.json({"\u00e9": "\u03bb"})
console.path(Path("caf\u00e9"))
"""


def say(tmp_path: Path, redirected: str = "", **more: str) -> subprocess.CompletedProcess[bytes]:
    """A program that says something, and writes a file, with its streams as the shell has redirected them."""
    environment = {**ENVIRONMENT, "OPENED": str(tmp_path / "opened"), **more}
    command = ["bash", "-c", f'"$@" {redirected}', "bash", sys.executable, "-c", SAY]
    done = subprocess.run(  # the program itself is ASCII
        command, env=environment, input="é: λ\n".encode() * 1000, capture_output=True, check=False, timeout=60
    )
    assert (tmp_path / "opened").read_text(encoding="ascii") == "kept"
    return done


@pytest.mark.parametrize("environment", [ASCII, LATIN, {"PYTHONIOENCODING": "ascii"}], ids=str)
def test_every_alphabet_has_the_result(tmp_path: Path, environment: dict[str, str]) -> None:
    done = say(tmp_path, **environment)
    assert done.returncode == 0, done.stderr
    text, line, path = done.stdout.splitlines()
    assert text == b"\\u03bb = 0"
    assert json.loads(line) == {"é": "λ"}
    assert path == "café".encode()
    assert len(done.stderr.splitlines()) == 1000


def test_a_command_in_an_ascii_locale_finds_its_files(tmp_path: Path) -> None:
    for image in range(2):
        draw(tmp_path / "gâté" / f"é{image}.png", 0, image)
    listed = "".join(f"gâté/é{image}.png\n" for image in range(2)).encode()
    command = [*FACEDAN, "embed", "-", "--model", "lbp", "-q", "--json"]
    environment = {**ENVIRONMENT, **ASCII}
    done = subprocess.run(command, cwd=tmp_path, env=environment, input=listed, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert [json.loads(line)["path"] for line in done.stdout.splitlines()] == ["gâté/é0.png", "gâté/é1.png"]


def test_help_is_shown_in_an_ascii_locale() -> None:
    done = subprocess.run([*FACEDAN, "adapt", "--help"], env={**ENVIRONMENT, **ASCII}, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert b"--lambda" in done.stdout


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-", "2>/dev/full", "2> >(exec <&-)"])
def test_streams_that_are_closed_or_left_cost_nothing(tmp_path: Path, closed: str) -> None:
    done = say(tmp_path, closed)
    assert done.returncode == 0, done.stderr
    assert b"Traceback" not in done.stderr
    assert done.stdout.endswith("café\n".encode()) == (">&-" not in closed.replace("2>&-", ""))


def test_a_result_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    done = say(tmp_path, ">/dev/full")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == b"OSError: [Errno 28] No space left on device"


def test_nothing_that_a_terminal_obeys_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    name = "a\x1b]0;title\x07\r\x9b31m\u202eb"
    console = Console(verbose=True)
    for say in (console.note, console.warn, console.detail, console.result):
        say(name)
    console.error(FacedanError(name, name))
    console.json({name: name})
    with console.progress(f"[/red]{name}", 1) as advance:
        advance(1, name)
    out, err = capsys.readouterr()
    assert not OBEYED.search(out + err)
    assert "\u202e" not in out + err
    assert err.startswith("a\\x1b]0;title\\x07\\r\\x9b31m\\u202eb\n")
    assert json.loads(out.splitlines()[1]) == {name: name}


def test_a_bar_shows_a_name_as_it_is(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "120")
    with Console().progress("reading [/b]\x1b[2J", 2) as advance:
        advance(1, "of [/red]\x1bc")
    err = capsys.readouterr().err
    assert "reading [/b]\\x1b[2J" in err
    assert "of [/red]\\x1bc" in err
    assert "\x1b[2J" not in err


@given(st.text(st.characters(codec=None)))
def test_whatever_the_text(text: str) -> None:
    assert not OBEYED.search(visible(text))
    for ascii_only in (False, True):
        line = json_line(text, ascii_only=ascii_only)
        assert json.loads(line) == text
        assert not OBEYED.search(line)
        assert "\n" not in line
        line.encode("ascii" if ascii_only else "utf-8")


def test_a_path_is_its_own_bytes_in_a_pipe_and_visible_on_a_terminal(tmp_path: Path) -> None:
    name = b"caf\xe9\x1b[31m"
    script = "import os; from pathlib import Path; from facedan_cli.cli import streams; streams.prepare(); "
    script += f"from facedan_cli.cli.console import Console; Console().path(Path(os.fsdecode({name!r})))"
    command = [sys.executable, "-c", script]
    environment = {**ENVIRONMENT, **LATIN}
    done = subprocess.run(command, env=environment, capture_output=True, check=True)
    assert done.stdout == name + b"\n"
    leader, follower = pty.openpty()
    subprocess.run(command, env=environment, stdout=follower, check=True)
    assert os.read(leader, 1000) == b"caf\xe9\\x1b[31m\r\n"
    os.close(leader)
    os.close(follower)


def test_nesting_that_no_reader_expected_is_explained() -> None:
    with pytest.raises(RecursionError) as deep:
        json.loads("[" * 100_000)
    explained = explain(deep.value)
    assert explained.what == "a file that was read is nested too deeply"
    assert explained.fix
