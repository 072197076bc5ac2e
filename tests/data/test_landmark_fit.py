from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tiny import Notes

from facedan_cli.config.models import NETWORKS
from facedan_cli.data import landmark_fit as module
from facedan_cli.data.landmark_fit import LandmarkFit, landmark_fit
from facedan_cli.data.manifest import ALIGNED, AlignedRecord
from facedan_cli.data.templates import POINT_NAMES, TEMPLATES, anchors, similarity
from facedan_cli.embedding.alignment import Expected, misfits
from facedan_cli.training.datasets import check_alignment
from facedan_cli.workspace import MANIFEST_FILE, Dataset

Bend = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def jittered(share: float) -> Bend:
    """Landmarks that lie off a face by this share of the eye distance."""
    return lambda points, random: points + random.normal(0, share * np.linalg.norm(points[1] - points[0]), (5, 2))


def mouth_in_the_nose(points: np.ndarray, _: np.random.Generator) -> np.ndarray:
    return np.vstack([points[:3], points[3:] - [0, 0.45 * np.linalg.norm(points[1] - points[0])]])


def write(root: Path, bend: Bend, *, template: str = "arcface5", count: int = 30, folder: str = "a") -> None:
    """A manifest of faces that stand, turned, shifted and scaled at random, in images of their own."""
    random = np.random.default_rng(0)
    (root / folder).mkdir(parents=True, exist_ok=True)
    entry = TEMPLATES[template].entry
    with (root / MANIFEST_FILE).open("a", encoding="utf-8") as file:
        for number in range(count):
            turn, scale = random.uniform(-0.5, 0.5), random.uniform(0.5, 3)
            matrix = scale * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
            face = jittered(0.03)(TEMPLATES[template].points(entry.size, 5), random)
            points = bend(face @ matrix.T + random.uniform(0, 300, 2), random)
            transform = similarity(anchors(points, entry.fitted), TEMPLATES[template].points(entry.size))
            record = AlignedRecord(
                path=f"{folder}/{number}.png",
                output=f"{folder}/{number}.jpg",
                status=ALIGNED,
                points={name: tuple(point) for name, point in zip(POINT_NAMES, points.tolist(), strict=True)},
                transform=tuple(map(tuple, transform.tolist())),
                template=template,
                size=entry.size,
                bytes=1,
                modified=1,
            )
            file.write(record.to_line())


@pytest.mark.parametrize("template", TEMPLATES)
def test_faces_by_right_landmarks_fit_wherever_they_stand(tmp_path: Path, template: str) -> None:
    write(tmp_path, jittered(0.03), template=template)
    fit = landmark_fit(tmp_path)
    assert fit is not None
    assert fit.faces == 30
    assert fit.eye_distance == pytest.approx(1, abs=0.05)
    assert 0.02 < fit.spread < 0.08
    assert fit.problem is None


@pytest.mark.parametrize("template", TEMPLATES)
def test_faces_by_wrong_landmarks_do_not_fit(tmp_path: Path, template: str) -> None:
    write(tmp_path, jittered(0.25), template=template)
    assert "off the template" in landmark_fit(tmp_path).problem
    write(tmp_path / "other", mouth_in_the_nose, template=template)
    assert "distance apart" in landmark_fit(tmp_path / "other").problem


def test_the_values_are_those_of_the_mapped_landmarks(tmp_path: Path) -> None:
    """Eyes at 1.2 of their distance and nothing else wrong: 0.1 of it each, twice of five points."""
    template = TEMPLATES["arcface5"].points(112, 5)
    middle = template[:2].mean(0)
    points = np.vstack([middle + 1.2 * (template[:2] - middle), template[2:]])
    record = AlignedRecord(
        path="a.png",
        output="a.jpg",
        status=ALIGNED,
        points={name: tuple(point) for name, point in zip(POINT_NAMES, points.tolist(), strict=True)},
        transform=((1, 0, 0), (0, 1, 0)),
        template="arcface5",
        size=112,
        bytes=1,
        modified=1,
    )
    lines = [record.to_line().replace("a.", f"{number}.") for number in range(20)]
    (tmp_path / MANIFEST_FILE).write_text("".join(lines))
    fit = landmark_fit(tmp_path)
    assert (fit.eye_distance, fit.spread) == (pytest.approx(1.2), pytest.approx((2 * 0.1**2 / 5) ** 0.5))


def test_few_faces_or_eyes_alone_say_nothing(tmp_path: Path) -> None:
    assert landmark_fit(tmp_path) is None
    write(tmp_path, jittered(0.3), count=19)
    assert landmark_fit(tmp_path) is None
    manifest = tmp_path / MANIFEST_FILE
    manifest.write_text(manifest.read_text() * 3)  # the same faces again
    assert landmark_fit(tmp_path) is None
    write(tmp_path, jittered(0.3), count=25)
    assert landmark_fit(tmp_path).faces == 25
    manifest.write_text(manifest.read_text().replace('"nose"', '"chin"'))
    assert landmark_fit(tmp_path) is None


def test_the_faces_below_a_directory_count(tmp_path: Path) -> None:
    write(tmp_path, jittered(0.0), folder="good")
    write(tmp_path, jittered(0.3), folder="bad")
    assert landmark_fit(tmp_path).faces == 60
    assert landmark_fit(tmp_path / "good").problem is None
    assert landmark_fit(tmp_path / "bad").problem is not None


def test_a_large_manifest_is_sampled_and_may_be_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, jittered(0.02), count=200)
    with (tmp_path / MANIFEST_FILE).open("a") as file:
        file.write("{\n" * 50)
    whole = landmark_fit(tmp_path)
    monkeypatch.setattr(module, "_WHOLE", 100)
    monkeypatch.setattr(module, "_PLACES", 60)
    part = landmark_fit(tmp_path)
    assert 40 < part.faces < 70 < whole.faces
    assert part.spread == pytest.approx(whole.spread, abs=0.01)


def test_measuring_and_training_warn_and_say_what_to_do(tmp_path: Path) -> None:
    write(tmp_path, jittered(0.25), template="vggface")
    (warning,) = misfits({"gate": tmp_path})
    assert "'gate'" in str(warning)
    assert "--contact-sheet" in warning.command
    notes = Notes()
    expected = Expected.by_row("vggface", NETWORKS["vggface"], certain=True)
    check_alignment(notes, expected, Dataset("gate", tmp_path))
    assert str(warning) in notes.warnings


def test_the_thresholds_are_usual_values() -> None:
    assert LandmarkFit(30, 1.08, 0.1).problem is None
    both = LandmarkFit(30, 1.3, 0.2).problem
    assert "1.30" in both
    assert "0.20" in both
