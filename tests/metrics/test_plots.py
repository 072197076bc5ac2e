from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from facedan_cli.metrics import plots
from facedan_cli.metrics.plots import plot_cmc, plot_roc
from facedan_cli.metrics.roc import Curve, roc_curve


def curve(shift: float, genuine: int = 200, impostor: int = 5000) -> Curve:
    rng = np.random.default_rng(0)
    return roc_curve(rng.normal(shift, 1, genuine), rng.normal(0, 1, impostor))


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list:
    """The figures that were saved in the course of a test."""
    saved = []
    save = plots._save

    def keep(figure, *rest) -> None:
        saved.append(figure)
        save(figure, *rest)

    monkeypatch.setattr(plots, "_save", keep)
    return saved


def test_a_panel_for_each_partition_and_a_curve_for_each_model(figures: list, tmp_path: Path) -> None:
    models = {"before": curve(1), "after": curve(2)}
    plot_roc({"Good": models, "Bad": models, "Ugly": {"after": models["after"]}}, tmp_path / "roc.png", fars=["0.01"])
    (figure,) = figures
    assert [axis.get_title() for axis in figure.axes] == ["Good", "Bad", "Ugly"]
    assert [len(axis.lines) for axis in figure.axes] == [3, 3, 2]  # one line marks the FAR
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["before", "after"]
    # A model looks the same in every panel, also where another is absent.
    good, ugly = figure.axes[0].lines[2], figure.axes[2].lines[1]
    assert (good.get_color(), good.is_dashed()) == (ugly.get_color(), ugly.is_dashed())
    assert good.get_color() != figure.axes[0].lines[1].get_color()


def test_the_far_axis_is_logarithmic_and_ends_where_the_comparisons_do(figures: list, tmp_path: Path) -> None:
    plot_roc({"": {"few": curve(1, impostor=900)}}, tmp_path / "few.png")
    plot_roc({"": {"many": curve(1, impostor=200_000)}}, tmp_path / "many.png")
    plot_roc({"": {"many": curve(1, impostor=200_000)}}, tmp_path / "many.png", fars=["0.00001"])
    plot_roc({"": {"one": curve(1, impostor=1)}}, tmp_path / "one.png")
    limits = [figure.axes[0].get_xlim() for figure in figures]
    assert limits == [pytest.approx((left, 1)) for left in (1e-3, 1e-4, 1e-5, 1e-1)]
    assert {figure.axes[0].get_xscale() for figure in figures} == {"log"}


def test_a_curve_begins_at_one_false_accept(figures: list, tmp_path: Path) -> None:
    drawn = curve(1, impostor=900)
    plot_roc({"": {"model": drawn}}, tmp_path / "roc.png")
    far, vr = figures[0].axes[0].lines[0].get_data()
    assert far[0] == 1 / 900
    assert vr[0] == drawn.vr[drawn.far <= 1 / 900][-1]
    assert (np.diff(far) > 0).all()


def test_many_models_all_look_different() -> None:
    styles = plots._styles({"": dict.fromkeys(range(42))})
    assert len({(style["color"], style["linestyle"]) for style in styles.values()}) == 42


def test_cmc_is_drawn_over_ranks_from_1(figures: list, tmp_path: Path) -> None:
    plot_cmc({name: {"model": [0.81, 0.9, 0.95]} for name in "abcde"}, tmp_path / "cmc.png")
    visible = [axis for axis in figures[0].axes if axis.get_visible()]
    assert [axis.get_title() for axis in visible] == list("abcde")
    rank, rate = visible[0].lines[0].get_data()
    assert (rank.tolist(), list(rate)) == ([1, 2, 3], [0.81, 0.9, 0.95])
    assert visible[0].get_xticks().tolist() == [1, 2, 3]
    assert visible[0].get_ylim()[0] == 0.8


def test_the_same_curves_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one.png", "two.png"):
        plot_roc({"Good": {"model": curve(1)}}, tmp_path / name)
    content = (tmp_path / "one.png").read_bytes()
    assert content.startswith(b"\x89PNG")
    assert content == (tmp_path / "two.png").read_bytes()
    assert b"Software" not in content
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.png", "two.png"]


def test_a_failed_write_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "roc.png").mkdir()
    with pytest.raises(OSError, match=r"roc\.png"):
        plot_roc({"Good": {"model": curve(1)}}, tmp_path / "roc.png")
    assert [path.name for path in tmp_path.iterdir()] == ["roc.png"]


def test_matplotlib_is_loaded_only_to_draw_and_pyplot_never(tmp_path: Path) -> None:
    program = """
import sys
from pathlib import Path
from facedan_cli.metrics.plots import plot_cmc
assert "matplotlib" not in sys.modules
plot_cmc({"": {"model": [0.5, 1.0]}}, Path(sys.argv[1]))
assert "matplotlib.pyplot" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program, tmp_path / "cmc.png"], check=True)
