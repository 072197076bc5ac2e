from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from facedan_cli.figures.style import look, make_panels, name_curves, save, styles

pytestmark = pytest.mark.usefixtures("drawn_figures")

RANKS = np.arange(1, 11)


def drawn(curves: dict[str, np.ndarray]):
    """A figure of one panel with named curves, as the plots make it."""
    with look():
        figure, axes = make_panels({"all": None}, "x", "y")
        lines = {name: axes[0].plot(RANKS, rates, label=name)[0] for name, rates in curves.items()}
        axes[0].set(ylim=(0, 1))
        name_curves(figure, axes, lines)
        figure.draw_without_rendering()
    return figure


@pytest.mark.parametrize("named", [True, False])
def test_a_format_has_the_same_bytes_whatever_was_saved_before(tmp_path: Path, named: bool) -> None:
    curves = {"a": RANKS / 10, "b": RANKS / 30} if named else {"a": RANKS / 10}
    suffixes = ("png", "svg", "pdf")
    for several in (suffixes, suffixes[::-1], *((suffix,) for suffix in suffixes)):
        directory = tmp_path / "-".join(several)
        with look():
            save(drawn(curves), *(directory / f"figure.{suffix}" for suffix in several))
    for suffix in suffixes:
        files = list(tmp_path.glob(f"*/figure.{suffix}"))
        assert len(files) == 3
        assert len({file.read_bytes() for file in files}) == 1


def legend(figure) -> list[str]:
    return [text.get_text() for found in figure.legends for text in found.get_texts()]


def test_many_models_all_look_different() -> None:
    looks = styles({"": dict.fromkeys(map(str, range(42)))})
    assert len({(style["color"], style["linestyle"]) for style in looks.values()}) == 42


def test_names_stand_at_curves_that_leave_room() -> None:
    figure = drawn({"low": np.full(10, 0.2), "middle": np.full(10, 0.5), "high": np.full(10, 0.8)})
    (axis,) = figure.axes
    assert legend(figure) == []
    assert [text.get_text() for text in axis.texts] == ["low", "middle", "high"]
    boxes = [text.get_window_extent() for text in axis.texts]
    assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))
    for text, line, box in zip(axis.texts, axis.lines, boxes, strict=True):
        height = axis.transData.transform((1, line.get_ydata()[0]))[1]
        others = [axis.transData.transform((1, other.get_ydata()[0]))[1] for other in axis.lines if other is not line]
        assert text.get_color() == line.get_color()
        assert min(abs(box.y0 - height), abs(box.y1 - height)) < min(abs(box.y0 - other) for other in others)


@pytest.mark.parametrize(
    "curves",
    [
        {name: np.linspace(0.1, 0.9, 10) + 0.005 * place for place, name in enumerate(("one", "two", "three"))},
        {"a name that is far too long to stand inside of a panel " * 2: np.full(10, 0.5), "short": np.full(10, 0.2)},
        {"alone": np.full(10, 0.5)},
    ],
    ids=["close", "long", "alone"],
)
def test_else_a_legend_has_them(curves: dict[str, np.ndarray]) -> None:
    figure = drawn(curves)
    assert legend(figure) == list(curves)
    assert not figure.axes[0].texts


@pytest.mark.parametrize("apart", [0.3, 0.001], ids=["at the curve", "in the legend"])
def test_names_are_taken_literally(apart: float) -> None:
    figure = drawn({"$\\nonsense$": np.full(10, 0.5), "_hidden": np.full(10, 0.5 + apart)})
    texts = figure.axes[0].texts if apart == 0.3 else figure.legends[0].get_texts()
    assert [text.get_text() for text in texts] == ["\\$\\nonsense\\$", " _hidden"]
