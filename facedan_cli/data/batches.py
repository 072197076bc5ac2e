"""Batches of faces on the device: decoding, faces by index, and seeded streams of augmented crops."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from facedan_cli.data.cache import Cache, expect
from facedan_cli.data.dataset import FaceDataset
from facedan_cli.data.images import UnreadableImage, read_image
from facedan_cli.errors import FacedanError
from facedan_cli.report import SILENT, Report

CPU = torch.device("cpu")

PREFETCHED_BATCHES = 3

WINDOW = 256
"""Decoded faces that wait for their turn."""

DECODING_AHEAD = 2
"""Number of batches decoded at a time, so that the pool starts the next one while the last faces of a batch come in.

Cached faces are made into one batch at a time: more threads would only delay the training thread.
"""


def read_face(path: Path, size: int) -> np.ndarray:
    """An aligned face, RGB, uint8, shape (size, size, 3); other shapes are scaled and cropped about the centre.

    Raises:
        UnreadableImage: with the reason.
    """
    return square_face(read_image(path), size)


def square_face(image: np.ndarray, size: int) -> np.ndarray:
    """An image's central square, scaled to (size, size, channels)."""
    height, width = image.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = image[top : top + side, left : left + side]
    if side == size:
        return square
    shrinking = cv2.INTER_AREA if side > size else cv2.INTER_CUBIC
    return cv2.resize(square, (size, size), interpolation=shrinking)


def read_faces(
    folder: FaceDataset, indices: Sequence[int], size: int, pool: ThreadPoolExecutor
) -> Iterator[tuple[int, np.ndarray | UnreadableImage]]:
    """Yield decoded faces in order, read by the pool's threads, at most WINDOW of them in memory."""

    def read(index: int) -> np.ndarray | UnreadableImage:
        try:
            return read_face(folder.root / folder.paths[index], size)
        except UnreadableImage as error:
            return error

    waiting = iter(indices)
    queue = deque((index, pool.submit(read, index)) for index in islice(waiting, WINDOW))
    while queue:
        index, future = queue.popleft()
        queue.extend((following, pool.submit(read, following)) for following in islice(waiting, 1))
        yield index, future.result()


class FaceStore:
    """The decoded faces of a data set by index, from a cache or from the files.

    An image that cannot be read is replaced by the next one that can; its path and the reason are in `unreadable`.

    Args:
        folder: the data set.
        size: side of a face, pixels.
        pool: its threads decode.
        report: told of the progress where all faces are read at once.
        cache: cache of the decoded faces.
    """

    def __init__(
        self,
        folder: FaceDataset,
        size: int,
        pool: ThreadPoolExecutor,
        report: Report = SILENT,
        cache: Cache = Cache(),  # noqa: B008  (it is frozen)
    ) -> None:
        self.folder = folder
        self.size = size
        self._pool = pool
        decoded = cache.keep(folder, size, read_faces(folder, range(len(folder)), size, pool), report)
        self.unreadable: dict[str, str] = {} if decoded is None else decoded.unreadable
        self._kept = None if decoded is None else decoded.faces
        self._rows = np.arange(len(folder))

    def part(self, folder: FaceDataset) -> FaceStore:
        """A store of some of these images, with the same cache and `unreadable`.

        Args:
            folder: the data set of these images, in any order.
        """
        rows = dict(zip(self.folder.paths, self._rows, strict=True))
        part = copy(self)
        part.folder = folder
        part._rows = np.array([rows[path] for path in folder.paths], np.int64)
        return part

    @property
    def decoding(self) -> bool:
        """Whether each use of a face decodes it again."""
        return self._kept is None

    def load(self, indices: Sequence[int]) -> list[tuple[int, np.ndarray]]:
        """The faces at these indices, with their indices; the next readable face replaces an unreadable one.

        Raises:
            FacedanError: no image of the data set can be read.
        """
        if self._kept is None:
            return list(self._pool.map(self._readable, indices))
        expect(self._kept, self._rows[list(indices)].tolist())
        return [self._readable(index) for index in indices]

    def _readable(self, index: int) -> tuple[int, np.ndarray]:
        for candidate in range(index, index + len(self.folder)):
            actual = candidate % len(self.folder)
            path = self.folder.paths[actual]
            if path in self.unreadable:
                continue
            if self._kept is not None:
                return actual, self._kept[self._rows[actual]]
            try:
                return actual, read_face(self.folder.root / path, self.size)
            except UnreadableImage as error:
                self.unreadable[path] = str(error)
        raise FacedanError(f"no image under {self.folder.root} can be read", "check what the files are")


