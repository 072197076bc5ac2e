"""MTCNN's cascade (Zhang et al. 2016) for many images at once, with the networks and weights of facenet-pytorch.

Three stages, each a network that sees fewer and larger windows than the one before: P-Net judges every 12×12 window of
an image pyramid, R-Net its candidates at 24×24, O-Net what is left at 48×48. Each stage scores the boxes, shifts their
sides, and removes boxes that overlap better ones.

The arithmetic is that of `facenet_pytorch.MTCNN.detect`: to the letter with `reference`, else on a pixel grid where a
mirrored image gives mirrored points, and with zeros outside the image, as published. The loops differ. Candidates of
all images share the passes through the networks, and every resampling reads a summed-area table, where the mean over a
box costs four look-ups however large the box is.
The networks run on any device; the candidates, which are few, stay on the host, so that each stage waits for the device
once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import numpy as np
import torch
from torch import Tensor, nn

from facedan_cli.alignment.boxes import moved, squared, suppress, suppress_nested
from facedan_cli.alignment.mtcnn_networks import Networks
from facedan_cli.alignment.summed_area import SummedImages

CELL = 12  # side of the window that P-Net judges, pixels
STRIDE = 2  # between two windows of P-Net
FACTOR = 0.709  # between two levels of the pyramid: half the area
THRESHOLDS = (0.6, 0.7, 0.7)  # of P-Net, R-Net, O-Net

PIXELS_A_PASS = 1 << 22
CPU_PIXELS_A_PASS = 1 << 15
"""Pixels in a pass through a network. More are slower on a CPU, whose cache should hold the activations."""

CPU_PIXELS_A_STRIP = 1 << 17
"""Pixels of the strips in which larger levels go through P-Net; strips overlap by ten rows, which costs time."""

CPU_IMAGES_A_PASS = 8
"""Most images in a pass of P-Net on a CPU; empty images fill it up."""


@dataclass(frozen=True)
class Candidates:
    """Boxes that may hold faces, of all images together.

    Args:
        boxes: left, top, right, bottom, shape (n, 4), float32 pixels.
        scores: probabilities, shape (n,), float32.
        images: the index of each box's image, shape (n,).
    """

    boxes: np.ndarray
    scores: np.ndarray
    images: np.ndarray

    def __len__(self) -> int:
        return len(self.boxes)

    def __getitem__(self, which: np.ndarray) -> Candidates:
        return Candidates(self.boxes[which], self.scores[which], self.images[which])


def find_faces(
    images: Sequence[np.ndarray],
    min_faces: Sequence[float],
    networks: Networks,
    thresholds: tuple[float, float, float] = THRESHOLDS,
    *,
    reference: bool = False,
) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Find the faces in images of any sizes.

    Args:
        images: RGB, uint8, each of shape (height, width, 3).
        min_faces: side of the smallest face to look for in each image, pixels.
        networks: networks of `mtcnn_networks.load_networks`.
        thresholds: the probabilities that a candidate must exceed in the three stages.
        reference: whether boxes are rounded, and points placed, as facenet-pytorch does. Its points lie a pixel right
            of and below where they should: half of it because boxes are cut to whole pixels towards the upper left for
            the networks and points are placed in the boxes before the cut, half because points count from the corner
            of a pixel. Otherwise boxes are rounded to the nearest pixel's edges, points are placed in what the network
            has seen, and all count from the centre of the first pixel. facenet-pytorch also cuts boxes at the image's
            edge and stretches the rest, which distorts tight crops; the published cascade has zeros (black) outside.

    Returns:
        For each image the boxes (left, top, right, bottom; they may leave the image), shape (n, 4); their
        probabilities, shape (n,); and the points (eyes, nose, mouth corners, the image's left before its right), shape
        (n, 5, 2). All float32.

    Example:
        >>> from facedan_cli.alignment.mtcnn_networks import load_networks
        >>> networks = load_networks(torch.device("cpu"))
        >>> blank = np.full((60, 80, 3), 128, np.uint8)
        >>> ((boxes, probabilities, points),) = find_faces([blank], [40], networks)
        >>> boxes.shape, probabilities.shape, points.shape
        ((0, 4), (0,), (0, 5, 2))
    """
    # Images of one size become neighbours: they go through P-Net together.
    order = sorted(range(len(images)), key=lambda i: (images[i].shape, min_faces[i]))
    tables = SummedImages([images[i] for i in order])
    # n candidates of all images together; n shrinks from thousands to the faces themselves.
    with torch.inference_mode():
        candidates = _propose(tables, [min_faces[i] for i in order], networks, thresholds[0], reference)
        candidates = _refine(tables, candidates, networks, thresholds[1], reference)
        candidates, points = _locate(tables, candidates, networks, thresholds[2], reference)
    # Back to the caller's images, in the caller's order.
    found = {}
    for position, index in enumerate(order):
        own = candidates.images == position
        found[index] = candidates.boxes[own], candidates.scores[own], points[own]
    return [found[index] for index in range(len(images))]


