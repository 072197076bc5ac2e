from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import time
import tomllib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from facedan_cli.config.common import hashed_options, options
from facedan_cli.config.models import NETWORKS
from facedan_cli.config.training import PretrainConfig, resolve
from facedan_cli.errors import FacedanError, Interrupted
from facedan_cli.run_plan import plan_run
from facedan_cli.runs import Run, checkpoint_of, find_checkpoint, newest_run, read_record, running
from facedan_cli.workspace import Workspace, digest, write_json

CONFIG = resolve(PretrainConfig(source="casia", model="vggface-mini"), NETWORKS["vggface-mini"].pretrain)
INPUTS = {"source": {"name": "casia", "root": "/data/casia", "images": 7, "contents": "f0"}}


@pytest.fixture
def place(tmp_path: Path) -> Workspace:
    return Workspace.open(tmp_path)


def planned(place: Workspace, config: PretrainConfig = CONFIG, inputs: dict[str, dict[str, Any]] | None = None) -> Run:
    return plan_run(
        place,
        "pretrain",
        ["casia"],
        config=options(config),
        hashed_options=hashed_options(config),
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
        {"momentum": 0.5}, {"weight_decay": 0.0}, {"label_smoothing": 0.0}, {"classifier_lr_mult": 2.0},
        {"backbone_lr_mult": 0.5},
        {"model": "vggface"},
    ],
)  # fmt: skip
def test_what_changes_the_result_makes_another_run(place: Workspace, change: dict[str, Any]) -> None:
    assert planned(place, replace(CONFIG, **change)).identity != planned(place).identity


@pytest.mark.parametrize(
    "change",
    [
        {"workers": 3},
        {"backbone_lr_mult": 1.0},
        {"device": "cuda"},
        {"log_every": 1},
        {"checkpoint_every": 7},
        {"source": "./aligned/casia"},
    ],
)
def test_what_does_not_change_the_result_is_the_same_run(place: Workspace, change: dict[str, Any]) -> None:
    assert planned(place, replace(CONFIG, **change)).identity == planned(place).identity


def test_inputs_count_by_content_and_not_by_place(place: Workspace) -> None:
    facts = INPUTS["source"]
    same = {"source": facts | {"root": "/mnt/webface", "name": "webface"}}
    others: list[dict[str, dict[str, Any]]] = [
        {"source": facts | {"contents": "f1"}},
        {"source": facts, "init": {"path": "w.pth", "sha256": "00"}},
        {"source": facts, "init": {"path": "w.pth", "sha256": "01"}},
    ]
    identity = planned(place).identity
    assert planned(place, inputs=same).identity == identity
    assert len({identity, *(planned(place, inputs=other).identity for other in others)}) == 4


def test_run_json_tells_how_to_repeat_a_run(place: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["facedan", "pretrain", "--source", "casia"])
    run = planned(place)
    with running(run, force=False, device="cpu"):
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
    with pytest.raises(type(error)), running(run, force=False, device="cpu"):  # noqa: PT012 - the block is the work
        run.state.write_bytes(b"state")
        raise error
    assert (run.record["status"], run.record["reason"]) == (status, str(error))
    assert run.state.exists()
    assert not run.finished
    first = run.record["first_start"]
    with running(run, force=False, device="cpu"):
        run.checkpoint.write_bytes(b"weights")
    assert run.record["first_start"] == first
    assert "reason" not in run.record


def test_force_begins_anew_and_leaves_other_files(place: Workspace) -> None:
    run = planned(place)
    with running(run, force=False, device="cpu"):
        run.checkpoint.write_bytes(b"weights")
    for path in (run.state, run.log, run.directory / "notes.txt"):
        path.write_text("{}", encoding="utf-8")
    with running(run, force=True, device="cpu"):
        assert sorted(os.listdir(run.directory)) == [".lock", "checkpoints", "config.toml", "notes.txt", "run.json"]
        assert os.listdir(run.checkpoint.parent) == []
        run.checkpoint.write_bytes(b"weights")


