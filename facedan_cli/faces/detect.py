"""Faces in photographs: found by MTCNN's cascade, and the one chosen that the photograph is of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch

from facedan_cli.faces.cascade import find_faces, load_networks

SMALL_SIDE = 160
"""A photograph with a shorter side than this is enlarged to it: of thumbnails MTCNN finds hardly any face."""

LARGE_SIDE = 2048
"""A photograph with a longer side than this is searched in a copy reduced to it: memory and time stay bounded."""

SMALLEST_FACE = 20
"""Pixels of what is searched; R-Net and O-Net look at 24 and 48."""


@dataclass(frozen=True)
class Face:
    """A face in a photograph.

    Args:
        box: left, top, right, bottom, pixels; it may leave the photograph.
        probability: O-Net's, 0.7 … 1.
        points: (x, y) of the points named `geometry.POINT_NAMES`, shape (5, 2).
        stretched: it was found only after the contrast of the photograph was stretched.
    """

    box: tuple[float, float, float, float]
    probability: float
    points: np.ndarray
    stretched: bool = False


class Detector:
    """MTCNN with facenet-pytorch's weights, for photographs of any sizes.

    Args:
        device: where the networks run.
        min_face: side of the smallest face to look for, pixels of the photograph; if that is less, a quarter of the
            shorter side of one that is enlarged; if that is more, SMALLEST_FACE pixels of one that is reduced.
    """

    def __init__(self, device: torch.device, min_face: int) -> None:
        self._networks = load_networks(device)
        self._min_face = min_face

    def detect(self, pictures: Sequence[np.ndarray]) -> list[list[Face]]:
        """Find the faces, at best in many pictures at once.

        Pictures in which none is found are searched again with their contrast stretched: MTCNN learnt from clear
        photographs and overlooks faces in haze and in the dark.

        Args:
            pictures: RGB, uint8, each of shape (height, width, 3).

        Returns:
            The faces of each picture, the most probable first.
        """
        found = self._search(pictures)
        missed = [index for index, faces in enumerate(found) if not faces]
        for index, faces in zip(missed, self._search([_stretched(pictures[index]) for index in missed]), strict=True):
            found[index] = [replace(face, stretched=True) for face in faces]
        return found

    def _search(self, pictures: Sequence[np.ndarray]) -> list[list[Face]]:
        scaled = [_scaled(picture) for picture in pictures]
        min_faces = [self._min_face_in(*pair) for pair in zip(pictures, scaled, strict=True)]
        found = find_faces(scaled, min_faces, self._networks)
        return [_faces(picture, copy, *faces) for picture, copy, faces in zip(pictures, scaled, found, strict=True)]

    def _min_face_in(self, picture: np.ndarray, scaled: np.ndarray) -> float:
        shorter, shorter_scaled = int(min(picture.shape[:2])), int(min(scaled.shape[:2]))
        min_face = self._min_face * shorter_scaled / shorter
        if shorter_scaled > shorter:
            return min(min_face, shorter_scaled / 4)
        return max(min_face, min(self._min_face, SMALLEST_FACE))


def choose(faces: Sequence[Face], width: int, height: int) -> Face:
    """The face that a photograph is of: the area of its box less twice its centre's squared distance from the middle.

    That is FaceNet's rule, the field's usual one: a large face at the margin gives way to a smaller one in the middle.

    Args:
        faces: at least one.
        width: of the photograph, pixels.
        height: of the photograph, pixels.
    """

    def prominence(face: Face) -> float:
        left, top, right, bottom = face.box
        off_x, off_y = (left + right - width) / 2, (top + bottom - height) / 2
        return (right - left) * (bottom - top) - 2 * (off_x**2 + off_y**2)

    return max(faces, key=prominence)


def _scaled(picture: np.ndarray) -> np.ndarray:
    shorter, longer = sorted(picture.shape[:2])
    scale = min(max(1.0, SMALL_SIDE / shorter), LARGE_SIDE / longer)
    if scale == 1:
        return picture
    size = max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale))
    return cv2.resize(picture, size, interpolation=cv2.INTER_CUBIC if scale > 1 else cv2.INTER_AREA)


def _stretched(picture: np.ndarray) -> np.ndarray:
    """The picture with the darkest and the brightest hundredth of its grey levels at the ends of the scale."""
    low, high = np.percentile(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), (1, 99))
    scale = 255 / max(high - low, 16)  # less than 16 grey levels is nothing but noise
    stretched: np.ndarray = cv2.convertScaleAbs(np.maximum(picture, np.uint8(low)), alpha=scale, beta=-low * scale)
    return stretched


def _faces(
    picture: np.ndarray, scaled: np.ndarray, boxes: np.ndarray, scores: np.ndarray, points: np.ndarray
) -> list[Face]:
    """What was found in a scaled picture, in pixels of the picture itself, the most probable first."""
    steps = np.array(picture.shape[1::-1]) / scaled.shape[1::-1]
    # A picture scales about its corner, half a pixel outside the centre of the first pixel.
    shift = (steps - 1) / 2
    corners = (boxes.reshape(-1, 2, 2) * steps + shift).reshape(-1, 4)
    points = points * steps + shift
    order = np.argsort(-scores, kind="stable")
    return [Face(tuple(corners[i].tolist()), float(scores[i]), points[i]) for i in order]
