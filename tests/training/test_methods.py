"""`adapt --method A+B`: methods that are joined, stage by stage."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import permutations
from pathlib import Path
from typing import Any

import normalised
import pytest
from safetensors.torch import load_file
from tiny import Notes

from facedan_cli.config.common import EvaluateConfig
from facedan_cli.config.methods import METHODS, methods_of, stages_of
from facedan_cli.config.table import TableConfig
from facedan_cli.config.training import AdaptConfig, PretrainConfig
from facedan_cli.errors import UsageError
from facedan_cli.evaluation.models import label_of
from facedan_cli.models.checkpoint import read_card
from facedan_cli.table.runs import plan_table, resolve_rows, train_table
from facedan_cli.training.adapt import adapt, plan_adapt
from facedan_cli.training.pretrain import plan_pretrain, pretrain
from facedan_cli.workspace import Workspace

PRETRAIN = PretrainConfig(source="casia", model=normalised.NAME, iterations=3, batch=8, log_every=1)
JOINED = AdaptConfig(source="casia", target="frgc", method="mmd+whiten", iterations=2, batch=4, whiten_power=0.5)


@pytest.fixture(autouse=True)
def network() -> Iterator[None]:
    with normalised.known():
        yield


@pytest.fixture
def pretrained(workspace: Workspace, network: None) -> Workspace:
    pretrain(plan_pretrain(PRETRAIN, workspace))
    return workspace


def test_the_order_in_the_text_has_no_effect() -> None:
    for order in permutations(METHODS):
        assert methods_of("+".join(order)) == tuple(METHODS)
        trained, *later = stages_of(" + ".join(order))
        assert all(METHODS[name].trains for name in trained.split("+"))
        assert later == [name for name, entry in METHODS.items() if not entry.trains]
    for odd in ("mmd+witen", "", "mmd+", "mmd,whiten"):
        with pytest.raises(UsageError, match="--method does not know"):
            methods_of(odd)


def test_stages_are_runs_that_start_from_each_other(pretrained: Workspace) -> None:
    joined = adapt(plan_adapt(JOINED, pretrained)).run
    alone = plan_adapt(replace(JOINED, method="mmd", whiten_power=AdaptConfig.whiten_power), pretrained)
    assert alone.run.finished  # as the first stage
    after = plan_adapt(replace(JOINED, method="whiten", init=alone.run.name), pretrained)
    assert after.run.name == joined.name
    assert after.run.finished
    trained, whitened = load_file(alone.run.checkpoint), load_file(joined.checkpoint)
    assert whitened.keys() - trained.keys() == {"whitening.mean", "whitening.matrix"}
    assert all(value.equal(whitened[name]) for name, value in trained.items())
    assert adapt(plan_adapt(JOINED, pretrained)).skipped


@pytest.mark.parametrize(
    ("method", "label"),
    [("mmd+whiten", "DAN_m embedding λ=10 L2 + whitened 0.5"), ("whiten+adabn", "AdaBN + whitened 0.5")],
)
def test_its_name_in_tables_tells_all_stages(pretrained: Workspace, method: str, label: str) -> None:
    made = adapt(plan_adapt(replace(JOINED, method=method), pretrained)).run
    assert label_of(read_card(made.checkpoint)) == label
    again = adapt(plan_adapt(replace(JOINED, method="whiten", init=made.name), pretrained)).run
    assert label_of(read_card(again.checkpoint)) == label  # the whitening is replaced, not repeated


def test_what_a_later_stage_cannot_do_is_refused_before_the_first(
    pretrained: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match="--whiten-power must be"):
        plan_adapt(replace(JOINED, whiten_power=2.0), pretrained)
    with pytest.raises(UsageError, match="without --method adabn"):
        plan_adapt(replace(JOINED, adabn_mix=0.5), pretrained)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UsageError, match="--method whiten is done by one process"):
        plan_adapt(JOINED, pretrained)


def test_the_command_line(pretrained: Workspace, facedan: Callable[..., Any]) -> None:
    command = ("adapt", "--workspace", pretrained.root, "--source", "casia", "--target", "frgc")
    training = ("--iterations", "2", "--batch", "4")
    planned = facedan(*command, *training, "--method", "whiten+mmd", "--dry-run")
    assert planned.code == 0, planned.err
    assert "then --method whiten" in planned.err
    made = facedan(*command, *training, "--method", "whiten+mmd", "--json")
    assert made.code == 0, made.err
    assert json.loads(made.out)["metrics"]["images"] == 16
    for method, option in (("adabn+whiten", "--lambda"), ("mmd+whiten", "--adabn-mix"), ("adabn+whiten", "--batch")):
        ended = facedan(*command, "--method", method, option, "1")
        assert ended.code == 2
        assert f"{option} means nothing for --method {method}" in ended.err


def test_notes_say_which_stage_follows(pretrained: Workspace) -> None:
    report = Notes()
    adapt(plan_adapt(JOINED, pretrained), report=report)
    assert any("whiten starts from it" in note for note in report.notes)


def test_a_table_has_rows_for_methods(pretrained: Workspace) -> None:
    rows = resolve_rows("mmd+whiten,source,whiten", "gbu", None, "whiten+adabn,mmd+whiten,mmd")
    assert rows == ("source", "whiten", "m67", "mmd+whiten", "adabn+whiten")
    assert resolve_rows("ddc,source", "gbu", None) == ("source", "ddc")
    assert {*resolve_rows(None, "gbu", None, "whiten")} - {*resolve_rows(None, "gbu", None)} == {"whiten"}
    for odd in ("mmd+witen", "m67+whiten", "witen"):
        with pytest.raises(UsageError, match="does not know"):
            resolve_rows(odd, "gbu", None)
    with pytest.raises(UsageError, match="ddc and s7 are one model"):
        resolve_rows("ddc,s7", "gbu", None)
    config = TableConfig(
        rows=("source", "augmented", "ddc", "adabn+whiten", "mmd+whiten"),
        pretrain=PRETRAIN,
        adapt=replace(JOINED, method="mmd", adabn_mix=0.3),
        evaluate=EvaluateConfig(),
    )
    found = train_table(config, pretrained, Notes())[0]
    labels = {row: label_of(read_card(Path(model.name))) for row, model in found.items()}
    assert labels == {
        "source": "source only",
        "augmented": "λ = 0 augmented",
        "ddc": "DAN_s embedding λ=10 L2",
        "adabn+whiten": "AdaBN mix=0.3 + whitened 0.5",
        "mmd+whiten": "DAN_m embedding λ=10 L2 + whitened 0.5",
    }
    assert [cell.row for cell in plan_table(config, pretrained)] == list(found)


def test_a_later_stage_ignores_the_options_of_an_earlier_one(pretrained: Workspace) -> None:
    job = plan_adapt(replace(JOINED, method="adabn+whiten", adabn_mix=0.5), pretrained)
    assert load_file(adapt(job).run.checkpoint)["whitening.mean"].any()
