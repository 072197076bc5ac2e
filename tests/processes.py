"""Processes whose libraries are read already: each is forked within milliseconds, from one that has read them."""

from __future__ import annotations

import atexit
import multiprocessing
import os
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from multiprocessing import forkserver
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from tiny import savings
from torch import distributed

import facedan_cli
from facedan_cli.cli.app import main

PACKAGE = Path(facedan_cli.__file__).parents[1]  # not installed where the tests run from a checkout
ENVIRONMENT = {
    **{key: value for key, value in os.environ.items() if not key.startswith("FACEDAN_")},
    "OMP_NUM_THREADS": "1",
    "PYTHONPATH": str(PACKAGE),
}
READ = ("alignment.align", "cli.app", "evaluation.all_pairs", "evaluation.protocols", "metrics.streaming")
READ += ("training.adapt", "training.pretrain")
LATER = ("torch._dynamo", "torchvision.ops", "sklearn.decomposition")
"""What the first optimiser imports, the first search for faces and the first figure of the domains."""


class Started:
    """A process that does a piece of work, with as much of `subprocess.Popen` as tests want.

    Args:
        work: a function of a module.
        arguments: its arguments.
        directory: where it works.
        environment: variables that it has besides those of the tests.
    """

    def __init__(
        self, work: Callable[..., object], *arguments: object, directory: Path | None = None, **environment: str
    ) -> None:
        self._streams = TemporaryDirectory()
        self._said = [Path(self._streams.name, name) for name in ("out", "err")]
        self._process = _fork_server().Process(
            target=_begin, args=(self._said, directory or Path.cwd(), ENVIRONMENT | environment, work, arguments)
        )
        self._process.start()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """How it has ended; minus a signal's number where that ended it; None before."""
        return self._process.exitcode

    def said(self) -> tuple[str, str]:
        """What it has said on stdout and stderr until now."""
        out, err = (path.read_text(encoding="utf-8") if path.exists() else "" for path in self._said)
        return out, err

    def communicate(self, timeout: float = 120) -> tuple[str, str]:
        """Wait for its end; what it said on stdout and stderr."""
        self._process.join(timeout)
        if self.returncode is None:
            raise TimeoutError(f"still at work after {timeout} s", self.said())
        return self.said()

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        """End it, if it has not ended, and see it gone."""
        self._process.kill()
        self._process.join()


def start_facedan(*arguments: object, directory: Path | None = None, **environment: str) -> Started:
    """A facedan command in a process of its own."""
    return Started(run_sparingly, *arguments, directory=directory, **environment)


def ranks(count: int, work: Callable[..., object], *arguments: object, **environment: str) -> list[Started]:
    """Processes of one job as torchrun would start them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    sizes = {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count)}
    return [
        Started(work, *arguments, RANK=str(rank), LOCAL_RANK=str(rank), **sizes, **meeting, **environment)
        for rank in range(count)
    ]


@contextmanager
def ending(*processes: Started) -> Iterator[None]:
    """None of these outlives the block."""
    try:
        yield
    finally:
        for process in processes:
            process.kill()


def facedan_ranks(count: int, *arguments: object, **environment: str) -> tuple[str, str]:
    """What the processes of one job say together on stdout and stderr; all of them end well."""
    running = ranks(count, run_sparingly, *arguments, **environment)
    with ending(*running):
        said = [rank.communicate(240) for rank in running]
        assert [rank.returncode for rank in running] == [0] * count, said
    out, err = ("".join(parts) for parts in zip(*said, strict=True))
    return out, err


def run_together(work: Callable[..., object], parts: int, directory: Path, *arguments: object) -> None:
    """Do work(part, parts, directory, …) in each of several processes and see all of them end well."""
    running = [Started(work, part, parts, directory, *arguments) for part in range(parts)]
    with ending(*running):
        for process in running:
            said = process.communicate()
            assert process.returncode == 0, said


@contextmanager
def joined(part: int, parts: int, directory: Path) -> Iterator[None]:
    """Meet the others in their directory. They have to part as well: else gloo's threads abort some way out."""
    if parts == 1:
        yield
        return
    distributed.init_process_group("gloo", init_method=f"file://{directory}/store", rank=part, world_size=parts)
    try:
        yield
    finally:
        distributed.destroy_process_group()


@cache
def _fork_server() -> Any:
    """The context in which processes are forked from one that has read the libraries."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["pytest", "tiny", *LATER, *(f"facedan_cli.{name}" for name in READ)])
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("PYTHONPATH", os.pathsep.join((str(PACKAGE), str(Path(__file__).parent))))
        forkserver.ensure_running()
    atexit.register(forkserver._forkserver._stop)  # waits for it: the processor time of the tests is all of theirs
    return context


def _begin(
    said: Sequence[Path],
    directory: Path,
    environment: dict[str, str],
    work: Callable[..., object],
    arguments: Sequence[object],
) -> None:
    for number, path in zip((1, 2), said, strict=True):
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, number)
        os.close(file)
    os.chdir(directory)
    os.environ.clear()
    os.environ.update(environment)
    work(*arguments)


def run_facedan(*arguments: object) -> None:
    """A facedan command as its users have it."""
    sys.argv = ["facedan", *map(str, arguments)]
    main()


def run_sparingly(*arguments: object) -> None:
    """A facedan command with the savings of all tests."""
    with savings():
        run_facedan(*arguments)
