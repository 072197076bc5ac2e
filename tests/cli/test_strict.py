"""--strict: faces that are not aligned as a network expects are refused before any work."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny import mark_aligned


@pytest.fixture
def root(trained: Any, tmp_path: Path) -> Path:
    """A workspace with finished runs, whose faces are all said to be on another template than the network's."""
    import shutil

    place = Path(shutil.copytree(trained.workspace.root, tmp_path / "place"))
    for name in ("casia", "frgc", "gbu"):
        mark_aligned(place / "aligned" / name, "lfw")
    for name in ("results", "embeddings"):
        shutil.rmtree(place / name, ignore_errors=True)
    return place


@pytest.mark.parametrize(
    "command",
    [
        ("pretrain", "--source", "casia", "--seed", 9),
        ("adapt", "--source", "casia", "--target", "frgc", "--seed", 9),
        ("embed", "gbu"),
        ("evaluate", "gbu"),
        ("evaluate", "verify", "casia"),
        ("table", "gbu", "--source", "casia", "--target", "frgc", "--rows", "source,control", "--seeds", 9),
    ],
)
def test_it_refuses_and_names_the_command_that_mends_it(
    facedan: Callable[..., Any], root: Path, command: tuple[object, ...]
) -> None:
    before = sorted(root.rglob("*"))
    refused = facedan(*command, "--strict", "-w", root)
    assert (refused.code, refused.out) == (1, "")
    assert "--strict: the faces of 'casia'" in refused.err or "--strict: the faces of 'gbu'" in refused.err
    assert "facedan align RAW ALIGNED --for vggface-mini" in " ".join(refused.err.split())
    assert not [path for path in set(root.rglob("*")) - set(before) if path.parent.name in ("runs", "results")]


def test_faces_as_expected_pass(facedan: Callable[..., Any], root: Path) -> None:
    mark_aligned(root / "aligned" / "gbu", "vggface")
    assert facedan("embed", "gbu", "--strict", "-w", root).code == 0
    lax = facedan("evaluate", "gbu", "-w", root, "--replicates", 0)
    strict = facedan("evaluate", "gbu", "-w", root, "--replicates", 0, "--strict")
    assert (lax.code, strict.code) == (0, 0)
    assert strict.out == lax.out
