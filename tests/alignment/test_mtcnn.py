from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from facenet_pytorch import MTCNN

from facedan_cli.alignment import mtcnn
from facedan_cli.alignment.mtcnn import find_faces
from facedan_cli.alignment.mtcnn_networks import Networks, load_networks
from facedan_cli.data.images import read_image
from facedan_cli.synthetic.render import WEB, draw_identity, draw_view, render

pytestmark = pytest.mark.usefixtures("one_core")
Found = tuple[np.ndarray, np.ndarray, np.ndarray]


@pytest.fixture(scope="module")
def networks() -> Networks:
    return load_networks(torch.device("cpu"))


def expected(image: np.ndarray, min_face: int) -> Found:
    """What facenet-pytorch finds in one image."""
    boxes, probabilities, points = MTCNN(min_face_size=min_face).detect(image, landmarks=True)
    if boxes is None:
        return np.empty((0, 4)), np.empty(0), np.empty((0, 5, 2))
    return np.asarray(boxes, float), np.asarray(probabilities, float), np.asarray(points, float)


def assert_same(found: Found, reference: Found) -> None:
    """The same faces in any order, to a thousandth of a pixel."""
    assert len(found[0]) == len(reference[0])
    rows = [np.hstack([f[0], f[1][:, None], f[2].reshape(-1, 10)]) for f in (found, reference)]
    rows = [array[np.argsort(array[:, 0])] for array in rows]
    np.testing.assert_allclose(rows[0], rows[1], atol=1e-3)


def drawn_faces(count: int, size: int, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [render(draw_identity(rng), draw_view(rng, WEB), size) for _ in range(count)]


def crowd() -> np.ndarray:
    """Twelve drawn faces side by side."""
    faces = drawn_faces(12, 110, seed=1)
    return np.vstack([np.hstack(faces[row : row + 4]) for row in (0, 4, 8)])


@pytest.mark.parametrize("min_face", [20, 47, 130])
def test_drawn_faces_are_found_as_by_facenet_pytorch(networks: Networks, min_face: int) -> None:
    images = [*drawn_faces(3, 160), crowd(), crowd()[:, 20:-35]]
    found = find_faces(images, [min_face] * len(images), networks, reference=True)
    assert min_face == 130 or len(found[3][0]) == 12
    for own, image in zip(found, images, strict=True):
        assert_same(own, expected(image, min_face))


def test_images_are_searched_as_by_facenet_pytorch(networks: Networks, shared_data: Path) -> None:
    images = sorted(shared_data.glob("lfw/*/*_0001.jpg"))[::30] + sorted(shared_data.glob("orl/*/1.pgm"))[::8]
    assert len(images) > 20
    images = [read_image(path) for path in images]
    images += [cv2.resize(image, None, fx=2, fy=2) for image in images[-3:]]
    found = find_faces(images, [40] * len(images), networks, reference=True)
    for own, image in zip(found, images, strict=True):
        assert_same(own, expected(image, 40))


def test_an_image_is_searched_alike_alone_and_in_company(networks: Networks) -> None:
    """To the bit: what an image becomes must not depend on how work was divided."""
    images = [drawn_faces(1, 160)[0], drawn_faces(1, 120, seed=2)[0], crowd(), *drawn_faces(11, 160, seed=3)]
    min_faces = [30, 40, 25, *[40] * 11]
    together = find_faces(images, min_faces, networks)
    for own, image, min_face in zip(together, images, min_faces, strict=True):
        alone = find_faces([image], [min_face], networks)[0]
        assert all(map(np.array_equal, own, alone))


@pytest.mark.parametrize("pixels", [1, 3000, 9001])
def test_a_large_image_is_searched_alike_in_strips(
    networks: Networks, monkeypatch: pytest.MonkeyPatch, pixels: int
) -> None:
    images = [crowd(), crowd()[:-33, :-35]]
    whole = find_faces(images, [25, 31], networks)
    monkeypatch.setattr(mtcnn, "CPU_PIXELS_A_STRIP", pixels)
    for own, reference in zip(find_faces(images, [25, 31], networks), whole, strict=True):
        assert len(own[0]) >= 9
        assert_same(own, reference)


@pytest.mark.parametrize("shape", [(1, 1), (5, 300), (11, 11), (12, 12), (40, 40), (200, 130)])
def test_nothing_is_found_where_nothing_is(networks: Networks, shape: tuple[int, int]) -> None:
    flat = np.full((*shape, 3), 128, np.uint8)
    noise = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    for boxes, probabilities, points in find_faces([flat, noise], [20, 20], networks):
        assert boxes.shape == (0, 4)
        assert probabilities.shape == (0,)
        assert points.shape == (0, 5, 2)


def test_candidates_at_the_edge_are_seen_as_with_a_black_border(networks: Networks, shared_data: Path) -> None:
    """The pyramid of P-Net ends at the edge, so that not the same candidates are seen; those that are, are alike."""
    moved = []
    for path in sorted(shared_data.glob("lfw/*/*_0001.jpg"))[::40]:
        image = read_image(path)[62:188, 80:170]
        bordered = np.pad(image, ((60, 60), (60, 60), (0, 0)))
        (_, _, points), (_, _, others) = find_faces([image, bordered], [40, 40], networks)
        if len(points) and len(others):
            moved.append(np.abs(points[0] - others[0] + 60).mean())
    assert len(moved) >= 8
    assert np.median(moved) < 1.5


def test_no_images_give_no_faces(networks: Networks) -> None:
    assert find_faces([], [], networks) == []


def test_the_thresholds_are_kept(networks: Networks) -> None:
    image = crowd()
    every = find_faces([image], [20], networks)[0][1]
    strict = find_faces([image], [20], networks, (0.6, 0.7, 0.995))[0][1]
    assert 0 < len(strict) < len(every)
    assert every.min() > 0.7
    assert strict.min() > 0.995
