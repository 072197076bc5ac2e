from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from facedan_cli.errors import FacedanError
from facedan_cli.training import log as module
from facedan_cli.training.log import Log, check_tensorboard, scalars

ENTRY: dict[str, Any] = {
    "loss": 1.5,
    "accuracy": 0.25,
    "mmd2_fc6": -0.001,
    "beta_fc6": [0.25, 0.75],
    "two_sample": {"fc6": {"mmd2": 0.5, "p_value": 0.01}},
    "note": "no number",
}


def write(log: Log, *steps: int) -> None:
    for step in steps:
        log.write({"step": step, **ENTRY, "loss": step / 8})


def on_board(directory: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard shows: steps and values by tag."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator").EventAccumulator
    events = accumulator(str(directory)).Reload()
    shown = defaultdict(list)
    for tag in events.Tags()["scalars"]:
        shown[tag] = [(event.step, pytest.approx(event.value)) for event in events.Scalars(tag)]
    return shown


def test_numbers_within_values_are_named_after_them() -> None:
    assert dict(scalars(ENTRY)) == {
        "loss": 1.5,
        "accuracy": 0.25,
        "mmd2_fc6": -0.001,
        "beta_fc6/0": 0.25,
        "beta_fc6/1": 0.75,
        "two_sample/fc6/mmd2": 0.5,
        "two_sample/fc6/p_value": 0.01,
    }


def test_tensorboard_shows_the_numbers_of_the_log(tmp_path: Path) -> None:
    write(Log(tmp_path / "metrics.jsonl", 0, tmp_path / "board"), 0, 20, 40)
    shown = on_board(tmp_path / "board")
    assert shown.keys() == dict(scalars(ENTRY)).keys()
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    assert shown["loss"] == [(line["step"], line["loss"]) for line in lines]
    assert shown["beta_fc6/1"] == [(step, 0.75) for step in (0, 20, 40)]


@pytest.mark.parametrize("start", [20, 0])
def test_what_is_done_again_is_shown_once(tmp_path: Path, start: int) -> None:
    write(Log(tmp_path / "metrics.jsonl", 0, tmp_path / "board"), 0, 20, 40, 60)
    again = Log(tmp_path / "metrics.jsonl", start, tmp_path / "board")
    for step in (40, 60, 80):
        again.write({"step": step, "loss": -1.0})
    kept = [(0, 0.0), (20, 2.5)] if start else []
    assert on_board(tmp_path / "board")["loss"] == [*kept, (40, -1.0), (60, -1.0), (80, -1.0)]


def test_a_second_process_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "rank", lambda: 1)
    write(Log(tmp_path / "metrics.jsonl", 0, tmp_path / "board"), 1, 2)
    assert list(tmp_path.iterdir()) == []


def test_without_tensorboard_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    for ask in (check_tensorboard, lambda: Log(tmp_path / "metrics.jsonl", 0, tmp_path / "board")):
        with pytest.raises(FacedanError, match="TensorBoard, which is not installed") as caught:
            ask()
        assert caught.value.fix == "pip install 'facedan[tensorboard]'"
    Log(tmp_path / "metrics.jsonl", 0)


def test_a_collapse_is_told_of_once_whatever_the_layers_name(tmp_path: Path) -> None:
    log = Log(tmp_path / "metrics.jsonl", 0)
    first = {"step": 1, "rank_mixed_7a_target": 30.0, "cosine_mixed_7a_target": 0.1}
    assert log.collapse(first) == ""
    log.write(first)
    warning = log.collapse({"step": 2, "rank_mixed_7a_target": 2.0, "cosine_mixed_7a_target": 0.9})
    assert warning.startswith(
        "step 2: the mixed_7a features of the target have collapsed (effective rank 30.0 at first"
    )
    assert log.collapse({"step": 3, "rank_mixed_7a_target": 1.0, "cosine_mixed_7a_target": 1.0}) == ""
