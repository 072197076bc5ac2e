from __future__ import annotations

import os
import shutil
from dataclasses import replace
from typing import Any

import pytest
import torch
from tiny import PRETRAIN, Notes, draw, mark_aligned, metrics, same, weights

from facedan_cli.config.models import NETWORKS
from facedan_cli.errors import FacedanError, Interrupted, UsageError
from facedan_cli.models.checkpoint import read_card
from facedan_cli.models.networks import build
from facedan_cli.report import Report
from facedan_cli.runs import checkpoint_of
from facedan_cli.training.datasets import TrainingResult, read_source
from facedan_cli.training.pretrain import plan_pretrain, pretrain
from facedan_cli.workspace import Workspace, sha256_file


def run(workspace: Workspace, *, report: Report | None = None, force: bool = False, **options: Any) -> TrainingResult:
    job = plan_pretrain(replace(PRETRAIN, **options), workspace)
    return pretrain(job, force=force, report=report or Report())


def test_it_makes_a_checkpoint_that_says_what_it_is(workspace: Workspace) -> None:
    result = run(workspace)
    made = result.run
    assert (result.skipped, result.set_aside) == (False, None)
    card = read_card(made.checkpoint)
    assert card.identities == ("person0", "person1", "person2", "person3")
    assert (card.model, card.stage, card.run) == ("vggface-mini", "pretrain", made.name)
    assert card.config["iterations"] == 6
    assert weights(made)["classifier.weight"].shape == (4, 256)
    assert [entry["step"] for entry in metrics(made)] == [1, 2, 3, 4, 5, 6]
    assert result.metrics["step"] == 6
    files = {".lock", "checkpoints", "config.toml", "images.safetensors", "learning-curves.png", "metrics.jsonl"}
    assert set(os.listdir(made.directory)) == files | {"run.json"}
    assert os.listdir(made.checkpoint.parent) == ["model.safetensors"]
    source = made.record["inputs"]["source"]
    assert (source["name"], source["images"]) == ("casia", 16)
    assert made.record["device"] == "cpu" or made.record["device"].startswith("cuda")


def test_a_checkpoint_says_on_which_template_its_faces_stand(workspace: Workspace) -> None:
    assert read_card(run(workspace, iterations=1).run.checkpoint).template == ""
    mark_aligned(workspace.root / "aligned" / "casia", "lfw")
    assert read_card(run(workspace, iterations=1, force=True).run.checkpoint).template == "lfw"


def test_a_finished_run_is_left_and_force_repeats_its_bits(workspace: Workspace) -> None:
    first = run(workspace)
    before = first.run.checkpoint.stat()
    again = run(workspace)
    assert again.skipped
    assert again.metrics == first.metrics
    assert first.run.checkpoint.stat().st_mtime_ns == before.st_mtime_ns
    shutil.copytree(first.run.directory, workspace.root / "kept")
    forced = run(workspace, force=True)
    assert not forced.skipped
    assert forced.run.checkpoint.read_bytes() == (workspace.root / "kept/checkpoints/model.safetensors").read_bytes()


def test_threads_and_logging_do_not_change_the_weights(workspace: Workspace, trained: Any) -> None:
    other = run(workspace, workers=3, log_every=4, checkpoint_every=1).run
    assert other.name == trained.before.name
    assert other.checkpoint.read_bytes() == checkpoint_of(trained.before).read_bytes()


def test_another_seed_is_another_network(workspace: Workspace) -> None:
    one, two = run(workspace).run, run(workspace, seed=1).run
    assert one.directory != two.directory
    assert not same(one, two)


def test_an_interrupted_run_is_recorded_as_such_and_ends_as_a_whole_one(workspace: Workspace, trained: Any) -> None:
    with pytest.raises(Interrupted):
        run(workspace, report=Notes(stop_at=3))
    made = plan_pretrain(PRETRAIN, workspace).run
    assert made.record["status"] == "interrupted"
    assert made.state.is_file()
    assert not made.checkpoint.exists()
    resumed = run(workspace).run
    assert resumed.name == made.name == trained.before.name
    assert resumed.checkpoint.read_bytes() == checkpoint_of(trained.before).read_bytes()
    assert [entry["step"] for entry in metrics(resumed)] == [1, 2, 3, 4, 5, 6]
    assert os.listdir(made.checkpoint.parent) == ["model.safetensors"]


def test_a_source_is_the_images_in_identity_folders(workspace: Workspace) -> None:
    casia = workspace.root / "aligned" / "casia"
    draw(casia / "loose.png", 0, 0)
    source = read_source(workspace.dataset("casia"))
    assert source.unlabelled == ("loose.png",)
    assert source.identities == ("person0", "person1", "person2", "person3")
    assert source.folder.paths == tuple(f"person{identity}/{image}.png" for identity in range(4) for image in range(4))
    assert source.labels_of(source.folder).tolist() == [identity for identity in range(4) for _ in range(4)]