def test_a_second_process_is_refused_and_changes_nothing(place: Workspace) -> None:
    run = planned(place)
    with running(run, force=False, device="cpu"):
        run.state.write_bytes(b"state")
        before = (run.directory / "run.json").read_bytes()
        in_use = pytest.raises(FacedanError, match=f"{run.name} is in use .* {os.getpid()}")
        with in_use, running(run, force=True, device="cpu"):
            pytest.fail("two processes in one run")
        assert (run.directory / "run.json").read_bytes() == before
        assert run.state.exists()
        run.checkpoint.write_bytes(b"weights")


def test_half_files_of_a_killed_process_are_cleared_away(place: Workspace) -> None:
    run = planned(place)
    run.state.parent.mkdir(parents=True)
    (run.state.parent / ".state.4711.tmp.safetensors").write_bytes(b"half")
    run.state.write_bytes(b"state")
    with running(run, force=False, device="cpu"):
        assert os.listdir(run.state.parent) == [run.state.name]
        run.checkpoint.write_bytes(b"weights")


def test_a_run_without_its_checkpoint_is_not_finished(place: Workspace) -> None:
    run = planned(place)
    with running(run, force=False, device="cpu"):
        run.checkpoint.write_bytes(b"weights")
    run.checkpoint.unlink()
    assert not run.finished


def zeroed(checkpoint: Path) -> None:
    """As some file systems leave a file after a power cut: its length, and no bytes."""
    checkpoint.write_bytes(bytes(checkpoint.stat().st_size))


def zeroed_and_dated_back(checkpoint: Path) -> None:
    before = checkpoint.stat()
    zeroed(checkpoint)
    os.utime(checkpoint, ns=(before.st_atime_ns, before.st_mtime_ns))


def emptied(checkpoint: Path) -> None:
    checkpoint.write_bytes(b"")


def lengthened(checkpoint: Path) -> None:
    checkpoint.write_bytes(checkpoint.read_bytes() + b"\0")


def another(checkpoint: Path) -> None:
    other = checkpoint.with_name("other")
    other.write_bytes(b"WEIGHTS")
    other.replace(checkpoint)


def a_folder(checkpoint: Path) -> None:
    checkpoint.unlink()
    checkpoint.mkdir()


@pytest.mark.parametrize("damage", [zeroed, zeroed_and_dated_back, emptied, lengthened, another, a_folder])
def test_a_run_whose_model_is_damaged_is_not_finished(place: Workspace, damage: Callable[[Path], None]) -> None:
    run = planned(place)
    with running(run, force=False, device="cpu"):
        run.checkpoint.write_bytes(b"weights")
    assert run.finished
    assert not run.damaged
    time.sleep(0.02)  # the clock of the file system ticks by up to 10 ms
    damage(run.checkpoint)
    assert not run.finished
    assert run.damaged
    assert newest_run(place, "pretrain") is None
    for name in (run.name, str(run.checkpoint)):
        with pytest.raises(FacedanError, match=r"damaged|has no finished model|there is no model"):
            find_checkpoint(place, name)
    if damage is not a_folder:
        with running(run, force=False, device="cpu"):
            run.checkpoint.write_bytes(b"weights")
        assert run.finished


def test_a_copied_run_is_finished(place: Workspace, tmp_path: Path) -> None:
    run = planned(place)
    with running(run, force=False, device="cpu"):
        run.checkpoint.write_bytes(b"weights")
    shutil.copytree(place.root, tmp_path / "copy")
    copied = planned(Workspace.open(tmp_path / "copy"))
    assert copied.directory.is_relative_to(tmp_path / "copy")
    assert copied.finished
    copied.checkpoint.write_bytes(b"wEights")
    assert not copied.finished


def test_another_run_whose_digest_begins_alike_is_another(place: Workspace) -> None:
    run = planned(place)
    run.directory.mkdir(parents=True)
    write_json(run.directory / "run.json", {"status": "complete", "identity": run.identity[:8] + "0" * 56})
    other = planned(place)
    assert other.directory.name == f"pretrain-casia-{run.identity[:16]}"
    assert not other.finished