def _propose(
    tables: SummedImages, min_faces: Sequence[float], networks: Networks, threshold: float, reference: bool
) -> Candidates:
    """Stage 1: P-Net on every level of every image's pyramid."""
    # Pass: a level of neighbours of one size, (images, height, width, 3), in strips where it is large. P-Net is fully
    # convolutional: of each 12×12 window, 2 pixels apart, it gives shifts of a box's sides, (images, 4, rows, columns),
    # and the probabilities of no face and a face, (images, 2, rows, columns).
    passes = []
    kinds = [(height, width, min_face) for (height, width), min_face in zip(tables.sizes, min_faces, strict=True)]
    for (height, width, min_face), run in groupby(range(len(kinds)), key=kinds.__getitem__):
        indices = list(run)
        for level, scale in enumerate(_scales(min(height, width), min_face)):
            size = int(height * scale + 1), int(width * scale + 1)
            step = _step(size[0] * size[1], networks.device)
            if networks.device.type == "cpu":
                step = min(CPU_IMAGES_A_PASS, step)
            for begin in range(indices[0], indices[-1] + 1, step):
                stop = min(begin + step, indices[-1] + 1)
                strips = []
                for strip in _strips(*size, networks.device):
                    pixels = tables.scaled(begin, stop, *size, strip)
                    outputs = networks.pnet(_filled(pixels, step, networks.device))
                    strips.append([output[: stop - begin] for output in outputs])
                # Read only when all are under way, so that a GPU does not wait for the host in between.
                scales = (scale, scale) if reference else (size[1] / width, size[0] / height)
                passes.append((level, begin, scales, [torch.cat(parts, 2) for parts in zip(*strips, strict=True)]))
    # Windows whose probability reaches the threshold become boxes in pixels of their image.
    found = [
        _windows(shifts.cpu().numpy(), scores.cpu().numpy(), begin, scales, threshold, reference)
        for _, begin, scales, (shifts, scores) in passes
    ]
    if not found:
        return Candidates(np.empty((0, 4), np.float32), np.empty(0, np.float32), np.empty(0, np.int64))
    boxes, scores, images, shifts = (np.concatenate(parts) for parts in zip(*found, strict=True))
    # One face is found in many windows and on several levels. Boxes that a better one overlaps are removed within each
    # level first: the levels of an image are laid side by side, which whole numbers survive exactly; then among all.
    levels = np.repeat([level for level, *_ in passes], [len(part[1]) for part in found])
    aside = (levels * 2 * tables.sizes.max()).astype(np.float32)
    kept = suppress(boxes + aside[:, None], scores, images, 0.5)
    kept = kept[suppress(boxes[kept], scores[kept], images[kept], 0.7)]
    # The remaining boxes are shifted by P-Net's corrections and made square for R-Net.
    last = 0 if reference else 1  # facenet-pytorch leaves the last pixel out of the sides here, and nowhere else
    return Candidates(squared(moved(boxes[kept], shifts[kept], last)), scores[kept], images[kept])


def _refine(
    tables: SummedImages, candidates: Candidates, networks: Networks, threshold: float, reference: bool
) -> Candidates:
    """Stage 2: R-Net on the candidates at 24×24."""
    candidates, (shifts, scores) = _judge(
        tables, candidates, networks.rnet, side=24, widths=(4, 2), device=networks.device, reference=reference
    )
    # shifts (n, 4), scores (n, 2): no face, face.
    passed = np.flatnonzero(scores[:, 1] > threshold)
    kept = passed[suppress(candidates.boxes[passed], scores[passed, 1], candidates.images[passed], 0.7)]
    boxes = moved(candidates.boxes[kept], shifts[kept])
    return Candidates(squared(boxes), scores[kept, 1], candidates.images[kept])


def _locate(
    tables: SummedImages, candidates: Candidates, networks: Networks, threshold: float, reference: bool
) -> tuple[Candidates, np.ndarray]:
    """Stage 3: O-Net on the candidates at 48×48, which also gives the five points."""
    candidates, (shifts, points, scores) = _judge(
        tables, candidates, networks.onet, side=48, widths=(4, 10, 2), device=networks.device, reference=reference
    )
    # shifts (n, 4), scores (n, 2), points (n, 10): five x, then five y, as shares of the box that O-Net saw.
    passed = np.flatnonzero(scores[:, 1] > threshold)
    boxes, points = candidates.boxes[passed], points[passed].reshape(-1, 2, 5).transpose(0, 2, 1)
    sides = boxes[:, 2:] - boxes[:, :2] + 1
    # A box's first pixel, counted from one, begins half a pixel before its centre.
    points = sides[:, None] * points + boxes[:, None, :2] - np.float32(1 if reference else 1.5)
    boxes, scores, images = moved(boxes, shifts[passed]), scores[passed, 1], candidates.images[passed]
    kept = suppress_nested(boxes, scores, images)
    from_zero = boxes if reference else boxes - 1
    return Candidates(from_zero[kept], scores[kept], images[kept]), points[kept]


