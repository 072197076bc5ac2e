"""The learning curves of a training, drawn from its log."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from facedan_cli.figures.style import COLORS, look, plain, save
from facedan_cli.json_files import read_entries
from facedan_cli.report import discrepancies

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Array = NDArray[Any]

_LOSS, _ACCURACY, _RATE, _LAMBDA = "Loss", "Accuracy on the batch", "Learning rate", "λ"
_DISTANCE, _RANK = "Distance between the domains", "Effective rank of the features"
_TITLES = (_LOSS, _ACCURACY, _DISTANCE, _RANK, _RATE, _LAMBDA)
_PANEL_SIZE = (3.6, 2.4)
_COLUMNS = 2
_FEW, _MANY = 20, 60
"""Largest number of values with marks; smallest number with a running mean over pale values."""

_IN_A_ROW = 4
_HELD_OUT = "held out"
_FIXED = {"": "#000000", _HELD_OUT: "#56B4E9"}
_OF_LAYERS = tuple(color for color in COLORS if color not in _FIXED.values())


class Curve(NamedTuple):
    """The name and look of a curve.

    Args:
        label: name in the legend; "" for the only curve of a panel.
        layer: layer whose colour it has in all panels; "" or `_HELD_OUT` for values that belong to no layer.
        dashed: whether it is the second curve of its colour.
    """

    label: str = ""
    layer: str = ""
    dashed: bool = False


Points = list[tuple[int, float]]
"""Step and value, in the order of the log."""


def draw_curves(log: Path, path: Path) -> None:
    """Draw loss, accuracy, distances between the domains, effective ranks, learning rate and λ over the steps.

    Panels without values are left out: a pretraining has neither distances nor λ.

    Args:
        log: metrics.jsonl of a run.
        path: the file to write, png, svg or pdf.

    Raises:
        ValueError: the log has no entry of a step.
    """
    from matplotlib.figure import Figure

    panels = _panels(log)
    layers = dict.fromkeys(curve.layer for curves in panels.values() for curve in curves if curve.layer not in _FIXED)
    colors = dict(zip(layers, itertools.cycle(_OF_LAYERS), strict=False)) | _FIXED
    rows = math.ceil(len(panels) / _COLUMNS)
    with look():
        figure = Figure(figsize=(_PANEL_SIZE[0] * _COLUMNS, _PANEL_SIZE[1] * rows))
        figure.set_layout_engine("constrained", w_pad=0.08)
        axes = figure.subplots(rows, _COLUMNS, squeeze=False, sharex=True).flatten()
        for axis in axes[len(panels) :]:
            axis.set_visible(False)
        for axis, (title, curves) in zip(axes, panels.items(), strict=False):
            if title == _DISTANCE:
                axis.axhline(0, color="#888888", linewidth=0.8)
            for curve, points in curves.items():
                _draw(axis, curve, points, colors[curve.layer], smooth=title not in (_RATE, _LAMBDA))
            if title in (_RATE, _LAMBDA):
                axis.set_ylim(bottom=0)
            _name(axis, title)
        for axis in axes[max(len(panels) - _COLUMNS, 0) : len(panels)]:
            axis.set_xlabel("Step")
            axis.tick_params(labelbottom=True)
        save(figure, path)


def running_mean(values: Array, width: int) -> Array:
    """The mean of each value and its neighbours, `width` on each side; near the ends fewer, equally on both sides."""
    sums = np.append(0.0, np.cumsum(values))
    places = np.arange(len(values))
    reach = np.minimum(width, np.minimum(places, places[::-1]))
    means: Array = (sums[places + reach + 1] - sums[places - reach]) / (2 * reach + 1)
    return means


def _panels(log: Path) -> dict[str, dict[Curve, Points]]:
    """The curves of each panel; panels without curves are left out."""
    panels: dict[str, dict[Curve, Points]] = {title: defaultdict(list) for title in _TITLES}
    for entry in _entries(log):
        for title, curve, value in _values(entry):
            if math.isfinite(value):
                panels[title][curve].append((entry["step"], value))
    panels = {title: dict(curves) for title, curves in panels.items() if curves}
    if not panels:
        raise ValueError(f"{log} has no entry of a step")
    return panels


def _entries(log: Path) -> Iterator[dict[str, Any]]:
    return (entry for entry in read_entries(log) if entry["step"] > 0)


def _values(entry: Mapping[str, Any]) -> Iterator[tuple[str, Curve, float]]:
    """Yield the drawn values of an entry: panel title, curve and value."""
    distances = discrepancies(entry)
    if "loss" in entry:
        yield _LOSS, Curve("total" if distances else "batch"), entry["loss"]
    if "classification" in entry and distances:
        yield _LOSS, Curve("classification", dashed=True), entry["classification"]
    if "held_aside_loss" in entry:
        yield _LOSS, Curve(_HELD_OUT, _HELD_OUT), entry["held_aside_loss"]
    for (name, layer), value in distances.items():
        yield _DISTANCE, Curve(f"{name} {layer}".rstrip(), layer), value
    for key, value in entry.items():
        if key.startswith("rank_"):
            layer, _, domain = key.removeprefix("rank_").rpartition("_")
            yield _RANK, Curve(f"{layer} {domain}", layer, dashed=domain == "target"), value
    for title, key in ((_ACCURACY, "accuracy"), (_RATE, "lr"), (_LAMBDA, "lambda")):
        if key in entry:
            yield title, Curve(), entry[key]


def _draw(axis: Axes, curve: Curve, points: Points, color: str, *, smooth: bool) -> None:
    steps, values = np.array(points, float).T
    if smooth and len(values) >= _MANY:
        axis.plot(steps, values, color=color, linewidth=0.6, alpha=0.25)
        values = running_mean(values, len(values) // _MANY)
    marker = "o" if len(values) <= _FEW else ""
    line = "--" if curve.dashed else "-"
    axis.plot(steps, values, line, color=color, marker=marker, markersize=2.5, label=plain(curve.label))


def _name(axis: Axes, title: str) -> None:
    """Write a panel's title, and the legend between title and curves."""
    lines = [line for line in axis.lines if line.get_label() and not str(line.get_label()).startswith("_")]
    axis.set_title(title, pad=6 + 12 * math.ceil(len(lines) / _IN_A_ROW))
    if lines:
        axis.legend(
            handles=lines,
            loc="lower center",
            bbox_to_anchor=(0.5, 1),
            ncols=_IN_A_ROW,
            fontsize=7,
            handlelength=1.7,
            columnspacing=1,
            borderaxespad=0.2,
        )
