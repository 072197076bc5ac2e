"""Runs belong to what images hold: found again where a data set was moved or copied, never taken for another's."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tiny import ADAPT, PRETRAIN, Notes

from facedan_cli.config.training import AdaptConfig, PretrainConfig
from facedan_cli.runs import Run, checkpoint_of
from facedan_cli.training.adapt import plan_adapt
from facedan_cli.training.datasets import found_finished, warn_of_changes
from facedan_cli.training.pretrain import plan_pretrain, pretrain
from facedan_cli.workspace import Workspace


@pytest.fixture
def place(trained: Any, tmp_path: Path) -> Workspace:
    """A workspace, moved, with a pretraining and three adaptations."""
    unmeasured = shutil.ignore_patterns("embeddings", "results")
    return Workspace.open(shutil.copytree(trained.workspace.root, tmp_path / "place", ignore=unmeasured))


def stage_1(place: Workspace, config: PretrainConfig = PRETRAIN, **options: Any) -> Run:
    return plan_pretrain(replace(config, **options), place).run


def stage_2(place: Workspace, config: AdaptConfig = ADAPT, **options: Any) -> Run:
    return plan_adapt(replace(config, **options), place).run


def change(path: Path, other: Path) -> None:
    """Give an image another one's pixels, and its own size and times."""
    before, content = path.stat(), other.read_bytes()
    path.write_bytes(content[: before.st_size].ljust(before.st_size, b"\0"))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_moved_and_copied_data_sets_find_their_runs(place: Workspace, trained: Any, tmp_path: Path) -> None:
    assert stage_1(place).finished
    assert stage_2(place).finished
    aligned = place.root / "aligned"
    (aligned / "casia").rename(aligned / "webface")
    shutil.copytree(aligned / "frgc", tmp_path / "copies" / "mugshots")
    source, target = stage_1(place, source="webface"), tmp_path / "copies" / "mugshots"
    assert (source.name, source.finished) == (trained.before.name, True)
    adapted = stage_2(place, source="webface", target=str(target))  # which finds what to start from by its images
    assert (adapted.name, adapted.finished) == (trained.dan_m67.name, True)


def test_other_contents_of_the_same_names_and_sizes_are_another_run(place: Workspace, trained: Any) -> None:
    images = sorted((place.root / "aligned" / "casia").rglob("*.png"))
    change(images[0], images[1])
    run = stage_1(place)
    assert run.name != trained.before.name
    assert not run.finished
    assert not stage_2(place, init=trained.before.name).finished
    targets = sorted((place.root / "aligned" / "frgc").rglob("*.png"))
    copy = Workspace.open(shutil.copytree(trained.workspace.root, place.root / "copy"))
    change(copy.root / targets[0].relative_to(place.root), targets[1])
    assert stage_1(copy).finished
    assert not stage_2(copy).finished


def test_a_damaged_model_is_said_and_made_again(place: Workspace) -> None:
    run = stage_1(place)
    whole = run.checkpoint.read_bytes()
    run.checkpoint.write_bytes(b"")
    notes = Notes()
    again = pretrain(plan_pretrain(PRETRAIN, place), report=notes)
    assert not again.skipped
    assert any("is damaged: it is not what its run wrote, and is made again" in text for text in notes.warnings)
    assert checkpoint_of(run.directory).read_bytes() == whole


def test_images_that_change_during_a_run_are_said(place: Workspace) -> None:
    folder = plan_pretrain(PRETRAIN, place).source.folder  # type: ignore[union-attr]  # it is no PCANet
    notes = Notes()
    assert folder.fingerprint
    warn_of_changes(notes, folder)
    assert notes.warnings == []
    change(folder.root / folder.paths[0], folder.root / folder.paths[1])
    warn_of_changes(notes, folder)
    assert "changed during the run" in notes.warnings[0]


def test_what_is_to_be_known_of_a_finished_run_is_said(place: Workspace) -> None:
    run, notes = replace(stage_1(place), remark="as it is"), Notes()
    assert found_finished(run, [], force=True, report=notes) is None
    found = found_finished(run, [], force=False, report=notes)
    assert found is not None
    assert found.skipped
    assert notes.notes == ["as it is"]