def _scales(side: int, min_face: float) -> Iterator[float]:
    """Scales of the pyramid, falling: first the smallest face fills P-Net's window, at last the image still does."""
    scale = CELL / min_face
    reduced = side * scale
    while reduced >= CELL:
        yield scale
        scale *= FACTOR
        reduced *= FACTOR


def _strips(height: int, width: int, device: torch.device) -> list[slice]:
    """The strips of a level's rows that go through P-Net at once; each row of windows lies in one strip."""
    windows = (height - CELL) // STRIDE + 1
    step = windows
    if device.type == "cpu":
        step = max(1, (CPU_PIXELS_A_STRIP // width - CELL) // STRIDE + 1)
    return [
        slice(STRIDE * first, STRIDE * (first + step - 1) + CELL if first + step < windows else height)
        for first in range(0, windows, step)
    ]


def _windows(
    shifts: np.ndarray,
    scores: np.ndarray,
    first: int,
    scales: tuple[float, float],
    threshold: float,
    reference: bool,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The candidates of P-Net's maps: boxes, scores, images and corrections of the boxes."""
    image, row, column = np.nonzero(scores[:, 1] >= threshold)
    start = STRIDE * np.stack([column, row], axis=1).astype(np.float32)
    steps = np.array(scales, np.float32)
    if reference:
        boxes = np.floor(np.hstack([(start + 1) / steps, (start + CELL) / steps]))
    else:
        boxes = np.hstack([np.rint(start / steps) + 1, np.rint((start + CELL) / steps)])
    return boxes, scores[image, 1, row, column], first + image, shifts[image, :, row, column]


def _judge(
    tables: SummedImages,
    candidates: Candidates,
    net: nn.Module,
    *,
    side: int,
    widths: tuple[int, ...],
    device: torch.device,
    reference: bool,
) -> tuple[Candidates, list[np.ndarray]]:
    """Pass the candidates that lie at least partly in their images through a network with outputs of these widths.

    Returns:
        The candidates that it judged, their boxes as it saw them (by facenet-pytorch's arithmetic as they were before);
        and what it says of them.
    """
    # 1. Boxes to whole pixels; what is outside the image is black, or is cut off. MTCNN counts pixels from one, both
    # ends included.
    corners = (candidates.boxes if reference else np.rint(candidates.boxes)).astype(np.int64)
    corners[:, :2] -= 1
    size = tables.sizes[candidates.images][:, ::-1]
    cut = np.hstack([np.maximum(corners[:, :2], 0), np.minimum(corners[:, 2:], size)])
    inside = np.flatnonzero((cut[:, 2:] > cut[:, :2]).all(1))
    candidates, corners = candidates[inside], (cut if reference else corners)[inside]
    if not reference:
        seen = np.hstack([corners[:, :2] + 1, corners[:, 2:]]).astype(np.float32)
        candidates = replace(candidates, boxes=seen)
    if not len(candidates):
        return candidates, [np.empty((0, width), np.float32) for width in widths]
    # 2. Crops (n, side, side, 3) through the network, some at a time; read when all are under way.
    step = max(16, _step(side * side, device) // 16 * 16)
    passes = []
    for i in range(0, len(candidates), step):
        crops = tables.crops(candidates.images[i : i + step], corners[i : i + step], side)
        passes.append(net(_filled(crops, 16, device)))
    return candidates, [torch.cat(outputs)[: len(candidates)].cpu().numpy() for outputs in zip(*passes, strict=True)]


def _filled(inputs: np.ndarray, step: int, device: torch.device) -> Tensor:
    """Inputs (n, height, width, 3) on a device, channels last; on a CPU with zeros up to a multiple of `step`.

    On a CPU the libraries choose other kernels, which give other last bits, for other numbers of inputs: what is found
    in an image must not depend on the others of its batch.
    """
    if device.type == "cpu" and (missing := -len(inputs) % step):
        inputs = np.concatenate([inputs, np.zeros((missing, *inputs.shape[1:]), inputs.dtype)])
    # A view of height × width × channels has the strides of PyTorch's channels last.
    return torch.from_numpy(inputs).permute(0, 3, 1, 2).to(device)


def _step(pixels: int, device: torch.device) -> int:
    """The number of inputs of `pixels` pixels in a pass through a network."""
    return max(1, (CPU_PIXELS_A_PASS if device.type == "cpu" else PIXELS_A_PASS) // pixels)
