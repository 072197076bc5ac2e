"""Exact verification rates of any number of comparisons, by two passes over the scores in bounded memory.

`metrics.radix` counts and selects. Scores are not kept between the passes, so both must see the same bits: a matrix
product is made of tiles of one fixed shape (another shape would change most scores in the last bits), without TF32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import islice, product
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, distributed

from facedan_cli.metrics.radix import Counts, Streamed, conclude, count_high, count_low, deciding_bins

Array = NDArray[Any]
Tile = tuple[Array, Array]
"""Scores, float32, and which of them are genuine, bool, of the same shape."""

Sides = tuple[Array, Array]
"""One array of the queries, one of the targets."""

TILE = 1024
"""Rows and columns of a matrix product; the last ones are padded with zeros, so that all products have one shape."""


def verification_streamed(
    query: ArrayLike,
    target: ArrayLike,
    query_labels: ArrayLike,
    target_labels: ArrayLike,
    fars: Sequence[str],
    *,
    contents: tuple[ArrayLike, ArrayLike] | None = None,
    failed: int = 0,
    once: bool = False,
    device: str | torch.device = "cpu",
    advance: Callable[[int], None] | None = None,
) -> Streamed:
    """Verification rates of every query with every target, scored by the inner product of their features.

    Under torch.distributed each process computes its share of the tiles and all get the same result.

    Args:
        query: features, shape (q, d), read in float32 row by row: may be memory-mapped.
        target: features, shape (t, d).
        query_labels: subjects of the queries, shape (q,).
        target_labels: subjects of the targets, shape (t,).
        fars: false-accept rates as decimal strings.
        contents: numbers of the queries' images, shape (q,), and of the targets', shape (t,): those with one number are
            the same image and are not compared. None: every query meets every target.
        failed: genuine comparisons without a score, for the equal error rate with failures.
        once: query and target are one and the same set; each pair of different rows is compared once.
        device: device of the products.
        advance: called after each tile with the number of its comparisons, in both passes.

    Raises:
        ValueError: shapes do not belong together, there is no genuine or no impostor comparison, or a score is NaN.
        UsageError: one of `fars` is not a false-accept rate.
    """
    query, target = np.asanyarray(query), np.asanyarray(target)
    a, b = np.asarray(query_labels), np.asarray(target_labels)
    if query.ndim != 2 or query.shape[1:] != target.shape[1:] or (len(query), len(target)) != (a.size, b.size):
        raise ValueError(f"features of shapes {query.shape} and {target.shape} for {a.size} and {b.size} labels")
    codes = np.unique(np.concatenate([a, b]), return_inverse=True)[1].astype(np.int32)
    alike = None if contents is None else (np.asarray(contents[0]), np.asarray(contents[1]))
    tiles = partial(_products, (query, target), (codes[: a.size], codes[a.size :]), alike, once, device)
    precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        return _two_passes(tiles, fars, advance, lambda: failed)
    finally:
        torch.set_float32_matmul_precision(precision)


def _products(
    features: Sides,
    labels: Sides,
    contents: Sides | None,
    once: bool,
    device: str | torch.device,
    part: int,
    parts: int,
) -> Iterator[Tile]:
    """The tiles of one process: the comparisons that are made, of shape (rows, columns) where all are, else (n,)."""
    corners = product(range(0, len(features[0]), TILE), range(0, len(features[1]), TILE))
    wanted = (corner for corner in corners if not once or corner[0] <= corner[1])
    for row, column in islice(wanted, part, None, parts):
        rows, columns = slice(row, row + TILE), slice(column, column + TILE)
        whole = _padded(features[0][rows], device) @ _padded(features[1][columns], device).T  # (TILE, TILE)
        mates = np.equal.outer(labels[0][rows], labels[1][columns])
        scores = whole.cpu().numpy()[: mates.shape[0], : mates.shape[1]]
        made = None
        if contents is not None:
            made = np.not_equal.outer(contents[0][rows], contents[1][columns])
        if once and row == column:
            made = np.triu(np.ones_like(mates) if made is None else made, k=1)
        yield (scores, mates) if made is None else (scores[made], mates[made])


def verification_of_tiles(
    tiles: Callable[[], Iterable[Tile]],
    fars: Sequence[str],
    *,
    failed: Callable[[], int] = lambda: 0,
    advance: Callable[[int], None] | None = None,
) -> Streamed:
    """Verification rates of scores that come in pieces, such as the rows of a matrix in a file.

    Under torch.distributed each process goes through all pieces and counts its share of them; all get the same result.

    Args:
        tiles: called once for each of two passes, and must then give the same scores: pairs of scores, float32, and of
            which of them are genuine, bool, both of one shape, which may differ from piece to piece.
        fars: false-accept rates as decimal strings.
        failed: asked after a pass how many genuine comparisons without a score the pieces left out, for the equal error
            rate with failures.
        advance: called after each tile with the number of its comparisons, in both passes.

    Raises:
        ValueError: as `verification_streamed`; the scores are not float32; the second pass differs from the first.
        UsageError: one of `fars` is not a false-accept rate.
    """
    return _two_passes(lambda part, parts: islice(tiles(), part, None, parts), fars, advance, failed)


def _two_passes(
    tiles: Callable[[int, int], Iterable[Tile]],
    fars: Sequence[str],
    advance: Callable[[int], None] | None,
    failed: Callable[[], int],
) -> Streamed:
    shared = distributed.is_available() and distributed.is_initialized()
    part, parts = (distributed.get_rank(), distributed.get_world_size()) if shared else (0, 1)

    def total(count: Callable[[Array, Array], Counts]) -> Counts:
        # Counts of no scores, since a process may have no tile.
        counts = count(np.zeros(0, np.float32), np.zeros(0, bool))
        for scores, genuine in tiles(part, parts):
            counts += count(scores, genuine)
            if advance is not None:
                advance(scores.size)
        return _over_processes(counts) if shared else counts

    high = total(count_high)
    bins = deciding_bins(high, fars, failed())
    low = total(lambda scores, genuine: count_low(scores, genuine, bins))
    return conclude(high, low, bins, fars, failed())


def _over_processes(counts: Counts) -> Counts:
    both = torch.from_numpy(np.stack([counts.genuine, counts.impostor]))
    both = both.to("cuda" if distributed.get_backend() == "nccl" else "cpu")
    distributed.all_reduce(both)
    return Counts(*both.cpu().numpy())


def _padded(rows: Array, device: str | torch.device) -> Tensor:
    # Allocated by torch, whose alignment is the same each time: the bits of a product may depend on it.
    block = torch.zeros(TILE, rows.shape[1])
    block.numpy()[: len(rows)] = rows
    return block.to(device)
