from __future__ import annotations

import io
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console as RichConsole

from facedan_cli.cli.console import Console
from facedan_cli.cli.live import TrainingView, sparkline

ENTRY: dict[str, Any] = {
    "lr": 1e-4,
    "loss": 1.5,
    "classification": 1.25,
    "accuracy": 0.75,
    "mmd2_fc6": 0.5,
    "mmd2_fc7": -0.0125,
    "gamma_fc6": 71.25,
    "gamma_fc7": 40.0,
    "lambda": 0.5,
    "images_per_second": 312.4,
}


def shown(view: TrainingView, width: int = 80, encoding: str = "utf-8") -> list[str]:
    """The view's lines as a terminal of that width has them."""
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="replace")
    console = RichConsole(file=file, width=width, force_terminal=True, color_system=None, legacy_windows=False)
    with console.capture() as capture:
        console.print(view)
    return capture.get().splitlines()


def followed(entry: dict[str, Any] = ENTRY, losses: tuple[float, ...] = (4.0, 2.0, 1.0)) -> TrainingView:
    view = TrainingView(20_000, 7_000)
    view.step({})
    for step, loss in enumerate(losses, 1):
        view.step({"step": 20 * step, **entry, "loss": loss})
    return view


def test_the_last_entry_and_how_it_came_to_that() -> None:
    bar, loss, accuracy, fc6, fc7, pace = shown(followed())
    assert bar.startswith("training ━")
    assert "7004/20000" in bar
    assert bar.rstrip().endswith("left")
    assert loss.split() == ["loss", "1.0000", "█▃▁"]
    assert accuracy.split() == ["accuracy", "0.7500", "▁▁▁"]
    assert fc6.split() == ["MMD²", "fc6", "0.5000", "▁▁▁", "γ", "71.25"]
    assert fc7.split() == ["MMD²", "fc7", "-0.0125", "▁▁▁", "γ", "40"]
    assert pace.split() == ["lr", "1.00e-04", "λ", "0.5", "312", "images/s"]


def test_an_entry_counts_once_however_many_steps_see_it() -> None:
    view = TrainingView(10, 0)
    entry = {"step": 1, **ENTRY}
    for _ in range(5):
        view.step(entry)
    bar, loss, *_ = shown(view)
    assert "5/10" in bar
    assert loss.split()[-1] == "▁"


def test_what_is_no_number_is_shown_and_not_drawn() -> None:
    _, loss, *_ = shown(followed(losses=(4.0, 2.0, float("nan"))))
    assert loss.split() == ["loss", "nan", "█▁"]


def test_before_the_first_entry_and_without_a_target_there_is_less() -> None:
    view = TrainingView(10, 0)
    view.step({})
    view.step({"step": 0, "two_sample": {"fc6": {"mmd2": 0.5}}})
    assert len(shown(view)) == 1
    view.step({"step": 1, "lr": 1e-3, "loss": 1.0, "accuracy": 0.5, "images_per_second": 10.0})
    assert [line.split()[0] for line in shown(view)] == ["training", "loss", "accuracy", "lr"]


@pytest.mark.parametrize("width", [30, 40, 80, 200])
def test_it_fits_the_terminal_and_ten_lines(width: int) -> None:
    layers = {f"coral_layer{index}": 1.0 for index in range(12)}
    lines = shown(followed(ENTRY | layers, losses=tuple(range(100))), width)
    assert len(lines) <= 10
    assert max(map(len, lines)) <= min(width, 80)


def test_layers_that_have_no_room_are_said_to_be_in_the_log() -> None:
    layers = {f"mmd2_layer{index}": 1.0 for index in range(9)}
    assert "and 4 more layers in the log" in shown(followed({"loss": 1.0, "lr": 1.0} | layers))[-1]


def test_a_joint_distance_has_no_layer() -> None:
    assert any(line.startswith("JMMD ") for line in shown(followed({"loss": 1.0, "jmmd": 0.5, "gamma_fc6": 1.0})))


def test_a_terminal_without_blocks_gets_none() -> None:
    assert not set("▁▂▃▄▅▆▇█") & set("".join(shown(followed(), encoding="ascii")))


def test_on_a_terminal_nothing_stays_behind(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"FORCE_COLOR": "1", "TERM": "xterm-256color", "COLUMNS": "80"}.items():
        monkeypatch.setenv(name, value)
    with Console().training(4, 1) as follow:
        follow({"step": 20, **ENTRY})
    out, err = capsys.readouterr()
    assert out == ""
    assert "MMD² fc6" in err
    drawn, after = err.split("\x1b[?25h")  # the cursor is shown again when the view ends
    lines = drawn.rsplit("training", 1)[1].count("\n")
    assert after.count("\x1b[1A\x1b[2K") == lines
    assert after.strip("\n\r\x1b[12AK") == ""


def test_quiet_draws_nothing(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    with Console(quiet=True).training(4) as follow:
        follow({"step": 20, **ENTRY})
    assert capsys.readouterr() == ("", "")


@given(st.lists(st.floats(-1e6, 1e6), max_size=200), st.integers(0, 40))
def test_a_sparkline_is_as_long_as_what_there_is_to_show(values: list[float], cells: int) -> None:
    line = sparkline(values, cells)
    assert len(line) == min(len(values), cells)
    if 0 < len(values) <= cells and max(values) > min(values):
        assert line[values.index(min(values))] == "▁"
        assert line[values.index(max(values))] == "█"


def test_a_sparkline_averages_what_falls_into_a_cell() -> None:
    assert sparkline([0, 2, 8, 6], 2) == "▁█"
    assert sparkline([0, 10, 4, 6, 0, 10], 3) == "▁▁▁"
    assert sparkline(range(8), 8) == "▁▂▃▄▅▆▇█"
