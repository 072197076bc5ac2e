"""`adapt --method adabn`: statistics of the target in a network whose weights stay."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import normalised
import pytest
import torch
from safetensors.torch import load_file
from tiny import Notes

from facedan_cli.config.common import EvaluateConfig
from facedan_cli.config.table import TableConfig
from facedan_cli.config.training import AdaptConfig, PretrainConfig
from facedan_cli.data.batches import read_face
from facedan_cli.data.same_images import IMAGES_FILE
from facedan_cli.errors import UsageError
from facedan_cli.evaluation.models import label_of
from facedan_cli.models.batch_norm import statistics_of
from facedan_cli.models.checkpoint import ModelCard, load_checkpoint, save_checkpoint
from facedan_cli.models.networks import build
from facedan_cli.table.runs import plan_table, resolve_rows, train_table
from facedan_cli.training.adapt import adapt, plan_adapt
from facedan_cli.training.datasets import TrainingResult
from facedan_cli.training.pretrain import plan_pretrain, pretrain
from facedan_cli.workspace import Workspace

PRETRAIN = PretrainConfig(source="casia", model=normalised.NAME, iterations=6, batch=8, log_every=1)
ADABN = AdaptConfig(source="casia", target="frgc", method="adabn")
CONTROL = AdaptConfig(source="casia", target="frgc", iterations=2, batch=4, lambda_=0.0)


@pytest.fixture(autouse=True)
def network() -> Iterator[None]:
    with normalised.known():
        yield


@pytest.fixture
def pretrained(workspace: Workspace, network: None) -> Workspace:
    pretrain(plan_pretrain(PRETRAIN, workspace))
    return workspace


def run(workspace: Workspace, report: Notes | None = None, **options: Any) -> TrainingResult:
    return adapt(plan_adapt(replace(ADABN, **options), workspace), report=report or Notes())


def of_target(workspace: Workspace, init: Path) -> dict[str, torch.Tensor]:
    """Running statistics that the target's centre crops give, by the names in a checkpoint."""
    faces = [read_face(path, 36) for path in sorted((workspace.root / "aligned" / "frgc").glob("*.png"))]
    crops = torch.stack([torch.from_numpy(face.copy()).permute(2, 0, 1)[:, 2:34, 2:34] for face in faces])
    found = statistics_of(load_checkpoint(init)[0], [crops])
    return {
        f"{path}.{name}": value
        for path, moments in found.items()
        for name, value in zip(("running_mean", "running_var"), moments, strict=True)
    }


@pytest.mark.parametrize("mix", [1.0, 0.25, 0.0])
def test_the_statistics_alone_change_and_are_mixed(pretrained: Workspace, mix: float) -> None:
    job = plan_adapt(replace(ADABN, adabn_mix=mix), pretrained)
    made = adapt(job)
    before, after = load_file(job.init), load_file(made.run.checkpoint)
    expected = of_target(pretrained, job.init)
    assert len(expected) == 6
    assert before.keys() == after.keys()
    for name, value in after.items():
        if name in expected:
            mixed = (1 - mix) * before[name].double() + mix * expected[name]
            torch.testing.assert_close(value.double(), mixed, rtol=1e-4, atol=1e-4)
        else:
            assert torch.equal(value, before[name]), name


