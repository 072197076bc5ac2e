from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from facenet_pytorch import MTCNN

from facedan_cli.alignment.detector import _SECOND_PASS, Detector, Face, choose, enlarged
from facedan_cli.data.images import read_image
from facedan_cli.synthetic.render import WEB, draw_identity, draw_view, render

pytestmark = pytest.mark.usefixtures("one_core")


@pytest.fixture(scope="module")
def detector() -> Detector:
    return Detector(torch.device("cpu"), min_face=40)


@pytest.fixture(scope="module")
def portrait() -> np.ndarray:
    rng = np.random.default_rng(3)
    return render(draw_identity(rng), draw_view(rng, WEB), 250)


def face(left: float, top: float, side: float, probability: float = 0.99) -> Face:
    return Face((left, top, left + side, top + side), probability, np.zeros((5, 2)))


def test_the_larger_of_two_central_faces_is_chosen() -> None:
    small, large = face(80, 80, 40, 1.0), face(70, 70, 60)
    assert choose([small, large], 200, 200) is large


def test_a_large_face_at_the_margin_gives_way_to_one_in_the_middle() -> None:
    middle, margin = face(90, 90, 80), face(0, 0, 85)
    assert choose([margin, middle], 250, 250) is middle
    # Far larger, it wins: 180² - 2 · 2 · 35² > 80².
    assert choose([face(0, 0, 180), middle], 250, 250).box[2] == 180


def test_points_are_named_from_the_left_of_the_image(detector: Detector, portrait: np.ndarray) -> None:
    (found,) = detector.detect([portrait])
    left_eye, right_eye, nose, left_mouth, right_mouth = found[0].points
    assert left_eye[0] < nose[0] < right_eye[0]
    assert left_mouth[0] < right_mouth[0]
    assert max(left_eye[1], right_eye[1]) < nose[1] < min(left_mouth[1], right_mouth[1])


@pytest.mark.parametrize("side", [20, 32, 48, 90, 500, 3000])
def test_a_face_is_found_in_its_place_at_every_size(detector: Detector, portrait: np.ndarray, side: int) -> None:
    reference = detector.detect([portrait])[0][0]
    scale = side / 250
    resized = cv2.resize(portrait, (side, side), interpolation=cv2.INTER_AREA if side < 250 else cv2.INTER_CUBIC)
    (found,) = detector.detect([resized])
    assert len(found) == 1
    distances = np.linalg.norm(found[0].points + 0.5 - (reference.points + 0.5) * scale, axis=1)
    assert distances.max() < 12 * scale
    np.testing.assert_allclose(found[0].box, np.array(reference.box) * scale, atol=25 * scale)


def test_faces_smaller_than_asked_for_are_not_found(portrait: np.ndarray) -> None:
    scene = np.full((400, 400, 3), 128, np.uint8)
    scene[150:250, 150:250] = cv2.resize(portrait, (100, 100), interpolation=cv2.INTER_AREA)
    assert len(Detector(torch.device("cpu"), min_face=40).detect([scene])[0]) == 1
    assert Detector(torch.device("cpu"), min_face=200, second_pass=False).detect([scene]) == [[]]


@pytest.mark.parametrize(
    ("turns", "attempt"), [(1, "turned to the right"), (2, "upside down"), (3, "turned to the left")]
)
def test_a_turned_face_is_found_and_its_points_lie_in_the_image_as_it_is(
    detector: Detector, turns: int, attempt: str
) -> None:
    rng = np.random.default_rng(10)  # an identity of whom MTCNN finds nothing lying down
    portrait = cv2.resize(render(draw_identity(rng), draw_view(rng, WEB), 250), (250, 300))
    image = np.ascontiguousarray(np.rot90(portrait, turns))
    (upright,) = detector.detect([portrait])
    found = detector.detect([np.zeros_like(image), image])[1]
    assert found[0].attempt == attempt
    # The turn itself as an image: each point is drawn as a pixel of its own and looked for where it went.
    for point, expected in zip(found[0].points, upright[0].points, strict=True):
        mark = np.zeros((300, 250), np.uint8)
        mark[round(expected[1]), round(expected[0])] = 1
        row, column = np.argwhere(np.rot90(mark, turns))[0]
        np.testing.assert_allclose(point, (column, row), atol=1)
    left, top, right, bottom = found[0].box
    assert left < found[0].points[:, 0].min() < found[0].points[:, 0].max() < right
    assert top < found[0].points[:, 1].min() < found[0].points[:, 1].max() < bottom
    assert Detector(torch.device("cpu"), 40, second_pass=False).detect([image]) == [[]]


def test_a_face_that_the_first_search_finds_is_of_no_attempt(detector: Detector, portrait: np.ndarray) -> None:
    assert detector.detect([portrait])[0][0].attempt == ""


