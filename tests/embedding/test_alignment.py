from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny import Notes, mark_aligned

from facedan_cli.data.dataset import FaceDataset
from facedan_cli.data.manifest import ALIGNED, AlignedRecord
from facedan_cli.embedding.alignment import alignment_warnings, template_name
from facedan_cli.embedding.model import LBP, FaceModel
from facedan_cli.errors import FacedanError
from facedan_cli.models.checkpoint import ModelCard
from facedan_cli.models.embedder import Embedder
from facedan_cli.models.networks import build
from facedan_cli.workspace import MANIFEST_FILE


def model(template: str | None) -> FaceModel:
    return FaceModel(ModelCard("vggface-mini", ("a", "b"), "pretrain", "run", {}, template=template), Path("x"))


@pytest.fixture
def folder(tmp_path: Path) -> FaceDataset:
    for identity in ("anna", "bo"):
        (tmp_path / "faces" / identity).mkdir(parents=True)
    return FaceDataset(tmp_path / "faces", ("anna/1.jpg", "bo/1.jpg"), ("anna", "bo"))


def warnings(folder: FaceDataset, *models: FaceModel) -> list[str]:
    return alignment_warnings({f"model {number}": one for number, one in enumerate(models)}, {"gate": folder})


def test_faces_of_which_nothing_is_said_are_warned_of_once(folder: FaceDataset) -> None:
    (warning,) = warnings(folder, model("vggface"), model(None), LBP)
    assert "no aligned.jsonl says that the faces of 'gate' are aligned" in warning
    assert f"facedan align {folder.root} ALIGNED" in warning


def test_faces_on_the_template_that_was_learnt_are_not_warned_of(folder: FaceDataset) -> None:
    mark_aligned(folder.root, "lfw")
    assert template_name(folder.root / "anna") == "lfw"
    assert warnings(folder, model("lfw"), LBP) == []
    mark_aligned(folder.root, "vggface")  # its row's, where the checkpoint does not say
    assert warnings(folder, model(None), LBP) == []


def test_each_network_that_learnt_another_template_is_named(folder: FaceDataset) -> None:
    mark_aligned(folder.root, "lfw")
    (warning,) = warnings(folder, model("arcface"), model("lfw"), LBP)
    assert "'gate' (lfw at 72 pixels) are not aligned as 'model 0' expects them (arcface at 72 pixels)" in warning
    assert warning.endswith("facedan align RAW ALIGNED --for x")  # its file; its row has another template


def test_a_part_that_is_not_aligned_is_noticed(folder: FaceDataset) -> None:
    mark_aligned(folder.root / "anna")
    (warning,) = warnings(folder, model("vggface"))
    assert "no aligned.jsonl" in warning


@pytest.mark.parametrize(
    ("images", "problem"),
    [
        (torch.zeros(1, 3, 64, 64), r"shape \(batch, 3, 72, 72\)"),
        (torch.zeros(1, 72, 72, 3), r"shape \(batch, 3, 72, 72\)"),
        (torch.zeros(3, 72, 72), r"shape \(batch, 3, 72, 72\)"),
        (torch.zeros(1, 3, 72, 72, dtype=torch.int64), "must be uint8 or floating-point"),
        (torch.full((1, 3, 72, 72), 0.7), "from 0 to 255"),
    ],
)
def test_an_embedder_refuses_other_images(images: torch.Tensor, problem: str) -> None:
    embedder = Embedder(build("vggface-mini", 2).eval(), "fc7", flip=False)
    assert embedder(torch.full((2, 3, 72, 72), 128, dtype=torch.uint8)).shape[0] == 2
    with pytest.raises(ValueError, match=problem):
        embedder(images)


def test_a_network_that_learnt_from_images_as_little_known_makes_a_note(folder: FaceDataset) -> None:
    report = Notes()
    named = {"a": model(""), "b": model("")}
    assert alignment_warnings(named, {"gate": folder}, report) == []
    assert len(report.notes) == 1
    assert len(alignment_warnings(named | {"lbp": LBP}, {"gate": folder}, report)) == 1
    assert len(alignment_warnings({"a": model(None)}, {"gate": folder}, report)) == 1


