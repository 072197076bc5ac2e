"""Summed-area tables (Crow 1984): the mean over any box of a picture from four look-ups, however large the box is."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np


class SummedPictures:
    """The tables of many pictures in one array, for `cascade`.

    Args:
        pictures: uint8, each of shape (height, width, 3); those of one size that are read together must be neighbours.
    """

    def __init__(self, pictures: Sequence[np.ndarray]) -> None:
        self.sizes = np.array([picture.shape[:2] for picture in pictures], np.int64).reshape(-1, 2)
        self._starts = np.concatenate([[0], np.cumsum((self.sizes + 1).prod(1))])
        # Sums that overflow wrap around, and so do their differences: what is read is right.
        self._table = np.empty((self._starts[-1], 3), np.int32)
        rows = np.split(self._table, self._starts[1:-1])
        for picture, (height, width), own in zip(pictures, self.sizes, rows, strict=False):
            cv2.integral(picture, own.reshape(height + 1, width + 1, 3), cv2.CV_32S)

    def scaled(self, first: int, stop: int, height: int, width: int, strip: slice = slice(None)) -> np.ndarray:
        """Whole pictures of one size, first … stop-1, resampled to `height` and `width`, of which a strip is wanted.

        Returns:
            (x - 127.5) / 128, as the networks want it, shape (stop - first, the strip's height, width, 3), float32.
        """
        rows, columns = self.sizes[first]
        tables = self._table[self._starts[first] : self._starts[stop]].reshape(stop - first, rows + 1, columns + 1, 3)
        top, bottom = (edges[strip] for edges in _bins(rows, height))
        left, right = _bins(columns, width)
        strips = tables.take(bottom, 1) - tables.take(top, 1)
        sums = strips.take(right, 2) - strips.take(left, 2)
        return _normalised(sums, (bottom - top)[:, None, None], (right - left)[:, None])

    def crops(self, pictures: np.ndarray, corners: np.ndarray, side: int) -> np.ndarray:
        """Boxes resampled to squares.

        Args:
            pictures: the index of each box's picture, shape (n,).
            corners: left, top, right, bottom in whole pixels, the last two just outside, shape (n, 4).
            side: of the squares, pixels.

        Returns:
            As `scaled`, shape (n, side, side, 3).
        """
        left, top, right, bottom = corners.T[:, :, None]
        x0, x1 = (left + bins for bins in _bins(right - left, side))
        y0, y1 = (top + bins for bins in _bins(bottom - top, side))
        stride = self.sizes[pictures, 1][:, None] + 1
        start = self._starts[pictures][:, None]
        above, below = (start + y0 * stride)[:, :, None], (start + y1 * stride)[:, :, None]
        before, after = x0[:, None, :], x1[:, None, :]
        sums = self._table.take(below + after, 0)
        sums -= self._table.take(above + after, 0)
        sums -= self._table.take(below + before, 0)
        sums += self._table.take(above + before, 0)
        return _normalised(sums, (y1 - y0)[:, :, None, None], (x1 - x0)[:, None, :, None])


def _bins(length: np.ndarray | int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Where the `count` bins of PyTorch's adaptive average pooling start and stop; they overlap by up to a pixel."""
    index = np.arange(count)
    return index * length // count, -(-(index + 1) * length // count)


def _normalised(sums: np.ndarray, heights: np.ndarray, widths: np.ndarray) -> np.ndarray:
    means = sums.astype(np.float32)
    means /= heights.astype(np.float32)
    means /= widths.astype(np.float32)
    means -= 127.5
    means *= 0.0078125
    return means
