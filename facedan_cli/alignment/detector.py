"""Faces in images: the search by MTCNN's cascade, its second pass, and the choice of the subject's face."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch

from facedan_cli.alignment.mtcnn import THRESHOLDS, find_faces
from facedan_cli.alignment.mtcnn_networks import Networks, load_networks

SMALL_SIDE = 160
"""Shorter side to which smaller images are enlarged; MTCNN finds hardly any face in thumbnails."""

LARGE_SIDE = 2048
"""Longest side to which larger images are reduced, which bounds memory and time."""

LEAST_LARGE_SIDE = 1536
"""Smallest longer side to which a large image is decoded; landmarks stay exact."""

SMALLEST_FACE = 20
"""Smallest face that is detected, in pixels of the searched image; R-Net and O-Net see 24 and 48."""


BORDER = 0.3
"""Width of the border of tight crops, as a share of the longer side."""

FILLING = 0.4
"""Smallest face that is looked for in an image with a border, as a share of the image's shorter side."""

LOW_THRESHOLDS = (0.5, 0.6, 0.6)
"""Thresholds of the last attempt; the others have `mtcnn.THRESHOLDS`."""


@dataclass(frozen=True)
class Face:
    """A face in an image.

    Args:
        box: left, top, right, bottom, pixels; it may leave the image.
        probability: O-Net's, 0.6 … 1.
        points: (x, y) of the points named `templates.POINT_NAMES`, shape (5, 2).
        attempt: the search that found it, such as "contrast stretched"; "" for the first.
    """

    box: tuple[float, float, float, float]
    probability: float
    points: np.ndarray
    attempt: str = ""


@dataclass(frozen=True)
class _Attempt:
    """One way of searching an image.

    Args:
        name: name in the manifest.
        stretched: whether the contrast is stretched before.
        turns: quarter turns to the left before.
        smaller: divisor of the smallest face.
        thresholds: thresholds of the cascade.
        border: how the image goes on beyond its edges, of OpenCV; None: no border. Only faces that nearly fill the
            image are looked for then.
    """

    name: str
    stretched: bool = False
    turns: int = 0
    smaller: float = 1.0
    border: int | None = None
    thresholds: tuple[float, float, float] = THRESHOLDS


_FIRST = _Attempt("")
# Each group takes what those before have missed; of a group the most probable face is kept. What looks like a face by
# the usual thresholds goes before what only does by lower ones: the later the group, the likelier is a false face.
_SECOND_PASS = (
    (
        _Attempt("contrast stretched", stretched=True),
        _Attempt("turned to the left", turns=1),
        _Attempt("turned to the right", turns=3),
        _Attempt("upside down", turns=2),
        _Attempt("black border", border=cv2.BORDER_CONSTANT),
    ),
    (_Attempt("repeated border", border=cv2.BORDER_REPLICATE),),
    (_Attempt("smaller faces", stretched=True, smaller=2.0),),
    (_Attempt("lower thresholds", stretched=True, thresholds=LOW_THRESHOLDS),),
)


