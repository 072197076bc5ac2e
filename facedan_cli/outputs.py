"""Checks that files of runs are unchanged, by size and times or, if these differ, by their bytes."""

from __future__ import annotations

import stat
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from facedan_cli.workspace import sha256_file


def record_of(directory: Path, outputs: Iterable[str]) -> dict[str, dict[str, Any]]:
    """The state of a directory's files, for later comparison by `is_intact`.

    Args:
        directory: directory of the files.
        outputs: paths below it, with forward slashes.
    """
    names = list(outputs)
    return {
        "outputs": {name: sha256_file(directory / name) for name in names},
        "states": {name: state_of(directory / name) for name in names},
    }


def is_intact(directory: Path, output: Path, record: Mapping[str, Any]) -> bool:
    """Whether a file of a run is unchanged, by size and times or, if these differ, by its bytes.

    Args:
        directory: directory of the run.
        output: one of its files.
        record: record with the state of `record_of`. A file without a state counts as damaged only if it is empty.
    """
    state = state_of(output)
    if not state.get("bytes"):
        return False
    name = output.relative_to(directory).as_posix()
    outputs, states = record.get("outputs"), record.get("states")
    if not isinstance(outputs, dict) or name not in outputs:
        return True
    if isinstance(states, dict) and states.get(name) == state:
        return True
    known: object = outputs[name]
    return _sha256_at(output, tuple(state.values())) == known


def state_of(path: Path) -> dict[str, int]:
    """Size, mtime and ctime of a file, which change when it is written; empty without a file."""
    try:
        status = path.stat()
    except OSError:
        return {}
    if not stat.S_ISREG(status.st_mode):
        return {}
    return {
        "bytes": status.st_size,
        "modified_ns": status.st_mtime_ns,
        "changed_ns": status.st_ctime_ns,
        "inode": status.st_ino,
    }


@lru_cache
def _sha256_at(path: Path, _: tuple[int, ...]) -> str:
    """The digest of a file in a state; "" if it cannot be read."""
    try:
        return sha256_file(path)
    except OSError:
        return ""
