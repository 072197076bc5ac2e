"""The input of the classical models: a grey window of an aligned face, placed by the eyes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor
from torch.nn import functional as F

LUMA = (0.299, 0.587, 0.114)
"""Weights of R, G and B for grey (ITU-R BT.601)."""


@dataclass(frozen=True)
class Frame:
    """A window, and the positions of the eyes in it: (x, y), pixels, from the first pixel's centre.

    Regions and blocks of a window with fixed eyes hold the same parts of a face whichever template it was aligned to,
    and hold no background.

    Args:
        height: pixels.
        width: pixels.
        image_left_eye: the eye on the left of the image.
        image_right_eye: the other.
    """

    height: int
    width: int
    image_left_eye: tuple[float, float]
    image_right_eye: tuple[float, float]

    def cut(self, faces: Tensor, eyes: ArrayLike) -> Tensor:
        """The window of aligned faces, by the similarity transform that brings the eyes to their places.

        Args:
            faces: RGB in 0-255, uint8, shape (n, 3, height, width).
            eyes: where the aligned faces have their left and right eye, (x, y), shape (2, 2): the first two points of
                their template.

        Returns:
            Grey, uint8, shape (n, self.height, self.width): bilinear and rounded; what lies outside the face repeats
            its nearest edge pixel.
        """
        left, right = np.asarray(eyes, np.float64) @ (1, 1j)
        own_left, own_right = complex(*self.image_left_eye), complex(*self.image_right_eye)
        window = np.arange(self.width) + 1j * np.arange(self.height)[:, None]
        seen = left + (right - left) / (own_right - own_left) * (window - own_left)  # (height, width)
        height, width = faces.shape[2:]
        # grid_sample wants the centre of the first pixel at 1/side - 1, that of the last at 1 - 1/side.
        grid = np.stack([(2 * seen.real + 1) / width - 1, (2 * seen.imag + 1) / height - 1], axis=-1)
        places = torch.from_numpy(grid.astype(np.float32)).to(faces.device).expand(len(faces), -1, -1, -1)
        grey = torch.einsum("nchw,c->nhw", faces.float(), torch.tensor(LUMA, device=faces.device))
        sampled = F.grid_sample(grey[:, None], places, padding_mode="border", align_corners=False)
        return sampled[:, 0].round().to(torch.uint8)
