from __future__ import annotations

import hashlib
import json
import os
import sys
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from facedan_cli.config.common import determining, options
from facedan_cli.config.training import PRETRAIN_RECIPES, PretrainConfig, resolve
from facedan_cli.errors import FacedanError, Interrupted
from facedan_cli.runs import Run, checkpoint_of, find_checkpoint, newest_run, plan_run, read_record, working
from facedan_cli.workspace import Workspace, write_json

CONFIG = resolve(PretrainConfig(source="casia", model="vggface-mini"), PRETRAIN_RECIPES["vggface-mini"])
INPUTS = {"source": {"name": "casia", "root": "/data/casia", "images": 7, "fingerprint": "f0"}}


@pytest.fixture
def place(tmp_path: Path) -> Workspace:
    return Workspace.open(tmp_path)


def planned(place: Workspace, config: PretrainConfig = CONFIG, inputs: dict[str, dict[str, Any]] | None = None) -> Run:
    return plan_run(
        place,
        "pretrain",
        ["casia"],
        config=options(config),
        determining=determining(config),
        inputs=INPUTS if inputs is None else inputs,
    )


def made(
    place: Workspace, name: str, *, end: str = "2026-01-01", source: str = "casia", status: str = "complete"
) -> Path:
    """A run directory as a run leaves it."""
    directory = place.root / "runs" / name
    checkpoint_of(directory).parent.mkdir(parents=True)
    checkpoint_of(directory).write_bytes(name.encode())
    write_json(directory / "run.json", {"status": status, "end": end, "inputs": {"source": {"name": source}}})
    return directory


def test_a_run_is_named_by_stage_data_sets_and_a_hash(place: Workspace) -> None:
    run = planned(place)
    assert run.directory == place.root / "runs" / f"pretrain-casia-{run.identity[:8]}"
    assert planned(place) == run
    assert not run.directory.exists()


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1}, {"lr": 2e-3}, {"batch": 16}, {"iterations": 9}, {"optimizer": "sgd"}, {"schedule": "constant"},
        {"momentum": 0.5}, {"weight_decay": 0.0}, {"label_smoothing": 0.0}, {"classifier_lr": 2.0},
        {"conv_lr": 0.5},
        {"model": "vggface"},
    ],
)  # fmt: skip
def test_what_changes_the_result_makes_another_run(place: Workspace, change: dict[str, Any]) -> None:
    assert planned(place, replace(CONFIG, **change)).identity != planned(place).identity


@pytest.mark.parametrize(
    "change",
    [
        {"workers": 3},
        {"conv_lr": 1.0},
        {"device": "cuda"},
        {"log_every": 1},
        {"checkpoint_every": 7},
        {"source": "./aligned/casia"},
    ],
)
def test_what_does_not_change_the_result_is_the_same_run(place: Workspace, change: dict[str, Any]) -> None:
    assert planned(place, replace(CONFIG, **change)).identity == planned(place).identity


def test_inputs_count_by_content_and_name_and_not_by_place(place: Workspace) -> None:
    facts = INPUTS["source"]
    same = {"source": facts | {"root": "/mnt/casia"}}
    others: list[dict[str, dict[str, Any]]] = [
        {"source": facts | {"fingerprint": "f1"}},
        {"source": facts | {"name": "webface"}},
        {"source": facts, "init": {"path": "w.pth", "sha256": "00"}},
        {"source": facts, "init": {"path": "w.pth", "sha256": "01"}},
    ]
    identity = planned(place).identity
    assert planned(place, inputs=same).identity == identity
    assert len({identity, *(planned(place, inputs=other).identity for other in others)}) == 5


def test_run_json_tells_how_to_repeat_a_run(place: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["facedan", "pretrain", "--source", "casia"])
    run = planned(place)
    with working(run, force=False, device="cpu"):
        assert run.record["status"] == "running"
        assert not run.finished
        run.checkpoint.write_bytes(b"weights")
        run.state.write_bytes(b"state")
    record = run.record
    assert record["status"] == "complete"
    assert run.finished
    assert record["argv"] == ["facedan", "pretrain", "--source", "casia"]
    assert record["config"] == options(CONFIG)
    assert record["inputs"] == INPUTS
    assert (record["run"], record["stage"], record["identity"]) == (run.name, "pretrain", run.identity)
    assert record["outputs"] == {"checkpoints/model.safetensors": hashlib.sha256(b"weights").hexdigest()}
    assert record["versions"].keys() >= {"python", "facedan", "torch", "torchvision", "numpy"}
    assert record["device"] == "cpu"
    assert record["first_start"] <= record["start"] <= record["end"]
    assert not run.state.exists()
    written = tomllib.loads((run.directory / "config.toml").read_text(encoding="utf-8"))
    assert written == {"pretrain": {key: value for key, value in options(CONFIG).items() if value is not None}}


