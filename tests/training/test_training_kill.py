"""A training that is killed at any moment, and as often as one likes, ends as one that nothing happened to."""

from __future__ import annotations

import json
import random
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from processes import Started
from tiny import draw, savings

from facedan_cli.config.training import AdaptConfig, PretrainConfig
from facedan_cli.runs import Run, read_record
from facedan_cli.synthetic.render import STUDIO
from facedan_cli.training.adapt import adapt, plan_adapt
from facedan_cli.training.pretrain import plan_pretrain, pretrain
from facedan_cli.workspace import Workspace

STEPS, KILLS = 16, 3
COMMON: dict[str, Any] = {"source": "casia", "batch": 4, "log_every": 3, "checkpoint_every": 2, "keep_every": 14}


def work(root: Path, options: dict[str, Any]) -> Run:
    """Pretrain, or adapt where there is a target."""
    place = Workspace.open(root)
    with savings():
        if "target" in options:
            return adapt(plan_adapt(AdaptConfig(**COMMON, **options), place)).run
        return pretrain(plan_pretrain(PretrainConfig(**COMMON, model="vggface-mini", **options), place)).run


def ends(run: Run) -> dict[str, Any]:
    """All that a run leaves, less times."""
    files = {path.name: path.read_bytes() for path in run.checkpoint.parent.iterdir()}
    lines = [json.loads(line) for line in run.log.read_text(encoding="utf-8").splitlines()]
    files["log"] = json.dumps([{k: v for k, v in line.items() if k != "images_per_second"} for line in lines]).encode()
    for name in ("bandwidths.json", "config.toml"):
        if (run.directory / name).exists():
            files[name] = (run.directory / name).read_bytes()
    return files


def states(root: Path) -> dict[Path, int]:
    """When the states of runs that are not finished were written."""
    return {path: path.stat().st_mtime_ns for path in root.glob("runs/*/checkpoints/state.safetensors")}


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two workspaces with the same data, enough of it for a held-out sample, and the same short pretraining."""
    killed, whole = (tmp_path_factory.mktemp("roots") / name for name in ("killed", "whole"))
    for identity in range(14):
        for image in range(8):
            draw(killed / "aligned" / "casia" / f"p{identity}" / f"{image}.png", identity, image)
            draw(killed / "aligned" / "frgc" / f"{100 + identity}_{image}.png", 100 + identity, image, style=STUDIO)
    work(killed, {"iterations": 2})
    return [killed, shutil.copytree(killed, whole)]


@pytest.mark.parametrize(
    "options",
    [
        {"optimizer": "sgd", "schedule": "constant"},
        {
            "target": "frgc",
            "precision": "bf16",
            "bandwidth": "ema",
            "kernel_weights": "optimal",
            "memory_bank": 9,
            "lambda_ramp": 40,
            "grad_accum": 2,
        },
    ],
    ids=str,
)
def test_killed_many_times_it_ends_with_the_same_bits(roots: list[Path], options: dict[str, Any]) -> None:
    options = {**options, "iterations": STEPS}
    for kill in range(KILLS):  # the first dies before it has done anything, the others soon after a new state
        before = states(roots[0])
        process = Started(work, roots[0], options)
        while kill and states(roots[0]) in ({}, before):
            time.sleep(0.005)
            assert process.returncode is None, process.said()
        time.sleep(random.uniform(0, 0.04))
        process.kill()
        assert process.returncode == -signal.SIGKILL
    (unfinished,) = states(roots[0])
    assert read_record(unfinished.parents[1])["status"] == "running"  # it could not say goodbye
    found, expected = (ends(work(root, options)) for root in roots)
    assert found.keys() == expected.keys()
    assert {"model.safetensors", "best.safetensors", "step-14.safetensors"} <= found.keys()
    for name, content in found.items():
        assert content == expected[name], name
