"""A command that is told to stop ends soon, says so, and leaves nothing half done."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

import facedan_cli

ENVIRONMENT = {
    **{key: value for key, value in os.environ.items() if not key.startswith("FACEDAN_")},
    "OMP_NUM_THREADS": "1",
    "PYTHONPATH": str(Path(facedan_cli.__file__).parents[1]),
}

ALIGN = """
import sys, time
from pathlib import Path
from facedan_cli.cli import align
from facedan_cli.cli.app import main
from facedan_cli.alignment.workers import in_order, workers
from facedan_cli.workspace import locked, replacing

def work(batch):
    with replacing(Path(str(batch[0]))) as temporary:
        temporary.write_text("half")
        Path(f"begun-{batch[0]}").touch()
        time.sleep(60)

def run():
    with locked(Path("held"), "the test"), workers(work, 2, processes=True) as begin:
        list(in_order(begin, [[0], [1], [2]], 3))

import facedan_cli.alignment.align
facedan_cli.alignment.align.align = lambda *_: run()
sys.argv = ["facedan", "align", "raw", "out"]
main()
"""

WAIT = """
import sys
from facedan_cli.cli.app import main
from facedan_cli.distributed import DistEnv
import os, facedan_cli.alignment.align

def run(*_):
    ranks = DistEnv.of(os.environ)
    with ranks.joined():
        print(f"joined {ranks.rank}", flush=True)
        if not ranks.first:
            import time
            time.sleep(60)
        ranks.gather([])

facedan_cli.alignment.align.align = run
sys.argv = ["facedan", "align", "raw", "out"]
main()
"""


def wait_for(*paths: Path) -> None:
    deadline = time.monotonic() + 60
    while not all(path.exists() for path in paths):
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_command_with_processes_ends_with_a_word(tmp_path: Path, number: signal.Signals) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", ALIGN], cwd=tmp_path, env=ENVIRONMENT, stderr=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        wait_for(tmp_path / "begun-0", tmp_path / "begun-1")
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text(encoding="ascii").split()
        assert len(children) == 2
        process.send_signal(number)
        out, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert out == b""
    assert err.splitlines() == [
        b"Error: the work was interrupted by " + number.name.encode(),
        b"Fix: what is finished is kept: the same command, without --force, goes on",
    ]
    assert not any(Path(f"/proc/{child}").exists() for child in children)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["begun-0", "begun-1", "held"]


def test_a_process_that_waits_for_the_others_ends_too() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    ranks = []
    for rank in range(2):
        names = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
        environment = {**ENVIRONMENT, **names, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        ranks.append(
            subprocess.Popen(
                [sys.executable, "-c", WAIT], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
            )
        )
    try:
        for rank in ranks:
            assert rank.stdout is not None
            assert rank.stdout.readline().startswith(b"joined")
        time.sleep(0.5)
        ranks[0].terminate()
        began = time.monotonic()
        _, err = ranks[0].communicate(timeout=30)
        assert time.monotonic() - began < 15
        assert ranks[0].returncode == 130
        assert b"interrupted by SIGTERM" in err
    finally:
        for rank in ranks:
            rank.kill()
            rank.communicate()
