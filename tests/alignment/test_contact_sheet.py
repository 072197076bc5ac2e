from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageColor

from facedan_cli.alignment import contact_sheet as align_sheet
from facedan_cli.alignment.contact_sheet import (
    CAPTION,
    COLUMNS,
    FOUND,
    HEADING,
    MARGIN,
    REFERENCE,
    TILE,
    write_contact_sheet,
)
from facedan_cli.data.manifest import AlignedRecord, ManifestWriter
from facedan_cli.data.templates import TEMPLATES

SIZE = 250
EYES = {"image_left_eye": (70.0, 60.0), "image_right_eye": (180.0, 60.0)}


def record(number: int, probability: float | None, **more: object) -> AlignedRecord:
    facts = {
        "output": f"{number}.jpg",
        "status": "aligned",
        "source": "mtcnn",
        "points": EYES,
        "transform": ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0)),
    }
    return AlignedRecord(
        path=f"{number}.png",
        probability=probability,
        template="vggface",
        size=SIZE,
        bytes=1,
        modified=1,
        **facts | more,
    )


def write(root: Path, records: list[AlignedRecord]) -> Path:
    """A manifest beside faces that are grey, each of the brightness that its name says."""
    for one in records:
        if one.output:
            grey = int(Path(one.output).stem)
            Image.new("RGB", (SIZE, SIZE), (grey, grey, grey)).save(root / one.output)
    with ManifestWriter(root / "aligned.jsonl") as writer:
        writer.append(records)
    return root / "aligned.jsonl"


def tiles(path: Path, count: int) -> list[np.ndarray]:
    sheet = np.asarray(Image.open(path).convert("RGB"))
    corners = [divmod(index, COLUMNS) for index in range(count)]
    places = [(HEADING + MARGIN + r * (TILE + CAPTION + MARGIN), MARGIN + c * (TILE + MARGIN)) for r, c in corners]
    return [sheet[y : y + TILE, x : x + TILE].astype(int) for y, x in places]


def shades(path: Path, count: int) -> list[int]:
    return [int(np.median(tile)) for tile in tiles(path, count)]


def test_the_least_certain_come_first_and_failures_not_at_all(tmp_path: Path) -> None:
    records = [
        record(10, 0.99),
        record(60, None, source="landmarks"),
        record(110, 0.71),
        record(160, 0.8, source="mtcnn, contrast stretched"),
        record(200, None, output=None, status="failed", points=None, transform=None),
    ]
    assert write_contact_sheet(tmp_path / "sheet.png", write(tmp_path, records)) == 4
    np.testing.assert_allclose(shades(tmp_path / "sheet.png", 4), [110, 160, 10, 60], atol=3)


def test_only_the_last_line_on_an_image_counts(tmp_path: Path) -> None:
    records = [record(10, 0.7), record(60, 0.75), record(10, 0.9), record(110, 0.72)]
    records.append(record(110, None, output=None, status="failed", points=None, transform=None))
    assert write_contact_sheet(tmp_path / "sheet.png", write(tmp_path, records)) == 2
    np.testing.assert_allclose(shades(tmp_path / "sheet.png", 2), [60, 10], atol=3)


def test_a_sheet_has_its_limit_and_many_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(align_sheet, "FACES", 12)
    manifest = write(tmp_path, [record(number, 0.7 + number / 1000) for number in range(20)])
    assert write_contact_sheet(tmp_path / "sheet.png", manifest) == 12
    np.testing.assert_allclose(shades(tmp_path / "sheet.png", 12), range(12), atol=3)
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.height == HEADING + MARGIN + 2 * (TILE + CAPTION + MARGIN)


def near(tile: np.ndarray, point: np.ndarray, colour: str) -> bool:
    """Whether the pixel at a point of a face has a colour."""
    x, y = np.rint((point + 0.5) * TILE / SIZE - 0.5).astype(int)
    return bool(np.abs(tile[y - 1 : y + 2, x - 1 : x + 2] - ImageColor.getrgb(colour)).sum(2).min() < 120)


def test_points_and_template_are_marked_where_they_are(tmp_path: Path) -> None:
    shifted = {"transform": ((1.0, 0.0, 20.0), (0.0, 1.0, 10.0))}
    write_contact_sheet(tmp_path / "sheet.png", write(tmp_path, [record(110, 0.9, **shifted)]))
    (tile,) = tiles(tmp_path / "sheet.png", 1)
    for point in EYES.values():
        assert near(tile, np.array(point) + np.array((20, 10)), FOUND)
        assert not near(tile, np.array(point), FOUND)
    for point in TEMPLATES["vggface"].points(SIZE):
        assert near(tile, point, REFERENCE)


def test_faces_that_were_aligned_already_have_no_marks(tmp_path: Path) -> None:
    records = [record(110, None, points=None, transform=None, source="copied")]
    given = [AlignedRecord(**{**vars(one), "template": "given"}) for one in records]
    write_contact_sheet(tmp_path / "sheet.png", write(tmp_path, given))
    (tile,) = tiles(tmp_path / "sheet.png", 1)
    assert np.ptp(tile) == 0


def test_odd_names_and_missing_faces_are_no_obstacle(tmp_path: Path) -> None:
    records = [record(10, 0.7), record(60, 0.8), record(110, 0.9)]
    odd = [AlignedRecord(**{**vars(one), "path": "long/" * 30 + f"caf\udce9\n李{one.path}"}) for one in records]
    manifest = write(tmp_path, odd)
    (tmp_path / "60.jpg").unlink()
    (tmp_path / "10.jpg").write_bytes(b"no image")
    assert write_contact_sheet(tmp_path / "sheet.png", manifest) == 1


def test_no_faces_make_an_empty_sheet(tmp_path: Path) -> None:
    assert write_contact_sheet(tmp_path / "sheet.jpg", tmp_path / "aligned.jsonl") == 0
    with Image.open(tmp_path / "sheet.jpg") as sheet:
        assert sheet.format == "JPEG"
