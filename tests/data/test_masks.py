from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from facedan_cli.data.dataset import FaceDataset
from facedan_cli.data.manifest import ALIGNED, FAILED, AlignedRecord
from facedan_cli.data.masks import draw_mask, landmarks_of
from facedan_cli.data.templates import POINT_NAMES, TEMPLATES
from facedan_cli.workspace import MANIFEST_FILE

RAW = np.array([(60, 80), (100, 84), (80, 105), (64, 125), (94, 128)], float)
TURN = np.array([[0.5, -0.1, 8], [0.1, 0.5, 4]])


def record(path: str, output: str | None, **facts: object) -> AlignedRecord:
    how = {"status": ALIGNED if output else FAILED, "template": "vggface", "size": 100, "bytes": 1, "modified": 1}
    return AlignedRecord(path=path, output=output, **(how | facts))  # type: ignore[arg-type]


def placed(points: np.ndarray, matrix: np.ndarray = TURN) -> dict[str, object]:
    named = dict(zip(POINT_NAMES, map(tuple, points.tolist()), strict=True))
    return {"points": named, "transform": tuple(map(tuple, matrix.tolist()))}


def dataset(root: Path, *records: AlignedRecord) -> FaceDataset:
    """The subfolder `a` of an aligned tree."""
    (root / MANIFEST_FILE).write_text("".join(one.to_line() for one in records), encoding="utf-8")
    (root / "a").mkdir()
    return FaceDataset(root / "a", ("x.jpg", "b/y.jpg", "z.jpg"), ("",) * 3)


def test_points_are_those_of_the_manifest_in_the_face_as_it_is_read(tmp_path: Path) -> None:
    """The last line of a face counts; a face without all five points has those of its template."""
    eyes = dict(zip(POINT_NAMES[:2], map(tuple, RAW[:2].tolist()), strict=True))
    folder = dataset(
        tmp_path,
        record("1.jpg", "a/x.jpg", **placed(RAW)),
        record("2.jpg", "a/b/y.jpg", **placed(RAW + 30)),
        record("2.jpg", "a/b/y.jpg", **placed(RAW + 5)),
        record("3.jpg", "a/z.jpg", points=eyes, transform=((1, 0, 0), (0, 1, 0))),
        record("4.jpg", None, reason="no face found"),
        record("5.jpg", "other/x.jpg", **placed(RAW * 2)),
    )
    found, usual = landmarks_of(folder, 50, "arcface5")
    assert found.keys() == {"x.jpg", "b/y.jpg"}
    for path, raw in (("x.jpg", RAW), ("b/y.jpg", RAW + 5)):
        for row, (x, y) in enumerate(raw):
            at = TURN @ (x, y, 1)
            # Half as many pixels a side: the centre of pixel p lies at (p + ½)/2 − ½.
            np.testing.assert_allclose(found[path][row], (at + 0.5) / 2 - 0.5)
    np.testing.assert_allclose(usual, TEMPLATES["vggface"].shown(100, 50, 5))


def test_without_a_manifest_the_networks_template_is_taken(tmp_path: Path) -> None:
    found, usual = landmarks_of(FaceDataset(tmp_path, ("x.jpg",), ("",)), 112, "arcface5")
    assert not found
    np.testing.assert_allclose(usual, TEMPLATES["arcface5"].points(112, 5))


@given(
    seed=st.integers(0, 999),
    size=st.sampled_from([36, 72, 112]),
    turn=st.floats(-40, 40),
    shift=st.floats(-0.3, 0.3),
)
def test_a_mask_turns_with_the_face(seed: int, size: int, turn: float, shift: float) -> None:
    """Mouth covered, eyes free, also where the face is turned or reaches over the edge."""
    middle = (size / 2, size * (0.5 + shift))
    matrix = cv2.getRotationMatrix2D(middle, turn, 1.0)
    points = TEMPLATES["vggface"].points(size, 5) @ matrix[:, :2].T + matrix[:, 2] + (0, shift * size)
    colour = np.array([251, 1, 120])  # of no mask
    face = np.full((size, size, 3), colour, np.uint8)
    masked = draw_mask(face, points, np.random.default_rng(seed))
    assert (masked.shape, masked.dtype) == (face.shape, np.uint8)
    assert (face == colour).all()
    for row, (x, y) in enumerate(np.rint(points).astype(int)):
        if row == 2 or not (0 <= x < size and 0 <= y < size):
            continue
        # At few pixels the edge of a mask or a strap shines through at an eye.
        change = np.abs(masked[y, x] - colour).max()
        assert change > 15 if row > 2 else change < 60


@pytest.mark.parametrize("far", [-500.0, 500.0])
def test_a_mask_outside_the_image_changes_nothing(far: float) -> None:
    face = np.full((40, 40, 3), 9, np.uint8)
    points = TEMPLATES["vggface"].points(40, 5) + far
    assert np.array_equal(draw_mask(face, points, np.random.default_rng(0)), face)
    assert np.array_equal(draw_mask(face, np.full((5, 2), 20.0), np.random.default_rng(0)).shape, face.shape)
