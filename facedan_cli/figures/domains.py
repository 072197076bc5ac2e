"""The figure of two domains' features before and after adaptation."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facedan_cli.figures.style import COLORS, look, plain, save

Array = NDArray[Any]
Domains = Mapping[str, tuple[Array, Array]]
"""Features of the source (n, d) and of the target (m, d), by layer."""

_PANEL = 2.7  # inches


def plot_domains(before: Domains, after: Domains, path: Path) -> None:
    """Draw source and target features in the plane of largest variance: a column for each layer, before above after.

    Each panel has a plane of its own, for the features of two networks have no axes in common.

    Args:
        before: features by the network before adaptation.
        after: features of the same images by the adapted one, of the same layers.
        path: the file to write, png, svg or pdf.
    """
    from matplotlib.figure import Figure

    with look():
        figure = Figure(figsize=(_PANEL * len(before), 2 * _PANEL))
        figure.set_layout_engine("constrained")
        axes = figure.subplots(2, len(before), squeeze=False)
        for row, (when, domains) in zip(axes, (("before", before), ("after", after)), strict=True):
            for axis, (layer, (source, target)) in zip(row, domains.items(), strict=True):
                points, shares = principal_plane(np.concatenate([source, target]))
                for start, stop, color, marker in ((0, len(source), 0, "o"), (len(source), len(points), 1, "^")):
                    axis.scatter(
                        *points[start:stop].T, s=9, color=COLORS[color], marker=marker, alpha=0.6, linewidths=0
                    )
                axis.set_title(f"{plain(layer)} {when}")
                axis.set(xticklabels=[], yticklabels=[])
                axis.set_xlabel(f"{100 * shares[0]:.0f} % of the variance")
                axis.set_ylabel(f"{100 * shares[1]:.0f} %")
                axis.tick_params(length=0)
        figure.legend(axes[0][0].collections, ["source", "target"], loc="outside lower center", ncols=2)
        save(figure, path)


def principal_plane(rows: Array) -> tuple[Array, Array]:
    """The coordinates of rows in the plane of largest variance, and each axis's share of the variance.

    Args:
        rows: shape (n, d), n and d at least 2.

    Returns:
        Shapes (n, 2) and (2,). Signs are such that the largest coordinate of each axis is positive.
    """
    from sklearn.decomposition import PCA

    with np.errstate(invalid="ignore"):  # rows that are all one have no variance to share
        components = PCA(2, svd_solver="full").fit(np.asarray(rows, float))
    points = components.transform(np.asarray(rows, float))
    largest = points[np.abs(points).argmax(axis=0), np.arange(2)]
    return points * np.where(largest < 0, -1, 1), np.nan_to_num(components.explained_variance_ratio_)