@dataclass(frozen=True)
class BatchStream:
    """An endless shuffled stream of augmented crops; batch number i is a pure function of the seed and i.

    So an interrupted run continues with the same batches, without saved state. Each epoch is a
    new permutation; a batch may straddle two of them, and no image is left out. With several processes, each takes its
    rows of the same batches.

    Args:
        images: the faces.
        labels: class of each image, or None for an unlabelled target.
        batch: images a batch, of all processes together.
        crop: side of the random crop, pixels; it is mirrored with probability one half (paper, Section IV-B).
        seed: streams of different seeds are independent.
        rows: consecutive rows of each batch that this process takes; all by default.
        change: changes each face before it is cropped, such as an augmentation; given the face, its index and random
            numbers that the seed, the step and the row determine. None: faces stay as they are.
    """

    images: FaceStore
    labels: np.ndarray | None
    batch: int
    crop: int
    seed: tuple[int, ...]
    rows: range | None = None
    change: Callable[[np.ndarray, int, np.random.Generator], np.ndarray] | None = None

    def __getitem__(self, step: int) -> tuple[Tensor, Tensor]:
        """Batch number `step`: RGB crops, uint8, (rows, 3, crop, crop), and labels, zeros without identities."""
        faces, labels, corners, flips = self._drawn(step)
        crops = np.empty((len(faces), self.crop, self.crop, 3), np.uint8)
        for crop, face, (top, left), flip in zip(crops, faces, corners, flips, strict=True):
            window = face[top : top + self.crop, left : left + self.crop]
            if flip:
                cv2.flip(window, 1, dst=crop)
            else:
                crop[:] = window
        # A view of height × width × channels is already what PyTorch calls channels last.
        return torch.from_numpy(crops).permute(0, 3, 1, 2), torch.from_numpy(labels)

    def batches(self, start: int, stop: int, device: torch.device = CPU) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield batches start … stop-1 on a device; threads prepare and send them ahead of their use."""
        side = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]
        make = self.__getitem__ if device.type == "cpu" else partial(self._sent, device=device, side=side)
        with ThreadPoolExecutor(DECODING_AHEAD if self.images.decoding else 1) as ahead:
            steps = iter(range(start, stop))
            queue = deque(ahead.submit(make, step) for step in islice(steps, PREFETCHED_BATCHES))
            try:
                while queue:
                    batch = queue.popleft().result()
                    queue.extend(ahead.submit(make, step) for step in islice(steps, 1))
                    if side is not None:
                        _hand_over(batch, side)
                    yield batch
            finally:
                for future in queue:
                    future.cancel()

    def _sent(self, step: int, device: torch.device, side: torch.cuda.Stream | None) -> tuple[Tensor, Tensor]:
        """The batch `self[step]` on a device; a GPU cuts the crops beside its other work.

        From memory that the system cannot move, a GPU fetches faces on its own. Whole ones: to copy them is the least
        work here.
        """
        faces, labels, corners, flips = self._drawn(step)
        shape = (len(faces), self.images.size, self.images.size, 3)

        def send(values: Tensor) -> Tensor:
            return (values if side is None else values.pin_memory()).to(device, non_blocking=True)

        with torch.cuda.stream(side):
            staged = torch.empty(shape, dtype=torch.uint8, pin_memory=side is not None)
            for place, face in zip(staged.numpy(), faces, strict=True):
                place[:] = face
            where = send(torch.from_numpy(corners)), send(torch.from_numpy(flips))
            return cut(send(staged), *where, self.crop), send(torch.from_numpy(labels))

    def _drawn(self, step: int) -> tuple[list[np.ndarray], np.ndarray, np.ndarray, np.ndarray]:
        """Faces, labels, corners of the crops (rows, 2), and which crops are mirrored, for a batch."""
        rows = slice(None) if self.rows is None else slice(self.rows.start, self.rows.stop)
        count = len(self.images.folder)
        positions = np.arange(step * self.batch, (step + 1) * self.batch)[rows].tolist()
        loaded = self.images.load([int(_permutation(self.seed, p // count, count)[p % count]) for p in positions])
        random = np.random.default_rng((*self.seed, 1, step))
        corners = random.integers(0, self.images.size - self.crop + 1, size=(self.batch, 2))
        flips = random.random(self.batch) < 0.5
        labels = np.zeros(len(loaded), np.int64)
        if self.labels is not None:
            labels = self.labels[[index for index, _ in loaded]]
        faces = [face for _, face in loaded]
        if self.change is not None:
            numbers = range(self.batch)[rows]
            faces = [
                self.change(face, index, np.random.default_rng((*self.seed, 2, step, row)))
                for row, (index, face) in zip(numbers, loaded, strict=True)
            ]
        return faces, labels, corners[rows], flips[rows]


def cut(faces: Tensor, corners: Tensor, flips: Tensor, crop: int) -> Tensor:
    """The crops of faces, cut by one gather on the faces' device.

    Args:
        faces: shape (b, size, size, 3).
        corners: row and column of each crop's first pixel, int64, shape (b, 2).
        flips: which crops are mirrored, bool, shape (b,).
        crop: their side, pixels.

    Returns:
        Shape (b, 3, crop, crop), channels last.
    """
    along = torch.arange(crop, device=faces.device)
    rows = corners[:, :1] + along
    columns = corners[:, 1:] + torch.where(flips[:, None], along.flip(0), along)
    image = torch.arange(len(faces), device=faces.device)
    return faces[image[:, None, None], rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def _hand_over(batch: tuple[Tensor, Tensor], side: torch.cuda.Stream) -> None:
    """Make the caller's stream wait for a batch, and keep the batch's memory until that stream has used it."""
    current = torch.cuda.current_stream(side.device)
    current.wait_stream(side)
    for tensor in batch:
        tensor.record_stream(current)


@lru_cache(maxsize=8)  # two streams, each with batches under way that lie in up to three epochs
def _permutation(seed: tuple[int, ...], epoch: int, count: int) -> np.ndarray:
    return np.random.default_rng((*seed, 0, epoch)).permutation(count)
