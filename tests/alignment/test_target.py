"""Where faces are drawn: templates with five points, --points, --for, and faces that are given on a template."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from facedan_cli.alignment.align import align
from facedan_cli.alignment.target import Target, resolved
from facedan_cli.config.common import AlignConfig
from facedan_cli.config.models import NETWORKS
from facedan_cli.config.templates import TEMPLATES as ENTRIES
from facedan_cli.data.alignments import Alignment, alignment_of, template_and_size
from facedan_cli.data.manifest import AlignedRecord, read_records
from facedan_cli.data.templates import POINT_NAMES, TEMPLATES
from facedan_cli.errors import FacedanError, UsageError
from facedan_cli.models.checkpoint import ModelCard, save_checkpoint
from facedan_cli.models.networks import build
from facedan_cli.report import Report
from facedan_cli.workspace import Workspace

FIVE = np.array([(30.2, 41.0), (61.4, 39.5), (47.0, 58.2), (35.1, 76.3), (59.9, 75.0)])


class Notes(Report):
    """Keeps the notes."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.fixture
def config(tmp_path: Path) -> AlignConfig:
    """An image whose five points are known."""
    (tmp_path / "raw").mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (20, 20, 3), dtype=np.uint8)
    Image.fromarray(cv2.resize(noise, (100, 110), interpolation=cv2.INTER_CUBIC)).save(tmp_path / "raw" / "a.png")
    header = ",".join(f"{name}_{axis}" for name in POINT_NAMES for axis in "xy")
    (tmp_path / "points.csv").write_text(f"path,{header}\na.png,{','.join(map(str, FIVE.ravel()))}\n")
    return AlignConfig(
        raw=tmp_path / "raw", out=tmp_path / "out", landmarks=tmp_path / "points.csv", device="cpu", workers=1
    )


def only_record(config: AlignConfig) -> AlignedRecord:
    (record,) = read_records(align(config).manifest)
    return record


