"""Local binary patterns (Ahonen, Hadid and Pietikäinen 2006): histograms of LBP^{u2}_{8,2} and their chi-square."""

from __future__ import annotations

import torch
from torch import Tensor

from facedan_cli.models.frame import Frame

FRAME = Frame(height=150, width=130, image_left_eye=(30, 45), image_right_eye=(100, 45))
"""The normalisation of the CSU Face Identification Evaluation System, in which Ahonen et al. set their weights."""

WEIGHTS = (
    (2, 1, 1, 1, 1, 1, 2),
    (2, 4, 4, 1, 4, 4, 2),
    (1, 1, 1, 0, 1, 1, 1),
    (0, 1, 1, 0, 1, 1, 0),
    (0, 1, 1, 1, 1, 1, 0),
    (0, 1, 1, 2, 1, 1, 0),
    (0, 1, 1, 1, 1, 1, 0),
)
"""Weights of the window's regions, row by row from the top (Ahonen et al. 2006), largest about the eyes."""

BINS = 59
RADIUS = 2

_AXES = ((0, 2), (-2, 0), (0, -2), (2, 0))  # of bits 0, 2, 4 and 6: (row, column), counter-clockwise from the right
_DIAGONALS = ((-1, 1), (-1, -1), (1, -1), (1, 1))  # of bits 1, 3, 5 and 7

_IN_CACHE, _ON_GPU = 1 << 18, 1 << 26
"""Number of differences in memory at a time: as many as fit a core's cache, or keep a GPU busy."""

_EMPTY = 1e-30
"""Addend of a + b: bins that are empty in both histograms give 0 instead of 0/0, and other sums keep their bits."""


def features(images: Tensor) -> Tensor:
    """The histograms of the regions, times the regions' WEIGHTS; regions of weight 0 are left out.

    Chi-square is homogeneous: weighted histograms need no weights in their comparison.

    Args:
        images: grey windows, uint8, shape (n, height, width).

    Returns:
        Shape (n, regions·59), float32.

    Raises:
        ValueError: as `histograms`.
    """
    weight = torch.tensor(WEIGHTS, dtype=torch.float32, device=images.device)
    counted = weight.flatten().nonzero().flatten()
    found = histograms(images, *weight.shape)[:, counted] * weight.flatten()[counted, None]
    return found.flatten(1)


