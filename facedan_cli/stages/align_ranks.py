"""Alignment by several processes, which torchrun starts: each has its share of the photographs and its own manifest.

The shares do not overlap, and what becomes of a photograph does not depend on who aligns it: together the processes
make the files that one would. Each appends to a part of its own, aligned.rank1-of-4.jsonl. At the end, or at the
beginning of a later run where a job was killed, the parts are appended to aligned.jsonl.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import distributed

from facedan_cli.errors import FacedanError
from facedan_cli.faces.records import ManifestWriter
from facedan_cli.workspace import MANIFEST_FILE

PATIENCE = timedelta(days=7)
"""Processes wait for each other at the end only, and some have the slower disk."""

_PARTS = "aligned.rank*-of-*.jsonl"
_MERGING = "aligned.merging-at-"
_STRETCH = 1 << 24

Item = TypeVar("Item")


@dataclass(frozen=True)
class Ranks:
    """Which of several processes this one is, as torchrun says it; one that works alone is the first of one.

    Args:
        rank: its number among all.
        count: all processes, on all machines.
        local_rank: its number on this machine.
        local_count: the processes on this machine.
    """

    rank: int = 0
    count: int = 1
    local_rank: int = 0
    local_count: int = 1

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Ranks:
        """The ranks that the environment names."""
        names = {"rank": "RANK", "count": "WORLD_SIZE", "local_rank": "LOCAL_RANK", "local_count": "LOCAL_WORLD_SIZE"}
        return cls(**{field: int(environment[name]) for field, name in names.items() if name in environment})

    @property
    def first(self) -> bool:
        """Whether this process does what is done once."""
        return self.rank == 0

    def share(self, keys: np.ndarray) -> np.ndarray:
        """Which photographs, by the digests of their paths, are this process's."""
        mine: np.ndarray = keys % np.uint64(self.count) == self.rank
        return mine

    def manifest(self, out: Path) -> Path:
        """Where this process writes."""
        return out / (MANIFEST_FILE if self.count == 1 else f"aligned.rank{self.rank}-of-{self.count}.jsonl")

    def device(self, device: torch.device) -> torch.device:
        """This process's own GPU where only the kind of device is given."""
        if str(device) != "cuda":
            return device
        return torch.device("cuda", self.local_rank % torch.cuda.device_count())

    @contextmanager
    def joined(self) -> Iterator[None]:
        """Meet the other processes, and part from them at the end."""
        if self.count == 1:
            yield
            return
        distributed.init_process_group("gloo", timeout=PATIENCE)
        try:
            yield
        finally:
            distributed.destroy_process_group()

    def gather(self, items: Sequence[Item]) -> list[Item]:
        """The items of all processes, for the first; it is also where they wait for each other.

        Raises:
            FacedanError: another process has ended too early.
        """
        if self.count == 1:
            return list(items)
        gathered: list[Sequence[Item]] | None = [()] * self.count if self.first else None
        try:
            distributed.gather_object(items, gathered)
            distributed.barrier()
        except RuntimeError as error:
            raise FacedanError("another process of this job has ended", "its own message says why") from error
        return [item for part in gathered or () for item in part]


def merge_parts(out: Path) -> None:
    """Append to aligned.jsonl what processes wrote beside it; a kill at any moment loses no line and repeats none.

    Raises:
        FacedanError: one of them is still at work.
    """
    for part in out.glob(f"{_MERGING}*.jsonl"):  # a merge was cut short here: it is done again
        start = int(part.stem.removeprefix(_MERGING))
        if (out / MANIFEST_FILE).stat().st_size > start:
            os.truncate(out / MANIFEST_FILE, start)
        _append(out / MANIFEST_FILE, part)
    for part in sorted(out.glob(_PARTS)):
        with ManifestWriter(part), ManifestWriter(out / MANIFEST_FILE) as manifest:
            marked = part.rename(out / f"{_MERGING}{manifest.end}.jsonl")
        _append(out / MANIFEST_FILE, marked)


def _append(manifest: Path, part: Path) -> None:
    with ManifestWriter(manifest) as writer, part.open("rb") as lines:
        while stretch := lines.read(_STRETCH):
            writer.append_lines(stretch)
    part.unlink()
