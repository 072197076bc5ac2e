"""ROC and CMC figures: a panel for each partition, a curve for each model, readable in grey and to the colour-blind."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from facedan_cli.metrics.roc import Curve, parse_far
from facedan_cli.workspace import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

Array = NDArray[Any]

# Okabe and Ito's palette without its yellow, which vanishes on white. Dashes tell the curves apart in a grey print;
# their number differs from that of the colours, so that no pair of both comes again before 42 models.
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#000000", "#CC79A7", "#E69F00", "#56B4E9")
_DASHES: tuple[Any, ...] = (
    "-",
    (0, (6, 1.5)),
    (0, (6, 1.5, 1.2, 1.5)),
    (0, (1.2, 1.2)),
    (0, (10, 1.5, 1.2, 1.5, 1.2, 1.5)),
    (0, (3, 1)),
)
_LOOK = {
    "font.size": 8.5,
    "axes.titlesize": 9.5,
    "axes.linewidth": 0.6,
    "axes.edgecolor": "#444444",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#E4E4E4",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "lines.linewidth": 1.5,
    "xtick.color": "#444444",
    "ytick.color": "#444444",
    "xtick.labelcolor": "black",
    "ytick.labelcolor": "black",
    "legend.frameon": False,
    "legend.handlelength": 3.2,
}
# Width and height in inches.
_PANEL_SIZE = (2.6, 2.7)
_SINGLE_SIZE = (4.0, 3.4)
_COLUMNS = 4


def plot_roc(panels: Mapping[str, Mapping[str, Curve]], path: Path, *, fars: Sequence[str] = ()) -> None:
    """Draw ROC curves, verification rate over false-accept rate on a logarithmic axis (the paper's Fig. 3).

    The axis begins at 1e-4, or lower where one of `fars` asks for it, but not below what the comparisons resolve. A
    curve begins at the FAR of one false accept.

    Args:
        panels: for each partition, its curves by the name of the model.
        path: the PNG file to write.
        fars: false-accept rates to mark by a thin line, such as those that a table beside the figure reports.

    Raises:
        ValueError: there is no curve.
    """
    marks = [float(parse_far(far)) for far in fars]
    most = max(curve.impostor for models in panels.values() for curve in models.values())
    asked = math.floor(math.log10(min([1e-4, *marks])))
    resolved = -math.ceil(math.log10(most))
    left = 10.0 ** min(max(asked, resolved), -1)
    styles = _styles(panels)
    with _look():
        figure, axes = _panels(panels, "False accept rate", "Verification rate")
        lines = {}
        for axis, models in zip(axes, panels.values(), strict=True):
            for mark in marks:
                axis.axvline(mark, color="#999999", linewidth=0.7)
            for name, curve in models.items():
                (lines[name],) = axis.plot(*_resolved(curve), drawstyle="steps-post", **styles[name])
            axis.set(xscale="log", xlim=(left, 1), ylim=(-0.01, 1.01))
            axis.grid(visible=False, which="minor")
        _save(figure, lines, path)


def plot_cmc(panels: Mapping[str, Mapping[str, ArrayLike]], path: Path) -> None:
    """Draw cumulative match characteristics, identification rate over rank.

    Args:
        panels: for each probe set, the values of `identification.cmc` by the name of the model.
        path: the PNG file to write.

    Raises:
        ValueError: there is no curve.
    """
    from matplotlib.ticker import MaxNLocator

    lowest = min(float(np.min(rates)) for models in panels.values() for rates in models.values())
    bottom = min(math.floor(lowest * 10) / 10, 0.9)
    styles = _styles(panels)
    with _look():
        figure, axes = _panels(panels, "Rank", "Identification rate")
        lines = {}
        for axis, models in zip(axes, panels.values(), strict=True):
            for name, rates in models.items():
                rank = np.arange(1, np.size(rates) + 1)
                (lines[name],) = axis.plot(rank, rates, marker="o", markersize=2.5, **styles[name])
            axis.set(ylim=(bottom, 1 + 0.01 * (1 - bottom)))
            ticks = MaxNLocator(5, integer=True).tick_values(0, max(np.size(rates) for rates in models.values()))
            axis.set_xticks(np.unique(np.maximum(ticks, 1)))
        _save(figure, lines, path)


def _look() -> AbstractContextManager[None]:
    """The figure's own look, whatever the user's matplotlibrc says."""
    from matplotlib import style

    return style.context(["default", _LOOK])


def _styles(panels: Mapping[str, Mapping[str, object]]) -> dict[str, dict[str, Any]]:
    """Colour and dashes of each model, the same in all panels."""
    names = dict.fromkeys(name for models in panels.values() for name in models)
    return {
        name: {"color": color, "linestyle": dashes}
        for name, color, dashes in zip(names, itertools.cycle(_COLORS), itertools.cycle(_DASHES), strict=False)
    }


def _panels(panels: Mapping[str, object], x_label: str, y_label: str) -> tuple[Figure, list[Axes]]:
    from matplotlib.figure import Figure

    columns = min(len(panels), _COLUMNS)
    rows = math.ceil(len(panels) / columns)
    width, height = _PANEL_SIZE if len(panels) > 1 else _SINGLE_SIZE
    figure = Figure(figsize=(width * columns, height * rows))
    figure.set_layout_engine("constrained", w_pad=0.08)
    axes = figure.subplots(rows, columns, sharey=True, squeeze=False)
    for row in axes:
        row[0].set_ylabel(y_label)
    for axis, title in itertools.zip_longest(axes.flat, panels):
        if title is None:
            axis.set_visible(False)
        else:
            axis.set(title=title, xlabel=x_label)
    return figure, list(axes.flat[: len(panels)])


def _resolved(curve: Curve) -> tuple[Array, Array]:
    """The points of a curve from its first false accept on."""
    far = np.maximum(curve.far, 1 / curve.impostor)
    last_of_far = np.append(far[1:] > far[:-1], True)
    return far[last_of_far], curve.vr[last_of_far]


def _save(figure: Figure, lines: Mapping[str, Line2D], path: Path) -> None:
    """Add the legend and write the figure through a temporary file, with no date or version inside."""
    entry_inches = 0.8 + 0.07 * max(len(name) for name in lines)
    columns = min(len(lines), max(1, int(figure.get_figwidth() / entry_inches)))
    figure.legend(list(lines.values()), list(lines), loc="outside lower center", ncols=columns)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=200, metadata={"Software": None})
