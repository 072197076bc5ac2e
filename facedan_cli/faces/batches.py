"""From files to batches: decoding, a memory cache where the faces fit, and seeded streams of augmented crops."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from facedan_cli.errors import FacedanError
from facedan_cli.faces.folder import FaceFolder
from facedan_cli.faces.pictures import UnreadableImage, read_picture
from facedan_cli.report import SILENT, Report

CACHE_BYTES = 2 << 30
"""Data sets whose decoded faces fit into this stay in memory; others are decoded again in each epoch."""

PREFETCHED_BATCHES = 3


def read_face(path: Path, size: int) -> np.ndarray:
    """An aligned face as RGB uint8, shape (size, size, 3); what is not square is scaled and cropped about its centre.

    Raises:
        UnreadableImage: with the reason.
    """
    return square_face(read_picture(path), size)


def square_face(picture: np.ndarray, size: int) -> np.ndarray:
    """A picture's central square, scaled to (size, size, channels)."""
    height, width = picture.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = picture[top : top + side, left : left + side]
    if side == size:
        return square
    shrinking = cv2.INTER_AREA if side > size else cv2.INTER_CUBIC
    return cv2.resize(square, (size, size), interpolation=shrinking)


def read_faces(
    folder: FaceFolder, indices: Sequence[int], size: int, pool: ThreadPoolExecutor, window: int = 256
) -> Iterator[tuple[int, np.ndarray | UnreadableImage]]:
    """Decode faces in order with the pool's threads; at most `window` of them are held at a time."""

    def read(index: int) -> np.ndarray | UnreadableImage:
        try:
            return read_face(folder.root / folder.paths[index], size)
        except UnreadableImage as error:
            return error

    waiting = iter(indices)
    queue = deque((index, pool.submit(read, index)) for index in islice(waiting, window))
    while queue:
        index, future = queue.popleft()
        queue.extend((following, pool.submit(read, following)) for following in islice(waiting, 1))
        yield index, future.result()


class FaceImages:
    """The decoded faces of a data set by index, from memory where they fit, else from their files.

    An image that cannot be read is replaced by the next one that can, so that it costs nobody else's training; its
    path and the reason are in `unreadable`.
    """

    def __init__(self, folder: FaceFolder, size: int, pool: ThreadPoolExecutor, report: Report = SILENT) -> None:
        self.folder = folder
        self.size = size
        self.unreadable: dict[str, str] = {}
        self._pool = pool
        self._cache: np.ndarray | None = None
        if len(folder) * size * size * 3 <= CACHE_BYTES:
            self._fill(report)

    def _fill(self, report: Report) -> None:
        cache = np.zeros((len(self.folder), self.size, self.size, 3), np.uint8)
        with report.progress(f"reading {self.folder.root.name}", len(self.folder)) as advance:
            for index, face in read_faces(self.folder, range(len(self.folder)), self.size, self._pool):
                if isinstance(face, UnreadableImage):
                    self.unreadable[self.folder.paths[index]] = str(face)
                else:
                    cache[index] = face
                advance(1, "")
        self._cache = cache

    def load(self, indices: Sequence[int]) -> list[tuple[int, np.ndarray]]:
        """The faces at these indices, or their stand-ins; each with the index it really is of.

        Raises:
            FacedanError: not one image of the data set can be read.
        """
        if self._cache is None:
            return list(self._pool.map(self._readable, indices))
        return [self._readable(index) for index in indices]

    def _readable(self, index: int) -> tuple[int, np.ndarray]:
        for candidate in range(index, index + len(self.folder)):
            actual = candidate % len(self.folder)
            path = self.folder.paths[actual]
            if path in self.unreadable:
                continue
            if self._cache is not None:
                return actual, self._cache[actual]
            try:
                return actual, read_face(self.folder.root / path, self.size)
            except UnreadableImage as error:
                self.unreadable[path] = str(error)
        raise FacedanError(f"no image under {self.folder.root} can be read", "check what the files are")


@dataclass(frozen=True)
class Stream:
    """An endless shuffled stream of augmented crops; batch number i is a pure function of the seed and i.

    So a run that was interrupted goes on with the batches it would have had, with no state to save. Each epoch is a
    new permutation; a batch may straddle two of them, and no image is left out.

    Args:
        images: the faces.
        labels: class of each image, or None for an unlabelled target.
        batch: images a batch.
        crop: side of the random crop, pixels; it is mirrored with probability one half (paper, Section IV-B).
        seed: streams of different seeds are independent.
    """

    images: FaceImages
    labels: np.ndarray | None
    batch: int
    crop: int
    seed: tuple[int, ...]
    _order: dict[int, np.ndarray] = field(default_factory=dict, repr=False)

    def __getitem__(self, step: int) -> tuple[Tensor, Tensor]:
        """Batch number `step`: RGB crops, uint8, (batch, 3, crop, crop), and labels (zeros where there are none)."""
        count = len(self.images.folder)
        positions = range(step * self.batch, (step + 1) * self.batch)
        loaded = self.images.load([int(self._permutation(p // count)[p % count]) for p in positions])
        random = np.random.default_rng((*self.seed, 1, step))
        offsets = random.integers(0, self.images.size - self.crop + 1, size=(self.batch, 2))
        flips = random.random(self.batch) < 0.5
        crops = np.empty((self.batch, self.crop, self.crop, 3), np.uint8)
        for row, ((_, face), (top, left), flip) in enumerate(zip(loaded, offsets, flips, strict=True)):
            cut = face[top : top + self.crop, left : left + self.crop]
            crops[row] = cut[:, ::-1] if flip else cut
        indices = [index for index, _ in loaded]
        labels = np.zeros(self.batch, np.int64) if self.labels is None else self.labels[indices]
        # A view of height × width × channels is already what PyTorch calls channels last.
        return torch.from_numpy(crops).permute(0, 3, 1, 2), torch.from_numpy(labels)

    def batches(self, start: int, stop: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches start … stop-1, made by a thread ahead of their use."""
        with ThreadPoolExecutor(1) as ahead:
            steps = iter(range(start, stop))
            queue = deque(ahead.submit(self.__getitem__, step) for step in islice(steps, PREFETCHED_BATCHES))
            try:
                while queue:
                    batch = queue.popleft().result()
                    queue.extend(ahead.submit(self.__getitem__, step) for step in islice(steps, 1))
                    yield batch
            finally:
                for future in queue:
                    future.cancel()

    def _permutation(self, epoch: int) -> np.ndarray:
        if epoch not in self._order:
            while len(self._order) > 1:
                del self._order[min(self._order)]
            self._order[epoch] = np.random.default_rng((*self.seed, 0, epoch)).permutation(len(self.images.folder))
        return self._order[epoch]
