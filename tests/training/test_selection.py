from __future__ import annotations

import csv
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from tiny import Notes, draw, weights

from facedan_cli.config.common import EvaluateConfig
from facedan_cli.config.table import TableConfig
from facedan_cli.config.training import AdaptConfig, PretrainConfig
from facedan_cli.data.dataset import read_dataset
from facedan_cli.embedding.model import find_model
from facedan_cli.errors import FacedanError, UsageError
from facedan_cli.evaluation.models import label_of
from facedan_cli.metrics.roc import verification_rate
from facedan_cli.models.checkpoint import read_card
from facedan_cli.runs import read_record
from facedan_cli.synthetic.render import STUDIO
from facedan_cli.table.runs import plan_table, resolve_rows, train_table
from facedan_cli.training import criterion, selection
from facedan_cli.training.adapt import plan_adapt
from facedan_cli.training.budget import Budget
from facedan_cli.training.candidates import CHANGES, Candidate, checked, choose, error_of
from facedan_cli.training.criterion import images_to_verify, spread_over
from facedan_cli.training.datasets import is_of_images, read_source
from facedan_cli.training.pretrain import plan_pretrain, pretrain
from facedan_cli.training.selection import parse_candidates, parse_lambdas, plan_selection, select
from facedan_cli.workspace import Workspace

PRETRAIN = PretrainConfig(source="casia", model="vggface-mini", iterations=2, batch=16, holdout_identities=10)
ADAPT = AdaptConfig(source="casia", target="frgc", iterations=2, batch=6, lambdas="0.5,4", select=True)


def candidate(change: str, rate: float, noise: float = 0.0, **values: Any) -> Candidate:
    """A candidate whose replicates scatter about its rate by a pattern of its own."""
    pattern = np.random.default_rng(CHANGES.index(change)).normal(size=400)
    made = Candidate(change, CHANGES.index(change), change, None, rate, rate + noise * pattern, 30.0)
    return replace(made, **values)


def test_the_best_is_chosen_where_nothing_ties_with_it() -> None:
    found = [candidate("keep", 0.5, 0.01), candidate("whiten", 0.6, 0.01), candidate("trained", 0.7, 0.01)]
    choice = choose(found, 30)
    assert choice.chosen is choice.best is found[2]
    assert choice.sure
    low, high = choice.interval
    assert 0 < low < choice.gain < high


def test_a_tie_goes_to_what_changes_least() -> None:
    found = [candidate("trained", 0.70, 0.1), candidate("whiten", 0.69, 0.1), candidate("keep", 0.5, 0.01)]
    choice = choose(found, 30)
    assert choice.chosen is found[1]
    assert choice.best is found[0]
    close = [candidate("keep", 0.68, 0.1), *found[:2]]
    choice = choose(close, 30)
    assert choice.chosen is close[0]
    assert not choice.sure  # another one has the higher rate


def test_whitening_is_the_default_where_the_target_shows_enough_people() -> None:
    keep, whitened = candidate("keep", 0.5, 0.02), candidate("whiten", 0.48, 0.02, power=0.25)
    for people, default in ((None, keep), (19, keep), (20, whitened), (200, whitened)):
        choice = choose([keep, whitened], 30, people)
        assert choice.chosen is choice.default is default
        assert choice.best is keep
        assert choice.sure == (default is keep)
    worse = candidate("whiten", 0.2, 0.02, power=0.25)
    assert choose([keep, worse], 30, 200).chosen is keep
    assert choose([keep, replace(whitened, rejected="collapsed")], 30, 200).chosen is keep
    better = candidate("trained", 0.6, 0.02)
    assert choose([keep, whitened, better], 30, 200).chosen is better
    assert choose([keep, whitened, replace(better, rate=0.481)], 30, 200).chosen is whitened


def test_the_network_is_kept_for_sure_where_nothing_has_a_higher_rate() -> None:
    found = [candidate("keep", 0.5), candidate("whiten", 0.5), candidate("trained", 0.4)]
    choice = choose(found, 30)
    assert choice.chosen is found[0]
    assert choice.sure
    assert choice.interval == (0, 0)


