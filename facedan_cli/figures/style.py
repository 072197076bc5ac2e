"""The style of all figures: panels, colours and dashes, names at the curves, and files without dates."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from facedan_cli.workspace import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

Array = NDArray[Any]
Box = tuple[float, float, float, float]
"""A box: left, bottom, right and top, in pixels of the figure."""

# Okabe and Ito's palette without yellow, which vanishes on white. Dashes distinguish curves in a grey print. There are
# 7 colours and 6 dashes, so that no combination repeats before 42 models.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#000000", "#CC79A7", "#E69F00", "#56B4E9")
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
    "svg.hashsalt": "facedan",  # the same figure has the same ids
}
# Width and height in inches.
_PANEL_SIZE = (2.6, 2.7)
_SINGLE_SIZE = (4.0, 3.4)
_COLUMNS = 4
_LEGEND_LINE = 0.17  # inches
_METADATA: Mapping[str, dict[str, None]] = {
    ".png": {"Software": None},
    ".svg": {"Date": None, "Creator": None},
    ".pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}


def look() -> AbstractContextManager[None]:
    """The context with the style of our figures, independent of the user's matplotlibrc."""
    from matplotlib import style

    return style.context(["default", _LOOK])


def styles(panels: Mapping[str, Mapping[str, object]]) -> dict[str, dict[str, Any]]:
    """Colour and dashes of each model, the same in all panels."""
    names = dict.fromkeys(name for models in panels.values() for name in models)
    return {
        name: {"color": color, "linestyle": dashes}
        for name, color, dashes in zip(names, itertools.cycle(COLORS), itertools.cycle(_DASHES), strict=False)
    }


def make_panels(panels: Mapping[str, object], x_label: str, y_label: str) -> tuple[Figure, list[Axes]]:
    """A figure with a panel for each key, at most four in a row."""
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
            axis.set(title="" if title == "all" else plain(title), xlabel=x_label)
    return figure, list(axes.flat[: len(panels)])


def plain(name: str) -> str:
    """A name escaped for matplotlib, which reads "$" as mathematics and hides names that begin with "_"."""
    return (" " if name.startswith("_") else "") + name.replace("$", r"\$")


def name_curves(figure: Figure, axes: Sequence[Axes], lines: Mapping[str, Line2D]) -> None:
    """Write the models' names at their curves in the first panel with room for all, else a legend below."""
    if len(lines) > 1:
        figure.draw_without_rendering()  # makes positions in pixels known
        for axis in axes:
            drawn = [line for line in axis.lines if line.get_label() in lines]
            if len(drawn) == len(lines) and _label_directly(axis, drawn):
                return
    entry_inches = 0.8 + 0.07 * max(len(name) for name in lines)
    columns = min(len(lines), max(1, int(figure.get_figwidth() / entry_inches)))
    # The panels have room for a legend of two lines; a longer one makes the figure higher.
    figure.set_figheight(figure.get_figheight() + _LEGEND_LINE * max(0, math.ceil(len(lines) / columns) - 2))
    figure.legend(list(lines.values()), [plain(name) for name in lines], loc="outside lower center", ncols=columns)


def save(figure: Figure, *paths: Path) -> None:
    """Write a figure in the format of each path's suffix (png, svg or pdf), without date and version.

    The bytes of a file do not depend on the other formats.
    """
    places = [(axis, axis.get_position(original=True)) for axis in figure.axes]
    for path in paths:
        suffix = path.suffix.lower()
        for axis, place in places:  # each save moves the panels, from which the next layout would start
            axis.set_position(place)
            axis.set_in_layout(True)
        with replacing(path) as temporary:
            figure.savefig(temporary, format=suffix[1:], dpi=200, metadata=dict(_METADATA[suffix]))


def _label_directly(axis: Axes, lines: Sequence[Line2D]) -> bool:
    """Write each curve's name where it touches no curve and no other name; returns whether all names had room."""
    curves = [_in_pixels(axis, line) for line in lines]
    points = axis.figure.dpi / 72
    height = 8 * points
    frame = axis.get_window_extent()
    taken: list[Box] = []
    for line, own in zip(lines, curves, strict=True):
        width = 4.6 * points * len(str(line.get_label()))
        others = [curve for curve in curves if curve is not own]
        for box in _places(own, width, height, points, (frame.x0, frame.y0, frame.x1, frame.y1)):
            # Other curves must be farther away, so that the name cannot be read as theirs.
            apart = not any(_crosses(box, other, 7 * points) for other in others)
            if apart and not any(_overlap(box, other, 2 * points) for other in taken):
                taken.append(box)
                break
        else:
            return False
    for line, (left, bottom, _, _) in zip(lines, taken, strict=True):
        x, y = axis.transData.inverted().transform((left, bottom))
        axis.text(x, y, plain(str(line.get_label())), color=line.get_color(), fontsize=8, va="bottom")
    return True


def _in_pixels(axis: Axes, line: Line2D) -> Array:
    """Points of a curve in pixels, at most a pixel apart, shape (n, 2)."""
    x, y = (np.asarray(values, float) for values in line.get_data())
    if line.get_drawstyle() == "steps-post":
        x, y = np.repeat(x, 2)[1:], np.repeat(y, 2)[:-1]
    with np.errstate(divide="ignore", invalid="ignore"):
        corners = axis.transData.transform(np.stack([x, y], axis=1))
    corners = corners[np.isfinite(corners).all(axis=1)]
    length = np.append(0, np.cumsum(np.hypot(*np.diff(corners, axis=0).T)))
    steps = np.linspace(0, length[-1], max(2, int(length[-1])))
    return np.stack([np.interp(steps, length, corners[:, column]) for column in (0, 1)], axis=1)


def _places(own: Array, width: float, height: float, points: float, frame: Box) -> list[Box]:
    """Boxes just above and just below a curve, inside the frame, from left to right."""
    boxes = []
    for left in np.linspace(frame[0] + 4 * points, frame[2] - width - 2 * points, 24):
        beside = own[(own[:, 0] >= left) & (own[:, 0] <= left + width)]
        inside = beside[:, 1]
        # The curve runs along the whole name, and not too steeply.
        if inside.size and np.ptp(beside[:, 0]) > 0.9 * width and np.ptp(inside) < 1.5 * height:
            for bottom in (inside.max() + 2 * points, inside.min() - height - 3 * points):
                if frame[1] + points <= bottom and bottom + height <= frame[3]:
                    boxes.append((left, bottom, left + width, bottom + height))
    return boxes


def _overlap(a: Box, b: Box, margin: float) -> bool:
    return a[0] < b[2] + margin and b[0] < a[2] + margin and a[1] < b[3] + margin and b[1] < a[3] + margin


def _crosses(box: Box, curve: Array, margin: float) -> bool:
    x, y = curve.T
    inside = (x > box[0] - margin) & (x < box[2] + margin) & (y > box[1] - margin) & (y < box[3] + margin)
    return bool(inside.any())
