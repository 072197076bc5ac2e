from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from facedan_cli.data.templates import TEMPLATES
from facedan_cli.models import lbp, pcanet
from facedan_cli.models.frame import Frame


def faces(count: int, height: int, width: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 3, height, width), generator=generator, dtype=torch.uint8)


def slow_cut(face: np.ndarray, eyes: np.ndarray, frame: Frame) -> np.ndarray:
    """Pixel by pixel: scale and turn from the eyes' distance and angle, then four neighbours."""
    grey = 0.299 * face[0] + 0.587 * face[1] + 0.114 * face[2]
    own = np.array([frame.image_left_eye, frame.image_right_eye])
    (across, down), (own_across, own_down) = eyes[1] - eyes[0], own[1] - own[0]
    scale = math.hypot(across, down) / math.hypot(own_across, own_down)
    angle = math.atan2(down, across) - math.atan2(own_down, own_across)
    window = np.empty((frame.height, frame.width))
    for y in range(frame.height):
        for x in range(frame.width):
            right, below = x - own[0, 0], y - own[0, 1]
            u = eyes[0, 0] + scale * (math.cos(angle) * right - math.sin(angle) * below)
            v = eyes[0, 1] + scale * (math.sin(angle) * right + math.cos(angle) * below)
            window[y, x] = bilinear(grey, min(max(u, 0), grey.shape[1] - 1), min(max(v, 0), grey.shape[0] - 1))
    return window


def bilinear(grey: np.ndarray, u: float, v: float) -> float:
    left, top = min(int(u), grey.shape[1] - 2), min(int(v), grey.shape[0] - 2)
    a, b = u - left, v - top
    upper = (1 - a) * grey[top, left] + a * grey[top, left + 1]
    lower = (1 - a) * grey[top + 1, left] + a * grey[top + 1, left + 1]
    return float((1 - b) * upper + b * lower)


@pytest.mark.parametrize(
    ("eyes", "frame"),
    [
        ([(8, 9), (21, 9)], Frame(14, 11, (2, 4), (8, 4))),  # smaller
        ([(12, 9), (16, 10)], Frame(20, 17, (3, 6), (13, 5))),  # larger, and a little turned
        ([(20, 15), (9, 12)], Frame(9, 12, (3.5, 2), (7, 3.25))),  # upside down
        ([(2, 2), (27, 3)], Frame(16, 12, (4, 6), (7, 6))),  # reaches over every edge
    ],
)
def test_a_window_is_that_of_a_double_loop(eyes: list[tuple[float, float]], frame: Frame) -> None:
    images = faces(2, 24, 30)
    cut = frame.cut(images, eyes)
    assert (cut.shape, cut.dtype) == ((2, frame.height, frame.width), torch.uint8)
    for image, window in zip(images.numpy(), cut.numpy(), strict=True):
        expected = slow_cut(image, np.array(eyes, float), frame)
        assert np.abs(window - expected).max() < 0.501  # rounded


def test_a_window_with_the_eyes_of_the_face_is_the_face_in_grey() -> None:
    every = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16).expand(1, 3, 16, 16)
    frame = Frame(16, 16, (4, 5), (11, 5))
    assert torch.equal(frame.cut(every, [(4, 5), (11, 5)])[0], every[0, 0])


@pytest.mark.parametrize(("colour", "grey"), [((255, 0, 0), 76), ((0, 255, 0), 150), ((0, 0, 255), 29)])
def test_green_is_light_and_blue_is_dark(colour: tuple[int, int, int], grey: int) -> None:
    image = torch.tensor(colour, dtype=torch.uint8)[None, :, None, None].expand(1, 3, 8, 8)
    assert bool((Frame(4, 4, (1, 1), (2, 1)).cut(image, [(2, 2), (5, 2)]) == grey).all())


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("frame", [lbp.FRAME, pcanet.FRAME], ids=["lbp", "pcanet"])
def test_the_windows_stay_within_aligned_faces(frame: Frame, template: str) -> None:
    edge = torch.full((1, 3, 250, 250), 255, dtype=torch.uint8)
    edge[:, :, 1:-1, 1:-1] = 0
    seen = frame.cut(edge, TEMPLATES[template].points(250, 2))
    # dlib's chip ends above the brows: PCANet's window repeats its edge there.
    beyond = 10 if (template, frame) == ("dlib", pcanet.FRAME) else 0
    assert not seen[:, beyond:].any()
