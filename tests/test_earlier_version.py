"""A workspace that version 0.1.0 wrote goes on working: faces and runs are found done, options are read."""

from __future__ import annotations

import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from facedan_cli.models.checkpoint import load_checkpoint, read_card
from facedan_cli.runs import checkpoint_of
from facedan_cli.workspace import sha256_file, write_json

ARCHIVE = Path(__file__).parent / "data_files" / "workspace-0.1.0.tar.xz"
ALIGN = ("align", "raw", "aligned", "--no-align", "--size", "72")
PRETRAIN = ("pretrain", "--source", "casia", "--init", "start.safetensors")
ADAPT = ("adapt", "--source", "casia", "--target", "frgc")
RUNS = {"pretrain": Path("runs/pretrain-casia-d5045f84"), "adapt": Path("runs/adapt-casia-frgc-0d2a098b")}
LATER = 4_000_000_000
"""Seconds since 1970, after the runs of the archive began."""

Facedan = Callable[..., Any]


@pytest.fixture
def unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The workspace, whose files have the times of writing that they had; the current directory."""
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(tmp_path, filter="data")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def begun_later(run: Path) -> None:
    """As in a workspace that was not copied: no file has changed in any way since the run began."""
    record = json.loads((run / "run.json").read_text())
    write_json(run / "run.json", record | {"first_start": "2100-01-01T00:00:00.000+00:00"})


def state_of(facedan: Facedan, *command: str) -> tuple[str, str]:
    """The run that a training would make, and how it stands."""
    done = facedan(*command, "--dry-run", "--json")
    plan = json.loads(done.out)
    return Path(plan["run"]).name, plan["state"]


def test_the_same_commands_find_everything_done(unpacked: Path, facedan: Facedan) -> None:
    made = [
        *unpacked.glob("aligned/**/*.jpg"),
        *unpacked.glob("runs/**/*.json*"),
        *unpacked.glob("runs/**/*.safetensors"),
    ]
    before = {path: path.stat().st_mtime_ns for path in made}
    aligned = facedan(*ALIGN)
    assert (aligned.code, aligned.out) == (0, "aligned\n")
    assert "0 aligned, 0 set aside, 24 done before" in aligned.err
    assert "24 images were copied" in aligned.err
    for command in (PRETRAIN, ADAPT):
        run = RUNS[command[0]]
        trained = facedan(*command)
        assert (trained.code, trained.out) == (0, f"{checkpoint_of(run)}\n")
        assert f"Warning: {run.name} knows its images by name and size alone" in trained.err
        assert f"{run.name} is finished already" in trained.err
    assert sorted(path.name for path in Path("runs").iterdir()) == sorted(run.name for run in RUNS.values())
    embedded = facedan("embed", "gbu")
    assert embedded.code == 0
    now, then = (np.load(Path(at.strip()) / "vectors.npy") for at in (embedded.out, "embeddings/gbu-f969a76e"))
    np.testing.assert_allclose(now, then, atol=1e-5)
    measured = facedan("evaluate", "gbu", "--far", "0.1")
    assert measured.code == 0
    assert f"measuring {RUNS['adapt'].name} as 'DAN_m67'" in measured.err
    assert {path: path.stat().st_mtime_ns for path in made} == before


@pytest.mark.parametrize("command", [PRETRAIN, ADAPT], ids=["pretrain", "adapt"])
def test_where_nothing_was_copied_a_note_is_enough(unpacked: Path, facedan: Facedan, command: tuple[str, ...]) -> None:
    begun_later(RUNS[command[0]])
    trained = facedan(*command)
    assert trained.out == f"{checkpoint_of(RUNS[command[0]])}\n"
    assert "none of them has been written since it began" in trained.err
    assert "Warning" not in trained.err


@pytest.mark.parametrize("image", ["casia/person1/2.jpg", "frgc/101_2.jpg"])
def test_an_image_that_was_written_since_makes_another_run(unpacked: Path, facedan: Facedan, image: str) -> None:
    os.utime(unpacked / "aligned" / image, (LATER, LATER))
    name, state = state_of(facedan, *ADAPT)
    assert (name != RUNS["adapt"].name, state) == (True, "to be run")


def test_an_interrupted_training_of_other_random_streams_is_not_gone_on_with(unpacked: Path, facedan: Facedan) -> None:
    for run in RUNS.values():
        record = json.loads((run / "run.json").read_text())
        write_json(run / "run.json", record | {"status": "interrupted"})
        (run / "checkpoints" / "state.pt").write_bytes(b"")
    start = ("--init", str(checkpoint_of(RUNS["pretrain"]).rename("pretrained.safetensors")))
    for command in (PRETRAIN, (*ADAPT, *start)):
        name, state = state_of(facedan, *command)
        assert (name != RUNS[command[0]].name, state) == (True, "to be run")


def test_the_keys_of_its_settings_and_of_its_runs_are_read(unpacked: Path, facedan: Facedan) -> None:
    given_back = facedan(*ADAPT, "--config", RUNS["adapt"] / "config.toml")
    assert (given_back.code, given_back.out) == (0, f"{checkpoint_of(RUNS['adapt'])}\n")
    plan = json.loads(facedan(*ADAPT, "--dry-run", "--json").out)
    assert (plan["config"]["holdout"], plan["config"]["backbone_lr_mult"]) == (1, 1.0)  # facedan.toml's former keys


SPELLINGS = {
    "--hold-aside": "3",
    "--hold-people": "0",
    "--conv-lr": "0.5",
    "--classifier-lr": "2",
    "--betas": "optimal",
}
SPELLINGS |= {"--queue": "8", "--multipliers": "1,3", "--strengths": "1,2"}


def test_former_options_and_variables_mean_what_they_meant(
    unpacked: Path, facedan: Facedan, monkeypatch: pytest.MonkeyPatch
) -> None:
    typed = [word for option in SPELLINGS.items() for word in option]
    config = json.loads(facedan(*ADAPT, *typed, "--dry-run", "--json").out)["config"]
    assert (config["holdout"], config["backbone_lr_mult"], config["classifier_lr_mult"]) == (3, 0.5, 2.0)
    assert (config["kernel_weights"], config["memory_bank"], config["bandwidth_multipliers"]) == ("optimal", 8, "1,3")
    assert (config["holdout_identities"], config["lambdas"]) == (0, "1,2")
    monkeypatch.setenv("FACEDAN_ADAPT_HOLD_ASIDE", "5")
    assert json.loads(facedan(*ADAPT, "--dry-run", "--json").out)["config"]["holdout"] == 5


def test_its_checkpoints_are_read(unpacked: Path, facedan: Facedan) -> None:
    for stage, run in RUNS.items():
        network, card = load_checkpoint(checkpoint_of(run))
        assert (card.stage, card.run, card.model, card.config["hold_aside"]) == (stage, run.name, "vggface-mini", 1)
        assert card == read_card(checkpoint_of(run))
        assert network.classifier.classes == 2
    exported = facedan("export", RUNS["adapt"].name, "out.safetensors")
    assert (exported.code, exported.out) == (0, "out.safetensors\n")
    assert sha256_file(Path("start.safetensors")) == card.init["sha256"]


def test_photographs_that_changed_since_are_aligned_again(unpacked: Path, facedan: Facedan) -> None:
    os.utime("raw/casia/person0/1.jpg", (LATER, LATER))
    Path("raw/frgc/101_2.jpg").write_bytes(Path("raw/frgc/101_1.jpg").read_bytes())
    assert "2 aligned, 0 set aside, 22 done before" in facedan(*ALIGN).err
