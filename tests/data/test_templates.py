from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from facedan_cli.config.templates import TemplateEntry
from facedan_cli.data.templates import TEMPLATES, Template, shows_the_same, similarity, three_points, warp

coordinates = st.floats(-1000, 1000).map(lambda x: round(x, 3))


def sets_of_points(count: int) -> st.SearchStrategy[np.ndarray]:
    return hnp.arrays(np.float64, (count, 2), elements=coordinates)


def transform(scale: float, angle: float, shift: tuple[float, float]) -> np.ndarray:
    c, s = scale * math.cos(angle), scale * math.sin(angle)
    return np.array([[c, -s, shift[0]], [s, c, shift[1]]])


def apply(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    return points @ matrix[:, :2].T + matrix[:, 2]


def least_squares(points: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """The same transform from the normal equations in its four parameters (a, b, x, y)."""
    rows, values = [], []
    for (x, y), (u, v) in zip(points, targets, strict=True):
        rows += [[x, -y, 1, 0], [y, x, 0, 1]]
        values += [u, v]
    a, b, x, y = np.linalg.lstsq(np.array(rows), np.array(values), rcond=None)[0]
    return np.array([[a, -b, x], [b, a, y]])


@given(sets_of_points(3), sets_of_points(3))
def test_similarity_is_the_least_squares_solution(points: np.ndarray, targets: np.ndarray) -> None:
    assume(points.std(0).max() > 1)
    expected = least_squares(points, targets)
    assume(np.hypot(*expected[:, 0]) > 1e-3)
    centred = points - points.mean(0)
    found = similarity(points, targets)
    np.testing.assert_allclose(
        apply(found, centred + points.mean(0)), apply(expected, centred + points.mean(0)), atol=1e-6
    )


@given(sets_of_points(5), st.floats(0.05, 20), st.floats(-4, 4), st.tuples(coordinates, coordinates))
def test_similarity_recovers_a_known_transform(
    points: np.ndarray, scale: float, angle: float, shift: tuple[float, float]
) -> None:
    assume(points.std(0).max() > 1)
    true = transform(scale, angle, shift)
    np.testing.assert_allclose(similarity(points, apply(true, points)), true, atol=1e-5)


@given(sets_of_points(2), sets_of_points(2))
def test_two_points_are_met_exactly(points: np.ndarray, targets: np.ndarray) -> None:
    assume(np.hypot(*(points[1] - points[0])) > 0.1)
    assume(np.hypot(*(targets[1] - targets[0])) > 0.1)
    np.testing.assert_allclose(apply(similarity(points, targets), points), targets, atol=1e-6)


def test_a_mirrored_face_is_not_reflected() -> None:
    points = TEMPLATES["vggface"].points(250)
    mirrored = points * (-1, 1)
    matrix = similarity(mirrored, points)
    assert np.linalg.det(matrix[:, :2]) > 0
    assert np.abs(apply(matrix, mirrored) - points).max() > 10


@pytest.mark.parametrize(
    ("points", "reason"),
    [
        (np.full((3, 2), 7.0), "coincide"),
        (np.array([[0, 0], [np.nan, 1], [2, 2]]), "not finite"),
        (np.zeros((1, 2)), "two or more"),
        (np.zeros((3, 3)), "two or more"),
    ],
)
def test_points_that_determine_nothing_are_refused(points: np.ndarray, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        similarity(points, np.arange(points.size, dtype=float).reshape(points.shape))


def test_the_mouth_is_the_mean_of_its_corners() -> None:
    points = np.array([(1, 2), (5, 2), (3, 3), (2, 6), (4, 8)], float)
    np.testing.assert_array_equal(three_points(points), [(1, 2), (5, 2), (3, 7)])


def test_templates_face_the_viewer_and_scale_with_the_image() -> None:
    for template in TEMPLATES.values():
        left, right, mouth = template.points(250, 3)
        assert left[0] < mouth[0] < right[0]
        assert mouth[1] > max(left[1], right[1])
    # The last pixel's centre stays the last pixel's centre, and the middle stays the middle.
    entry = TemplateEntry(points=((-0.5, 249.5), (124.5, 124.5), (0.5, 0.5), (9, 9), (9, 9)), size=250, purpose="")
    np.testing.assert_allclose(Template(entry).points(500, 5)[:3], [(-0.5, 499.5), (249.5, 249.5), (1.5, 1.5)])


def random_image(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Smooth noise, as images are."""
    noise = np.random.default_rng(seed).uniform(0, 255, (height // 8 + 2, width // 8 + 2, 3))
    return cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC).clip(0, 255).astype(np.uint8)


def test_whole_pixel_shifts_are_exact_and_the_border_repeats() -> None:
    image = random_image(40, 50)
    drawn = warp(image, transform(1, 0, (-10, 5)), 45)
    padded = np.pad(image, ((5, 0), (0, 5), (0, 0)), mode="edge")
    np.testing.assert_array_equal(drawn, padded[:45, 10:55])


@given(st.floats(1, 4), st.floats(-3, 3))
def test_enlarging_samples_the_image_bilinearly(scale: float, angle: float) -> None:
    image = random_image(24, 24)
    matrix = transform(scale, angle, (8, 8))
    drawn = warp(image, matrix, 16)
    x, y = np.meshgrid(np.arange(16), np.arange(16))
    back = np.linalg.solve(matrix[:, :2], np.stack([x.ravel(), y.ravel()]) - matrix[:, 2:])
    column, row = back.clip(0, 23)
    x0, y0 = column.astype(int).clip(0, 22), row.astype(int).clip(0, 22)
    u, v = (column - x0)[:, None], (row - y0)[:, None]
    pixels = image.astype(float)
    top = pixels[y0, x0] * (1 - u) + pixels[y0, x0 + 1] * u
    bottom = pixels[y0 + 1, x0] * (1 - u) + pixels[y0 + 1, x0 + 1] * u
    expected = (top * (1 - v) + bottom * v).reshape(16, 16, 3)
    # OpenCV places its samples to 1/32 of a pixel.
    assert np.abs(drawn - expected).max() <= 4


def test_shrinking_by_a_whole_number_takes_the_mean_of_blocks() -> None:
    image = np.random.default_rng(1).integers(0, 256, (120, 120, 3), dtype=np.uint8)
    matrix = transform(1 / 4, 0, (-0.375, -0.375))  # pixel centres: (4x + 1.5 → x)
    blocks = image.reshape(30, 4, 30, 4, 3).mean((1, 3))
    assert np.abs(warp(image, matrix, 30)[1:-1, 1:-1] - blocks[1:-1, 1:-1]).max() <= 1


@given(st.floats(0.02, 0.45), st.floats(-3, 3))
def test_shrinking_does_not_alias(scale: float, angle: float) -> None:
    checkers = np.indices((300, 300)).sum(0) % 2 * np.uint8(255)
    drawn = warp(checkers.astype(np.uint8), transform(scale, angle, (10, 10)), 20)
    assert np.abs(drawn.astype(int) - 128).max() < 72  # a plain warp meets whole pixels: 0 and 255


@given(st.floats(0.1, 0.9), st.floats(-3, 3))
def test_shrinking_keeps_everything_in_its_place(scale: float, angle: float) -> None:
    x, y = np.meshgrid(np.linspace(0, 255, 200), np.linspace(255, 0, 200))
    ramps = np.rint(np.dstack([x, y, (x + y) / 2])).astype(np.uint8)
    matrix = transform(scale, angle, (0, 0))
    matrix[:, 2] = 20 - matrix[:, :2] @ (99.5, 99.5)
    drawn = warp(ramps, matrix, 41)
    np.testing.assert_allclose(drawn[20, 20], ramps[99:101, 99:101].mean((0, 1)), atol=2)
    inside = apply(np.column_stack([np.linalg.inv(matrix[:, :2]), (0, 0)]), np.array([(5, 3)])) + 99.5
    column, row = inside[0]
    if 3 < column < 196 and 3 < row < 196:
        expected = (column * 255 / 199, 255 - row * 255 / 199)
        np.testing.assert_allclose(drawn[23, 25, :2], expected, atol=2)


def test_a_square_that_shows_nothing_of_the_image_is_drawn_from_its_edge() -> None:
    image = random_image(30, 40)
    drawn = warp(image, transform(0.01, 0, (5000, 5000)), 10)
    assert drawn.shape == (10, 10, 3)
    assert np.ptp(drawn.astype(int), axis=(0, 1)).max() == 0


def umeyama(points: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Umeyama's own solution, eqs. 40-42 (1991), by the singular values of the covariance."""
    centred, wanted = points - points.mean(0), targets - targets.mean(0)
    u, d, vt = np.linalg.svd(wanted.T @ centred / len(points))
    sign = np.diag([1, np.sign(np.linalg.det(u) * np.linalg.det(vt))])
    turn = u @ sign @ vt
    scale = np.trace(np.diag(d) @ sign) / (centred**2).sum(1).mean()
    return np.column_stack([scale * turn, targets.mean(0) - scale * turn @ points.mean(0)])


@given(sets_of_points(5), st.sampled_from(sorted(TEMPLATES)), st.sampled_from([112, 128, 150, 250]))
def test_five_points_are_fitted_as_umeyama_fits_them(points: np.ndarray, name: str, size: int) -> None:
    assume(points.std(0).max() > 1)
    targets = TEMPLATES[name].points(size, 5)
    expected = umeyama(points, targets)
    assume(np.hypot(*expected[:, 0]) > 1e-3)
    np.testing.assert_allclose(
        apply(similarity(points, targets), points), apply(expected, points), atol=1e-6 * max(1, np.abs(points).max())
    )


ARCFACE = np.array([(38.2946, 51.6963), (73.5318, 51.5014), (56.0252, 71.7366), (41.5493, 92.3655), (70.7299, 92.2041)])


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (112, ARCFACE),
        (224, ARCFACE * 2),
        (128, ARCFACE + (8, 0)),  # noqa: RUF005  # arrays
        (256, ARCFACE * 2 + (16, 0)),
        (896, ARCFACE * 8),  # a multiple of both
        (250, ARCFACE * (250 / 112)),
    ],
)
def test_arcface5_is_insightfaces_template_in_all_its_sizes(size: int, expected: np.ndarray) -> None:
    np.testing.assert_allclose(TEMPLATES["arcface5"].points(size), expected, atol=1e-9)


@pytest.mark.parametrize("size", [112, 224])
def test_the_middle_of_the_frame_is_arcface5(size: int) -> None:
    frame, template = TEMPLATES["arcface5-frame"], TEMPLATES["arcface5"]
    side, margin = size * 8 // 7, size // 14
    np.testing.assert_allclose(frame.points(side) - margin, template.points(size), atol=1e-9)
    image = random_image(300, 280)
    for scale, angle in ((0.3, 0.4), (0.8, 0.1), (1, -0.2), (1.7, 0.3)):
        points = apply(transform(1 / scale, angle, (60, 40)), template.points(size) * (112 / size))
        matrices = [similarity(points, of.points(pixels)) for of, pixels in ((frame, side), (template, size))]
        whole, middle = frame.draw(image, matrices[0], side), template.draw(image, matrices[1], size)
        assert (whole.shape, middle.shape) == ((side, side, 3), (size, size, 3))
        np.testing.assert_array_equal(whole[margin:-margin, margin:-margin], middle)


@given(st.floats(1, 3), st.floats(-1, 1))
def test_networks_of_112_by_96_take_the_middle_columns(scale: float, angle: float) -> None:
    image, template = random_image(90, 100), TEMPLATES["arcface5"].points(112)
    points = apply(transform(1 / scale, angle, (20, 10)), template)
    left = similarity(points, template - (8, 0))
    narrow = cv2.warpAffine(image, left, (96, 112), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    square = warp(image, similarity(points, template), 112)
    np.testing.assert_allclose(square[:, 8:104].astype(int), narrow, atol=1)  # rounded from other last bits


@pytest.mark.parametrize("name", ["vggface", "lfw", "arcface"])
def test_the_mouth_of_earlier_templates_is_what_it_was(name: str) -> None:
    mouths = {"vggface": (125.21, 178.99), "lfw": (125.6, 156.9), "arcface": (125.31, 205.99)}
    assert tuple(TEMPLATES[name].points(250)[2]) == tuple((np.array(mouths[name]) + 0.5) - 0.5)
    five = TEMPLATES[name].points(250, 5)
    own = apply(umeyama(ARCFACE, five), ARCFACE)
    assert np.abs(own - five).max() < (3 if name == "lfw" else 0.01)  # ArcFace's, and LFW's mean face


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (("arcface5", 112), ("arcface5", 250), True),
        (("arcface5", 112), ("arcface5", 128), False),
        (("arcface5", 112), ("arcface", 250), True),
        (("vggface", 250), ("vggface", 72), True),
        (("arcface5-frame", 128), ("arcface5", 112), False),
        (("dlib", 150), ("vggface", 250), False),
    ],
)
def test_faces_that_differ_by_scale_alone(one: tuple[str, int], other: tuple[str, int], same: bool) -> None:
    assert shows_the_same(*one, *other) == same == shows_the_same(*other, *one)


def test_points_of_faces_that_are_scaled() -> None:
    template = TEMPLATES["arcface5"]
    np.testing.assert_allclose(template.shown(112, 112), ARCFACE)
    np.testing.assert_allclose(template.shown(128, 64, 2), ((ARCFACE + (8, 0))[:2] + 0.5) / 2 - 0.5)  # noqa: RUF005
