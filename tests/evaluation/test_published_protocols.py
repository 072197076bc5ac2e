"""The protocols' own lists, with invented features: counts, budgets and averages as they are published."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from facedan_cli.config.common import EvaluateConfig
from facedan_cli.errors import FacedanError
from facedan_cli.evaluation import evaluate as evaluation
from facedan_cli.evaluation.models import EmbeddedSet, Model
from facedan_cli.evaluation.protocols import evaluate_feret, evaluate_gbu
from facedan_cli.models.checkpoint import ModelCard
from facedan_cli.protocols.feret import read_feret
from facedan_cli.protocols.gbu import read_gbu
from facedan_cli.protocols.sigset import Record, read_sigset, stem
from facedan_cli.training.target_list import read_target
from facedan_cli.workspace import Dataset, Workspace

# Paper, Table II: recovered counts of DAN_m67 and its average.
FOUND = {"fb": 1191, "fc": 193, "dup1": 703, "dup2": 230}
PROBES = {"fb": 1195, "fc": 194, "dup1": 722, "dup2": 234}


def touch(root: Path, records: Sequence[Record]) -> None:
    root.mkdir(parents=True)
    for name in {stem(record.file_name) for record in records}:
        (root / f"{name}.jpg").write_text(name, encoding="utf-8")  # files of one content are one image


@pytest.fixture
def invented(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, np.ndarray]:
    """Features by the stem of an image, to be filled by the test: they are what the only model sees."""
    features: dict[str, np.ndarray] = {}

    def embed_faces(config: Any, dataset: Dataset, folder: Any, *_: object) -> EmbeddedSet:
        vectors = np.stack([features[stem(path)] for path in folder.paths])
        return EmbeddedSet(folder.root, vectors, list(folder.paths), list(folder.names), [""] * len(folder.paths), [])

    checkpoint = tmp_path / "model.safetensors"
    checkpoint.touch()
    model = Model(ModelCard("vggface", (), "pretrain", "none", {}), checkpoint, name="invented")
    monkeypatch.setattr(evaluation, "embed_faces", embed_faces)
    monkeypatch.setattr(evaluation, "find_models", lambda *_: [model])
    return features


def test_gbu_has_the_published_counts(shared_data: Path, tmp_path: Path, invented: dict[str, np.ndarray]) -> None:
    lists = shared_data / "gbu"
    parts = read_gbu(lists)
    records = [record for part in parts.values() for record in (*part.query, *part.target)]
    rng = np.random.default_rng(0)
    invented.update({stem(record.file_name): rng.normal(size=8).astype(np.float32) for record in records})
    touch(tmp_path / "gbu", records)
    place = Workspace.open(tmp_path)
    result = evaluate_gbu(EvaluateConfig(ci="none"), place, Dataset("gbu", tmp_path / "gbu"), lists)
    for figures in result.summary()["models"][0]["partitions"].values():
        assert (figures["genuine"], figures["impostor"]) == (3297, 1_173_928)
        assert figures["budget"] == {"0.001": 1173}
        assert figures["false_accepts"] == {"0.001": 1173}
        assert figures["failures"]["images"] == 0


def test_the_training_sets_of_gbu_may_be_adapted_to(shared_data: Path, tmp_path: Path) -> None:
    (tmp_path / "protocols").mkdir()
    (tmp_path / "protocols" / "gbu").symlink_to(shared_data / "gbu")
    records = [
        record
        for name in ("x1", "x2", "x4", "x8")
        for record in read_sigset(shared_data / "gbu" / f"GBU_Training_Uncontrolled{name}.xml")
    ]
    touch(tmp_path / "aligned" / "gbu", records)
    place = Workspace.open(tmp_path)
    for name, count in zip(("x1", "x2", "x4", "x8"), (345, 673, 1126, 1766), strict=True):
        target = read_target(f"{tmp_path}/protocols/gbu/GBU_Training_Uncontrolled{name}.xml", place)
        assert len(target.folder) == count
        assert target.dataset.root == tmp_path / "aligned" / "gbu"


def test_feret_gives_table_2_of_the_paper(shared_data: Path, tmp_path: Path, invented: dict[str, np.ndarray]) -> None:
    lists = read_feret(shared_data / "feret")
    subjects = {record.subject: place for place, record in enumerate(lists.gallery)}
    basis = np.eye(len(subjects), dtype=np.float32)
    invented.update({stem(record.file_name): basis[subjects[record.subject]] for record in lists.gallery})
    wrong: set[str] = set()
    # dup2 is a part of dup1: its errors are errors there as well.
    for name in ("fb", "fc", "dup2", "dup1"):
        errors = PROBES[name] - FOUND[name] - sum(stem(record.file_name) in wrong for record in lists.probes[name])
        others = {stem(record.file_name) for record in lists.probes["dup2"]} if name == "dup1" else set()
        free = [stem(record.file_name) for record in lists.probes[name] if stem(record.file_name) not in wrong | others]
        wrong |= set(free[:errors])
    for records in lists.probes.values():
        for record in records:
            place = subjects[record.subject] + (stem(record.file_name) in wrong)
            invented[stem(record.file_name)] = basis[place % len(basis)]
    everything = [*lists.gallery, *(record for records in lists.probes.values() for record in records)]
    touch(tmp_path / "feret", everything)
    place = Workspace.open(tmp_path)
    result = evaluate_feret(EvaluateConfig(), place, Dataset("feret", tmp_path / "feret"), shared_data / "feret")
    (model,) = result.summary()["models"]
    assert {name: part["probes"] for name, part in model["partitions"].items()} == PROBES
    assert {name: part["correct"] for name, part in model["partitions"].items()} == FOUND
    assert all(part["gallery"] == 1196 for part in model["partitions"].values())
    rates = [f"{100 * part['rank1']:.2f}" for part in model["partitions"].values()]
    assert rates == ["99.67", "99.48", "97.37", "98.29"]
    assert f"{100 * model['mean_rank1']:.2f}" == "98.70"
    with (result.directory / "figures.csv").open(newline="", encoding="utf-8") as file:
        assert [row["value"] for row in csv.DictReader(file) if row["partition"] == "mean"] == [
            str(model["mean_rank1"])
        ]


def test_feret_without_its_images_is_refused(
    shared_data: Path, tmp_path: Path, invented: dict[str, np.ndarray]
) -> None:
    (tmp_path / "feret").mkdir()
    (tmp_path / "feret" / "00001_930831_fa.jpg").touch()
    invented["00001_930831_fa"] = np.ones(3, np.float32)
    with pytest.raises(FacedanError, match="probe of fb"):
        evaluate_feret(
            EvaluateConfig(), Workspace.open(tmp_path), Dataset("feret", tmp_path / "feret"), shared_data / "feret"
        )
