"""Several processes that do one job without torchrun: how a test starts them, and how they meet."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from torch import distributed

import facedan_cli

PACKAGE = Path(facedan_cli.__file__).parents[1]  # not installed where the tests run from a checkout
MODULES = os.pathsep.join((str(PACKAGE), str(Path(__file__).parent)))


def run_together(script: Path, parts: int, directory: Path, *arguments: str) -> None:
    """Start a script as each of several processes and see all of them end well.

    Each is told its number, how many they are, the directory that they share, and what else is given.
    """
    environment = {**os.environ, "PYTHONPATH": MODULES}
    commands = [
        [sys.executable, str(script), str(part), str(parts), str(directory), *arguments] for part in range(parts)
    ]
    running = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) for command in commands]
    try:
        for process in running:
            _, errors = process.communicate(timeout=120)
            assert process.returncode == 0, errors
    finally:
        for process in running:
            process.kill()


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