def test_a_face_in_haze_is_found_with_its_contrast_stretched(detector: Detector, portrait: np.ndarray) -> None:
    hazy = np.rint(portrait * 0.08 + 200).astype(np.uint8)
    (found,) = detector.detect([hazy])
    assert found[0].attempt == "contrast stretched"
    np.testing.assert_allclose(found[0].points, detector.detect([portrait])[0][0].points, atol=6)


def test_smaller_faces_are_looked_for_where_there_is_no_larger_one(portrait: np.ndarray) -> None:
    scene = np.full((400, 400, 3), 128, np.uint8)
    scene[150:250, 150:250] = cv2.resize(portrait, (100, 100), interpolation=cv2.INTER_AREA)
    (found,) = Detector(torch.device("cpu"), min_face=150).detect([scene])
    assert found[0].attempt == "smaller faces"


def tight(image: np.ndarray, face: Face, margin: float) -> tuple[np.ndarray, np.ndarray]:
    """The face's box, cut `margin` of its sides inside it; and the eyes there."""
    box = np.array(face.box).reshape(2, 2)
    start, stop = np.rint(box + margin * (box[1] - box[0]) * np.array([[1], [-1]])).astype(int).clip(0)
    return np.ascontiguousarray(image[start[1] : stop[1], start[0] : stop[0]]), face.points[:2] - start


def found_in_crops(detector: Detector, images: list[np.ndarray], margin: float) -> tuple[float, float]:
    """The share of tight crops in which the eyes are found, and their median error in eye distances."""
    faces = [choose(found, 250, 250) for found in detector.detect(images)]
    crops, eyes = zip(*map(tight, images, faces, [margin] * len(images)), strict=True)
    errors = [
        np.linalg.norm(choose(found, *crop.shape[1::-1]).points[:2] - two, axis=1).mean()
        / np.linalg.norm(two[1] - two[0])
        for crop, two, found in zip(crops, eyes, detector.detect(crops), strict=True)
        if found
    ]
    return float(np.mean(np.array(errors) < 0.25) * len(errors) / len(images)), float(np.median(errors))


def test_faces_of_tight_crops_are_found_in_their_place(detector: Detector, shared_data: Path) -> None:
    images = [read_image(path) for path in sorted(shared_data.glob("lfw/*/*_0001.jpg"))[::20]]
    right, error = found_in_crops(detector, images, 0)
    assert right == 1
    assert error < 0.03
    cut = Detector(torch.device("cpu"), 40, reference=True)
    assert found_in_crops(cut, images, 0)[1] > error + 0.005
    right, _ = found_in_crops(detector, images, 0.15)
    assert right > 0.85
    assert right > found_in_crops(cut, images, 0.15)[0] + 0.1


def test_points_in_an_image_with_a_border_are_those_of_the_image(detector: Detector, portrait: np.ndarray) -> None:
    (expected,) = detector.detect([portrait])[0]
    for kind in ("black", "repeated"):
        attempts = [attempt for group in _SECOND_PASS for attempt in group if attempt.name == f"{kind} border"]
        (found,) = detector._search([portrait], [1.0], attempts[0])[0]
        assert found.attempt == f"{kind} border"
        np.testing.assert_allclose(found.points, expected.points, atol=4)
        np.testing.assert_allclose(found.box, expected.box, atol=12)


@pytest.mark.parametrize(
    ("size", "min_face", "factor"),
    [
        ((250, 250), 400, 1),  # there is nothing to save
        ((2048, 1536), 40, 1),
        ((4000, 3000), 40, 2),
        ((3000, 4000), 40, 2),
        ((3000, 2000), 40, 1),  # landmarks want pixels
        ((4000, 3000), 20, 1),  # so would small faces
        ((8256, 6192), 20, 4),  # which are not seen in the copy that is searched
        ((20000, 5000), 80, 8),
    ],
)
def test_large_images_are_read_smaller_where_no_face_is_lost_by_it(
    size: tuple[int, int], min_face: int, factor: int
) -> None:
    assert Detector(torch.device("cpu"), min_face).reduction(size) == factor


def test_faces_mean_the_same_in_an_image_that_was_read_smaller(detector: Detector, portrait: np.ndarray) -> None:
    large = cv2.resize(portrait, (2400, 2400), interpolation=cv2.INTER_CUBIC)
    half = cv2.resize(large, (1200, 1200), interpolation=cv2.INTER_AREA)
    (whole,), (read_half,) = detector.detect([large]), detector.detect([half], [2])
    found = enlarged(read_half[0], (1200, 1200), (2400, 2400))
    np.testing.assert_allclose(found.points, whole[0].points, atol=25)
    np.testing.assert_allclose(found.box, whole[0].box, atol=60)


