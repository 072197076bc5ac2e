"""Several processes from the command line: one result, said once; and when one of them dies."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import facedan_cli

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
Facedan = Callable[..., Any]

ENVIRONMENT = {
    **{key: value for key, value in os.environ.items() if not key.startswith("FACEDAN_")},
    "OMP_NUM_THREADS": "1",
    "PYTHONPATH": str(Path(facedan_cli.__file__).parents[1]),
}


def by_two(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [*TORCHRUN, "2", "-m", "facedan_cli", *arguments, "--workspace", str(root)]
    return subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, timeout=240, check=False)


def assert_same_network(one: str, other: str) -> None:
    networks = [load_file(path.strip()) for path in (one, other)]
    assert networks[0].keys() == networks[1].keys()
    for name, value in networks[0].items():
        torch.testing.assert_close(networks[1][name], value, rtol=1e-3, atol=1e-5)


def test_two_processes_make_what_one_makes_and_say_it_once(trained: Any, tmp_path: Path, facedan: Facedan) -> None:
    one, two = (shutil.copytree(trained.workspace.root, tmp_path / name) for name in ("one", "two"))
    command = ("adapt", "--source", "casia", "--target", "frgc", "--optimizer", "sgd", "--cache", "disk")
    alone, together = facedan(*command, "-w", one), by_two(two, *command)
    assert (alone.code, together.returncode) == (0, 0), together.stderr
    assert len(together.stdout.splitlines()) == 1
    assert Path(alone.out).parts[-3].rpartition("-")[0] == Path(together.stdout).parts[-3].rpartition("-")[0]
    assert_same_network(alone.out, together.stdout)
    again = by_two(two, *command)
    assert again.stdout == together.stdout
    assert again.stderr.count("is finished already") == 1
    embed = ("embed", "gbu", "--model", together.stdout.strip())
    alone = facedan(*embed, "-w", one)
    together = by_two(two, *embed)
    assert together.returncode == 0, together.stderr
    places = [Path(printed.strip()) for printed in (together.stdout, alone.out)]
    found, expected = (np.load(place / "vectors.npy") for place in places)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    tables = [(place / "images.csv").read_text(encoding="utf-8") for place in places]
    assert tables[0] == tables[1]
    assert not list(places[0].glob(".vectors*"))


def test_a_process_that_dies_ends_all_and_the_run_goes_on(drawn: Path, tmp_path: Path, facedan: Facedan) -> None:
    root = shutil.copytree(drawn, tmp_path / "work")
    # Small steps, in which what differs by rounding between one process and two stays small.
    recipe = ("--optimizer", "sgd", "--schedule", "constant", "--lr", "0.00001")
    command = ("pretrain", "--source", "casia", *recipe, "--iterations", "100", "--checkpoint-every", "5")
    launched = [*TORCHRUN, "2", "-m", "facedan_cli", *command, "--workspace", str(root)]
    with subprocess.Popen(launched, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as job:
        deadline = time.monotonic() + 120
        while not list(root.glob("runs/*/checkpoints/state.safetensors")):
            assert job.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        os.kill(worker(job.pid, rank=1), signal.SIGKILL)
        output, errors = job.communicate(timeout=120)
    assert job.returncode != 0
    assert output == ""
    assert "Error: another process of this job has ended" in errors
    assert "Traceback" not in errors.partition("torch/distributed")[0]
    resumed = facedan(*command, "-w", root)
    assert resumed.code == 0, resumed.err
    whole = facedan(*command, "-w", shutil.copytree(drawn, tmp_path / "whole"))
    assert_same_network(resumed.out, whole.out)


def worker(launcher: int, rank: int) -> int:
    """The process of a rank, found by its environment."""
    for entry in Path("/proc").iterdir():
        try:
            variables = (entry / "environ").read_bytes().split(b"\0")
            parent = re.search(r"PPid:\s+(\d+)", (entry / "status").read_text(encoding="utf-8"))
        except OSError:
            continue
        if parent and int(parent[1]) == launcher and f"RANK={rank}".encode() in variables:
            return int(entry.name)
    pytest.fail("the job has no such process")
