"""`adapt --method whiten`: mean and covariance of the target in a network whose weights stay."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import normalised
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny import Notes

from facedan_cli.config import models
from facedan_cli.config.common import EmbedConfig, EvaluateConfig, ExportConfig
from facedan_cli.config.table import TableConfig
from facedan_cli.config.training import AdaptConfig, PretrainConfig
from facedan_cli.data.batches import read_face
from facedan_cli.data.dataset import read_dataset
from facedan_cli.embedding.embed import embed
from facedan_cli.embedding.model import FaceModel
from facedan_cli.errors import FacedanError, UsageError
from facedan_cli.evaluation.models import label_of
from facedan_cli.export.export import export
from facedan_cli.models.checkpoint import ModelCard, load_checkpoint
from facedan_cli.models.embedder import Embedder
from facedan_cli.table.runs import resolve_rows, train_table
from facedan_cli.training import whiten
from facedan_cli.training.adapt import adapt, plan_adapt
from facedan_cli.training.adapt_job import AdaptJob
from facedan_cli.training.datasets import TrainingResult
from facedan_cli.training.pretrain import plan_pretrain, pretrain
from facedan_cli.workspace import Workspace

PRETRAIN = PretrainConfig(source="casia", model=normalised.NAME, iterations=6, batch=8, log_every=1)
WHITEN = AdaptConfig(source="casia", target="frgc", method="whiten")
CONTROL = AdaptConfig(source="casia", target="frgc", iterations=2, batch=4, lambda_=0.0)
LEFT_OUT = "is left out: the network changes below it"


@pytest.fixture(autouse=True)
def network() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setitem(models.NETWORKS, normalised.NAME, normalised.ENTRY)  # type: ignore[arg-type]
        patched.setattr("facedan_cli.training.bandwidths.BANDWIDTH_SAMPLE", 16)
        yield


@pytest.fixture
def pretrained(workspace: Workspace, network: None) -> Workspace:
    pretrain(plan_pretrain(PRETRAIN, workspace))
    return workspace


def run(workspace: Workspace, report: Notes | None = None, **options: Any) -> TrainingResult:
    return adapt(plan_adapt(replace(WHITEN, **options), workspace), report=report or Notes())


def faces_of(workspace: Workspace, name: str) -> torch.Tensor:
    paths = sorted((workspace.root / "aligned" / name).glob("*.png"))
    return torch.stack([torch.from_numpy(read_face(path, 36).copy()).permute(2, 0, 1) for path in paths])


def plain(checkpoint: Path, faces: torch.Tensor, layer: str = "embedding", *, flip: bool = False) -> np.ndarray:
    """Rows of length one of a checkpoint's network, as if it held no whitening."""
    network, _ = load_checkpoint(checkpoint)
    network.whitening = None
    with torch.no_grad():
        rows: np.ndarray = Embedder(network, layer, flip=flip)(faces).double().numpy()
    return rows


def whitened_by(target: np.ndarray, rows: np.ndarray, power: float) -> np.ndarray:
    """Slowly, by numpy: the covariance's shrinkage by scikit-learn, its power by eigenvectors."""
    from sklearn.covariance import LedoitWolf

    values, vectors = np.linalg.eigh(LedoitWolf().fit(target).covariance_)
    moved = (rows - target.mean(0)) @ vectors @ np.diag(values**-power) @ vectors.T
    return moved / np.linalg.norm(moved, axis=1, keepdims=True)


def embedded(workspace: Workspace, checkpoint: Path, **options: Any) -> np.ndarray:
    dataset = workspace.dataset("gbu")
    config = EmbedConfig(dataset="gbu", **options)
    return embed(config, read_dataset(dataset.root), FaceModel.of(checkpoint), workspace).load()[0]


@pytest.mark.parametrize("options", [{}, {"whiten_power": 0.5}, {"whiten_power": 0.0}, {"whiten_flip": True}])
def test_features_are_whitened_by_the_moments_of_the_target(pretrained: Workspace, options: dict[str, Any]) -> None:
    job = plan_adapt(replace(WHITEN, **options), pretrained)
    made = adapt(job)
    before, after = load_file(job.init), load_file(made.run.checkpoint)
    assert after.keys() - before.keys() == {"whitening.mean", "whitening.matrix"}
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    flip = bool(options.get("whiten_flip"))
    target = plain(job.init, faces_of(pretrained, "frgc"), flip=flip)
    rows = plain(job.init, faces_of(pretrained, "gbu"), flip=flip)
    expected = whitened_by(target, rows, options.get("whiten_power", 0.25))
    np.testing.assert_allclose(embedded(pretrained, made.run.checkpoint, flip=flip), expected, atol=2e-4)


