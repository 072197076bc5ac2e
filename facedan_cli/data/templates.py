"""From points of a face to a template: similarity transforms and the warp (paper, Section IV-A)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from facedan_cli.config.templates import TEMPLATE_POINTS

POINT_NAMES = ("image_left_eye", "image_right_eye", "nose", "image_left_mouth", "image_right_mouth")
"""The five points; left and right are the image's, so that image_left_eye is the subject's right eye."""

TEMPLATE_SIZE = 250


@dataclass(frozen=True)
class Template:
    """Where three points of a face lie in an aligned image of 250×250: (x, y) in pixels, 0 the first pixel's centre."""

    image_left_eye: tuple[float, float]
    image_right_eye: tuple[float, float]
    mouth: tuple[float, float]

    def points(self, size: int) -> np.ndarray:
        """The three points for aligned images of another size, shape (3, 2)."""
        points = np.array([self.image_left_eye, self.image_right_eye, self.mouth])
        # An image scales about its corner, which lies half a pixel outside the centre of the first pixel.
        return (points + 0.5) * (size / TEMPLATE_SIZE) - 0.5


TEMPLATES = {name: Template(*points) for name, points in TEMPLATE_POINTS.items()}


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
