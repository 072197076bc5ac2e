"""Photometric augmentation of training faces, and drawn masks over nose and mouth."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import cv2
import numpy as np

PROBABILITY = 0.3
"""Probability with which each kind changes an image."""

Random = np.random.Generator
Change = Callable[[np.ndarray, Random], np.ndarray]
"""A change of an RGB face, uint8, shape (h, w, 3); it returns another array."""


def _grey(face: np.ndarray, _: Random) -> np.ndarray:
    return cv2.cvtColor(cv2.cvtColor(face, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)


def _contrast(face: np.ndarray, random: Random) -> np.ndarray:
    """Contrast times 0.4 to 1.4 about the mean, brightness ±50, and a gamma of 2^±0.7."""
    factor, shift, gamma = random.uniform(0.4, 1.4), random.uniform(-50, 50), 2 ** random.uniform(-0.7, 0.7)
    levels = np.arange(256) - face.mean()
    moved = np.clip(levels * factor + face.mean() + shift, 0, 255) / 255
    return cv2.LUT(face, np.rint(255 * moved**gamma).astype(np.uint8))


def _blur(face: np.ndarray, random: Random) -> np.ndarray:
    """A Gaussian of 0.8 to 3 % of the side."""
    return cv2.GaussianBlur(face, (0, 0), random.uniform(0.008, 0.03) * face.shape[0])


def _resolution(face: np.ndarray, random: Random) -> np.ndarray:
    """A side of 20 to 70 % of the pixels, and back."""
    height, width = face.shape[:2]
    share = random.uniform(0.2, 0.7)
    small = cv2.resize(
        face, (max(2, round(share * width)), max(2, round(share * height))), interpolation=cv2.INTER_AREA
    )
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)


def _noise(face: np.ndarray, random: Random) -> np.ndarray:
    """Gaussian noise with a deviation of up to 20 grey values."""
    noise = random.standard_normal(face.shape, np.float32) * random.uniform(2, 20)
    noisy: np.ndarray = np.clip(np.rint(face + noise), 0, 255).astype(np.uint8)
    return noisy


def _jpeg(face: np.ndarray, random: Random) -> np.ndarray:
    """Compression at a quality of 15 to 80."""
    quality = int(random.integers(15, 81))
    _, data = cv2.imencode(".jpg", np.ascontiguousarray(face[:, :, ::-1]), [cv2.IMWRITE_JPEG_QUALITY, quality])
    decoded = cv2.imdecode(data, cv2.IMREAD_COLOR)
    assert decoded is not None, "what was encoded just now can be decoded"
    return np.ascontiguousarray(decoded[:, :, ::-1])


AUGMENTATIONS: Mapping[str, Change] = {
    "contrast": _contrast,
    "grey": _grey,
    "blur": _blur,
    "resolution": _resolution,
    "noise": _noise,
    "jpeg": _jpeg,
}
"""The kinds of augmentation, in the order in which they are carried out."""


def augmentation(kinds: tuple[str, ...]) -> Change:
    """A change by each of these kinds with `PROBABILITY`."""

    def change(face: np.ndarray, random: Random) -> np.ndarray:
        for name, by in AUGMENTATIONS.items():
            if name in kinds and random.random() < PROBABILITY:
                face = by(face, random)
        return face

    return change