@given(st.lists(st.floats(0, 1), min_size=len(CHANGES), max_size=len(CHANGES)), st.floats(0, 0.3))
def test_the_choice_is_within_the_error_of_the_best_and_nothing_that_changes_less_is(
    rates: list[float], noise: float
) -> None:
    found = [candidate(change, rate, noise) for change, rate in zip(CHANGES, rates, strict=True)]
    choice = choose(found, 30)
    assert choice.best.rate == max(rates)
    within = [one.name for one in found if choice.best.rate - one.rate <= error_of(choice.best, one)]
    assert choice.chosen.name == within[0]


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"spread": 14.9}, "its target features have collapsed"),
        ({"rate": math.nan}, "its features are not finite"),
        ({"spread": 15.0}, ""),
    ],
)
def test_what_has_collapsed_is_out(values: dict[str, Any], why: str) -> None:
    keep = candidate("keep", 0.5)
    other = checked(replace(candidate("trained", 0.9), **values), keep, identities=30)
    assert other.rejected == why
    assert (choose([keep, other], 30).chosen is other) == (why == "")


def test_few_people_need_a_sure_gain() -> None:
    keep = candidate("keep", 0.5, 0.01)
    for rate, people, out in ((0.55, 19, True), (0.9, 19, False), (0.55, 20, False), (0.55, None, False)):
        whitened = candidate("whiten", rate, 0.1, power=0.25)
        assert bool(checked(whitened, keep, identities=30, people=people).rejected) == out
    assert not checked(candidate("trained", 0.55, 0.1), keep, identities=30, people=10).rejected


def test_lambdas_are_numbers() -> None:
    assert parse_lambdas("10, 0.5,2,2") == (0.5, 2, 10)
    for text in ("", "a,b", "-1,2", "1,inf", "1,nan"):
        with pytest.raises(UsageError, match="--lambdas cannot be"):
            parse_lambdas(text)


def test_candidates_are_names_of_methods() -> None:
    assert parse_candidates("all", batch_norm=False) == ("centre", "whiten", "restyle", "mmd")
    assert parse_candidates("mmd, adabn", batch_norm=True) == ("adabn", "mmd")
    with pytest.raises(UsageError, match="does not know 'whitn'"):
        parse_candidates("whitn", batch_norm=True)
    with pytest.raises(UsageError, match="batch normalisation"):
        parse_candidates("adabn", batch_norm=False)