class Detector:
    """MTCNN with facenet-pytorch's weights, for images of any sizes.

    Args:
        device: device of the networks.
        min_face: side of the smallest face to look for, pixels of the image; if that is less, a quarter of the
            shorter side of one that is enlarged; if that is more, SMALLEST_FACE pixels of one that is reduced.
        second_pass: search again where none is found.
        reference: search as facenet-pytorch does, with points a pixel too far right and below, and candidates cut at
            the image's edge (`mtcnn.find_faces`); and without a border in the second pass.
    """

    def __init__(
        self, device: torch.device, min_face: int, second_pass: bool = True, *, reference: bool = False
    ) -> None:
        self._reference = reference
        self._device = device
        self._networks: Networks | None = None
        self._min_face = min_face
        self._second_pass = second_pass

    def load(self) -> Networks:
        """The cascade's networks, read when they are first wanted: where all landmarks are given they never are."""
        if self._networks is None:
            self._networks = load_networks(self._device)
        return self._networks

    def reduction(self, size: tuple[int, int]) -> int:
        """Factor by which an image may be reduced before the search: 1, 2, 4 or 8.

        Large images are searched in a smaller copy anyway. Faces that have SMALLEST_FACE pixels there keep them, and
        the longer side stays above LEAST_LARGE_SIDE.
        """
        longer = max(size)
        if longer <= LARGE_SIDE:
            return 1
        most = min(max(self._min_face / SMALLEST_FACE, longer / LARGE_SIDE), longer / LEAST_LARGE_SIDE)
        return max(factor for factor in (1, 2, 4, 8) if factor <= most)

    def detect(self, images: Sequence[np.ndarray], reduced: Sequence[float] | None = None) -> list[list[Face]]:
        """The faces in each image; many images at once are faster.

        MTCNN learnt from clear, upright images. Images in which it finds no face are searched again: with their
        contrast stretched, turned, with a border, for smaller faces, and by lower thresholds, until one is found.

        Args:
            images: RGB, uint8, each of shape (height, width, 3).
            reduced: factor by which each image was reduced, which `min_face` is divided by; 1 by default.

        Returns:
            The faces of each image, the most probable first.
        """
        factors = [1.0] * len(images) if reduced is None else reduced
        found = self._search(images, factors, _FIRST)
        for every in _SECOND_PASS if self._second_pass else ():
            group = [attempt for attempt in every if attempt.border is None or not self._reference]
            if not group:
                continue
            missed = [index for index, faces in enumerate(found) if not faces]
            those = [images[index] for index in missed], [factors[index] for index in missed]
            attempts = [self._search(*those, attempt) for attempt in group]
            for index, *results in zip(missed, *attempts, strict=True):
                found[index] = max(results, key=lambda faces: faces[0].probability if faces else 0.0)
        return found

    def _search(self, images: Sequence[np.ndarray], reduced: Sequence[float], attempt: _Attempt) -> list[list[Face]]:
        if not images:
            return []
        seen = [_stretched(image) if attempt.stretched else image for image in images]
        wide = [_bordered(image, attempt.border) for image in seen]
        turned = [np.ascontiguousarray(np.rot90(image, attempt.turns)) for image in wide]
        scaled = [_scaled(image) for image in turned]
        asked = [self._min_face / (factor * attempt.smaller) for factor in reduced]
        if attempt.border is not None:
            asked = [max(least, FILLING * min(image.shape[:2])) for least, image in zip(asked, images, strict=True)]
        min_faces = [
            self._min_face_in(image, copy, least) for image, copy, least in zip(turned, scaled, asked, strict=True)
        ]
        found = find_faces(scaled, min_faces, self.load(), attempt.thresholds, reference=self._reference)
        upright = [
            [_turned_back(face, attempt, image) for face in _faces(rotated, copy, *faces)]
            for image, rotated, copy, faces in zip(wide, turned, scaled, found, strict=True)
        ]
        if attempt.border is None:
            return upright
        return [[_without_border(face, image) for face in faces] for faces, image in zip(upright, images, strict=True)]

    def _min_face_in(self, image: np.ndarray, scaled: np.ndarray, asked: float) -> float:
        shorter, shorter_scaled = int(min(image.shape[:2])), int(min(scaled.shape[:2]))
        min_face = asked * shorter_scaled / shorter
        if shorter_scaled > shorter:
            return min(min_face, shorter_scaled / 4)
        return max(min_face, min(self._min_face, SMALLEST_FACE))


