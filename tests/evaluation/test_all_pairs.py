from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from processes import facedan_ranks
from tiny import Notes

from facedan_cli.config.common import EvaluateConfig
from facedan_cli.errors import FacedanError, UsageError
from facedan_cli.evaluation import all_pairs
from facedan_cli.evaluation.all_pairs import evaluate_verify
from facedan_cli.evaluation.result import EvaluateResult
from facedan_cli.workspace import Workspace

CONFIG = EvaluateConfig(far=("0.05", "0.5"), replicates=20)


def figures(result: EvaluateResult) -> dict[str, Any]:
    found: dict[str, Any] = result.summary()["models"][0]["partitions"]["all"]
    return found


@pytest.fixture
def place(trained: Any, tmp_path: Path) -> Workspace:
    unmeasured = shutil.ignore_patterns("embeddings", "results")
    return Workspace.open(shutil.copytree(trained.workspace.root, tmp_path / "place", ignore=unmeasured))


def test_a_stream_gives_the_figures_of_memory_but_wilsons_intervals(
    place: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    casia = place.dataset("casia")
    kept = evaluate_verify(CONFIG, place, casia, casia)
    notes = Notes()
    monkeypatch.setattr(all_pairs, "MOST_IN_MEMORY", 10)
    streamed = evaluate_verify(CONFIG, place, casia, casia, report=notes)
    memory, stream = figures(kept), figures(streamed)
    assert (memory["genuine"], memory["impostor"]) == (24, 96)
    for key in ("vr", "false_accepts", "budget", "achieved_far", "eer", "genuine", "impostor"):
        assert stream[key] == memory[key]
    for far, threshold in stream["threshold"].items():
        assert threshold == pytest.approx(memory["threshold"][far], abs=1e-6)
    assert streamed.summary()["intervals"]["method"] == "wilson"
    assert any("intervals are Wilson's" in note for note in notes.notes)
    assert {path.name for path in streamed.directory.iterdir()} >= {"summary.json", "roc.png", "det.png", "report.html"}


def test_two_data_sets_are_crossed(place: Workspace) -> None:
    half = place.root / "aligned" / "half"
    shutil.copytree(place.root / "aligned" / "casia", half)
    found = figures(evaluate_verify(CONFIG, place, place.dataset("half"), place.dataset("casia")))
    assert (found["genuine"], found["impostor"]) == (64 - 16, 192)  # no image meets its copy


def test_two_processes_find_what_one_finds(place: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    casia = place.dataset("casia")
    out, _ = facedan_ranks(
        2, "evaluate", "verify", "casia", "--far", "0.05", "--far", "0.5", "--json", "-q", "-w", place.root
    )
    (line,) = out.splitlines()  # the first process alone speaks
    shared = json.loads(line)["models"][0]["partitions"]["all"]
    # Of the same features: those of other batches, as one process alone makes them, may differ in the last bits.
    monkeypatch.setattr(all_pairs, "MOST_IN_MEMORY", 10)
    alone = evaluate_verify(CONFIG, place, casia, casia)
    assert shared == figures(alone)


@pytest.mark.parametrize("change", [{"save_scores": True}, {"convention": "bob"}])
def test_what_needs_all_scores_is_refused_where_they_are_streamed(
    place: Workspace, change: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(all_pairs, "MOST_IN_MEMORY", 10)
    casia = place.dataset("casia")
    with pytest.raises(UsageError, match="120 comparisons are streamed"):
        evaluate_verify(replace(CONFIG, **change), place, casia, casia)


@pytest.mark.parametrize("most", [10, 10_000])
def test_subjects_who_are_not_in_both_sets_cannot_be_verified(
    place: Workspace, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(all_pairs, "MOST_IN_MEMORY", most)
    other = place.root / "aligned" / "other"
    shutil.copytree(place.root / "aligned" / "casia" / "person0", other / "somebody")
    with pytest.raises(FacedanError, match="no genuine"):
        evaluate_verify(CONFIG, place, place.dataset("casia"), place.dataset("other"))
