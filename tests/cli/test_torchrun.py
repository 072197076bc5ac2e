"""Several processes from the command line: one result, said once; and when one of them dies."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from subprocess import PIPE
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

import facedan_cli

Facedan = Callable[..., Any]

ENVIRONMENT = {
    **{key: value for key, value in os.environ.items() if not key.startswith("FACEDAN_")},
    "OMP_NUM_THREADS": "1",
    "PYTHONPATH": str(Path(facedan_cli.__file__).parents[1]),
}


# Each command meets at a port of its own.
COMMANDS = """
import json, os, sys
from facedan_cli.cli.app import main

for port, arguments in json.loads(sys.argv[1]):
    os.environ["MASTER_PORT"] = str(port)
    sys.argv = ["facedan", *arguments]
    try:
        main()
    except SystemExit as ended:
        if ended.code:
            raise
    for stream in (sys.stdout, sys.stderr):
        print("\\f", end="", file=stream, flush=True)
"""


def start(*arguments: str, port: int = 0) -> list[subprocess.Popen[str]]:
    """Python as two processes of one job, without a launcher, which needs seconds to begin and ends them itself."""
    ranks = []
    for rank in ("0", "1"):
        names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
        environment = {**ENVIRONMENT, **names, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        command = [sys.executable, *arguments]
        ranks.append(subprocess.Popen(command, env=environment, stdout=PIPE, stderr=PIPE, text=True))
    return ranks


def free_ports(count: int) -> list[int]:
    with ExitStack() as opened:
        bound = [opened.enter_context(socket.socket()) for _ in range(count)]
        for one in bound:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in bound]


def by_two(*commands: Sequence[object]) -> list[tuple[str, str]]:
    """What two processes say together on stdout and stderr, in each of several commands; they are started once."""
    ports = free_ports(len(commands))
    told = json.dumps([(port, list(map(str, command))) for port, command in zip(ports, commands, strict=True)])
    ranks = start("-c", COMMANDS, told)
    try:
        said = [rank.communicate(timeout=240) for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    assert [rank.returncode for rank in ranks] == [0, 0], said
    out, err = (["".join(parts) for parts in zip(*(of[i].split("\f") for of in said), strict=True)] for i in (0, 1))
    return list(zip(out[:-1], err[:-1], strict=True))


def assert_same_network(one: str, other: str) -> None:
    networks = [load_file(path.strip()) for path in (one, other)]
    assert networks[0].keys() == networks[1].keys()
    for name, value in networks[0].items():
        torch.testing.assert_close(networks[1][name], value, rtol=1e-3, atol=1e-5)


def test_two_processes_make_what_one_makes_and_say_it_once(trained: Any, tmp_path: Path, facedan: Facedan) -> None:
    one, two = (shutil.copytree(trained.workspace.root, tmp_path / name) for name in ("one", "two"))
    adapt = ("adapt", "--source", "casia", "--target", "frgc", "--optimizer", "sgd", "--cache", "disk")
    adapted, again, embedded = by_two(*((*command, "-w", two) for command in (adapt, adapt, ("embed", "gbu"))))
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
    command = ("pretrain", "--source", "casia", *recipe, "--iterations", "60", "--checkpoint-every", "5")
    ranks = start("-m", "facedan_cli", *command, "--workspace", str(root), port=free_ports(1)[0])
    try:
        deadline = time.monotonic() + 120
        while not list(root.glob("runs/*/checkpoints/state.safetensors")):
            assert [rank.poll() for rank in ranks] == [None, None]
            assert time.monotonic() < deadline
            time.sleep(0.05)
        ranks[1].kill()
        output, errors = ranks[0].communicate(timeout=120)
    finally:
        for rank in ranks:
            rank.kill()
            rank.communicate()
    assert (ranks[0].returncode, output) == (1, "")
    assert "Error: another process of this job has ended" in errors
    assert "Traceback" not in errors
    resumed = facedan(*command, "-w", root)
    assert resumed.code == 0, resumed.err
    whole = facedan(*command, "-w", shutil.copytree(drawn, tmp_path / "whole"))
    assert_same_network(resumed.out, whole.out)
