from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from facedan_cli.config.common import EmbedConfig
from facedan_cli.data.dataset import read_dataset
from facedan_cli.embedding.embed import embed
from facedan_cli.embedding.model import LBP
from facedan_cli.runs import Run
from facedan_cli.training.datasets import read_source, write_unusable
from facedan_cli.workspace import Dataset, Workspace, read_set_aside

RNG = np.random.default_rng(0)
REASON = "the directory cannot be read: Permission denied"


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two identities; a directory of one may not be read, which root could, and a named pipe is named as an image."""
    for name in ("ann/1.png", "bob/1.png", "bob/private/2.png"):
        path = tmp_path / "faces" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(RNG.integers(0, 256, (40, 40, 3), np.uint8)).save(path)
    os.mkfifo(tmp_path / "faces" / "ann" / "pipe.png")
    scan = os.scandir

    def guarded(path: str) -> object:
        if Path(path) == tmp_path / "faces" / "bob" / "private":
            raise PermissionError(13, "Permission denied")
        return scan(path)

    monkeypatch.setattr(os, "scandir", guarded)
    return tmp_path


def test_embed_sets_them_aside(tree: Path) -> None:
    result = embed(EmbedConfig(dataset="faces"), read_dataset(tree / "faces"), LBP, Workspace.open(tree))
    assert result.images == 2
    lost = {"bob/private/": REASON, "ann/pipe.png": "a named pipe, not a file"}
    assert read_set_aside(result.set_aside) == lost
    again = embed(EmbedConfig(dataset="faces"), read_dataset(tree / "faces"), LBP, Workspace.open(tree))
    assert again.skipped
    assert read_set_aside(again.set_aside) == lost


def test_trainings_set_them_aside(tree: Path) -> None:
    source = read_source(Dataset("faces", tree / "faces"))
    assert source.folder.paths == ("ann/1.png", "ann/pipe.png", "bob/1.png")
    run = Run(tree / "run", "pretrain", {}, "", {})
    assert read_set_aside(write_unusable(run, {}, source.unlabelled, source.folder.skipped)) == {"bob/private/": REASON}
