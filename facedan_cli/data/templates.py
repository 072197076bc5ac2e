"""From points of a face to a template: similarity transforms and the warp (paper, Section IV-A)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from facedan_cli.config import templates as table
from facedan_cli.config.templates import TemplateEntry

POINT_NAMES = ("image_left_eye", "image_right_eye", "nose", "image_left_mouth", "image_right_mouth")
"""The five points; left and right are the image's, so that image_left_eye is the subject's right eye."""


@dataclass(frozen=True)
class Template:
    """Where points of a face lie in an aligned image: (x, y) in pixels, 0 the first pixel's centre."""

    entry: TemplateEntry

    def points(self, size: int, count: int | None = None) -> np.ndarray:
        """The points for aligned images of a size, shape (count, 2).

        Args:
            size: side of the image, pixels.
            count: 2 (the eyes), 3 (and the mouth's centre) or 5 (those of `POINT_NAMES`); by default as many as the
                similarity fits.
        """
        return _scaled(anchors(np.array(self.entry.points), count or self.entry.fitted), self.entry, size)

    def shown(self, size: int, scaled_to: int, count: int | None = None) -> np.ndarray:
        """The same for images of `size` that are then scaled to `scaled_to` pixels, as readers of faces do."""
        if self.entry.scaling == "edge":
            return self.points(scaled_to, count)
        return (self.points(size, count) + 0.5) * (scaled_to / size) - 0.5

    def draw(self, image: np.ndarray, matrix: np.ndarray, size: int) -> np.ndarray:
        """The aligned face, as `warp`; with a margin the middle of a larger one, which has the same pixels there."""
        margin = round(self.entry.margin * size)
        if not margin:
            return warp(image, matrix, size)
        larger = warp(image, matrix + np.array([[0, 0, margin]] * 2), size + 2 * margin)
        return np.ascontiguousarray(larger[margin:-margin, margin:-margin])


def _scaled(points: np.ndarray, entry: TemplateEntry, size: int) -> np.ndarray:
    scale = size / entry.size
    if entry.scaling == "edge":
        # An image scales about its corner, which lies half a pixel outside the centre of the first pixel.
        return (points + 0.5) * scale - 0.5
    if entry.scaling == "insightface" and size % 112 and not size % 128:
        points, scale = points + np.array([8, 0]), size / 128
    return points * scale


TEMPLATES = {name: Template(entry) for name, entry in table.TEMPLATES.items()}


def shows_the_same(template: str, size: int, other: str, other_size: int) -> bool:
    """Whether faces on two templates in two sizes differ by scale alone, to half a hundredth of their side."""
    one, two = (TEMPLATES[name].shown(side, 1000, 5) for name, side in ((template, size), (other, other_size)))
    return bool(np.abs(one - two).max() < 5)


def anchors(points: np.ndarray, count: int) -> np.ndarray:
    """Of the five points of `POINT_NAMES`, (5, 2), those that a similarity of `count` fits, (count, 2)."""
    return points if count == 5 else three_points(points)[:count]


def three_points(points: np.ndarray) -> np.ndarray:
    """The eyes and the centre of the mouth, (3, 2), of the five points of `POINT_NAMES`, (5, 2)."""
    return np.stack([points[0], points[1], (points[3] + points[4]) / 2])


def similarity(points: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """The rotation, scale and shift that bring points nearest to their targets, by least squares (Umeyama 1991).

    In two dimensions the closed form is a quotient of complex numbers: with both sets centred, z ↦ a·z is best for
    a = Σ z̄·w / Σ |z|², and it cannot reflect.

    Args:
        points: (x, y), shape (n, 2), n ≥ 2; with two points the transform is exact.
        targets: where they should lie, shape (n, 2).

    Returns:
        The matrix M, shape (2, 3), with targets ≈ M · (x, y, 1).

    Raises:
        ValueError: fewer than two points, points that are not finite, or all in one place.

    Example:
        Two eyes, one above the other, are brought to a level line with twice their distance.

        >>> eyes, level = np.array([(30, 50), (30, 30)]), np.array([(40, 60), (80, 60)])
        >>> matrix = similarity(eyes, level)
        >>> (matrix @ (30, 30, 1)).round(6).tolist()
        [80.0, 60.0]
        >>> warp(np.zeros((100, 90, 3), np.uint8), matrix, 112).shape
        (112, 112, 3)
    """
    points, targets = np.asarray(points, np.float64), np.asarray(targets, np.float64)
    if points.shape != targets.shape or points.ndim != 2 or points.shape[0] < 2 or points.shape[1] != 2:
        raise ValueError(f"two or more points and as many targets are needed, not {points.shape} and {targets.shape}")
    if not (np.isfinite(points).all() and np.isfinite(targets).all()):
        raise ValueError("the points are not finite")
    centre, target_centre = points.mean(0), targets.mean(0)
    z = (points - centre) @ (1, 1j)
    w = (targets - target_centre) @ (1, 1j)
    spread = np.vdot(z, z).real
    product = np.vdot(z, w)
    if math.sqrt(spread) <= 1e-6 * max(1.0, np.abs(points).max()) or product == 0:
        raise ValueError("the points coincide")
    a = product / spread
    turn = np.array([[a.real, -a.imag], [a.imag, a.real]])
    return np.column_stack([turn, target_centre - turn @ centre])


def warp(image: np.ndarray, matrix: np.ndarray, size: int) -> np.ndarray:
    """Warp an image by a similarity transform into a square.

    A transform that shrinks would alias: the image is first reduced by area to the scale of the square. Outside the
    image its edge pixels are repeated: black corners would mark the data sets whose images are cropped tightly, and a
    network learns such marks easily.

    Args:
        image: uint8, shape (height, width) or (height, width, channels).
        matrix: from coordinates in the image to coordinates in the square, shape (2, 3).
        size: side of the square, pixels.

    Returns:
        uint8, shape (size, size) or (size, size, channels).
    """
    scale = math.hypot(matrix[0, 0], matrix[1, 0])
    if scale < 1:
        image, matrix = _reduced(image, matrix, size, scale)
    return cv2.warpAffine(image, matrix, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def _reduced(image: np.ndarray, matrix: np.ndarray, size: int, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """The part of the image that the square shows, smaller by `scale`, and the transform from there to the square."""
    turn, shift = matrix[:, :2], matrix[:, 2]
    square = np.array([(-1, -1), (size, -1), (-1, size), (size, size)])
    seen = np.linalg.solve(turn, (square - shift).T).T
    limits = np.array(image.shape[1::-1])
    start = np.clip(np.floor(seen.min(0)) - 1, 0, limits - 1).astype(int)
    stop = np.clip(np.ceil(seen.max(0)) + 2, start + 1, limits).astype(int)
    part = image[start[1] : stop[1], start[0] : stop[0]]
    sides = np.maximum(1, np.rint((stop - start) * scale)).astype(int)
    small = cv2.resize(part, (int(sides[0]), int(sides[1])), interpolation=cv2.INTER_AREA)
    # A pixel p of `small` lies at (p + ½)·steps − ½ + start in the image.
    steps = (stop - start) / sides
    return small, np.column_stack([turn * steps, turn @ (steps / 2 - 0.5 + start) + shift])