def similarities(queries: Tensor, targets: Tensor) -> Tensor:
    """The similarity of every query to every target: the negative of their chi-square.

    A block of pairs is held at a time, so that the memory is that of the result.

    Args:
        queries: features, shape (n, d).
        targets: features, shape (m, d).

    Returns:
        Shape (n, m), at most 0.
    """
    scores = queries.new_empty(len(queries), len(targets))
    pairs = max(1, (_ON_GPU if queries.is_cuda else _IN_CACHE) // queries.shape[1])
    columns = max(1, min(pairs, len(targets)))
    rows = max(1, pairs // columns)
    for top in range(0, len(queries), rows):
        for left in range(0, len(targets), columns):
            distances = chi_square(queries[top : top + rows, None], targets[left : left + columns])
            scores[top : top + rows, left : left + columns] = -distances
    return scores


def chi_square(a: Tensor, b: Tensor) -> Tensor:
    """χ² = Σ (a−b)²/(a+b) over the last axis; the other axes are broadcast.

    Args:
        a: features, none negative, shape (…, d).
        b: features, shape (…, d).

    Returns:
        Shape (…): symmetric, and exactly 0 of equal features. Two histograms that sum to one are at most 2 apart.
    """
    return (a - b).square_().div_((a + b).add_(_EMPTY)).sum(-1)


def histograms(images: Tensor, rows: int, columns: int) -> Tensor:
    """The share of each of the 59 labels in each region of a grid; the regions' sides differ by a pixel at most.

    Args:
        images: grey images, uint8, shape (n, height, width).
        rows: rows of the grid.
        columns: columns of the grid.

    Returns:
        Shape (n, rows·columns, 59), float32; each histogram sums to one.

    Raises:
        ValueError: the images are not uint8, or too small for the grid.
    """
    labels = uniform_labels(binary_patterns(images))
    count, height, width = labels.shape
    if height < rows or width < columns:
        raise ValueError(f"patterns of {width}×{height} pixels cannot be divided into {columns}×{rows} regions")
    row = torch.arange(height, device=images.device) * rows // height
    column = torch.arange(width, device=images.device) * columns // width
    region = row[:, None] * columns + column  # (height, width)
    of_image = torch.arange(count, device=images.device)[:, None, None] * (rows * columns)
    bins = (of_image + region) * BINS + labels
    counts = torch.bincount(bins.flatten(), minlength=count * rows * columns * BINS)
    return counts.view(count, rows * columns, BINS) / torch.bincount(region.flatten())[:, None]


def uniform_labels(patterns: Tensor) -> Tensor:
    """The label of each of the 256 patterns: 0-57 for the uniform ones, in ascending order, 58 for all others.

    A pattern is uniform if its bits, taken as a circle, change at most twice (Ojala et al. 2002).
    """
    every = torch.arange(256)
    turned = (every >> 1) | ((every & 1) << 7)
    changes = (((every ^ turned)[:, None] >> torch.arange(8)) & 1).sum(1)
    uniform = changes <= 2
    table = torch.where(uniform, uniform.cumsum(0) - 1, BINS - 1).to(torch.uint8)
    return table.to(patterns.device)[patterns.long()]


def binary_patterns(images: Tensor) -> Tensor:
    """The patterns LBP_{8,2}: a bit for each of eight points on a circle of radius 2 at least as light as its centre.

    Between pixels the circle is sampled bilinearly. Bit p belongs to the point at the angle 2πp/8, counter-clockwise
    from the right; a tie gives 1. The comparison is made in whole numbers, so that a flat region gives ones, and every
    device the same patterns.

    Args:
        images: grey images, uint8, shape (n, height, width), both sides at least 5.

    Returns:
        uint8, shape (n, height - 4, width - 4).

    Raises:
        ValueError: the images are not uint8, or too small.
    """
    if images.dtype != torch.uint8 or images.ndim != 3 or min(images.shape[1:]) <= 2 * RADIUS:
        raise ValueError(f"grey uint8 images of at least 5×5 are needed, not {images.dtype} {tuple(images.shape)}")
    centre = _shifted(images, 0, 0).to(torch.int32)
    patterns = torch.zeros_like(centre)
    for place, (down, right) in enumerate(_AXES):
        patterns |= (_shifted(images, down, right) >= centre).int() << 2 * place
    for place, (down, right) in enumerate(_DIAGONALS):
        patterns |= _diagonal_is_lighter(images, centre, down, right).int() << 2 * place + 1
    return patterns.to(torch.uint8)


def _diagonal_is_lighter(images: Tensor, centre: Tensor, down: int, right: int) -> Tensor:
    """Whether the image at (√2·down, √2·right) from the centre is at least as light as there.

    The four pixels about that point are 1 or 2 away on each axis; with f = √2 − 1 their weights are (1−f)² = 6 − 4√2,
    twice f(1−f) = 3√2 − 4, and f² = 3 − 2√2. So the difference is P + Q√2 with whole P and Q, and its sign that of
    P·|P| + 2·Q·|Q|.
    """
    near = _shifted(images, down, right) - centre
    sides = _shifted(images, down, 2 * right) + _shifted(images, 2 * down, right).int() - 2 * centre
    far = _shifted(images, 2 * down, 2 * right) - centre
    p = 6 * near - 4 * sides + 3 * far
    q = 3 * sides - 4 * near - 2 * far
    return p * p.abs() + 2 * q * q.abs() >= 0


def _shifted(images: Tensor, down: int, right: int) -> Tensor:
    """The pixels at this offset from those with a whole circle about them."""
    height, width = images.shape[1:]
    return images[:, RADIUS + down : height - RADIUS + down, RADIUS + right : width - RADIUS + right]
