"""`--batch-norm`: whose statistics a training normalises by, and what of them its network keeps."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import normalised
import pytest
import torch
from safetensors.torch import load_file
from tiny import Notes, metrics, weights
from torch import Tensor

from facedan_cli.config.training import AdaptConfig, PretrainConfig
from facedan_cli.data.batches import read_face
from facedan_cli.errors import Interrupted, UsageError
from facedan_cli.evaluation.models import label_of
from facedan_cli.models.batch_norm import batch_norms, statistics_of
from facedan_cli.models.checkpoint import load_checkpoint
from facedan_cli.runs import Run
from facedan_cli.training.adapt import adapt, plan_adapt
from facedan_cli.training.adapt_job import AdaptJob
from facedan_cli.training.pretrain import plan_pretrain, pretrain
from facedan_cli.workspace import Workspace

PRETRAIN = PretrainConfig(source="casia", model=normalised.NAME, iterations=6, batch=8, log_every=1)
ADAPT = AdaptConfig(source="casia", target="frgc", iterations=5, batch=6, log_every=1, lambda_=10.0)
STATISTICS = ("1.running_mean", "4.running_var", "9.running_mean")


@pytest.fixture(autouse=True, scope="module")
def network() -> Iterator[None]:
    with normalised.known():
        yield


@pytest.fixture(scope="module")
def place(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A workspace with a pretraining of the network; tests may add runs."""
    workspace = Workspace.open(shutil.copytree(drawn, tmp_path_factory.mktemp("normalised") / "workspace"))
    pretrain(plan_pretrain(PRETRAIN, workspace))
    return workspace


def adapted(place: Workspace, report: Notes | None = None, **options: Any) -> Run:
    return adapt(planned(place, **options), report=report or Notes()).run


def planned(place: Workspace, **options: Any) -> AdaptJob:
    return plan_adapt(replace(ADAPT, init=str(of_init(place)), **options), place)


def statistics(run_or_file: Run | Path) -> dict[str, Tensor]:
    file = run_or_file.checkpoint if isinstance(run_or_file, Run) else run_or_file
    return {name: load_file(file)[f"body.{name}"] for name in STATISTICS}


def of_init(place: Workspace) -> Path:
    return plan_pretrain(PRETRAIN, place).run.checkpoint


def unchanged(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


def test_random_weights_are_trained_with_ordinary_batch_normalisation(place: Workspace) -> None:
    found = statistics(of_init(place))
    assert not torch.equal(found["1.running_mean"], torch.zeros(6))
    frozen = pretrain(plan_pretrain(replace(PRETRAIN, batch_norm="frozen"), place)).run
    assert torch.equal(statistics(frozen)["1.running_mean"], torch.zeros(6))
    named = plan_pretrain(replace(PRETRAIN, batch_norm="source"), place)
    assert named.run.finished  # the usual mode, named, is the same run
    again = pretrain(plan_pretrain(replace(PRETRAIN, init=str(of_init(place))), place)).run
    assert unchanged(statistics(again), found)


@pytest.mark.parametrize("lambda_", [0.0, 10.0])
def test_adaptation_keeps_the_statistics_unless_it_is_told_otherwise(place: Workspace, lambda_: float) -> None:
    before, report = statistics(of_init(place)), Notes()
    usual = adapted(place, lambda_=lambda_)
    assert unchanged(statistics(usual), before)
    assert "batch_norm" not in load_checkpoint(usual.checkpoint)[1].config
    assert planned(place, lambda_=lambda_, batch_norm="frozen").run.name == usual.name
    found = {mode: adapted(place, report, lambda_=lambda_, batch_norm=mode) for mode in ("source", "joint", "target")}
    assert len({run.name for run in (usual, *found.values())}) == 4
    kept = {mode: statistics(run) for mode, run in found.items()}
    assert not any(unchanged(one, before) for one in kept.values())
    assert not unchanged(kept["source"], kept["joint"])
    assert any("from 16 target images" in note for note in report.notes)
    for mode, run in found.items():
        assert f"BN={mode}" in label_of(load_checkpoint(run.checkpoint)[1])


def test_target_statistics_are_those_of_the_initial_network_on_the_target(place: Workspace) -> None:
    """And stay: the checkpoint after the training has them."""
    found = statistics(adapted(place, batch_norm="target"))
    network, _ = load_checkpoint(of_init(place))
    faces = [read_face(path, 36) for path in sorted((place.root / "aligned" / "frgc").glob("*.png"))]
    crops = torch.stack([torch.from_numpy(face.copy()).permute(2, 0, 1)[:, 2:34, 2:34] for face in faces])
    expected = statistics_of(network, [crops])
    assert {f"body.{path}" for path in ("1", "4", "9")} == expected.keys() == batch_norms(network).keys()
    torch.testing.assert_close(found["1.running_mean"].double(), expected["body.1"].mean, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found["4.running_var"].double(), expected["body.4"].variance, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("mode", ["source", "joint", "target"])
def test_an_interrupted_training_resumes_to_the_same_bits(place: Workspace, mode: str) -> None:
    options: dict[str, Any] = {"seed": 5, "batch_norm": mode}
    whole = adapted(place, **options)
    logged, tensors = metrics(whole), weights(whole)
    shutil.rmtree(whole.directory)
    with pytest.raises(Interrupted):
        adapted(place, Notes(stop_at=3), **options)
    again = adapted(place, **options)
    assert metrics(again) == logged
    assert all(torch.equal(tensors[key], value) for key, value in weights(again).items())


def test_half_precision_trains_in_each_mode(place: Workspace) -> None:
    for mode in ("source", "joint"):
        run = adapted(place, batch_norm=mode, precision="bf16", iterations=2)
        whole = metrics(adapted(place, batch_norm=mode, iterations=2))[-1]
        assert metrics(run)[-1]["loss"] == pytest.approx(whole["loss"], rel=0.05)


@pytest.mark.parametrize("mode", ["source", "joint"])
def test_parts_of_a_batch_have_no_statistics_of_the_whole(place: Workspace, mode: str) -> None:
    with pytest.raises(UsageError, match=f"--batch-norm {mode} needs the whole batch"):
        planned(place, batch_norm=mode, grad_accum=2)
    planned(place, batch_norm="target", grad_accum=2)
    planned(place, grad_accum=2)
    with pytest.raises(UsageError, match="--batch-norm source needs the whole batch"):
        plan_pretrain(replace(PRETRAIN, grad_accum=2), place)


def test_networks_without_batch_normalisation_refuse_the_option(place: Workspace) -> None:
    with pytest.raises(UsageError, match="has no batch normalisation"):
        plan_pretrain(replace(PRETRAIN, model="vggface-mini", batch_norm="frozen"), place)
    plan_pretrain(replace(PRETRAIN, model="vggface-mini", grad_accum=2), place)
    with pytest.raises(UsageError, match="joint"):
        plan_pretrain(replace(PRETRAIN, batch_norm="joint"), place)


def test_facenet_stays_as_it_was(place: Workspace) -> None:
    usual, frozen, source = (
        plan_pretrain(replace(PRETRAIN, model="facenet", batch_norm=mode), place).run
        for mode in (None, "frozen", "source")
    )
    assert usual.name == frozen.name != source.name
