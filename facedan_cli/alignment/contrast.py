"""Contrast of an aligned face: the number of grey levels that it covers."""

from __future__ import annotations

import cv2
import numpy as np

LEAST_CONTRAST = 8
"""Grey levels out of 256. JPEG's rounding and sensors' noise cover half as many; the dullest of 3300 images 31."""


def contrast(face: np.ndarray) -> int:
    """Grey levels between the darkest and the brightest hundredth of the middle of a face, where the eyes are.

    Args:
        face: uint8, shape (height, width, 3) or (height, width).
    """
    height, width = face.shape[:2]
    middle = face[height // 4 : height - height // 4, width // 4 : width - width // 4]
    grey = middle if middle.ndim == 2 else cv2.cvtColor(np.ascontiguousarray(middle), cv2.COLOR_RGB2GRAY)
    below = np.cumsum(np.bincount(grey.ravel(), minlength=256))
    low, high = np.searchsorted(below, np.array([0.01, 0.99]) * below[-1])
    return int(high - low)


def lacks_contrast(face: np.ndarray) -> str:
    """The reason to set an aligned face aside; "" if it has contrast."""
    levels = contrast(face)
    if levels >= LEAST_CONTRAST:
        return ""
    return f"its face has no contrast: nearly all of it lies within {levels + 1} of 256 grey levels"
