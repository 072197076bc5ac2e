"""ROC, DET, CMC and score figures: a panel for each partition, readable in grey and to the colour-blind.

The suffix of each path says its format: png, svg or pdf.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from facedan_cli.figures.style import COLORS, look, make_panels, name_curves, plain, save, styles
from facedan_cli.metrics.roc import Curve, parse_far

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Array = NDArray[Any]

_LONG_CMC = 20
"""Number of ranks above which the axis is logarithmic, since the first ranks matter most."""

_FEWEST_BINS, _MOST_BINS = 10, 80
_NAME_LINE = 18
"""Longest model name that stands upright beside a row of panels."""


def plot_roc(panels: Mapping[str, Mapping[str, Curve]], *paths: Path, fars: Sequence[str] = ()) -> None:
    """Draw ROC curves, verification rate over false-accept rate on a logarithmic axis (the paper's Fig. 3).

    The axis begins at 1e-4, or lower where one of `fars` asks for it, but not below what the comparisons resolve. A
    curve begins at the FAR of one false accept.

    Args:
        panels: for each partition, its curves by model name.
        paths: the files to write.
        fars: false-accept rates to mark by a thin line, such as those that a table beside the figure reports.

    Raises:
        ValueError: there is no curve.
    """
    left = _left_end(panels, fars)
    looks = styles(panels)
    with look():
        figure, axes = make_panels(panels, "False accept rate", "Verification rate")
        lines = {}
        for axis, models in zip(axes, panels.values(), strict=True):
            _mark(axis, fars)
            for name, curve in models.items():
                (lines[name],) = axis.plot(*_resolved(curve), drawstyle="steps-post", label=name, **looks[name])
            axis.set(xscale="log", xlim=(left, 1), ylim=(-0.01, 1.01))
            axis.grid(visible=False, which="minor")
        name_curves(figure, axes, lines)
        save(figure, *paths)


def plot_det(panels: Mapping[str, Mapping[str, Curve]], *paths: Path, fars: Sequence[str] = ()) -> None:
    """Draw DET curves, false-reject rate over false-accept rate, both axes logarithmic as in NIST's reports.

    Where no genuine comparison is rejected a curve leaves the figure below: a logarithm has no 0.

    Args:
        panels: for each partition, its curves by model name.
        paths: the files to write.
        fars: false-accept rates to mark by a thin line.

    Raises:
        ValueError: there is no curve.
    """
    from matplotlib.ticker import NullFormatter

    left = _left_end(panels, fars)
    rejected = [1 - curve.vr[curve.vr < 1] for models in panels.values() for curve in models.values()]
    lowest = min((float(rates.min()) for rates in rejected if rates.size), default=0.1)
    bottom = 10.0 ** min(math.floor(math.log10(lowest)), -1)
    looks = styles(panels)
    with look():
        figure, axes = make_panels(panels, "False accept rate", "False reject rate")
        lines = {}
        for axis, models in zip(axes, panels.values(), strict=True):
            _mark(axis, fars)
            for name, curve in models.items():
                far, vr = _resolved(curve)
                (lines[name],) = axis.plot(
                    far, np.maximum(1 - vr, bottom / 10), drawstyle="steps-post", label=name, **looks[name]
                )
            axis.set(xscale="log", yscale="log", xlim=(left, 1), ylim=(bottom, 1.05))
            axis.yaxis.set_minor_formatter(NullFormatter())
            axis.grid(visible=False, which="minor")
        name_curves(figure, axes, lines)
        save(figure, *paths)


def plot_cmc(panels: Mapping[str, Mapping[str, ArrayLike]], *paths: Path) -> None:
    """Draw cumulative match characteristics, identification rate over rank; more than 20 ranks on a logarithmic axis.

    Args:
        panels: for each probe set, values of `identification.cmc` by model name.
        paths: the files to write.

    Raises:
        ValueError: there is no curve.
    """
    from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

    lowest = min(float(np.min(rates)) for models in panels.values() for rates in models.values())
    bottom = min(max(math.floor(lowest * 10 - 0.05), 0) / 10, 0.9)
    looks = styles(panels)
    with look():
        figure, axes = make_panels(panels, "Rank", "Identification rate")
        lines = {}
        for axis, models in zip(axes, panels.values(), strict=True):
            for name, rates in models.items():
                rank = np.arange(1, np.size(rates) + 1)
                marker = "o" if rank.size <= _LONG_CMC else ""
                (lines[name],) = axis.plot(rank, rates, marker=marker, markersize=2.5, label=name, **looks[name])
            axis.set(ylim=(bottom, 1 + 0.01 * (1 - bottom)))
            last = max(np.size(rates) for rates in models.values())
            if last > _LONG_CMC:
                ticks = [rank for rank in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000) if rank <= last]
                axis.set(xscale="log", xlim=(0.95, last * 1.05), xticks=ticks)
                axis.xaxis.set_minor_locator(NullLocator())
                axis.xaxis.set_major_formatter(FuncFormatter(lambda rank, _: f"{rank:.0f}"))
            else:
                axis.set_xticks(np.unique(np.maximum(MaxNLocator(5, integer=True).tick_values(0, last), 1)))
        name_curves(figure, axes, lines)
        save(figure, *paths)


def plot_scores(panels: Mapping[str, Mapping[str, tuple[ArrayLike, ArrayLike]]], *paths: Path) -> None:
    """Draw the distributions of genuine and impostor scores: a column for each partition, a row for each model.

    Args:
        panels: for each partition, genuine and impostor scores by model name, at least one of each.
        paths: the files to write.

    Raises:
        ValueError: there is no model.
    """
    from matplotlib.figure import Figure

    models = list(styles(panels))
    size = (2.6 * max(len(panels), 1.5), 0.7 + 1.5 * len(models))
    with look():
        figure = Figure(figsize=size)
        figure.set_layout_engine("constrained", w_pad=0.08)
        axes = figure.subplots(len(models), len(panels), squeeze=False, sharex="row")
        for column, (partition, part) in enumerate(panels.items()):
            axes[0][column].set_title("" if partition == "all" else plain(partition))
            axes[-1][column].set_xlabel("Score")
            for row, model in enumerate(models):
                axis = axes[row][column]
                if model in part:
                    _distributions(axis, *part[model])
                axis.set(yticks=[], ylim=(0, None))
                axis.locator_params(axis="x", nbins=5)
                axis.spines["left"].set_visible(False)
        for row, model in enumerate(models):
            axes[row][0].set_ylabel(plain(textwrap.fill(model, _NAME_LINE)))
        figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
        save(figure, *paths)


def _distributions(axis: Axes, genuine: ArrayLike, impostor: ArrayLike) -> None:
    """Densities of both kinds: a filled and a dashed outline, which a grey print tells apart as well."""
    kinds = [np.asarray(scores, float) for scores in (genuine, impostor)]
    finite = [scores[np.isfinite(scores)] for scores in kinds]
    bins = int(np.clip(2 * min(scores.size for scores in finite) ** 0.5, _FEWEST_BINS, _MOST_BINS))
    edges = np.histogram_bin_edges(np.concatenate(finite), bins)
    of_genuine, of_impostor = (np.histogram(scores, edges)[0] / (scores.size * np.diff(edges)) for scores in kinds)
    axis.stairs(of_genuine, edges, fill=True, alpha=0.35, color=COLORS[0], label="genuine")
    axis.stairs(of_genuine, edges, color=COLORS[0], linewidth=1)
    axis.stairs(of_impostor, edges, color=COLORS[1], linestyle="--", label="impostor")


def _left_end(panels: Mapping[str, Mapping[str, Curve]], fars: Sequence[str]) -> float:
    marks = [float(parse_far(far)) for far in fars]
    most = max(curve.impostor for models in panels.values() for curve in models.values())
    asked = math.floor(math.log10(min([1e-4, *marks])))
    resolved = -math.ceil(math.log10(most))
    return float(10.0 ** min(max(asked, resolved), -1))


def _mark(axis: Axes, fars: Sequence[str]) -> None:
    for far in fars:
        axis.axvline(float(parse_far(far)), color="#999999", linewidth=0.7)


def _resolved(curve: Curve) -> tuple[Array, Array]:
    """The points of a curve from its first false accept on."""
    far = np.maximum(curve.far, 1 / curve.impostor)
    last_of_far = np.append(far[1:] > far[:-1], True)
    return far[last_of_far], curve.vr[last_of_far]