@pytest.mark.parametrize(
    ("error", "status"),
    [(FacedanError("no"), "failed"), (Interrupted("stop"), "interrupted"), (KeyboardInterrupt(), "interrupted")],
)
def test_run_json_tells_how_a_run_ended(place: Workspace, error: BaseException, status: str) -> None:
    run = planned(place)
    with pytest.raises(type(error)), working(run, force=False, device="cpu"):  # noqa: PT012 - the block is the work
        run.state.write_bytes(b"state")
        raise error
    assert (run.record["status"], run.record["reason"]) == (status, str(error))
    assert run.state.exists()
    assert not run.finished
    first = run.record["first_start"]
    with working(run, force=False, device="cpu"):
        run.checkpoint.write_bytes(b"weights")
    assert run.record["first_start"] == first
    assert "reason" not in run.record


def test_force_begins_anew_and_leaves_other_files(place: Workspace) -> None:
    run = planned(place)
    with working(run, force=False, device="cpu"):
        run.checkpoint.write_bytes(b"weights")
    for path in (run.state, run.log, run.directory / "notes.txt"):
        path.write_text("{}", encoding="utf-8")
    with working(run, force=True, device="cpu"):
        assert sorted(os.listdir(run.directory)) == [".lock", "checkpoints", "config.toml", "notes.txt", "run.json"]
        assert os.listdir(run.checkpoint.parent) == []
        run.checkpoint.write_bytes(b"weights")


def test_a_second_process_is_refused_and_changes_nothing(place: Workspace) -> None:
    run = planned(place)
    with working(run, force=False, device="cpu"):
        run.state.write_bytes(b"state")
        before = (run.directory / "run.json").read_bytes()
        in_use = pytest.raises(FacedanError, match=f"the run {run.name} is in use by process {os.getpid()}")
        with in_use, working(run, force=True, device="cpu"):
            pytest.fail("two processes in one run")
        assert (run.directory / "run.json").read_bytes() == before
        assert run.state.exists()
        run.checkpoint.write_bytes(b"weights")


def test_half_files_of_a_killed_process_are_cleared_away(place: Workspace) -> None:
    run = planned(place)
    run.state.parent.mkdir(parents=True)
    (run.state.parent / ".state.4711.tmp.safetensors").write_bytes(b"half")
    run.state.write_bytes(b"state")
    with working(run, force=False, device="cpu"):
        assert os.listdir(run.state.parent) == [run.state.name]
        run.checkpoint.write_bytes(b"weights")


def test_a_run_without_its_checkpoint_is_not_finished(place: Workspace) -> None:
    run = planned(place)
    with working(run, force=False, device="cpu"):
        run.checkpoint.write_bytes(b"weights")
    run.checkpoint.unlink()
    assert not run.finished


def test_the_newest_run_is_the_finished_one_that_ended_last(place: Workspace) -> None:
    assert newest_run(place, "pretrain") is None
    early = made(place, "pretrain-casia-ffffffff", end="2026-01-01T00:00:00.000+00:00")
    late = made(place, "pretrain-casia-00000000", end="2026-01-01T00:00:00.001+00:00")
    other = made(place, "pretrain-lfw-11111111", end="2026-01-02", source="lfw")
    made(place, "adapt-casia-frgc-22222222", end="2026-01-09")
    made(place, "pretrain-casia-33333333", end="2026-01-09", status="interrupted")
    checkpoint_of(made(place, "pretrain-casia-44444444", end="2026-01-09")).unlink()
    damaged = made(place, "pretrain-casia-55555555")
    (damaged / "run.json").write_text('{"status": "comp', encoding="utf-8")
    assert newest_run(place, "pretrain") == other
    assert newest_run(place, "pretrain", "casia") == late
    checkpoint_of(late).unlink()
    assert newest_run(place, "pretrain", "casia") == early
    assert newest_run(place, "pretrain", "orl") is None


def test_a_model_is_found_by_name_directory_and_file(place: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = made(place, "pretrain-casia-00000000")
    checkpoint = checkpoint_of(directory)
    for name in (directory.name, str(directory), str(checkpoint)):
        assert find_checkpoint(place, name) == checkpoint
    monkeypatch.chdir(place.root)
    assert find_checkpoint(place, f"runs/{directory.name}").resolve() == checkpoint


def test_a_model_that_is_not_there_is_explained(place: Workspace) -> None:
    with pytest.raises(FacedanError, match="there is no model 'x'") as caught:
        find_checkpoint(place, "x")
    assert caught.value.fix == "there are no finished runs in this workspace"
    directory = made(place, "pretrain-casia-00000000", status="interrupted")
    with pytest.raises(FacedanError, match="there is no model 'pretrain-casia-0000000'") as caught:
        find_checkpoint(place, "pretrain-casia-0000000")
    assert caught.value.fix == "did you mean pretrain-casia-00000000?"
    checkpoint_of(directory).unlink()
    with pytest.raises(FacedanError, match=r"has no finished model \(interrupted\)"):
        find_checkpoint(place, directory.name)


@pytest.mark.parametrize("text", ["", "{", "[1]", "null", "\xff"])
def test_a_damaged_record_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "run.json").write_bytes(text.encode("latin-1"))
    assert read_record(tmp_path) == {}


def test_the_last_metrics_are_the_last_line_of_the_log(place: Workspace) -> None:
    run = planned(place)
    assert run.last_metrics == {}
    run.directory.mkdir(parents=True)
    run.log.write_text("".join(json.dumps({"step": step}) + "\n" for step in (1, 2)), encoding="utf-8")
    assert run.last_metrics == {"step": 2}