def least_squares(points: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """The similarity from the normal equations in (a, b, x, y)."""
    rows = [row for x, y in points for row in ((x, -y, 1, 0), (y, x, 0, 1))]
    a, b, x, y = np.linalg.lstsq(np.array(rows), targets.ravel(), rcond=None)[0]
    return np.array([[a, -b, x], [b, a, y]])


def three(points: np.ndarray) -> np.ndarray:
    return np.stack([points[0], points[1], points[3:].mean(0)])


@pytest.mark.parametrize("template", ENTRIES)
@pytest.mark.parametrize("points", [None, 3, 5])
def test_the_points_that_are_asked_for_are_fitted(config: AlignConfig, template: str, points: int | None) -> None:
    record = only_record(replace(config, template=template, points=points))
    entry = ENTRIES[template]
    count = points or {"vggface": 3, "lfw": 3, "arcface": 3}.get(template, 5)
    targets = TEMPLATES[template].points(entry.size, 5)
    expected = least_squares(FIVE, targets) if count == 5 else least_squares(three(FIVE), three(targets))
    np.testing.assert_allclose(np.array(record.transform), expected, atol=1e-5)
    assert (record.template, record.size, record.fitted) == (template, entry.size, 5 if count == 5 else None)
    with Image.open(config.out / "a.jpg") as face:
        assert face.size == (entry.size, entry.size)


def test_a_tree_knows_how_many_points_were_fitted(config: AlignConfig) -> None:
    five = replace(config, template="arcface5")
    manifest = align(five).manifest
    settings = json.loads((config.out / "align.json").read_text())
    assert (settings["template"], settings["size"], settings["points"]) == ("arcface5", 112, 5)
    assert alignment_of(manifest) == Alignment("arcface5", 112, 5)
    assert template_and_size(manifest) == "arcface5 at 112 pixels"
    assert align(replace(five, size=112, points=5)).already == 1  # what is the default may be said
    with pytest.raises(FacedanError, match=r"another --points$"):
        align(replace(five, points=3))
    align(replace(five, points=3, force=True))
    assert template_and_size(manifest) == "arcface5 at 112 pixels, fitted by 3 points"
    assert "points" not in json.loads((config.out / "align.json").read_text())
    with pytest.raises(FacedanError, match=r"another --points$"):
        align(five)


def test_trees_of_earlier_versions_are_continued(config: AlignConfig) -> None:
    config = replace(config, landmark_offset="reference")
    result = align(config)
    settings = json.loads((config.out / "align.json").read_text())
    assert list(settings) == [
        *("no_align", "size", "template", "min_face", "second_pass", "landmark_offset", "landmarks")
    ]
    assert (settings["size"], settings["template"]) == (250, "vggface")
    assert "fitted" not in json.loads(result.manifest.read_text())
    assert align(replace(config, size=250, template="vggface", points=3)).already == 1


def test_eyes_alone_are_brought_to_the_template_with_a_remark(config: AlignConfig) -> None:
    config.landmarks.write_text("path,righteyex,righteyey,lefteyex,lefteyey\na.png,30,40,60,42\n")
    notes = Notes()
    (record,) = read_records(align(replace(config, template="arcface5"), notes).manifest)
    assert ["the eyes alone" in note for note in notes.notes] == [True]
    matrix = np.array(record.transform)
    np.testing.assert_allclose(
        np.array([(30, 40), (60, 42)]) @ matrix[:, :2].T + matrix[:, 2], TEMPLATES["arcface5"].points(112, 2), atol=1e-3
    )
    assert record.fitted is None
    notes = Notes()
    align(replace(config, out=config.out.parent / "lfw", template="lfw"), notes)
    assert notes.notes == []


@pytest.mark.parametrize("points", [0, 2, 4, 68])
def test_other_numbers_of_points_are_refused(config: AlignConfig, points: int) -> None:
    with pytest.raises(UsageError, match="--points"):
        align(replace(config, points=points))


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace.open(tmp_path / "workspace")


def checkpoint(workspace: Workspace, template: str | None, model: str = "vggface-mini") -> Path:
    path = workspace.root / "model.safetensors"
    path.parent.mkdir(exist_ok=True)
    save_checkpoint(path, build(model, 2), ModelCard(model, ("a", "b"), "pretrain", "run", {}, template=template))
    return path


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_of_the_table_names_its_target(config: AlignConfig, workspace: Workspace, name: str) -> None:
    row = NETWORKS[name]
    target = Target.of(resolved(replace(config, for_=name), workspace))
    assert target == Target(row.template, row.image_size, ENTRIES[row.template].fitted)


@pytest.mark.parametrize(
    ("learnt", "target"),
    [
        ("lfw", Target("lfw", 72, 3)),
        ("arcface5", Target("arcface5", 112, 5)),
        ("", Target("vggface", 72, 3)),
        (None, Target("vggface", 72, 3)),
    ],
)
def test_a_checkpoint_names_what_it_learnt_from(
    config: AlignConfig, workspace: Workspace, learnt: str | None, target: Target
) -> None:
    path = checkpoint(workspace, learnt)
    assert Target.of(resolved(replace(config, for_=str(path)), workspace)) == target


@pytest.mark.parametrize(("option", "value"), [("template", "lfw"), ("size", 250), ("points", 5)])
def test_other_options_may_not_contradict_the_network(
    config: AlignConfig, workspace: Workspace, option: str, value: str | int
) -> None:
    with pytest.raises(UsageError, match=f"--{option} {value} contradicts --for facenet"):
        resolved(replace(config, for_="facenet", **{option: value}), workspace)
    same = replace(config, for_="facenet", template="arcface", size=182, points=3)
    assert resolved(same, workspace) == replace(same, for_=None)


def test_networks_that_name_no_target(config: AlignConfig, workspace: Workspace) -> None:
    with pytest.raises(UsageError, match="any template"):
        resolved(replace(config, for_="lbp"), workspace)
    with pytest.raises(FacedanError, match="others had aligned"):
        resolved(replace(config, for_=str(checkpoint(workspace, "given"))), workspace)
    with pytest.raises(FacedanError, match="no template 'template-of-2030'"):
        resolved(replace(config, for_=str(checkpoint(workspace, "template-of-2030"))), workspace)
    with pytest.raises(FacedanError, match="nobody"):
        resolved(replace(config, for_="nobody"), workspace)


def test_faces_may_be_given_on_a_template(config: AlignConfig) -> None:
    raw, out = config.raw, config.out
    (raw / "a.png").unlink()
    face = np.random.default_rng(1).integers(0, 256, (112, 112, 3), dtype=np.uint8)
    for name, shape in (("a", (112, 112)), ("b", (224, 224)), ("c", (128, 128)), ("d", (112, 96))):
        Image.fromarray(cv2.resize(face, shape[::-1])).save(raw / f"{name}.jpg")
    given = AlignConfig(raw=raw, out=out, no_align=True, template="arcface5", workers=1)
    result = align(given)
    assert alignment_of(result.manifest) == Alignment("arcface5", 112, 5)
    reasons = {record.path: record.reason for record in read_records(result.manifest)}
    assert (reasons["a.jpg"], reasons["b.jpg"]) == ("", "")
    assert "another part" in reasons["c.jpg"]  # InsightFace's 128×128 have a margin
    assert "square" in reasons["d.jpg"]
    assert json.loads((out / "align.json").read_text()) == {
        "no_align": True,
        "size": 112,
        "template": "arcface5",
        "points": 5,
    }
    with pytest.raises(FacedanError, match="another --size, --template, --points"):
        align(replace(given, template=None))
