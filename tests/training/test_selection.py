from __future__ import annotations

import csv
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny import Notes, draw, weights

from facedan_cli.config.common import hashed_options
from facedan_cli.config.training import AdaptConfig, PretrainConfig
from facedan_cli.embedding.model import find_model
from facedan_cli.errors import FacedanError, UsageError
from facedan_cli.models.checkpoint import read_card
from facedan_cli.runs import checkpoint_of, read_record
from facedan_cli.synthetic.render import STUDIO
from facedan_cli.training.adapt import plan_adapt
from facedan_cli.training.candidates import Candidate, choose, decidability, rejection_reason
from facedan_cli.training.datasets import METHOD, is_of_images, read_source
from facedan_cli.training.pretrain import plan_pretrain, pretrain
from facedan_cli.training.selection import parse_lambdas, plan_selection, select
from facedan_cli.workspace import Workspace, digest

ADAPT = AdaptConfig(source="casia", target="frgc", iterations=6, batch=6, lambdas="0.5,4")
BEFORE = Candidate(0.0, 0, Path("before"), 1.0, 0.10, 30.0)


def candidate(**values: Any) -> Candidate:
    return replace(Candidate(0.5, 50, Path("x"), 2.0, 0.10, 30.0), **values)


def test_the_one_that_knows_target_images_best_is_chosen() -> None:
    found = [candidate(agreement=2.0), candidate(agreement=3.0, step=100), candidate(agreement=2.5)]
    assert choose(BEFORE, found) is found[1]


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"spread": 14.9}, "its target features have collapsed"),
        ({"source_error": 0.121}, "its source error has risen too far"),
        ({"agreement": math.nan}, "its features are not finite"),
        ({"spread": 15.0, "source_error": 0.1199}, ""),
    ],
)
def test_what_has_collapsed_or_lost_the_source_is_out(values: dict[str, Any], why: str) -> None:
    other = candidate(**{"agreement": 9.0, **values})
    assert rejection_reason(other, BEFORE) == why
    assert (choose(BEFORE, [candidate(), other]) is other) == (why == "")


def test_where_all_are_out_nothing_is_adapted() -> None:
    assert choose(BEFORE, [candidate(spread=1.0), candidate(source_error=0.5)]) is BEFORE


def test_decidability_is_that_of_the_definition() -> None:
    scores = torch.randn(20, 20, generator=torch.Generator().manual_seed(0)) + 2 * torch.eye(20)
    same = [scores[i, i].item() for i in range(20)]
    others = [scores[i, j].item() for i in range(20) for j in range(20) if i != j]

    def moments(values: list[float]) -> tuple[float, float]:
        mean = sum(values) / len(values)
        return mean, sum((value - mean) ** 2 for value in values) / (len(values) - 1)

    (a, va), (b, vb) = moments(same), moments(others)
    assert decidability(scores) == pytest.approx((a - b) / math.sqrt((va + vb) / 2), rel=1e-6)
    assert decidability(-scores) == pytest.approx(-decidability(scores))


