"""Alignment by several processes of torchrun: each has its share of the images and its own manifest.

The shares do not overlap, and what becomes of an image does not depend on who aligns it: together the processes
make the files that one would. Each appends to a part of its own, aligned.rank1-of-4.jsonl. At the end, or at the
beginning of a later run where a job was killed, the parts are appended to aligned.jsonl.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from facedan_cli.data.manifest import ManifestWriter
from facedan_cli.distributed import DistEnv
from facedan_cli.workspace import MANIFEST_FILE

_PARTS = "aligned.rank*-of-*.jsonl"
_MERGING = "aligned.merging-at-"
_CHUNK = 1 << 24


def share_of(ranks: DistEnv, keys: np.ndarray) -> np.ndarray:
    """Whether each image, by the digest of its path, belongs to this process."""
    mine: np.ndarray = keys % np.uint64(ranks.count) == ranks.rank
    return mine


def manifest_of(ranks: DistEnv, out: Path) -> Path:
    """The manifest that a process writes."""
    return out / (MANIFEST_FILE if ranks.count == 1 else f"aligned.rank{ranks.rank}-of-{ranks.count}.jsonl")


def merge_parts(out: Path) -> None:
    """Append the processes' manifests to aligned.jsonl; an interruption neither loses nor repeats a line.

    Raises:
        FacedanError: one of these processes is still running.
    """
    for part in out.glob(f"{_MERGING}*.jsonl"):  # an interrupted merge is repeated
        start = part.stem.removeprefix(_MERGING)
        if not (start.isdecimal() and start.isascii() and len(start) < 19):
            continue  # not a file of facedan
        if (out / MANIFEST_FILE).exists() and (out / MANIFEST_FILE).stat().st_size > int(start):
            os.truncate(out / MANIFEST_FILE, int(start))
        _append(out / MANIFEST_FILE, part)
    for part in sorted(out.glob(_PARTS)):
        with ManifestWriter(part), ManifestWriter(out / MANIFEST_FILE) as manifest:
            marked = part.rename(out / f"{_MERGING}{manifest.end}.jsonl")
        _append(out / MANIFEST_FILE, marked)


def _append(manifest: Path, part: Path) -> None:
    with ManifestWriter(manifest) as writer, part.open("rb") as lines:
        while chunk := lines.read(_CHUNK):
            writer.append_lines(chunk)
    part.unlink()
