from __future__ import annotations

import json
import os
import re
from types import SimpleNamespace

import pytest

from facedan_cli.cli import console as module
from facedan_cli.cli.console import Console, table
from facedan_cli.errors import FacedanError

COLOUR = re.compile(r"\x1b\[[0-9;]*3[0-9]")


def speak(console: Console) -> None:
    console.note("a note of [red]brackets[/red]")
    console.warn("a warning of [red]brackets[/red]")
    console.detail("a detail")
    console.error(FacedanError("it broke [red]", "mend it"))
    console.result("a result")


def test_results_go_to_stdout_and_all_else_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    speak(Console())
    out, err = capsys.readouterr()
    assert out == "a result\n"
    assert err.splitlines() == [
        "a note of [red]brackets[/red]",
        "Warning: a warning of [red]brackets[/red]",
        "Error: it broke [red]",
        "Fix: mend it",
    ]


def test_quiet_silences_notes_and_progress_but_not_warnings(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LINE_EVERY_SECONDS", 0.0)
    console = Console(quiet=True)
    speak(console)
    with console.progress("reading", 2) as advance:
        advance(2, "")
    out, err = capsys.readouterr()
    assert out == "a result\n"
    assert err.startswith("Warning: a warning")
    assert "note" not in err
    assert "reading" not in err


def test_verbose_adds_details(capsys: pytest.CaptureFixture[str]) -> None:
    speak(Console(verbose=True))
    assert "a detail\n" in capsys.readouterr().err


def test_a_long_message_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    text = "word " * 100 + "end"
    Console().warn(text)
    assert capsys.readouterr().err == f"Warning: {text}\n"


def test_no_color_is_respected_and_files_get_none(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    speak(Console())
    assert "\x1b" not in capsys.readouterr().err
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    speak(Console())
    assert COLOUR.search(capsys.readouterr().err)
    monkeypatch.setenv("NO_COLOR", "1")
    speak(Console())
    assert not COLOUR.search(capsys.readouterr().err)


def test_json_is_one_line_and_keeps_letters(capsys: pytest.CaptureFixture[str]) -> None:
    value = {"name": "λ = 0", "vr": {"0.001": 0.5}, "none": None}
    Console(as_json=True).json(value)
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    assert "λ" in out
    assert json.loads(out) == value


def test_a_name_that_is_not_utf8_is_still_json(capsys: pytest.CaptureFixture[str]) -> None:
    name = os.fsdecode(b"caf\xe9.jpg")
    Console(as_json=True).json({"path": name})
    assert json.loads(capsys.readouterr().out) == {"path": name}


def test_off_a_terminal_progress_is_a_line_now_and_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = iter(range(0, 1000, 25))
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: float(next(now))))
    with Console().progress("training", 100, done=40, unit="steps") as advance:
        for _ in range(6):
            advance(10, "loss 1.0")
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "training: 70 of 100, 1 min left, 0.4 steps/s  loss 1.0",
        "training: 100 of 100, 0 min left, 0.4 steps/s  loss 1.0",
    ]


def test_off_a_terminal_a_training_is_a_line_now_and_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = iter(range(0, 1000, 70))
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: float(next(now))))
    entry = {"step": 1, "classification": 0.5, "mmd2_fc6": 0.25, "jmmd": 0.125, "images_per_second": 99.6}
    with Console().training(10, 8) as follow:
        follow({"step": 0, "two_sample": {}})
        follow(entry)
    assert capsys.readouterr().err.splitlines() == [
        "training: 9 of 10, 1 min left, 0.0143 steps/s",
        "training: 10 of 10, 0 min left, 0.0143 steps/s  loss 0.500  MMD² fc6 0.2500  JMMD 0.1250  100 images/s",
    ]


def test_on_a_dumb_terminal_too(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setattr(module, "LINE_EVERY_SECONDS", 0.0)
    with Console().training(2) as follow:
        follow({})
    assert capsys.readouterr().err.startswith("training: 1 of 2, ")


def test_on_a_terminal_progress_is_a_bar(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "120")
    with Console().progress("training", 4, done=1) as advance:
        advance(2, "loss 1.0")
    err = capsys.readouterr().err
    assert "training" in err
    assert "3/4" in err
    assert "loss 1.0" in err


def test_a_table_is_aligned_text() -> None:
    assert table(["model", "VR"], [["source only", "9.00"], ["λ = 0", "10.00"]]) == (
        "model           VR\n"
        "source only   9.00\n"
        "λ = 0        10.00"
    )  # fmt: skip
