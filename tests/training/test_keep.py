"""Adaptation that keeps the embedding of the initial network."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from test_loop import BATCH, PLAN, Drawn, domains, metrics, network, run, same
from tiny import ADAPT, Notes
from tiny import metrics as logged
from tiny import same as alike
from torch.nn import functional as F

from facedan_cli.config.models import NETWORKS
from facedan_cli.config.training import AdaptConfig, resolve
from facedan_cli.errors import Interrupted, UsageError
from facedan_cli.evaluation.models import label_of
from facedan_cli.models.checkpoint import read_card
from facedan_cli.models.dropout import set_batch_rows
from facedan_cli.training.adapt import adapt, plan_adapt
from facedan_cli.training.keep import Keep
from facedan_cli.workspace import Workspace


def kept(weight: float, **options: Any) -> Any:
    return replace(domains(**options), keep=Keep(weight, network()))


@pytest.mark.parametrize("parts", [1, 3])
def test_a_step_has_the_gradient_of_the_definition(tmp_path: Path, parts: int) -> None:
    """Plain SGD written out: w ← w − rate · ∂(L_c + W · mean(1 − cos(new, old)))/∂w, the old without dropout."""
    plan = replace(
        PLAN, momentum=0.0, weight_decay=0.0, iterations=1, schedule="constant", lr=1e-2, grad_accum=parts,
        classifier_lr_mult=1.0,
    )  # fmt: skip
    trained = run(tmp_path, plan, kept(2.0, lambda_=0.0))
    slow, old = network().train(), network().eval()
    (source, labels), (target, _) = (next(Drawn(seed).batches(0, 1)) for seed in (1, 2))
    images = torch.cat([source, target])
    torch.manual_seed(PLAN.seed * 1_000_003 + 1)
    set_batch_rows(slow.modules(), None, 2 * BATCH)
    new = slow(images)["fc7"]
    classification = F.cross_entropy(slow.classifier(new[:BATCH]), labels, label_smoothing=0.1)
    cosines = (F.normalize(new) * F.normalize(old(images)["fc7"].detach())).sum(1)
    drift = (1 - cosines).mean()
    (classification + 2 * drift).backward()
    for found, start in zip(trained.parameters(), slow.parameters(), strict=True):
        assert start.grad is not None
        torch.testing.assert_close(found, start - 1e-2 * start.grad, rtol=1e-4, atol=1e-6)
    entry = metrics(tmp_path)[-1]
    assert entry["drift"] == pytest.approx(drift.item(), rel=1e-4)
    assert entry["loss"] == pytest.approx((classification + 2 * drift).item(), rel=1e-4)


def test_a_weight_of_zero_is_training_without_it_and_a_larger_one_keeps_more(tmp_path: Path) -> None:
    plan = replace(PLAN, optimizer="adamw", lr=1e-2)
    assert same(run(tmp_path / "0", plan, kept(0.0)), run(tmp_path / "without", plan))
    drifts = []
    for weight in (0.0, 10.0):
        run(tmp_path / f"{weight}", plan, kept(weight))
        drifts.append(metrics(tmp_path / f"{weight}")[-1]["drift"])
    assert drifts[1] < 0.8 * drifts[0]


@pytest.fixture
def place(trained: Any, tmp_path: Path) -> Workspace:
    return Workspace.open(shutil.copytree(trained.workspace.root, tmp_path / "place"))


def test_an_interrupted_run_ends_as_a_whole_one(place: Workspace) -> None:
    config = replace(ADAPT, keep=1.0, normalise_features=True)
    with pytest.raises(Interrupted):
        adapt(plan_adapt(config, place), report=Notes(stop_at=2))
    resumed = adapt(plan_adapt(config, place)).run
    other = Workspace.open(shutil.copytree(place.root, place.root.parent / "other"))
    whole = adapt(plan_adapt(config, other), force=True).run
    assert alike(resumed, whole)
    assert logged(whole)[-1]["drift"] > 0
    assert label_of(read_card(whole.checkpoint)).endswith(" L2 keep=1")


def test_bandwidths_are_those_of_normalised_features(place: Workspace) -> None:
    made = adapt(plan_adapt(replace(ADAPT, normalise_features=True, iterations=1), place)).run
    assert 0 < logged(made)[-1]["gamma_fc7"] <= 4


def test_the_papers_networks_have_neither_and_keep_the_names_of_their_runs(place: Workspace, trained: Any) -> None:
    named = replace(ADAPT, lambda_=0.5, normalise_features=False, keep=0.0)
    assert plan_adapt(named, place).run.name == plan_adapt(ADAPT, place).run.name == trained.dan_m67.name
    assert plan_adapt(replace(ADAPT, keep=1.0), place).run.name != trained.dan_m67.name
    for impossible in (-1.0, float("nan"), float("inf")):
        with pytest.raises(UsageError, match="--keep"):
            plan_adapt(replace(ADAPT, keep=impossible), place)


def test_a_row_with_a_recipe_for_both_stages_has_the_papers_penalty() -> None:
    entry = replace(NETWORKS["vggface-mini"], adapt=NETWORKS["vggface-mini"].pretrain)  # type: ignore[arg-type]
    resolved = resolve(AdaptConfig(source="a", target="b"), entry.adapt)
    assert (resolved.lambda_, resolved.normalise_features) == (0.5, False)