def recogniser(template: str | None = None, stage: str = "weights") -> FaceModel:
    return FaceModel(ModelCard("iresnet50", ("",), stage, "run", {}, template=template), Path("runs/x/model"))


def mark(folder: FaceDataset, template: str, size: int, fitted: int | None = None) -> None:
    record = AlignedRecord(
        path="x.jpg", output="x.jpg", status=ALIGNED, template=template, size=size, bytes=1, modified=1, fitted=fitted
    )
    (folder.root / MANIFEST_FILE).write_text(record.to_line(), encoding="utf-8")


@pytest.mark.parametrize(
    ("faces", "problem"),
    [
        (("arcface5", 112, 5), None),
        (("arcface5-frame", 128, 5), None),
        (("arcface5", 112, None), "arcface5 at 112 pixels, fitted by 3 points"),
        (("vggface", 250, None), "vggface at 250 pixels"),
        (("given", 112, None), "given at 112 pixels"),
    ],
)
def test_published_weights_expect_what_their_row_says(
    folder: FaceDataset, faces: tuple[str, int, int | None], problem: str | None
) -> None:
    mark(folder, *faces)
    found = warnings(folder, recogniser())
    if problem is None:
        assert found == []
        return
    (warning,) = found
    assert f"'gate' ({problem}) are not aligned as 'model 0' expects them (arcface5 at 112 pixels)" in warning
    assert "facedan align RAW ALIGNED --for iresnet50" in warning
    assert ("--no-align" in warning) == (faces[0] == "given")
    with pytest.raises(FacedanError, match="--strict: the faces of 'gate'") as caught:
        alignment_warnings({"a": recogniser()}, {"gate": folder}, strict=True)
    assert caught.value.fix.startswith("facedan align RAW ALIGNED --for iresnet50")


def test_given_faces_are_not_warned_of_where_nothing_is_known_of_the_network_either(folder: FaceDataset) -> None:
    mark(folder, "given", 72)
    assert warnings(folder, model(None), model("")) == []
    assert len(warnings(folder, model("vggface"))) == 1


def test_networks_that_expect_the_same_share_a_warning(folder: FaceDataset) -> None:
    mark(folder, "lfw", 250)
    (warning,) = warnings(folder, model("vggface"), model("vggface"), model("lfw"))
    assert "'model 0', 'model 1'" in warning


@pytest.mark.parametrize(("size", "scaled"), [(112, False), (224, True), (250, True)])
def test_faces_of_another_size_are_scaled_with_a_note(folder: FaceDataset, size: int, scaled: bool) -> None:
    mark(folder, "arcface5", size, 5)
    report = Notes()
    assert alignment_warnings({"a": recogniser()}, {"gate": folder}, report, strict=True) == []
    assert [f"(arcface5 at {size} pixels) are scaled to 112 pixels" in note for note in report.notes] == [True] * scaled


def test_strict_refuses_unknown_faces_too(folder: FaceDataset) -> None:
    with pytest.raises(FacedanError, match=r"--strict: no aligned\.jsonl") as caught:
        alignment_warnings({"a": recogniser()}, {"gate": folder}, strict=True)
    assert f"facedan align {folder.root} ALIGNED --for iresnet50" in caught.value.fix


def test_the_template_of_a_tree_has_unusual_points_in_its_name(folder: FaceDataset) -> None:
    mark(folder, "arcface5", 112)
    assert template_name(folder.root) == "arcface5:3"
    assert warnings(folder, recogniser("arcface5:3", "adapt")) == []
    mark(folder, "arcface5", 112, 5)
    assert template_name(folder.root) == "arcface5"
    assert len(warnings(folder, recogniser("arcface5:3", "adapt"))) == 1