def test_images_that_cannot_be_used_are_listed_and_cost_nobody_else(workspace: Workspace) -> None:
    casia = workspace.root / "aligned" / "casia"
    draw(casia / "loose.png", 0, 0)
    whole = (casia / "person1" / "2.png").read_bytes()
    (casia / "person1" / "2.png").write_bytes(whole[: len(whole) // 2])
    (casia / "person3" / "0.png").write_bytes(b"no image")
    result = run(workspace)
    assert result.set_aside == result.run.directory / "set-aside.tsv"
    lines = result.set_aside.read_text(encoding="utf-8").splitlines()
    reasons = dict(line.split("\t") for line in lines)
    assert reasons.keys() == {"loose.png", "person1/2.png", "person3/0.png"}
    assert reasons["loose.png"] == "not in an identity folder"
    assert read_card(result.run.checkpoint).identities == ("person0", "person1", "person2", "person3")
    assert run(workspace).set_aside == result.set_aside  # skipping it does not forget them


def test_weights_of_others_are_a_start(workspace: Workspace) -> None:
    torch.manual_seed(5)
    start = build("vggface-mini", 9)
    path = workspace.root / "start.pth"
    torch.save(start.state_dict(), path)
    report = Notes()
    made = run(workspace, init=str(path), lr=0.0, classifier_lr_mult=0.0, weight_decay=0.0, report=report).run
    assert f"starting from {path} (facedan, trained on RGB)" in report.notes
    assert read_card(made.checkpoint).init == {"form": "facedan", "sha256": sha256_file(path), "channels": "rgb"}
    found = weights(made)
    assert all(
        torch.equal(found[key], value) for key, value in start.state_dict().items() if not key.startswith("classifier.")
    )
    assert made.record["inputs"]["init"].keys() == {"path", "sha256"}
    # A run is found by its name too; other weights make another run.
    second = plan_pretrain(replace(PRETRAIN, init=made.name), workspace)
    assert second.init == made.checkpoint
    assert second.run.name not in (made.name, plan_pretrain(PRETRAIN, workspace).run.name)


def test_vggface_from_nothing_is_warned_of(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    small = replace(NETWORKS["vggface-mini"], start=NETWORKS["vggface"].start)
    monkeypatch.setitem(NETWORKS, "vggface", small)
    report = Notes(stop_at=1)
    with pytest.raises(Interrupted):
        run(workspace, model="vggface", batch=2, report=report)
    assert any("random weights" in warning for warning in report.warnings)


def test_random_convolutions_that_are_kept_are_warned_of(workspace: Workspace) -> None:
    report = Notes()
    run(workspace, backbone_lr_mult=0.0, report=report)
    assert any("convolutions of random weights stay" in warning for warning in report.warnings)


def test_faces_of_one_alignment_need_no_warning_and_others_a_note(workspace: Workspace) -> None:
    report = Notes()
    run(workspace, report=report)
    assert report.notes == ["'casia' has no aligned.jsonl: its images are taken to be aligned already"]
    assert report.warnings == []


def test_a_plan_writes_nothing(workspace: Workspace) -> None:
    job = plan_pretrain(PRETRAIN, workspace)
    assert not job.run.finished
    assert not (workspace.root / "runs").exists()


def test_sources_that_cannot_be_trained_on_are_refused(workspace: Workspace) -> None:
    aligned = workspace.root / "aligned"
    (aligned / "empty").mkdir()
    draw(aligned / "one" / "ann" / "1.png", 0, 0)
    draw(aligned / "one" / "ann" / "2.png", 0, 1)
    cases = {
        "frgc": "the source 'frgc' has no identity folders",
        "one": r"has one identity only \('ann'\)",
        "empty": "holds no images",
        "cassia": "there is no data set 'cassia'",
    }
    for source, message in cases.items():
        with pytest.raises(FacedanError, match=message):
            plan_pretrain(replace(PRETRAIN, source=source), workspace)


def test_settings_that_cannot_be_are_refused(workspace: Workspace) -> None:
    with pytest.raises(UsageError, match="no network 'vggface-min'"):
        plan_pretrain(replace(PRETRAIN, model="vggface-min"), workspace)
    with pytest.raises(UsageError, match="--batch must be at least 2"):
        plan_pretrain(replace(PRETRAIN, batch=1), workspace)
    with pytest.raises(FacedanError, match=r"there is no model 'gone\.pth'"):
        plan_pretrain(replace(PRETRAIN, init="gone.pth"), workspace)
    with pytest.raises(UsageError, match="there is no device 'cuda:99' here"):
        pretrain(plan_pretrain(replace(PRETRAIN, device="cuda:99"), workspace))
    assert not (workspace.root / "runs").exists()


def test_faces_that_the_network_does_not_expect_are_warned_of_or_refused(workspace: Workspace) -> None:
    mark_aligned(workspace.root / "aligned" / "casia", "lfw")
    report = Notes()
    made = pretrain(plan_pretrain(PRETRAIN, workspace), report=report).run
    (warning,) = report.warnings
    assert "'casia' (lfw at 72 pixels) are not aligned as vggface-mini expects them" in warning
    assert warning.endswith("facedan align RAW ALIGNED --for vggface-mini")
    with pytest.raises(FacedanError, match="--strict") as caught:
        plan_pretrain(replace(PRETRAIN, strict=True), workspace)
    assert caught.value.fix == "facedan align RAW ALIGNED --for vggface-mini"
    # What goes on from the run expects what that learnt; and the option is no part of a run's name.
    assert plan_pretrain(replace(PRETRAIN, init=made.name, strict=True, seed=1), workspace).expected.certain
    mark_aligned(workspace.root / "aligned" / "casia", "given")
    assert plan_pretrain(replace(PRETRAIN, strict=True), workspace).run.name == made.name
