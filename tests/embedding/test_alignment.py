from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny import Notes, mark_aligned

from facedan_cli.data.dataset import FaceDataset
from facedan_cli.embedding.alignment import alignment_warnings, template_name
from facedan_cli.embedding.model import LBP, FaceModel
from facedan_cli.models.checkpoint import ModelCard
from facedan_cli.models.embedder import Embedder
from facedan_cli.models.networks import build


def model(template: str | None) -> FaceModel:
    return FaceModel(ModelCard("vggface-mini", ("a", "b"), "pretrain", "run", {}, template=template), Path("x"))


@pytest.fixture
def folder(tmp_path: Path) -> FaceDataset:
    for person in ("anna", "bo"):
        (tmp_path / "faces" / person).mkdir(parents=True)
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
    assert warnings(folder, model("lfw"), model(None), LBP) == []


def test_each_network_that_learnt_another_template_is_named(folder: FaceDataset) -> None:
    mark_aligned(folder.root, "lfw")
    (warning,) = warnings(folder, model("arcface"), model("lfw"), LBP)
    assert "'gate' are aligned to the template lfw, those that 'model 0' learnt from to arcface" in warning
    assert "--template arcface" in warning


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