def test_a_run_is_found_again_where_its_data_set_has_another_name(place: Workspace) -> None:
    first = planned(place)
    with running(first, force=False, device="cpu"):
        first.checkpoint.write_bytes(b"weights")

    def under_another_name(contents: str) -> Run:
        inputs = {"source": {"name": "webface", "root": "/mnt/webface", "images": 7, "contents": contents}}
        values = (options(CONFIG), hashed_options(CONFIG))
        return plan_run(place, "pretrain", ["webface"], config=values[0], hashed_options=values[1], inputs=inputs)

    assert (under_another_name("f0").directory, under_another_name("f0").finished) == (first.directory, True)
    assert not under_another_name("f1").finished


class Images:
    """A data set, as `plan_run` sees it."""

    fingerprint_by_size = "by size"

    def __init__(self, changed: float, written: float = 0.0) -> None:
        self.changed = changed
        self.written = written

    def newest_times(self) -> tuple[float, float]:
        return self.written, self.changed


def of_earlier_version(place: Workspace, **facts: Any) -> Path:
    """The finished run of a version that knew data sets by names and sizes."""
    known = {"source": {"name": "casia", "fingerprint": "by size"}}
    identity = digest({"stage": "pretrain", "config": hashed_options(CONFIG), "inputs": known})
    directory = place.run_directory("pretrain", ["casia"], identity)
    checkpoint_of(directory).parent.mkdir(parents=True)
    checkpoint_of(directory).write_bytes(b"weights")
    record = {
        "status": "complete",
        "identity": identity,
        "inputs": {"source": {"name": "casia", "root": "/data/casia", "fingerprint": "by size"}},
        "outputs": {"checkpoints/model.safetensors": hashlib.sha256(b"weights").hexdigest()},
        "first_start": "2026-01-01T00:00:00.000+00:00",
    }
    write_json(directory / "run.json", record | facts)
    return directory


def planned_with(place: Workspace, images: Images, config: PretrainConfig = CONFIG) -> Run:
    values = {"config": options(config), "hashed_options": hashed_options(config)}
    return plan_run(place, "pretrain", ["casia"], **values, inputs=INPUTS, images={"source": images})


NEW_YEAR = 1767225600.0


def test_a_run_of_an_earlier_version_counts_where_no_image_was_written_since(place: Workspace) -> None:
    directory = of_earlier_version(place)
    run = planned_with(place, Images(NEW_YEAR - 1))
    assert (run.directory, run.finished, run.warning) == (directory, True, "")
    assert f"{directory.name} knows its images by name and size alone" in run.remark
    copied = planned_with(place, Images(NEW_YEAR + 1, NEW_YEAR - 1))
    assert (copied.directory, copied.finished, copied.remark) == (directory, True, "")
    assert f"{directory.name} knows its images by name and size alone" in copied.warning
    later = planned_with(place, Images(NEW_YEAR + 1, NEW_YEAR))
    assert later.directory != directory
    assert not later.finished
    assert "not reused" in later.remark
    assert not planned_with(place, Images(NEW_YEAR - 1), replace(CONFIG, seed=1)).remark


@pytest.mark.parametrize(
    "facts",
    [
        {"first_start": None},
        {"first_start": "yesterday"},
        {"identity": "x"},
        {"status": "failed"},
        {"outputs": {"checkpoints/model.safetensors": "x"}},
    ],
)
def test_a_run_of_an_earlier_version_that_says_less_is_not_finished(place: Workspace, facts: dict[str, Any]) -> None:
    of_earlier_version(place, **facts)
    assert not planned_with(place, Images(NEW_YEAR - 1)).finished


@pytest.mark.parametrize("inputs", [None, [], {"source": None}, {"source": []}, "x"])
def test_records_with_odd_inputs_are_of_no_earlier_version(place: Workspace, inputs: Any) -> None:
    of_earlier_version(place, inputs=inputs)
    assert planned_with(place, Images(NEW_YEAR - 1)).remark == ""


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