def test_other_layers_are_plain(pretrained: Workspace) -> None:
    made = run(pretrained)
    expected = plain(made.run.checkpoint, faces_of(pretrained, "gbu"), "0")
    np.testing.assert_allclose(embedded(pretrained, made.run.checkpoint, layer="0"), expected, atol=1e-6)


def test_its_run_says_of_what_it_is(pretrained: Workspace) -> None:
    (pretrained.root / "aligned" / "frgc" / "broken.png").write_bytes(b"no image")
    report = Notes()
    made = run(pretrained, report)
    card = load_checkpoint(made.run.checkpoint)[1]
    assert (card.stage, card.run, label_of(card)) == ("adapt", made.run.name, "whitened")
    assert made.set_aside is not None
    assert "broken.png" in made.set_aside.read_text()
    assert made.metrics["images"] == 16 == card.config["images"]
    assert any("of 16 target images" in note for note in report.notes)
    assert any("too few to estimate the number of people" in warning for warning in report.warnings)
    record = json.loads((made.run.directory / "run.json").read_text())
    assert record["config"].keys() >= {"method", "whiten_power", "whiten_rank", "source", "target"}
    assert not {"lambda", "adabn_mix"} & record["config"].keys()
    assert run(pretrained).skipped
    assert run(pretrained, lambda_=3.0, batch=5).run.name == made.run.name  # what it does not use


@pytest.mark.parametrize(
    ("config", "label"),
    [
        ({}, "whitened"),
        ({"whiten_power": 0.25, "whiten_rank": 4}, "whitened rank=4"),
        ({"whiten_power": 0.5}, "whitened 0.5"),
        ({"whiten_power": 0.0}, "centred"),
    ],
)
def test_its_name_in_tables(config: dict[str, Any], label: str) -> None:
    assert label_of(ModelCard("tiny-bn", ("a",), "adapt", "r", {"method": "whiten", **config})) == label