def test_a_budget_is_of_steps_or_minutes(root: Path) -> None:
    job = plan_adapt(replace(ADAPT, select=False, iterations=30), Workspace.open(root))
    budget = Budget("50")
    assert budget.allows(job)
    with budget.spending(job):
        pass
    assert not budget.allows(job)
    assert Budget(None, steps=10**9).allows(job)
    assert Budget("1m", steps=30, seconds=29).allows(job)
    assert not Budget("1m", steps=30, seconds=31).allows(job)
    assert not Budget("0m").allows(job)
    for text in ("10h", "-5", "1.5m", "m"):
        with pytest.raises(UsageError, match="--budget cannot be"):
            Budget(text)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Identities of which ten are held out, and a pretraining that did it."""
    made = tmp_path_factory.mktemp("selection")
    for identity in range(100):
        for image in range(3):
            draw(made / "aligned" / "casia" / f"p{identity:03d}" / f"{image}.png", identity, image)
    for identity in range(200, 230):
        for image in range(3):
            draw(made / "aligned" / "frgc" / f"{identity}_{image}.png", identity, image, style=STUDIO)
    pretrain(plan_pretrain(PRETRAIN, Workspace.open(made)))
    return made


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(criterion, "REPLICATES", 50)


def rows_of(directory: Path) -> list[dict[str, str]]:
    with (directory / "candidates.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_all_candidates_are_measured_and_the_chosen_network_is_kept(root: Path) -> None:
    place, report = Workspace.open(root), Notes()
    planned = plan_selection(replace(ADAPT, budget="4"), place)
    assert list(planned.jobs) == ["restyle", "mmd λ=0.5", "mmd λ=4"]
    result = select(planned, report=report)
    rows = rows_of(result.run.directory)
    trained = [f"{name}{more}" for more in ("", "+whiten") for name in ("restyle", "mmd λ=0.5")]
    assert [row["candidate"] for row in rows] == ["keep", "centre", "whiten", *trained, "mmd λ=4"]
    assert rows[-1]["out"] == "beyond the budget"
    assert any("--budget 4 left out: mmd λ=4" in warning for warning in report.warnings)
    assert float(rows[0]["difference"]) == 0
    (chosen,) = (row["candidate"] for row in rows if row["chosen"])
    assert result.metrics["candidate"] == chosen
    assert result.metrics["identities"] == 10
    assert any(note.startswith(f"chosen: {chosen}") for note in report.notes)
    assert any("sure" in note or "no candidate was better" in note for note in report.notes)
    card = read_card(result.run.checkpoint)
    assert (card.run, card.config["candidate"]) == (result.run.name, chosen)
    assert label_of(card).endswith(" chosen")
    assert read_record(result.run.directory)["status"] == "complete"
    assert find_model(place, None).checkpoint == result.run.checkpoint
    assert select(planned).skipped
    # A training of the selection is the run that adapt makes alone.
    assert plan_adapt(replace(ADAPT, select=False, lambda_=0.5), place).run.finished


@pytest.mark.parametrize("name", ["keep", "centre", "whiten", "mmd λ=0.5", "mmd λ=0.5+whiten"])
def test_the_network_of_each_candidate_can_be_made(root: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    place = Workspace.open(root)
    real = selection.choose

    def of_name(found: list[Candidate], *facts: Any) -> Any:
        choice = real(found, *facts)
        return replace(choice, chosen=next(one for one in found if one.name == name))

    monkeypatch.setattr(selection, "choose", of_name)
    monkeypatch.setattr("facedan_cli.training.whiten.LEAST_PEOPLE", 0)
    planned = plan_selection(replace(ADAPT, candidates="centre,whiten,mmd", lambdas="0.5"), place)
    result = select(planned, force=True)
    assert result.metrics["candidate"] == name
    init, found = load_file(planned.keep.init), weights(result.run)
    assert ("whitening.mean" in found) == (name.endswith(("centre", "whiten")))
    changed = [key for key in init if not key.startswith("classifier") and not torch.equal(init[key], found[key])]
    assert bool(changed) == name.startswith("mmd")
    if name == "centre":
        torch.testing.assert_close(found["whitening.matrix"], torch.eye(len(found["whitening.mean"])))


def test_what_cannot_be_made_is_out_and_the_next_best_is_chosen(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise FacedanError("too few people", "give more")

    monkeypatch.setattr(selection, "adapt", refuse)
    monkeypatch.setattr(
        selection, "choose", lambda found, *facts: replace(choose(found, *facts), chosen=last_left(found))
    )
    result = select(plan_selection(replace(ADAPT, candidates="centre,whiten"), Workspace.open(root)), force=True)
    assert result.metrics["candidate"] == "keep"
    assert ["too few people" in row["out"] for row in rows_of(result.run.directory)] == [False, True, True]


def last_left(found: list[Candidate]) -> Candidate:
    return [one for one in found if not one.rejected][-1]


def test_the_rate_is_that_of_all_comparisons() -> None:
    rng = np.random.default_rng(0)
    names = np.repeat([f"p{number}" for number in range(15)], 4)
    rows = rng.normal(size=(60, 16)) + 2 * np.repeat(rng.normal(size=(15, 16)), 4, axis=0)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    unseen = np.arange(60) % 4 == 0
    for seen_too in (unseen, np.ones(60, bool)):
        compared = criterion._Compared(names, seen_too)
        pairs = [(i, j) for i in range(60) for j in range(i) if seen_too[i] or seen_too[j]]
        genuine = [rows[i] @ rows[j] for i, j in pairs if names[i] == names[j]]
        impostor = [rows[i] @ rows[j] for i, j in pairs if names[i] != names[j]]
        assert len(impostor) * float(compared.far) >= criterion.LEAST_ACCEPTED
        rate, replicates = compared.rates(rows)
        assert rate == pytest.approx(verification_rate(genuine, impostor, compared.far).vr)
        assert replicates.shape == (50,)
        assert compared.identities == 15


def test_the_rate_is_neither_0_nor_1_where_another_false_accept_rate_tells_more() -> None:
    names, rng = np.repeat(np.arange(60), 4), np.random.default_rng(0)
    people = np.repeat(rng.normal(size=(60, 16)), 4, axis=0)
    compared = criterion._Compared(names, np.ones(240, bool))
    same = names[:, None] == names[None]
    upper = np.triu(np.ones_like(same), 1)
    taken = set()
    for share in (0.2, 0.7, 3.0):
        rows = rng.normal(size=(240, 16)) + share * people
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        compared.settle(rows)
        scores = rows @ rows.T
        genuine, impostor = scores[same & upper], scores[~same & upper]
        away = {far: abs(verification_rate(genuine, impostor, far).vr - 0.5) for far in ("0.01", "0.1")}
        assert away[compared.far] == min(away.values())
        taken.add(compared.far)
    assert len(taken) == 2


def test_images_are_spread_over_identities(root: Path) -> None:
    folder = read_dataset(root / "aligned" / "casia")
    few = spread_over(folder, 150)
    counts = np.unique(few.names, return_counts=True)[1]
    assert (len(few), len(counts), set(counts.tolist())) == (150, 100, {1, 2})
    assert len(set(spread_over(folder, 150, 7).names)) == 7
    assert len(spread_over(folder, 150, 7)) == 21


def test_without_held_out_identities_held_out_images_are_compared_with_a_warning(root: Path) -> None:
    source = read_source(Workspace.open(root).dataset("casia"))
    twice = {"paths": source.folder.paths * 2, "names": source.folder.names * 2}
    source = replace(source, folder=replace(source.folder, **twice))
    verified = images_to_verify(source, 30)
    assert verified.known_identities
    assert verified.unseen.sum() == 30
    assert set(np.array(verified.folder.names)[verified.unseen]) == set(verified.folder.names)


def test_few_people_are_neither_centred_nor_whitened_by(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(criterion, "estimated_people", lambda *_: 3.0)
    result = select(plan_selection(replace(ADAPT, candidates="centre,whiten"), Workspace.open(root)), force=True)
    assert result.metrics["candidate"] == "keep"
    assert ["too few" in row["out"] for row in rows_of(result.run.directory)] == [False, True, True]


def test_published_networks_hold_identities_out_to_select_by(root: Path) -> None:
    place = Workspace.open(root)
    init = str(plan_adapt(replace(ADAPT, select=False), place).init)
    import facedan_cli.training.adapt as module

    with pytest.MonkeyPatch.context() as patched:
        real = module.read_card
        patched.setattr(module, "read_card", lambda path: replace(real(path), stage="weights", config={}))
        chosen = plan_adapt(replace(ADAPT, init=init), place)
        plain = plan_adapt(replace(ADAPT, init=init, select=False), place)
    assert len(set(chosen.source.held_out.names)) == 20  # a fifth
    assert not plain.source.held_out.paths


def test_a_selection_is_not_the_run_of_another_choice(root: Path) -> None:
    place = Workspace.open(root)
    names = {
        plan_selection(replace(ADAPT, **values), place).run.name
        for values in ({}, {"candidates": "mmd"}, {"lambdas": "0.5"}, {"budget": "9"}, {"seed": 1})
    }
    assert len(names) == 5


def test_one_process_selects(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UsageError, match="by one process"):
        plan_selection(ADAPT, Workspace.open(root))


@pytest.mark.parametrize("key", ["holdout_identities", "hold_people"])
def test_a_pretraining_of_the_same_images_is_recognised(root: Path, key: str) -> None:
    place = Workspace.open(root)
    source = place.dataset("casia")
    accept = is_of_images(source, place)
    contents = read_source(source, 10, place.root).folder.fingerprint
    record = {"inputs": {"source": {"contents": contents}}, "config": {key: 10}}
    assert accept(record)
    assert not accept(record | {"config": {key: 0}})


def test_held_out_identities_are_trained_on_by_no_stage(root: Path) -> None:
    place = Workspace.open(root)
    job = plan_adapt(ADAPT, place)
    assert len(set(job.source.held_out.names)) == 10
    assert not set(job.source.held_out.names) & set(job.source.identities)
    assert job.config.holdout_identities == 10
    assert job.card.identities == job.source.identities
    with pytest.raises(UsageError, match="held out 10"):
        plan_adapt(replace(ADAPT, holdout_identities=2), place)


def test_without_held_out_images_there_is_nothing_to_compare_by(workspace: Workspace) -> None:
    config = PretrainConfig(source="casia", model="vggface-mini", iterations=2, batch=8)
    pretrain(plan_pretrain(config, workspace))
    with pytest.raises(FacedanError, match="too few held-out"):
        plan_selection(replace(ADAPT, iterations=2), workspace)


def test_a_table_has_a_row_for_the_choice(root: Path) -> None:
    place = Workspace.open(root)
    adapting = replace(ADAPT, select=False, candidates="centre,whiten")
    config = TableConfig(rows=("source", "chosen"), pretrain=PRETRAIN, adapt=adapting, evaluate=EvaluateConfig())
    assert "chosen" not in resolve_rows(None, "gbu", None)
    assert [cell.row for cell in plan_table(config, place)] == ["source", "chosen"]
    found = train_table(config, place, Notes())[0]
    assert label_of(read_card(Path(found["chosen"].name))).endswith("chosen")


@pytest.mark.parametrize("method", ["restyle", "mmd+restyle", "whiten", "masks"])
def test_candidates_are_named_by_candidates_alone(root: Path, method: str) -> None:
    with pytest.raises(UsageError, match="--select means nothing for --method"):
        plan_selection(replace(ADAPT, method=method), Workspace.open(root))