def enlargement(smaller: tuple[int, int], larger: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Factors and offsets, both (x, y), from points of a reduced image to those of the larger one.

    Args:
        smaller: width and height.
        larger: width and height.
    """
    steps = np.array(larger) / np.array(smaller)
    # An image scales about its corner, half a pixel outside the centre of the first pixel.
    return steps, (steps - 1) / 2


def enlarged(face: Face, smaller: tuple[int, int], larger: tuple[int, int]) -> Face:
    """A face of a reduced image in pixels of the larger one."""
    steps, shift = enlargement(smaller, larger)
    box = (np.array(face.box, float).reshape(2, 2) * steps + shift).ravel()
    return replace(face, box=tuple(box.tolist()), points=face.points * steps + shift)


def choose(faces: Sequence[Face], width: int, height: int) -> Face:
    """The face with the largest score: area of its box less twice the squared distance from the image's centre.

    That is FaceNet's rule, the field's usual one: a large face at the margin gives way to a smaller one in the middle.

    Args:
        faces: at least one.
        width: width of the image, pixels.
        height: height of the image, pixels.
    """

    def prominence(face: Face) -> float:
        left, top, right, bottom = face.box
        off_x, off_y = (left + right - width + 1) / 2, (top + bottom - height + 1) / 2
        return (right - left) * (bottom - top) - 2 * (off_x**2 + off_y**2)

    return max(faces, key=prominence)


def _scaled(image: np.ndarray) -> np.ndarray:
    shorter, longer = sorted(image.shape[:2])
    scale = min(max(1.0, SMALL_SIDE / shorter), LARGE_SIDE / longer)
    if scale == 1:
        return image
    size = max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))
    return cv2.resize(image, size, interpolation=cv2.INTER_CUBIC if scale > 1 else cv2.INTER_AREA)


def _border(image: np.ndarray) -> int:
    """Width of the image's border, pixels."""
    return round(BORDER * float(max(image.shape[:2])))


def _bordered(image: np.ndarray, kind: int | None) -> np.ndarray:
    """The image with a border of a kind of OpenCV's; itself without one."""
    if kind is None:
        return image
    width = _border(image)
    bordered: np.ndarray = cv2.copyMakeBorder(image, width, width, width, width, kind, value=(0, 0, 0))
    return bordered


def _without_border(face: Face, image: np.ndarray) -> Face:
    """A face of an image with a border in pixels of the image itself."""
    width = _border(image)
    left, top, right, bottom = (edge - width for edge in face.box)
    return replace(face, box=(left, top, right, bottom), points=face.points - width)


def _stretched(image: np.ndarray) -> np.ndarray:
    """The image with stretched contrast: its darkest and brightest hundredths become black and white."""
    low, high = np.percentile(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), (1, 99))
    scale = 255 / max(high - low, 16)  # less than 16 grey levels is nothing but noise
    stretched: np.ndarray = cv2.convertScaleAbs(np.maximum(image, np.uint8(low)), alpha=scale, beta=-low * scale)
    return stretched


def _faces(
    image: np.ndarray, scaled: np.ndarray, boxes: np.ndarray, scores: np.ndarray, points: np.ndarray
) -> list[Face]:
    """Faces of a scaled image in pixels of the original, the most probable first."""
    steps, shift = enlargement(scaled.shape[1::-1], image.shape[1::-1])
    corners = (boxes.reshape(-1, 2, 2) * steps + shift).reshape(-1, 4)
    points = points * steps + shift
    order = np.argsort(-scores, kind="stable")
    return [Face(tuple(corners[i].tolist()), float(scores[i]), points[i]) for i in order]


def _turned_back(face: Face, attempt: _Attempt, image: np.ndarray) -> Face:
    """A face of a turned image in the frame of the image itself."""
    height, width = image.shape[:2]
    corners, points = np.array(face.box, float).reshape(2, 2), face.points
    for turn in range(attempt.turns):
        # The turn before this one had the image's own shape or the swapped one.
        across = width if (attempt.turns - turn) % 2 else height
        corners, points = _one_turn_back(corners, across), _one_turn_back(points, across)
    box = (*corners.min(axis=0).tolist(), *corners.max(axis=0).tolist())
    return replace(face, box=box, points=points, attempt=attempt.name)


def _one_turn_back(points: np.ndarray, width: int) -> np.ndarray:
    """Points (x, y) of an image turned to the left, in the frame of the image before, `width` pixels wide."""
    return np.stack([width - 1 - points[:, 1], points[:, 0]], axis=1)
