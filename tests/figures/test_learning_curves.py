from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure

from facedan_cli.figures import learning_curves as module
from facedan_cli.figures.learning_curves import draw_curves, running_mean

pytestmark = pytest.mark.usefixtures("drawn_figures")


def entry(step: int, *, target: bool = True, **more: Any) -> dict[str, Any]:
    wave = float(np.sin(step))
    line = {"step": step, "lr": 1e-3 / step, "loss": 2 / step, "classification": 1 / step, "accuracy": 0.5 + wave / 2}
    line |= {"rank_fc6_source": 10 + wave, "rank_fc7_source": 12 + wave, "images_per_second": 100.0}
    if target:
        line |= {"rank_fc6_target": 8 + wave, "rank_fc7_target": 9 + wave, "mmd2_fc7": wave / 10, "lambda": 0.5}
    return line | more


def drawn(path: Path, entries: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, Any]]:
    """The lines of each panel by title and label, of an image that was really written."""
    log = path / "metrics.jsonl"
    log.write_text("".join(json.dumps(line) + "\n" for line in entries) + '{"step": 9', encoding="utf-8")
    figures: list[Figure] = []
    save = module.save
    monkeypatch.setattr(module, "save", lambda figure, path: (figures.append(figure), save(figure, path)))
    draw_curves(log, path / "learning-curves.png")
    pixels = cv2.imread(str(path / "learning-curves.png"))
    assert pixels is not None
    assert pixels.std() > 1
    axes = [axis for axis in figures[0].axes if axis.get_visible()]
    return {axis.get_title(): {str(line.get_label()): line for line in axis.lines} for axis in axes}


def test_an_adaptation_has_all_panels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entries = [{"step": 0, "two_sample": {}}, *(entry(step) for step in (20, 40, 60)), entry(80, held_aside_loss=0.75)]
    panels = drawn(tmp_path, entries, monkeypatch)
    assert list(panels) == [
        "Loss",
        "Accuracy on the batch",
        "Distance between the domains",
        "Effective rank of the features",
        "Learning rate",
        "λ",
    ]
    distance = panels["Distance between the domains"]["MMD² fc7"]
    np.testing.assert_allclose(distance.get_xdata(), [20, 40, 60, 80])
    np.testing.assert_allclose(distance.get_ydata(), np.sin([20, 40, 60, 80]) / 10)
    assert panels["Loss"].keys() == {"total", "classification", "held out"}
    assert list(panels["Loss"]["held out"].get_xdata()) == [80]
    assert list(panels["Loss"]["held out"].get_ydata()) == [0.75]
    ranks = panels["Effective rank of the features"]
    assert ranks["fc7 source"].get_color() == ranks["fc7 target"].get_color() == distance.get_color()
    assert ranks["fc7 source"].get_color() != ranks["fc6 source"].get_color()
    assert ranks["fc7 target"].get_linestyle() != ranks["fc7 source"].get_linestyle()


def test_a_pretraining_has_no_target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    panels = drawn(tmp_path, [entry(step, target=False) for step in (1, 2)], monkeypatch)
    assert list(panels) == ["Loss", "Accuracy on the batch", "Effective rank of the features", "Learning rate"]
    assert len(panels["Loss"]) == 1


def test_distances_keep_their_sign_and_show_where_0_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    panels = drawn(tmp_path, [entry(1, mmd2_fc7=-0.25), entry(2, mmd2_fc7=-0.5)], monkeypatch)
    lines = panels["Distance between the domains"].values()
    heights = [list(np.asarray(line.get_ydata(), float)) for line in lines]
    assert sorted(heights) == [[-0.25, -0.5], [0, 0]]


def test_one_entry_is_a_point_that_can_be_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    panels = drawn(tmp_path, [entry(5)], monkeypatch)
    assert all(line.get_marker() == "o" for line in panels["Loss"].values())


def test_gaps_and_what_is_no_number_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entries = [entry(1), {"step": 2, "loss": 7.0}, entry(3, accuracy=float("nan"), mmd2_fc7=float("inf")), entry(4)]
    panels = drawn(tmp_path, entries, monkeypatch)
    (accuracy,) = panels["Accuracy on the batch"].values()
    assert list(accuracy.get_xdata()) == [1, 4]
    assert list(panels["Distance between the domains"]["MMD² fc7"].get_xdata()) == [1, 4]


def test_through_many_values_goes_their_running_mean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    panels = drawn(tmp_path, [entry(step, target=False) for step in range(1, 301)], monkeypatch)
    pale, bold = panels["Accuracy on the batch"].values()
    accuracy = 0.5 + np.sin(np.arange(1, 301)) / 2
    np.testing.assert_allclose(pale.get_ydata(), accuracy)
    np.testing.assert_allclose(bold.get_ydata(), running_mean(accuracy, 5))
    assert len(panels["Learning rate"]) == 1


def test_without_a_step_there_is_nothing_to_draw(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 0, "two_sample": {}}\n', encoding="utf-8")
    with pytest.raises(ValueError, match=r"metrics\.jsonl has no entry of a step"):
        draw_curves(tmp_path / "metrics.jsonl", tmp_path / "curves.png")


@given(st.lists(st.floats(-100, 100), min_size=1, max_size=30), st.integers(0, 8))
def test_running_mean_is_the_mean_of_both_sides_alike(values: list[float], width: int) -> None:
    last = len(values) - 1
    expected = []
    for place in range(len(values)):
        reach = min(width, place, last - place)
        expected.append(np.mean(values[place - reach : place + reach + 1]))
    np.testing.assert_allclose(running_mean(np.array(values), width), expected, atol=1e-9)