@pytest.mark.parametrize("shape", [(1, 1), (2, 5000), (5000, 3), (30, 30), (2500, 2500)])
def test_images_of_any_shape_may_hold_no_face(detector: Detector, shape: tuple[int, int]) -> None:
    assert detector.detect([np.full((*shape, 3), 90, np.uint8)]) == [[]]


def test_results_keep_the_order_of_the_images(detector: Detector, portrait: np.ndarray) -> None:
    blank = np.zeros((300, 300, 3), np.uint8)
    found = detector.detect([blank, portrait, portrait[:200, :240], blank, portrait])
    assert [len(faces) for faces in found] == [0, 1, 1, 0, 1]


def test_of_images_the_same_face_is_chosen_as_with_facenet_pytorch(shared_data: Path) -> None:
    detector = Detector(torch.device("cpu"), min_face=40, reference=True)
    images = [read_image(path) for path in sorted(shared_data.glob("lfw/*/*_0002.jpg"))[::30]]
    assert len(images) >= 20
    mtcnn = MTCNN(min_face_size=40)
    for image, faces in zip(images, detector.detect(images), strict=True):
        boxes, probabilities, points = mtcnn.detect(image, landmarks=True)
        reference = [Face(tuple(b), p, q) for b, p, q in zip(boxes, probabilities, points, strict=True)]
        own, theirs = (choose(some, image.shape[1], image.shape[0]) for some in (faces, reference))
        np.testing.assert_allclose(own.points, theirs.points.astype(float), atol=1e-3)


def test_the_small_studio_images_are_all_found(detector: Detector, shared_data: Path) -> None:
    images = [read_image(path) for path in sorted(shared_data.glob("orl/*/*.pgm"))[::8]]
    assert len(images) == 50
    for image, faces in zip(images, detector.detect(images), strict=True):
        left_eye, right_eye, *_ = choose(faces, image.shape[1], image.shape[0]).points
        assert 15 < np.linalg.norm(right_eye - left_eye) < 60


def mirrored_back(face: Face, width: int) -> np.ndarray:
    """The points of a face of a mirrored image where they are in the image itself."""
    points = face.points[[1, 0, 2, 4, 3]].astype(float)
    points[:, 0] = width - 1 - points[:, 0]
    return points


def offsets(detector: Detector, images: list[np.ndarray]) -> np.ndarray:
    """By how many pixels the points of each image lie too far right: half of what mirroring moves them."""
    mirrored = detector.detect([np.ascontiguousarray(image[:, ::-1]) for image in images])
    found = []
    for image, faces, others in zip(images, detector.detect(images), mirrored, strict=True):
        height, width = image.shape[:2]
        if not faces or not others:
            continue
        one, other = choose(faces, width, height).points, mirrored_back(choose(others, width, height), width)
        if np.abs(one - other).max() < 20:  # otherwise another face was chosen
            found.append((one - other)[:, 0].mean() / 2)
    assert len(found) > 0.9 * len(images)
    return np.array(found)


@pytest.mark.parametrize("side", [120, 250])
def test_mirrored_drawings_have_mirrored_landmarks(detector: Detector, side: int) -> None:
    rng = np.random.default_rng(5)
    images = [render(draw_identity(rng), draw_view(rng, WEB), side) for _ in range(24)]
    moved = offsets(detector, images)
    assert abs(np.median(moved)) < 0.25
    assert abs(moved.mean()) < 0.25


def test_mirrored_images_have_mirrored_landmarks(detector: Detector, shared_data: Path) -> None:
    images = [read_image(path) for path in sorted(shared_data.glob("lfw/*/*_0001.jpg"))[::6]]
    moved = offsets(detector, images)
    assert abs(np.median(moved)) < 0.12
    assert abs(moved.mean()) < 0.15
    by_reference = offsets(Detector(torch.device("cpu"), 40, reference=True), images)
    assert 0.9 < by_reference.mean() < 1.3


def test_landmarks_mean_the_same_in_an_enlarged_image(detector: Detector, shared_data: Path) -> None:
    """In one of four times the side an offset is a fourth of it: so those of rows are seen, which no mirror shows."""
    images = [read_image(path) for path in sorted(shared_data.glob("lfw/*/*_0001.jpg"))[::25]]
    larger = [cv2.resize(image, None, fx=4, fy=4, interpolation=cv2.INTER_CUBIC) for image in images]

    def moved(*detectors: Detector) -> np.ndarray:
        found = zip(detectors[0].detect(images), detectors[1].detect(larger), strict=True)
        points = [
            (choose(one, 250, 250).points, (choose(other, 1000, 1000).points + 0.5) / 4 - 0.5) for one, other in found
        ]
        return np.median([(one - other).mean(0) for one, other in points], axis=0)

    cpu = torch.device("cpu")
    assert np.abs(moved(detector, Detector(cpu, 160))).max() < 0.3
    assert moved(*(Detector(cpu, side, reference=True) for side in (40, 160))).min() > 0.5
