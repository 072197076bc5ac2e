from __future__ import annotations

import numpy as np
import pytest

from facedan_cli.alignment.contrast import LEAST_CONTRAST, contrast, lacks_contrast
from facedan_cli.synthetic.render import STUDIO, draw_identity, draw_view, render


@pytest.mark.parametrize("level", [0, 3, 128, 255])
def test_a_flat_face_has_no_contrast(level: int) -> None:
    noise = np.random.default_rng(0).integers(-2, 3, (60, 60, 3))  # what JPEG and sensors add
    assert lacks_contrast(np.clip(noise + level, 0, 255).astype(np.uint8))


def test_ten_bits_shown_by_their_upper_eight_of_sixteen_have_no_contrast() -> None:
    rng = np.random.default_rng(1)
    face = render(draw_identity(rng), draw_view(rng, STUDIO), 100)
    assert not lacks_contrast(face)
    assert "no contrast" in lacks_contrast(face // 64)


def test_the_edge_counts_the_levels_of_the_middle_alone() -> None:
    face = np.full((40, 40), 100, np.uint8)
    face[:8] = 255  # a bright wall above
    assert contrast(face) == 0
    face[10:30, 10:20] = 100 + LEAST_CONTRAST
    assert contrast(face) == LEAST_CONTRAST
    assert not lacks_contrast(face)
    face[10:30, 10:20] -= 1
    assert lacks_contrast(face)


@pytest.mark.parametrize("shape", [(1, 1), (2, 3, 3), (32, 32, 3)])
def test_faces_of_any_size(shape: tuple[int, ...]) -> None:
    assert contrast(np.full(shape, 7, np.uint8)) == 0
