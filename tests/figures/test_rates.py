from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from facedan_cli.figures import rates as plots
from facedan_cli.figures.rates import plot_cmc, plot_det, plot_roc, plot_scores
from facedan_cli.metrics.roc import Curve, roc_curve, verification_rate

pytestmark = pytest.mark.usefixtures("drawn_figures")


def curve(shift: float, genuine: int = 200, impostor: int = 5000) -> Curve:
    rng = np.random.default_rng(0)
    return roc_curve(rng.normal(shift, 1, genuine), rng.normal(0, 1, impostor))


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list:
    """The figures that were saved in the course of a test."""
    saved = []
    save = plots.save

    def keep(figure, *rest) -> None:
        saved.append(figure)
        save(figure, *rest)

    monkeypatch.setattr(plots, "save", keep)
    return saved


def test_a_panel_for_each_partition_and_a_curve_for_each_model(figures: list, tmp_path: Path) -> None:
    models = {"before": curve(1), "after": curve(2)}
    plot_roc({"Good": models, "Bad": models, "Ugly": {"after": models["after"]}}, tmp_path / "roc.png", fars=["0.01"])
    (figure,) = figures
    assert [axis.get_title() for axis in figure.axes] == ["Good", "Bad", "Ugly"]
    assert [len(axis.lines) for axis in figure.axes] == [3, 3, 2]  # one line marks the FAR
    assert [[text.get_text() for text in axis.texts] for axis in figure.axes] == [["before", "after"], [], []]
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


def test_det_is_one_minus_the_verification_rate_on_logarithmic_axes(figures: list, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    genuine, impostor = rng.normal(2, 1, 200), rng.normal(0, 1, 5000)
    plot_det({"": {"model": roc_curve(genuine, impostor)}}, tmp_path / "det.png", fars=["0.01"])
    (axis,) = figures[0].axes
    far, frr = axis.lines[1].get_data()
    assert (axis.get_xscale(), axis.get_yscale()) == ("log", "log")
    assert frr[far <= 0.01][-1] == 1 - verification_rate(genuine, impostor, "0.01").vr
    bottom = axis.get_ylim()[0]
    assert bottom <= frr[frr > bottom].min() < 10 * bottom


def test_det_of_a_model_without_errors_lies_below_the_axis(figures: list, tmp_path: Path) -> None:
    perfect = roc_curve(np.full(5, 2.0), np.linspace(0, 1, 900))
    plot_det({"": {"perfect": perfect, "real": curve(1)}, "alone": {"perfect": perfect}}, tmp_path / "det.png")
    both, alone = figures[0].axes
    assert both.lines[0].get_ydata().max() < both.get_ylim()[0]
    assert alone.lines[0].get_ydata().max() < alone.get_ylim()[0]
    assert [text.get_text() for text in figures[0].legends[0].get_texts()] == ["perfect", "real"]


def test_cmc_is_drawn_over_ranks_from_1(figures: list, tmp_path: Path) -> None:
    plot_cmc({name: {"model": [0.81, 0.9, 0.95]} for name in "abcde"}, tmp_path / "cmc.png")
    visible = [axis for axis in figures[0].axes if axis.get_visible()]
    assert [axis.get_title() for axis in visible] == list("abcde")
    rank, rate = visible[0].lines[0].get_data()
    assert (rank.tolist(), list(rate)) == ([1, 2, 3], [0.81, 0.9, 0.95])
    assert visible[0].get_xticks().tolist() == [1, 2, 3]
    assert visible[0].get_ylim()[0] == 0.8


def test_cmc_of_many_ranks_is_logarithmic(figures: list, tmp_path: Path) -> None:
    for last in (20, 21):
        plot_cmc({"": {"model": np.linspace(0.5, 1, last)}}, tmp_path / "cmc.png")
    assert [figure.axes[0].get_xscale() for figure in figures] == ["linear", "log"]
    assert [label.get_text() for label in figures[1].axes[0].get_xticklabels()] == ["1", "2", "5", "10", "20"]


def test_scores_are_drawn_as_densities_in_a_row_for_each_model(figures: list, tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    drawn = (rng.normal(1, 0.2, 300), np.append(rng.normal(0, 0.1, 5000), -np.inf))
    panels = {"Good": {"before": drawn, "a model with a name of two lines": drawn}, "Bad": {"before": drawn}}
    plot_scores(panels, tmp_path / "scores.png")
    first, _, below, empty = figures[0].axes
    assert [first.get_title(), first.get_ylabel()] == ["Good", "before"]
    assert below.get_ylabel() == "a model with a\nname of two lines"
    assert not empty.patches
    filled, _, impostors = (patch.get_data() for patch in first.patches)
    assert np.sum(filled.values * np.diff(filled.edges)) == pytest.approx(1)
    assert np.sum(impostors.values * np.diff(impostors.edges)) == pytest.approx(5000 / 5001)
    assert [text.get_text() for text in figures[0].legends[0].get_texts()] == ["genuine", "impostor"]


@pytest.mark.parametrize("scores", [[0.5, 0.5, 0.5], [np.inf, -np.inf]], ids=["equal", "infinite"])
def test_scores_without_a_spread_are_drawn(scores: list[float], figures: list, tmp_path: Path) -> None:
    plot_scores({"all": {"model": (scores, scores)}}, tmp_path / "scores.png")
    assert len(figures[0].axes[0].patches) == 3


def test_all_scores_of_a_model_share_their_axis_and_models_do_not(figures: list, tmp_path: Path) -> None:
    small, large = ([0.1, 0.2], [0.0, 0.1]), ([10.0, 20.0], [0.0, 10.0])
    plot_scores({"a": {"s": small, "l": large}, "b": {"s": ([0.9], [0.1]), "l": large}}, tmp_path / "scores.png")
    limits = [axis.get_xlim() for axis in figures[0].axes]
    assert limits[0] == limits[1]
    assert limits[2] == limits[3]
    assert limits[0][1] < 1 < limits[2][1]


@pytest.mark.parametrize(
    ("suffix", "begins", "dates"),
    [("png", b"\x89PNG", b"Software"), ("svg", b"<?xml", b"dc:date"), ("pdf", b"%PDF", b"CreationDate")],
)
def test_the_same_curves_give_the_same_bytes(suffix: str, begins: bytes, dates: bytes, tmp_path: Path) -> None:
    for name in ("one", "two"):
        plot_roc({"Good": {"model": curve(1)}}, tmp_path / f"{name}.{suffix}")
    content = (tmp_path / f"one.{suffix}").read_bytes()
    assert content.startswith(begins)
    assert content == (tmp_path / f"two.{suffix}").read_bytes()
    assert dates not in content
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"one.{suffix}", f"two.{suffix}"]


def test_a_failed_write_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "roc.png").mkdir()
    with pytest.raises(OSError, match=r"roc\.png"):
        plot_roc({"Good": {"model": curve(1)}}, tmp_path / "roc.png")
    assert [path.name for path in tmp_path.iterdir()] == ["roc.png"]


def test_matplotlib_is_loaded_only_to_draw_and_pyplot_never(tmp_path: Path) -> None:
    program = """
import sys
from pathlib import Path
from facedan_cli.figures.rates import plot_cmc
assert "matplotlib" not in sys.modules
plot_cmc({"": {"model": [0.5, 1.0]}}, Path(sys.argv[1]))
assert "matplotlib.pyplot" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program, tmp_path / "cmc.png"], check=True)
