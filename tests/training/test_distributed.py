from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import facedan_cli
from facedan_cli.training.distributed import share

SCRIPT = Path(__file__).with_name("two_ranks.py")


def train_together(directory: Path, parts: int, options: list[str]) -> None:
    directory.mkdir()
    commands = [[sys.executable, str(SCRIPT), str(part), str(parts), str(directory), *options] for part in range(parts)]
    package = str(Path(facedan_cli.__file__).parents[1])  # not installed where the tests run from a checkout
    environment = {**os.environ, "PYTHONPATH": package}
    running = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) for command in commands]
    for process in running:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors


@pytest.mark.parametrize("options", [[], ["estimator=linear", "betas=optimal"], ["queue=9"]], ids=str)
def test_two_processes_are_one(tmp_path: Path, options: list[str]) -> None:
    train_together(tmp_path / "one", 1, options)
    train_together(tmp_path / "two", 2, options)
    whole = load_file(tmp_path / "one" / "measured0.safetensors")
    parts = [load_file(tmp_path / "two" / f"measured{part}.safetensors") for part in (0, 1)]
    for part in parts:
        torch.testing.assert_close(part["value"], whole["value"], rtol=1e-12, atol=0)
    for domain in ("source", "target"):
        assert [len(part[domain]) for part in parts] == [3, 4]
        joined = torch.cat([part[domain] for part in parts])
        torch.testing.assert_close(joined, whole[domain], rtol=1e-10, atol=1e-14)

    trained = load_file(tmp_path / "one" / "trained0.safetensors")
    for part in (0, 1):
        others = load_file(tmp_path / "two" / f"trained{part}.safetensors")
        for name, value in trained.items():
            torch.testing.assert_close(others[name], value, rtol=1e-4, atol=1e-5)
    logs = [
        [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
        for name in ("one", "two")
    ]
    assert [entry["step"] for entry in logs[1]] == [5, 10, 15, 20]
    for one, two in zip(*logs, strict=True):
        for key in ("loss", "classification", "accuracy", "mmd2_fc6", "mmd2_fc7", "gradient_norm", "rank_fc7_target"):
            assert two[key] == pytest.approx(one[key], rel=1e-3, abs=1e-5), key


@pytest.mark.parametrize(("batch", "parts"), [(32, 1), (32, 2), (7, 3), (2, 5)])
def test_shares_are_neighbours_and_make_the_whole(batch: int, parts: int) -> None:
    shares = [share(batch, part, parts) for part in range(parts)]
    assert [row for own in shares for row in own] == list(range(batch))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
