"""Several processes from the command line: one result, said once; and when one of them dies."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from processes import ENVIRONMENT, ending, facedan_ranks, ranks, run_sparingly
from safetensors.torch import load_file
from tiny import draw

Facedan = Callable[..., Any]


def test_torchrun_starts_them(tmp_path: Path) -> None:
    for image in range(3):
        draw(tmp_path / "raw" / f"{image}.png", 0, image)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["-m", "facedan_cli", "align", "raw", "out", "--no-align", "--size", "72", "--json"]
    done = subprocess.run(command, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()  # the first process alone speaks
    assert json.loads(line)["aligned"] == len(list((tmp_path / "out").glob("*.*g"))) == 3


def assert_same_network(one: str, other: str) -> None:
    networks = [load_file(path.strip()) for path in (one, other)]
    assert networks[0].keys() == networks[1].keys()
    for name, value in networks[0].items():
        torch.testing.assert_close(networks[1][name], value, rtol=1e-3, atol=1e-5)


def test_two_processes_make_what_one_makes_and_say_it_once(trained: Any, tmp_path: Path, facedan: Facedan) -> None:
    one, two = (shutil.copytree(trained.workspace.root, tmp_path / name) for name in ("one", "two"))
    adapt = ("adapt", "--source", "casia", "--target", "frgc", "--optimizer", "sgd", "--cache", "disk")
    adapted, again, embedded = (facedan_ranks(2, *words, "-w", two) for words in (adapt, adapt, ("embed", "gbu")))
    alone = facedan(*adapt, "-w", one)
    assert alone.code == 0, alone.err
    assert len(adapted[0].splitlines()) == 1
    assert Path(alone.out).parts[-3].rpartition("-")[0] == Path(adapted[0]).parts[-3].rpartition("-")[0]
    assert_same_network(alone.out, adapted[0])
    assert again[0] == adapted[0]
    assert again[1].count("is finished already") == 1
    alone = facedan("embed", "gbu", "--model", adapted[0].strip(), "-w", one)
    places = [Path(printed.strip()) for printed in (embedded[0], alone.out)]
    found, expected = (np.load(place / "vectors.npy") for place in places)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    tables = [(place / "images.csv").read_text(encoding="utf-8") for place in places]
    assert tables[0] == tables[1]
    assert not list(places[0].glob(".vectors*"))


def test_a_process_that_dies_ends_all_and_the_run_goes_on(drawn: Path, tmp_path: Path, facedan: Facedan) -> None:
    root = shutil.copytree(drawn, tmp_path / "work")
    # Small steps, in which what differs by rounding between one process and two stays small.
    recipe = ("--optimizer", "sgd", "--schedule", "constant", "--lr", "0.00001")
    command = ("pretrain", "--source", "casia", *recipe, "--iterations", "40", "--checkpoint-every", "5")
    running = ranks(2, run_sparingly, *command, "--workspace", root)
    with ending(*running):
        deadline = time.monotonic() + 120
        while not list(root.glob("runs/*/checkpoints/state.safetensors")):
            assert [rank.returncode for rank in running] == [None, None]
            assert time.monotonic() < deadline
            time.sleep(0.05)
        running[1].kill()
        output, errors = running[0].communicate()
    assert (running[0].returncode, output) == (1, "")
    assert "Error: another process of this job has ended" in errors
    assert "Traceback" not in errors
    resumed = facedan(*command, "-w", root)
    assert resumed.code == 0, resumed.err
    whole = facedan(*command, "-w", shutil.copytree(drawn, tmp_path / "whole"))
    assert_same_network(resumed.out, whole.out)