@given(st.floats(0.1, 10), st.floats(-5, 5))
def test_decidability_does_not_depend_on_the_scale_of_scores(scale: float, shift: float) -> None:
    scores = torch.randn(9, 9, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    assert decidability(scale * scores + shift) == pytest.approx(decidability(scores), rel=1e-6)


def test_lambdas_are_two_numbers_or_more() -> None:
    assert parse_lambdas("10, 0.5,2,2") == (0.5, 2, 10)
    for text in ("0.5", "", "a,b", "-1,2", "1,inf", "1,nan"):
        with pytest.raises(UsageError, match="--lambdas cannot be"):
            parse_lambdas(text)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Enough identities to hold some out, and a pretraining that did."""
    made = tmp_path_factory.mktemp("selection")
    for identity in range(30):
        for image in range(6):
            draw(made / "aligned" / "casia" / f"p{identity:02d}" / f"{image}.png", identity, image)
            draw(made / "aligned" / "frgc" / f"{100 + identity}_{image}.png", 100 + identity, image, style=STUDIO)
    config = PretrainConfig(source="casia", model="vggface-mini", iterations=10, batch=16, holdout_identities=3)
    pretrain(plan_pretrain(config, Workspace.open(made)))
    return made


def test_it_trains_with_each_lambda_and_keeps_the_chosen_network(root: Path) -> None:
    place, report = Workspace.open(root), Notes()
    selection = plan_selection(ADAPT, place)
    assert list(selection.jobs) == [0.5, 4.0]
    result = select(selection, report=report)
    with (result.run.directory / "candidates.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    steps = [("0", "0")] + [(lambda_, str(step)) for lambda_ in ("0.5", "4") for step in range(1, 7)]
    assert [(row["lambda"], row["step"]) for row in rows] == steps
    (chosen,) = (row for row in rows if row["chosen"])
    left = [row for row in rows[1:] if not row["out"]]
    if left:
        assert float(chosen["agreement"]) == max(float(row["agreement"]) for row in left)
    from safetensors.torch import load_file

    found = weights(result.run)
    assert all(torch.equal(found[key], value) for key, value in load_file(chosen["checkpoint"]).items())
    card = read_card(result.run.checkpoint)
    assert (card.run, card.config["step"]) == (result.run.name, int(chosen["step"]))
    assert any(note.startswith("chosen of 12 networks") for note in report.notes)
    assert read_record(result.run.directory)["status"] == "complete"
    # The chosen one is the newest adaptation, and its runs are those that adapt makes alone.
    assert find_model(place, None).checkpoint == result.run.checkpoint
    assert select(selection).skipped
    alone = plan_adapt(replace(ADAPT, lambda_=4.0), place).run
    assert alone.finished
    assert checkpoint_of(alone.directory) == selection.jobs[4.0].run.checkpoint


def test_a_selection_keeps_the_name_that_earlier_versions_gave_it(root: Path) -> None:
    selection = plan_selection(ADAPT, Workspace.open(root))
    determining = hashed_options(selection.jobs[0.5].config) | {"select": True, "strengths": "0.5,4", "method": METHOD}
    del determining["lambda"]
    contents = {
        role: {key: facts[key] for key in ("contents", "sha256") if key in facts}
        for role, facts in selection.run.inputs.items()
    }
    assert selection.run.identity == digest({"stage": "adapt", "config": determining, "inputs": contents})


@pytest.mark.parametrize("key", ["holdout_identities", "hold_people"])
def test_a_pretraining_of_the_same_images_is_recognised(root: Path, key: str) -> None:
    place = Workspace.open(root)
    source = place.dataset("casia")
    accept = is_of_images(source, place)
    contents = read_source(source, 3, place.root).folder.fingerprint
    record = {"inputs": {"source": {"contents": contents}}, "config": {key: 3}}
    assert accept(record)
    assert not accept(record | {"config": {key: 0}})


def test_held_out_identities_are_trained_on_by_no_stage(root: Path) -> None:
    place = Workspace.open(root)
    job = plan_adapt(ADAPT, place)
    assert len(set(job.source.held_out.names)) == 3
    assert not set(job.source.held_out.names) & set(job.source.identities)
    assert job.config.holdout_identities == 3
    assert job.card.identities == job.source.identities
    with pytest.raises(UsageError, match="held out 3"):
        plan_adapt(replace(ADAPT, holdout_identities=2), place)


def test_without_held_out_images_there_is_nothing_to_compare_by(workspace: Workspace) -> None:
    config = PretrainConfig(source="casia", model="vggface-mini", iterations=2, batch=8)
    pretrain(plan_pretrain(config, workspace))
    with pytest.raises(FacedanError, match="too few held-out"):
        plan_selection(replace(ADAPT, iterations=2), workspace)