def test_its_run_is_one_of_adapt_with_all_that_such_a_run_has(pretrained: Workspace) -> None:
    (pretrained.root / "aligned" / "frgc" / "broken.png").write_bytes(b"no image")
    report = Notes()
    made = run(pretrained, report)
    _, card = load_checkpoint(made.run.checkpoint)
    assert (card.stage, card.run, label_of(card)) == ("adapt", made.run.name, "AdaBN")
    assert card.config["method"] == "adabn"
    assert card.identities == load_checkpoint(plan_adapt(ADABN, pretrained).init)[1].identities
    assert made.set_aside is not None
    assert "broken.png" in made.set_aside.read_text()
    assert (made.run.directory / IMAGES_FILE).is_file()
    assert made.metrics["images"] == 16
    assert any("16 target images" in note for note in report.notes)
    record = json.loads((made.run.directory / "run.json").read_text())
    assert record["config"].keys() >= {"method", "adabn_mix", "source", "target"}
    assert "lambda" not in record["config"]
    assert run(pretrained).skipped
    half = run(pretrained, adabn_mix=0.5)
    assert half.run.name != made.run.name
    assert label_of(load_checkpoint(half.run.checkpoint)[1]) == "AdaBN mix=0.5"
    assert run(pretrained, lambda_=3.0, batch=5).run.name == made.run.name  # what it does not use


def test_what_it_makes_can_be_adapted_further(pretrained: Workspace) -> None:
    made = run(pretrained)
    further = adapt(plan_adapt(replace(CONTROL, init=made.run.name), pretrained)).run
    kept = "body.1.running_mean"
    assert torch.equal(load_file(further.checkpoint)[kept], load_file(made.run.checkpoint)[kept])


def test_published_weights_need_no_pretraining(pretrained: Workspace) -> None:
    """The classifier of nobody stays; the source has other identities."""
    path = pretrained.root / "weights.safetensors"
    card = ModelCard(normalised.NAME, ("",), "weights", "weights-tiny", {"model": normalised.NAME})
    save_checkpoint(path, build(normalised.NAME, 1), card)
    made = run(pretrained, init=str(path))
    assert load_checkpoint(made.run.checkpoint)[1].config["method"] == "adabn"


def test_it_is_refused_where_it_means_nothing(pretrained: Workspace, trained: Any, facedan: Callable[..., Any]) -> None:
    with pytest.raises(UsageError, match="needs batch normalisation"):
        plan_adapt(replace(ADABN, init=str(trained.before)), trained.workspace)
    for mix in (-0.1, 1.5, float("nan")):
        with pytest.raises(UsageError, match="--adabn-mix must be"):
            plan_adapt(replace(ADABN, adabn_mix=mix), pretrained)
    with pytest.raises(UsageError, match="without --method adabn"):
        plan_adapt(replace(ADABN, method="mmd", adabn_mix=0.5), pretrained)
    with pytest.raises(UsageError, match="mdd"):
        plan_adapt(replace(ADABN, method="mdd"), pretrained)
    command = ("adapt", "--workspace", pretrained.root, "--source", "casia", "--target", "frgc", "--method", "adabn")
    for idle in (
        ("--lambda", "1"),
        ("--iterations", "9"),
        ("--preset", "strong"),
        ("--head", "cosface"),
        ("--select",),
    ):
        ended = facedan(*command, *idle)
        assert ended.code == 2, idle
        assert f"{idle[0]} means nothing for --method adabn" in ended.err
    assert facedan(*command, "--adabn-mix", "0.5").code == 0  # `iterations` in facedan.toml is of other runs


def test_a_table_has_a_row_for_it(pretrained: Workspace) -> None:
    assert "adabn" not in resolve_rows(None, "gbu", None)
    rows = resolve_rows("source,adabn,control", "gbu", None)
    assert rows == ("source", "control", "adabn")
    config = TableConfig(rows=rows, pretrain=PRETRAIN, adapt=replace(CONTROL, lambda_=0.5), evaluate=EvaluateConfig())
    found = train_table(config, pretrained, Notes())[0]
    assert list(found) == ["source", "control", "adabn"]
    cards = {row: load_checkpoint(Path(model.name))[1] for row, model in found.items()}
    assert label_of(cards["adabn"]) == "AdaBN"
    assert "method" not in cards["control"].config
    shutil.rmtree(pretrained.root / "runs")
    with pytest.raises(UsageError, match="adabn needs batch normalisation"):
        plan_table(replace(config, pretrain=replace(PRETRAIN, model="vggface-mini")), pretrained)