def test_a_sample_of_a_large_target_is_drawn_by_the_seed(
    pretrained: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(whiten, "MOST_IMAGES", 12)
    report = Notes()
    first, again, other = (
        run(pretrained, report, seed=seed, whiten_flip=flip) for seed, flip in ((0, 0), (0, 1), (1, 0))
    )
    assert first.metrics["images"] == again.metrics["images"] == 12
    assert any("12 of 16 target images are drawn by the seed" in note for note in report.notes)
    means = [load_file(made.run.checkpoint)["whitening.mean"] for made in (first, other)]
    assert not torch.equal(*means)


@pytest.mark.parametrize(("count", "said"), [(2, "about 2 people"), (12, "fewer than 20"), (40, None)])
def test_few_people_are_warned_of_or_refused(count: int, said: str | None) -> None:
    rng = np.random.default_rng(3)

    def people(number: int, images: int) -> np.ndarray:
        rows = rng.normal(size=(number, 64)).repeat(images, axis=0) + rng.normal(size=(number * images, 64)) * 0.4
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    report, source = Notes(), people(60, 1)
    if count < whiten.LEAST_PEOPLE:
        with pytest.raises(FacedanError, match=said):
            whiten._people(people(count, 10), source, report)
        return
    assert whiten._people(people(count, 5), source, report) == pytest.approx(count, rel=0.2)
    assert [said in warning for warning in report.warnings] == ([True] if said else [])
    with pytest.raises(FacedanError, match="too few people"):
        whiten._people(people(2, 2), people(3, 1), report)


def test_a_training_that_starts_from_it_leaves_it_out_and_says_so(pretrained: Workspace) -> None:
    made = run(pretrained)
    jobs = (
        plan_adapt(replace(CONTROL, init=made.run.name), pretrained),
        plan_adapt(replace(CONTROL, method="adabn", init=made.run.name), pretrained),
        plan_pretrain(replace(PRETRAIN, init=str(made.run.checkpoint)), pretrained),
    )
    for job in jobs:
        report = Notes()
        further = (adapt(job, report=report) if isinstance(job, AdaptJob) else pretrain(job, report=report)).run
        assert any(LEFT_OUT in warning for warning in report.warnings)
        assert not any(name.startswith("whitening") for name in load_file(further.checkpoint))
        assert load_checkpoint(further.checkpoint)[0].whitening is None
    report = Notes()
    twice = run(pretrained, report, init=made.run.name).run
    assert any("is replaced" in note for note in report.notes)
    matrices = [load_file(one.checkpoint)["whitening.matrix"] for one in (made.run, twice)]
    torch.testing.assert_close(*matrices)


@pytest.mark.parametrize("suffix", [".onnx", ".pt", ".safetensors", ""])
def test_exports_hold_it(pretrained: Workspace, suffix: str, tmp_path: Path) -> None:
    made = run(pretrained).run
    out = tmp_path / f"model{suffix}"
    found = export(ExportConfig(model=made.name, out=out, format=None if suffix else "hub"), made.checkpoint)
    assert found.metadata["features"] == "whitened"
    faces = faces_of(pretrained, "gbu")
    expected = embedded(pretrained, made.checkpoint)
    if suffix == ".onnx":
        from onnxruntime import InferenceSession

        rows = InferenceSession(out).run(None, {"images": faces.float().numpy()})[0]
    elif suffix == ".pt":
        rows = torch.jit.load(out)(faces).numpy()  # type: ignore[no-untyped-call]
    elif suffix:
        assert torch.equal(load_file(out)["whitening.matrix"], load_file(made.checkpoint)["whitening.matrix"])
        return
    else:
        rows = embedded(pretrained, out / "model.safetensors")
        assert "unlabelled target images" in (out / "README.md").read_text()
    np.testing.assert_allclose(rows, expected, atol=1e-5)


def test_exports_without_a_place_for_it_are_refused(pretrained: Workspace, tmp_path: Path) -> None:
    made = run(pretrained).run
    for name, options, why in (
        ("m.pth", {"format": "original"}, "no place for the whitening"),
        ("m.onnx", {"raw": True}, "rows of length one"),
    ):
        with pytest.raises(UsageError, match=why):
            export(ExportConfig(model=made.name, out=tmp_path / name, **options), made.checkpoint)
    report = Notes()
    found = export(
        ExportConfig(model=made.name, out=tmp_path / "f.safetensors", flip=True), made.checkpoint, report=report
    )
    assert any("without --flip" in warning for warning in report.warnings)
    assert "features" not in export(ExportConfig(model="m", out=tmp_path / "0.pt", layer="0"), made.checkpoint).metadata
    assert found.metadata["flip"] == "true"


def test_the_command_line(pretrained: Workspace, facedan: Callable[..., Any]) -> None:
    where = ("--workspace", pretrained.root)
    command = ("adapt", *where, "--source", "casia", "--target", "frgc", "--method", "whiten")
    for option in (
        ("--lambda", "1"),
        ("--iterations", "9"),
        ("--preset", "strong"),
        ("--adabn-mix", "0.5"),
        ("--select",),
    ):
        ended = facedan(*command, *option)
        assert ended.code == 2, option
        assert f"{option[0]} means nothing for --method whiten" in ended.err
    ended = facedan(*command, "--json")
    assert ended.code == 0, ended.err
    made = json.loads(ended.out)
    assert made["metrics"]["images"] == 16
    assert facedan("embed", "gbu", *where, "--model", made["checkpoint"]).code == 0
    flipped = facedan("embed", "gbu", *where, "--model", made["checkpoint"], "--flip")
    assert flipped.err.count("is applied to features with --flip: adapt with --whiten-flip") == 1
    measured = facedan("evaluate", "verify", "casia", *where, "--model", made["checkpoint"], "--flip", "--json")
    assert measured.code == 0, measured.err
    summary = json.loads(measured.out)
    assert [row["name"] for row in summary["models"]] == ["whitened"]
    assert sum("with --flip" in warning for warning in summary["warnings"]) == 1


def test_it_is_refused_where_it_means_nothing(pretrained: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    for power in (-0.1, 0.6, float("nan")):
        with pytest.raises(UsageError, match="--whiten-power must be"):
            plan_adapt(replace(WHITEN, whiten_power=power), pretrained)
    for rank in (0, 9):
        with pytest.raises(UsageError, match="--whiten-rank must be"):
            plan_adapt(replace(WHITEN, whiten_rank=rank), pretrained)
    for idle in ({"whiten_power": 0.5}, {"whiten_rank": 2}, {"whiten_flip": True}):
        for method in ("mmd", "adabn"):
            with pytest.raises(UsageError, match="without --method whiten"):
                plan_adapt(replace(WHITEN, method=method, **idle), pretrained)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UsageError, match="by one process"):
        plan_adapt(WHITEN, pretrained)


def test_a_table_has_a_row_for_it(pretrained: Workspace) -> None:
    assert "whiten" not in resolve_rows(None, "gbu", None)
    rows = resolve_rows("source,whiten,control", "gbu", None)
    assert rows == ("source", "control", "whiten")
    config = TableConfig(
        rows=rows,
        pretrain=PRETRAIN,
        adapt=replace(CONTROL, lambda_=0.5, adabn_mix=0.3, whiten_power=0.5),
        evaluate=EvaluateConfig(),
    )
    found = train_table(config, pretrained, Notes())[0]
    assert list(found) == ["source", "control", "whiten"]
    cards = {row: load_checkpoint(Path(model.name))[1] for row, model in found.items()}
    assert label_of(cards["whiten"]) == "whitened 0.5"
    assert "method" not in cards["control"].config
