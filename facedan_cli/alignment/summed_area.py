"""Summed-area tables (Crow 1984): the mean over any box of an image from four look-ups, however large the box is."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np


class SummedImages:
    """Summed-area tables of many images in one array, for `mtcnn`.

    Args:
        images: uint8, each of shape (height, width, 3); those of one size that are read together must be neighbours.
    """

    def __init__(self, images: Sequence[np.ndarray]) -> None:
        self.sizes = np.array([image.shape[:2] for image in images], np.int64).reshape(-1, 2)
        self._starts = np.concatenate([[0], np.cumsum((self.sizes + 1).prod(1))])
        # Sums that overflow wrap around, and so do their differences: these are right. With a fourth channel an
        # entry has 16 bytes, which NumPy fetches as one number, in half the time of three.
        table = np.empty((self._starts[-1], 4), np.int32)
        rows = np.split(table, self._starts[1:-1])
        for image, (height, width), own in zip(images, self.sizes, rows, strict=False):
            cv2.integral(cv2.cvtColor(image, cv2.COLOR_RGB2RGBA), own.reshape(height + 1, width + 1, 4), cv2.CV_32S)
        self._table = _as_entries(table)

    def scaled(self, first: int, stop: int, height: int, width: int, strip: slice = slice(None)) -> np.ndarray:
        """A strip of the images first … stop-1, which must have one size, resampled to `height` and `width`.

        Returns:
            (x - 127.5) / 128, as the networks want it, shape (stop - first, the strip's height, width, 3), float32.
        """
        rows, columns = self.sizes[first]
        tables = self._table[self._starts[first] : self._starts[stop]].reshape(stop - first, rows + 1, columns + 1)
        top, bottom = (edges[strip] for edges in _bins(rows, height))
        left, right = _bins(columns, width)
        strips = _as_sums(tables.take(bottom, 1))
        strips -= _as_sums(tables.take(top, 1))
        sums = _as_sums(_as_entries(strips).take(right, 2))
        sums -= _as_sums(_as_entries(strips).take(left, 2))
        return _normalised(sums, (bottom - top)[None], (right - left)[None])

    def crops(self, images: np.ndarray, corners: np.ndarray, side: int) -> np.ndarray:
        """Boxes of the images, resampled to squares; outside the image all is 0.

        Args:
            images: the index of each box's image, shape (n,).
            corners: left, top, right, bottom in whole pixels, the last two just outside, shape (n, 4).
            side: side of the squares, pixels.

        Returns:
            As `scaled`, shape (n, side, side, 3).
        """
        left, top, right, bottom = corners.T[:, :, None]
        x0, x1 = (left + bins for bins in _bins(right - left, side))
        y0, y1 = (top + bins for bins in _bins(bottom - top, side))
        heights, widths = self.sizes[images].T[:, :, None]
        if (left < 0).any() or (top < 0).any() or (right > widths).any() or (bottom > heights).any():
            # Beyond the edge zeros are added: a sum stays what it is at the edge.
            rows, columns = [y.clip(0, heights) for y in (y0, y1)], [x.clip(0, widths) for x in (x0, x1)]
        else:
            rows, columns = [y0, y1], [x0, x1]
        start, stride = self._starts[images][:, None], widths + 1
        above, below = ((start + y * stride)[:, :, None] for y in rows)
        before, after = (x[:, None, :] for x in columns)
        sums = _as_sums(self._table.take(below + after))
        sums -= _as_sums(self._table.take(above + after))
        sums -= _as_sums(self._table.take(below + before))
        sums += _as_sums(self._table.take(above + before))
        return _normalised(sums, y1 - y0, x1 - x0)


def _bins(length: np.ndarray | int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Starts and stops of the `count` bins of PyTorch's adaptive average pooling; bins overlap by up to a pixel."""
    index = np.arange(count)
    return index * length // count, -(-(index + 1) * length // count)


def _as_entries(sums: np.ndarray) -> np.ndarray:
    """A view of sums (…, 4) as one number each, for copying only."""
    entries: np.ndarray = sums.view(np.complex128)[..., 0]
    return entries


def _as_sums(entries: np.ndarray) -> np.ndarray:
    return entries.view(np.int32).reshape(*entries.shape, 4)


def _normalised(sums: np.ndarray, heights: np.ndarray, widths: np.ndarray) -> np.ndarray:
    """The networks' inputs from sums of bins (n, height, width, 4) and the bins' sides (n or 1, height or width).

    The pixels of a row are divided at once: NumPy's loops over three colours are slow.
    """
    count, height, width, _ = sums.shape
    if not count:
        return np.empty((0, height, width, 3), np.float32)
    colours = cv2.cvtColor(sums.astype(np.float32).reshape(count * height, width, 4), cv2.COLOR_RGBA2RGB)
    rows: np.ndarray = colours.reshape(count, height, 3 * width)
    rows /= heights.astype(np.float32)[:, :, None]
    rows /= widths.astype(np.float32).repeat(3, 1)[:, None]
    rows -= 127.5
    rows *= 0.0078125
    return rows.reshape(count, height, width, 3)
