"""A command that is told to stop ends soon, says so, and leaves nothing half done."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest
from processes import Started, ending, ranks

from facedan_cli.alignment import align
from facedan_cli.alignment.workers import in_order, workers
from facedan_cli.cli.app import main
from facedan_cli.distributed import DistEnv
from facedan_cli.workspace import locked, replacing


def work(batch: list[int]) -> NoReturn:
    with replacing(Path(str(batch[0]))) as temporary:
        temporary.write_text("half", encoding="ascii")
        Path(f"begun-{batch[0]}").touch()
        time.sleep(60)
    raise AssertionError


def with_workers(*_: object) -> None:
    with locked(Path("held"), "the test"), workers(work, 2, processes=True) as begin:
        list(in_order(begin, [[0], [1], [2]], 3))


def with_ranks(*_: object) -> None:
    ranks = DistEnv.of(os.environ)
    with ranks.joined():
        os.write(1, f"joined {ranks.rank}\n".encode())
        if not ranks.first:
            time.sleep(60)
        ranks.gather([])


def align_by(stand_in: Callable[..., None]) -> None:
    """`facedan align` that does something else, in a process of its own."""
    align.align = stand_in  # type: ignore[assignment]
    sys.argv = ["facedan", "align", "raw", "out"]
    main()


def wait_for(*paths: Path) -> None:
    deadline = time.monotonic() + 60
    while not all(path.exists() for path in paths):
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_command_with_processes_ends_with_a_word(tmp_path: Path, number: signal.Signals) -> None:
    process = Started(align_by, with_workers, directory=tmp_path)
    with ending(process):
        wait_for(tmp_path / "begun-0", tmp_path / "begun-1")
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text(encoding="ascii").split()
        assert len(children) == 2
        process.send_signal(number)
        out, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert out == ""
    assert err.splitlines() == [
        f"Error: the work was interrupted by {number.name}",
        "Fix: what is finished is kept: the same command, without --force, goes on",
    ]
    assert not any(Path(f"/proc/{child}").exists() for child in children)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["begun-0", "begun-1", "held"]


def test_a_process_that_waits_for_the_others_ends_too() -> None:
    processes = ranks(2, align_by, with_ranks)
    with ending(*processes):
        deadline = time.monotonic() + 60
        while not all(process.said()[0].startswith("joined") for process in processes):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        time.sleep(0.5)
        processes[0].send_signal(signal.SIGTERM)
        began = time.monotonic()
        _, err = processes[0].communicate(timeout=30)
        assert time.monotonic() - began < 15
        assert processes[0].returncode == 130
        assert "interrupted by SIGTERM" in err
